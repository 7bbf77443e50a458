//! Our gateway at relays of others: `castgate receive --via amt` as a user types it.

use crate::{LATE, SOON, passed};
use anyhow::{Context, ensure};
use castgate_e2e::lab::impair::Way;
use castgate_e2e::lab::{Scenario, wait};
use castgate_e2e::peers::kernel_amt::{KernelAmt, Sides};
use castgate_e2e::peers::native::{self, Source};
use castgate_e2e::peers::require_machine;
use castgate_e2e::receive::Receive;
use castgate_wire::amt::MessageType;
use std::net::IpAddr;
use std::time::Duration;

const CHANNEL_PORT: u16 = 5_004;
/// Fifty datagrams a second.
const PAUSE: Duration = Duration::from_millis(20);

#[test]
fn our_gateway_gets_any_source_and_source_specific_channels_from_the_kernels_relay() {
    const TOPOLOGY: &str = "
        studio:   source 10.1.0.10/24, relay 10.1.0.2/24
        internet: relay 192.0.2.2/24, one 192.0.2.31/24, two 192.0.2.32/24, three 192.0.2.33/24
        link one internet: delay=1ms
        link two internet: delay=1ms
        link three internet: delay=1ms
    ";
    if !require_machine() {
        return;
    }
    Scenario::new(TOPOLOGY).run(|lab| {
        let source = lab.host("source");
        native::add_ipv6(source, "studio", "fd00:1::10".parse()?)?;
        let address = lab.host("relay").address("internet");
        let relay = KernelAmt::relay(lab.host("relay"), Sides { tunnel: "internet", native: "studio" })?.ready()?;
        let channels = [
            ("239.1.2.3", "10.1.0.10", format!("ham:ip:239.1.2.3:{CHANNEL_PORT}")),
            ("232.1.2.3", "10.1.0.10", format!("ham:ip:232.1.2.3@10.1.0.10:{CHANNEL_PORT}")),
            ("ff3e::4321:1234", "fd00:1::10", format!("ham:ip:[ff3e::4321:1234]@[fd00:1::10]:{CHANNEL_PORT}")),
        ];
        // The driver knows gateways by their addresses alone: each has a host of its own.
        let homes = ["one", "two", "three"];
        let mut running = Vec::new();
        for ((group, from, name), home) in channels.iter().zip(homes) {
            let (group, from): (IpAddr, IpAddr) = (group.parse()?, from.parse()?);
            let sending = Source::start(source, "studio", from, (group, CHANNEL_PORT).into(), PAUSE)?;
            let receive = Receive::start(lab.host(home), name, &["--via", "amt", "--relay", &address.to_string()])?;
            running.push((sending, receive));
        }
        for (_, receive) in &mut running {
            receive.wait_packets(50, LATE).with_context(|| relay.dump().unwrap_or_default())?;
        }
        for ((_, receive), home) in running.into_iter().zip(homes) {
            let link = lab.link(home, "internet");
            for (way, kind) in
                [(Way::Up, MessageType::Request), (Way::Down, MessageType::Query), (Way::Up, MessageType::Update)]
            {
                ensure!(passed(link, way, kind).0 > 0, "no {} passed", kind.label());
            }
            let before = passed(link, Way::Up, MessageType::Update).0;
            receive.finish()?;
            // Its last word is an Update that takes the channel back.
            wait::until("the goodbye", SOON, || (passed(link, Way::Up, MessageType::Update).0 > before).then_some(()))?;
        }
        Ok(())
    });
}
