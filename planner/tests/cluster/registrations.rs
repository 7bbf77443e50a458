//! Who registers over whom, and what of it reaches which node.

use std::collections::BTreeSet;

use castgate_planner::cluster::Fleet;
use serde_json::json;

use crate::world::{World, announced, snapshot, titles, workload};

#[test]
fn agents_register_over_the_adapter_and_never_see_a_password() {
    let fleet = World::isp().plan();
    for (agent, snapshot) in &fleet.snapshots {
        let holds = snapshot.to_yaml().contains("example-only-edge");
        assert_eq!(holds, agent == "castgate/adapter@n3", "{agent}");
    }
    let registrar = snapshot(&fleet, "castgate/ts-edge@n1").registrar.as_ref().unwrap();
    let adapter = registrar.adapter.as_ref().unwrap();
    assert_eq!(adapter.endpoint, "https://castgate-adapter.castgate.svc:8444");
    assert_eq!(registrar.parents, []);
    let entry = &registrar.entries[0];
    assert_eq!((entry.source.to_string().as_str(), entry.port.get()), ("10.77.0.11", 10_100));
}

#[test]
fn the_adapter_lets_each_agent_announce_what_it_will_announce() {
    let fleet = World::isp().plan();
    let adapter = snapshot(&fleet, "castgate/adapter@n3").adapter.as_ref().unwrap();
    assert_eq!(adapter.listen.to_string(), "0.0.0.0:8444");
    assert_eq!(adapter.clients.len(), 2);
    for client in &adapter.clients {
        let registrar = snapshot(&fleet, &client.agent).registrar.as_ref().unwrap();
        assert_eq!(registrar.entries, client.entries);
        assert_eq!(registrar.interval_seconds, client.interval_seconds);
        assert_eq!(registrar.adapter.as_ref().unwrap().key, client.key);
        let parents: Vec<_> =
            client.parents.iter().map(|parent| (parent.url.as_str(), parent.login.as_str())).collect();
        let pod = "http://tdb-isp-0.tdb-isp-pods.castgate.svc:5632";
        assert_eq!(parents, [(pod, "edge")], "a parent of ours is each of its pods, by name");
    }
}

#[test]
fn who_registers_with_a_database_of_ours_registers_with_every_replica_of_it() {
    let mut world = World::isp();
    world.spec("TunnelDatabase")["replicas"] = json!(3);
    let parents = |world: &World| {
        let fleet = world.plan();
        let adapter = snapshot(&fleet, "castgate/adapter@n3").adapter.as_ref().unwrap();
        adapter.clients[0].parents.iter().map(|parent| parent.url.clone()).collect::<Vec<_>>()
    };
    let names = [0, 1, 2].map(|number| format!("http://tdb-isp-{number}.tdb-isp-pods.castgate.svc:5632"));
    assert_eq!(parents(&world), names);
    world.facts.database_nodes.clear();
    assert_eq!(parents(&world), names, "a pod that is away for a moment is told no goodbye");
}

#[test]
fn the_adapter_finds_the_parents_of_who_names_roots() {
    let mut world = World::isp();
    let hierarchy = &mut world.spec("TunnelServer")["hierarchy"];
    hierarchy.as_object_mut().unwrap().remove("parents");
    hierarchy["discovery"] =
        json!({ "roots": ["roots.example.net"], "credentialsSecretRef": { "name": "edge-at-isp" } });
    let fleet = world.plan();
    let adapter = snapshot(&fleet, "castgate/adapter@n3").adapter.as_ref().unwrap();
    assert_eq!(adapter.clients.len(), 2);
    for client in &adapter.clients {
        assert!(client.parents.is_empty());
        let discovery = client.discovery.as_ref().unwrap();
        assert_eq!((discovery.roots[0].as_str(), discovery.login.as_str()), ("roots.example.net", "edge"));
        let registrar = snapshot(&fleet, &client.agent).registrar.as_ref().unwrap();
        assert!(registrar.adapter.is_some() && registrar.discovery.is_none(), "no credential is on the node");
    }
}

#[test]
fn keys_are_those_of_hmac_sha256_and_differ() {
    let fleet = World::isp().plan();
    let key = |agent: &str| {
        let registrar = snapshot(&fleet, agent).registrar.as_ref().unwrap();
        registrar.adapter.as_ref().unwrap().key.clone()
    };
    // printf 'castgate/ts-edge@n1' | openssl dgst -sha256 -hmac secret
    assert_eq!(key("castgate/ts-edge@n1"), "7375746518048d1eb9bcb2dc8f5137c2ceaae4673c73f2ea4b4febd897873449");
    assert_ne!(key("castgate/ts-edge@n1"), key("castgate/ts-edge@n2"));
}

#[test]
fn without_its_certificate_the_adapter_waits_and_so_do_registrations() {
    let mut world = World::isp();
    world.facts.adapters.clear();
    let fleet = world.plan();
    assert!(!fleet.snapshots.contains_key("castgate/adapter@n3"));
    let edge = snapshot(&fleet, "castgate/ts-edge@n1");
    assert!(edge.server.is_some() && edge.registrar.is_none(), "tunnels do not wait");
    assert!(titles(&fleet).contains(&"Deployment castgate-adapter".to_owned()));
}

#[test]
fn a_url_beside_a_reference_to_the_same_database_is_told_once() {
    let mut world = World::isp();
    let parents = &mut world.spec("TunnelServer")["hierarchy"]["parents"];
    let mut again = parents[0].clone();
    again.as_object_mut().unwrap().remove("databaseRef");
    again["url"] = json!("http://tdb-isp-0.tdb-isp-pods.castgate.svc:5632");
    parents.as_array_mut().unwrap().push(again);
    let fleet = world.plan();
    let adapter = snapshot(&fleet, "castgate/adapter@n3").adapter.as_ref().unwrap();
    assert!(adapter.clients.iter().all(|client| client.parents.len() == 1));
}

#[test]
fn a_deleted_server_has_its_entries_taken_back_by_an_adapter_that_stays() {
    let mut world = World::isp();
    world.settle();
    world.deleting.insert("edge");
    world.finalized.insert("edge");
    let fleet = world.plan();
    assert_eq!(announced(&fleet).len(), 0, "no entry is let through any more");
    assert!(fleet.snapshots.contains_key("castgate/adapter@n3"));
    assert!(!fleet.snapshots.contains_key("castgate/ts-edge@n1"));
    let titles: BTreeSet<_> = titles(&fleet).into_iter().collect();
    assert!(!titles.contains("DaemonSet ts-edge"));
    assert!(titles.contains("Deployment castgate-adapter"));
    assert!(fleet.held.is_empty(), "what is deleted is not kept");
    // Its finalizer is gone, and with it the object.
    world.objects.retain(|object| object["kind"] != "TunnelServer");
    assert_eq!(adapter_parts(&world.plan()), [""; 0]);
}

#[test]
fn a_server_that_registers_no_more_keeps_the_adapter_until_it_has_said_so() {
    let mut world = World::isp();
    world.spec("TunnelServer").as_object_mut().unwrap().remove("hierarchy");
    world.finalized.insert("edge");
    let fleet = world.plan();
    assert_eq!((announced(&fleet).len(), adapter_parts(&fleet).len()), (0, 4));
    world.finalized.clear();
    assert_eq!(adapter_parts(&world.plan()), [""; 0]);
}

#[test]
fn what_many_share_is_owned_by_all_of_them_and_controlled_by_none() {
    let mut world = World::isp();
    world.spec("TunnelDatabase")["hierarchy"] = json!({
        "country": "BE",
        "parents": [{ "url": "http://tds.example.net", "credentialsSecretRef": { "name": "edge-at-isp" } }],
    });
    let fleet = world.plan();
    for title in ["ServiceAccount castgate-agent", "ServiceAccount castgate-adapter", "Deployment castgate-adapter"] {
        let owners = workload(&fleet, title)["metadata"]["ownerReferences"].as_array().unwrap();
        let uids: Vec<_> = owners.iter().map(|owner| owner["uid"].as_str().unwrap()).collect();
        assert_eq!(uids, ["uid-of-tunneldatabase-isp", "uid-of-tunnelserver-edge"], "{title}");
        assert!(owners.iter().all(|owner| owner.get("controller").is_none()), "{title}");
    }
}

#[test]
fn an_agent_of_a_node_that_left_the_pool_is_let_through_no_more() {
    let mut world = World::isp();
    world.settle();
    world.node("n1").labels.clear();
    let agents: Vec<_> = announced(&world.plan()).into_keys().collect();
    assert_eq!(agents, ["castgate/ts-edge@n2"]);
}

#[test]
fn namespaces_know_nothing_of_each_other() {
    let mut world = World::isp();
    let mut elsewhere = world.objects.clone();
    for object in &mut elsewhere {
        object["metadata"]["namespace"] = json!("elsewhere");
        if object["kind"] == "TunnelServer" {
            object["spec"]["umtp"] = json!({ "port": 10_200 });
        }
    }
    world.objects.extend(elsewhere);
    let fleet = world.plan();
    assert!(snapshot(&fleet, "elsewhere/ts-edge@n1").registrar.is_none(), "its adapter has no certificate yet");
    let agents: Vec<_> = announced(&fleet).into_keys().collect();
    assert_eq!(agents, ["castgate/ts-edge@n1", "castgate/ts-edge@n2"]);
}

fn adapter_parts(fleet: &Fleet) -> Vec<String> {
    titles(fleet).into_iter().filter(|title| title.ends_with(" castgate-adapter")).collect()
}
