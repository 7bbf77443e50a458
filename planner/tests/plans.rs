//! Planning onto one machine: who feeds, who registers, what cannot be together, and that order means nothing.

mod common;

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
        let machine = Machine { address: address.map(|address| address.parse().unwrap()) };
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
    let machine = Machine { address: Some("192.0.2.7".parse().unwrap()) };
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

fn bundle(name: &str, channel: &str) -> String {
    format!(
        "{{apiVersion: castgate.dev/v1alpha1, kind: ChannelBundle, metadata: {{ name: {name}, namespace: castgate }},
          spec: {{ channels: [{channel}] }} }}"
    )
}
