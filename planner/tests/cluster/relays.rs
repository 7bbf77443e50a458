//! AMT and relays on a cluster: where they listen, whom they announce, what they may do on a node, whom they stay away from.

use castgate_control::{Discovery, HierarchyDiscovery, UpstreamSnapshot};
use castgate_planner::cluster::Fleet;
use serde_json::{Value, json};

use crate::world::{World, announced, relay, server, snapshot, titles, workload};

#[test]
fn a_server_with_amt_listens_on_the_addresses_of_its_node_and_announces_each_of_them() {
    let mut world = World::isp();
    world.spec("TunnelServer")["amt"] = json!({});
    world.node("n1").internal_ip6 = "2001:db8::11".parse().ok();
    let fleet = world.plan();
    let listen = |node: &str| {
        let amt = snapshot(&fleet, &format!("castgate/ts-edge@{node}")).server.as_ref().unwrap().amt.as_ref().unwrap();
        assert_eq!(amt.advertise.len(), 0, "it is asked under addresses of its own");
        amt.listen.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(listen("n1"), ["10.77.0.11:2268", "[2001:db8::11]:2268"]);
    assert_eq!(listen("n2"), ["10.77.0.12:2268"], "a node without version 6 does without");
    let announced = announced(&fleet);
    assert_eq!(announced["castgate/ts-edge@n1"], ["10.77.0.11:10100", "10.77.0.11:2268", "[2001:db8::11]:2268"]);
    let entries = &snapshot(&fleet, "castgate/ts-edge@n1").registrar.as_ref().unwrap().entries;
    let protocols: Vec<_> = entries.iter().map(|entry| entry.protocol.as_ref().unwrap().word().to_owned()).collect();
    assert_eq!(protocols, ["UDP", "AMT", "AMT"]);
    assert_eq!(entries[1].networks, entries[0].networks);
    world.spec("TunnelServer")["amt"] = json!({ "ipv6": false, "port": 2300 });
    assert_eq!(self::announced(&world.plan())["castgate/ts-edge@n1"], ["10.77.0.11:10100", "10.77.0.11:2300"]);
}

#[test]
fn anycast_addresses_are_those_of_every_node_beside_its_own() {
    let mut world = World::isp();
    world.spec("TunnelServer")["amt"] = json!({ "anycast": { "addresses": ["192.52.193.1"], "table": 77 } });
    let fleet = world.plan();
    for (node, own) in [("n1", "10.77.0.11"), ("n2", "10.77.0.12")] {
        let amt = snapshot(&fleet, &format!("castgate/ts-edge@{node}")).server.as_ref().unwrap().amt.clone().unwrap();
        assert_eq!(amt.advertise, [own.parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(amt.anycast.unwrap().table.get(), 77);
    }
    // One of version 6 needs a node with an address to send gateways to.
    world.spec("TunnelServer")["amt"] = json!({ "anycast": { "addresses": ["2001:3::1"] } });
    world.node("n1").internal_ip6 = "2001:db8::11".parse().ok();
    let plan = server(&world.plan(), "edge").clone();
    assert_eq!(plan.active, ["n1"]);
    assert!(plan.problems["n2"].contains("2001:3::1 needs an address of its family"), "{:?}", plan.problems);
}

#[test]
fn a_node_gives_a_socket_to_one_of_them_only() {
    let mut world = relays();
    world.spec("TunnelServer")["amt"] = json!({});
    world.spec("TunnelRelay")["umtp"] = json!({ "port": 10_200 });
    world.spec("TunnelRelay")["amt"] = json!({});
    let fleet = world.plan();
    assert_eq!(server(&fleet, "edge").active, ["n1", "n2"]);
    assert_eq!(relay(&fleet, "edge").active, ["n3"], "there is no server there");
    let said = &relay(&fleet, "edge").problems["n1"];
    assert_eq!(said, "UDP 10.77.0.11:2268 of node n1 is taken: TunnelServer castgate/edge listens there");
    world.spec("TunnelRelay")["amt"] = json!({ "port": 2269 });
    assert_eq!(relay(&world.plan(), "edge").active, ["n1", "n2", "n3"]);
    // Who carries tunnels keeps his socket, whatever his kind.
    world.spec("TunnelRelay")["amt"] = json!({});
    world.settle();
    world.facts.active.insert(("TunnelRelay", crate::world::name("edge")), ["n1".to_owned()].into());
    world.facts.active.remove(&("TunnelServer", crate::world::name("edge")));
    world.facts.previous.clear();
    assert!(relay(&world.plan(), "edge").active.contains(&"n1".to_owned()));
}

#[test]
fn a_relay_has_agents_and_workloads_of_its_own_though_a_server_has_its_name() {
    let world = relays();
    let fleet = world.plan();
    assert!(titles(&fleet).contains(&"DaemonSet ts-edge".to_owned()));
    let daemon_set = workload(&fleet, "DaemonSet tr-edge");
    let labels = &daemon_set["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["app.kubernetes.io/component"], "relay");
    assert_eq!(labels["castgate.dev/owner"], "edge");
    assert_eq!(daemon_set["metadata"]["ownerReferences"][0]["kind"], "TunnelRelay");
    let folder = |title: &str| {
        let volumes = workload(&fleet, title)["spec"]["template"]["spec"]["volumes"].as_array().unwrap().clone();
        volumes.iter().find_map(|volume| volume["hostPath"]["path"].as_str().map(str::to_owned)).unwrap()
    };
    assert_eq!(folder("DaemonSet tr-edge"), "/var/lib/castgate/castgate.relay.edge");
    assert_ne!(folder("DaemonSet tr-edge"), folder("DaemonSet ts-edge"));
    let server = snapshot(&fleet, "castgate/tr-edge@n3").server.as_ref().unwrap();
    assert!(server.interfaces.is_empty() && server.upstream.is_some());
    assert_eq!(server.channels.len(), 2, "those of its bundle");
}

#[test]
fn a_relay_that_asks_a_database_of_ours_asks_its_service_and_stays_away_from_its_own_kind() {
    let mut world = relays();
    world.spec("TunnelRelay")["umtp"] = json!({ "port": 10_200 });
    world.spec("TunnelRelay")["amt"] = json!({ "port": 2300 });
    let fleet = world.plan();
    let UpstreamSnapshot { discovery, avoid, .. } = upstream(&fleet, "castgate/tr-edge@n3");
    let Discovery::Hierarchy(HierarchyDiscovery { tds, ca: _, country }) = discovery else { panic!("{discovery:?}") };
    assert_eq!(tds.iter().map(ToString::to_string).collect::<Vec<_>>(), ["tdb-isp.castgate.svc:5632"]);
    assert_eq!(country.unwrap().as_str(), "BE", "that of its hierarchy");
    let avoid: Vec<_> = avoid.iter().map(ToString::to_string).collect();
    let expected = ["10.77.0.11:10200", "10.77.0.11:2300", "10.77.0.12:10200", "10.77.0.12:2300", "10.77.0.13:10200"];
    assert_eq!(avoid[..5], expected);
    // Who is named is taken, whoever it is.
    world.spec("TunnelRelay")["upstream"] = json!({ "discovery": "Static", "servers": ["192.0.2.1"] });
    assert_eq!(upstream(&world.plan(), "castgate/tr-edge@n3").avoid, []);
}

#[test]
fn an_agent_may_do_on_its_node_what_its_object_asks_for_and_no_more() {
    let cases: [(&str, Value, Value); 9] = [
        ("TunnelServer", json!({}), json!(null)),
        ("TunnelServer", json!({ "amt": {} }), json!(["NET_RAW"])),
        ("TunnelServer", json!({ "amt": { "port": 1000 } }), json!(["NET_BIND_SERVICE", "NET_RAW"])),
        (
            "TunnelServer",
            json!({ "amt": { "anycast": { "addresses": ["192.52.193.1"] } } }),
            json!(["NET_ADMIN", "NET_RAW"]),
        ),
        ("TunnelRelay", json!({}), json!(null)),
        ("TunnelRelay", json!({ "amt": {} }), json!(null)),
        ("TunnelRelay", json!({ "delivery": { "interfaces": [{ "name": "eth1" }] } }), json!(["NET_RAW"])),
        ("TunnelRelay", json!({ "delivery": { "tun": "amt0" } }), json!(["NET_ADMIN"])),
        ("TunnelRelay", json!({ "amt": { "anycast": { "addresses": ["192.52.193.1"] } } }), json!(["NET_ADMIN"])),
    ];
    for (kind, change, expected) in cases {
        let mut world = relays();
        world.spec(kind).as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let fleet = world.plan();
        let changed = if kind == "TunnelServer" { "DaemonSet ts-edge" } else { "DaemonSet tr-edge" };
        for title in titles(&fleet).iter().filter(|title| !title.starts_with("Service")) {
            let pod = &workload(&fleet, title)["spec"]["template"]["spec"];
            let Some(containers) = pod["containers"].as_array() else { continue };
            for container in containers {
                let capabilities = &container["securityContext"]["capabilities"];
                assert_eq!(capabilities["drop"], json!(["ALL"]), "{title}");
                let expected = if title == changed { &expected } else { &Value::Null };
                assert_eq!(&capabilities["add"], expected, "{title}: {kind} {change}");
            }
        }
    }
}

#[test]
fn agents_of_a_relay_that_somebody_broke_keep_what_they_had() {
    let mut world = relays();
    let before = world.settle();
    world.spec("TunnelRelay")["upstream"] = json!({ "discovery": "Static", "servers": ["a b"] });
    let fleet = world.plan();
    assert!(fleet.held.iter().any(|(kind, name)| *kind == "TunnelRelay" && name.name == "edge"), "{:?}", fleet.held);
    assert!(!fleet.held.iter().any(|(kind, _)| *kind == "TunnelServer"), "its namesake is no part of it");
    assert_eq!(fleet.snapshots["castgate/tr-edge@n3"], before.snapshots["castgate/tr-edge@n3"]);
    assert!(!titles(&fleet).contains(&"DaemonSet tr-edge".to_owned()), "and nobody touches its workload");
}

#[test]
fn what_a_relay_learns_from_its_snapshot_restarts_none_of_its_agents() {
    let before = relays().plan();
    let changes: [(&str, Value); 4] = [
        ("upstream", json!({ "discovery": "Static", "servers": ["192.0.2.1"] })),
        ("bundles", json!([])),
        ("limits", json!({ "tunnels": 7 })),
        // What it may do on its node stays the same.
        ("amt", json!({ "port": 2300 })),
    ];
    for (field, value) in changes {
        let mut world = relays();
        world.spec("TunnelRelay")[field] = value;
        let after = world.plan();
        assert!(before.workloads == after.workloads, "{field} changed a workload");
        assert_ne!(before.snapshots, after.snapshots, "{field} changed nothing at all: this test proves nothing");
    }
}

#[test]
fn a_relay_registers_through_the_adapter_as_a_server_does() {
    let mut world = relays();
    let hierarchy = world.spec("TunnelServer")["hierarchy"].clone();
    world.spec("TunnelRelay")["hierarchy"] = hierarchy;
    world.spec("TunnelRelay")["umtp"] = json!({ "port": 10_200 });
    let fleet = world.plan();
    assert_eq!(announced(&fleet)["castgate/tr-edge@n3"], ["10.77.0.13:10200"]);
    let owners = workload(&fleet, "Deployment castgate-adapter")["metadata"]["ownerReferences"].as_array().unwrap();
    let kinds: Vec<_> = owners.iter().map(|owner| owner["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["TunnelRelay", "TunnelServer"]);
}

/// The example of an ISP with a relay beside its server, of the same name, on all nodes.
fn relays() -> World {
    let mut world = World::isp();
    let bundles = world.spec("TunnelServer")["bundles"].clone();
    world.objects.push(json!({
        "apiVersion": castgate_crds::API_VERSION, "kind": "TunnelRelay",
        "metadata": { "name": "edge", "namespace": "castgate" },
        "spec": {
            "upstream": { "databaseRef": { "name": "isp" } }, "umtp": { "port": 10_200 }, "bundles": bundles,
            "hierarchy": { "country": "BE" },
        },
    }));
    world
}

fn upstream(fleet: &Fleet, agent: &str) -> UpstreamSnapshot {
    snapshot(fleet, agent).server.as_ref().unwrap().upstream.clone().unwrap()
}
