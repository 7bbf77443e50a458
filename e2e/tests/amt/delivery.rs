//! What a relay brings to hosts that know nothing of tunnels.

use crate::SOON;
use anyhow::{Result, ensure};
use castgate_e2e::fleet::{Agent, ServerConfig, TUNNEL_PORT, start_server};
use castgate_e2e::lab::impair::{Link, Way};
use castgate_e2e::lab::{Lab, Scenario, wait};
use castgate_e2e::peers::native::{Member, Source};
use castgate_e2e::receive::Receive;
use castgate_wire::amt::PORT;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const CHANNEL_PORT: u16 = 5_004;
/// A hundred datagrams a second.
const PAUSE: Duration = Duration::from_millis(10);
const NEWS: &str = "232.1.2.3";
const SPORTS: &str = "232.1.2.4";
const TALK: &str = "239.1.2.3";
/// No rule names it.
const OTHER: &str = "232.9.9.9";
const SOURCE: &str = "10.1.0.10";
const TOPOLOGY: &str = "
    studio: source 10.1.0.10/24, server 10.1.0.2/24
    upper:  server 192.0.2.1/24, relay 192.0.2.2/24
    sofa:   relay 10.2.0.1/24, player 10.2.0.11/24
    link player sofa: delay=1ms
";

/// A server in the studio, and a relay below it that delivers.
fn chain<'a>(lab: &'a Lab, delivery: &str) -> Result<[Agent<'a>; 2]> {
    let agent = |host: &str, lan: &str, interfaces: &[&str], line: &str| {
        let host = lab.host(host);
        let address = host.address(lan);
        let mut config = ServerConfig::new(address, interfaces);
        for group in [NEWS, SPORTS] {
            config = config.permit(&format!("group: {group}, source: {SOURCE}, ports: {CHANNEL_PORT}"));
        }
        let config = config.permit(&format!("group: {TALK}, ports: {CHANNEL_PORT}")).line(line);
        start_server(lab, host, &config)
    };
    let above = lab.host("server").address("upper");
    let server = agent("server", "upper", &["studio"], &format!("amt: {{ listen: [\"{above}:{PORT}\"] }}"))?;
    lab.host("server").wait_udp(PORT, SOON)?;
    let upstream = format!(
        "upstream: {{ protocol: amt, discovery: {{ static: {{ servers: [{above}] }} }}, delivery: {{ {delivery} }} }}"
    );
    Ok([server, agent("relay", "sofa", &[], &upstream)?])
}

fn sources(lab: &Lab, groups: &[&str]) -> Result<Vec<Source>> {
    let from: IpAddr = SOURCE.parse()?;
    let start = |group: &&str| {
        let to = (group.parse::<IpAddr>()?, CHANNEL_PORT).into();
        Source::start(lab.host("source"), "studio", from, to, PAUSE)
    };
    groups.iter().map(start).collect()
}

/// How many datagrams of a group went to the player.
fn arrived(link: &Link, group: &str) -> usize {
    let group: Ipv4Addr = group.parse().expect("a constant of this file");
    link.pick(|passage| passage.udp().filter(|_| passage.way == Way::Down)?.to.ip().eq(&group).then_some(())).len()
}

#[test]
fn hosts_of_a_network_get_what_they_ask_for_with_its_source_and_no_more() {
    Scenario::new(TOPOLOGY).run(|lab| {
        let _agents = chain(lab, "interfaces: [sofa]")?;
        let _sources = sources(lab, &[NEWS, SPORTS, TALK, OTHER])?;
        let player = lab.host("player");
        let from: IpAddr = SOURCE.parse()?;
        let news = Member::join(player, "sofa", NEWS.parse()?, Some(from), CHANNEL_PORT)?;
        let talk = Member::join(player, "sofa", TALK.parse()?, None, CHANNEL_PORT)?;
        let _other = Member::join(player, "sofa", OTHER.parse()?, Some(from), CHANNEL_PORT)?;
        for member in [&news, &talk] {
            member.wait_more(50, SOON)?;
            ensure!(member.heard().iter().all(|(sender, _)| sender.ip() == from), "from {:?}", member.heard()[0].0);
        }
        // A client of a tunnel wants another channel: nobody on the network does.
        let below = lab.host("relay").address("sofa");
        let name = format!("ham:ip:{SPORTS}@{SOURCE}:{CHANNEL_PORT}");
        let mut viewer = Receive::start(player, &name, &["--server", &format!("{below}:{TUNNEL_PORT}")])?;
        viewer.wait_packets(100, SOON)?;
        viewer.finish()?;
        let link = lab.link("player", "sofa");
        ensure!(arrived(link, SPORTS) == 0, "{} datagrams that nobody asked for", arrived(link, SPORTS));
        ensure!(arrived(link, OTHER) == 0, "{} datagrams that no rule permits", arrived(link, OTHER));

        // The last one leaves: the relay asks whether anybody is left, hears nothing, and leaves above.
        drop(news);
        wait::until("the leave above", SOON, || {
            let group = NEWS.parse().ok()?;
            (!lab.host("server").is_member(group)).then_some(())
        })?;
        let before = arrived(link, NEWS);
        talk.wait_more(50, SOON)?;
        ensure!(arrived(link, NEWS) == before, "it goes on after the leave");
        Ok(())
    });
}

#[test]
fn programs_of_the_relays_machine_get_channels_on_a_tun_interface() {
    Scenario::new(TOPOLOGY).run(|lab| {
        let relay = lab.host("relay");
        relay.enter(|| std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0"))??;
        let _agents = chain(lab, "tun: tv0")?;
        let _sources = sources(lab, &[NEWS])?;
        let from: IpAddr = SOURCE.parse()?;
        let news = Member::join(relay, "tv0", NEWS.parse()?, Some(from), CHANNEL_PORT)?;
        news.wait_more(50, SOON)?;
        ensure!(news.heard().iter().all(|(sender, _)| sender.ip() == from), "from {:?}", news.heard()[0].0);
        drop(news);
        wait::until("the leave above", SOON, || {
            let group = NEWS.parse().ok()?;
            (!lab.host("server").is_member(group)).then_some(())
        })
    });
}
