//! AMT relays that the tunnel databases name: to a relay below, and to a viewer behind NAT.

use crate::SOON;
use anyhow::ensure;
use castgate_e2e::fleet::{Fleet, HOME, ServerConfig, fleet_root, start_server};
use castgate_e2e::lab::Scenario;
use castgate_e2e::peers::native::Source;
use castgate_e2e::receive::Receive;
use castgate_wire::amt::PORT;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const CHANNEL_PORT: u16 = 5_004;
/// A hundred datagrams a second.
const PAUSE: Duration = Duration::from_millis(10);
const GROUP: &str = "232.1.2.3";
const SOURCE: &str = "10.1.0.10";

#[test]
fn a_relay_and_a_viewer_find_the_amt_server_that_a_database_names() {
    Scenario::new(HOME).run(|lab| {
        let (server, home) = (lab.host("server").address("internet"), lab.host("home"));
        let rule = format!("group: {GROUP}, source: {SOURCE}, ports: {CHANNEL_PORT}");
        let config = ServerConfig::home()
            .permit(&rule)
            .line(&format!("amt: {{ listen: [\"{server}:{PORT}\"] }}"))
            .registered(300);
        let fleet = Fleet::start(lab, &config)?;
        // As an operator plans it: one more entry, for those who ask for AMT.
        let entry =
            format!("    - {{ type: TS, source: {server}, port: {PORT}, protocol: AMT, country: BE }}\n  parents:");
        let snapshot =
            config.snapshot("server").replace("  parents:", &entry).replace("generation: 1", "generation: 2");
        fleet.server.rewrite(&snapshot)?;

        let root = fleet_root(lab).to_string();
        let below = home.address("sofa");
        let above =
            format!("upstream: {{ protocol: amt, discovery: {{ hierarchy: {{ tds: [\"{root}\"], country: BE }} }} }}");
        let relay = ServerConfig::new(below, &[]).permit(&rule).line(&above);
        let relay = relay.line(&format!("amt: {{ listen: [\"{below}:{PORT}\"] }}"));
        let _relay = start_server(lab, home, &relay)?;
        let (source, group): (IpAddr, Ipv4Addr) = (SOURCE.parse()?, GROUP.parse()?);
        let _source = Source::start(lab.host("source"), "studio", source, (group, CHANNEL_PORT).into(), PAUSE)?;

        let name = format!("ham:ip:{GROUP}@{SOURCE}:{CHANNEL_PORT}");
        let (client, second) = (lab.host("client"), lab.host("second"));
        let mut at_relay = Receive::start(client, &name, &["--via", "amt", "--relay", &below.to_string()])?;
        let mut by_database = Receive::start(second, &name, &["--via", "amt", "--tds", &root, "--country", "BE"])?;
        at_relay.wait_packets(100, SOON)?;
        let report = by_database.wait_packets(100, SOON)?;
        ensure!(report.server() == format!("{server}:{PORT}"), "{} is used", report.server());
        at_relay.finish()?;
        by_database.finish()?;
        Ok(())
    });
}
