//! What is applied: the committed manifests, what Kubernetes takes, and what must not change them.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::common;
use crate::world::{World, name, titles, workload};

/// Refreshes the files when set: `CASTGATE_BLESS=1 cargo test -p castgate-planner`.
const BLESS: &str = "CASTGATE_BLESS";

#[test]
fn the_workloads_of_an_isp_are_the_committed_ones() {
    check_golden("isp", &World::isp());
}

/// Ports below 1024, tolerations, a load balancer, a class of storage, settings of every kind.
#[test]
fn the_workloads_of_a_demanding_isp_are_the_committed_ones() {
    let mut world = World::isp();
    let server = world.spec("TunnelServer");
    server["umtp"] = json!({ "port": 443 });
    server["tolerations"] = json!([{ "key": "video", "operator": "Exists" }, { "key": "a", "value": "b" }]);
    *world.spec("TunnelDatabase") = json!({
        "http": { "port": 80 },
        "service": { "type": "LoadBalancer" },
        "storage": { "size": "10Gi", "storageClassName": "fast" },
        "nodeSelector": { "disk": "ssd" },
        "tolerations": [{ "operator": "Exists" }],
    });
    let settings = &mut world.facts.settings;
    settings.image_pull_policy = Some("Never".into());
    settings.image_pull_secrets = vec!["registry".into()];
    settings.priority_class = Some("system-node-critical".into());
    check_golden("demanding-isp", &world);
}

#[test]
fn a_namespace_gets_what_its_objects_need() {
    let expected = [
        // Accounts first: pods that come before theirs are tried in vain.
        "ServiceAccount castgate-agent",
        "ServiceAccount castgate-adapter",
        "Deployment castgate-adapter",
        "Service castgate-adapter",
        "NetworkPolicy castgate-adapter",
        "DaemonSet ts-edge",
        "StatefulSet tdb-isp",
        "Service tdb-isp",
        "Service tdb-isp-pods",
        "PodDisruptionBudget tdb-isp",
        "NetworkPolicy tdb-isp",
    ];
    assert_eq!(titles(&World::isp().plan()), expected);
}

/// A word that Kubernetes does not know would be lost here, and refused or ignored there.
#[test]
fn kubernetes_knows_every_word() {
    fn again<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<T>(object.clone()).unwrap()).unwrap()
    }
    let mut world = World::isp();
    world.spec("TunnelServer")["umtp"] = json!({ "port": 443 });
    world.spec("TunnelServer")["tolerations"] = json!([{ "key": "a", "value": "b", "effect": "NoExecute" }]);
    world.spec("TunnelDatabase")["http"] = json!({ "port": 80 });
    let embedded = world.plan().workloads;
    world.spec("TunnelDatabase")["store"] = json!({ "type": "Etcd", "endpoints": ["http://etcd-0:2379"] });
    for workload in embedded.into_iter().chain(world.plan().workloads) {
        let object = &workload.object;
        let read = match object["kind"].as_str().unwrap() {
            "DaemonSet" => again::<DaemonSet>(object),
            "StatefulSet" => again::<StatefulSet>(object),
            "Deployment" => again::<Deployment>(object),
            "Service" => again::<Service>(object),
            "ServiceAccount" => again::<ServiceAccount>(object),
            "NetworkPolicy" => again::<NetworkPolicy>(object),
            "PodDisruptionBudget" => again::<PodDisruptionBudget>(object),
            other => panic!("nobody has looked at {other}"),
        };
        assert_eq!(*object, read);
    }
}

/// Something that a person or the cluster does.
type Change = fn(&mut World);

#[test]
fn what_agents_learn_from_snapshots_restarts_none_of_them() {
    let before = World::isp().plan();
    let changes: [(&str, Change); 10] = [
        ("a channel", |world| world.spec("ChannelBundle")["channels"][1]["group"] = json!("239.9.9.9")),
        ("a pattern", |world| world.spec("ChannelBundle")["channels"][1]["pattern"] = json!("1Mbit")),
        ("limits", |world| world.spec("TunnelServer")["limits"] = json!({ "tunnels": 7 })),
        ("timers", |world| world.spec("TunnelServer")["timers"] = json!({ "joinTimeout": "7s" })),
        ("interfaces", |world| world.spec("TunnelServer")["interfaces"] = json!([{ "name": "eth1" }])),
        ("replicas", |world| world.spec("TunnelServer")["replicas"] = json!(1)),
        ("the port of tunnels", |world| world.spec("TunnelServer")["umtp"] = json!({ "port": 10_200 })),
        ("an account", |world| world.spec("TunnelAccount")["allow"]["sources"] = json!(["10.0.0.0/8"])),
        ("the interval", |world| world.spec("TunnelDatabase")["updateInterval"] = json!("60s")),
        ("facts", |world| {
            world.node("n1").internal_ip = None;
            world.facts.adapter_nodes.clear();
            world.carrying("edge", &["n2"]);
            world.facts.load_balancers.insert(name("isp"), "192.0.2.1".parse().unwrap());
        }),
    ];
    for (what, change) in changes {
        let mut world = World::isp();
        change(&mut world);
        let after = world.plan();
        assert!(before.workloads == after.workloads, "{what} changed a workload");
        assert_ne!(before.snapshots, after.snapshots, "{what} changed nothing at all: this test proves nothing");
    }
}

#[test]
fn a_server_has_no_right_that_it_does_not_need() {
    let mut world = World::isp();
    let capabilities = |world: &World| {
        let fleet = world.plan();
        let security =
            &workload(&fleet, "DaemonSet ts-edge")["spec"]["template"]["spec"]["containers"][0]["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], json!(false));
        assert_eq!(security["readOnlyRootFilesystem"], json!(true));
        security["capabilities"].clone()
    };
    assert_eq!(capabilities(&world), json!({ "drop": ["ALL"] }));
    world.spec("TunnelServer")["umtp"] = json!({ "port": 1023 });
    assert_eq!(capabilities(&world), json!({ "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] }));
}

#[test]
fn one_object_is_always_applied_as_the_same_manager() {
    for workload in World::isp().plan().workloads {
        let owners = workload.object["metadata"]["ownerReferences"].as_array().unwrap().clone();
        let expected = match (owners.as_slice(), workload.object["metadata"]["name"].as_str().unwrap()) {
            (_, "castgate-adapter") => "castgate-adapter",
            (_, "castgate-agent") => "castgate-fleet",
            ([owner], _) if owner["kind"] == "TunnelServer" => "castgate-tunnelserver",
            ([owner], _) if owner["kind"] == "TunnelDatabase" => "castgate-tunneldatabase",
            other => panic!("{other:?}"),
        };
        assert_eq!(workload.manager, expected);
    }
}

#[test]
fn nothing_is_made_in_a_namespace_that_ends() {
    let mut world = World::isp();
    world.facts.namespaces.get_mut("castgate").unwrap().terminating = true;
    let fleet = world.plan();
    assert_eq!(titles(&fleet), [""; 0]);
    assert_eq!(fleet.held.len(), 2, "and nothing is removed but by the namespace itself");
}

fn check_golden(file: &str, world: &World) {
    let fresh = world.plan().workloads.iter().fold(String::new(), |all, workload| {
        let text = serde_saphyr::to_string(&workload.object).unwrap();
        format!("{all}--- # applied as {}\n{text}", workload.manager)
    });
    let path = common::path("tests/golden").join(format!("{file}.yaml"));
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(committed, fresh, "workloads changed, so agents restart: look at it, then run this test with {BLESS}=1");
}
