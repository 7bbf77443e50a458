//! Planning onto one machine: who feeds, who registers, what cannot be together, and that order means nothing.

mod common;

use castgate_control::{
    AMT_PORT, Discovery, MapDiscovery, Scheme, StaticDiscovery, StoreSnapshot, UpstreamProtocol, UpstreamSnapshot,
};
use castgate_planner::{Machine, Plan, Problems, load, plan};
use proptest::prelude::*;

const SECRET: &str =
    "{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: castgate}, stringData: {login: a, password: b}}";

#[test]
fn a_pattern_is_fed_once_by_the_first_server_that_carries_it() {
    let plan = planned(&[
        &server("b", "127.0.2.2", "bundles: [{ name: demo }]"),
        &server("a", "127.0.2.1", "bundles: [{ name: demo }]"),
        &bundle("demo", "{ name: pattern, group: 239.1.2.3, port: 5004, pattern: 100pps }"),
        &bundle("unused", "{ name: pattern, group: 239.1.2.4, port: 5004, pattern: 1Mbit }"),
    ]);
    let fed: Vec<_> = plan.agents.iter().map(|agent| (agent.agent.as_str(), agent.patterns.len())).collect();
    assert_eq!(fed, [("castgate/ts-a", 1), ("castgate/ts-b", 0)]);
    let pattern = &plan.agents[0].patterns[0];
    assert_eq!(pattern.rate_bits_per_second.get(), 100 * u64::from(pattern.payload_octets.get()) * 8);
    assert_eq!(plan.channels.len(), 1, "a bundle that no server carries cannot be joined");
}

#[test]
fn the_ttl_of_a_channel_stays_under_that_of_the_server() {
    let plan = planned(&[
        &server("a", "127.0.2.1", "bundles: [{ name: demo }], limits: { ttl: 10 }"),
        "apiVersion: castgate.dev/v1alpha1
kind: ChannelBundle
metadata: { name: demo, namespace: castgate }
spec:
  channels:
    - { name: none, group: 239.1.2.3, port: 1 }
    - { name: low, group: 239.1.2.3, port: 2, ttl: 3 }
    - { name: high, group: 239.1.2.3, port: 3, ttl: 99 }
",
    ]);
    let server = plan.agents[0].server.as_ref().unwrap();
    let ttls: Vec<_> = server.channels.iter().map(|rule| (rule.name.as_str(), rule.ttl.get())).collect();
    assert_eq!(ttls, [("demo/none", 10), ("demo/low", 3), ("demo/high", 10)]);
}

#[test]
fn a_bundle_serves_only_its_own_namespace() {
    let elsewhere = bundle("demo", "{ name: a, group: 239.1.2.3, port: 1 }").replace("castgate }", "elsewhere }");
    let plan = planned(&[&server("a", "127.0.2.1", ""), &elsewhere]);
    assert_eq!(plan.agents[0].server.as_ref().unwrap().channels, []);
    assert_eq!(plan.channels, []);
}

#[test]
fn every_field_of_a_server_reaches_its_snapshot() {
    let plan = planned(&[&server(
        "a",
        "127.0.2.1",
        "limits: { tunnels: 1, channels: 2, channelsPerTunnel: 3, ttl: 4 }, loopCheck: Disabled, workers: 5,
         timers: { joinTimeout: 6s, idleTimeout: 7s, cookieEpoch: 8m, answerInterval: 9ms }",
    )]);
    let server = plan.agents[0].server.clone().unwrap();
    let limits = server.limits;
    assert_eq!((limits.tunnels.get(), limits.channels.get()), (1, 2));
    assert_eq!((limits.channels_per_tunnel.get(), limits.ttl.get()), (3, 4));
    let timers = server.timers;
    assert_eq!((timers.join_timeout_ms.get(), timers.idle_timeout_ms.get()), (6_000, 7_000));
    assert_eq!((timers.cookie_epoch_ms.get(), timers.answer_interval_ms.get()), (480_000, 9));
    assert_eq!(server.loop_check, castgate_control::LoopCheck::Off);
    assert_eq!(server.workers.map(std::num::NonZeroU8::get), Some(5));
    assert_eq!(server.listen, "127.0.2.1:10100".parse().unwrap());
}

#[test]
fn intervals_reach_the_database_and_the_registrar() {
    let plan = planned(&[
        "{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: castgate}, stringData: {login: a, password: b}}",
        "apiVersion: castgate.dev/v1alpha1
kind: TunnelDatabase
metadata: { name: lower, namespace: castgate }
spec:
  http: { address: 127.0.5.1 }
  updateInterval: 2s
  hierarchy:
    country: BE
    updateInterval: 3s
    parents: [{ url: \"http://tds.example.net\", credentialsSecretRef: { name: s } }]
",
    ]);
    assert_eq!(plan.agents[0].database.as_ref().unwrap().update_interval_seconds.get(), 2);
    let registrar = plan.agents[0].registrar.as_ref().unwrap();
    assert_eq!(registrar.interval_seconds.get(), 3);
    assert_eq!((registrar.parents[0].login.as_str(), registrar.parents[0].password.as_str()), ("a", "b"));
    assert_eq!(plan.roots, ["tds.example.net:5632"], "nobody here is a root: one asks the strangers");
}

#[test]
fn what_finds_its_parents_begins_at_the_roots_with_the_login_of_its_secret() {
    let plan = planned(&[
        "{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: castgate}, stringData: {login: a, password: b}}",
        "apiVersion: castgate.dev/v1alpha1
kind: TunnelDatabase
metadata: { name: customer, namespace: castgate }
spec:
  http: { address: 127.0.5.1 }
  hierarchy:
    networks: [127.0.5.0/24]
    discovery: { roots: [roots.example.net, \"http://192.0.2.9\"], credentialsSecretRef: { name: s }, role: Customer }
",
    ]);
    let registrar = plan.agents[0].registrar.as_ref().unwrap();
    assert!(registrar.parents.is_empty());
    let discovery = registrar.discovery.as_ref().unwrap();
    assert_eq!(discovery.roots, ["roots.example.net", "http://192.0.2.9"]);
    assert_eq!((discovery.login.as_str(), discovery.password.as_str()), ("a", "b"));
    assert_eq!(discovery.role, castgate_control::DatabaseRole::Customer);
    assert_eq!(registrar.entries[0].source.to_string(), "127.0.5.1");
    assert_eq!(plan.roots, ["http://192.0.2.9", "roots.example.net"], "nobody here is a root");
}

#[test]
fn what_is_wrong_with_discovery_is_said_in_one_sentence() {
    let cases = [
        (
            "{ country: BE, discovery: { roots: [roots.example], credentialsSecretRef: { name: s } },
               parents: [{ url: \"http://tds.example\", credentialsSecretRef: { name: s } }] }",
            "spec.hierarchy.discovery: is there beside parents: they are either named or found",
        ),
        (
            "{ discovery: { roots: [roots.example], credentialsSecretRef: { name: s } } }",
            "spec.hierarchy: has discovery but neither networks nor a country: they are what is looked for",
        ),
        (
            "{ country: BE, discovery: { roots: [], credentialsSecretRef: { name: s } } }",
            "spec.hierarchy.discovery.roots: is empty: every way begins at a root",
        ),
        (
            "{ country: BE, discovery: { roots: [\"a b\"], credentialsSecretRef: { name: s } } }",
            "spec.hierarchy.discovery.roots[0]: \"a b\" is neither HOST, HOST:PORT nor a URL such as \
             http://tds.example.net:5632",
        ),
        (
            "{ country: BE, discovery: { roots: [a.example, a.example], credentialsSecretRef: { name: s } } }",
            "spec.hierarchy.discovery.roots[1]: \"a.example\" is listed twice",
        ),
        (
            "{ country: BE, discovery: { roots: [a.example], credentialsSecretRef: { name: missing } } }",
            "spec.hierarchy.discovery.credentialsSecretRef.name: ",
        ),
    ];
    for (hierarchy, sentence) in cases {
        let object = format!(
            "apiVersion: castgate.dev/v1alpha1\nkind: TunnelDatabase\nmetadata: {{ name: d, namespace: castgate }}\n\
             spec: {{ http: {{ address: 127.0.5.1 }}, hierarchy: {hierarchy} }}\n"
        );
        let secret = "{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: castgate}, stringData: {login: a, password: b}}";
        let planned = load(named(&[secret, &object])).and_then(|objects| plan(&objects, &Machine::default()));
        let problems = planned.unwrap_err().to_string();
        assert!(problems.contains(&format!("TunnelDatabase castgate/d: {sentence}")), "{problems}");
    }
}

#[test]
fn two_that_listen_everywhere_cannot_be_on_one_machine() {
    let everywhere = "apiVersion: castgate.dev/v1alpha1
kind: TunnelServer
metadata: { name: everywhere, namespace: castgate }
spec: { interfaces: [{ name: lo }] }
";
    let problems = refused(&[everywhere, &server("a", "127.0.2.1", "")]);
    assert_eq!(
        problems.to_string(),
        "0.yaml: TunnelServer castgate/everywhere: spec.umtp: UDP 0.0.0.0:10100 is taken: \
         TunnelServer castgate/a listens on 127.0.2.1:10100"
    );
}

#[test]
fn who_names_no_address_registers_with_that_of_the_machine() {
    let documents = [
        SECRET,
        "apiVersion: castgate.dev/v1alpha1
kind: TunnelServer
metadata: { name: a, namespace: castgate }
spec:
  interfaces: [{ name: lo }]
  hierarchy:
    networks: [0.0.0.0/0]
    parents: [{ url: \"http://tds.example.net\", credentialsSecretRef: { name: s } }]
",
    ];
    for (address, registered) in [(Some("192.0.2.7"), "192.0.2.7"), (None, "127.0.0.1")] {
        let machine = Machine { address: address.map(|address| address.parse().unwrap()), ..Machine::default() };
        let plan = load(named(&documents)).and_then(|objects| plan(&objects, &machine)).unwrap();
        let agent = &plan.agents[0];
        assert_eq!(agent.registrar.as_ref().unwrap().entries[0].source.to_string(), registered);
        let listen = agent.server.as_ref().unwrap().listen.to_string();
        assert_eq!(listen, "0.0.0.0:10100", "it still listens on every address");
    }
}

#[test]
fn a_parent_of_ours_is_asked_where_it_listens() {
    let database = |name: &str, spec: &str| {
        format!(
            "{{apiVersion: castgate.dev/v1alpha1, kind: TunnelDatabase,
              metadata: {{ name: {name}, namespace: castgate }}, spec: {{ {spec} }} }}"
        )
    };
    let below = |name: &str, at: &str, parent: &str| {
        let hierarchy = format!(
            "hierarchy: {{ country: BE, parents: [{{ databaseRef: {{ name: {parent} }}, credentialsSecretRef: {{ name: s }} }}] }}"
        );
        database(name, &format!("http: {{ {at} }}, {hierarchy}"))
    };
    let account = |name: &str| {
        format!(
            "{{apiVersion: castgate.dev/v1alpha1, kind: TunnelAccount, metadata: {{ name: {name}, namespace: castgate }},
              spec: {{ databaseRef: {{ name: {name} }}, login: a, passwordSecretRef: {{ name: s }},
                       allow: {{ types: [TDS], countries: [BE] }} }} }}"
        )
    };
    let plan = planned(&[
        SECRET,
        &database("everywhere", "http: { port: 7001 }"),
        &below("middle", "address: 127.0.5.1, port: 7002", "everywhere"),
        &below("leaf", "address: 127.0.5.2, port: 7003", "middle"),
        &account("everywhere"),
        &account("middle"),
    ]);
    let parents = plan.agents.iter().flat_map(|agent| agent.registrar.iter().flat_map(|row| &row.parents));
    let urls: Vec<_> = parents.map(|parent| parent.url.as_str()).collect();
    assert_eq!(urls, ["http://127.0.5.1:7002", "http://127.0.0.1:7001"], "those of leaf and of middle");
    assert_eq!(plan.roots, ["127.0.0.1:7001"]);
}

#[test]
fn the_example_of_an_isp_is_a_plan_for_one_machine_too() {
    let objects = load(common::folder("../examples/isp")).unwrap_or_else(|problems| panic!("{problems}"));
    let machine = Machine { address: Some("192.0.2.7".parse().unwrap()), ..Machine::default() };
    let plan = plan(&objects, &machine).unwrap_or_else(|problems| panic!("{problems}"));
    let agents: Vec<_> = plan.agents.iter().map(|agent| agent.agent.as_str()).collect();
    assert_eq!(agents, ["castgate/tdb-isp", "castgate/ts-edge"]);
    let registrar = plan.agents[1].registrar.as_ref().unwrap();
    assert_eq!(registrar.entries[0].source.to_string(), "192.0.2.7");
    assert_eq!(registrar.parents[0].url, "http://127.0.0.1:5632");
    let channels: Vec<_> = plan.channels.iter().map(castgate_planner::PlannedChannel::group_name).collect();
    assert_eq!(channels, ["ham:ip:232.1.2.3@10.77.0.100:5004", "ham:ip:239.1.2.4:5004"]);
}

#[test]
fn the_example_with_an_etcd_is_a_plan_for_one_machine_too() {
    let objects = load(common::folder("../examples/hierarchy/etcd")).unwrap_or_else(|problems| panic!("{problems}"));
    let plan = plan(&objects, &Machine::default()).unwrap_or_else(|problems| panic!("{problems}"));
    let StoreSnapshot::Etcd(etcd) = &plan.agents[0].database.as_ref().unwrap().store else { panic!("it has a file") };
    assert_eq!((etcd.endpoints.len(), etcd.prefix.as_str()), (3, "/castgate/castgate/shared/"));
    assert_eq!((&etcd.ca, &etcd.identity, &etcd.login), (&None, &None, &None));
}

#[test]
fn every_example_is_a_plan_for_one_machine() {
    let mut folders: Vec<_> =
        std::fs::read_dir(common::path("../examples")).unwrap().map(|entry| entry.unwrap()).collect();
    folders.sort_by_key(std::fs::DirEntry::file_name);
    assert!(folders.len() >= 5, "{folders:?}");
    for folder in folders {
        let name = folder.file_name().into_string().unwrap();
        let objects =
            load(common::folder(&format!("../examples/{name}"))).unwrap_or_else(|problems| panic!("{problems}"));
        let plan = plan(&objects, &Machine::default()).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        assert!(!plan.agents.is_empty() && plan.client.channel.is_some(), "{name}");
        for agent in &plan.agents {
            let read = castgate_control::AgentSnapshot::from_yaml(&agent.to_yaml());
            assert_eq!(read.as_ref(), Ok(agent), "{name}");
        }
    }
}

#[test]
fn a_policy_reaches_its_database_with_servers_by_address_and_systems_by_prefix() {
    let objects = load(common::folder("../examples/policy")).unwrap_or_else(|problems| panic!("{problems}"));
    let plan = plan(&objects, &Machine::default()).unwrap_or_else(|problems| panic!("{problems}"));
    let [policy] = &plan.agents[0].database.as_ref().unwrap().policies[..] else { panic!("one policy") };
    let rules: Vec<_> = policy.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!((policy.name.as_str(), rules), ("traffic", vec!["lab", "campus", "evening"]));
    assert_eq!(policy.rules[0].exclude[0].places, ["127.0.2.2:10100".parse().unwrap()]);
    let pools: Vec<_> = policy.rules[1]
        .pools
        .iter()
        .map(|pool| {
            let servers: Vec<_> = pool.servers.iter().map(|server| server.name.as_str()).collect();
            (pool.name.as_str(), pool.weight, pool.load_percent_max, servers.join(" "))
        })
        .collect();
    let expected =
        [("site=brussels", 3, 80, "brussels reserve"), ("antwerp", 1, 80, "antwerp"), ("reserve", 0, 100, "reserve")];
    assert_eq!(pools, expected.map(|(name, weight, load, servers)| (name, weight, load, servers.to_owned())));
    let server = &policy.rules[1].pools[0].servers[0];
    assert!(server.registers && !server.down && server.load_percent.is_none());
    assert_eq!(server.places[0].address, "127.0.2.1:10100".parse().unwrap());
    assert_eq!(policy.routes.as_ref().unwrap().rows, ["127.20.0.0/16,64500", "127.20.128.0/24,0"]);
}

#[test]
fn accounts_of_autonomous_systems_reach_their_database_with_the_rows_about_them() {
    let objects = load(common::folder("../examples/policy")).unwrap_or_else(|problems| panic!("{problems}"));
    let plan = plan(&objects, &Machine::default()).unwrap_or_else(|problems| panic!("{problems}"));
    let database = plan.agents[0].database.as_ref().unwrap();
    assert_eq!(database.routes.as_ref().unwrap().rows, ["127.20.0.0/16,64500", "127.20.128.0/24,0"]);
    let campus = database.accounts.iter().find(|account| account.login == "campus").unwrap();
    assert!(campus.allow.asns == [64_500] && campus.allow.strict_source && !database.strict_source);
    let benelux: Vec<_> = database.regions["Benelux"].iter().map(ToString::to_string).collect();
    assert_eq!(benelux, ["BE", "NL", "LU"]);
}

#[test]
fn databases_with_a_certificate_are_named_asked_and_believed_over_https() {
    let objects = load(common::folder("../examples/https")).unwrap_or_else(|problems| panic!("{problems}"));
    let plan = plan(&objects, &Machine::default()).unwrap_or_else(|problems| panic!("{problems}"));
    let agent = |name: &str| plan.agents.iter().find(|agent| agent.agent == name).unwrap();
    let (root, belgium) = (agent("castgate/tdb-root"), agent("castgate/tdb-belgium"));
    for database in [root, belgium] {
        let tls = database.database.as_ref().unwrap().tls.as_ref().unwrap();
        assert!(tls.certificate.starts_with("-----BEGIN CERTIFICATE-----") && tls.key.contains("PRIVATE KEY-----"));
        assert!(!format!("{database:?}").contains("PRIVATE KEY"), "a snapshot may end up in a log");
    }
    let registrar = belgium.registrar.as_ref().unwrap();
    assert_eq!(registrar.entries[0].scheme, Scheme::Https);
    assert_eq!(registrar.parents[0].url, "https://127.0.4.1:5632");
    let ca = registrar.parents[0].ca.as_deref().unwrap();
    assert!(ca.starts_with("-----BEGIN CERTIFICATE-----"));
    let brussels = agent("castgate/ts-brussels").registrar.as_ref().unwrap();
    assert_eq!(brussels.parents[0].url, "https://127.0.5.1:5632");
    assert_eq!(brussels.parents[0].ca.as_deref(), Some(ca), "that of the database's own Secret");
    assert_eq!(brussels.entries[0].scheme, Scheme::Http, "a tunnel server has none");
    assert_eq!(plan.roots, ["https://127.0.4.1:5632"]);
    assert_eq!((plan.client.tds.as_deref(), plan.client.tds_ca.as_deref()), (Some("https://127.0.4.1:5632"), Some(ca)));
}

#[test]
fn a_server_of_an_autonomous_system_registers_for_its_networks() {
    let manifests = |server: &str, table: &str| {
        format!(
            "apiVersion: v1
kind: Secret
metadata: {{ name: s, namespace: castgate }}
stringData: {{ login: me, password: secret }}
---
apiVersion: v1
kind: ConfigMap
metadata: {{ name: routes, namespace: castgate }}
data: {{ routes.csv: {table:?} }}
---
apiVersion: castgate.dev/v1alpha1
kind: TunnelServer
metadata: {{ name: brussels, namespace: castgate }}
spec:
  interfaces: [{{ name: lo }}]
  hierarchy:
    asns: [64500]
    {server}
    parents: [{{ url: \"http://192.0.2.9\", credentialsSecretRef: {{ name: s }} }}]
"
        )
    };
    let planned = |server: &str, table: &str| {
        let objects = load([("a.yaml", manifests(server, table))]).map_err(|problems| problems.to_string())?;
        let plan = plan(&objects, &Machine::default()).map_err(|problems| problems.to_string())?;
        Ok::<_, String>(plan.agents[0].registrar.clone().unwrap())
    };
    let from_config = "routeTable: { configMapRef: { name: routes } }";
    let table = "10.0.0.0/24,64500\n10.0.1.0/24,64500\n192.0.2.0/24,64501\n198.51.100.0/24,64500\n";
    let registrar = planned(&format!("networks: [198.51.100.0/24]\n    {from_config}"), table).unwrap();
    let networks: Vec<_> = registrar.entries[0].networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["198.51.100.0/24", "10.0.0.0/23"]);
    assert_eq!(registrar.systems, None, "the agent has nothing left to look up");
    let file = planned("routeTable: { file: /var/lib/rib.gz }", table).unwrap().systems.unwrap();
    assert_eq!((file.asns, file.routes.file), (vec![64_500], Some("/var/lib/rib.gz".into())), "the agent reads it");
    let none = planned(from_config, "192.0.2.0/24,64501\n").unwrap_err();
    assert!(none.contains("spec.hierarchy.asns: have no network in the route table"), "{none}");
    let rows: Vec<_> = (0..4_097).map(|n| format!("10.{}.{}.0/24,64500\n", n / 128, n % 128 * 2)).collect();
    let many = planned(from_config, &rows.concat()).unwrap_err();
    assert!(many.contains("spec.hierarchy.asns: have 4097 networks, and no more than 4096 are registered"), "{many}");
}

#[test]
fn the_example_of_a_chain_hands_each_relay_the_one_before() {
    let objects = load(common::folder("../examples/relay-chain")).unwrap_or_else(|problems| panic!("{problems}"));
    let plan = plan(&objects, &Machine::default()).unwrap_or_else(|problems| panic!("{problems}"));
    let rows: Vec<_> = plan
        .agents
        .iter()
        .map(|agent| {
            let server = agent.server.as_ref().unwrap();
            let listen = server.amt.as_ref().unwrap().listen[0].to_string();
            let above = server.upstream.as_ref().map(|upstream| match &upstream.discovery {
                Discovery::Static(StaticDiscovery { servers }) => servers[0].clone().or_port(AMT_PORT).to_string(),
                other => panic!("{other:?}"),
            });
            (agent.agent.as_str(), listen, above)
        })
        .collect();
    let expected = [
        ("castgate/ts-brussels", "127.0.2.1:2268", None),
        ("castgate/tr-ghent", "127.0.3.1:2268", Some("127.0.2.1:2268")),
        ("castgate/tr-harbour", "127.0.3.2:2268", Some("127.0.3.1:2268")),
    ];
    assert_eq!(rows, expected.map(|(agent, listen, above)| (agent, listen.to_owned(), above.map(str::to_owned))));
    let fed: Vec<_> = plan.agents.iter().map(|agent| agent.patterns.len()).collect();
    assert_eq!(fed, [1, 0, 0], "a relay is fed, and feeds nobody");
}

#[test]
fn every_field_of_amt_reaches_its_snapshot() {
    let plan = planned(&[&server(
        "a",
        "127.0.2.1",
        "amt: { port: 2300, addresses: [127.0.2.2, \"::1\"], teardown: false, mtu: 1400, zeroChecksum: true,
                anycast: { addresses: [192.52.193.1, \"2001:3::1\"], table: 7 },
                limits: { endpoints: 1, groupsPerEndpoint: 2, sourcesPerGroup: 3 },
                timers: { queryInterval: 4s, queryResponseInterval: 500ms, robustness: 5 } }",
    )]);
    let amt = plan.agents[0].server.clone().unwrap().amt.unwrap();
    let places: Vec<_> = amt.listen.iter().map(ToString::to_string).collect();
    assert_eq!(places, ["127.0.2.2:2300", "[::1]:2300"]);
    assert_eq!(amt.advertise.len(), 2, "an anycast address is not what gateways are sent to");
    assert_eq!((amt.teardown, amt.mtu.map(std::num::NonZeroU16::get), amt.zero_checksum), (false, Some(1400), true));
    let anycast = amt.anycast.unwrap();
    assert_eq!((anycast.addresses.len(), anycast.table.get()), (2, 7));
    let limits = (amt.limits.endpoints.get(), amt.limits.groups_per_endpoint.get(), amt.limits.sources_per_group.get());
    assert_eq!(limits, (1, 2, 3));
    let timers = amt.timers;
    assert_eq!((timers.query_interval_ms.get(), timers.query_response_interval_ms.get()), (4_000, 500));
    assert_eq!(timers.robustness.get(), 5);
}

#[test]
fn the_defaults_of_a_manifest_are_those_of_a_snapshot() {
    let plan = planned(&[&server("a", "127.0.2.1", "amt: {}")]);
    let amt = plan.agents[0].server.clone().unwrap().amt.unwrap();
    assert_eq!(amt, castgate_control::AmtSnapshot::new(vec!["127.0.2.1:2268".parse().unwrap()]));
    let relay = planned(&[&relay("a", "127.0.3.1", "upstream: { discovery: Driad, gateway: {} }")]);
    let upstream = relay.agents[0].server.clone().unwrap().upstream.unwrap();
    let driad = Discovery::Driad(castgate_control::DriadDiscovery::default());
    assert_eq!(upstream, UpstreamSnapshot::new(UpstreamProtocol::Amt, driad));
    let relay = planned(&[&self::relay("a", "127.0.3.1", "upstream: { discovery: Anycast }")]);
    let upstream = relay.agents[0].server.clone().unwrap().upstream.unwrap();
    assert_eq!(upstream.discovery, Discovery::Anycast(castgate_control::AnycastDiscovery::default()));
}

#[test]
fn every_field_of_a_relay_reaches_its_snapshot() {
    let plan = planned(&[&relay(
        "a",
        "127.0.3.1",
        "upstream: { discovery: Map, resolvers: [192.0.2.53, \"[2001:db8::53]:5353\"],
                     map: [{ group: 232.0.0.0/8, source: 10.0.0.0/8, relays: [relay.example.net] }],
                     gateway: { ipv6: false, ecn: false, timers: { initialTimeout: 1ms, maximumTimeout: 2ms, silence: 3ms,
                                                                   holdDown: 4ms, fullHoldDown: 5ms } } },
         delivery: { interfaces: [{ name: eth1 }], tun: amt0 }",
    )]);
    let upstream = plan.agents[0].server.clone().unwrap().upstream.unwrap();
    let resolvers: Vec<_> = upstream.resolvers.iter().map(ToString::to_string).collect();
    assert_eq!(resolvers, ["192.0.2.53:53", "[2001:db8::53]:5353"]);
    let Discovery::Map(MapDiscovery { rows }) = &upstream.discovery else { panic!("{upstream:?}") };
    assert!(rows[0].covers([232, 1, 2, 3].into(), Some([10, 0, 0, 1].into())));
    assert_eq!(rows[0].relays[0].to_string(), "relay.example.net");
    let gateway = upstream.gateway;
    assert_eq!((gateway.ipv6, gateway.ecn), (false, false));
    let times = [gateway.initial_timeout_ms, gateway.maximum_timeout_ms, gateway.silence_ms, gateway.hold_down_ms];
    assert_eq!(times.map(std::num::NonZeroU32::get), [1, 2, 3, 4]);
    assert_eq!(gateway.full_hold_down_ms.get(), 5);
    let delivery = upstream.delivery.unwrap();
    assert_eq!((delivery.interfaces, delivery.tun.as_deref()), (vec!["eth1".to_owned()], Some("amt0")));
}

#[test]
fn who_names_no_address_relays_on_every_address_and_says_which_one_is_his() {
    let everywhere =
        "{apiVersion: castgate.dev/v1alpha1, kind: TunnelServer, metadata: { name: a, namespace: castgate },
                       spec: { interfaces: [{ name: lo }], amt: {} }}";
    for (address, address6, listen, advertise) in [
        (None, None, &["0.0.0.0:2268"][..], &["127.0.0.1"][..]),
        (Some("192.0.2.7"), None, &["0.0.0.0:2268"], &["192.0.2.7"]),
        (Some("192.0.2.7"), Some("2001:db8::7"), &["0.0.0.0:2268", "[::]:2268"], &["192.0.2.7", "2001:db8::7"]),
    ] {
        let machine = Machine {
            address: address.map(|address| address.parse().unwrap()),
            address6: address6.map(|address| address.parse().unwrap()),
        };
        let plan = load(named(&[everywhere])).and_then(|objects| plan(&objects, &machine)).unwrap();
        let amt = plan.agents[0].server.clone().unwrap().amt.unwrap();
        assert_eq!(amt.listen.iter().map(ToString::to_string).collect::<Vec<_>>(), listen);
        assert_eq!(amt.advertise.iter().map(ToString::to_string).collect::<Vec<_>>(), advertise);
    }
}

#[test]
fn two_relays_of_amt_cannot_have_one_socket() {
    let everywhere =
        "{apiVersion: castgate.dev/v1alpha1, kind: TunnelServer, metadata: { name: all, namespace: castgate },
                       spec: { interfaces: [{ name: lo }], amt: {}, umtp: { port: 10200 } }}";
    let problems = refused(&[everywhere, &relay("b", "127.0.3.1", "amt: {}, upstream: { discovery: Driad }")]);
    assert_eq!(
        problems.to_string(),
        "1.yaml: TunnelRelay castgate/b: spec.amt: UDP 127.0.3.1:2268 is taken: TunnelServer castgate/all listens on \
         0.0.0.0:2268"
    );
}

#[test]
fn a_channel_of_version_6_is_for_amt_and_has_a_name_that_says_so() {
    let plan = planned(&[
        &server("a", "127.0.2.1", "bundles: [{ name: demo }], amt: {}"),
        &bundle("demo", "{ name: six, group: \"ff3e::8000:1\", source: \"2001:db8::1\", port: 5004 }"),
    ]);
    let rule = &plan.agents[0].server.as_ref().unwrap().channels[0];
    assert_eq!((rule.group.to_string().as_str(), rule.send), ("ff3e::8000:1", false));
    assert_eq!(plan.channels[0].group_name(), "ham:ip:[ff3e::8000:1]@[2001:db8::1]:5004");
    assert_eq!((plan.channels[0].channel, plan.client.channel), (None, None));
}

#[test]
fn nothing_at_all_is_a_plan_of_nothing() {
    let plan = planned(&["# only a comment\n", ""]);
    assert_eq!((plan.agents.len(), plan.roots.len(), plan.channels.len()), (0, 0, 0));
    assert_eq!(plan.client, castgate_planner::ClientHints::default());
}

proptest! {
    // Each case hashes the passwords of the example.
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn the_order_of_objects_and_files_means_nothing(order in order_of_documents(), files in 1..5_usize) {
        let shuffled: Vec<_> = documents("../examples/one-machine").into_iter().zip(order).collect();
        let planned = load(dealt(shuffled, files)).and_then(|objects| plan(&objects, &Machine::default()));
        let expected = load(common::folder("../examples/one-machine")).and_then(|objects| plan(&objects, &Machine::default()));
        prop_assert_eq!(planned, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_order_of_objects_does_not_change_what_is_said(order in order_of_documents()) {
        for name in ["everything-at-once.yaml", "dangling.yaml", "login-twice.yaml", "listeners.yaml", "circle.yaml"] {
            let text = std::fs::read_to_string(common::path("tests/bad").join(name)).unwrap();
            let shuffled = text.split("---\n").map(str::to_owned).zip(order.clone()).collect();
            let said = load(dealt(shuffled, 1)).unwrap_err();
            prop_assert_eq!(said, load([("0.yaml", text)]).unwrap_err());
        }
    }
}

/// A random key for each document, more than any folder here has.
fn order_of_documents() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(any::<u32>(), 32)
}

fn documents(folder: &str) -> Vec<String> {
    let files = common::folder(folder);
    files.iter().flat_map(|(_, text)| text.split("---\n").map(str::to_owned)).collect()
}

/// Sorts documents by their keys and deals them out over some files.
fn dealt(mut shuffled: Vec<(String, u32)>, files: usize) -> Vec<(String, String)> {
    shuffled.sort_by_key(|(_, key)| *key);
    let mut dealt: Vec<_> = (0..files).map(|index| (format!("{index}.yaml"), String::new())).collect();
    for (index, (document, _)) in shuffled.into_iter().enumerate() {
        let text = &mut dealt[index % files].1;
        *text = format!("{text}---\n{document}\n");
    }
    dealt
}

fn named(documents: &[&str]) -> Vec<(String, String)> {
    documents.iter().enumerate().map(|(index, text)| (format!("{index}.yaml"), (*text).to_owned())).collect()
}

fn planned(documents: &[&str]) -> Plan {
    load(named(documents))
        .and_then(|objects| plan(&objects, &Machine::default()))
        .unwrap_or_else(|problems| panic!("{problems}"))
}

fn refused(documents: &[&str]) -> Problems {
    let objects = load(named(documents)).unwrap_or_else(|problems| panic!("{problems}"));
    plan(&objects, &Machine::default()).unwrap_err()
}

fn server(name: &str, address: &str, more: &str) -> String {
    format!(
        "{{apiVersion: castgate.dev/v1alpha1, kind: TunnelServer, metadata: {{ name: {name}, namespace: castgate }},
          spec: {{ umtp: {{ address: {address} }}, interfaces: [{{ name: lo }}], {more} }} }}"
    )
}

fn relay(name: &str, address: &str, more: &str) -> String {
    format!(
        "{{apiVersion: castgate.dev/v1alpha1, kind: TunnelRelay, metadata: {{ name: {name}, namespace: castgate }},
          spec: {{ umtp: {{ address: {address} }}, {more} }} }}"
    )
}

fn bundle(name: &str, channel: &str) -> String {
    format!(
        "{{apiVersion: castgate.dev/v1alpha1, kind: ChannelBundle, metadata: {{ name: {name}, namespace: castgate }},
          spec: {{ channels: [{channel}] }} }}"
    )
}
