//! Bad manifests: every sentence is printed, and nothing starts half.

mod common;

use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use common::{Running, castgate, manifests, run, stderr, stdout};
use serde_json::Value;

#[test]
fn the_example_is_valid_and_counted() {
    let folder = manifests(0);
    let output = run(&["validate", "-f", folder.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("2 TunnelDatabase"), "{}", stdout(&output));
    let output = run(&["validate", "--json", "-f", folder.path().to_str().unwrap()]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["valid"], &report["counts"]["TunnelServer"]), (&true.into(), &1.into()));
    assert_eq!(report["problems"], Value::Array(Vec::new()));
}

#[test]
fn each_mistake_is_one_sentence_with_file_object_and_field() {
    let cases = [
        ("40-channels.yaml", "group: 232.1.61.3", "group: 10.1.2.3", "ChannelBundle castgate/demo", "group"),
        ("40-channels.yaml", "pattern: 2Mbit", "patern: 2Mbit", "ChannelBundle castgate/demo", "patern"),
        ("20-server.yaml", "- 127.0.0.0/8", "- 127.0.0.0/88", "TunnelServer castgate/brussels", "networks"),
        ("20-server.yaml", "- name: demo", "- name: nobody", "TunnelServer castgate/brussels", "bundles"),
    ];
    for (file, right, wrong, object, field) in cases {
        let folder = manifests(61);
        replace(&folder.path().join(file), right, wrong);
        for command in ["validate", "up"] {
            let output = castgate(&[command, "-f"]).arg(folder.path()).output().unwrap();
            let text = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{command} {wrong}: {text}");
            let sentence = text.lines().find(|line| line.contains(object)).unwrap_or_default();
            assert!(sentence.contains(file) && sentence.contains(field), "{command} {wrong}: {text}");
        }
    }
}

#[test]
fn an_explanation_says_tier_by_tier_why_a_client_gets_a_server() {
    let explain = |arguments: &[&str]| {
        let output = castgate(&["explain", "-f", "../examples/policy", "--at", "2026-01-15T12:00:00Z"])
            .args(arguments)
            .output()
            .unwrap();
        (output.status.success(), stdout(&output), stderr(&output))
    };
    let (found, text, errors) = explain(&["--client", "127.10.0.7", "--country", "BE"]);
    assert!(found, "{errors}");
    assert_eq!(
        text,
        "TunnelDatabase castgate/isp at 127.0.4.1:5632
  tsap     policy traffic
             rule lab: 127.10.0.7 is in none of its networks
             rule campus: the Autonomous System of 127.10.0.7 is not known
             rule evening: it is 13:00 Europe/Brussels, which is not in 18:00-23:30 Europe/Brussels
  network  the longest network around 127.10.0.7 with servers for it has length 16
  => network: TS 127.0.2.1:10100 UDP (TunnelServer castgate/brussels)
"
    );
    let evening = ["--client", "127.10.0.7", "--country", "BE", "--at", "2026-01-15T18:00:00Z"];
    let output = castgate(&["explain", "-f", "../examples/policy"]).args(evening).output().unwrap();
    assert!(stdout(&output).contains("=> tsap: TS 127.0.2.3:10100 UDP (TunnelServer castgate/reserve)"), "{output:?}");

    // Three of four clients of the customer go to the site brussels, the others to antwerp; nobody of the lab does.
    let mut antwerp = 0;
    for last in 1..=24 {
        let (_, text, _) = explain(&["--json", "--client", &format!("127.20.0.{last}")]);
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["databases"][0]["match"], "tsap", "{text}");
        antwerp += usize::from(report["databases"][0]["servers"][0].as_str().unwrap().contains("castgate/antwerp"));
        let (_, text, _) = explain(&["--client", &format!("127.20.99.{last}")]);
        assert!(text.contains("never antwerp") && !text.contains("(TunnelServer castgate/antwerp)"), "{text}");
    }
    assert!((2..=11).contains(&antwerp), "{antwerp} of 24");
    let (_, text, _) = explain(&["--client", "127.20.128.1"]);
    assert!(text.contains("rule campus: the Autonomous System of 127.20.128.1 is not known"), "{text}");

    let (found, text, _) = explain(&["--client", "192.0.2.1", "--country", "NL"]);
    assert!(found && text.contains("  region   Benelux\n"), "the database's own regions: {text}");
    let (found, text, errors) = explain(&["--client", "192.0.2.1", "--policy", "traffic"]);
    assert!(!found && text.contains("public   servers for everybody: no server"), "{text}");
    assert!(errors.contains("192.0.2.1 gets no server"), "{errors}");
    let (found, _, errors) = explain(&["--client", "192.0.2.1", "--policy", "trafic"]);
    assert!(!found && errors.contains("TunnelAssignmentPolicy trafic"), "{errors}");
}

#[test]
fn the_zone_of_relays_names_each_source_once_for_each_relay() {
    let output = run(&["zone", "-f", "../examples/driad"]);
    let text = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(text.contains("1.1.0.127.in-addr.arpa. 300 IN AMTRELAY 10 1 1 127.0.2.1\n"), "{text}");
    let output = run(&["zone", "-f", "../examples/driad", "--zone", "127.in-addr.arpa", "--ns", "ns.example.net"]);
    let file = stdout(&output);
    assert!(file.starts_with("$TTL 300\n127.in-addr.arpa. IN SOA ns.example.net. "), "{file}");
    assert!(file.ends_with(&text), "{file}");
    let output = run(&["zone", "-f", "../examples/one-machine"]);
    assert!(!output.status.success() && output.stdout.is_empty(), "nobody there speaks AMT");
    assert!(stderr(&output).contains("spec.amt"), "{}", stderr(&output));
}

#[test]
fn two_servers_on_one_port_are_refused_before_anything_starts() {
    let folder = manifests(62);
    let server = folder.path().join("20-server.yaml");
    let text = std::fs::read_to_string(&server).unwrap();
    std::fs::write(folder.path().join("21-server.yaml"), text.replace("name: brussels\n", "name: antwerp\n")).unwrap();
    let output = castgate(&["up", "-f"]).arg(folder.path()).output().unwrap();
    let text = stderr(&output);
    assert!(!output.status.success() && text.contains("127.62.2.1:10100"), "{text}");
    assert!(output.stdout.is_empty(), "nothing ran: {}", stdout(&output));
}

#[test]
fn an_occupied_port_is_named_and_everything_started_before_is_stopped() {
    let folder = manifests(63);
    let occupied = UdpSocket::bind("127.63.2.1:10100").unwrap();
    let mut up = Running::up(&folder, &["--for", "20s"]);
    let sentence = up.error_line("sentence", |line| line.contains("127.63.2.1:10100").then(|| line.to_owned()));
    assert!(sentence.starts_with("castgate: "), "{sentence}");
    assert_eq!(up.wait().code(), Some(1));
    assert!(up.rest().is_empty());
    // The databases had started before; their ports are free again.
    for database in ["127.63.4.1:5632", "127.63.5.1:5632"] {
        TcpListener::bind(database).unwrap();
    }
    drop(occupied);
}

fn replace(file: &Path, right: &str, wrong: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(right), "{right} is not in {}", file.display());
    std::fs::write(file, text.replacen(right, wrong, 1)).unwrap();
}
