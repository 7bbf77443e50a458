//! Who may register what, how much of it, and what of it outlives a change or a restart.

use super::*;

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
