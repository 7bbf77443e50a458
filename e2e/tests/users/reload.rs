//! An operator edits the snapshot of an agent that carries a channel.

use crate::{ASM, ASM_RULE, PATTERN, PATTERN_RULE, SOON, channel};
use anyhow::{Context, ensure};
use castgate_e2e::fleet::{HOME, ServerConfig, TUNNEL_PORT, on_air, start_server};
use castgate_e2e::lab::{Scenario, wait};
use castgate_e2e::receive::Receive;
use std::time::Duration;

#[test]
fn a_snapshot_that_changes_drops_no_tunnel_and_a_bad_one_changes_nothing() {
    Scenario::new(HOME).run(|lab| {
        let config = ServerConfig::home().permit(PATTERN_RULE);
        let _on_air = on_air(lab, lab.host("source"), "studio", &[channel(PATTERN)])?;
        let mut server = start_server(lab, lab.host("server"), &config)?;
        let outside = format!("192.0.2.2:{TUNNEL_PORT}");
        let words = ["--via", "umtp", "--server", &outside];
        let mut receive = Receive::start(lab.host("client"), PATTERN, &words)?;
        receive.wait_packets(20, SOON)?;
        // A second channel is asked for before it is permitted.
        let _other = Receive::start(lab.host("second"), ASM, &words)?;
        let group = "239.1.2.3".parse()?;

        server.rewrite("server: [")?;
        server.process().wait_line("the refusal", SOON, |line| {
            (line.contains("refused") || line.contains("WARN") || line.contains("ERROR")).then_some(())
        })?;
        ensure!(!lab.host("server").is_member(group), "joined before it was permitted");
        server
            .rewrite(&config.clone().permit(ASM_RULE).snapshot("server").replace("generation: 1", "generation: 2"))?;
        lab.host("server").wait_member(group, SOON * 2)?;
        // And taken away again: the channel that goes on does not notice.
        server.rewrite(&config.snapshot("server").replace("generation: 1", "generation: 3"))?;
        lab.host("server").wait_no_member(group, SOON)?;

        let seen = receive.latest().context("no report")?.packets();
        receive.wait_packets(seen + 100, SOON)?;
        let total = receive.finish()?;
        ensure!(total.lost() == 0 && total.duplicated() == 0, "{:?}", total.value());
        ensure!(total.number("longest_gap_ms") < 1_000 && total.number("handovers") == 0, "{:?}", total.value());
        Ok(())
    });
}

#[test]
fn an_agent_that_is_killed_starts_from_the_last_good_snapshot_when_the_file_is_broken() {
    Scenario::new(HOME).run(|lab| {
        let config = ServerConfig::home().permit(PATTERN_RULE);
        let _on_air = on_air(lab, lab.host("source"), "studio", &[channel(PATTERN)])?;
        let mut server = start_server(lab, lab.host("server"), &config)?;
        let outside = format!("192.0.2.2:{TUNNEL_PORT}");
        let mut receive = Receive::start(lab.host("client"), PATTERN, &["--via", "umtp", "--server", &outside])?;
        let before = receive.wait_packets(20, SOON)?.packets();
        server.kill()?;
        server.rewrite("server: [")?;
        server.restart()?;
        wait::until("the server", SOON, || (!server.process().is_ended()).then_some(()))?;
        receive.wait_packets(before + 100, SOON + Duration::from_secs(5))?;
        Ok(())
    });
}
