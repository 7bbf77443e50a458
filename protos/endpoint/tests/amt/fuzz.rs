//! Arbitrary datagrams, arbitrary times: nothing panics, and what a driver knows from the outputs is what the relay knows.

use crate::bed::{Table, everything, include, ip, millis};
use castgate_endpoint::amt::gateway::{self, Gateway};
use castgate_endpoint::amt::relay::{Config, Output, Relay};
use castgate_endpoint::membership::Filter;
use castgate_wire::amt::{Nonce, QueryFlags, Repr, RequestFlags, ResponseMac};
use castgate_wire::membership::{Message, Query, Record, RecordType, emit};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
enum Step {
    Octets(Vec<u8>),
    Request {
        flags: u8,
        nonce: u32,
    },
    /// With the MAC that was given out last, if there is one.
    Update {
        records: Vec<(u8, usize, u8)>,
        damage: Option<(usize, u8)>,
    },
    Old {
        group: usize,
        version: u8,
        leaves: bool,
    },
    Teardown {
        of: usize,
    },
    Remove {
        of: usize,
    },
    Narrow,
    Widen,
    Drain,
}

const GROUPS: [&str; 6] = ["239.1.2.3", "232.1.2.3", "224.0.0.5", "192.0.2.1", "ff3e::1", "ff0e::1"];

fn step() -> impl Strategy<Value = Step> {
    let records = prop::collection::vec((0..8_u8, 0..GROUPS.len(), any::<u8>()), 0..4);
    let damage = prop::option::weighted(0.1, (0..80_usize, any::<u8>()));
    prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..120).prop_map(Step::Octets),
        6 => (any::<u8>(), any::<u32>()).prop_map(|(flags, nonce)| Step::Request { flags, nonce }),
        12 => (records, damage).prop_map(|(records, damage)| Step::Update { records, damage }),
        3 => (0..GROUPS.len(), 1..3_u8, any::<bool>()).prop_map(|(group, version, leaves)| Step::Old { group, version, leaves }),
        2 => (0..4_usize).prop_map(|of| Step::Teardown { of }),
        1 => (0..4_usize).prop_map(|of| Step::Remove { of }),
        1 => Just(Step::Narrow),
        1 => Just(Step::Widen),
        1 => Just(Step::Drain),
    ]
}

fn peer(number: usize) -> SocketAddr {
    ["203.0.113.1:1", "203.0.113.1:2", "203.0.113.2:1", "[2001:db8::1]:1"][number].parse().unwrap()
}

/// The bits of `mask` as sources of the group's family.
fn sources(group: IpAddr, mask: u8) -> Vec<IpAddr> {
    let low = (0..8).filter(move |bit| mask & 1 << bit != 0);
    low.map(|low| {
        if group.is_ipv4() {
            IpAddr::from([192, 0, 2, low])
        } else {
            IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, low.into()])
        }
    })
    .collect()
}

fn packets(records: &[(u8, usize, u8)]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for is_v4 in [true, false] {
        let records = records.iter().map(|(kind, group, mask)| {
            let group = ip(GROUPS[*group]);
            Record { kind: RecordType::from_code(*kind), group, sources: sources(group, *mask) }
        });
        let records: Vec<Record> = records.filter(|record| record.group.is_ipv4() == is_v4).collect();
        packets.extend(emit(&Message::Report(records), ip(if is_v4 { "0.0.0.0" } else { "::" })));
    }
    packets
}

/// What the driver has heard: tables, and the last MAC of each peer.
#[derive(Default)]
struct Replay {
    table: Table,
    macs: BTreeMap<SocketAddr, (ResponseMac, Nonce)>,
}

impl Replay {
    fn carry_out(&mut self, relay: &mut Relay) {
        while let Some(output) = relay.poll_output() {
            if let Output::EndpointUp { endpoint } = &output {
                assert!(self.macs.contains_key(&endpoint.remote), "an endpoint without a Query");
            }
            if let Some((_, to, datagram)) = self.table.apply(output)
                && let Repr::Query { mac, nonce, .. } = Repr::parse(&datagram).expect("we send what we can read")
            {
                self.macs.insert(to, (mac, nonce));
            }
        }
    }

    fn assert_equals(&self, relay: &Relay) {
        let endpoints: BTreeMap<_, _> = relay
            .endpoints()
            .map(|report| (report.endpoint.remote, (report.endpoint, report.groups.into_iter().collect())))
            .collect();
        assert_eq!(self.table.endpoints, endpoints);
        let upstream: BTreeMap<_, _> = relay.upstream().map(|(group, filter)| (group, filter.clone())).collect();
        assert_eq!(self.table.upstream, upstream);
        // The naive merge of all filters of a group.
        let mut merged: BTreeMap<IpAddr, Filter> = BTreeMap::new();
        for (group, filter) in endpoints.values().flat_map(|(_, filters)| filters) {
            let merged = merged.entry(*group).or_default();
            *merged = merged.merge(filter);
        }
        assert_eq!(self.table.upstream, merged);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_relay_survives_anything_and_its_driver_knows_what_it_knows(
        steps in prop::collection::vec((0..4_usize, step(), prop_oneof![0..10_u64, 0..200_000_u64]), 0..60),
        limits in (1..5_usize, 1..4_usize, 1..9_usize, 1..4_usize),
    ) {
        let (mut now, mut replay) = (Instant::now(), Replay::default());
        let local: SocketAddr = "198.51.100.1:2268".parse().unwrap();
        let (endpoints_max, groups_per_endpoint_max, sources_per_group_max, groups_max) = limits;
        let config = Config {
            endpoints_max, groups_per_endpoint_max, sources_per_group_max, groups_max,
            secret_life: Duration::from_mins(5),
            ..Config::default()
        };
        let mut relay = Relay::new(config, [7; 16], now);
        relay.set_permissions(everything(), now);
        for (from, step, wait) in steps {
            let from = peer(from);
            let (mac, nonce) = replay.macs.get(&from).copied().unwrap_or((ResponseMac([0; 6]), Nonce(0)));
            let mut datagrams = Vec::new();
            let mut update = |packet: &[u8]| datagrams.push(Repr::Update { mac, nonce, packet }.to_vec());
            match step {
                Step::Octets(octets) => datagrams.push(octets),
                Step::Request { flags, nonce } => {
                    datagrams.push(Repr::Request { nonce: Nonce(nonce), flags: RequestFlags(flags) }.to_vec());
                }
                Step::Update { records, damage } => {
                    for packet in packets(&records) {
 update(&packet);
}
                    if let Some((place, bits)) = damage {
                        for datagram in &mut datagrams {
                            let place = place % datagram.len();
                            datagram[place] ^= bits;
                        }
                    }
                }
                Step::Old { group, version, leaves } => {
                    let group = ip(GROUPS[group]);
                    let version = if group.is_ipv4() { version } else { 1 };
                    let message = if leaves { Message::OldLeave { group } } else { Message::OldReport { version, group } };
                    update(&emit(&message, ip(if group.is_ipv4() { "0.0.0.0" } else { "::" }))[0]);
                }
                Step::Teardown { of } => {
                    let (mac, nonce) = replay.macs.get(&peer(of)).copied().unwrap_or((mac, nonce));
                    datagrams.push(Repr::Teardown { mac, nonce, gateway: peer(of) }.to_vec());
                }
                Step::Remove { of } => relay.remove(peer(of)),
                Step::Narrow => {
                    let mut permissions = everything();
                    permissions.0[0].groups = "239.0.0.0/8".parse().unwrap();
                    permissions.0.pop();
                    relay.set_permissions(permissions, now);
                }
                Step::Widen => relay.set_permissions(everything(), now),
                Step::Drain => relay.set_limit_flag(!relay.is_limited()),
            }
            for datagram in datagrams {
                relay.handle_datagram(now, local, from, &datagram);
                replay.carry_out(&mut relay);
            }
            replay.carry_out(&mut relay);
            now += millis(wait);
            relay.handle_timeout(now);
            replay.carry_out(&mut relay);
            replay.assert_equals(&relay);
            prop_assert!(relay.endpoints().len() <= endpoints_max && relay.upstream().count() <= groups_max);
            for report in relay.endpoints() {
                prop_assert!(report.groups.len() <= groups_per_endpoint_max && !report.groups.is_empty());
                prop_assert!(report.groups.iter().all(|(_, filter)| filter.sources().len() <= sources_per_group_max));
            }
        }
        // Left alone, it forgets everything by itself.
        while let Some(next) = relay.next_timeout() {
            prop_assert!(next <= now + Duration::from_secs(261));
            relay.handle_timeout(next);
            replay.carry_out(&mut relay);
        }
        replay.assert_equals(&relay);
        prop_assert!(replay.table.endpoints.is_empty() && replay.table.upstream.is_empty());
    }

    #[test]
    fn a_gateway_survives_anything_and_takes_only_what_is_joined(
        steps in prop::collection::vec((step(), 0..3_usize, any::<u8>(), prop_oneof![0..10_u64, 0..200_000_u64]), 0..60),
        discovery_first in any::<bool>(),
    ) {
        let mut now = Instant::now();
        let relay: SocketAddr = "198.51.100.1:2268".parse().unwrap();
        let other: SocketAddr = "198.51.100.2:2268".parse().unwrap();
        let mut gateway = Gateway::new(gateway::Config::default(), relay, discovery_first, [7; 16]);
        let mut asked: BTreeSet<(Nonce, u8)> = BTreeSet::new();
        let mut discovering = None;
        for (step, what, bits, wait) in steps {
            let group = GROUPS[usize::from(bits) % GROUPS.len()];
            match what {
                0 => {
                    let _ = gateway.set_filter(ip(group), Filter::include(sources(ip(group), bits)), now);
                }
                1 => {
                    let _ = gateway.set_filter(ip(group), Filter::exclude(sources(ip(group), bits)), now);
                }
                _ => gateway.handle_unreachable(now),
            }
            let mut datagrams = Vec::new();
            match step {
                Step::Octets(octets) => datagrams.push(octets),
                Step::Request { flags, .. } => {
                    if let Some((nonce, asked)) = asked.pop_last() {
                        let is_mld = asked & 0x81 != 0;
                        let query = Query {
                            version: if is_mld { 2 } else { 3 },
                            group: None,
                            max_response: millis(100),
                            suppress: false,
                            robustness: bits & 7,
                            interval: Duration::from_secs(u64::from(bits) * 7),
                            sources: Vec::new(),
                        };
                        let source = ip(if is_mld { "::" } else { "0.0.0.0" });
                        let packet = emit(&Message::Query(query), source).remove(0);
                        let flags = QueryFlags(flags & 0x03);
                        let told = (flags.0 & 1 != 0).then(|| peer(usize::from(bits) % 4));
                        let mac = ResponseMac([bits; 6]);
                        datagrams.push(Repr::Query { mac, nonce, flags, gateway: told, packet: &packet }.to_vec());
                    }
                }
                Step::Teardown { .. } | Step::Remove { .. } => {
                    if let Some(nonce) = discovering.take() {
                        datagrams.push(Repr::Advertisement { nonce, relay: relay.ip() }.to_vec());
                    }
                }
                Step::Update { .. } | Step::Old { .. } | Step::Narrow | Step::Widen | Step::Drain => {
                    for group in GROUPS {
                        for source in sources(ip(group), bits) {
                            let packet = crate::bed::packet(source, ip(group));
                            datagrams.push(Repr::Data { packet: &packet }.to_vec());
                        }
                    }
                }
            }
            for datagram in &datagrams {
                for from in [relay, other] {
                    if let Some(packet) = gateway.handle_datagram(now, from, datagram) {
                        prop_assert!(from == relay && packet.destination().is_multicast());
                        let wanted = gateway.groups().find(|(group, _)| *group == packet.destination());
                        prop_assert!(wanted.is_some_and(|(_, filter)| filter.admits(packet.source())));
                    }
                }
            }
            now += millis(wait);
            gateway.handle_timeout(now);
            prop_assert!(gateway.next_timeout().is_none_or(|next| next > now));
            while let Some(output) = gateway.poll_output() {
                if let gateway::Output::Transmit { to, datagram } = output {
                    prop_assert_eq!(to, relay);
                    match Repr::parse(&datagram).expect("we send what we can read") {
                        Repr::Request { nonce, flags } => {
                            asked.insert((nonce, flags.0));
                        }
                        Repr::Discovery { nonce } => discovering = Some(nonce),
                        Repr::Update { .. } | Repr::Teardown { .. } => {}
                        other => panic!("a gateway does not send {other:?}"),
                    }
                }
            }
        }
        gateway.shut_down(now);
        for _ in 0..10 {
            now += Duration::from_secs(1);
            gateway.handle_timeout(now);
            while gateway.poll_output().is_some() {}
        }
        prop_assert!(gateway.is_finished() && gateway.next_timeout().is_none());
    }
}

#[test]
fn the_empty_filter_is_a_leave() {
    let now = Instant::now();
    let mut gateway = Gateway::new(gateway::Config::default(), "198.51.100.1:2268".parse().unwrap(), false, [7; 16]);
    gateway.set_filter(ip("232.1.2.3"), include(&["192.0.2.1"]), now).unwrap();
    gateway.set_filter(ip("232.1.2.3"), Filter::nothing(), now).unwrap();
    assert_eq!(gateway.groups().count(), 0);
}
