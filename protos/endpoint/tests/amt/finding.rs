//! Discovery and gateways together, as a driver joins them: from a channel to a stream, and to the next relay.

use crate::bed::{Bed, SOURCE, SSM, include, ip};
use castgate_endpoint::amt::discovery::{
    Answer, AttemptId, Channel, Config, Discovery, Method, Output as Wish, Place, Question,
};
use castgate_endpoint::amt::gateway::{self, Event, Gateway};
use castgate_endpoint::amt::relay;
use castgate_wire::amtrelay::Record;
use castgate_wire::membership::Family;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// A driver: one gateway for each attempt, each behind a port of its own.
struct Viewer {
    discovery: Discovery,
    /// Where in the bed the gateway of an attempt is.
    attempts: BTreeMap<AttemptId, usize>,
    seen: BTreeMap<AttemptId, usize>,
    records: Vec<Vec<u8>>,
    used: Vec<SocketAddr>,
}

fn channel() -> Channel {
    Channel { source: Some(ip(SOURCE)), group: ip(SSM) }
}

impl Viewer {
    fn new(config: Config, records: &[&str]) -> Self {
        Self {
            discovery: Discovery::new(config, [9; 16]),
            attempts: BTreeMap::new(),
            seen: BTreeMap::new(),
            records: records.iter().map(|text| text.parse::<Record>().unwrap().to_vec()).collect(),
            used: Vec::new(),
        }
    }

    /// Runs bed and discovery side by side, a millisecond at a time.
    fn run(&mut self, bed: &mut Bed, span: Duration) {
        let end = bed.now + span;
        while bed.now < end {
            if self.discovery.next_timeout().is_some_and(|at| at <= bed.now) {
                self.discovery.handle_timeout(bed.now);
            }
            while let Some(wish) = self.discovery.poll_output() {
                self.carry_out(bed, wish);
            }
            bed.run_for(Duration::from_millis(1));
            self.listen(bed);
        }
    }

    fn carry_out(&mut self, bed: &mut Bed, wish: Wish) {
        match wish {
            Wish::Resolve { id, question } => {
                let answer = match question {
                    Question::AmtRelay { name } if name == "10.2.0.192.in-addr.arpa." => {
                        Answer::Rdata(self.records.clone())
                    }
                    _ => Answer::Failed,
                };
                self.discovery.handle_answer(id, answer, bed.now);
            }
            Wish::Try { attempt, relay, discovery_first, .. } => {
                let place = bed.add_gateway(relay, gateway::Config::default());
                let key = bed.net.random.key();
                let mut gateway = Gateway::new(gateway::Config::default(), relay, discovery_first, key);
                gateway.connect(Family::V4, bed.now);
                bed.gateways[place].gateway = gateway;
                self.attempts.insert(attempt, place);
            }
            Wish::Use { attempt, relay, .. } => {
                self.used.push(relay);
                let now = bed.now;
                let gateway = &mut bed.gateways[self.attempts[&attempt]].gateway;
                gateway.set_filter(ip(SSM), include(&[SOURCE]), now).unwrap();
                gateway.set_silences(ip(SSM), Some(ip(SOURCE)), self.discovery.silences(channel()), now);
            }
            Wish::Release { .. } | Wish::NoRelay { .. } => {}
            Wish::Cancel { attempt } => {
                let now = bed.now;
                bed.gateways[self.attempts[&attempt]].gateway.shut_down(now);
            }
        }
    }

    fn listen(&mut self, bed: &mut Bed) {
        for (attempt, place) in &self.attempts {
            let seen = self.seen.entry(*attempt).or_default();
            for (_, event) in &bed.gateways[*place].events[*seen..] {
                match event {
                    Event::Advertised { relay } => self.discovery.handle_advertised(*attempt, *relay, bed.now),
                    Event::Connected { .. } => self.discovery.handle_connected(*attempt, bed.now),
                    Event::Limited { .. } => self.discovery.handle_limited(*attempt, bed.now),
                    Event::FirstData { .. } => self.discovery.handle_traffic(channel()),
                    Event::Silent { .. } => self.discovery.handle_silent(channel(), bed.now),
                    Event::Unanswered { .. } | Event::AddressChanged { .. } => {}
                }
            }
            *seen = bed.gateways[*place].events.len();
        }
    }

    fn packets(bed: &Bed, since: u64) -> usize {
        bed.gateways.iter().flat_map(|node| &node.received).filter(|(at, ..)| *at >= since).count()
    }
}

fn driad() -> Config {
    Config { methods: vec![Method::Driad], ..Config::default() }
}

#[test]
fn the_reverse_name_of_the_source_leads_to_a_stream_in_a_tenth_of_a_second() {
    let mut bed = Bed::new(1);
    bed.add_relay(relay::Config::default());
    bed.add_source(SOURCE, SSM);
    let mut viewer = Viewer::new(driad(), &["10 0 1 198.51.100.1"]);
    viewer.discovery.find(channel(), bed.now);
    viewer.run(&mut bed, Duration::from_millis(100));
    assert!(Viewer::packets(&bed, 0) > 1, "discovery, handshake, report: three round trips of 20 ms");
}

#[test]
fn a_relay_that_dies_is_replaced_by_the_next_precedence_within_ten_seconds() {
    let mut bed = Bed::new(1);
    let first = bed.add_relay(relay::Config::default());
    bed.add_relay(relay::Config::default());
    bed.add_source(SOURCE, SSM);
    let mut viewer = Viewer::new(driad(), &["10 1 1 198.51.100.1", "20 1 1 198.51.100.2"]);
    viewer.discovery.find(channel(), bed.now);
    viewer.run(&mut bed, Duration::from_secs(3));
    bed.kill_relay(first);
    let since = bed.at() + 20;
    viewer.run(&mut bed, Duration::from_secs(10));
    let relays: Vec<String> = viewer.used.iter().map(|relay| relay.ip().to_string()).collect();
    assert_eq!(relays, ["198.51.100.1", "198.51.100.2"]);
    let back = bed.gateways.iter().flat_map(|node| &node.received).map(|(at, ..)| *at).find(|at| *at > since);
    assert!(back.is_some_and(|back| back - since < 10_000), "{back:?} after {since}");
}

#[test]
fn of_two_relays_the_one_that_is_full_is_passed_over_and_gets_no_report() {
    let mut bed = Bed::new(1);
    let full = bed.add_relay(relay::Config::default());
    let free = bed.add_relay(relay::Config::default());
    bed.relays[full].relay.as_mut().unwrap().drain();
    bed.add_source(SOURCE, SSM);
    let mut viewer = Viewer::new(driad(), &["10 1 1 198.51.100.1", "20 1 1 198.51.100.2"]);
    viewer.discovery.find(channel(), bed.now);
    viewer.run(&mut bed, Duration::from_secs(2));
    assert_eq!((bed.endpoints(full).len(), bed.endpoints(free).len()), (0, 1));
    assert_eq!(bed.relays[full].relay.as_ref().unwrap().counters().updates, 0);
}

#[test]
fn a_loser_of_the_race_is_reported_nothing() {
    let mut bed = Bed::new(1);
    // Slower than the delay between attempts: both are under way, and the first that answers wins.
    bed.net.delay = Duration::from_millis(200);
    let [slow, other] = [(); 2].map(|()| bed.add_relay(relay::Config::default()));
    bed.add_source(SOURCE, SSM);
    let place = |place: usize| Place::Address(bed.relays[place].address);
    let config =
        Config { relays: vec![place(slow), place(other)], methods: vec![Method::Explicit], ..Config::default() };
    let mut viewer = Viewer::new(config, &[]);
    viewer.discovery.find(channel(), bed.now);
    viewer.run(&mut bed, Duration::from_secs(3));
    assert_eq!(bed.relays[other].relay.as_ref().unwrap().counters().requests, 1);
    assert_eq!(bed.relays[other].relay.as_ref().unwrap().counters().updates, 0);
    assert_eq!((bed.endpoints(slow).len(), bed.endpoints(other).len()), (1, 0));
}

#[test]
fn an_anycast_address_leads_to_the_relay_behind_it() {
    let mut bed = Bed::new(1);
    let anycast: SocketAddr = "192.52.193.1:2268".parse().unwrap();
    // The same machine under two addresses is, to this bed, a relay that names another.
    bed.add_relay(relay::Config::default());
    bed.add_relay_at(anycast, relay::Config { unicast: vec![ip("198.51.100.1")], ..relay::Config::default() });
    bed.add_source(SOURCE, SSM);
    let mut viewer = Viewer::new(Config { ipv6: false, ..Config::default() }, &[]);
    viewer.discovery.find(channel(), bed.now);
    viewer.run(&mut bed, Duration::from_secs(1));
    assert_eq!(viewer.used, ["198.51.100.1:2268".parse().unwrap()]);
    assert!(Viewer::packets(&bed, 0) > 10);
}
