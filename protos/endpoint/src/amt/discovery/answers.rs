//! Questions of all methods, and what their answers make of candidates.

use super::config::{Channel, Mapping, Method, Place};
use super::output::{Answer, Output, Question, QuestionId, Service};
use super::rank::rank;
use super::search::{Candidate, Open, Phase, Preference};
use super::{Discovery, Timer};
use castgate_wire::amt::PORT;
use castgate_wire::amtrelay::{self, Record, reverse_name};
use castgate_wire::membership::Family;
use std::net::SocketAddr;
use std::time::Instant;

/// Added to the place of a method that an administrator has named, when its relay is avoided: tried last rather than never.
const LAST_RESORT: usize = 1000;
const SERVICE: &str = "_amt._udp";

/// Where a relay stands, and what is known of it besides its address.
#[derive(Debug, Clone, Copy)]
struct Origin {
    preference: Preference,
    weight: u64,
    port: u16,
    discovery_first: bool,
    method: Method,
}

impl Discovery {
    /// Asks by every method, in their order.
    pub(super) fn ask_all(&mut self, channel: Channel, now: Instant) {
        let methods = self.config.methods.clone();
        for (place, method) in methods.into_iter().enumerate() {
            let preference = Preference { method: place, precedence: 0 };
            let origin = Origin { preference, weight: 0, port: PORT, discovery_first: true, method };
            match method {
                Method::Explicit => {
                    let places = self.config.relays.clone();
                    self.add_places(channel, Origin { discovery_first: false, ..origin }, places, now);
                }
                Method::Map => {
                    let lines: Vec<Mapping> =
                        self.config.map.iter().filter(|line| line.covers(channel)).cloned().collect();
                    for line in lines {
                        let origin = Origin { discovery_first: line.discovery_first, ..origin };
                        self.add_places(channel, origin, line.relays, now);
                    }
                }
                Method::Hierarchy => self.ask(channel, origin, Question::Hierarchy { channel }, now),
                Method::DnsSd => {
                    for domain in self.config.domains.clone() {
                        let name = format!("{SERVICE}.{}", domain.trim_start_matches('.'));
                        self.ask(channel, origin, Question::Instances { name: name.clone() }, now);
                        self.ask(channel, origin, Question::Services { name }, now);
                    }
                }
                Method::Anycast => {
                    let places = self.config.anycast.clone();
                    self.add_places(channel, origin, places, now);
                }
                Method::Driad => {
                    if let Some(source) = channel.source {
                        let name = reverse_name(source).to_string();
                        self.ask(channel, origin, Question::AmtRelay { name }, now);
                    }
                }
            }
        }
    }

    fn add_places(&mut self, channel: Channel, origin: Origin, places: Vec<Place>, now: Instant) {
        // The two anycast addresses are one place; what an administrator lists is in his order.
        let is_ordered = origin.method != Method::Anycast;
        for (precedence, place) in (0..).zip(places) {
            let precedence = if is_ordered { precedence } else { 0 };
            let preference = Preference { precedence, ..origin.preference };
            let origin = Origin { preference, ..origin };
            match place {
                Place::Address(relay) => self.add(channel, origin, relay, now),
                Place::Name(name, port) => self.ask_addresses(channel, Origin { port, ..origin }, &name, now),
            }
        }
    }

    /// A and AAAA of a host.
    fn ask_addresses(&mut self, channel: Channel, origin: Origin, name: &str, now: Instant) {
        let Some(Phase::Looking(looking)) = self.searches.get_mut(&channel).map(|search| &mut search.phase) else {
            return;
        };
        looking.names += 1;
        if looking.names > self.config.names_max {
            self.counters.beyond_limits += 1;
            return;
        }
        for (family, is_usable) in [(Family::V6, self.config.ipv6), (Family::V4, self.config.ipv4)] {
            if is_usable {
                self.ask(channel, origin, Question::Addresses { name: name.to_owned(), family }, now);
            }
        }
    }

    fn ask(&mut self, channel: Channel, origin: Origin, question: Question, now: Instant) {
        let id = QuestionId(self.next_id());
        let Some(Phase::Looking(looking)) = self.searches.get_mut(&channel).map(|search| &mut search.phase) else {
            return;
        };
        looking.questions.insert(id);
        let Origin { preference, weight, port, discovery_first, method } = origin;
        let open = Open { channel, question, preference, weight, port, discovery_first, method, asked_at: now };
        self.questions.insert(id, open);
        self.timers.arm(Timer::Question(id), now + self.config.resolution_timeout);
        self.queue.push_back(id);
        self.ask_queued(now);
    }

    /// Lets out as many questions as the rate permits. The hierarchy is no DNS and waits for nobody, but keeps its turn.
    pub(super) fn ask_queued(&mut self, now: Instant) {
        while let Some(id) = self.queue.front().copied() {
            let Some(open) = self.questions.get_mut(&id) else {
                self.queue.pop_front();
                continue;
            };
            if let Err(at) = self.throttle.admit(now, self.config.dns_window, self.config.dns_queries_max) {
                return self.timers.arm(Timer::Queue, at);
            }
            self.queue.pop_front();
            open.asked_at = now;
            self.counters.questions += 1;
            self.outputs.push_back(Output::Resolve { id, question: open.question.clone() });
        }
        self.timers.disarm(Timer::Queue);
    }

    /// Takes the answer to a question. One that nobody waits for any more is nothing.
    pub fn handle_answer(&mut self, id: QuestionId, answer: Answer, now: Instant) {
        let Some(open) = self.questions.remove(&id) else { return };
        self.timers.disarm(Timer::Question(id));
        let Open { channel, question, preference, weight, port, discovery_first, method, .. } = open;
        if let Some(Phase::Looking(looking)) = self.searches.get_mut(&channel).map(|search| &mut search.phase) {
            looking.questions.remove(&id);
        }
        let origin = Origin { preference, weight, port, discovery_first, method };
        match (question, answer) {
            (Question::AmtRelay { .. }, Answer::Rdata(rdata)) => self.add_records(channel, origin, &rdata, now),
            (Question::Instances { .. }, Answer::Names(names)) => {
                for name in names.into_iter().take(self.config.names_max) {
                    self.ask(channel, origin, Question::Services { name }, now);
                }
            }
            (Question::Services { .. }, Answer::Services(services)) => {
                for service in services.into_iter().take(self.config.names_max) {
                    self.add_service(channel, origin, &service, now);
                }
            }
            (Question::Addresses { family, .. }, Answer::Addresses(addresses)) => {
                for address in addresses.into_iter().filter(|address| Family::of(*address) == family) {
                    self.add(channel, origin, SocketAddr::new(address, port), now);
                }
            }
            (Question::Hierarchy { .. }, Answer::Relays(relays)) => {
                let places = relays.into_iter().map(Place::Address).collect();
                self.add_places(channel, Origin { discovery_first: false, ..origin }, places, now);
            }
            _ => self.counters.questions_failed += 1,
        }
        self.drive(channel, now);
    }

    /// SRV (RFC 2782): a lower priority first; among equals a heavier weight is more often first.
    fn add_service(&mut self, channel: Channel, origin: Origin, service: &Service, now: Instant) {
        // RFC 2782: a target of the root says that the service is not there.
        if service.target.trim_end_matches('.').is_empty() {
            return;
        }
        let preference = Preference { precedence: service.priority.into(), ..origin.preference };
        let weight = self.weigh(service.weight);
        let origin = Origin { preference, weight, port: service.port, ..origin };
        self.ask_addresses(channel, origin, &service.target, now);
    }

    /// The sort key of a weight: of two services the one with twice the weight comes first twice as often.
    fn weigh(&mut self, weight: u16) -> u64 {
        // The time until the first event of a rate is exponential, and the first of several follows their rates.
        let uniform = (f64::from(self.random.nonce()) + 0.5) / (f64::from(u32::MAX) + 1.0);
        let wait = -uniform.min(1.0 - f64::EPSILON).ln() / (f64::from(weight) + 0.001);
        // Floats that are not negative sort like their bits.
        wait.to_bits()
    }

    /// AMTRELAY (RFC 8777 §4.2).
    fn add_records(&mut self, channel: Channel, origin: Origin, rdata: &[Vec<u8>], now: Instant) {
        let mut records: Vec<Record> = Vec::new();
        for octets in rdata {
            match Record::parse(octets) {
                Ok(Record { relay: amtrelay::Relay::Unknown(..), .. }) | Err(_) => self.counters.records_ignored += 1,
                Ok(record) => records.push(record),
            }
        }
        records.sort_by_key(|record| record.precedence);
        for record in &records {
            let preference = Preference { precedence: record.precedence.into(), ..origin.preference };
            let origin = Origin { preference, discovery_first: !record.discovery_optional, ..origin };
            match &record.relay {
                // No relay is to be used: whatever is less preferred than that is not there, and its equals are not either.
                amtrelay::Relay::None => {
                    self.end_at(channel, preference);
                    return;
                }
                amtrelay::Relay::V4(address) => {
                    self.add(channel, origin, SocketAddr::new((*address).into(), PORT), now);
                }
                amtrelay::Relay::V6(address) => {
                    self.add(channel, origin, SocketAddr::new((*address).into(), PORT), now);
                }
                amtrelay::Relay::Name(name) => self.ask_addresses(channel, origin, name.as_str(), now),
                amtrelay::Relay::Unknown(..) => {}
            }
        }
    }

    fn end_at(&mut self, channel: Channel, end: Preference) {
        let Some(Phase::Looking(looking)) = self.searches.get_mut(&channel).map(|search| &mut search.phase) else {
            return;
        };
        looking.has_none = true;
        looking.candidates.retain(|candidate| candidate.order.0 != end);
        let equals: Vec<QuestionId> = looking
            .questions
            .iter()
            .copied()
            .filter(|id| self.questions.get(id).is_some_and(|open| open.preference == end))
            .collect();
        for id in equals {
            looking.questions.remove(&id);
            self.questions.remove(&id);
            self.timers.disarm(Timer::Question(id));
        }
    }

    fn add(&mut self, channel: Channel, origin: Origin, relay: SocketAddr, now: Instant) {
        let Origin { mut preference, weight, discovery_first, method, .. } = origin;
        let relay = super::canonical(relay);
        let address = relay.ip();
        let is_usable = if address.is_ipv4() { self.config.ipv4 } else { self.config.ipv6 };
        let is_broadcast = matches!(address, std::net::IpAddr::V4(address) if address.is_broadcast());
        if !is_usable || address.is_multicast() || address.is_unspecified() || is_broadcast || relay.port() == 0 {
            return;
        }
        // RFC 8777 §3.3.4.1 avoids relays that were discovered. What an administrator has named is tried when nothing else is left.
        let is_named = matches!(method, Method::Explicit | Method::Map);
        let is_last_resort = is_named && self.held.holds(now, relay, channel.source);
        if is_last_resort {
            preference.method += LAST_RESORT;
        }
        let chance = self.random.below(u64::MAX);
        let Some(Phase::Looking(looking)) = self.searches.get_mut(&channel).map(|search| &mut search.phase) else {
            return;
        };
        if looking.known.len() >= self.config.candidates_max {
            self.counters.beyond_limits += 1;
            return;
        }
        if looking.known.insert((relay, discovery_first)) {
            let order = (preference, weight, rank(address), chance);
            looking.candidates.insert(Candidate { order, relay, discovery_first, method, is_last_resort });
        }
    }
}
