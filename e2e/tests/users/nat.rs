//! Address translators, and clients that share an address.

use crate::{FIVE_SECONDS, PATTERN, PATTERN_RULE, SOON, channel};
use anyhow::{Result, ensure};
use castgate_e2e::fleet::{HOME, ServerConfig, TUNNEL_PORT, on_air, start_server};
use castgate_e2e::lab::Scenario;
use castgate_e2e::lab::impair::Way;
use castgate_e2e::receive::Receive;
use castgate_wire::umtp::{Command, Trailer};
use std::collections::BTreeSet;
use std::net::SocketAddrV4;

fn pattern_server() -> ServerConfig {
    ServerConfig::home().permit(PATTERN_RULE)
}

#[test]
fn a_nat_that_rebinds_in_mid_stream_interrupts_for_less_than_five_seconds() {
    let topology = format!("{HOME}\nlink home internet: delay=2ms\n");
    Scenario::new(&topology).run(|lab| {
        let _on_air = on_air(lab, lab.host("source"), "studio", &[channel(PATTERN)])?;
        let _server = start_server(lab, lab.host("server"), &pattern_server())?;
        let outside = format!("192.0.2.2:{TUNNEL_PORT}");
        let mut receive = Receive::start(lab.host("client"), PATTERN, &["--via", "umtp", "--server", &outside])?;
        let mut seen = receive.wait_packets(50, SOON)?.packets();
        for _ in 0..2 {
            lab.rebind_nat("home")?;
            seen = receive.wait_packets(seen + 50, FIVE_SECONDS + SOON)?.packets();
        }
        let total = receive.finish()?;
        ensure!(total.number("longest_gap_ms") <= 5_000, "{:?}", total.value());
        ensure!(total.number("handovers") == 0, "the server never died: {:?}", total.value());
        // It was the NAT: the server saw three different addresses of one client.
        let clients: BTreeSet<SocketAddrV4> = lab
            .link("home", "internet")
            .pick(|passage| {
                let datagram = (passage.way == Way::Up).then(|| passage.udp()).flatten()?;
                let (_, trailer) = Trailer::parse(datagram.payload).ok()?;
                (trailer.command == Command::JoinGroup).then_some(datagram.from)
            })
            .into_iter()
            .collect();
        ensure!(clients.len() >= 3, "{clients:?}");
        Ok(())
    });
}

#[test]
fn two_viewers_behind_one_nat_both_see_everything() {
    Scenario::new(HOME).run(|lab| {
        let _on_air = on_air(lab, lab.host("source"), "studio", &[channel(PATTERN)])?;
        let _server = start_server(lab, lab.host("server"), &pattern_server())?;
        let outside = format!("192.0.2.2:{TUNNEL_PORT}");
        let output = ["udp://239.100.0.1:6000", "udp://239.100.0.2:6000"];
        // Both put the channel on their LAN, as one does at home.
        let mut viewers = ["client", "second"]
            .into_iter()
            .zip(output)
            .map(|(host, output)| {
                let words = ["--via", "umtp", "--server", &outside, "--output", output];
                Receive::start(lab.host(host), PATTERN, &words)
            })
            .collect::<Result<Vec<_>>>()?;
        for viewer in &mut viewers {
            viewer.wait_packets(400, SOON)?;
        }
        for viewer in viewers {
            let total = viewer.finish()?;
            ensure!(total.lost() == 0 && total.duplicated() == 0, "{:?}", total.value());
            ensure!(total.number("longest_gap_ms") < 1_000, "{:?}", total.value());
        }
        Ok(())
    });
}

#[test]
fn a_viewer_on_the_machine_of_the_server_sees_the_channel_too() {
    Scenario::new(HOME).run(|lab| {
        let _on_air = on_air(lab, lab.host("source"), "studio", &[channel(PATTERN)])?;
        let _server = start_server(lab, lab.host("server"), &pattern_server())?;
        let outside = format!("192.0.2.2:{TUNNEL_PORT}");
        let words = ["--via", "umtp", "--server", &outside];
        let mut here = Receive::start(lab.host("server"), PATTERN, &words)?;
        let mut there = Receive::start(lab.host("client"), PATTERN, &words)?;
        here.wait_packets(300, SOON)?;
        there.wait_packets(300, SOON)?;
        for receive in [here, there] {
            let total = receive.finish()?;
            ensure!(total.lost() == 0 && total.duplicated() == 0, "{:?}", total.value());
        }
        Ok(())
    });
}

/// Without it the viewer would wait for ever for packets that go nowhere.
#[test]
fn an_output_to_which_no_route_leads_is_refused_at_once() {
    let topology = "
        studio:   source 10.1.0.10/24, server 10.1.0.2/24
        internet: server 192.0.2.2/24, island 192.0.2.60/24
    ";
    Scenario::new(topology).run(|lab| {
        let _on_air = on_air(lab, lab.host("source"), "studio", &[channel(PATTERN)])?;
        let _server = start_server(lab, lab.host("server"), &pattern_server())?;
        let outside = format!("192.0.2.2:{TUNNEL_PORT}");
        let words = ["--via", "umtp", "--server", &outside, "--output", "udp://239.100.0.1:6000"];
        let mut lost = Receive::start(lab.host("island"), PATTERN, &words)?;
        let status = lost.process().wait(SOON)?;
        let complaint = lost.process().stderr();
        ensure!(!status.success() && complaint.contains("iface="), "{status}: {complaint}");
        // What the sentence asks for works.
        let words = ["--via", "umtp", "--server", &outside, "--output", "udp://239.100.0.1:6000?iface=internet"];
        let mut found = Receive::start(lab.host("island"), PATTERN, &words)?;
        found.wait_packets(20, SOON)?;
        Ok(())
    });
}
