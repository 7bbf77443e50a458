//! `castgate up` without a terminal: what a user sees, types next, and ends.

mod common;

use std::time::{Duration, Instant};

use common::{Running, castgate, manifests, stderr};
use serde_json::Value;

#[test]
fn a_fleet_shows_packets_and_the_line_to_type_and_ends_by_itself() {
    let folder = manifests(70);
    let started = Instant::now();
    let mut up = Running::up(&folder, &["--for", "6s"]);
    let typed = up.typed();
    assert!(started.elapsed() < Duration::from_secs(5), "the line came after {:?}", started.elapsed());
    assert_eq!(typed, ["receive", "ham:ip:232.1.70.3@127.70.1.1:5004", "--tds", "127.70.4.1:5632", "--country", "BE"]);

    // Exactly that line, typed while the fleet runs.
    let words: Vec<&str> = typed.iter().map(String::as_str).collect();
    let receive = castgate(&words).args(["--for", "2s", "--json"]).output().unwrap();
    let text = String::from_utf8(receive.stdout.clone()).unwrap();
    assert!(receive.status.success(), "{}", stderr(&receive));
    let total: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_shape(&total);
    assert!(total["packets"].as_u64() > Some(100), "{total}");
    assert_eq!(
        (&total["lost"], &total["via"], &total["server"]),
        (&0.into(), &"umtp".into(), &"127.70.2.1:10100".into())
    );

    let status = up.wait();
    let last = up.rest().pop().unwrap();
    assert!(status.success() && packets(&last) > Some(300), "{status}: {last}");
    assert!(last.contains("2 of 2 registrations"), "{last}");
}

#[test]
fn control_c_leaves_tears_down_says_bye_and_is_a_success() {
    let folder = manifests(71);
    let mut up = Running::up(&folder, &["--json"]);
    up.line("the client's tunnel", |line| {
        let status: Value = serde_json::from_str(line).unwrap();
        let entries = status["agents"].as_array()?.iter().map(|agent| agent["database"]["entries"].as_u64());
        let registered = entries.flatten().sum::<u64>() == 2;
        (status["client"]["packets"].as_u64() > Some(0) && registered).then_some(())
    });
    // A client that is ended by Ctrl-C tears its tunnel down: a server notices a silent one only after 120 s.
    let receive = ["receive", "ham:ip:232.1.71.3@127.71.1.1:5004", "--server", "127.71.2.1:10100"];
    let mut receive = Running::start(castgate(&receive));
    receive.line("packets", |line| (packets(line) > Some(0)).then_some(()));
    up.line("two tunnels", |line| (tunnels(line) == 2).then_some(()));
    assert_eq!(receive.interrupt().code(), Some(0));
    up.line("one tunnel", |line| (tunnels(line) == 1).then_some(()));

    let asked = Instant::now();
    assert_eq!(up.interrupt().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
}

#[test]
fn a_fleet_whose_client_receives_nothing_fails_when_its_time_is_over() {
    let folder = manifests(72);
    let channels = folder.path().join("40-channels.yaml");
    let text = std::fs::read_to_string(&channels).unwrap();
    std::fs::write(&channels, text.replace("      pattern: 2Mbit\n", "")).unwrap();
    let mut up = Running::up(&folder, &["--for", "3s"]);
    let sentence = up.error_line("sentence", |line| line.starts_with("castgate: ").then(|| line.to_owned()));
    assert!(sentence.contains("received nothing") && sentence.contains("127.72.2.1:10100"), "{sentence}");
    assert_eq!(up.wait().code(), Some(1));
}

/// Tunnels that the fleet's servers report in a JSON line.
fn tunnels(line: &str) -> usize {
    let status: Value = serde_json::from_str(line).unwrap();
    let agents = status["agents"].as_array().unwrap();
    agents.iter().filter_map(|agent| agent["tunnels"].as_array()).map(Vec::len).sum()
}

/// `190 packets, …`.
fn packets(line: &str) -> Option<u64> {
    line.split_once(" packets")?.0.parse().ok()
}

fn assert_shape(report: &Value) {
    let keys = [
        "name",
        "via",
        "server",
        "packets",
        "bytes",
        "lost",
        "duplicated",
        "reordered",
        "longest_gap_ms",
        "delay_ms",
        "joined_ms",
        "handovers",
    ];
    let found: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    let mut sorted = keys;
    sorted.sort_unstable();
    assert_eq!(found, sorted, "{report}");
    for key in ["p50", "p99", "max"] {
        assert!(report["delay_ms"][key].is_number(), "{report}");
    }
}
