//! The Linux driver as it was seen to behave, in small: as a gateway of our relay and as a relay of our gateway.

use crate::bed::{Bed, SOURCE, SOURCE_V6, SSM, SSM_V6, Table, everything, include, ip, millis, packet};
use crate::random::Random;
use castgate_endpoint::amt::gateway::{self, Gateway};
use castgate_endpoint::amt::relay::{Config, Relay};
use castgate_endpoint::membership::Filter;
use castgate_wire::amt::{Nonce, QueryFlags, Repr, RequestFlags, ResponseMac};
use castgate_wire::membership::{Message, Query, Record, RecordType, emit, parse};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Two Requests a cycle with one nonce, a new nonce every two seconds whatever QQIC says, no Query with low flag bits.
struct LinuxGateway {
    nonce: u32,
    mac: Option<ResponseMac>,
    dropped: usize,
}

impl LinuxGateway {
    fn cycle(&mut self) -> [Vec<u8>; 2] {
        self.nonce += 1;
        [RequestFlags::IGMP, RequestFlags::LINUX_MLD]
            .map(|flags| Repr::Request { nonce: Nonce(self.nonce), flags }.to_vec())
    }

    fn receive(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        if datagram[1] & 0x3f != 0 {
            self.dropped += 1;
            return None;
        }
        let Ok(Repr::Query { mac, nonce, packet, .. }) = Repr::parse(datagram) else { return None };
        if nonce != Nonce(self.nonce) {
            return None;
        }
        self.mac = Some(mac);
        let (group, source, from) = match parse(packet).unwrap().destination {
            IpAddr::V4(_) => (SSM, SOURCE, "0.0.0.0"),
            IpAddr::V6(_) => (SSM_V6, SOURCE_V6, "fe80::9"),
        };
        let record = Record { kind: RecordType::ModeIsInclude, group: ip(group), sources: vec![ip(source)] };
        let report = emit(&Message::Report(vec![record]), ip(from)).remove(0);
        Some(Repr::Update { mac, nonce, packet: &report }.to_vec())
    }
}

#[test]
fn the_linux_gateway_converges_at_a_relay_that_sets_g_and_l() {
    let start = Instant::now();
    let local: SocketAddr = "198.51.100.1:2268".parse().unwrap();
    let from: SocketAddr = "203.0.113.1:2268".parse().unwrap();
    let mut relay = Relay::new(Config::default(), [7; 16], start);
    relay.set_permissions(everything(), start);
    let mut linux = LinuxGateway { nonce: 100, mac: None, dropped: 0 };
    let mut table = Table::default();
    let mut members = Vec::new();
    for cycle in 0..200_u32 {
        let now = start + Duration::from_secs(2) * cycle;
        relay.handle_timeout(now);
        for request in linux.cycle() {
            relay.handle_datagram(now, local, from, &request);
            while let Some(output) = relay.poll_output() {
                if let Some((_, _, datagram)) = table.apply(output)
                    && let Some(update) = linux.receive(&datagram)
                {
                    relay.handle_datagram(now, local, from, &update);
                }
            }
        }
        members.push(table.endpoints.get(&from).map_or(0, |(_, filters)| filters.len()));
        if cycle == 100 {
            relay.drain();
        }
    }
    assert_eq!(members[..2], [1, 2], "MLD at once, IGMP with the second cycle");
    assert!(members[2..].iter().all(|groups| *groups == 2), "and for good, a draining relay included");
    assert_eq!(linux.dropped, 1);
    assert!(relay.counters().drops.of(castgate_endpoint::amt::relay::Reason::SourceRate) == 0);
}

#[test]
fn a_linux_gateway_without_ipv6_converges_by_its_nonces() {
    let start = Instant::now();
    let local: SocketAddr = "198.51.100.1:2268".parse().unwrap();
    let from: SocketAddr = "203.0.113.1:2268".parse().unwrap();
    let mut relay = Relay::new(Config::default(), [7; 16], start);
    relay.set_permissions(everything(), start);
    let mut linux = LinuxGateway { nonce: 100, mac: None, dropped: 0 };
    for cycle in 0..3_u32 {
        let now = start + Duration::from_secs(2) * cycle;
        let [igmp, _] = linux.cycle();
        relay.handle_datagram(now, local, from, &igmp);
        while let Some(output) = relay.poll_output() {
            if let castgate_endpoint::amt::relay::Output::Transmit { datagram, .. } = output
                && let Some(update) = linux.receive(&datagram)
            {
                relay.handle_datagram(now, local, from, &update);
            }
        }
    }
    assert_eq!((linux.dropped, relay.endpoints().len()), (1, 1));
}

/// Silent to 0x01 and 0x02, keys tunnels by address with the nonce and MAC of the last Request, forwards by group, G = 0, inner
/// source 0.0.0.0.
struct LinuxRelay {
    macs: BTreeMap<IpAddr, (SocketAddr, Nonce, ResponseMac)>,
    groups: BTreeMap<IpAddr, BTreeSet<IpAddr>>,
    silent: usize,
}

impl LinuxRelay {
    fn receive(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        match Repr::parse(datagram).unwrap() {
            Repr::Request { nonce, flags } => {
                if datagram[1] & !0x80 != 0 {
                    self.silent += 1;
                    return None;
                }
                // A new port of a known address gets nothing until the old one expires.
                if self.macs.get(&from.ip()).is_some_and(|(known, ..)| *known != from) {
                    return None;
                }
                let [mac @ .., _, _] = Random(nonce.0.into()).next().to_be_bytes();
                self.macs.insert(from.ip(), (from, nonce, ResponseMac(mac)));
                let is_mld = flags.0 & 0x80 != 0;
                let query = Query {
                    version: if is_mld { 2 } else { 3 },
                    group: None,
                    max_response: millis(100),
                    suppress: false,
                    robustness: 2,
                    interval: Duration::from_secs(125),
                    sources: Vec::new(),
                };
                let source = ip(if is_mld { "fe80::1" } else { "0.0.0.0" });
                let packet = emit(&Message::Query(query), source).remove(0);
                let (mac, flags) = (ResponseMac(mac), QueryFlags::NONE);
                Some(Repr::Query { mac, nonce, flags, gateway: None, packet: &packet }.to_vec())
            }
            Repr::Update { mac, nonce, packet } => {
                if self.macs.get(&from.ip()) == Some(&(from, nonce, mac))
                    && let Message::Report(records) = parse(packet).unwrap().message
                {
                    let groups = self.groups.entry(from.ip()).or_default();
                    for record in records {
                        match record.kind {
                            RecordType::BlockOldSources => groups.remove(&record.group),
                            _ => groups.insert(record.group),
                        };
                    }
                }
                None
            }
            _ => None,
        }
    }
}

#[test]
fn our_gateway_works_at_a_linux_relay_and_takes_only_the_sources_that_it_wants() {
    let start = Instant::now();
    let at: SocketAddr = "198.51.100.1:2268".parse().unwrap();
    let us: SocketAddr = "203.0.113.1:40000".parse().unwrap();
    let mut gateway = Gateway::new(gateway::Config::default(), at, false, [7; 16]);
    let mut linux = LinuxRelay { macs: BTreeMap::new(), groups: BTreeMap::new(), silent: 0 };
    gateway.set_filter(ip(SSM), include(&[SOURCE]), start).unwrap();
    gateway.set_filter(ip(SSM_V6), include(&[SOURCE_V6]), start).unwrap();
    let mut received: BTreeMap<IpAddr, Vec<u128>> = BTreeMap::new();
    let senders = [(SOURCE, SSM), ("192.0.2.66", SSM), (SOURCE_V6, SSM_V6), ("2001:db8::66", SSM_V6)];
    for tick in 0..40_000_u32 {
        let now = start + millis(10) * tick;
        gateway.handle_timeout(now);
        while let Some(output) = gateway.poll_output() {
            if let gateway::Output::Transmit { datagram, .. } = output
                && let Some(answer) = linux.receive(us, &datagram)
            {
                gateway.handle_datagram(now, at, &answer);
            }
        }
        let groups = linux.groups.get(&us.ip()).cloned().unwrap_or_default();
        for (source, group) in senders.map(|(source, group)| (ip(source), ip(group))) {
            if groups.contains(&group) {
                let packet = packet(source, group);
                let data = Repr::Data { packet: &packet }.to_vec();
                if let Some(packet) = gateway.handle_datagram(now, at, &data) {
                    received.entry(packet.source()).or_default().push((now - start).as_millis());
                }
            }
        }
    }
    assert_eq!(received.keys().copied().collect::<Vec<_>>(), [ip(SOURCE), ip(SOURCE_V6)]);
    assert!(received[&ip(SOURCE)][0] < 1_100, "one wait: {} ms", received[&ip(SOURCE)][0]);
    assert!(received[&ip(SOURCE_V6)][0] < 3_100, "two waits: {} ms", received[&ip(SOURCE_V6)][0]);
    assert!(received.values().all(|times| times.windows(2).all(|pair| pair[1] - pair[0] == 10)));
    assert!(linux.silent <= 3, "flags that were answered are kept: {}", linux.silent);
    gateway.set_filter(ip(SSM), Filter::nothing(), start + Duration::from_secs(400)).unwrap();
    while let Some(output) = gateway.poll_output() {
        if let gateway::Output::Transmit { datagram, .. } = output {
            linux.receive(us, &datagram);
        }
    }
    assert_eq!(linux.groups[&us.ip()].len(), 1);
}

#[test]
fn a_request_of_nine_octets_is_answered() {
    let mut bed = Bed::new(1);
    let relay = bed.add_relay(Config::default());
    let to = bed.relays[relay].address;
    bed.receive("203.0.113.9:9".parse().unwrap(), to, &[3, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(bed.relays[relay].relay.as_ref().unwrap().counters().queries, 1);
}
