//! Clients that send: everybody else hears it once, nobody hears himself.

use crate::{SOON, channel};
use anyhow::{Result, ensure};
use castgate_e2e::fleet::{ServerConfig, TUNNEL_PORT, start_server};
use castgate_e2e::lab::impair::Way;
use castgate_e2e::lab::{Host, Process, Scenario, wait};
use castgate_e2e::programs::program;
use castgate_e2e::receive::Receive;
use castgate_e2e::recorder::Recorder;
use castgate_wire::pattern;
use castgate_wire::umtp::{Command, Trailer};
use std::collections::BTreeMap;
use std::time::Duration;

const TALK: &str = "ham:ip:239.7.7.7:5004";
const TALK_RULE: &str = "group: 239.7.7.7, ports: 5004, send: true, ttl: 8";

const CLIENTS: &str = "
    studio:   server 10.1.0.2/24, neighbour 10.1.0.20/24
    internet: server 192.0.2.2/24, speaker 192.0.2.30/24, first 192.0.2.31/24, second 192.0.2.32/24
    link speaker internet: delay=1ms
";

#[test]
fn what_a_client_sends_upstream_is_heard_once_by_everybody_else() {
    Scenario::new(CLIENTS).run(|lab| {
        let _server = start_server(lab, lab.host("server"), &ServerConfig::home().permit(TALK_RULE))?;
        let server = format!("192.0.2.2:{TUNNEL_PORT}");
        let words = ["--via", "umtp", "--server", &server];
        let native = Recorder::start(lab.host("neighbour"), "studio", channel(TALK).parse()?)?;
        let mut first = Receive::start(lab.host("first"), TALK, &words)?;
        let mut second = Receive::start(lab.host("second"), TALK, &words)?;
        lab.host("server").wait_member("239.7.7.7".parse()?, SOON)?;
        let mut speaker = send(lab.host("speaker"), TALK, "pattern:500k", &server, "4s")?;
        let status = speaker.wait(SOON * 2)?;
        ensure!(status.success(), "castgate send ended with {status}: {}", speaker.stderr());
        native.wait_quiet(Duration::from_millis(500), SOON)?;

        // What the speaker's own link carried up is the measure for all.
        let link = lab.link("speaker", "internet");
        let spoken = counted(link.pick(|passage| {
            let payload = (passage.way == Way::Up).then(|| passage.udp()).flatten()?.payload;
            let (head, trailer) = Trailer::parse(payload).ok()?;
            (trailer.command == Command::Data).then(|| pattern::Repr::parse(head)).flatten()
        }));
        let echoed = link.pick(|passage| {
            let payload = (passage.way == Way::Down).then(|| passage.udp()).flatten()?.payload;
            let (_, trailer) = Trailer::parse(payload).ok()?;
            (trailer.command == Command::Data).then_some(())
        });
        ensure!(echoed.is_empty(), "{} of his own packets came back to the speaker", echoed.len());
        ensure!(spoken.len() > 100 && spoken.values().all(|count| *count == 1), "{} spoken", spoken.len());

        let heard = native.heard();
        ensure!(heard.iter().all(|datagram| datagram.from.ip() == &lab.host("server").address("studio")));
        let on_the_lan = counted(heard.iter().filter_map(|datagram| pattern::Repr::parse(&datagram.payload)).collect());
        // The first packets race the join that they need; from the first that got through, none may be missing.
        let from = *on_the_lan.keys().next().expect("wait_quiet heard something");
        let rest: BTreeMap<u64, u32> = spoken.range(from..).map(|(sequence, count)| (*sequence, *count)).collect();
        ensure!(rest == on_the_lan, "the studio heard {} of {}", on_the_lan.len(), rest.len());
        ensure!(rest.len() + 20 > spoken.len(), "only {} of {} got through", rest.len(), spoken.len());
        for (name, receive) in [("first", &mut first), ("second", &mut second)] {
            let report = receive.wait_packets(rest.len() as u64, SOON)?;
            ensure!(report.packets() == rest.len() as u64, "{name}: {:?}", report.value());
            ensure!(report.lost() == 0 && report.duplicated() == 0, "{name}: {:?}", report.value());
        }
        Ok(())
    });
}

#[test]
fn a_client_that_speaks_and_listens_does_not_hear_himself() {
    Scenario::new(CLIENTS).run(|lab| {
        let _server = start_server(lab, lab.host("server"), &ServerConfig::home().permit(TALK_RULE))?;
        let server = format!("192.0.2.2:{TUNNEL_PORT}");
        // Two speakers, and a listener to know that both are heard.
        let mut listener = Receive::start(lab.host("second"), TALK, &["--via", "umtp", "--server", &server])?;
        lab.host("server").wait_member("239.7.7.7".parse()?, SOON)?;
        let mut one = send(lab.host("speaker"), TALK, "pattern:300k", &server, "3s")?;
        let mut other = send(lab.host("first"), TALK, "pattern:300k", &server, "3s")?;
        for process in [&mut one, &mut other] {
            let status = process.wait(SOON * 2)?;
            ensure!(status.success(), "castgate send ended with {status}: {}", process.stderr());
        }
        let link = lab.link("speaker", "internet");
        let streams = |way: Way| {
            counted_streams(link.pick(|passage| {
                let payload = (passage.way == way).then(|| passage.udp()).flatten()?.payload;
                let (head, trailer) = Trailer::parse(payload).ok()?;
                (trailer.command == Command::Data).then(|| pattern::Repr::parse(head)).flatten()
            }))
        };
        let (up, down) = (streams(Way::Up), streams(Way::Down));
        ensure!(up.len() == 1, "one stream goes up: {up:?}");
        ensure!(down.keys().all(|stream| !up.contains_key(stream)), "his own came back: {up:?} {down:?}");
        ensure!(down.len() == 1, "the other speaker is heard: {down:?}");
        listener.wait_packets(100, SOON)?;
        Ok(())
    });
}

/// Types `castgate send` on a host.
fn send(host: &Host, name: &str, input: &str, server: &str, span: &str) -> Result<Process> {
    let mut command = host.command(program("castgate")?);
    command.args(["send", name, "--input", input, "--via", "umtp", "--server", server, "--for", span]);
    host.spawn("castgate send", command)
}

fn counted(patterns: Vec<pattern::Repr>) -> BTreeMap<u64, u32> {
    let mut counts = BTreeMap::new();
    for repr in patterns {
        *counts.entry(repr.sequence).or_default() += 1;
    }
    counts
}

fn counted_streams(patterns: Vec<pattern::Repr>) -> BTreeMap<u64, u32> {
    let mut counts = BTreeMap::new();
    for repr in patterns {
        *counts.entry(repr.stream).or_default() += 1;
    }
    counts
}

/// A client on the server's own LAN that puts the channel back there is the loop that UMTP warns of.
#[test]
fn a_channel_put_back_on_the_lan_it_came_from_does_not_circle() {
    const CHANNEL: &str = "ham:ip:239.1.2.3:5004";
    const AFTER: u64 = 100;
    let topology = "
        studio:   source 10.1.0.10/24, server 10.1.0.2/24, neighbour 10.1.0.20/24, looper 10.1.0.30/24
        internet: server 192.0.2.2/24, first 192.0.2.31/24
    ";
    Scenario::new(topology).run(|lab| {
        let config = ServerConfig::new("0.0.0.0".parse()?, &["studio"])
            .permit("group: 239.1.2.3, ports: 5004, send: true, ttl: 8");
        let _server = start_server(lab, lab.host("server"), &config)?;
        let outside = format!("192.0.2.2:{TUNNEL_PORT}");
        let inside = format!("10.1.0.2:{TUNNEL_PORT}");
        let mut first = Receive::start(lab.host("first"), CHANNEL, &["--via", "umtp", "--server", &outside])?;
        lab.host("server").wait_member("239.1.2.3".parse()?, SOON)?;
        let words = ["--via", "umtp", "--server", &inside, "--output", "udp://239.1.2.3:5004?iface=studio"];
        let mut looper = Receive::start(lab.host("looper"), CHANNEL, &words)?;
        let native = Recorder::start(lab.host("neighbour"), "studio", channel(CHANNEL).parse()?)?;
        let socket = castgate_e2e::recorder::sender(lab.host("source"), "studio")?;
        let source = lab.host("source").address("studio");
        let mut sequence = 0;
        let mut speak = || -> Result<u64> {
            let mut payload = vec![0; 400];
            pattern::Repr { stream: 1, sequence, sent_nanos: 1 }.emit(&mut payload);
            socket.send_to(&payload, channel(CHANNEL))?;
            sequence += 1;
            Ok(sequence)
        };
        let heard_from =
            |is_it: bool| native.heard().iter().filter(|d| (d.from.ip() == &source) == is_it).count() as u64;
        // Until the looper has joined and puts back what he gets; the server hears it and ends his tunnel.
        wait::until("the loop", SOON, || match speak() {
            Ok(_) => (heard_from(false) > 0).then_some(Ok(())),
            Err(error) => Some(Err(error)),
        })??;
        looper
            .process()
            .wait_line("the end of the tunnel", SOON, |line| line.contains("has torn the tunnel down").then_some(()))?;
        // He comes back each second, and for a moment he puts back again what he gets.
        let mut sent = 0;
        for _ in 0..AFTER {
            sent = speak()?;
            wait::until("the LAN", SOON, || (heard_from(true) >= sent).then_some(()))?;
        }
        // A circle would never end; this silence is the proof that there is none.
        native.wait_quiet(Duration::from_secs(1), SOON)?;
        let report = first.wait_packets(sent, SOON)?;
        let heard = native.heard();
        let copies = |is_it: bool| {
            let from = heard.iter().filter(|datagram| (datagram.from.ip() == &source) == is_it);
            counted(from.filter_map(|datagram| pattern::Repr::parse(&datagram.payload)).collect())
        };
        let (spoken, put_back) = (copies(true), copies(false));
        ensure!(spoken.len() as u64 == sent && spoken.values().all(|count| *count == 1), "{} spoken", spoken.len());
        ensure!(put_back.values().all(|count| *count == 1), "what the looper put back came to him again: {put_back:?}");
        // Until the server heard the looper and ended his tunnel, a few came twice; never more than the looper put back.
        ensure!(
            report.packets() <= heard.len() as u64 && report.lost() == 0,
            "{} copies, {:?}",
            heard.len(),
            report.value()
        );
        Ok(())
    });
}
