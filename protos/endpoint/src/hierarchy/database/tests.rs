//! The database under a clock that we turn: who gets which entries, and for how long.

mod accounts;
mod policies;
mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use castgate_wire::registry::{Country, EntryType, Prefix, Protocol, ProtocolFilter, Request};
use proptest::prelude::*;

use super::*;
use crate::hierarchy::accounts::{Allow, Systems};
use crate::hierarchy::policy::{Exclusion, Match, Pool, PoolServer, RouteTable, Rule, ServerPlace};
use crate::hierarchy::region::{Region, Regions};

pub(super) const WALL: UnixMillis = UnixMillis(1_800_000_000_000);

#[test]
fn an_entry_is_gone_exactly_two_intervals_after_its_last_refresh() {
    let mut lab = Lab::new();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=BE").unwrap();
    lab.pass(299);
    assert!(!lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=BE").unwrap().is_new);
    lab.pass(599);
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=BE"), "country 10.0.0.1:1");
    let next = lab.database.next_timeout().unwrap();
    assert!(next <= lab.now + Duration::from_secs(1));
    lab.pass(1);
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=BE"), "none", "whether or not it was swept out");
    assert_eq!(lab.changes(), ["+TS 10.0.0.1 1 UDP", "~TS 10.0.0.1 1 UDP"]);
    lab.database.handle_timeout(lab.now);
    assert_eq!(lab.changes(), ["-TS 10.0.0.1 1 UDP"]);
    assert_eq!(lab.database.next_timeout(), None);
    assert!(lab.database.index.is_empty() && lab.database.logins.is_empty());
}

#[test]
fn the_longest_network_around_the_caller_wins() {
    let mut lab = Lab::new();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&NETWORKS=134.184.0.0/16").unwrap();
    lab.register("TYPE=TS&SOURCE=10.0.0.2&PORT=1&NETWORKS=134.184.1.0/24,134.184.2.0/24").unwrap();
    lab.register("TYPE=TS&SOURCE=10.0.0.3&PORT=1&NETWORKS=2001:db8::/32").unwrap();
    assert_eq!(lab.query("134.184.1.7", "TYPE=TS"), "network 10.0.0.2:1");
    assert_eq!(lab.query("::ffff:134.184.1.7", "TYPE=TS"), "network 10.0.0.2:1");
    assert_eq!(lab.query("134.184.3.7", "TYPE=TS"), "network 10.0.0.1:1");
    assert_eq!(lab.query("2001:db8::1", "TYPE=TS"), "network 10.0.0.3:1");
    assert_eq!(lab.query("134.185.3.7", "TYPE=TS"), "none");
}

#[test]
fn a_network_and_a_country_must_both_match() {
    let mut lab = Lab::new();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&NETWORKS=134.184.0.0/16&COUNTRY=BE").unwrap();
    lab.register("TYPE=TS&SOURCE=10.0.0.2&PORT=1&NETWORKS=134.0.0.0/8").unwrap();
    assert_eq!(lab.query("134.184.1.7", "TYPE=TS&COUNTRY=BE"), "network 10.0.0.1:1");
    assert_eq!(lab.query("134.184.1.7", "TYPE=TS&COUNTRY=FR"), "network 10.0.0.2:1");
    assert_eq!(lab.query("134.184.1.7", "TYPE=TS"), "network 10.0.0.2:1");
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=BE"), "none", "its network keeps it out of the country tier");
}

#[test]
fn a_network_of_length_0_shadows_neither_country_nor_region() {
    let mut lab = Lab::new();
    lab.register("TYPE=TS&SOURCE=10.0.0.9&PORT=1&NETWORKS=0.0.0.0/0").unwrap();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=BE").unwrap();
    lab.register("TYPE=TS&SOURCE=10.0.0.2&PORT=1&NETWORKS=0.0.0.0/0&COUNTRY=GB").unwrap();
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=BE"), "country 10.0.0.1:1");
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=NL"), "region 10.0.0.1:1");
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=UK"), "country 10.0.0.2:1", "public for its country");
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=IE"), "region 10.0.0.2:1", "and for its region");
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=JP"), "public 10.0.0.9:1");
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=ZZ"), "public 10.0.0.9:1");
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS"), "public 10.0.0.9:1");
    assert_eq!(lab.query("2001:db8::1", "TYPE=TS"), "public 10.0.0.9:1");
}

#[test]
fn the_chain_that_feeds_a_relay_is_handed_out_as_it_was_registered_last() {
    let mut lab = Lab::new();
    let Request::Query(query) = Request::parse("ACTION=QUERY&TYPE=TS&COUNTRY=BE").unwrap().0 else { panic!() };
    let caller = Caller { address: "192.0.2.1".parse().unwrap(), asked_at: None };
    for (fed_by, expected) in [("&FEDBY=192.0.2.7,192.0.2.8", &["192.0.2.7", "192.0.2.8"][..]), ("", &[])] {
        lab.register(&format!("TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=BE{fed_by}")).unwrap();
        let servers = lab.database.query(lab.now, WALL, caller, &query).servers;
        let expected: Vec<std::net::IpAddr> = expected.iter().map(|address| address.parse().unwrap()).collect();
        assert_eq!(servers[0].fed_by, expected);
    }
}

#[test]
fn delegation_wins_in_every_tier() {
    let mut lab = Lab::new();
    for place in ["NETWORKS=134.184.0.0/16", "COUNTRY=BE", "NETWORKS=0.0.0.0/0"] {
        let port = place.len();
        lab.register(&format!("TYPE=TS&SOURCE=10.0.0.1&PORT={port}&{place}")).unwrap();
        lab.register(&format!("TYPE=TDS&SOURCE=10.0.0.2&PORT={port}&{place}")).unwrap();
    }
    assert_eq!(lab.query("134.184.1.7", "TYPE=TS&COUNTRY=BE"), "network 10.0.0.2:23");
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=BE"), "country 10.0.0.2:10");
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=FR"), "region 10.0.0.2:10");
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS"), "public 10.0.0.2:18");
}

#[test]
fn protocol_filters_tunnel_servers_and_amt_is_seen_by_those_who_ask_for_it() {
    let mut lab = Lab::new();
    for (port, protocol) in [(1, "UDP"), (2, "TCP"), (3, "AMT"), (4, "QUIC")] {
        lab.register(&format!("TYPE=TS&SOURCE=10.0.0.1&PORT={port}&PROTOCOL={protocol}&COUNTRY=BE")).unwrap();
    }
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=5&COUNTRY=BE").unwrap();
    let ask = |protocol: &str| lab.query("192.0.2.1", &format!("TYPE=TS&COUNTRY=BE{protocol}"));
    assert_eq!(ask(""), "country 10.0.0.1:1 10.0.0.1:2 10.0.0.1:5");
    assert_eq!(ask("&PROTOCOL=ALL"), "country 10.0.0.1:1 10.0.0.1:2 10.0.0.1:5");
    assert_eq!(ask("&PROTOCOL=UDP"), "country 10.0.0.1:1 10.0.0.1:5");
    assert_eq!(ask("&PROTOCOL=TCP"), "country 10.0.0.1:2");
    assert_eq!(ask("&PROTOCOL=AMT"), "country 10.0.0.1:3");
    lab.register("TYPE=TDS&SOURCE=10.0.0.2&PORT=5632&COUNTRY=BE").unwrap();
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=BE&PROTOCOL=AMT"), "country 10.0.0.2:5632");
}

#[test]
fn a_shorter_network_answers_when_the_longest_has_no_server_of_the_protocol() {
    let mut lab = Lab::new();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&PROTOCOL=AMT&NETWORKS=134.184.1.0/24").unwrap();
    lab.register("TYPE=TS&SOURCE=10.0.0.2&PORT=1&PROTOCOL=UDP&NETWORKS=134.184.0.0/16").unwrap();
    assert_eq!(lab.query("134.184.1.7", "TYPE=TS&PROTOCOL=UDP"), "network 10.0.0.2:1");
}

#[test]
fn a_database_is_found_by_the_network_that_contains_the_range_and_its_length_is_told() {
    let mut lab = Lab::new();
    lab.register("TYPE=TDS&SOURCE=10.0.0.1&PORT=5632&NETWORKS=134.0.0.0/8").unwrap();
    lab.register("TYPE=TDS&SOURCE=10.0.0.2&PORT=5632&NETWORKS=134.184.0.0/16").unwrap();
    lab.register("TYPE=TDS&SOURCE=10.0.0.3&PORT=5632&COUNTRY=BE").unwrap();
    lab.register("TYPE=TS&SOURCE=10.0.0.4&PORT=1&NETWORKS=134.184.1.0/24").unwrap();
    lab.register("TYPE=TDS&SOURCE=10.0.0.5&PORT=5632&NETWORKS=0.0.0.0/0").unwrap();
    let ask = |rest: &str| lab.query("134.184.1.7", &format!("TYPE=TDS{rest}"));
    assert_eq!(ask("&NETWORK=134.184.0.0/16&COUNTRY=BE"), "network 10.0.0.2:5632/16");
    assert_eq!(ask("&NETWORK=134.184.1.0/24"), "network 10.0.0.2:5632/16");
    assert_eq!(ask("&NETWORK=134.128.0.0/9"), "network 10.0.0.1:5632/8", "a part of the range is not the range");
    assert_eq!(ask(""), "network 10.0.0.2:5632/16", "without a range the caller's own address counts");
    assert_eq!(ask("&NETWORK=10.0.0.0/8&COUNTRY=BE"), "country 10.0.0.3:5632/0");
    assert_eq!(ask("&NETWORK=10.0.0.0/8&COUNTRY=NL"), "none", "no region, and public databases are never named");
    assert_eq!(ask("&NETWORK=0.0.0.0/0"), "none");
}

#[test]
fn a_database_never_answers_with_itself() {
    let mut lab = Lab::new();
    lab.database.config.own = vec!["127.0.4.1:5632".parse().unwrap()];
    lab.register("TYPE=TDS&SOURCE=127.0.4.1&PORT=5632&COUNTRY=BE").unwrap();
    lab.register("TYPE=TDS&SOURCE=127.0.4.2&PORT=5632&COUNTRY=BE").unwrap();
    lab.asked_at = Some("127.0.4.2:5632".parse().unwrap());
    assert_eq!(lab.query("192.0.2.1", "TYPE=TDS&COUNTRY=BE"), "none");
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=BE"), "none");
    lab.asked_at = None;
    assert_eq!(lab.query("192.0.2.1", "TYPE=TDS&COUNTRY=BE"), "country 127.0.4.2:5632/0");
}

#[test]
fn bye_removes_one_protocol_or_all_of_them_at_once() {
    let mut lab = Lab::new();
    for protocol in ["UDP", "TCP", "AMT"] {
        lab.register(&format!("TYPE=TS&SOURCE=10.0.0.1&PORT=1&PROTOCOL={protocol}&COUNTRY=BE")).unwrap();
    }
    lab.register("TYPE=TDS&SOURCE=10.0.0.1&PORT=1&COUNTRY=BE").unwrap();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=2&COUNTRY=BE").unwrap();
    lab.changes();
    assert_eq!(lab.bye("be", "SOURCE=10.0.0.1&PORT=1&TYPE=TS&PROTOCOL=TCP"), Ok(1));
    assert_eq!(lab.changes(), ["-TS 10.0.0.1 1 TCP"]);
    assert_eq!(lab.bye("be", "SOURCE=10.0.0.1&PORT=1"), Ok(3));
    assert_eq!(lab.changes(), ["-TS 10.0.0.1 1 UDP", "-TS 10.0.0.1 1 AMT", "-TDS 10.0.0.1 1 TCP"]);
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=BE"), "country 10.0.0.1:2");
    assert_eq!(lab.bye("be", "SOURCE=10.0.0.1&PORT=1"), Ok(0), "a second BYE is no error");
    assert_eq!(lab.bye("be", "SOURCE=10.0.0.1&PORT=1&STRICT=1"), Err(Refusal::NoEntry));
}

pub(super) struct Lab {
    pub(super) now: Instant,
    asked_at: Option<SocketAddr>,
    pub(super) database: Database,
}

impl Lab {
    pub(super) fn new() -> Self {
        let accounts = vec![account("be", allow()), account("fr", allow())];
        Self { now: Instant::now(), asked_at: None, database: Database::new(Config::default(), accounts, [7; 16]) }
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    pub(super) fn register(&mut self, pairs: &str) -> Result<Registered, Refusal> {
        self.register_as("be", pairs)
    }

    pub(super) fn register_as(&mut self, login: &str, pairs: &str) -> Result<Registered, Refusal> {
        match Request::parse(&format!("ACTION=REGISTER&{pairs}")).unwrap().0 {
            Request::Register(register) => self.database.register(self.now, WALL, login, &register),
            other => panic!("not a REGISTER: {other:?}"),
        }
    }

    pub(super) fn bye(&mut self, login: &str, pairs: &str) -> Result<usize, Refusal> {
        match Request::parse(&format!("ACTION=BYE&{pairs}")).unwrap().0 {
            Request::Bye(bye) => self.database.bye(self.now, login, &bye),
            other => panic!("not a BYE: {other:?}"),
        }
    }

    /// The tier and the servers, as in `network 10.0.0.1:5632/16`.
    pub(super) fn query(&self, caller: &str, pairs: &str) -> String {
        let Request::Query(query) = Request::parse(&format!("ACTION=QUERY&{pairs}")).unwrap().0 else {
            panic!("not a QUERY");
        };
        let caller = Caller { address: caller.parse().unwrap(), asked_at: self.asked_at };
        let answer = self.database.query(self.now, WALL, caller, &query);
        let mut shown = answer.tier.map_or("none", Tier::word).to_owned();
        for server in answer.servers {
            write!(shown, " {}:{}", server.address, server.port).unwrap();
            if let Some(len) = server.prefix_len {
                write!(shown, "/{len}").unwrap();
            }
        }
        shown
    }

    pub(super) fn changes(&mut self) -> Vec<String> {
        let changes = std::iter::from_fn(|| self.database.poll_change());
        changes
            .map(|change| match change {
                Change::Put(key, _) => format!("+{key}"),
                Change::Refresh(key, _) => format!("~{key}"),
                Change::Delete(key) | Change::Expire(key) => format!("-{key}"),
            })
            .collect()
    }
}

fn account(login: &str, allow: Allow) -> Account {
    // Nobody proves a password here.
    let hash = "$argon2id$v=19$m=8,t=1,p=1$YSBzYWx0IGZvciB0ZXN0cw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    Account::new(login.to_owned(), hash.to_owned(), allow).unwrap()
}

fn allow() -> Allow {
    Allow {
        types: vec![EntryType::TunnelServer, EntryType::TunnelDatabase],
        networks: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        countries: ["BE", "NL", "GB", "FR"].iter().map(|code| code.parse().unwrap()).collect(),
        ..Allow::default()
    }
}
