//! Channels through as many relays as it takes: what the driver of an [`Access`] sees.

use crate::bed::{SOURCE, SSM, Table, everything, include, ip, millis};
use castgate_endpoint::amt::access::{Access, Event, LostReason, Output};
use castgate_endpoint::amt::discovery::{self, AttemptId, Mapping, Method, Place};
use castgate_endpoint::amt::gateway;
use castgate_endpoint::amt::relay::{self, Relay};
use castgate_endpoint::membership::Filter;
use castgate_wire::amt::Repr;
use castgate_wire::ipv4;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

const OTHER: &str = "198.18.0.7";

/// Some relays without delay and loss, and an access whose driver knows nothing but its outputs.
struct World {
    now: Instant,
    start: Instant,
    access: Access,
    relays: Vec<(SocketAddr, Option<Relay>, Table)>,
    sockets: BTreeMap<AttemptId, Socket>,
    opened: u16,
    events: Vec<(Duration, Event)>,
}

/// An open connection: our address, the relay from which data may come, and what is wanted of it.
type Socket = (SocketAddr, Option<SocketAddr>, BTreeMap<IpAddr, Filter>);

fn relay_address(place: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, place], 2268))
}

fn map(lines: &[(&str, u8)]) -> discovery::Config {
    let line = |(source, relay): &(&str, u8)| Mapping {
        groups: "232.0.0.0/8".parse().unwrap(),
        sources: Some(format!("{source}/32").parse().unwrap()),
        relays: vec![Place::Address(relay_address(*relay))],
        discovery_first: false,
    };
    discovery::Config { methods: vec![Method::Map], map: lines.iter().map(line).collect(), ..Default::default() }
}

fn explicit(relays: &[u8]) -> discovery::Config {
    let relays = relays.iter().map(|place| Place::Address(relay_address(*place))).collect();
    discovery::Config { methods: vec![Method::Explicit], relays, ..Default::default() }
}

impl World {
    fn new(config: discovery::Config, relays: u8) -> Self {
        let now = Instant::now();
        let relay = |place| {
            let mut relay = Relay::new(relay::Config::default(), [place; 16], now);
            relay.set_permissions(everything(), now);
            (relay_address(place), Some(relay), Table::default())
        };
        Self {
            now,
            start: now,
            access: Access::new(config, gateway::Config::default(), [7; 16]),
            relays: (1..=relays).map(relay).collect(),
            sockets: BTreeMap::new(),
            opened: 0,
            events: Vec::new(),
        }
    }

    fn want(&mut self, group: &str, filter: &Filter) {
        self.access.want(ip(group), Some(filter), self.now);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(output) = self.access.poll_output() {
            match output {
                Output::Resolve { id, .. } => {
                    self.access.handle_answer(id, discovery::Answer::Failed, self.now);
                }
                Output::Open { connection, .. } => {
                    self.opened += 1;
                    let local = SocketAddr::from(([10, 0, 0, 1], 40_000 + self.opened));
                    assert!(self.sockets.insert(connection, (local, None, BTreeMap::new())).is_none());
                }
                Output::Relay { connection, relay } => self.sockets.get_mut(&connection).unwrap().1 = Some(relay),
                Output::Filter { connection, group, filter } => {
                    let filters = &mut self.sockets.get_mut(&connection).unwrap().2;
                    match filter {
                        Some(filter) => drop(filters.insert(group, filter)),
                        None => drop(filters.remove(&group)),
                    }
                }
                Output::Transmit { connection, to, datagram } => {
                    let from = self.sockets[&connection].0;
                    self.deliver(from, to, &datagram);
                }
                Output::Close { connection } => assert!(self.sockets.remove(&connection).is_some()),
                Output::Event(event) => self.events.push((self.now - self.start, event)),
            }
        }
    }

    /// To a relay, and its answers back.
    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let Some((local, Some(relay), table)) = self.relays.iter_mut().find(|(at, ..)| *at == to) else { return };
        relay.handle_datagram(self.now, *local, from, datagram);
        let mut answers = Vec::new();
        while let Some(output) = relay.poll_output() {
            answers.extend(table.apply(output));
        }
        for (from, to, answer) in answers {
            self.receive(from, to, &answer);
        }
    }

    fn receive(&mut self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) -> bool {
        let Some((connection, _)) = self.sockets.iter().find(|(_, (local, ..))| *local == to) else { return false };
        self.access.handle_datagram(*connection, from, datagram, self.now).is_some()
    }

    /// One packet of a channel at every relay that lives; how many copies were taken.
    fn packet(&mut self, source: &str, group: &str) -> usize {
        let (IpAddr::V4(source), IpAddr::V4(group)) = (ip(source), ip(group)) else { panic!("of IPv4") };
        let packet = ipv4::Repr {
            tos: 0,
            identification: 1,
            fragment: ipv4::Fragment::default(),
            ttl: 9,
            protocol: ipv4::protocol::UDP,
            source,
            destination: group,
            options: &[],
            payload: b"payload!",
        };
        let mut octets = vec![0; packet.buffer_len()];
        packet.emit(&mut octets);
        let datagram = Repr::Data { packet: &octets }.to_vec();
        let mut legs = Vec::new();
        for (from, relay, table) in &self.relays {
            let wanted = |filters: &BTreeMap<IpAddr, Filter>| {
                filters.get(&group.into()).is_some_and(|filter| filter.admits(source.into()))
            };
            let to = table.endpoints.iter().filter(|(_, (_, filters))| wanted(filters)).map(|(remote, _)| *remote);
            legs.extend(to.filter(|_| relay.is_some()).map(|to| (*from, to)));
        }
        legs.into_iter().filter(|(from, to)| self.receive(*from, *to, &datagram)).count()
    }

    /// Lets time pass, with a packet of each of these channels every 100 ms; how many were taken of each.
    fn run(&mut self, span: Duration, channels: &[(&str, &str)]) -> Vec<usize> {
        let end = self.now + span;
        let mut taken = vec![0; channels.len()];
        let mut packet_at = self.now;
        while self.now < end {
            let next = self.access.next_timeout().unwrap_or(end).min(packet_at).clamp(self.now, end);
            self.now = next;
            self.access.handle_timeout(self.now);
            self.settle();
            if self.now >= packet_at {
                packet_at += millis(100);
                for (count, (source, group)) in taken.iter_mut().zip(channels) {
                    *count += self.packet(source, group);
                    self.settle();
                }
            }
        }
        taken
    }

    fn relays_in_use(&self) -> Vec<SocketAddr> {
        self.access.connections().filter(|report| report.channels > 0).map(|report| report.relay).collect()
    }
}

#[test]
fn each_source_comes_from_the_relay_that_the_map_names_and_one_source_through_one_connection() {
    let mut world = World::new(map(&[(SOURCE, 1), (OTHER, 2)]), 2);
    world.want(SSM, &include(&[SOURCE, OTHER]));
    world.want("232.9.9.9", &include(&[SOURCE]));
    let taken = world.run(millis(2000), &[(SOURCE, SSM), (OTHER, SSM), (SOURCE, "232.9.9.9")]);
    assert!(taken.iter().all(|count| *count >= 19), "{taken:?}");
    assert_eq!(world.relays_in_use(), [relay_address(1), relay_address(2)]);
    assert_eq!(world.sockets.len(), 2);
    assert_eq!(world.relays[0].2.upstream.len(), 2);
    let wanted: Vec<_> = world.sockets.values().map(|(_, _, filters)| filters[&ip(SSM)].clone()).collect();
    assert_eq!(wanted, [include(&[SOURCE]), include(&[OTHER])]);
}

#[test]
fn a_relay_that_dies_is_replaced_by_the_next_within_ten_seconds() {
    let mut world = World::new(explicit(&[1, 2]), 2);
    world.want(SSM, &include(&[SOURCE]));
    world.run(millis(1000), &[(SOURCE, SSM)]);
    assert_eq!(world.relays_in_use(), [relay_address(1)]);
    world.relays[0].1 = None;
    let died_at = world.now - world.start;
    let taken = world.run(millis(12_000), &[(SOURCE, SSM)]);
    let using = |event: &Event| matches!(event, Event::Using { relay, .. } if *relay == relay_address(2));
    let (at, _) = *world.events.iter().find(|(_, event)| using(event)).expect("the second relay is used");
    let took = at.saturating_sub(died_at);
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    assert!(taken[0] > 0);
    let lost = world.events.iter().find_map(|(_, event)| match event {
        Event::RelayLost { relay, reason } => Some((*relay, *reason)),
        _ => None,
    });
    assert_eq!(lost, Some((relay_address(1), LostReason::Silent)));
    assert_eq!(world.relays_in_use(), [relay_address(2)]);
}

#[test]
fn leaving_says_goodbye_and_closes_the_socket() {
    let mut world = World::new(explicit(&[1]), 1);
    world.want(SSM, &include(&[SOURCE]));
    world.run(millis(500), &[(SOURCE, SSM)]);
    assert_eq!(world.relays[0].2.endpoints.len(), 1);
    world.access.shut_down(world.now);
    world.settle();
    assert!(world.relays[0].2.endpoints.is_empty(), "the relay knows at once");
    world.run(Duration::from_secs(15), &[]);
    assert!(world.access.is_finished() && world.sockets.is_empty());
}

#[test]
fn the_goodbye_is_said_twice_for_the_first_may_be_lost() {
    let mut world = World::new(explicit(&[1]), 1);
    world.want(SSM, &include(&[SOURCE]));
    world.run(millis(500), &[(SOURCE, SSM)]);
    let relay = world.relays[0].1.take();
    world.access.want(ip(SSM), None, world.now);
    world.settle();
    world.relays[0].1 = relay;
    assert_eq!(world.relays[0].2.endpoints.len(), 1, "nobody was there to hear it");
    world.run(millis(1500), &[]);
    assert!(world.relays[0].2.endpoints.is_empty());
}

#[test]
fn a_relay_without_a_way_to_it_gives_its_turn_to_the_next_at_once() {
    let mut world = World::new(explicit(&[1, 2]), 2);
    world.relays[0].1 = None;
    world.want(SSM, &include(&[SOURCE]));
    let first = *world.sockets.keys().next().unwrap();
    world.access.handle_failed(first, world.now);
    world.settle();
    assert_eq!(world.relays_in_use(), [relay_address(2)]);
    let used = *world.sockets.keys().next().unwrap();
    world.access.handle_failed(used, world.now);
    world.settle();
    let lost = Event::RelayLost { relay: relay_address(2), reason: LostReason::Unreachable };
    assert!(world.events.iter().any(|(_, event)| *event == lost), "{:?}", world.events);
}

#[test]
fn a_relay_that_takes_nobody_is_told() {
    let mut world = World::new(explicit(&[1, 2]), 2);
    world.relays[0].1.as_mut().unwrap().drain();
    world.want(SSM, &include(&[SOURCE]));
    let limited = Event::RelayLimited { relay: relay_address(1) };
    assert!(world.events.iter().any(|(_, event)| *event == limited), "{:?}", world.events);
    assert_eq!(world.relays_in_use(), [relay_address(2)]);
}

#[test]
fn an_exclude_list_asks_for_any_source() {
    let mut world = World::new(explicit(&[1]), 1);
    world.want("239.1.2.3", &Filter::exclude([ip(OTHER)]));
    let taken = world.run(millis(1000), &[(SOURCE, "239.1.2.3"), (OTHER, "239.1.2.3")]);
    assert!(taken.iter().all(|count| *count >= 9), "{taken:?}");
    assert_eq!(world.relays[0].2.upstream[&ip("239.1.2.3")], Filter::everything());
}

#[test]
fn a_filter_that_changes_leaves_what_is_gone_and_joins_what_is_new() {
    let mut world = World::new(explicit(&[1]), 1);
    world.want(SSM, &include(&[SOURCE]));
    world.run(millis(500), &[]);
    world.want(SSM, &include(&[OTHER]));
    world.run(millis(1000), &[]);
    assert_eq!(world.relays[0].2.upstream[&ip(SSM)], include(&[OTHER]));
    world.access.want(ip(SSM), None, world.now);
    world.settle();
    assert!(world.relays[0].2.upstream.is_empty());
}

#[test]
fn data_of_somebody_else_is_not_taken() {
    let mut world = World::new(explicit(&[1]), 1);
    world.want(SSM, &include(&[SOURCE]));
    world.run(millis(500), &[(SOURCE, SSM)]);
    let local = world.sockets.values().next().unwrap().0;
    let datagram = Repr::Data { packet: b"\x45 not a packet" }.to_vec();
    assert!(!world.receive(relay_address(1), local, &datagram));
    assert!(!world.receive(relay_address(9), local, &datagram));
}
