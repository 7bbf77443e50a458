//! Relays that are found: by an address that several have, and by the records of a channel's source.

use crate::SOON;
use anyhow::{Context, Result, ensure};
use castgate_e2e::fleet::{Agent, ServerConfig, start_server};
use castgate_e2e::lab::{Lab, Scenario, wait};
use castgate_e2e::peers::bind::{Bind, Zone};
use castgate_e2e::peers::native::Source;
use castgate_e2e::programs::program;
use castgate_e2e::receive::Receive;
use castgate_wire::amt::PORT;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const CHANNEL_PORT: u16 = 5_004;
/// A hundred datagrams a second.
const PAUSE: Duration = Duration::from_millis(10);
const GROUP: &str = "232.1.2.3";
const SOURCE: &str = "10.1.0.10";
const TOPOLOGY: &str = "
    studio:   source 10.1.0.10/24, server 10.1.0.2/24
    internet: server 192.0.2.2/24, names 192.0.2.53/24, home 192.0.2.30/24
";
/// RFC 7450 §7.1.
const ANYCAST: &str = "192.52.193.1";

fn relay<'a>(lab: &'a Lab, further: &str) -> Result<Agent<'a>> {
    let host = lab.host("server");
    let address = host.address("internet");
    let config = ServerConfig::new(address, &["studio"])
        .permit(&format!("group: {GROUP}, source: {SOURCE}, ports: {CHANNEL_PORT}"))
        .line(&format!("amt: {{ listen: [\"{address}:{PORT}\"]{further} }}"));
    let agent = start_server(lab, host, &config)?;
    host.wait_udp(PORT, SOON)?;
    Ok(agent)
}

fn on_air(lab: &Lab) -> Result<Source> {
    let (source, group): (IpAddr, Ipv4Addr) = (SOURCE.parse()?, GROUP.parse()?);
    Source::start(lab.host("source"), "studio", source, (group, CHANNEL_PORT).into(), PAUSE)
}

fn name() -> String {
    format!("ham:ip:{GROUP}@{SOURCE}:{CHANNEL_PORT}")
}

/// What a routing daemon would learn from the table of anycast.
fn announced(lab: &Lab) -> Result<String> {
    let mut ip = lab.host("server").command("ip");
    ip.args(["-4", "route", "show", "table", "2268"]);
    // A table without a route is none to this program.
    let output = ip.output().context("ip does not start")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn an_anycast_address_is_announced_while_its_relay_is_there_and_leads_to_the_relays_own() {
    Scenario::new(TOPOLOGY).run(|lab| {
        let server = lab.host("server").address("internet");
        lab.host("home").ip(&format!("route add {ANYCAST}/32 via {server}"))?;
        let further = format!(", advertise: [{server}], anycast: {{ addresses: [{ANYCAST}] }}");
        let mut agent = relay(lab, &further)?;
        wait::until("the route", SOON, || announced(lab).ok()?.contains(ANYCAST).then_some(()))?;
        let _source = on_air(lab)?;
        let mut viewer = Receive::start(lab.host("home"), &name(), &["--via", "amt", "--find", "anycast"])?;
        let report = viewer.wait_packets(100, SOON)?;
        ensure!(report.server() == format!("{server}:{PORT}"), "{} is used", report.server());
        viewer.finish()?;

        // A crash leaves the route behind; the next life takes it over, and a proper end takes it back.
        agent.kill()?;
        agent.restart()?;
        lab.host("server").wait_udp(PORT, SOON)?;
        wait::until("the route again", SOON, || announced(lab).ok()?.contains(ANYCAST).then_some(()))?;
        agent.process().interrupt(SOON)?;
        ensure!(!announced(lab)?.contains(ANYCAST), "it is still announced: {}", announced(lab)?);
        Ok(())
    });
}

#[test]
fn the_record_of_a_source_leads_a_viewer_to_the_relay_past_all_that_lead_nowhere() {
    Scenario::new(TOPOLOGY).needs(&["named", "dig"]).run(|lab| {
        let (server, names) = (lab.host("server").address("internet"), lab.host("names"));
        let _relay = relay(lab, "")?;
        let _source = on_air(lab)?;
        // A record of a type that nobody knows, a relay that does not answer, and the good one; all behind a CNAME.
        let records = format!(
            "10.0 IN CNAME relays\n\
             relays IN TYPE260 \\# 5 0205c00002\n\
             relays IN AMTRELAY 1 1 1 192.0.2.99\n\
             relays IN AMTRELAY 2 0 1 {server}\n"
        );
        let zone = Zone { origin: "1.10.in-addr.arpa", records: &records };
        let bind = Bind::start(names, SocketAddr::from((names.address("internet"), 53)), &[zone])?;
        let resolver = bind.address().to_string();
        let words = ["--via", "amt", "--find", "driad", "--resolver", &resolver];
        let mut viewer = Receive::start(lab.host("home"), &name(), &words)?;
        let report = viewer.wait_packets(100, SOON)?;
        ensure!(report.server() == format!("{server}:{PORT}"), "{} is used", report.server());
        viewer.finish()?;
        Ok(())
    });
}

#[test]
fn bind_serves_the_zone_that_castgate_writes_of_manifests_and_a_viewer_follows_it() {
    const MANIFESTS: &str = "
apiVersion: castgate.dev/v1alpha1
kind: ChannelBundle
metadata: { name: tv, namespace: lab }
spec:
  channels: [{ name: news, group: 232.1.2.3, source: 10.1.0.10, port: 5004 }]
---
apiVersion: castgate.dev/v1alpha1
kind: TunnelServer
metadata: { name: edge, namespace: lab }
spec: { umtp: { address: 192.0.2.2 }, amt: {}, interfaces: [{ name: studio }], bundles: [{ name: tv }] }
";
    Scenario::new(TOPOLOGY).needs(&["named", "dig"]).run(|lab| {
        let (server, names) = (lab.host("server").address("internet"), lab.host("names"));
        let _relay = relay(lab, "")?;
        let _source = on_air(lab)?;
        let file = lab.folder().join("manifests.yaml");
        std::fs::write(&file, MANIFESTS)?;
        let mut zone = names.command(program("castgate")?);
        zone.args(["zone", "-f"]).arg(&file);
        let records = names.run("castgate zone", zone, SOON)?;
        ensure!(records.contains(&format!("AMTRELAY 10 1 1 {server}")), "it writes {records}");
        let zone = Zone { origin: "1.10.in-addr.arpa", records: &records };
        let bind = Bind::start(names, SocketAddr::from((names.address("internet"), 53)), &[zone])?;
        let words = ["--via", "amt", "--find", "driad", "--resolver", &bind.address().to_string()];
        let mut viewer = Receive::start(lab.host("home"), &name(), &words)?;
        viewer.wait_packets(100, SOON)?;
        viewer.finish()?;
        Ok(())
    });
}
