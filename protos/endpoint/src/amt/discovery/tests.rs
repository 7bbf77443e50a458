//! One rule of discovery each, under a clock that the test turns.

use super::*;
use castgate_wire::amt::{ANYCAST_V4, ANYCAST_V6, PORT};
use castgate_wire::amtrelay::Record;
use castgate_wire::membership::Family;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

const QUARTER: Duration = Duration::from_millis(250);
const SECOND: Duration = Duration::from_secs(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn relay(text: &str) -> SocketAddr {
    SocketAddr::new(ip(text), PORT)
}

fn channel() -> Channel {
    Channel { source: Some(ip("198.51.100.12")), group: ip("232.252.0.2") }
}

fn only(methods: &[Method]) -> Config {
    Config { methods: methods.to_vec(), ..Config::default() }
}

fn explicit(relays: &[&str]) -> Config {
    let relays = relays.iter().map(|text| Place::Address(relay(text))).collect();
    Config { relays, ..only(&[Method::Explicit]) }
}

fn rdata(records: &[&str]) -> Answer {
    Answer::Rdata(records.iter().map(|text| text.parse::<Record>().unwrap().to_vec()).collect())
}

/// One attempt as it was begun.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tried {
    at: Duration,
    attempt: AttemptId,
    relay: SocketAddr,
    discovery_first: bool,
}

struct Lab {
    discovery: Discovery,
    start: Instant,
    now: Instant,
    questions: Vec<(QuestionId, Question)>,
    tried: Vec<Tried>,
    cancelled: BTreeSet<AttemptId>,
    used: Vec<(Channel, AttemptId, SocketAddr)>,
    released: Vec<(Channel, AttemptId)>,
    none: Vec<(Duration, NoRelay, Duration)>,
}

impl Lab {
    fn new(config: Config) -> Self {
        Self::seeded(config, 7)
    }

    fn seeded(config: Config, seed: u8) -> Self {
        let now = Instant::now();
        Self {
            discovery: Discovery::new(config, [seed; 16]),
            start: now,
            now,
            questions: Vec::new(),
            tried: Vec::new(),
            cancelled: BTreeSet::new(),
            used: Vec::new(),
            released: Vec::new(),
            none: Vec::new(),
        }
    }

    fn settle(&mut self) {
        let at = self.now - self.start;
        while let Some(output) = self.discovery.poll_output() {
            match output {
                Output::Resolve { id, question } => self.questions.push((id, question)),
                Output::Try { attempt, relay, discovery_first, .. } => {
                    self.tried.push(Tried { at, attempt, relay, discovery_first });
                }
                Output::Cancel { attempt } => assert!(self.cancelled.insert(attempt), "cancelled twice"),
                Output::Use { channel, attempt, relay, .. } => self.used.push((channel, attempt, relay)),
                Output::Release { channel, attempt } => self.released.push((channel, attempt)),
                Output::NoRelay { reason, retry_at, .. } => self.none.push((at, reason, retry_at - self.now)),
            }
        }
    }

    fn find(&mut self, channel: Channel) {
        self.discovery.find(channel, self.now);
        self.settle();
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(next) = self.discovery.next_timeout().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.discovery.handle_timeout(self.now);
            assert!(self.discovery.next_timeout().is_none_or(|at| at > self.now), "never satisfied");
            self.settle();
        }
        self.now = end;
    }

    /// Answers the first open question of which a text is part of the description.
    fn answer(&mut self, what: &str, answer: Answer) {
        let place = self.questions.iter().position(|(_, question)| format!("{question:?}").contains(what));
        let (id, _) = self.questions.remove(place.unwrap_or_else(|| panic!("{what} in {:?}", self.questions)));
        self.discovery.handle_answer(id, answer, self.now);
        self.settle();
    }

    fn connect(&mut self, place: usize) {
        self.discovery.handle_connected(self.tried[place].attempt, self.now);
        self.settle();
    }

    fn relays(&self) -> Vec<SocketAddr> {
        self.tried.iter().map(|tried| tried.relay).collect()
    }
}

#[test]
fn relays_are_tried_a_quarter_of_a_second_apart_and_the_first_that_connects_is_used() {
    let mut lab = Lab::new(explicit(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]));
    lab.find(channel());
    lab.run(Duration::from_millis(600));
    let times: Vec<_> = lab.tried.iter().map(|tried| tried.at).collect();
    assert_eq!(times, [Duration::ZERO, QUARTER, QUARTER * 2]);
    assert_eq!(lab.relays(), ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(relay));
    lab.connect(1);
    assert_eq!(lab.used, [(channel(), lab.tried[1].attempt, relay("192.0.2.2"))]);
    assert_eq!(lab.cancelled, [0, 2].map(|place| lab.tried[place].attempt).into());
    lab.run(Duration::from_mins(5));
    assert_eq!((lab.tried.len(), lab.discovery.next_timeout()), (3, None), "the fourth is never tried");
    assert!(!lab.tried[0].discovery_first);
}

#[test]
fn a_failure_makes_room_for_the_next_at_once() {
    let mut lab = Lab::new(explicit(&["192.0.2.1", "192.0.2.2"]));
    lab.find(channel());
    lab.run(Duration::from_millis(50));
    lab.discovery.handle_lost(lab.tried[0].attempt, lab.now);
    lab.settle();
    assert_eq!(lab.tried[1].at, Duration::from_millis(50));
}

#[test]
fn an_attempt_ends_after_six_seconds_and_a_search_without_a_relay_begins_again_ever_later() {
    let mut lab = Lab::new(explicit(&["192.0.2.1"]));
    lab.find(channel());
    lab.run(Duration::from_hours(1));
    assert_eq!(lab.none[0].0, Duration::from_secs(6));
    for (retries, (_, reason, wait)) in (0..).zip(&lab.none) {
        let longest = (SECOND * 4 * 2_u32.pow(retries.min(9))).min(Duration::from_mins(2));
        assert!((SECOND * 4..=longest).contains(wait) && *reason == NoRelay::NotConnected, "{retries} {wait:?}");
    }
    assert!(lab.none.len() > 10);
    assert_eq!(lab.cancelled.len(), lab.tried.len());
}

#[test]
fn methods_are_preferred_in_their_order_and_less_preferred_relays_wait_a_moment_for_answers() {
    let config = Config {
        relays: vec![Place::Name("relay.example".into(), 7)],
        domains: vec!["example.".into()],
        ..Config::default()
    };
    let mut lab = Lab::new(config);
    lab.find(channel());
    assert!(lab.tried.is_empty(), "the anycast addresses wait for what is configured and for DNS-SD");
    let asked: Vec<_> = lab.questions.iter().map(|(_, question)| question.clone()).collect();
    let address = |family| Question::Addresses { name: "relay.example".into(), family };
    assert_eq!(
        asked,
        [
            address(Family::V6),
            address(Family::V4),
            Question::Instances { name: "_amt._udp.example.".into() },
            Question::Services { name: "_amt._udp.example.".into() },
            Question::AmtRelay { name: "12.100.51.198.in-addr.arpa.".into() },
        ]
    );
    lab.answer("AmtRelay", rdata(&["10 1 1 203.0.113.15"]));
    lab.answer("Instances", Answer::Names(vec!["one._amt._udp.example.".into()]));
    let service = Service { priority: 0, weight: 0, port: 9, target: "one.example.".into() };
    lab.answer("one._amt", Answer::Services(vec![service]));
    lab.answer("one.example", Answer::Failed);
    lab.answer("one.example", Answer::Addresses(vec![ip("192.0.2.9")]));
    lab.answer("relay.example", Answer::Addresses(vec![ip("2001:db8::7")]));
    assert_eq!(lab.relays(), ["[2001:db8::7]:7".parse().unwrap()]);
    lab.run(SECOND * 2);
    let rest = ["192.0.2.9:9", "[2001:3::1]:2268", "192.52.193.1:2268", "203.0.113.15:2268"];
    assert_eq!(lab.relays()[1..], rest.map(|text| text.parse().unwrap()));
    assert_eq!(
        lab.tried.iter().map(|tried| tried.discovery_first).collect::<Vec<_>>(),
        [false, true, true, true, false]
    );
}

#[test]
fn a_lagging_answer_holds_the_others_up_for_a_quarter_of_a_second_and_no_longer() {
    let mut lab = Lab::new(Config { domains: vec!["example.".into()], ..Config::default() });
    lab.find(channel());
    lab.run(SECOND);
    assert_eq!(lab.tried[0].at, QUARTER);
    assert_eq!(lab.relays(), [SocketAddr::new(ANYCAST_V6.into(), PORT), SocketAddr::new(ANYCAST_V4.into(), PORT)]);
}

#[test]
fn precedence_comes_before_the_sorting_of_addresses_and_equals_are_tried_by_chance() {
    let records = [
        "20 1 2 2001:db8::1",
        "10 1 1 192.0.2.1",
        "10 1 1 192.0.2.2",
        "10 1 1 192.0.2.3",
        "10 1 2 2001:db8::2",
        "5 0 1 192.0.2.9",
    ];
    let mut firsts = BTreeSet::new();
    for seed in 0..40 {
        let mut lab = Lab::seeded(only(&[Method::Driad]), seed);
        lab.find(channel());
        lab.answer("AmtRelay", rdata(&records));
        lab.run(SECOND * 3);
        let relays = lab.relays();
        assert_eq!((relays[0], relays[1]), (relay("192.0.2.9"), relay("2001:db8::2")), "then IPv6 before IPv4");
        assert_eq!(relays[5], relay("2001:db8::1"));
        assert!(lab.tried[0].discovery_first && !lab.tried[1].discovery_first, "D");
        firsts.insert(relays[2]);
    }
    assert_eq!(firsts, ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(relay).into());
}

#[test]
fn a_name_is_resolved_and_its_addresses_have_the_precedence_and_d_of_its_record() {
    let mut lab = Lab::new(only(&[Method::Driad]));
    lab.find(channel());
    lab.answer("AmtRelay", rdata(&["128 1 3 amtrelays.example.com.", "200 0 1 192.0.2.1"]));
    assert!(lab.tried.is_empty());
    lab.answer("amtrelays.example.com.\", family: V4", Answer::Addresses(vec![ip("192.0.2.7"), ip("2001:db8::7")]));
    lab.answer("amtrelays.example.com.\", family: V6", Answer::Addresses(vec![ip("2001:db8::8")]));
    lab.run(SECOND);
    assert_eq!(lab.relays(), ["192.0.2.7", "2001:db8::8", "192.0.2.1"].map(relay));
    assert_eq!(lab.tried.iter().map(|tried| tried.discovery_first).collect::<Vec<_>>(), [false, false, true]);
}

#[test]
fn type_zero_means_no_relay_and_unknown_wrong_and_short_records_are_ignored() {
    let mut lab = Lab::new(only(&[Method::Driad]));
    lab.find(channel());
    lab.answer("AmtRelay", rdata(&["0 0 0 ."]));
    assert_eq!(lab.none[0].1, NoRelay::NoneForSource);
    let mut lab = Lab::new(only(&[Method::Driad]));
    lab.find(channel());
    lab.answer("AmtRelay", rdata(&["10 0 1 192.0.2.1", "20 0 0 .", "20 0 1 192.0.2.2", "30 0 1 192.0.2.3"]));
    lab.run(SECOND * 2);
    assert_eq!(lab.relays(), [relay("192.0.2.1")]);
    let mut lab = Lab::new(only(&[Method::Driad]));
    lab.find(channel());
    let records =
        [&b"\x01\x04abc"[..], b"\x01", b"", b"\x01\x01\xc0\x00\x02", b"\x01\x03\xc0\x0c", b"\x0a\x81\xc0\x00\x02\x05"];
    lab.answer("AmtRelay", Answer::Rdata(records.map(Vec::from).into()));
    assert_eq!((lab.relays(), lab.discovery.counters().records_ignored), (vec![relay("192.0.2.5")], 5));
}

#[test]
fn without_a_source_there_is_nothing_to_look_up() {
    let mut lab = Lab::new(only(&[Method::Driad]));
    lab.find(Channel { source: None, group: ip("239.1.2.3") });
    assert_eq!((lab.questions.len(), lab.none[0].1), (0, NoRelay::NotFound));
}

#[test]
fn the_map_names_relays_for_some_channels_and_the_hierarchy_in_its_order() {
    let mapping = |groups: &str, sources: Option<&str>, address: &str| Mapping {
        groups: groups.parse().unwrap(),
        sources: sources.map(|net| net.parse().unwrap()),
        relays: vec![Place::Address(relay(address))],
        discovery_first: address == "192.0.2.3",
    };
    let map = vec![
        mapping("232.0.0.0/8", Some("192.0.2.0/24"), "192.0.2.1"),
        mapping("239.0.0.0/8", None, "192.0.2.2"),
        mapping("232.252.0.0/16", Some("198.51.100.0/24"), "192.0.2.3"),
    ];
    let mut lab = Lab::new(Config { map, ..only(&[Method::Map, Method::Hierarchy]) });
    lab.find(channel());
    lab.answer("Hierarchy", Answer::Relays(vec![relay("192.0.2.9"), relay("192.0.2.8")]));
    lab.run(SECOND);
    assert_eq!(lab.relays(), ["192.0.2.3", "192.0.2.9", "192.0.2.8"].map(relay));
    assert_eq!(lab.tried.iter().map(|tried| tried.discovery_first).collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn services_are_tried_by_priority_and_heavier_ones_more_often_first() {
    let mut heavy_first = 0;
    for seed in 0..100 {
        let mut lab = Lab::seeded(Config { domains: vec!["example".into()], ..only(&[Method::DnsSd]) }, seed);
        lab.find(channel());
        let service = |priority, weight, target: &str| Service { priority, weight, port: 9, target: target.into() };
        let services =
            vec![service(2, 99, "late."), service(1, 30, "heavy."), service(1, 10, "light."), service(0, 0, ".")];
        lab.answer("Services", Answer::Services(services));
        lab.answer("Instances", Answer::Failed);
        for (name, low) in [("late", 1), ("heavy", 2), ("light", 3)] {
            lab.answer(&format!("{name}.\", family: V6"), Answer::Failed);
            lab.answer(&format!("{name}.\", family: V4"), Answer::Addresses(vec![IpAddr::from([192, 0, 2, low])]));
        }
        lab.run(SECOND * 2);
        assert_eq!(lab.tried.last().unwrap().relay.ip(), ip("192.0.2.1"));
        heavy_first += u32::from(lab.tried[0].relay.ip() == ip("192.0.2.2"));
    }
    assert!((60..90).contains(&heavy_first), "{heavy_first} of 100");
}

#[test]
fn not_more_than_ten_questions_go_out_in_a_tenth_of_a_second() {
    let domains = (0..30).map(|number| format!("d{number}.example")).collect();
    let mut lab = Lab::new(Config { domains, ..only(&[Method::DnsSd]) });
    lab.find(channel());
    let mut seen = vec![lab.questions.len()];
    for _ in 0..8 {
        lab.run(Duration::from_millis(100));
        seen.push(lab.questions.len());
    }
    assert_eq!(seen, [10, 20, 30, 40, 50, 60, 60, 60, 60]);
}

#[test]
fn names_and_candidates_are_bounded() {
    let mut lab = Lab::new(only(&[Method::Driad]));
    lab.find(channel());
    let names: Vec<String> = (0..1000).map(|number| format!("1 1 3 n{number}.example.")).collect();
    let mut records: Vec<&str> = names.iter().map(String::as_str).collect();
    let addresses: Vec<String> =
        (0..1000).map(|number| format!("1 1 1 10.0.{}.{}", number / 250, number % 250)).collect();
    records.extend(addresses.iter().map(String::as_str));
    lab.answer("AmtRelay", rdata(&records));
    lab.run(Duration::from_secs(15));
    assert!(lab.discovery.counters().questions <= 1 + 2 * 16);
    assert_eq!(lab.tried.len(), 32);
    assert!(lab.discovery.counters().beyond_limits > 1900);
}

#[test]
fn a_full_relay_is_avoided_for_ten_minutes_by_every_channel() {
    let config = Config { anycast: vec![Place::Address(relay("192.0.2.1"))], ..only(&[Method::Anycast]) };
    let mut lab = Lab::new(config);
    lab.find(channel());
    lab.discovery.handle_limited(lab.tried[0].attempt, lab.now);
    lab.settle();
    assert_eq!((lab.cancelled.len(), lab.none[0].1), (1, NoRelay::NotConnected));
    let other = Channel { source: Some(ip("198.51.100.99")), ..channel() };
    lab.find(other);
    lab.run(Duration::from_secs(599));
    assert_eq!(lab.tried.len(), 1);
    lab.run(Duration::from_secs(121));
    assert!(lab.tried.len() > 1);
}

#[test]
fn a_full_relay_in_use_stays_in_use() {
    let mut lab = Lab::new(explicit(&["192.0.2.1"]));
    lab.find(channel());
    lab.connect(0);
    lab.discovery.handle_limited(lab.tried[0].attempt, lab.now);
    lab.settle();
    assert!(lab.released.is_empty() && lab.cancelled.is_empty());
    assert_eq!(lab.discovery.relay(channel()).map(|(relay, _)| relay), Some(relay("192.0.2.1")));
}

#[test]
fn a_relay_without_traffic_is_released_and_avoided_for_its_source_for_three_to_ten_minutes() {
    let config = only(&[Method::Driad]);
    let mut lab = Lab::new(config);
    lab.find(channel());
    lab.answer("AmtRelay", rdata(&["1 1 1 192.0.2.1", "2 1 1 192.0.2.2"]));
    lab.connect(0);
    lab.discovery.handle_silent(channel(), lab.now);
    lab.settle();
    assert_eq!(lab.released, [(channel(), lab.tried[0].attempt)]);
    assert!(lab.cancelled.contains(&lab.tried[0].attempt));
    assert_eq!(lab.discovery.silences(channel()), 1);
    lab.answer("AmtRelay", rdata(&["1 1 1 192.0.2.1", "2 1 1 192.0.2.2"]));
    assert_eq!(lab.relays()[1..], [relay("192.0.2.2")]);
    let other = Channel { source: Some(ip("198.51.100.99")), ..channel() };
    lab.find(other);
    lab.answer("AmtRelay", rdata(&["1 1 1 192.0.2.1"]));
    assert_eq!(lab.relays()[2..], [relay("192.0.2.1")], "another source may have it");
    lab.discovery.handle_traffic(channel());
    assert_eq!(lab.discovery.silences(channel()), 0);
    assert!(lab.discovery.held.holds(lab.now + Duration::from_mins(3), relay("192.0.2.1"), channel().source));
    assert!(!lab.discovery.held.holds(lab.now + Duration::from_mins(10), relay("192.0.2.1"), channel().source));
}

#[test]
fn a_relay_that_an_administrator_has_named_is_tried_last_rather_than_never() {
    let mut lab = Lab::new(explicit(&["192.0.2.1", "192.0.2.2"]));
    lab.find(channel());
    lab.connect(0);
    lab.discovery.handle_silent(channel(), lab.now);
    lab.settle();
    lab.run(SECOND);
    assert_eq!(lab.relays(), ["192.0.2.1", "192.0.2.2", "192.0.2.1"].map(relay));
}

#[test]
fn a_relay_that_a_broker_names_is_avoided_like_one_that_was_named_at_once() {
    let config =
        Config { anycast: vec![Place::Address(relay("192.0.2.1"))], ..only(&[Method::Anycast, Method::Driad]) };
    let mut lab = Lab::new(config);
    lab.find(channel());
    lab.discovery.handle_advertised(lab.tried[0].attempt, relay("192.0.2.77"), lab.now);
    lab.connect(0);
    assert_eq!(lab.used[0].2, relay("192.0.2.77"));
    lab.discovery.handle_silent(channel(), lab.now);
    lab.settle();
    assert_eq!(lab.relays()[1], relay("192.0.2.1"), "the broker is asked again");
    lab.discovery.handle_advertised(lab.tried[1].attempt, relay("192.0.2.77"), lab.now);
    lab.settle();
    assert!(lab.cancelled.contains(&lab.tried[1].attempt), "and has no other");
}

#[test]
fn channels_of_one_source_share_a_connection_that_ends_with_the_last_of_them() {
    let mut lab = Lab::new(explicit(&["192.0.2.1"]));
    lab.find(channel());
    lab.connect(0);
    let other = Channel { group: ip("232.252.0.3"), ..channel() };
    lab.find(other);
    assert_eq!((lab.tried.len(), lab.used.len()), (1, 2));
    assert_eq!(lab.used[0].1, lab.used[1].1);
    lab.discovery.forget(channel());
    lab.settle();
    assert!(lab.cancelled.is_empty());
    lab.discovery.forget(other);
    lab.settle();
    assert_eq!((lab.cancelled.len(), lab.discovery.channels().len(), lab.discovery.next_timeout()), (1, 0, None));
}

#[test]
fn a_relay_that_is_lost_is_left_by_all_its_channels() {
    let mut lab = Lab::new(explicit(&["192.0.2.1", "192.0.2.2"]));
    let other = Channel { group: ip("232.252.0.3"), ..channel() };
    lab.find(channel());
    lab.connect(0);
    lab.find(other);
    lab.discovery.handle_lost(lab.tried[0].attempt, lab.now);
    lab.settle();
    assert_eq!(lab.released.len(), 2);
    assert_eq!(lab.cancelled, [lab.tried[0].attempt].into());
    assert_eq!(lab.relays()[1..], ["192.0.2.2", "192.0.2.2"].map(relay));
}

#[test]
fn another_network_forgets_what_was_avoided_and_begins_again() {
    let mut lab = Lab::new(explicit(&["192.0.2.1", "192.0.2.2"]));
    lab.find(channel());
    lab.connect(0);
    lab.discovery.handle_silent(channel(), lab.now);
    lab.discovery.restart_all(lab.now);
    lab.settle();
    assert_eq!(lab.tried.last().unwrap().relay, relay("192.0.2.1"));
}

#[test]
fn a_family_that_cannot_be_reached_is_not_asked_for() {
    let config = Config { relays: vec![Place::Name("relay.example".into(), 7)], ipv6: false, ..Config::default() };
    let mut lab = Lab::new(config);
    lab.find(channel());
    assert!(!lab.questions.iter().any(|(_, question)| format!("{question:?}").contains("V6")));
    lab.answer("V4", Answer::Addresses(vec![ip("239.1.1.1"), ip("0.0.0.0"), ip("192.0.2.1"), ip("2001:db8::1")]));
    lab.run(SECOND);
    assert_eq!(lab.relays(), ["192.0.2.1:7", "192.52.193.1:2268"].map(|text| text.parse::<SocketAddr>().unwrap()));
}

#[test]
fn late_answers_and_answers_to_nothing_are_nothing() {
    let mut lab = Lab::new(only(&[Method::Driad]));
    lab.find(channel());
    let (id, _) = lab.questions[0];
    lab.run(Duration::from_secs(11));
    lab.discovery.handle_answer(id, rdata(&["1 1 1 192.0.2.1"]), lab.now);
    lab.discovery.handle_answer(QuestionId(99_999), Answer::Failed, lab.now);
    lab.discovery.handle_connected(AttemptId(99_999), lab.now);
    lab.settle();
    assert!(lab.tried.is_empty() && lab.used.is_empty());
    assert!(lab.discovery.counters().questions_failed >= 1);
}
