//! Those who do not mean well: they get nothing, and nobody notices them.

use crate::{ASM_RULE, PATTERN, PATTERN_RULE, SOON, channel};
use anyhow::{Context, Result, ensure};
use castgate_e2e::fleet::{ServerConfig, TUNNEL_PORT, on_air, start_server};
use castgate_e2e::forger::{Forger, forged_address};
use castgate_e2e::hostile::{Peer, no_channel};
use castgate_e2e::lab::random::Random;
use castgate_e2e::lab::{Lab, Scenario, wait};
use castgate_e2e::receive::Receive;
use castgate_e2e::recorder::Recorder;
use castgate_wire::umtp::{Channel, Command, Cookie, Trailer};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

const TOPOLOGY: &str = "
    studio:   source 10.1.0.10/24, server 10.1.0.2/24, neighbour 10.1.0.20/24
    internet: server 192.0.2.2/24, honest 192.0.2.50/24, stranger 192.0.2.66/24
";
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), TUNNEL_PORT);
/// Permitted, and joined by nobody who may: what attackers want.
const BAIT: &str = "239.1.2.3:5004";
const BAIT_GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
/// A free address of the internet, where the forger stands.
const FORGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

fn config() -> ServerConfig {
    ServerConfig::home().permit(PATTERN_RULE).permit(ASM_RULE).permit("group: 239.7.7.7, ports: 5004, send: true")
}

#[test]
fn joins_of_what_is_not_permitted_bring_nothing() {
    Scenario::new(TOPOLOGY).run(|lab| {
        let mut server = start_server(lab, lab.host("server"), &config())?;
        let native = castgate_e2e::recorder::sender(lab.host("neighbour"), "studio")?;
        let peer = Peer::open(lab.host("stranger"), SERVER)?;
        let cookie = peer.learn_cookie()?;
        let forbidden = [
            "224.0.0.5:5004",
            "224.0.0.251:5353",
            "192.0.2.50:5004",
            "10.1.0.20:5004",
            "0.0.0.0:5004",
            "255.255.255.255:5004",
            "239.99.99.99:5004",
            "239.1.2.3:5005",
            "232.9.9.9:5004",
        ];
        for text in forbidden {
            let place: SocketAddrV4 = text.parse()?;
            let channel = Channel { group: *place.ip(), source: None, port: place.port() };
            peer.say(Command::JoinGroup, channel, 16, cookie, &[])?;
            peer.say(Command::JoinRtpGroup, channel, 16, cookie, &[])?;
        }
        let foreign = Channel { group: "232.9.9.9".parse()?, source: Some("10.1.0.99".parse()?), port: 5004 };
        peer.say(Command::JoinGroup, foreign, 16, cookie, &[])?;
        // A join that is permitted comes last: when it works, the others were read before it.
        let good = BAIT.parse()?;
        peer.say(Command::JoinGroup, good, 16, cookie, &[])?;
        lab.host("server").wait_member(BAIT_GROUP, SOON)?;
        for text in forbidden {
            native.send_to(b"not for strangers", text).ok();
        }
        native.send_to(b"for all", BAIT)?;
        wait::until("the permitted channel", SOON, || (!peer.heard(Command::Data).is_empty()).then_some(()))?;
        for text in ["224.0.0.5", "224.0.0.251", "239.99.99.99", "192.0.2.50"] {
            ensure!(!lab.host("server").is_member(text.parse()?), "the server joined {text}");
        }
        let heard = peer.heard(Command::Data);
        ensure!(heard.iter().all(|(trailer, head)| trailer.channel == good && head == b"for all"), "{heard:?}");
        ensure!(!server.process().is_ended());
        Ok(())
    });
}

/// What lets an honest client survive a restarted server is all that a stranger gets.
#[test]
fn a_wrong_cookie_is_answered_with_twelve_octets_once_a_second_and_nothing_else() {
    Scenario::new(TOPOLOGY).run(|lab| {
        let _server = start_server(lab, lab.host("server"), &config())?;
        let bait: Channel = BAIT.parse()?;
        for command in [Command::JoinGroup, Command::Data, Command::LeaveGroup, Command::TearDown] {
            let peer = Peer::open(lab.host("stranger"), SERVER)?;
            for _ in 0..5 {
                peer.say(command, bait, 16, Cookie(0), b"")?;
            }
            wait::until("an answer", SOON, || (!peer.everything().is_empty()).then_some(()))?;
            // A question that is always answered comes back after the others: they have been dealt with.
            let told = peer.heard(Command::ProbeAck)[0].0.source_cookie;
            peer.say(Command::Probe, no_channel(), 0, told, &[])?;
            wait::until("the last answer", SOON, || (peer.everything().len() >= 2).then_some(()))?;
            let answers = peer.everything();
            ensure!(answers.len() == 2, "{command}: {} answers to five and a PROBE", answers.len());
            ensure!(answers.iter().all(|answer| answer.payload.len() == 12), "{command}: {answers:?}");
            ensure!(peer.learn_cookie()? == told, "{command}: another cookie than the one that was told");
        }
        ensure!(!lab.host("server").is_member(BAIT_GROUP));
        Ok(())
    });
}

#[test]
fn data_without_a_join_or_without_the_right_to_send_goes_nowhere() {
    Scenario::new(TOPOLOGY).run(|lab| {
        let _server = start_server(lab, lab.host("server"), &config())?;
        let talk: Channel = "239.7.7.7:5004".parse()?;
        let [open, bait] =
            [talk, BAIT.parse()?].map(|channel| Recorder::start(lab.host("neighbour"), "studio", channel));
        let (open, bait) = (open?, bait?);
        let victim = Recorder::record(lab.host("honest").enter(|| std::net::UdpSocket::bind("192.0.2.50:5004"))??);
        let mut listener = Receive::start(
            lab.host("honest"),
            "ham:ip:239.7.7.7:5004",
            &["--via", "umtp", "--server", &SERVER.to_string()],
        )?;
        lab.host("server").wait_member(talk.group, SOON)?;

        let peer = Peer::open(lab.host("stranger"), SERVER)?;
        let cookie = peer.learn_cookie()?;
        let aimed = Channel { group: Ipv4Addr::new(192, 0, 2, 50), source: None, port: 5004 };
        let routing = Channel { group: Ipv4Addr::new(224, 0, 0, 5), source: None, port: 5004 };
        for channel in [talk, BAIT.parse()?, aimed, routing] {
            peer.say(Command::Data, channel, 16, cookie, b"without a join")?;
        }
        // Joined, but only to listen.
        peer.say(Command::JoinGroup, BAIT.parse()?, 16, cookie, &[])?;
        lab.host("server").wait_member(BAIT_GROUP, SOON)?;
        peer.say(Command::Data, BAIT.parse()?, 16, cookie, b"without the right")?;
        // Joined and permitted, but with somebody else's cookie, then with the right one.
        peer.say(Command::JoinGroup, talk, 16, cookie, &[])?;
        peer.say(Command::Data, talk, 16, Cookie(!cookie.0), b"with a wrong cookie")?;
        wait::until("the right to send", SOON, || {
            peer.say(Command::Data, talk, 16, cookie, b"as it should be").ok()?;
            (open.count() > 0).then_some(())
        })?;
        ensure!(open.heard().iter().all(|datagram| datagram.payload == b"as it should be"), "{:?}", open.heard());
        ensure!(bait.count() == 0, "{:?}", bait.heard());
        ensure!(victim.count() == 0, "the server is a reflector: {:?}", victim.heard());
        listener.wait_packets(1, SOON)?;
        Ok(())
    });
}

#[test]
fn a_flood_of_wrong_cookies_from_everywhere_disturbs_nobody() {
    const RATE: u64 = 100_000;
    const SPAN: Duration = Duration::from_secs(8);
    Scenario::new(TOPOLOGY).alone().run(|lab| {
        let mut server = start_server(lab, lab.host("server"), &config())?;
        let _on_air = on_air(lab, lab.host("source"), "studio", &[channel(PATTERN)])?;
        let mut honest =
            Receive::start(lab.host("honest"), PATTERN, &["--via", "umtp", "--server", &SERVER.to_string()])?;
        honest.wait_packets(20, SOON)?;
        let forger = Forger::start(lab, "internet", FORGER, lab.host("server"))?;
        let mut random = Random::new(20_031_121);
        let (cookies, learning_octets) = learn_cookies(&forger, &mut random)?;
        let places: Vec<(SocketAddrV4, Cookie)> = cookies.into_iter().collect();

        // The first second fills every table that has a bound; from then on memory stands still.
        let mut flood = |span| flood_once(&forger, &places, &mut random, RATE, span);
        let first = flood(Duration::from_secs(1))?;
        let before = server.process().resident_octets()?;
        // A machine that stalls for a second cannot offer the load: it gets another chance, the server does not.
        let (mut rate, mut octets) = (0, 0);
        for _ in 0..3 {
            let rest = flood(SPAN)?;
            octets += rest.sent_octets;
            rate = rest.per_second();
            if rate > RATE * 9 / 10 {
                break;
            }
        }
        let after = server.process().resident_octets()?;

        println!("{rate} datagrams/s, {octets} octets in, memory {before} -> {after}");
        ensure!(rate > RATE * 9 / 10, "the flood reached only {rate}/s");
        ensure!(after < before + (2 << 20), "memory grew from {before} to {after} octets");
        let answers = forger.answers();
        let octets_in = learning_octets + first.sent_octets + octets;
        ensure!(answers.octets <= octets_in, "{answers:?} for {octets_in} octets in");
        ensure!(answers.data == 0, "DATA for a forged address: {answers:?}");
        ensure!(!lab.host("server").is_member(BAIT_GROUP), "a forged JOIN was believed");

        let seen = honest.latest().context("no report")?.packets();
        honest.wait_packets(seen + 50, SOON)?;
        let total = honest.finish()?;
        ensure!(total.lost() == 0 && total.duplicated() == 0, "{:?}", total.value());
        ensure!(total.packets() > 600, "{:?}", total.value());
        Ok(())
    });
}

/// PROBEs from random addresses, until the victim has told most of them their cookie; also gives the octets that it took.
fn learn_cookies(forger: &Forger, random: &mut Random) -> Result<(HashMap<SocketAddrV4, Cookie>, u64)> {
    const PLACES: usize = 8_192;
    const WANTED: usize = 4_096;
    let places: Vec<SocketAddrV4> = (0..PLACES).map(|_| forged_address(random)).collect();
    let mut octets = 0;
    for _ in 0..6 {
        let known = forger.cookies();
        let mut unknown = places.iter().filter(|place| !known.contains_key(place)).cycle();
        let count = (places.len() - known.len()) as u64;
        if known.len() >= WANTED || count == 0 {
            break;
        }
        let probe = trailer(Command::Probe, no_channel(), Cookie(0));
        // A second and a half at the pace that passes over each unknown once.
        let sent = forger.flood(SERVER, count, Duration::from_millis(1_500), |_| {
            (*unknown.next().expect("a cycle of some has no end"), probe.clone())
        })?;
        octets += sent.sent_octets;
    }
    let known = forger.cookies();
    ensure!(known.len() >= 1_000, "only {} of {PLACES} forged addresses got an answer", known.len());
    Ok((known, octets))
}

fn flood_once(
    forger: &Forger,
    places: &[(SocketAddrV4, Cookie)],
    random: &mut Random,
    rate: u64,
    span: Duration,
) -> Result<castgate_e2e::forger::Traffic> {
    const COMMANDS: [Command; 6] = [
        Command::JoinGroup,
        Command::Data,
        Command::LeaveGroup,
        Command::TearDown,
        Command::JoinRtpGroup,
        Command::Probe,
    ];
    let bait: Channel = BAIT.parse()?;
    forger.flood(SERVER, rate, span, |number| {
        let index = usize::try_from(random.bits() % places.len() as u64).expect("an index of a slice");
        let (from, right) = places[index];
        let mut guess = random.bits16();
        while guess == right.0 {
            guess = random.bits16();
        }
        let command = COMMANDS[usize::try_from(number % COMMANDS.len() as u64).expect("an index of a slice")];
        let channel = if command == Command::Probe { no_channel() } else { bait };
        (from, trailer(command, channel, Cookie(guess)))
    })
}

#[test]
fn guessing_the_cookie_from_one_address_for_a_minute_brings_nothing() {
    const SPAN: Duration = Duration::from_mins(1);
    /// All 65 536 cookies within the minute, the right one among them.
    const RATE: u64 = 1_250;
    Scenario::new(TOPOLOGY).run(|lab| {
        let _server = start_server(lab, lab.host("server"), &config())?;
        let _on_air = on_air(lab, lab.host("source"), "studio", &[channel(PATTERN)])?;
        let mut honest =
            Receive::start(lab.host("honest"), PATTERN, &["--via", "umtp", "--server", &SERVER.to_string()])?;
        honest.wait_packets(20, SOON)?;
        let forger = Forger::start(lab, "internet", FORGER, lab.host("server"))?;
        let from: SocketAddrV4 = "198.18.66.6:6666".parse()?;
        let probe = trailer(Command::Probe, no_channel(), Cookie(0));
        let right = wait::until("a PROBE_ACK", SOON, || {
            forger.send(from, SERVER, &probe).ok()?;
            forger.cookies().get(&from).copied()
        })?;
        let known = forger.answers();
        let bait: Channel = BAIT.parse()?;
        // Begins behind the right one, so that luck is not what is tested: by then the address is ignored.
        let start = right.0.wrapping_add(1_000);
        let sent = forger.flood(SERVER, RATE, SPAN, |number| {
            let guess = start.wrapping_add(u16::try_from(number & 0xffff).expect("16 bits"));
            (from, trailer(Command::JoinGroup, bait, Cookie(guess)))
        })?;
        ensure!(sent.sent > 65_536, "only {} guesses", sent.sent);
        let answers = forger.answers();
        ensure!(answers.data == 0 && !lab.host("server").is_member(BAIT_GROUP), "a guess was right: {answers:?}");
        ensure!(answers.octets - known.octets <= sent.sent_octets, "{answers:?}");
        let total = honest.finish()?;
        ensure!(total.lost() == 0 && total.packets() > 5_000, "{:?}", total.value());
        Ok(())
    });
}

fn trailer(command: Command, channel: Channel, cookie: Cookie) -> Vec<u8> {
    let trailer = Trailer { source_cookie: Cookie(0x0666), destination_cookie: cookie, channel, ttl: 16, command };
    let mut octets = Vec::with_capacity(16);
    trailer.append_to(&mut octets);
    octets
}

/// The lab's part of these tests: what the forger says arrives, and comes back to nobody but him.
#[test]
fn a_forger_reaches_his_victim_under_any_address() {
    Scenario::new(TOPOLOGY).run(|lab: &Lab| {
        let victim = lab.host("server").enter(|| std::net::UdpSocket::bind(SERVER))??;
        let forger = Forger::start(lab, "internet", FORGER, lab.host("server"))?;
        let mut random = Random::new(1);
        let mut buffer = [0; 64];
        victim.set_read_timeout(Some(SOON))?;
        for _ in 0..100 {
            let from = forged_address(&mut random);
            forger.send(from, SERVER, b"anybody home?")?;
            let (len, seen) = victim.recv_from(&mut buffer)?;
            ensure!(seen == from.into() && &buffer[..len] == b"anybody home?");
            victim.send_to(&buffer[..len], seen)?;
        }
        wait::until("the answers", SOON, || (forger.answers().datagrams == 100).then_some(()))?;
        ensure!(forger.answers().octets == 1_300 && forger.answers().data == 0);
        Ok(())
    });
}
