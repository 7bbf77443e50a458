//! A registrar that finds its parents in a hierarchy that is a table, under a clock that we turn.

mod changes;
mod finding;
mod leaving;
mod peers;

use std::collections::{BTreeMap, BTreeSet};

use castgate_wire::registry::{Protocol, Request, Scheme, Server};

use super::super::{Call, Outcome, Registrar};
use super::*;
use crate::hierarchy::discovery::Role;

const ROOT: &str = "127.0.4.1:5632";
const COUNTRY: &str = "127.0.5.1:5632";
const ISP: &str = "127.0.6.1:5632";
const OTHER_ISP: &str = "127.0.6.2:5632";
const OWN: &str = "192.0.2.9:5632";

/// For which network, which databases, and by what length they are found.
type Row = (Option<Prefix>, Vec<String>, u8);

struct Lab {
    now: Instant,
    registrar: Registrar,
    /// Who names whom for which networks; without one it is by country.
    table: BTreeMap<String, Vec<Row>>,
    silent: BTreeSet<String>,
    /// Who has no account for us.
    refuses: BTreeSet<String>,
    /// Who says when to come again.
    busy: BTreeSet<String>,
    /// Whether parents answer before those who are asked for the way.
    answers_first: bool,
    /// What parents answer to a REGISTER.
    interval: Option<Duration>,
    asked: Vec<String>,
    walks: usize,
}

impl Lab {
    fn new(entries: &[Register]) -> Self {
        let now = Instant::now();
        let registrar = Registrar::discovering(Config::default(), entries, discovery(), 7, now);
        Self {
            now,
            registrar,
            table: BTreeMap::new(),
            silent: BTreeSet::new(),
            refuses: BTreeSet::new(),
            busy: BTreeSet::new(),
            answers_first: false,
            interval: None,
            asked: Vec::new(),
            walks: 0,
        }
    }

    fn knows(&mut self, who: &str, below: &[&str], matched: u8) {
        let below = below.iter().map(|text| (*text).to_owned()).collect();
        self.table.insert(who.to_owned(), vec![(None, below, matched)]);
    }

    fn knows_network(&mut self, who: &str, network: &str, below: &[&str]) {
        let network: Prefix = network.parse().unwrap();
        let below = below.iter().map(|text| (*text).to_owned()).collect();
        self.table.entry(who.to_owned()).or_default().push((Some(network), below, network.prefix_len()));
    }

    /// Answers every question and every call until there are none; returns the calls, in the order of parents.
    fn round(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let question = if self.answers_first { None } else { self.registrar.poll_question() };
            if let Some(question) = question {
                self.reply(question);
            } else if let Some(Call { id, parent, authority, request }) = self.registrar.poll_call() {
                let parent = parent.address.to_string();
                assert_eq!(parent, authority);
                let outcome = if self.silent.contains(&parent) {
                    Outcome::Unreachable { sentence: "connection refused".to_owned() }
                } else if self.refuses.contains(&parent) {
                    Outcome::Refused { sentence: "401".to_owned(), retry_after: None }
                } else if self.busy.contains(&parent) {
                    let retry_after = Some(Duration::from_secs(1));
                    Outcome::Refused { sentence: "503".to_owned(), retry_after }
                } else {
                    Outcome::Done { interval: self.interval }
                };
                told.push(format!("{parent} {}", request.emit()));
                self.registrar.handle_outcome(self.now, id, outcome);
            } else if let Some(question) = self.registrar.poll_question() {
                self.reply(question);
            } else {
                told.sort();
                return told;
            }
        }
    }

    fn reply(&mut self, Question { id, lookup }: Question) {
        let Lookup::Databases(ask) = lookup else { panic!("the roots are addresses") };
        let asked = ask.address.to_string();
        let pairs = ask.target.split_once('?').unwrap().1;
        let Ok((Request::Query(query), None)) = Request::parse(pairs) else { panic!("{pairs}") };
        let result = if self.silent.contains(&asked) {
            Err("connection refused".to_owned())
        } else {
            let rows = self.table.get(&asked).map(Vec::as_slice).unwrap_or_default();
            let range = query.network.unwrap();
            let found = rows.iter().find(|(network, ..)| network.is_none_or(|network| network.contains(&range)));
            let (below, matched) = found.map(|(_, below, matched)| (&below[..], *matched)).unwrap_or_default();
            Ok(below.iter().map(|text| named(text, matched)).collect())
        };
        self.asked.push(asked);
        self.registrar.handle_reply(self.now, id, Reply::Databases(result));
    }

    /// The networks that each parent was told in this round.
    fn networks(&mut self) -> Vec<String> {
        let of = |call: &String| {
            let (parent, pairs) = call.split_once(' ').unwrap();
            let networks = pairs.split('&').find_map(|pair| pair.strip_prefix("NETWORKS="));
            format!("{parent} {}", networks.unwrap_or_default())
        };
        self.round().iter().map(of).collect()
    }

    /// Lets time pass until somebody was asked; returns the calls of that time.
    fn until_walk(&mut self) -> Vec<String> {
        self.asked.clear();
        let mut calls = Vec::new();
        while self.asked.is_empty() {
            self.pass();
            calls.extend(self.round());
        }
        self.walks += 1;
        calls
    }

    fn standings(&self) -> Vec<Standing> {
        self.registrar.statuses().map(|status| status.standing).collect()
    }

    fn wait(&self) -> Duration {
        self.registrar.next_timeout().expect("something is planned") - self.now
    }

    fn pass(&mut self) {
        self.now = self.registrar.next_timeout().expect("something is planned");
        self.registrar.handle_timeout(self.now);
    }
}

fn named(text: &str, matched: u8) -> Server {
    let address: SocketAddr = text.parse().unwrap();
    Server {
        address: address.ip(),
        port: address.port(),
        entry_type: EntryType::TunnelDatabase,
        protocol: Some(Protocol::Tcp),
        prefix_len: Some(matched),
        fed_by: Vec::new(),
        scheme: Scheme::Http,
    }
}

fn discovery() -> Discovery {
    Discovery {
        roots: vec![ROOT.parse().unwrap()],
        login: "be".to_owned(),
        password: "s3cret".to_owned(),
        ca: None,
        role: Role::Peer,
        waits_for_peers: true,
    }
}

fn server(networks: &[&str]) -> Register {
    Register {
        source: "127.0.2.1".parse().unwrap(),
        port: 10100,
        entry_type: EntryType::TunnelServer,
        protocol: Some(Protocol::Udp),
        networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
        country: Some("BE".parse().unwrap()),
        fed_by: Vec::new(),
        scheme: Scheme::Http,
    }
}

fn database(networks: &[&str]) -> Register {
    let own: SocketAddr = OWN.parse().unwrap();
    Register {
        source: own.ip(),
        port: own.port(),
        entry_type: EntryType::TunnelDatabase,
        protocol: None,
        ..server(networks)
    }
}
