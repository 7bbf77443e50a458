//! The Deployment of an adapter, its Service, and what guards it. It alone has the logins at databases above.

use serde_json::{Value, json};

use super::pod::Pod;
use super::{OF_ADAPTERS, Part, Workload, account, network_policy, workload};
use crate::cluster::{World, names};

pub(super) fn all(world: World, namespace: &str, owners: &[Value]) -> Vec<Workload> {
    let role = Part { component: "adapter", owner: None };
    let place = (namespace, names::ADAPTER);
    let pod = Pod {
        role,
        settings: &world.facts.settings,
        agent: format!("{namespace}/adapter"),
        account: names::ADAPTER,
        host_network: false,
        capabilities: Vec::new(),
        privileged_port: false,
        state: Some(json!({ "emptyDir": {} })),
        memory: "32Mi",
    };
    let deployment = json!({ "spec": {
        "replicas": 1,
        "selector": { "matchLabels": role.selector() },
        // Two at a time would register everybody twice.
        "strategy": { "type": "Recreate" },
        "template": pod.template(),
    } });
    let service = json!({ "spec": {
        "type": "ClusterIP",
        "selector": role.selector(),
        "ports": [{
            "name": "grpc",
            "protocol": "TCP",
            "port": names::ADAPTER_PORT,
            "targetPort": names::ADAPTER_PORT,
        }],
    } });
    let make = |kind, spec| workload(OF_ADAPTERS, kind, place, role, owners, spec);
    vec![
        account(OF_ADAPTERS, namespace, names::ADAPTER, owners),
        make(("apps/v1", "Deployment"), deployment),
        make(("v1", "Service"), service),
        network_policy(OF_ADAPTERS, place, role, owners, names::ADAPTER_PORT),
    ]
}
