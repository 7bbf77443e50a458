//! Our gateway at relays of others: `castgate receive --via amt` as a user types it.

use crate::{LATE, SOON, passed};
use anyhow::{Context, Result, ensure};
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
        internet: relay 192.0.2.2/24, home 192.0.2.30/24
        link home internet: delay=1ms
    ";
    if !require_machine() {
        return;
    }
    Scenario::new(TOPOLOGY).run(|lab| {
        let (source, home) = (lab.host("source"), lab.host("home"));
        native::add_ipv6(source, "studio", "fd00:1::10".parse()?)?;
        let address = lab.host("relay").address("internet");
        let relay = KernelAmt::relay(lab.host("relay"), Sides { tunnel: "internet", native: "studio" })?.ready()?;
        let channels = [
            ("239.1.2.3", "10.1.0.10", format!("ham:ip:239.1.2.3:{CHANNEL_PORT}")),
            ("232.1.2.3", "10.1.0.10", format!("ham:ip:232.1.2.3@10.1.0.10:{CHANNEL_PORT}")),
            ("ff3e::4321:1234", "fd00:1::10", format!("ham:ip:[ff3e::4321:1234]@[fd00:1::10]:{CHANNEL_PORT}")),
        ];
        let mut running = Vec::new();
        for (group, from, name) in &channels {
            let (group, from): (IpAddr, IpAddr) = (group.parse()?, from.parse()?);
            let sending = Source::start(source, "studio", from, (group, CHANNEL_PORT).into(), PAUSE)?;
            let receive = Receive::start(home, name, &["--via", "amt", "--relay", &address.to_string()])?;
            running.push((sending, receive));
        }
        for (_, receive) in &mut running {
            receive.wait_packets(50, LATE).with_context(|| relay.dump().unwrap_or_default())?;
        }
        let link = lab.link("home", "internet");
        for (way, kind) in
            [(Way::Up, MessageType::Request), (Way::Down, MessageType::Query), (Way::Up, MessageType::Update)]
        {
            ensure!(passed(link, way, kind).0 > 0, "no {} passed", kind.label());
        }
        let words = |receive: Receive| -> Result<()> {
            let total = receive.finish()?;
            ensure!(total.duplicated() == 0, "{}", total.value());
            Ok(())
        };
        for (_, receive) in running {
            words(receive)?;
        }
        // The last word of each is an Update that takes its channel back.
        wait::until("the goodbyes", SOON, || (passed(link, Way::Up, MessageType::Update).0 >= 6).then_some(()))
    });
}
