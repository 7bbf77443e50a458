//! The database under a clock that we turn; the property against a matcher written down as plainly as the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

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

#[test]
fn an_entry_obeys_the_account_that_made_it_and_no_other() {
    let mut lab = Lab::new();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=BE").unwrap();
    let foreign = lab.bye("fr", "SOURCE=10.0.0.1&PORT=1").unwrap_err();
    assert_eq!(
        (foreign.status(), foreign.to_string().as_str()),
        (403, "entry TS 10.0.0.1 1 UDP belongs to another account")
    );
    let taken = lab.register_as("fr", "TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=FR").unwrap_err();
    assert_eq!(taken.status(), 403);
    lab.register_as("fr", "TYPE=TS&SOURCE=10.0.0.1&PORT=1&PROTOCOL=TCP&COUNTRY=FR").unwrap();
    assert_eq!(lab.bye("be", "SOURCE=10.0.0.1&PORT=1"), Ok(1), "of two it removes its own");
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=FR"), "country 10.0.0.1:1");
    assert_eq!(lab.bye("nobody", "SOURCE=10.0.0.1&PORT=1"), Err(Refusal::NoAccount));
}

#[test]
fn a_claim_beyond_the_account_is_refused_and_changes_nothing() {
    let mut lab = Lab::new();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=BE").unwrap();
    lab.changes();
    for (request, part, status) in [
        ("TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=JP", "country JP", 403),
        ("TYPE=TS&SOURCE=0.0.0.0&PORT=1&COUNTRY=BE", "SOURCE 0.0.0.0 is not the address of a host", 400),
        ("TYPE=TS&SOURCE=232.1.2.3&PORT=1&COUNTRY=BE", "SOURCE 232.1.2.3 is not", 400),
        ("TYPE=TS&SOURCE=10.0.0.1&PORT=1", "neither NETWORKS nor COUNTRY", 400),
    ] {
        let refusal = lab.register(request).unwrap_err();
        assert!(refusal.to_string().contains(part), "{request}: {refusal}");
        assert_eq!(refusal.status(), status, "{request}");
    }
    assert_eq!(lab.register_as("nobody", "TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=BE").unwrap_err().status(), 401);
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=BE"), "country 10.0.0.1:1");
    assert!(lab.changes().is_empty());
}

#[test]
fn a_changed_registration_replaces_the_old_one_everywhere() {
    let mut lab = Lab::new();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&NETWORKS=134.184.0.0/16").unwrap();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=BE").unwrap();
    assert_eq!(lab.query("134.184.1.7", "TYPE=TS"), "none");
    assert_eq!(lab.query("134.184.1.7", "TYPE=TS&COUNTRY=BE"), "country 10.0.0.1:1");
    assert_eq!(lab.database.len(), 1);
}

#[test]
fn everything_that_can_be_full_says_so() {
    let mut lab = Lab::new();
    lab.database.config = Config {
        entries_max: 4,
        entries_per_account_max: 3,
        networks_per_entry_max: 5,
        networks_per_account_max: 6,
        ..Config::default()
    };
    let networks = |count: u8| {
        let mut list = String::from("NETWORKS=");
        (0..count).for_each(|n| write!(list, "134.{n}.0.0/16,").unwrap());
        list
    };
    let too_many = lab.register(&format!("TYPE=TS&SOURCE=10.0.0.1&PORT=1&{}", networks(6))).unwrap_err();
    assert_eq!(too_many, Refusal::TooManyNetworks(5, 6));
    lab.register(&format!("TYPE=TS&SOURCE=10.0.0.1&PORT=1&{}", networks(5))).unwrap();
    lab.register(&format!("TYPE=TS&SOURCE=10.0.0.1&PORT=1&{}", networks(5))).unwrap();
    let too_many = lab.register(&format!("TYPE=TS&SOURCE=10.0.0.1&PORT=2&{}", networks(2))).unwrap_err();
    assert_eq!(too_many, Refusal::AccountNetworks(6));
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=2&COUNTRY=BE").unwrap();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=3&COUNTRY=BE").unwrap();
    assert_eq!(lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=4&COUNTRY=BE"), Err(Refusal::AccountEntries(3)));
    lab.register_as("fr", "TYPE=TS&SOURCE=10.0.0.1&PORT=4&COUNTRY=FR").unwrap();
    let full = lab.register_as("fr", "TYPE=TS&SOURCE=10.0.0.1&PORT=5&COUNTRY=FR").unwrap_err();
    assert_eq!((full.status(), full), (503, Refusal::Full(4)));
    assert!(!lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=3&COUNTRY=BE").unwrap().is_new, "a refresh needs no room");
}

#[test]
fn of_a_long_list_every_caller_gets_a_part_and_all_parts_are_used() {
    let mut lab = Lab::new();
    for n in 0..600 {
        lab.register(&format!("TYPE=TS&SOURCE=10.0.{}.{}&PORT=1&COUNTRY=BE", n / 200, n % 200)).unwrap();
    }
    let mut seen = BTreeSet::new();
    for caller in 0..100 {
        let caller = format!("192.0.2.{caller}");
        let list = lab.query(&caller, "TYPE=TS&COUNTRY=BE");
        assert_eq!(list.split(' ').count(), 1 + ANSWER_SERVERS_MAX);
        assert_eq!(list, lab.query(&caller, "TYPE=TS&COUNTRY=BE"), "always the same part");
        seen.extend(list.split(' ').skip(1).map(ToOwned::to_owned));
    }
    assert_eq!(seen.len(), 600);
}

#[test]
fn a_removed_account_takes_its_entries_along_and_a_narrowed_one_those_it_may_no_longer_claim() {
    let mut lab = Lab::new();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=BE").unwrap();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=2&COUNTRY=NL").unwrap();
    lab.register_as("fr", "TYPE=TS&SOURCE=10.0.0.1&PORT=3&COUNTRY=FR").unwrap();
    lab.changes();
    let mut narrowed = allow();
    narrowed.countries = vec!["BE".parse().unwrap()];
    lab.database.set(Config::default(), vec![account("be", narrowed)]);
    let mut gone = lab.changes();
    gone.sort();
    assert_eq!(gone, ["-TS 10.0.0.1 2 UDP", "-TS 10.0.0.1 3 UDP"]);
    assert_eq!(lab.database.len(), 1);
}

#[test]
fn another_route_table_takes_along_what_it_does_not_give_to_the_account_any_more() {
    let table = |text: &str| Some(Arc::new(RouteTable::read(text.as_bytes()).unwrap()));
    let of_system =
        |table| account("be", Allow { networks: Vec::new(), systems: Systems::new(vec![64_500], table), ..allow() });
    let mut lab = Lab::new();
    lab.database.set(Config::default(), vec![of_system(table("10.0.0.0/8,64500\n192.0.2.0/24,64500\n"))]);
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&NETWORKS=10.1.0.0/16").unwrap();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=2&NETWORKS=192.0.2.0/24").unwrap();
    let refusal = lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=3&NETWORKS=203.0.113.0/24").unwrap_err();
    assert_eq!((refusal.status(), refusal.label()), (403, "claim_system"));
    lab.changes();
    lab.database.set(Config::default(), vec![of_system(table("10.0.0.0/8,64500\n192.0.2.0/24,64501\n"))]);
    assert_eq!(lab.changes(), ["-TS 10.0.0.1 2 UDP"]);
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&NETWORKS=10.1.0.0/16").unwrap();
    assert_eq!(lab.query("10.1.0.7", "TYPE=TS"), "network 10.0.0.1:1");
}

#[test]
fn other_regions_hold_from_the_next_question_on() {
    let mut lab = Lab::new();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=BE").unwrap();
    lab.register("TYPE=TS&SOURCE=10.0.0.2&PORT=1&COUNTRY=GB").unwrap();
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=IE"), "region 10.0.0.2:1");
    let own = [("Channel", ["BE", "IE"])]
        .map(|(name, codes)| (name.to_owned(), codes.map(|code| code.parse().unwrap()).to_vec()));
    let regions = Arc::new(Regions::new(&own.into()).unwrap());
    lab.database.set(Config { regions, ..Config::default() }, vec![account("be", allow())]);
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=IE"), "region 10.0.0.1:1");
    assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=FR"), "none", "Belgium left Western Europe");
    let query = Query {
        entry_type: EntryType::TunnelServer,
        country: Some("IE".parse().unwrap()),
        protocol: ProtocolFilter::All,
        network: None,
    };
    let caller = Caller { address: "192.0.2.1".parse().unwrap(), asked_at: None };
    let told = lab.database.explain(lab.now, WALL, caller, &query).considered;
    assert_eq!(told.last().unwrap().notes[0].1, "Channel");
}

#[test]
fn a_restored_entry_lives_one_interval_at_least_and_two_at_most() {
    for (left_seconds, lives_seconds) in [(0, 300), (100, 300), (400, 400), (600, 600), (100_000, 600)] {
        let mut first = Lab::new();
        first.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=BE").unwrap();
        let Some(Change::Put(key, stored)) = first.database.poll_change() else { panic!("a REGISTER is stored") };
        assert_eq!(key.to_string(), "TS 10.0.0.1 1 UDP");
        assert_eq!(stored.expires(), WALL.after(Duration::from_mins(10)));

        let mut lab = Lab::new();
        let expires = WALL.after(Duration::from_secs(left_seconds));
        lab.database.restore(lab.now, WALL, stored.to_entry().unwrap(), expires);
        assert_eq!(lab.query("192.0.2.1", "TYPE=TS&COUNTRY=BE"), "country 10.0.0.1:1");
        assert!(lab.changes().is_empty());
        lab.pass(lives_seconds - 1);
        lab.database.handle_timeout(lab.now);
        assert_eq!(lab.database.len(), 1, "{left_seconds}");
        lab.pass(1);
        lab.database.handle_timeout(lab.now);
        assert_eq!(lab.database.len(), 0, "{left_seconds}");
    }
}

#[test]
fn an_entry_of_a_removed_account_is_not_restored_and_leaves_the_store() {
    let mut first = Lab::new();
    first.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=BE").unwrap();
    let Some(Change::Put(_, stored)) = first.database.poll_change() else { panic!("a REGISTER is stored") };
    let mut lab = Lab::new();
    lab.database.set(Config::default(), Vec::new());
    lab.database.restore(lab.now, WALL, stored.to_entry().unwrap(), stored.expires());
    assert!(lab.database.is_empty());
    assert_eq!(lab.changes(), ["-TS 10.0.0.1 1 UDP"]);
}

/// The rules as plainly as they can be written: all entries, every time.
fn reference(entries: &[Entry], caller: IpAddr, query: &Query) -> (Option<Tier>, Vec<(String, Option<u8>)>) {
    let is_tds = |entry: &Entry| entry.key.entry_type == EntryType::TunnelDatabase;
    let ask_tds = query.entry_type == EntryType::TunnelDatabase;
    let usable = |entry: &&Entry| is_tds(entry) || (!ask_tds && query.protocol.matches(Some(&entry.key.protocol)));
    let range = if ask_tds { query.network } else { None }.unwrap_or_else(|| Prefix::from(caller));
    let specific = |entry: &Entry| entry.networks.iter().any(|network| network.prefix_len() > 0);
    let country_ok = |entry: &Entry| {
        entry.countries.is_empty() || query.country.is_some_and(|country| entry.countries.contains(&country))
    };
    let longest = |entry: &Entry| {
        let around = entry.networks.iter().filter(|network| network.prefix_len() > 0 && network.contains(&range));
        around.map(Prefix::prefix_len).max()
    };
    let finish = |tier, list: Vec<&Entry>, len: Option<u8>| {
        let any_tds = list.iter().any(|entry| is_tds(entry));
        let kept = list.into_iter().filter(|entry| !any_tds || is_tds(entry));
        let mut shown: Vec<_> = kept.map(|entry| (entry.key.to_string(), len)).collect();
        shown.sort();
        (Some(tier), shown)
    };

    let near: Vec<&Entry> = entries.iter().filter(usable).filter(|entry| country_ok(entry)).collect();
    if let Some(best) = near.iter().filter_map(|entry| longest(entry)).max() {
        let list = near.into_iter().filter(|entry| longest(entry) == Some(best)).collect();
        return finish(Tier::Network, list, ask_tds.then_some(best));
    }
    let wide: Vec<&Entry> = entries.iter().filter(usable).filter(|entry| !specific(entry)).collect();
    let of = |countries: &[Country]| -> Vec<&Entry> {
        let any = |entry: &&&Entry| entry.countries.iter().any(|country| countries.contains(country));
        wide.iter().filter(any).copied().collect()
    };
    if let Some(country) = query.country {
        let national = of(&[country]);
        if !national.is_empty() {
            return finish(Tier::Country, national, ask_tds.then_some(0));
        }
        let regions = Regions::default();
        let region: &[Country] = regions.of(country).map(Region::countries).unwrap_or_default();
        let regional = of(region);
        if !ask_tds && !regional.is_empty() {
            return finish(Tier::Region, regional, None);
        }
    }
    let is_public =
        |entry: &&Entry| entry.countries.is_empty() && entry.networks.iter().any(|network| network.prefix_len() == 0);
    let public: Vec<&Entry> = entries.iter().filter(usable).filter(is_public).collect();
    if !ask_tds && !public.is_empty() {
        return finish(Tier::Public, public, None);
    }
    (None, Vec::new())
}

#[derive(Debug, Clone)]
enum Op {
    Register(Register),
    Bye { source: u8, port: u16 },
    Pass(u64),
    Query(IpAddr, Query),
}

/// Few networks, addresses and countries, so that they meet.
fn network() -> impl Strategy<Value = Prefix> {
    prop_oneof![
        1 => Just("0.0.0.0/0".parse().unwrap()),
        1 => Just("::/0".parse().unwrap()),
        6 => (0_u8..4, prop_oneof![Just(1_u8), Just(8), Just(16), Just(17), Just(24), Just(32)])
            .prop_map(|(n, len)| Prefix::new(IpAddr::from([134, 184, n * 64, n]), len).unwrap().trunc()),
        1 => (0_u16..3, prop_oneof![Just(32_u8), Just(48), Just(128)])
            .prop_map(|(n, len)| Prefix::new(IpAddr::from([0x2001, 0xdb8, n, 0, 0, 0, 0, 1]), len).unwrap().trunc()),
    ]
}

fn country() -> impl Strategy<Value = Option<Country>> {
    prop::sample::select(vec![None, Some("BE"), Some("NL"), Some("GB"), Some("JP")])
        .prop_map(|code| code.map(|code| code.parse().unwrap()))
}

fn kind() -> impl Strategy<Value = EntryType> {
    prop::sample::select(vec![EntryType::TunnelServer, EntryType::TunnelDatabase])
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(vec![Protocol::Udp, Protocol::Tcp, Protocol::Amt])
}

fn op() -> impl Strategy<Value = Op> {
    let register = (kind(), 0_u8..6, 1_u16..3, protocol(), prop::collection::vec(network(), 0..4), country()).prop_map(
        |(entry_type, n, port, protocol, networks, country)| {
            let source = IpAddr::from([10, 0, 0, n]);
            {
                let fed_by = Vec::new();
                let (protocol, scheme) = (Some(protocol), castgate_wire::registry::Scheme::Http);
                Op::Register(Register { source, port, entry_type, protocol, networks, country, fed_by, scheme })
            }
        },
    );
    let caller = prop_oneof![
        4 => (0_u8..4, 0_u8..5).prop_map(|(a, b)| IpAddr::from([134, 184, a * 64, b])),
        1 => Just(IpAddr::from([192, 0, 2, 1])),
        1 => (0_u16..4).prop_map(|n| IpAddr::from([0x2001, 0xdb8, n, 0, 0, 0, 0, 1])),
    ];
    let filter = prop_oneof![Just(ProtocolFilter::All), protocol().prop_map(ProtocolFilter::Only)];
    let query = (caller, kind(), country(), filter, prop::option::of(network())).prop_map(
        |(caller, entry_type, country, protocol, network)| {
            Op::Query(caller, Query { entry_type, country, protocol, network })
        },
    );
    prop_oneof![
        6 => register,
        1 => (0_u8..6, 1_u16..3).prop_map(|(source, port)| Op::Bye { source, port }),
        2 => (1_u64..400).prop_map(Op::Pass),
        6 => query,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is registered, taken back and forgotten: answers are those of the plain rules over a plain list, the store
    /// that follows the changes holds that list, and nothing is left in the index when it is empty.
    #[test]
    fn answers_are_those_of_the_plain_rules(ops in prop::collection::vec(op(), 1..60)) {
        let mut lab = Lab::new();
        let mut model: BTreeMap<Key, (Entry, Instant)> = BTreeMap::new();
        let mut store: BTreeSet<String> = BTreeSet::new();
        for op in ops {
            match op {
                Op::Register(register) => {
                    if lab.database.register(lab.now, WALL, "be", &register).is_ok() {
                        let entry = Entry::of_register(&register, "be");
                        model.insert(entry.key.clone(), (entry, lab.now + Duration::from_mins(10)));
                    }
                }
                Op::Bye { source, port } => {
                    let source = IpAddr::from([10, 0, 0, source]);
                    let bye = Bye { source, port, entry_type: None, protocol: None, strict: false };
                    let before = model.len();
                    model.retain(|key, _| (key.source, key.port) != (source, port));
                    prop_assert_eq!(lab.database.bye(lab.now, "be", &bye), Ok(before - model.len()));
                }
                Op::Pass(seconds) => lab.pass(seconds),
                Op::Query(caller, query) => {
                    let entries: Vec<Entry> = model.values().map(|(entry, _)| entry.clone()).collect();
                    let (tier, expected) = reference(&entries, caller, &query);
                    let answer = lab.database.query(lab.now, WALL, Caller { address: caller, asked_at: None }, &query);
                    let shown = |server: &castgate_wire::registry::Server| {
                        let protocol = server.protocol.clone().unwrap();
                        let key = Key { entry_type: server.entry_type, source: server.address, port: server.port, protocol };
                        (key.to_string(), server.prefix_len)
                    };
                    let mut found: Vec<_> = answer.servers.iter().map(shown).collect();
                    found.sort();
                    prop_assert_eq!((answer.tier, found), (tier, expected));
                }
            }
            let now = lab.now;
            model.retain(|_, (_, deadline)| *deadline > now);
            lab.database.handle_timeout(now);
            for change in lab.changes() {
                match change.split_at(1) {
                    ("-", key) => _ = store.remove(key),
                    (_, key) => _ = store.insert(key.to_owned()),
                }
            }
            let held: BTreeSet<String> = lab.database.entries().map(|(entry, _)| entry.key.to_string()).collect();
            prop_assert_eq!(&held, &model.keys().map(ToString::to_string).collect());
            prop_assert_eq!(&held, &store);
        }
        lab.pass(600);
        lab.database.handle_timeout(lab.now);
        prop_assert!(lab.database.index.is_empty() && lab.database.logins.is_empty());
    }
}

#[test]
fn a_policy_wins_over_what_is_registered_from_the_next_question_on() {
    let mut lab = Lab::new();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&NETWORKS=134.184.0.0/16").unwrap();
    lab.register("TYPE=TS&SOURCE=10.0.0.2&PORT=1&COUNTRY=FR").unwrap();
    let ask = |lab: &Lab, caller: &str| lab.query(caller, "TYPE=TS&COUNTRY=BE");
    assert_eq!(ask(&lab, "134.184.1.7"), "network 10.0.0.1:1");
    lab.database.set_policies(vec![policy("134.184.1.0/24", "10.0.0.2:1", true)]);
    assert_eq!(ask(&lab, "134.184.1.7"), "tsap 10.0.0.2:1");
    assert_eq!(ask(&lab, "134.184.2.7"), "network 10.0.0.1:1");
    assert_eq!(lab.query("134.184.1.7", "TYPE=TS&PROTOCOL=AMT"), "none", "PROTOCOL is asked for all the same");
    let moved: Vec<_> = lab.database.moved().map(|moved| (moved.policy, moved.rule, moved.clients)).collect();
    assert_eq!(moved, [("p".to_owned(), "move".to_owned(), 1)]);
    lab.database.set_policies(Vec::new());
    assert_eq!(ask(&lab, "134.184.1.7"), "network 10.0.0.1:1");
}

#[test]
fn a_server_that_registers_here_is_handed_out_while_it_is_registered() {
    let mut lab = Lab::new();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=BE").unwrap();
    lab.database.set_policies(vec![policy("0.0.0.0/0", "10.0.0.2:1", true)]);
    let ask = |lab: &Lab| lab.query("192.0.2.1", "TYPE=TS&COUNTRY=BE");
    assert_eq!(ask(&lab), "country 10.0.0.1:1");
    lab.register("TYPE=TS&SOURCE=10.0.0.2&PORT=1&COUNTRY=FR").unwrap();
    assert_eq!(ask(&lab), "tsap 10.0.0.2:1");
    lab.bye("be", "TYPE=TS&SOURCE=10.0.0.2&PORT=1").unwrap();
    assert_eq!(ask(&lab), "country 10.0.0.1:1");
    lab.database.set_policies(vec![policy("0.0.0.0/0", "203.0.113.1:9", false)]);
    assert_eq!(ask(&lab), "tsap 203.0.113.1:9", "one of somebody else is handed out as it is");
}

#[test]
fn what_a_policy_excludes_no_tier_hands_out() {
    let mut lab = Lab::new();
    for (source, whom) in [
        ("10.0.0.1", "NETWORKS=134.184.0.0/16"),
        ("10.0.0.2", "COUNTRY=BE"),
        ("10.0.0.3", "COUNTRY=NL"),
        ("10.0.0.4", "NETWORKS=0.0.0.0/0"),
    ] {
        lab.register(&format!("TYPE=TS&SOURCE={source}&PORT=1&{whom}")).unwrap();
    }
    lab.register("TYPE=TDS&SOURCE=10.0.0.4&PORT=1&COUNTRY=FR").unwrap();
    let mut seen = Vec::new();
    for count in 0..=4_u8 {
        let places = (1..=count).map(|last| SocketAddr::from(([10, 0, 0, last], 1))).collect();
        let exclude = vec![Exclusion { name: "some".to_owned(), places }];
        let rule = Rule { exclude, pools: Vec::new(), ..policy("0.0.0.0/0", "10.0.0.9:1", false).rules[0].clone() };
        lab.database.set_policies(vec![Policy { name: "p".to_owned(), rules: vec![rule], routes: None }]);
        seen.push(lab.query("134.184.1.7", "TYPE=TS&COUNTRY=BE"));
    }
    let region = "region 10.0.0.4:1";
    assert_eq!(seen, ["network 10.0.0.1:1", "country 10.0.0.2:1", region, region, region], "a database is no server");
}

#[test]
fn an_explanation_names_the_tiers_in_order_and_ends_with_the_answer() {
    let mut lab = Lab::new();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=NL").unwrap();
    lab.register("TYPE=TS&SOURCE=10.0.0.3&PORT=1&NETWORKS=192.0.2.0/24&COUNTRY=FR").unwrap();
    lab.database.set_policies(vec![policy("134.184.0.0/16", "10.0.0.2:1", true)]);
    let told = |lab: &Lab, caller: &str, country: &str| {
        let Request::Query(query) = Request::parse(&format!("ACTION=QUERY&TYPE=TS{country}")).unwrap().0 else {
            panic!()
        };
        let caller = Caller { address: caller.parse().unwrap(), asked_at: None };
        let explanation = lab.database.explain(lab.now, WALL, caller, &query);
        let tiers = explanation.considered.iter().map(|tier| {
            let notes: Vec<_> = tier.notes.iter().map(|(_, note)| note.as_str()).collect();
            format!("{}: {}", tier.tier, notes.join("; "))
        });
        tiers.collect::<Vec<_>>()
    };
    assert_eq!(
        told(&lab, "192.0.2.1", "&COUNTRY=BE"),
        [
            "tsap: policy p; rule move: 192.0.2.1 is in none of its networks",
            "network: networks around 192.0.2.1: no server for this client",
            "country: BE: no server for this client",
            "region: Western Europe",
        ]
    );
    assert_eq!(
        told(&lab, "134.184.0.1", ""),
        [
            "tsap: policy p; rule move: matches; pools of rule move; pool all, weight 1; there: is not registered here, or not with \
         this PROTOCOL",
            "network: no network is around 134.184.0.1",
            "country: the country is not known",
            "region: without a country there is no region",
            "public: servers for everybody: no server for this client",
        ]
    );
    lab.register("TYPE=TS&SOURCE=10.0.0.2&PORT=1&COUNTRY=FR").unwrap();
    assert_eq!(
        told(&lab, "134.184.0.1", ""),
        ["tsap: policy p; rule move: matches; pools of rule move; pool all, weight 1; there: registered"]
    );
    assert_eq!(lab.database.moved().map(|moved| moved.answers).sum::<u64>(), 0, "who only asks why is not counted");
}

/// Clients of a network to one server.
fn policy(network: &str, server: &str, registers: bool) -> Policy {
    let place = ServerPlace { address: server.parse().unwrap(), protocol: Protocol::Udp };
    let server =
        PoolServer { name: "there".to_owned(), places: vec![place], registers, down: false, load_percent: None };
    let pool = Pool { name: "all".to_owned(), weight: 1, load_percent_max: 100, servers: vec![server] };
    let matches = Match { networks: vec![network.parse().unwrap()], ..Match::default() };
    let rule = Rule { name: "move".to_owned(), matches, pools: vec![pool], exclude: Vec::new() };
    Policy { name: "p".to_owned(), rules: vec![rule], routes: None }
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
