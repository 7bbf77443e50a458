//! Many channels and several interfaces: more than one kernel socket holds, and no router where there should be none.

use crate::SOON;
use anyhow::{Context, Result, ensure};
use castgate_e2e::fleet::{ServerConfig, TUNNEL_PORT, start_server};
use castgate_e2e::hostile::Peer;
use castgate_e2e::lab::{Scenario, wait};
use castgate_e2e::recorder::{Recorder, sender};
use castgate_wire::umtp::{Channel, Command};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), TUNNEL_PORT);
/// Three times what one socket may join.
const GROUPS: u8 = 60;
/// More than twice what one socket may name for a group.
const SOURCES: u8 = 25;

#[test]
fn sixty_groups_and_twenty_five_sources_of_one_group_all_arrive() {
    let topology = "
        studio:   source 10.1.0.10/24, server 10.1.0.2/24
        internet: server 192.0.2.2/24, client 192.0.2.50/24
    ";
    Scenario::new(topology).run(|lab| {
        let sources = || (0..SOURCES).map(|number| Ipv4Addr::new(10, 1, 0, 100 + number));
        let mut config = ServerConfig::home().permit("group: 239.3.0.0, ports: 5004");
        for number in 1..GROUPS {
            config = config.permit(&format!("group: 239.3.0.{number}, ports: 5004"));
        }
        for source in sources() {
            config = config.permit(&format!("group: 232.3.3.3, source: {source}, ports: 5004"));
        }
        let _server = start_server(lab, lab.host("server"), &config)?;
        let source_host = lab.host("source");
        let lines: Vec<String> = sources().map(|source| format!("addr add {source}/24 dev studio\n")).collect();
        source_host.ip(&lines.concat())?;

        let any = (0..GROUPS).map(|n| Channel { group: Ipv4Addr::new(239, 3, 0, n), source: None, port: 5004 });
        let group = Ipv4Addr::new(232, 3, 3, 3);
        let specific = sources().map(|source| Channel { group, source: Some(source), port: 5004 });
        let channels: Vec<Channel> = any.chain(specific).collect();
        let peer = Peer::open(lab.host("client"), SERVER)?;
        let cookie = peer.learn_cookie()?;
        for channel in &channels {
            peer.say(Command::JoinGroup, *channel, 16, cookie, &[])?;
        }
        for channel in &channels {
            lab.host("server").wait_member(channel.group, SOON)?;
        }
        let default = sender(source_host, "studio")?;
        let own = sources()
            .map(|source| -> Result<(Ipv4Addr, UdpSocket)> {
                let open = || -> std::io::Result<UdpSocket> {
                    let socket = UdpSocket::bind((source, 0))?;
                    socket2::SockRef::from(&socket).set_multicast_if_v4(&source)?;
                    Ok(socket)
                };
                Ok((source, source_host.enter(open)??))
            })
            .collect::<Result<Vec<_>>>()?;
        // Each channel gets its own name as payload. The last source's join may be a moment younger than the group's.
        let missing = || {
            let heard: BTreeSet<String> =
                peer.heard(Command::Data).iter().map(|(trailer, _)| trailer.channel.to_string()).collect();
            channels.iter().filter(|channel| !heard.contains(&channel.to_string())).copied().collect::<Vec<_>>()
        };
        wait::until("every channel", SOON, || {
            for channel in missing() {
                let socket = match channel.source {
                    None => &default,
                    Some(source) => own.iter().find(|(address, _)| *address == source).map(|(_, socket)| socket)?,
                };
                socket.send_to(channel.to_string().as_bytes(), (channel.group, channel.port)).ok()?;
            }
            missing().is_empty().then_some(())
        })
        .with_context(|| format!("still missing: {:?}", missing()))?;
        let wrong = peer
            .heard(Command::Data)
            .into_iter()
            .find(|(trailer, head)| trailer.channel.to_string().as_bytes() != head.as_slice());
        ensure!(wrong.is_none(), "one channel's packet came as another's: {wrong:?}");
        Ok(())
    });
}

#[test]
fn a_server_with_two_interfaces_takes_from_both_and_routes_between_none() {
    let topology = "
        studio:   source 10.1.0.10/24, server 10.1.0.2/24, neighbour 10.1.0.20/24
        annex:    guest 10.5.0.10/24, server 10.5.0.2/24, lodger 10.5.0.20/24
        internet: server 192.0.2.2/24, client 192.0.2.50/24
    ";
    Scenario::new(topology).run(|lab| {
        let config = ServerConfig::new(*SERVER.ip(), &["studio", "annex"])
            .permit("group: 239.7.7.7, ports: 5004, send: true, ttl: 8")
            .permit("group: 232.5.5.5, source: 10.5.0.10, ports: 5004");
        let _server = start_server(lab, lab.host("server"), &config)?;
        let any: Channel = "239.7.7.7:5004".parse()?;
        let specific: Channel = "232.5.5.5@10.5.0.10:5004".parse()?;
        let studio = Recorder::start(lab.host("neighbour"), "studio", any)?;
        let annex = Recorder::start(lab.host("lodger"), "annex", any)?;
        let peer = Peer::open(lab.host("client"), SERVER)?;
        let cookie = peer.learn_cookie()?;
        for channel in [any, specific] {
            peer.say(Command::JoinGroup, channel, 16, cookie, &[])?;
            lab.host("server").wait_member(channel.group, SOON)?;
        }
        let from_studio = sender(lab.host("source"), "studio")?;
        let from_annex = sender(lab.host("guest"), "annex")?;
        from_studio.send_to(b"studio", (any.group, any.port))?;
        from_annex.send_to(b"annex", (any.group, any.port))?;
        from_annex.send_to(b"specific", (specific.group, specific.port))?;
        let heads = || -> BTreeSet<Vec<u8>> { peer.heard(Command::Data).into_iter().map(|(_, head)| head).collect() };
        wait::until("all three", SOON, || (heads().len() == 3).then_some(()))?;
        peer.say(Command::Data, any, 16, cookie, b"upstream")?;
        for recorder in [&studio, &annex] {
            recorder.wait_count(2, SOON)?;
        }
        studio.wait_quiet(std::time::Duration::from_millis(300), SOON)?;
        // Each LAN hears its own and the tunnel, once; not the other LAN.
        let heard = |recorder: &Recorder| -> Vec<Vec<u8>> {
            recorder.heard().into_iter().map(|datagram| datagram.payload).collect()
        };
        ensure!(heard(&studio) == [b"studio".to_vec(), b"upstream".to_vec()], "{:?}", studio.heard());
        ensure!(heard(&annex) == [b"annex".to_vec(), b"upstream".to_vec()], "{:?}", annex.heard());
        ensure!(peer.heard(Command::Data).len() == 3, "his own came back: {:?}", peer.heard(Command::Data));
        Ok(())
    });
}
