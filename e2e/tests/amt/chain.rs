//! Relays below relays (RFC 8313 §3.3, §3.5): one copy a link, whatever hangs below, whichever tunnel is above.

use crate::gateway::Gateway;
use crate::{LATE, SOON, passed};
use anyhow::{Context, Result, ensure};
use castgate_e2e::fleet::{Agent, ServerConfig, TUNNEL_PORT, start_server};
use castgate_e2e::lab::impair::{Link, Way};
use castgate_e2e::lab::{Lab, Scenario, wait};
use castgate_e2e::peers::frr::{Frr, Querier};
use castgate_e2e::peers::native::Source;
use castgate_e2e::receive::Receive;
use castgate_wire::amt::{MessageType, PORT, Repr};
use castgate_wire::membership::{Family, RecordType};
use castgate_wire::umtp::{Command, Trailer};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const CHANNEL_PORT: u16 = 5_004;
/// A hundred datagrams a second.
const PAUSE: Duration = Duration::from_millis(10);
const SSM: &str = "232.1.2.3";
const SOURCE: &str = "10.9.0.10";
/// A silent channel has lost its relay (RFC 8777 §2.5.3), and the next one is asked: the promise.
const TEN_SECONDS: Duration = Duration::from_secs(10);

/// A relay for the channel of [`SOURCE`] on a host: from its network, or from above.
fn relay<'a>(lab: &'a Lab, host: &str, lan: &str, interfaces: &[&str], above: Option<&str>) -> Result<Agent<'a>> {
    let host = lab.host(host);
    let address = host.address(lan);
    let mut config = ServerConfig::new(address, interfaces)
        .permit(&format!("group: {SSM}, source: {SOURCE}, ports: {CHANNEL_PORT}"))
        .line(&format!("amt: {{ listen: [\"{address}:{PORT}\"] }}"));
    if let Some(above) = above {
        config = config.line(&format!("upstream: {{ {above} }}"));
    }
    let agent = start_server(lab, host, &config)?;
    host.wait_udp(PORT, SOON)?;
    Ok(agent)
}

fn amt_above(relays: &[Ipv4Addr]) -> String {
    let servers: Vec<String> = relays.iter().map(ToString::to_string).collect();
    format!("protocol: amt, discovery: {{ static: {{ servers: [{}] }} }}", servers.join(", "))
}

/// The packets inside Multicast Data that went to a host since `start`, in order.
fn copies(link: &Link, start: Instant) -> Vec<Vec<u8>> {
    link.pick(|passage| {
        let datagram = passage.udp().filter(|_| passage.way == Way::Down && passage.at >= start)?;
        match Repr::parse(datagram.payload) {
            // Its payload begins with a number of its own; the hops that are left differ on each link.
            Ok(Repr::Data { packet }) => packet.get(28..36).map(<[u8]>::to_vec),
            _ => None,
        }
    })
}

#[test]
fn a_chain_of_relays_carries_one_copy_a_link_to_a_hundred_gateways() {
    const TOPOLOGY: &str = "
        far:    source 10.9.0.10/24, core 10.9.0.1/24
        studio: core 10.1.0.1/24, one 10.1.0.2/24
        upper:  one 192.0.2.1/24, two 192.0.2.2/24
        lower:  two 198.51.100.2/24, three 198.51.100.3/24
        edge:   three 203.0.113.3/24, homes 203.0.113.100/24
        router core: far
        link two upper: delay=1ms
        link three lower: delay=1ms
    ";
    Scenario::new(TOPOLOGY).needs(&["vtysh"]).run(|lab| {
        let (source, group): (Ipv4Addr, Ipv4Addr) = (SOURCE.parse()?, SSM.parse()?);
        let router = Frr::start(lab.host("core"), &["far", "studio"], Querier::default())?;
        let _one = relay(lab, "one", "upper", &["studio"], None)?;
        let _two = relay(lab, "two", "lower", &[], Some(&amt_above(&[lab.host("one").address("upper")])))?;
        let _three = relay(lab, "three", "edge", &[], Some(&amt_above(&[lab.host("two").address("lower")])))?;
        let _source = Source::start(lab.host("source"), "far", source.into(), (group, CHANNEL_PORT).into(), PAUSE)?;

        let homes = lab.host("homes");
        let last = homes_relay(lab);
        let gateways: Vec<Gateway> =
            (0..100).map(|_| Gateway::open(homes, "edge", last, Family::V4)).collect::<Result<_>>()?;
        for gateway in &gateways {
            gateway.report(RecordType::AllowNewSources, group.into(), &[source.into()])?;
        }
        router.wait_path((source, group), "far", "studio", SOON)?;
        for gateway in &gateways {
            gateway.wait_data()?;
        }
        // A client of the other tunnel is one more, and none above the last relay.
        let mut viewer = Receive::start(
            homes,
            &format!("ham:ip:{SSM}@{SOURCE}:{CHANNEL_PORT}"),
            &["--server", &format!("{last}:{TUNNEL_PORT}")],
        )?;
        viewer.wait_packets(100, SOON)?;

        let [upper, lower] = [lab.link("two", "upper"), lab.link("three", "lower")];
        let start = Instant::now();
        viewer.wait_packets(viewer.latest().context("it has reported")?.packets() + 200, SOON)?;
        for (name, link) in [("upper", upper), ("lower", lower)] {
            let copies = copies(link, start);
            ensure!(copies.len() >= 150, "{name}: {} packets", copies.len());
            ensure!(copies.windows(2).all(|pair| pair[0] < pair[1]), "{name}: a packet went twice or out of order");
        }
        ensure!(router.sources("studio", group)? == [source], "joined {:?}", router.sources("studio", group)?);

        for gateway in &gateways {
            gateway.report(RecordType::BlockOldSources, group.into(), &[source.into()])?;
        }
        // The viewer is still there.
        viewer.wait_packets(viewer.latest().context("it has reported")?.packets() + 100, SOON)?;
        viewer.finish()?;
        wait::until("the leave of the first relay", SOON, || (!lab.host("one").is_member(group)).then_some(()))?;
        router.wait_no_path(source, group, LATE)?;
        for link in [upper, lower] {
            let last = passed(link, Way::Down, MessageType::Data).1.context("no data at all")?;
            wait::until("silence in the tunnel", SOON, || (last.elapsed() > PAUSE * 25).then_some(()))?;
        }
        Ok(())
    });
}

fn homes_relay(lab: &Lab) -> Ipv4Addr {
    lab.host("three").address("edge")
}

#[test]
fn a_relay_takes_its_channels_from_a_umtp_server_too() {
    const TOPOLOGY: &str = "
        studio: source 10.9.0.10/24, server 10.9.0.2/24
        upper:  server 192.0.2.1/24, relay 192.0.2.2/24
        edge:   relay 203.0.113.3/24, home 203.0.113.100/24
        link relay upper: delay=1ms
    ";
    Scenario::new(TOPOLOGY).run(|lab| {
        let group: Ipv4Addr = SSM.parse()?;
        let server = lab.host("server").address("upper");
        let _server = relay(lab, "server", "upper", &["studio"], None)?;
        let above = format!("protocol: umtp, discovery: {{ static: {{ servers: [{server}] }} }}");
        let _relay = relay(lab, "relay", "edge", &[], Some(&above))?;
        let source: Ipv4Addr = SOURCE.parse()?;
        let _source = Source::start(lab.host("source"), "studio", source.into(), (group, CHANNEL_PORT).into(), PAUSE)?;

        let (home, below) = (lab.host("home"), lab.host("relay").address("edge"));
        let name = format!("ham:ip:{SSM}@{SOURCE}:{CHANNEL_PORT}");
        let mut by_amt = Receive::start(home, &name, &["--via", "amt", "--relay", &below.to_string()])?;
        let mut by_umtp = Receive::start(home, &name, &["--server", &format!("{below}:{TUNNEL_PORT}")])?;
        for viewer in [&mut by_amt, &mut by_umtp] {
            viewer.wait_packets(200, SOON)?;
        }
        // However many are below: each packet came once.
        let numbers = lab.link("relay", "upper").pick(|passage| {
            let datagram = passage.udp().filter(|_| passage.way == Way::Down)?;
            let (payload, trailer) = Trailer::parse(datagram.payload).ok()?;
            (trailer.command == Command::Data).then(|| payload.get(..8).map(<[u8]>::to_vec))
        });
        ensure!(numbers.len() >= 200, "{} packets", numbers.len());
        ensure!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "a packet went twice or out of order");
        by_amt.finish()?;
        by_umtp.finish()?;
        wait::until("the leave of the server", SOON, || (!lab.host("server").is_member(group)).then_some(()))
    });
}

#[test]
fn a_relay_whose_relay_dies_takes_the_next_within_ten_seconds() {
    const TOPOLOGY: &str = "
        studio: source 10.9.0.10/24, first 10.9.0.2/24, second 10.9.0.3/24
        upper:  first 192.0.2.1/24, second 192.0.2.2/24, relay 192.0.2.3/24
        edge:   relay 203.0.113.3/24, home 203.0.113.100/24
    ";
    Scenario::new(TOPOLOGY).run(|lab| {
        let (group, source): (Ipv4Addr, Ipv4Addr) = (SSM.parse()?, SOURCE.parse()?);
        let mut first = relay(lab, "first", "upper", &["studio"], None)?;
        let _second = relay(lab, "second", "upper", &["studio"], None)?;
        let above = amt_above(&["first", "second"].map(|name| lab.host(name).address("upper")));
        let _relay = relay(lab, "relay", "edge", &[], Some(&above))?;
        let _source = Source::start(lab.host("source"), "studio", source.into(), (group, CHANNEL_PORT).into(), PAUSE)?;
        let below = lab.host("relay").address("edge");
        let name = format!("ham:ip:{SSM}@{SOURCE}:{CHANNEL_PORT}");
        let words = ["--server", &format!("{below}:{TUNNEL_PORT}")];
        let mut viewer = Receive::start(lab.host("home"), &name, &words)?;
        viewer.wait_packets(100, SOON)?;
        ensure!(lab.host("first").is_member(group), "the first of the list is not used");
        first.kill()?;
        let packets = viewer.latest().context("it has reported")?.packets();
        viewer.wait_packets(packets + 200, SOON)?;
        ensure!(lab.host("second").is_member(group), "nobody has joined");
        let total = viewer.finish()?;
        let gap = Duration::from_millis(total.number("longest_gap_ms"));
        ensure!(gap < TEN_SECONDS, "the channel was away for {gap:?}");
        Ok(())
    });
}
