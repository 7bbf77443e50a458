//! What policies want, and how an answer is explained.

use super::*;

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
