//! Our relay among others: gateways of Linux below it, a router of an ISP above it, tshark beside it.

use crate::gateway::Gateway;
use crate::{LATE, SOON, passed};
use anyhow::{Context, Result, ensure};
use castgate_e2e::capture::Capture;
use castgate_e2e::fleet::{Agent, ServerConfig, start_server};
use castgate_e2e::lab::impair::Way;
use castgate_e2e::lab::{Lab, Scenario, wait};
use castgate_e2e::peers::frr::{Frr, Querier};
use castgate_e2e::peers::kernel_amt::{KernelAmt, Sides};
use castgate_e2e::peers::native::{self, Heard, Member, Source};
use castgate_e2e::peers::require_machine;
use castgate_e2e::peers::tshark::{Dissection, fields};
use castgate_wire::amt::{MessageType, PORT};
use castgate_wire::membership::{Family, RecordType};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

const CHANNEL_PORT: u16 = 5_004;
/// Fifty datagrams a second.
const PAUSE: Duration = Duration::from_millis(20);
const QUERY_INTERVAL: Duration = Duration::from_secs(4);
/// Robustness times query interval and a response interval of 1 s: what a gateway lives without a word.
const ENDPOINT_LIFE: Duration = Duration::from_secs(9);
const ASM: &str = "239.1.2.3";
const SSM: &str = "232.1.2.3";
const SSM_V6: &str = "ff3e::4321:1234";

/// Starts a tunnel server with a relay for the channels of the source at 10.1.0.10 and `fd00:1::10`.
fn start_relay<'a>(lab: &'a Lab, source: &str) -> Result<Agent<'a>> {
    let host = lab.host("server");
    let address = host.address("internet");
    let config = ServerConfig::new(address, &["studio"])
        .permit(&format!("group: {ASM}, ports: {CHANNEL_PORT}"))
        .permit(&format!("group: {SSM}, source: {source}, ports: {CHANNEL_PORT}"))
        .permit(&format!("group: \"{SSM_V6}\", source: \"fd00:1::10\", ports: {CHANNEL_PORT}"))
        .line(&format!(
            "amt: {{ listen: [\"{address}:{PORT}\"], timers: {{ queryIntervalMs: {}, queryResponseIntervalMs: 1000 }} }}",
            QUERY_INTERVAL.as_millis()
        ));
    let agent = start_server(lab, host, &config)?;
    host.wait_udp(PORT, SOON)?;
    Ok(agent)
}

#[test]
fn the_kernels_gateway_gets_what_it_asks_our_relay_for_as_long_as_it_asks_and_no_longer() {
    const TOPOLOGY: &str = "
        studio:   source 10.1.0.10/24, server 10.1.0.2/24
        internet: server 192.0.2.2/24, gateway 192.0.2.30/24
        sofa:     gateway 10.2.0.1/24, player 10.2.0.11/24
        link gateway internet: delay=1ms
    ";
    if !require_machine() {
        return;
    }
    Scenario::new(TOPOLOGY).needs(&["tshark"]).run(|lab| {
        let [source, server, player] = ["source", "server", "player"].map(|name| lab.host(name));
        native::add_ipv6(source, "studio", "fd00:1::10".parse()?)?;
        native::add_ipv6(server, "studio", "fd00:1::2".parse()?)?;
        native::add_ipv6(player, "sofa", "fd00:2::11".parse()?)?;
        let relay = server.address("internet");
        let _server = start_relay(lab, "10.1.0.10")?;
        let sides = Sides { tunnel: "internet", native: "sofa" };
        let gateway = KernelAmt::gateway(lab.host("gateway"), sides, relay)?;
        let capture = Capture::start(lab.host("gateway"), "internet", "udp port 2268", lab.folder())?;
        let gateway = gateway.ready()?;
        gateway.wait_relay(relay, SOON)?;

        let join = |group: &str, from: &str, is_specific: bool| -> Result<(Source, Member)> {
            let (group, from): (IpAddr, IpAddr) = (group.parse()?, from.parse()?);
            let member = Member::join(player, "sofa", group, is_specific.then_some(from), CHANNEL_PORT)?;
            Ok((Source::start(source, "studio", from, (group, CHANNEL_PORT).into(), PAUSE)?, member))
        };
        let any = join(ASM, "10.1.0.10", false)?;
        let specific = join(SSM, "10.1.0.10", true)?;
        let v6 = join(SSM_V6, "fd00:1::10", true)?;
        for (_, member) in [&any, &specific, &v6] {
            member.wait_more(20, LATE)?;
        }
        for group in [ASM, SSM, SSM_V6] {
            ensure!(native::is_member(server, group.parse()?), "the relay has not joined {group}");
        }

        // Three query intervals are more than an endpoint lives unless it is refreshed.
        let start = Instant::now();
        while start.elapsed() < QUERY_INTERVAL * 3 {
            for (_, member) in [&any, &specific, &v6] {
                member.wait_more(50, SOON)?;
            }
        }
        for (_, member) in [&any, &specific, &v6] {
            check_sequence(&member.heard())?;
        }

        // A leave is one, at once.
        drop(specific.1);
        wait::until("the relay's leave", SOON, || (!server.is_member(SSM.parse().ok()?)).then_some(()))?;
        any.1.wait_more(50, SOON)?;
        v6.1.wait_more(50, SOON)?;

        check_messages(capture, relay)?;
        // And a gateway without current is forgotten.
        let silent_since = Instant::now();
        gateway.kill()?;
        for group in [ASM, SSM_V6] {
            let group: IpAddr = group.parse()?;
            wait::until(&format!("the end of {group}"), ENDPOINT_LIFE + SOON, || {
                (!native::is_member(server, group)).then_some(())
            })?;
        }
        // Its last word was at most two seconds before.
        let lived = silent_since.elapsed();
        ensure!(lived + Duration::from_secs(4) > ENDPOINT_LIFE, "forgotten after {lived:?}");
        let last = passed(lab.link("gateway", "internet"), Way::Down, MessageType::Data).1.context("no data at all")?;
        wait::until("silence in the tunnel", SOON, || (last.elapsed() > PAUSE * 25).then_some(()))
    });
}

/// Nothing twice and nothing out of order; losses only as a machine without acceleration has them.
fn check_sequence(heard: &[Heard]) -> Result<()> {
    let numbers: Vec<u64> = heard
        .iter()
        .map(|(_, payload)| Ok(u64::from_be_bytes(*payload.first_chunk().context("a number")?)))
        .collect::<Result<_>>()?;
    let (first, last) = (numbers.first().context("nothing heard")?, numbers.last().context("nothing heard")?);
    ensure!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "twice or out of order: {numbers:?}");
    let (sent, heard) = (last - first + 1, numbers.len() as u64);
    ensure!(heard * 100 >= sent * 98, "{heard} of {sent} heard");
    Ok(())
}

/// tshark takes every message of the relay, and each kind was there.
fn check_messages(capture: Capture, relay: Ipv4Addr) -> Result<()> {
    let dissection = Dissection::read(&capture.finish()?, &format!("amt && ip.src == {relay}"))?;
    dissection.ensure_clean()?;
    let kinds: Vec<&str> = dissection.packets().iter().flat_map(|layers| fields(&layers["amt"], "amt.type")).collect();
    for kind in [MessageType::Advertisement, MessageType::Query, MessageType::Data] {
        ensure!(kinds.contains(&kind.code().to_string().as_str()), "no {} in {} messages", kind.label(), kinds.len());
    }
    Ok(())
}

#[test]
fn the_join_of_a_gateway_builds_the_path_in_the_router_above_and_the_last_leave_takes_it_down() {
    const TOPOLOGY: &str = "
        far:      source 10.9.0.10/24, core 10.9.0.1/24
        studio:   core 10.1.0.1/24, server 10.1.0.2/24
        internet: server 192.0.2.2/24, first 192.0.2.31/24, second 192.0.2.32/24
        router core: far
    ";
    Scenario::new(TOPOLOGY).needs(&["vtysh"]).run(|lab| {
        let router = Frr::start(lab.host("core"), &["far", "studio"], Querier::default())?;
        let (source, group): (Ipv4Addr, Ipv4Addr) = ("10.9.0.10".parse()?, SSM.parse()?);
        let _source = Source::start(lab.host("source"), "far", source.into(), (group, CHANNEL_PORT).into(), PAUSE)?;
        let _server = start_relay(lab, "10.9.0.10")?;
        let relay = lab.host("server").address("internet");
        let open = |name: &str| Gateway::open(lab.host(name), "internet", relay, Family::V4);
        ensure!(router.path(source, group)?.is_none());

        let first = open("first")?;
        first.report(RecordType::AllowNewSources, group.into(), &[source.into()])?;
        router.wait_path((source, group), "far", "studio", SOON)?;
        first.wait_data()?;
        let second = open("second")?;
        second.report(RecordType::AllowNewSources, group.into(), &[source.into()])?;
        second.wait_data()?;
        first.report(RecordType::BlockOldSources, group.into(), &[source.into()])?;
        // The second is still there: his data comes, and the router knows of no change.
        second.wait_data()?;
        router.wait_path((source, group), "far", "studio", SOON)?;
        second.report(RecordType::BlockOldSources, group.into(), &[source.into()])?;
        wait::until("the relay's leave", SOON, || (!lab.host("server").is_member(group)).then_some(()))?;
        router.wait_no_path(source, group, LATE)
    });
}
