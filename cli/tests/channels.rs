//! Receiving and sending from the shell: outputs, inputs, and what is said when nothing comes.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use castgate_wire::pattern;
use common::{LONG, Running, castgate, manifests, run, stderr, stdout};
use serde_json::Value;

#[test]
fn nothing_received_is_a_failure_that_says_why() {
    for (words, cause) in [
        (
            &["receive", "ham:ip:239.1.80.3:5004"][..],
            "name a tunnel database, a tunnel server, an AMT relay, or an interface",
        ),
        (&["receive", "ham:ip:239.1.80.3:5004", "--via", "umtp"], "which tunnel server"),
        (
            &["receive", "ham:ip:239.1.80.3:5004", "--server", "127.80.2.1:10100", "--for", "3s", "--json"],
            "no packet of ham:ip:239.1.80.3:5004 came: the tunnel server 127.80.2.1:10100 does not answer",
        ),
        (&["receive", "ham:ip:239.1.80.3:5004", "--tds", "127.80.4.1", "--for", "2s"], "127.80.4.1:5632"),
        (
            &["receive", "ham:ip:239.1.80.3:5004", "--via", "native", "--interface", "lo", "--for", "500ms"],
            "this network does not carry the channel",
        ),
        (&["receive", "ham:ip:239.1.80.3:5004", "--via", "native", "--interface", "lo77"], "no interface lo77"),
        (
            &["send", "ham:ip:239.1.80.3:5004", "--input", "pattern:1M", "--server", "127.80.2.1:9", "--for", "1s"],
            "nothing was sent",
        ),
        (&["locate", "--tds", "127.80.4.1"], "no tunnel server found"),
        (&["tds", "query", "--tds", "127.80.4.1"], "127.80.4.1:5632"),
    ] {
        let output = run(words);
        let text = stderr(&output);
        let sentence = text.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {text}");
        assert!(sentence.starts_with("castgate: ") && sentence.contains(cause), "{words:?}: {text}");
    }
}

#[test]
fn the_channel_goes_to_a_file_a_pipe_a_player_and_a_local_group() {
    let folder = manifests(81);
    let up = Running::up(&folder, &[]);
    let typed = up.typed();
    let words: Vec<&str> = typed.iter().map(String::as_str).collect();

    let file = folder.path().join("out.bin");
    let to_file = format!("file:{}", file.display());
    let mut command = castgate(&words);
    command.args(["--output", &to_file, "--output", "http://127.81.0.1:0"]);
    command.args(["--output", "udp://239.81.1.1:5999?iface=lo", "--for", "4s"]);
    let mut receive = Running::start(command);
    let address = receive.error_line("the players' address", |line| {
        Some(line.strip_prefix("players open http://")?.trim_end_matches('/').to_owned())
    });
    // The player opens now and reads later: what it did not read in between has waited for it.
    let mut player = TcpStream::connect(address).unwrap();
    player.set_read_timeout(Some(LONG)).unwrap();
    player.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let local = castgate(&[
        "receive",
        "ham:ip:239.81.1.1:5999",
        "--via",
        "native",
        "--interface",
        "lo",
        "--for",
        "2s",
        "--json",
    ])
    .output()
    .unwrap();
    assert!(local.status.success(), "{}", stderr(&local));
    let total: Value = serde_json::from_str(stdout(&local).lines().last().unwrap()).unwrap();
    assert!(total["packets"].as_u64() > Some(50) && total["lost"] == 0, "{total}");

    let mut heard = Vec::new();
    player.read_to_end(&mut heard).unwrap();
    let text = String::from_utf8_lossy(&heard);
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("video/mp2t"), "{}", &text[..200]);
    assert!(heard.len() > 10_000, "the player heard {} octets", heard.len());

    assert!(receive.wait().success());
    let written = std::fs::read(file).unwrap();
    assert!(written.len() > 100_000 && written.len().is_multiple_of(1_316), "{} octets", written.len());
    assert!(written.chunks(1_316).all(|payload| pattern::Repr::parse(payload).is_some()), "an octet changed");

    let piped = castgate(&words).args(["--output", "-", "--for", "1s"]).output().unwrap();
    assert!(piped.status.success(), "{}", stderr(&piped));
    assert!(piped.stdout.chunks(1_316).all(|payload| pattern::Repr::parse(payload).is_some()));
    assert!(stderr(&piped).contains("total: "), "{}", stderr(&piped));
}

#[test]
fn what_is_sent_upstream_arrives_natively_and_through_the_tunnel() {
    let folder = manifests(82);
    let up = Running::up(&folder, &[]);
    up.typed();
    let name = "ham:ip:239.1.82.3:5004";
    let place = ["--tds", "127.82.4.1", "--country", "BE", "--local", "127.82.3.9"];
    let mut tunnel = castgate(&["receive", name, "--for", "8s", "--json", "--silence", "off"]);
    tunnel.args(["--tds", "127.82.4.1", "--country", "BE"]);
    let mut tunnel = Running::start(tunnel);
    tunnel.error_line("the tunnel", |line| line.ends_with("is up").then_some(()));
    let native = castgate(&["receive", name, "--via", "native", "--interface", "lo", "--for", "8s", "--json"]);
    let mut native = Running::start(native);
    native.error_line("the join", |line| line.ends_with("native").then_some(()));

    let input = folder.path().join("film.bin");
    std::fs::write(&input, vec![7; 1_316 * 20]).unwrap();
    let input = format!("file:{}", input.display());
    for (input, packets) in [("pattern:500k", None), (input.as_str(), Some(20))] {
        let sent = castgate(&["send", name, "--input", input, "--for", "2s", "--json"]).args(place).output().unwrap();
        assert!(sent.status.success(), "{}", stderr(&sent));
        let total: Value = serde_json::from_slice(&sent.stdout).unwrap();
        assert!(packets.map_or(total["packets"].as_u64() > Some(50), |packets| total["packets"] == packets), "{total}");
    }
    for receive in [&mut tunnel, &mut native] {
        assert!(receive.wait().success());
        let total: Value = serde_json::from_str(receive.rest().last().unwrap()).unwrap();
        assert!(total["packets"].as_u64() > Some(60) && total["lost"] == 0 && total["duplicated"] == 0, "{total}");
    }
}

#[test]
fn the_hierarchy_is_shown_tier_by_tier_and_spoken_to_by_hand() {
    let folder = manifests(83);
    let up = Running::up(&folder, &[]);
    up.typed();
    let located = run(&["locate", "--tds", "127.83.4.1", "--country", "BE", "--json"]);
    assert!(located.status.success(), "{}", stderr(&located));
    let located: Value = serde_json::from_slice(&located.stdout).unwrap();
    let asked: Vec<_> = located["hops"].as_array().unwrap().iter().map(|hop| hop["asked"].as_str().unwrap()).collect();
    assert_eq!(asked, ["127.83.4.1:5632", "127.83.5.1:5632"]);
    assert_eq!(located["servers"][0]["server"], "127.83.2.1:10100");
    assert!(located["servers"][0]["answer_ms"].is_number(), "{located}");

    let query = |kind| run(&["tds", "query", "--tds", "127.83.5.1", "--type", kind, "--country", "BE", "--json"]);
    let server: Value = serde_json::from_slice(&query("TS").stdout).unwrap();
    assert_eq!((&server["address"], &server["port"]), (&"127.83.2.1".into(), &10_100.into()));
    assert_eq!(query("TDS").status.code(), Some(1), "an empty answer is no success");

    let entry = ["--tds", "127.83.5.1", "--login", "brussels", "--source", "127.83.2.9", "--port", "10100"];
    let register = |password: &str| {
        let mut command = castgate(&["tds", "register", "--protocol", "UDP", "--networks", "127.0.0.0/8"]);
        command.args(entry).env("CASTGATE_PASSWORD", password).output().unwrap()
    };
    let refused = register("wrong");
    assert!(!refused.status.success() && stderr(&refused).contains("401"), "{}", stderr(&refused));
    let registered = register("example-only-brussels");
    assert!(registered.status.success(), "{}", stderr(&registered));
    assert_eq!(stdout(&query("TS")).lines().count(), 2);
    let bye =
        castgate(&["tds", "bye", "--strict"]).args(entry).env("CASTGATE_PASSWORD", "example-only-brussels").output();
    assert!(bye.unwrap().status.success());
    assert_eq!(stdout(&query("TS")).lines().count(), 1);
}
