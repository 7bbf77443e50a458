//! One rule of the relay each; the helpers stand here, the rules in the files.

mod discovery;
mod endpoints;
mod limits;
mod queries;
mod reports;
mod teardown;

use super::*;
use castgate_wire::membership::{Record, RecordType, parse};
use std::collections::BTreeSet;

const ASM: &str = "239.1.2.3";
const SSM: &str = "232.1.2.3";
const SSM_V6: &str = "ff3e::8000:d";
const SOURCE: &str = "192.0.2.10";
const SOURCE_V6: &str = "2001:db8::a";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn local() -> SocketAddr {
    "198.51.100.1:2268".parse().unwrap()
}

fn gateway(number: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, number], 40_000))
}

fn everything() -> Permissions {
    let permit = |groups: &str| Permit { groups: groups.parse().unwrap(), sources: Sources::Any };
    Permissions(vec![permit("224.0.0.0/4"), permit("ff00::/8")])
}

fn record(kind: RecordType, group: &str, sources: &[&str]) -> Record {
    Record { kind, group: ip(group), sources: sources.iter().map(|source| ip(source)).collect() }
}

fn allow(group: &str, sources: &[&str]) -> Message {
    Message::Report(vec![record(RecordType::AllowNewSources, group, sources)])
}

fn include(sources: &[&str]) -> Filter {
    Filter::include(sources.iter().map(|source| ip(source)))
}

/// What a gateway got of one Membership Query.
#[derive(Debug, Clone, PartialEq)]
struct Got {
    mac: ResponseMac,
    nonce: Nonce,
    flags: QueryFlags,
    gateway: Option<SocketAddr>,
    packet: Vec<u8>,
}

/// A relay under a clock that we turn.
struct Lab {
    relay: Relay,
    start: Instant,
    now: Instant,
    nonce: u32,
}

impl Lab {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let now = Instant::now();
        let mut relay = Relay::new(config, [7; 16], now);
        relay.set_permissions(everything(), now);
        Self { relay, start: now, now, nonce: 0 }
    }

    fn wait(&mut self, span: Duration) {
        self.now += span;
        self.relay.handle_timeout(self.now);
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.relay.poll_output()).collect()
    }

    fn receive(&mut self, from: SocketAddr, message: &Repr<'_>) {
        self.relay.handle_datagram(self.now, local(), from, &message.to_vec());
    }

    /// What a Request of `from` brings.
    fn request(&mut self, from: SocketAddr, flags: RequestFlags, nonce: Nonce) -> Option<Got> {
        self.outputs();
        self.receive(from, &Repr::Request { nonce, flags });
        let outputs = self.outputs();
        assert!(outputs.len() <= 1, "one answer at most");
        let Some(Output::Transmit { local: source, to, datagram }) = outputs.into_iter().next() else { return None };
        assert_eq!((source, to), (local(), from));
        let Repr::Query { mac, nonce, flags, gateway, packet } = Repr::parse(&datagram).unwrap() else {
            panic!("an answer that is no query")
        };
        Some(Got { mac, nonce, flags, gateway, packet: packet.to_vec() })
    }

    fn ask(&mut self, from: SocketAddr) -> Got {
        self.nonce += 1;
        self.request(from, RequestFlags::IGMP, Nonce(self.nonce)).expect("an answer")
    }

    fn update_with(&mut self, from: SocketAddr, got: &Got, message: &Message) {
        for packet in emit(message, source_of(message)) {
            self.receive(from, &Repr::Update { mac: got.mac, nonce: got.nonce, packet: &packet });
        }
    }

    /// The whole handshake.
    fn report(&mut self, from: SocketAddr, message: &Message) {
        let got = self.ask(from);
        self.update_with(from, &got, message);
    }

    fn join(&mut self, from: SocketAddr) {
        self.report(from, &allow(SSM, &[SOURCE]));
    }

    fn groups(&self, from: SocketAddr) -> Vec<(IpAddr, Filter)> {
        let found = self.relay.endpoints().find(|report| report.endpoint.remote == from);
        found.map(|report| report.groups).unwrap_or_default()
    }

    fn dropped(&self, reason: Reason) -> u64 {
        self.relay.counters().drops.of(reason)
    }
}

fn source_of(message: &Message) -> IpAddr {
    let group = match message {
        Message::Report(records) => records.first().map_or(ip(ASM), |record| record.group),
        Message::OldReport { group, .. } | Message::OldLeave { group } => *group,
        Message::Query(query) => query.group.unwrap_or(ip(ASM)),
    };
    if group.is_ipv4() { ip("0.0.0.0") } else { ip("fe80::2") }
}
