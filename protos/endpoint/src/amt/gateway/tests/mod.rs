//! One rule of the gateway each; the helpers stand here, the rules in the files.

mod data;
mod handshake;
mod reports;
mod watch;

use super::*;
use castgate_wire::amt::{Nonce, QueryFlags, ResponseMac};
use castgate_wire::membership::{Message, Query, Record, RecordType, emit, parse};
use std::time::Duration;

const ASM: &str = "239.1.2.3";
const SSM: &str = "232.1.2.3";
const SSM_V6: &str = "ff3e::8000:d";
const SOURCE: &str = "192.0.2.10";
const SOURCE_V6: &str = "2001:db8::a";
const SECOND: Duration = Duration::from_secs(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn relay() -> SocketAddr {
    "198.51.100.1:2268".parse().unwrap()
}

fn us(port: u16) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 1], port))
}

fn include(sources: &[&str]) -> Filter {
    Filter::include(sources.iter().map(|source| ip(source)))
}

/// What a relay sends, in parts that a test may change.
#[derive(Clone)]
struct Reply {
    from: SocketAddr,
    mac: u8,
    nonce: Nonce,
    flags: QueryFlags,
    gateway: Option<SocketAddr>,
    query: Query,
    source: &'static str,
}

fn general(family: Family) -> Query {
    Query {
        version: if family == Family::V4 { 3 } else { 2 },
        group: None,
        max_response: Duration::from_millis(100),
        suppress: false,
        robustness: 2,
        interval: Duration::from_mins(1),
        sources: Vec::new(),
    }
}

/// The right answer to a Request.
fn reply_to(family: Family, nonce: Nonce) -> Reply {
    Reply {
        from: relay(),
        mac: 1,
        nonce,
        flags: QueryFlags::NONE,
        gateway: None,
        query: general(family),
        source: if family == Family::V4 { "0.0.0.0" } else { "fe80::1" },
    }
}

/// A gateway under a clock that we turn.
struct Lab {
    gateway: Gateway,
    start: Instant,
    now: Instant,
    events: Vec<Event>,
}

impl Lab {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        Self::at(config, false)
    }

    fn at(config: Config, discovery_first: bool) -> Self {
        let now = Instant::now();
        Self { gateway: Gateway::new(config, relay(), discovery_first, [7; 16]), start: now, now, events: Vec::new() }
    }

    fn join(&mut self, group: &str, sources: &[&str]) {
        self.gateway.set_filter(ip(group), include(sources), self.now).unwrap();
    }

    fn wait(&mut self, span: Duration) {
        self.now += span;
        self.gateway.handle_timeout(self.now);
    }

    /// The datagrams that are to be sent; events are kept.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        while let Some(output) = self.gateway.poll_output() {
            match output {
                Output::Transmit { to, datagram } => {
                    assert_eq!(to, relay());
                    datagrams.push(datagram);
                }
                Output::Event(event) => self.events.push(event),
            }
        }
        datagrams
    }

    fn events(&mut self) -> Vec<Event> {
        let datagrams = self.sent();
        assert_eq!(datagrams, Vec::<Vec<u8>>::new());
        std::mem::take(&mut self.events)
    }

    /// All Requests sent now, nonce and flags; the rest of what was sent is forgotten.
    fn requests(&mut self) -> Vec<(Nonce, u8)> {
        self.sent()
            .iter()
            .filter_map(|datagram| match Repr::parse(datagram).unwrap() {
                Repr::Request { nonce, flags } => Some((nonce, flags.0)),
                _ => None,
            })
            .collect()
    }

    /// All records of all Updates sent now, with the MAC of each.
    fn records(&mut self) -> Vec<(u8, Record)> {
        let mut all = Vec::new();
        for datagram in self.sent() {
            let Repr::Update { mac, packet, .. } = Repr::parse(&datagram).unwrap() else { panic!("{datagram:?}") };
            let Message::Report(records) = parse(packet).unwrap().message else { panic!("a report") };
            all.extend(records.into_iter().map(|record| (mac.0[0], record)));
        }
        all
    }

    fn receive(&mut self, reply: &Reply) {
        let packet = emit(&Message::Query(reply.query.clone()), ip(reply.source)).remove(0);
        let datagram = Repr::Query {
            mac: ResponseMac([reply.mac; 6]),
            nonce: reply.nonce,
            flags: reply.flags,
            gateway: reply.gateway,
            packet: &packet,
        };
        self.gateway.handle_datagram(self.now, reply.from, &datagram.to_vec());
    }

    /// Joins a channel, with the whole handshake.
    fn joined(config: Config) -> Self {
        let mut lab = Self::with(config);
        lab.join(SSM, &[SOURCE]);
        lab.answer(1, None);
        lab.sent();
        lab.events.clear();
        lab
    }

    /// Answers the one Request that was sent, for IGMP.
    fn answer(&mut self, mac: u8, gateway: Option<SocketAddr>) -> Nonce {
        let [(nonce, _)] = self.requests()[..] else { panic!("one Request") };
        let reply = Reply { mac, gateway, ..reply_to(Family::V4, nonce) };
        self.receive(&reply);
        nonce
    }

    fn data(&mut self, from: SocketAddr, source: &str, group: &str) -> bool {
        let packet = packet(source, group);
        let datagram = Repr::Data { packet: &packet }.to_vec();
        self.gateway.handle_datagram(self.now, from, &datagram).is_some()
    }

    fn dropped(&self, reason: Reason) -> u64 {
        self.gateway.counters().drops.of(reason)
    }
}

/// An IP packet with nothing of interest in it.
fn packet(source: &str, destination: &str) -> Vec<u8> {
    match (ip(source), ip(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let repr = castgate_wire::ipv4::Repr {
                tos: 0,
                identification: 0,
                fragment: castgate_wire::ipv4::Fragment::default(),
                ttl: 9,
                protocol: 17,
                source,
                destination,
                options: &[],
                payload: b"payload",
            };
            let mut packet = vec![0; repr.buffer_len()];
            repr.emit(&mut packet);
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let repr = castgate_wire::ipv6::Repr {
                traffic_class: 0,
                flow_label: 0,
                next_header: 17,
                hop_limit: 9,
                source,
                destination,
                payload: b"payload",
            };
            let mut packet = vec![0; repr.buffer_len()];
            repr.emit(&mut packet);
            packet
        }
        _ => panic!("one family"),
    }
}
