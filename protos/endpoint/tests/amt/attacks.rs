//! Strangers in great numbers, and what was overheard.

use crate::bed::{Bed, SOURCE, SSM, Table, everything, include, ip, packet};
use crate::random::Random;
use castgate_endpoint::amt::gateway;
use castgate_endpoint::amt::relay::{Config, Output, Reason, Relay};
use castgate_wire::amt::{Nonce, Repr, RequestFlags, ResponseMac};
use castgate_wire::membership::{Message, Record, RecordType, emit};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The longest Membership Query: 12 octets, an MLD query of 76, and the gateway's address.
const QUERY_LEN_MAX: usize = 12 + 76 + 18;

fn local() -> SocketAddr {
    "198.51.100.1:2268".parse().unwrap()
}

fn relay(start: Instant) -> Relay {
    let mut relay = Relay::new(Config::default(), [7; 16], start);
    relay.set_permissions(everything(), start);
    relay
}

fn join() -> Vec<u8> {
    let record = Record { kind: RecordType::AllowNewSources, group: ip(SSM), sources: vec![ip(SOURCE)] };
    emit(&Message::Report(vec![record]), ip("0.0.0.0")).remove(0)
}

#[test]
fn requests_at_line_rate_from_random_addresses_leave_no_state_and_bring_each_one_answer_at_most() {
    let start = Instant::now();
    let mut relay = relay(start);
    let mut random = Random(1);
    let (mut octets_out, mut answers) = (0, 0);
    for number in 0..1_000_000_u32 {
        // A gigabit of Requests: 68 octets with all headers, 1.5 million a second.
        let now = start + Duration::from_nanos(667) * number;
        let from = random.address();
        let flags = RequestFlags(u8::try_from(random.below(256)).unwrap());
        let request = Repr::Request { nonce: Nonce(number), flags }.to_vec();
        relay.handle_datagram(now, local(), from, &request);
        let mut answered = 0;
        while let Some(output) = relay.poll_output() {
            let Output::Transmit { to, datagram, .. } = output else {
                panic!("a stranger made the relay say {output:?}")
            };
            assert!(to == from && datagram.len() <= QUERY_LEN_MAX);
            answered += 1;
            octets_out += datagram.len();
        }
        assert!(answered <= 1);
        answers += answered;
    }
    assert_eq!((relay.endpoints().len(), relay.next_timeout(), relay.upstream().count()), (0, None, 0));
    assert!(answers <= 5_000 + 20_000, "{answers} answers in two thirds of a second");
    assert!(octets_out <= QUERY_LEN_MAX * 25_000);
    assert!(relay.counters().drops.of(Reason::TotalRate) > 900_000);
}

#[test]
fn one_victim_is_never_sent_more_than_its_rate() {
    let start = Instant::now();
    let mut relay = relay(start);
    let mut random = Random(2);
    let mut answers = 0;
    for number in 0..600_000_u32 {
        let now = start + Duration::from_micros(100) * number;
        let port = u16::try_from(random.below(65_535)).unwrap() + 1;
        let victim = SocketAddr::from(([203, 0, 113, 9], port));
        relay.handle_datagram(
            now,
            local(),
            victim,
            &Repr::Request { nonce: Nonce(1), flags: RequestFlags(1) }.to_vec(),
        );
        answers += std::iter::from_fn(|| relay.poll_output()).count();
    }
    assert!(answers <= 128 + 60 * 32, "{answers} in a minute");
}

#[test]
fn forged_updates_and_teardowns_change_nothing_and_are_never_answered() {
    let start = Instant::now();
    let mut relay = relay(start);
    let mut random = Random(3);
    let report = join();
    for number in 0..300_000_u32 {
        let now = start + Duration::from_micros(10) * number;
        let [mac @ .., _, _] = random.next().to_be_bytes();
        let (mac, nonce, from) = (ResponseMac(mac), Nonce(number), random.address());
        let forged = if number % 2 == 0 {
            Repr::Update { mac, nonce, packet: &report }.to_vec()
        } else {
            Repr::Teardown { mac, nonce, gateway: from }.to_vec()
        };
        relay.handle_datagram(now, local(), from, &forged);
        assert_eq!(relay.poll_output(), None);
    }
    assert_eq!((relay.endpoints().len(), relay.counters().drops.of(Reason::WrongMac)), (0, 300_000));
}

/// A joined gateway, the Query and the Update that somebody has overheard.
fn overheard() -> (Bed, usize, Vec<u8>, SocketAddr) {
    let mut bed = Bed::new(4);
    let relay = bed.add_relay(Config::default());
    let from: SocketAddr = "203.0.113.200:40000".parse().unwrap();
    let (to, now) = (bed.relays[relay].address, bed.now);
    let node = bed.relays[relay].relay.as_mut().unwrap();
    node.handle_datagram(now, to, from, &Repr::Request { nonce: Nonce(7), flags: RequestFlags::IGMP }.to_vec());
    let Some(Output::Transmit { datagram, .. }) = node.poll_output() else { panic!("an answer") };
    let Repr::Query { mac, nonce, .. } = Repr::parse(&datagram).unwrap() else { panic!("a query") };
    let update = Repr::Update { mac, nonce, packet: &join() }.to_vec();
    (bed, relay, update, from)
}

#[test]
fn a_mac_that_was_overheard_is_worth_nothing_elsewhere() {
    let (mut bed, relay, update, from) = overheard();
    let to = bed.relays[relay].address;
    let other_port = SocketAddr::new(from.ip(), 40_001);
    let other_address: SocketAddr = "203.0.113.201:40000".parse().unwrap();
    for thief in [other_port, other_address, "[2001:db8::1]:40000".parse().unwrap()] {
        bed.receive(thief, to, &update);
    }
    bed.settle();
    assert!(bed.endpoints(relay).is_empty());
    let second = bed.add_relay(Config::default());
    bed.receive(from, bed.relays[second].address, &update);
    bed.settle();
    assert!(bed.endpoints(second).is_empty(), "nor at another relay");
    bed.receive(from, to, &update);
    bed.settle();
    assert_eq!(bed.endpoints(relay), [from]);
}

#[test]
fn an_update_that_is_cut_at_any_octet_or_damaged_in_any_bit_does_nothing() {
    let (mut bed, relay, update, from) = overheard();
    let to = bed.relays[relay].address;
    for len in 0..update.len() {
        bed.receive(from, to, &update[..len]);
    }
    for bit in 0..update.len() * 8 {
        // The reserved octet is not looked at, nor are the reserved bits of a report.
        if (8..16).contains(&bit) {
            continue;
        }
        let mut damaged = update.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        bed.receive(from, to, &damaged);
        bed.settle();
        assert!(bed.endpoints(relay).is_empty(), "bit {bit}");
    }
    let mut longer = update.clone();
    longer.extend([0; 100]);
    bed.receive(from, to, &longer);
    bed.settle();
    assert_eq!(bed.endpoints(relay), [from], "trailing octets are not looked at");
}

#[test]
fn updates_that_claim_a_hundred_thousand_sources_stay_within_the_limits() {
    let start = Instant::now();
    let mut relay = relay(start);
    let from: SocketAddr = "203.0.113.1:7".parse().unwrap();
    relay.handle_datagram(start, local(), from, &Repr::Request { nonce: Nonce(7), flags: RequestFlags::IGMP }.to_vec());
    let Some(Output::Transmit { datagram, .. }) = relay.poll_output() else { panic!("an answer") };
    let Repr::Query { mac, nonce, .. } = Repr::parse(&datagram).unwrap() else { panic!("a query") };
    let mut table = Table::default();
    for block in 0..100_u32 {
        let sources = (0..1000).map(|low| (0x0a00_0000 + block * 1000 + low).to_be_bytes().into()).collect();
        let records = vec![Record { kind: RecordType::ModeIsInclude, group: ip(SSM), sources }];
        for packet in emit(&Message::Report(records), ip("0.0.0.0")) {
            relay.handle_datagram(start, local(), from, &Repr::Update { mac, nonce, packet: &packet }.to_vec());
            std::iter::from_fn(|| relay.poll_output()).for_each(|output| assert!(table.apply(output).is_none()));
        }
    }
    for group in 0..100_000_u32 {
        let group = (0xef00_0000 + group + 256).to_be_bytes().into();
        let report = emit(&Message::OldReport { version: 2, group }, ip("0.0.0.0")).remove(0);
        relay.handle_datagram(start, local(), from, &Repr::Update { mac, nonce, packet: &report }.to_vec());
        std::iter::from_fn(|| relay.poll_output()).for_each(|output| assert!(table.apply(output).is_none()));
    }
    let (_, filters) = &table.endpoints[&from];
    assert_eq!((filters.len(), filters[&ip(SSM)].sources().len()), (1000, 128));
    assert_eq!(relay.counters().drops.of(Reason::SourcesPerGroupMax), 99_872);
    assert_eq!(relay.counters().drops.of(Reason::GroupsPerEndpointMax), 100_000 - 999);
}

#[test]
fn a_flood_disturbs_no_gateway_that_is_there_and_lets_new_ones_in() {
    let mut bed = Bed::new(6);
    let relay = bed.add_relay(Config::default());
    let to = bed.relays[relay].address;
    bed.add_source(SOURCE, SSM);
    let old = bed.add_gateway(to, gateway::Config::default());
    bed.join(old, SSM, include(&[SOURCE]));
    bed.run_for(Duration::from_secs(1));
    let new = bed.add_gateway(to, gateway::Config::default());
    bed.join(new, SSM, include(&[SOURCE]));
    let mut random = Random(9);
    for _ in 0..1_000 {
        for _ in 0..15 {
            let request = Repr::Request { nonce: Nonce(1), flags: RequestFlags::IGMP }.to_vec();
            bed.receive(random.address(), to, &request);
            bed.receive(
                random.address(),
                to,
                &Repr::Teardown { mac: ResponseMac([0; 6]), nonce: Nonce(1), gateway: bed.gateways[old].public }
                    .to_vec(),
            );
        }
        let node = bed.relays[relay].relay.as_mut().unwrap();
        // The answers to strangers are not carried: only the others matter.
        let outputs: Vec<Output> = std::iter::from_fn(|| node.poll_output()).collect();
        for output in outputs {
            if let Some((local, at, datagram)) = bed.relays[relay].table.apply(output)
                && bed.gateways.iter().any(|gateway| gateway.public == at)
            {
                bed.net.carry(bed.now, local, at, datagram);
            }
        }
        bed.run_for(Duration::from_millis(1));
    }
    bed.run_for(Duration::from_millis(500));
    let times: Vec<u64> = bed.gateways[old].received.iter().map(|(at, ..)| *at).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 10));
    assert!(bed.gateways[new].count(SOURCE) > 100);
}

#[test]
fn data_from_a_wrong_relay_or_to_no_group_never_passes() {
    let mut bed = Bed::new(7);
    let relay = bed.add_relay(Config::default());
    let to = bed.relays[relay].address;
    let gateway = bed.add_gateway(to, gateway::Config::default());
    bed.join(gateway, SSM, include(&[SOURCE]));
    bed.run_for(Duration::from_secs(1));
    let public = bed.gateways[gateway].public;
    let wrong_port = SocketAddr::new(to.ip(), 2269);
    let wrong_relay: SocketAddr = "198.51.100.99:2268".parse().unwrap();
    let cases: BTreeMap<&str, (SocketAddr, &str, &str)> = [
        ("port", (wrong_port, SOURCE, SSM)),
        ("relay", (wrong_relay, SOURCE, SSM)),
        ("unicast", (to, SOURCE, "203.0.113.1")),
        ("broadcast", (to, SOURCE, "255.255.255.255")),
        ("group", (to, SOURCE, "232.9.9.9")),
        ("source", (to, "192.0.2.99", SSM)),
    ]
    .into();
    for (what, (from, source, destination)) in cases {
        let packet = packet(ip(source), ip(destination));
        bed.receive(from, public, &Repr::Data { packet: &packet }.to_vec());
        assert!(bed.gateways[gateway].received.is_empty(), "{what}");
    }
    let packet = packet(ip(SOURCE), ip(SSM));
    bed.receive(to, public, &Repr::Data { packet: &packet }.to_vec());
    assert_eq!(bed.gateways[gateway].received.len(), 1);
}
