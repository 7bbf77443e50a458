//! The test bed: relays, gateways behind NATs, sources, one clock, one seed.
//!
//! ```text
//!   source ──▶ relay: what upstream admits, to endpoints whose filter admits it ══ net: delay, loss, cuts ══ NAT ── gateway
//! ```
//! A relay's driver here knows nothing but its outputs: what the relay says is what is forwarded.

use crate::random::Random;
use castgate_endpoint::amt::gateway::{self, Event, Gateway};
use castgate_endpoint::amt::relay::{self, Endpoint, Permissions, Permit, Relay, Sources};
use castgate_endpoint::membership::Filter;
use castgate_wire::amt::Repr;
use castgate_wire::{ipv4, ipv6};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Milliseconds since the bed was made.
pub type Millis = u64;

pub const SSM: &str = "232.1.2.3";
pub const SSM_V6: &str = "ff3e::8000:d";
pub const SOURCE: &str = "192.0.2.10";
pub const SOURCE_V6: &str = "2001:db8::a";

pub const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn include(sources: &[&str]) -> Filter {
    Filter::include(sources.iter().map(|source| ip(source)))
}

pub fn everything() -> Permissions {
    let permit = |groups: &str| Permit { groups: groups.parse().unwrap(), sources: Sources::Any };
    Permissions(vec![permit("224.0.0.0/4"), permit("ff00::/8")])
}

impl Random {
    pub fn address(&mut self) -> SocketAddr {
        let bits = self.next().to_be_bytes();
        SocketAddr::from(([bits[0] % 200 + 1, bits[1], bits[2], bits[3]], u16::from_be_bytes([bits[4], bits[5]]) | 1))
    }
}

type Datagram = (SocketAddr, SocketAddr, Vec<u8>);

/// Delays every datagram, and loses some.
pub struct Net {
    pub random: Random,
    pub delay: Duration,
    pub loss_permille: u64,
    under_way: BTreeMap<(Instant, u64), Datagram>,
    carried: u64,
}

impl Net {
    pub fn carry(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        if self.random.below(1000) >= self.loss_permille {
            self.carried += 1;
            self.under_way.insert((now + self.delay, self.carried), (from, to, datagram));
        }
    }

    fn arrive(&mut self, now: Instant) -> Option<Datagram> {
        let first = self.under_way.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

/// A relay and what its driver knows from its outputs alone.
pub struct RelayNode {
    pub address: SocketAddr,
    /// `None` while it is killed.
    pub relay: Option<Relay>,
    pub config: relay::Config,
    pub table: Table,
}

#[derive(Default)]
pub struct Table {
    pub endpoints: BTreeMap<SocketAddr, (Endpoint, BTreeMap<IpAddr, Filter>)>,
    pub upstream: BTreeMap<IpAddr, Filter>,
}

impl Table {
    /// Carries out one output; what is to be sent comes back.
    pub fn apply(&mut self, output: relay::Output) -> Option<Datagram> {
        match output {
            relay::Output::Transmit { local, to, datagram } => return Some((local, to, datagram)),
            relay::Output::EndpointUp { endpoint } => {
                self.endpoints.entry(endpoint.remote).or_insert((endpoint, BTreeMap::new())).0 = endpoint;
            }
            relay::Output::EndpointDown { remote, .. } => {
                let (_, filters) = self.endpoints.remove(&remote).expect("an endpoint that was up");
                assert!(filters.is_empty(), "its filters were taken back before");
            }
            relay::Output::Filter { remote, group, filter } => {
                let (_, filters) = self.endpoints.get_mut(&remote).expect("an endpoint that is up");
                set(filters, group, filter);
            }
            relay::Output::Upstream { group, filter } => set(&mut self.upstream, group, filter),
        }
        None
    }
}

fn set(filters: &mut BTreeMap<IpAddr, Filter>, group: IpAddr, filter: Option<Filter>) {
    match filter {
        Some(filter) => {
            assert!(!filter.is_nothing());
            filters.insert(group, filter);
        }
        None => assert!(filters.remove(&group).is_some(), "taken back twice"),
    }
}

/// A gateway, its NAT, and what it received.
pub struct GatewayNode {
    pub gateway: Gateway,
    /// As relays see it.
    pub public: SocketAddr,
    pub received: Vec<(Millis, IpAddr, IpAddr)>,
    pub events: Vec<(Millis, Event)>,
}

impl GatewayNode {
    /// The first packet of a source since a time.
    pub fn first_since(&self, source: &str, since: Millis) -> Option<Millis> {
        self.received.iter().find(|(at, from, _)| *at >= since && *from == ip(source)).map(|(at, ..)| *at)
    }

    pub fn count(&self, source: &str) -> usize {
        self.received.iter().filter(|(_, from, _)| *from == ip(source)).count()
    }
}

struct Source {
    address: IpAddr,
    group: IpAddr,
    interval: Duration,
    next_at: Instant,
}

pub struct Bed {
    pub start: Instant,
    pub now: Instant,
    pub net: Net,
    pub relays: Vec<RelayNode>,
    pub gateways: Vec<GatewayNode>,
    sources: Vec<Source>,
}

impl Bed {
    pub fn new(seed: u64) -> Self {
        let start = Instant::now();
        let random = Random(seed);
        let net = Net { random, delay: millis(10), loss_permille: 0, under_way: BTreeMap::new(), carried: 0 };
        Self { start, now: start, net, relays: Vec::new(), gateways: Vec::new(), sources: Vec::new() }
    }

    pub fn add_relay(&mut self, config: relay::Config) -> usize {
        let place = self.relays.len();
        let address = SocketAddr::from(([198, 51, 100, u8::try_from(place + 1).unwrap()], 2268));
        self.add_relay_at(address, config)
    }

    pub fn add_relay_at(&mut self, address: SocketAddr, config: relay::Config) -> usize {
        self.relays.push(RelayNode { address, relay: None, config, table: Table::default() });
        self.start_relay(self.relays.len() - 1);
        self.relays.len() - 1
    }

    pub fn kill_relay(&mut self, place: usize) {
        self.relays[place].relay = None;
        self.relays[place].table = Table::default();
    }

    pub fn start_relay(&mut self, place: usize) {
        let key = self.net.random.key();
        let node = &mut self.relays[place];
        let mut relay = Relay::new(node.config.clone(), key, self.now);
        relay.set_permissions(everything(), self.now);
        node.relay = Some(relay);
    }

    pub fn add_gateway(&mut self, at: SocketAddr, config: gateway::Config) -> usize {
        let low = u8::try_from(self.gateways.len() + 1).unwrap();
        let public = match at {
            SocketAddr::V4(_) => SocketAddr::from(([203, 0, 113, low], 40_000)),
            SocketAddr::V6(_) => SocketAddr::from(([0x2001, 0xdb8, 7, 0, 0, 0, 0, low.into()], 40_000)),
        };
        let key = self.net.random.key();
        let gateway = Gateway::new(config, at, false, key);
        self.gateways.push(GatewayNode { gateway, public, received: Vec::new(), events: Vec::new() });
        self.gateways.len() - 1
    }

    /// A source that sends every ten milliseconds from now on.
    pub fn add_source(&mut self, source: &str, group: &str) {
        let (address, group) = (ip(source), ip(group));
        self.sources.push(Source { address, group, interval: millis(10), next_at: self.now });
    }

    pub fn join(&mut self, place: usize, group: &str, filter: Filter) {
        self.gateways[place].gateway.set_filter(ip(group), filter, self.now).unwrap();
        self.settle();
    }

    pub fn at(&self) -> Millis {
        u64::try_from((self.now - self.start).as_millis()).unwrap()
    }

    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        self.settle();
        while let Some(next) = self.next_event().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.step();
        }
        self.now = end;
    }

    fn next_event(&self) -> Option<Instant> {
        let gateways = self.gateways.iter().filter_map(|node| node.gateway.next_timeout());
        let relays = self.relays.iter().filter_map(|node| node.relay.as_ref()?.next_timeout());
        let sources = self.sources.iter().map(|source| source.next_at);
        let arrival = self.net.under_way.keys().next().map(|(at, _)| *at);
        gateways.chain(relays).chain(sources).chain(arrival).min()
    }

    fn step(&mut self) {
        let now = self.now;
        for node in &mut self.gateways {
            if node.gateway.next_timeout().is_some_and(|at| at <= now) {
                node.gateway.handle_timeout(now);
                assert!(node.gateway.next_timeout().is_none_or(|at| at > now), "a gateway that is never satisfied");
            }
        }
        for relay in self.relays.iter_mut().filter_map(|node| node.relay.as_mut()) {
            if relay.next_timeout().is_some_and(|at| at <= now) {
                relay.handle_timeout(now);
                assert!(relay.next_timeout().is_none_or(|at| at > now), "a relay that is never satisfied");
            }
        }
        self.settle();
        self.run_sources();
        while let Some((from, to, datagram)) = self.net.arrive(now) {
            self.receive(from, to, &datagram);
        }
        self.settle();
    }

    fn run_sources(&mut self) {
        for source in self.sources.iter_mut().filter(|source| source.next_at <= self.now) {
            source.next_at += source.interval;
            let packet = packet(source.address, source.group);
            let data = Repr::Data { packet: &packet }.to_vec();
            for node in self.relays.iter().filter(|node| node.relay.is_some()) {
                let is_taken =
                    node.table.upstream.get(&source.group).is_some_and(|filter| filter.admits(source.address));
                for (endpoint, filters) in node.table.endpoints.values() {
                    if filters.get(&source.group).is_some_and(|filter| filter.admits(source.address)) {
                        assert!(is_taken, "what an endpoint wants is taken in");
                        self.net.carry(self.now, endpoint.local, endpoint.remote, data.clone());
                    }
                }
            }
        }
    }

    pub fn receive(&mut self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let (now, at) = (self.now, self.at());
        if let Some(relay) = self.relays.iter_mut().find(|node| node.address == to).and_then(|node| node.relay.as_mut())
        {
            relay.handle_datagram(now, to, from, datagram);
        }
        for node in self.gateways.iter_mut().filter(|node| node.public == to) {
            if let Some(packet) = node.gateway.handle_datagram(now, from, datagram) {
                node.received.push((at, packet.source(), packet.destination()));
            }
        }
    }

    /// Carries out all outputs.
    pub fn settle(&mut self) {
        let (now, at) = (self.now, self.at());
        for node in &mut self.gateways {
            while let Some(output) = node.gateway.poll_output() {
                match output {
                    gateway::Output::Transmit { to, datagram } => self.net.carry(now, node.public, to, datagram),
                    gateway::Output::Event(event) => node.events.push((at, event)),
                }
            }
        }
        for node in &mut self.relays {
            let Some(relay) = &mut node.relay else { continue };
            while let Some(output) = relay.poll_output() {
                if let Some((local, to, datagram)) = node.table.apply(output) {
                    self.net.carry(now, local, to, datagram);
                }
            }
        }
    }

    pub fn endpoints(&self, place: usize) -> Vec<SocketAddr> {
        self.relays[place].table.endpoints.keys().copied().collect()
    }
}

/// An IP packet with nothing of interest in it.
pub fn packet(source: IpAddr, group: IpAddr) -> Vec<u8> {
    match (source, group) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let fragment = ipv4::Fragment::default();
            let repr = ipv4::Repr {
                tos: 0,
                identification: 0,
                fragment,
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
            let repr = ipv6::Repr {
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
