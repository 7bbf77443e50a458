//! The rules by themselves; with a database below them they are tested there.

use proptest::prelude::*;

use super::*;

const NOON: UnixMillis = UnixMillis(1_800_014_400_000);

#[test]
fn everything_that_a_rule_names_has_to_hold() {
    let routes = RouteTable::read("10.0.0.0/8,64500\n".as_bytes()).unwrap();
    let matches = Match {
        networks: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        countries: vec!["BE".parse().unwrap()],
        asns: vec![64_500],
        window: Some(TimeWindow::new("11:00", "13:00", "UTC").unwrap()),
    };
    let policies = Policies::new(vec![Policy {
        name: "p".to_owned(),
        rules: vec![Rule { matches, ..rule("r", vec![pool("a", 1, &[1])]) }],
        routes: Some(Arc::new(routes)),
    }]);
    let hears = |address: &str, country: Option<&str>, at| {
        let client =
            Client { address: address.parse().unwrap(), country: country.map(|code| code.parse().unwrap()), at };
        let mut notes = Vec::new();
        policies.decide(client, 9, |place, _| Some(place.to_server()), &mut |_, note| notes.push(note.to_string()));
        notes[1].clone()
    };
    assert_eq!(hears("10.0.0.1", Some("BE"), NOON), "rule r: matches");
    assert_eq!(hears("11.0.0.1", Some("BE"), NOON), "rule r: 11.0.0.1 is in none of its networks");
    assert_eq!(hears("10.0.0.1", Some("FR"), NOON), "rule r: FR is not one of BE");
    assert_eq!(hears("10.0.0.1", None, NOON), "rule r: the country is not known");
    assert_eq!(hears("2001:db8::1", Some("BE"), NOON), "rule r: the Autonomous System of 2001:db8::1 is not known");
    let late = UnixMillis(NOON.0 + 3_600_000);
    assert_eq!(hears("10.0.0.1", Some("BE"), late), "rule r: it is 13:00 UTC, which is not in 11:00-13:00 UTC");
}

#[test]
fn the_first_rule_that_has_a_server_answers() {
    let narrow = Match { networks: vec!["192.0.2.0/25".parse().unwrap()], ..Match::default() };
    let mut full = pool("full", 1, &[2]);
    full.servers[0].load_percent = Some(90);
    full.load_percent_max = 90;
    let rules = vec![
        Rule { matches: narrow, ..rule("narrow", vec![pool("a", 1, &[1])]) },
        rule("full", vec![full]),
        rule("all", vec![pool("b", 1, &[3])]),
        rule("never", vec![pool("c", 1, &[4])]),
    ];
    let policies = policies(rules);
    assert_eq!(chosen(&policies, "192.0.2.1"), [1]);
    assert_eq!(chosen(&policies, "192.0.2.129"), [3], "what is full is passed over");
}

#[test]
fn what_any_rule_that_matches_excludes_is_never_handed_out() {
    let exclude = vec![Exclusion { name: "one".to_owned(), places: vec![socket(1)] }];
    let rules = vec![rule("assign", vec![pool("both", 1, &[1, 2])]), Rule { exclude, ..rule("exclude", Vec::new()) }];
    let policies = policies(rules);
    assert_eq!(chosen(&policies, "192.0.2.1"), [2]);
    let decision = decide(&policies, "192.0.2.1");
    assert!(decision.excludes(socket(1)) && !decision.excludes(socket(2)), "for the other tiers as well");
}

#[test]
fn clients_spill_over_when_a_pool_cannot_take_them() {
    let with = |change: &dyn Fn(&mut PoolServer)| {
        let mut first = pool("first", 10, &[1]);
        change(&mut first.servers[0]);
        policies(vec![rule("r", vec![first, pool("second", 1, &[2]), pool("reserve", 0, &[3])])])
    };
    let shares = |policies: &Policies| {
        let mut shares = [0_u32; 3];
        for client in 0..1_100_u32 {
            let [port] = chosen(policies, &format!("10.0.{}.{}", client / 250, client % 250))[..] else { panic!() };
            shares[usize::from(port) - 1] += 1;
        }
        shares
    };
    let [first, second, reserve] = shares(&with(&|_| {}));
    assert!((950..=1_050).contains(&first) && second > 50 && reserve == 0, "{first} {second} {reserve}");
    assert_eq!(shares(&with(&|server| server.down = true)), [0, 1_100, 0]);
    assert_eq!(shares(&with(&|server| server.load_percent = Some(100))), [0, 1_100, 0]);
    let none = policies(vec![rule("r", vec![pool("first", 1, &[]), pool("reserve", 0, &[3])])]);
    assert_eq!(shares(&none), [0, 0, 1_100]);
}

#[test]
fn counts_go_on_for_rules_that_stay() {
    let mut policies = policies(vec![rule("r", vec![pool("a", 1, &[1])])]);
    for client in ["10.0.0.1", "10.0.0.2", "10.0.0.2"] {
        decide(&policies, client).count(client.parse().unwrap());
    }
    let mut next = self::policies(vec![rule("r", vec![pool("a", 1, &[2])]), rule("new", vec![pool("a", 1, &[2])])]);
    next.count_on(&policies);
    policies = next;
    let moved: Vec<_> = policies.moved().map(|moved| (moved.rule, moved.clients, moved.answers)).collect();
    assert_eq!(moved, [("r".to_owned(), 2, 3), ("new".to_owned(), 0, 0)]);
}

proptest! {
    /// The same client always gets the same, in whatever order pools of some weight and servers are written; and when a server
    /// leaves, only those whose answer began with it get another one first.
    #[test]
    fn a_client_stays_unless_its_server_leaves(
        address in any::<u32>(),
        shape in prop::collection::vec((1..4_u32, prop::collection::vec(1..200_u16, 1..4)), 1..5),
        leaving in any::<prop::sample::Index>(),
    ) {
        let client = IpAddr::V4(address.into()).to_string();
        let mut next = 0;
        let mut unique = |count: usize| -> Vec<u16> {
            next += u16::try_from(count).unwrap();
            (next - u16::try_from(count).unwrap() + 1..=next).collect()
        };
        let mut pools: Vec<Pool> = shape
            .iter()
            .enumerate()
            .map(|(index, (weight, servers))| pool(&format!("pool-{index}"), *weight, &unique(servers.len())))
            .collect();
        let before = chosen(&policies(vec![rule("r", pools.clone())]), &client);
        prop_assert_eq!(&before, &chosen(&policies(vec![rule("r", pools.clone())]), &client));
        pools.reverse();
        for pool in &mut pools {
            pool.servers.reverse();
        }
        prop_assert_eq!(&before, &chosen(&policies(vec![rule("r", pools.clone())]), &client));
        let gone = u16::try_from(leaving.index(next.into()) + 1).unwrap();
        for server in pools.iter_mut().flat_map(|pool| &mut pool.servers) {
            server.down |= server.places[0].address.port() == gone;
        }
        let after = chosen(&policies(vec![rule("r", pools)]), &client);
        let stays: Vec<u16> = before.iter().copied().filter(|port| *port != gone).collect();
        if stays.is_empty() {
            prop_assert!(!after.contains(&gone));
        } else {
            prop_assert_eq!(after, stays);
        }
    }
}

fn policies(rules: Vec<Rule>) -> Policies {
    Policies::new(vec![Policy { name: "p".to_owned(), rules, routes: None }])
}

fn rule(name: &str, pools: Vec<Pool>) -> Rule {
    Rule { name: name.to_owned(), matches: Match::default(), pools, exclude: Vec::new() }
}

/// Servers are known by their ports.
fn pool(name: &str, weight: u32, ports: &[u16]) -> Pool {
    let server = |port: &u16| PoolServer {
        name: format!("server-{port}"),
        places: vec![ServerPlace { address: socket(*port), protocol: Protocol::Udp }],
        registers: false,
        down: false,
        load_percent: None,
    };
    Pool { name: name.to_owned(), weight, load_percent_max: 100, servers: ports.iter().map(server).collect() }
}

fn socket(port: u16) -> SocketAddr {
    SocketAddr::new([198, 51, 100, 1].into(), port)
}

fn decide<'a>(policies: &'a Policies, client: &str) -> Decision<'a> {
    let client = Client { address: client.parse().unwrap(), country: None, at: NOON };
    policies.decide(client, 9, |place, _| Some(place.to_server()), &mut |_, _| {})
}

fn chosen(policies: &Policies, client: &str) -> Vec<u16> {
    decide(policies, client).servers.into_iter().flatten().map(|server| server.port).collect()
}
