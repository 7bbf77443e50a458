//! The agent as a program: its file, its signals, its last good snapshot, and a flood.

mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use castgate_control::AgentSnapshot;
use castgate_wire::umtp::{Command, Cookie, Trailer};
use rustix::process::Signal;
use support::program::Program;
use support::{Net, PATIENCE, RawClient, pattern_of};

#[test]
fn a_reload_adds_a_channel_and_no_packet_of_the_others_is_lost() {
    let net = Net(81);
    let (first, second) = (net.ssm(1), net.ssm(2));
    let before = with_patterns(net, &[first]);
    let program = Program::start(&before);
    let client = RawClient::connect(net.client(1), net.server());
    let sequence = client.first_of_pattern(first);
    let sequence = client.follow_pattern(first, sequence, 20);

    program.configure(&AgentSnapshot { generation: 2, ..with_patterns(net, &[first, second]) }.to_yaml());
    program.wait_for("in force");
    // Every datagram sent while the file was taken is here, in order.
    client.follow_pattern(first, sequence, 100);
    let other = RawClient::connect(net.client(2), net.server());
    let sequence = other.first_of_pattern(second);
    other.follow_pattern(second, sequence, 10);
}

#[test]
fn a_bad_file_is_refused_in_one_sentence_and_the_old_one_goes_on() {
    let net = Net(82);
    let channel = net.ssm(1);
    let snapshot = with_patterns(net, &[channel]);
    let program = Program::start(&snapshot);
    let client = RawClient::connect(net.client(1), net.server());
    let sequence = client.first_of_pattern(channel);

    program.configure(&snapshot.to_yaml().replace("ttl: 63", "ttl: 300"));
    let line = program.wait_for("refused");
    assert!(line.contains("agent.yaml: server.limits.ttl: 300 is not in 1..=255"), "{line}");
    let sequence = client.follow_pattern(channel, sequence, 20);

    // One that can be read but not run is refused as well.
    program.configure(&snapshot.to_yaml().replace("- lo", "- nosuch0"));
    program.wait_for("interface \"nosuch0\" does not exist");
    client.follow_pattern(channel, sequence, 20);

    // The way back is open.
    program.configure(&AgentSnapshot { generation: 7, ..snapshot }.to_yaml());
    program.wait_for("in force");
}

#[test]
fn a_hangup_reads_the_file_again() {
    let net = Net(83);
    let mut program = Program::start(&net.snapshot(&[net.asm(1)]));
    program.configure("agent: [");
    program.wait_for("refused");
    program.signal(Signal::HUP);
    program.wait_for("refused");
    program.signal(Signal::INT);
    assert!(program.wait().success());
}

#[test]
fn with_a_bad_file_the_last_good_snapshot_is_started() {
    let net = Net(84);
    let channel = net.ssm(1);
    let directory = {
        let program = Program::start(&with_patterns(net, &[channel]));
        // Killed without a goodbye when it leaves this block.
        program.directory()
    };
    fs::write(directory.path().join("agent.yaml"), "agent: 1\nserver: nonsense\n").unwrap();
    let program = Program::start_in(directory);
    let line = program.wait_for("started with the last good snapshot");
    assert!(line.contains("WARN") && line.contains("agent.yaml: server"), "{line}");
    let client = RawClient::connect(net.client(1), net.server());
    client.first_of_pattern(channel);

    // A missing file is as bad, and one that becomes good is taken.
    let directory = program.directory();
    drop(program);
    fs::remove_file(directory.path().join("agent.yaml")).unwrap();
    let program = Program::start_in(directory);
    program.wait_for("started with the last good snapshot");
    program.configure(&AgentSnapshot { generation: 3, ..with_patterns(net, &[channel]) }.to_yaml());
    program.wait_for("in force");
}

#[test]
fn without_anything_good_it_ends_with_one_sentence() {
    let directory = std::sync::Arc::new(tempfile::tempdir().unwrap());
    fs::write(directory.path().join("agent.yaml"), "agent: demo/one\nservre: {}\n").unwrap();
    let mut program = Program::start_in(directory);
    assert_eq!(program.wait().code(), Some(1));
    let line = program.wait_for("castgate-agent: ");
    assert!(line.contains("agent.yaml: servre: unknown field `servre`"), "{line}");
}

#[test]
fn a_termination_says_goodbye_to_every_client_and_ends_well() {
    let net = Net(85);
    let channel = net.ssm(1);
    let mut program = Program::start(&with_patterns(net, &[channel]));
    let client = RawClient::connect(net.client(1), net.server());
    client.first_of_pattern(channel);
    program.signal(Signal::TERM);
    let deadline = Instant::now() + PATIENCE;
    while client.receive(PATIENCE).expect("a last word").0.command != Command::TearDown {
        assert!(Instant::now() < deadline, "no TEAR_DOWN");
    }
    assert!(program.wait().success());
}

/// 100 000 datagrams with wrong cookies from 250 addresses, as fast as this machine sends them.
#[test]
fn a_flood_of_wrong_cookies_is_not_amplified_costs_no_memory_and_hurts_nobody() {
    const DATAGRAMS: usize = 100_000;
    let net = Net(86);
    let channel = net.ssm(1);
    let mut snapshot = with_patterns(net, &[channel]);
    // The guessers have had one answer, to their PROBE: with the usual second between two nothing would be seen of the flood.
    let server = snapshot.server.as_mut().expect("it has a server");
    server.timers.answer_interval_ms = NonZeroU32::MIN;
    let program = Program::start(&snapshot);
    let client = RawClient::connect(net.client(1), net.server());
    let sequence = client.first_of_pattern(channel);
    let guessers: Vec<_> = (1..=250).map(|host| guesser(Ipv4Addr::new(127, net.0, 9, host), net.server())).collect();

    let flood = |datagrams: usize| {
        let mut bytes = 0;
        for number in 0..datagrams {
            let (guesser, right) = &guessers[number % guessers.len()];
            let guess = Trailer {
                channel,
                ttl: 9,
                ..Trailer::without_channel(Command::JoinGroup, Cookie(1), wrong(*right, number))
            };
            let mut datagram = Vec::with_capacity(16);
            guess.append_to(&mut datagram);
            // A full send buffer is the kernel's way of saying that this machine sends no faster.
            if guesser.send_to(&datagram, net.server()).is_ok() {
                bytes += datagram.len();
            }
        }
        bytes
    };
    let calm = AtomicBool::new(false);
    let (bytes_in, growth) = std::thread::scope(|scope| {
        let honest = scope.spawn(|| {
            let mut sequence = sequence;
            while !calm.load(Ordering::Relaxed) {
                sequence = client.follow_pattern(channel, sequence, 10);
            }
            sequence
        });
        let first = flood(DATAGRAMS / 10);
        let before = program.memory_kib();
        let rest = flood(DATAGRAMS);
        let growth = program.memory_kib().saturating_sub(before);
        calm.store(true, Ordering::Relaxed);
        assert!(honest.join().expect("no packet of the honest client is lost") > sequence);
        (first + rest, growth)
    });
    assert!(growth < 8 << 10, "{growth} KiB more");

    let mut buffer = [0; 2048];
    let mut bytes_out = 0;
    for (guesser, _) in &guessers {
        guesser.set_nonblocking(true).unwrap();
        while let Ok(length) = guesser.recv(&mut buffer) {
            let answer = Trailer::parse(&buffer[..length]).unwrap().1;
            assert_eq!(answer.command, Command::ProbeAck, "nothing but challenges");
            bytes_out += length;
        }
    }
    assert!(bytes_out > 0, "the flood did arrive");
    assert!(bytes_out <= bytes_in, "{bytes_out} octets out for {bytes_in} in");
    // Whoever joins now is served as before.
    RawClient::connect(net.client(2), net.server()).first_of_pattern(channel);
}

fn with_patterns(net: Net, channels: &[castgate_wire::umtp::Channel]) -> AgentSnapshot {
    AgentSnapshot { patterns: channels.iter().map(|channel| pattern_of(*channel)).collect(), ..net.snapshot(channels) }
}

/// A socket and the cookie that is right for it, which it asked for so that its guesses can leave it out.
fn guesser(address: Ipv4Addr, server: SocketAddrV4) -> (UdpSocket, Cookie) {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_write_timeout(Some(Duration::from_millis(10))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut probe = Vec::new();
    Trailer::without_channel(Command::Probe, Cookie(1), Cookie(0)).append_to(&mut probe);
    socket.send_to(&probe, server).unwrap();
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).expect("a PROBE is answered");
    (socket, Trailer::parse(&buffer[..length]).unwrap().1.source_cookie)
}

/// Any cookie but the right one.
fn wrong(right: Cookie, number: usize) -> Cookie {
    let guess = Cookie(u16::try_from(number % 65_536).unwrap());
    if guess == right { Cookie(!right.0) } else { guess }
}
