//! The `StatefulSet` of a database, the Services in front of it, and what guards it.

use castgate_crds::tunnel_database::{ServiceType, Storage};
use serde_json::json;

use super::pod::Pod;
use super::{OF_DATABASES, Part, Workload, controller, network_policy, workload};
use crate::cluster::{World, names};
use crate::objects::{Database, ObjectName, Store};

pub(super) fn all(world: World, name: &ObjectName, database: &Database) -> Vec<Workload> {
    let role = Part { component: "database", owner: Some(&name.name) };
    let owners = controller(world, names::DATABASE, name);
    let own = names::database_workload(name);
    let pods = names::database_pods(name);
    let namespace = name.namespace.as_str();
    let make = |(api_version, kind), name: &str, spec| {
        workload(OF_DATABASES, (api_version, kind), (namespace, name), role, &owners, spec)
    };
    vec![
        make(("apps/v1", "StatefulSet"), &own, stateful_set(world, name, database, role, &pods)),
        make(("v1", "Service"), &own, service(database, role)),
        make(("v1", "Service"), &pods, headless(database, role)),
        make(
            ("policy/v1", "PodDisruptionBudget"),
            &own,
            json!({ "spec": {
            // One at a time: of several the others answer meanwhile, and one alone comes back with its volume.
            "maxUnavailable": 1,
            "selector": { "matchLabels": role.selector() },
        } }),
        ),
        network_policy(OF_DATABASES, (namespace, &own), role, &owners, database.listen.port()),
    ]
}

fn stateful_set(world: World, name: &ObjectName, database: &Database, role: Part, headless: &str) -> serde_json::Value {
    let pod = Pod {
        role,
        settings: &world.facts.settings,
        agent: format!("{}/{}", name.namespace, names::database_workload(name)),
        account: names::AGENT_ACCOUNT,
        host_network: false,
        capabilities: Vec::new(),
        privileged_port: database.listen.port() < 1024,
        // What is promised is in etcd; the last snapshot and the audit log live as long as the pod.
        state: database.store.etcd().map(|_| json!({ "emptyDir": {} })),
        memory: "64Mi",
    };
    let mut template = pod.template();
    template["spec"]["affinity"] = apart(role);
    template["spec"]["topologySpreadConstraints"] = json!([{
        "topologyKey": "topology.kubernetes.io/zone",
        "maxSkew": 1,
        // Where there are no zones, or too few, they run all the same.
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": role.selector() },
    }]);
    if !database.node_selector.is_empty() {
        template["spec"]["nodeSelector"] = json!(database.node_selector);
    }
    if !database.tolerations.is_empty() {
        template["spec"]["tolerations"] = json!(database.tolerations);
    }
    let mut spec = json!({
        "replicas": database.replicas,
        "serviceName": headless,
        "selector": { "matchLabels": role.selector() },
        "updateStrategy": { "type": "RollingUpdate" },
        "template": template,
    });
    if let Store::Embedded(storage) = &database.store {
        // Entries outlive a database that somebody deletes by mistake. A replica that goes has handed over what it had; an old
        // volume under a new one would bring back entries that said goodbye meanwhile.
        spec["persistentVolumeClaimRetentionPolicy"] = json!({ "whenDeleted": "Retain", "whenScaled": "Delete" });
        spec["volumeClaimTemplates"] = json!([claim(storage)]);
    }
    json!({ "spec": spec })
}

/// What the volume of a replica is like.
fn claim(storage: &Storage) -> serde_json::Value {
    let mut claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": { "name": "state" },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": storage.size } },
        },
    });
    if let Some(class) = &storage.storage_class_name {
        claim["spec"]["storageClassName"] = json!(class);
    }
    claim
}

/// No two replicas on one node: an agent is known by its node, and a second copy there would go down with the first.
fn apart(role: Part) -> serde_json::Value {
    json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": { "matchLabels": role.selector() },
    }] } })
}

/// The Service for clients. Matching goes by the address a client comes from: no node may put its own in its place.
fn service(database: &Database, role: Part) -> serde_json::Value {
    let port = database.listen.port();
    let mut row = json!({ "name": "http", "protocol": "TCP", "port": port, "targetPort": port });
    if let Some(node_port) = database.service.node_port {
        row["nodePort"] = json!(node_port);
    }
    let service_type = database.service.service_type;
    let mut spec = json!({ "type": service_type, "selector": role.selector(), "ports": [row] });
    if service_type != ServiceType::ClusterIp {
        spec["externalTrafficPolicy"] = json!("Local");
    }
    if database.replicas > 1 && database.store.etcd().is_none() {
        // Who registers from outside refreshes, and says goodbye, where he registered.
        spec["sessionAffinity"] = json!("ClientIP");
    }
    json!({ "spec": spec })
}

/// The Service that gives each pod its name, ready or not: a replica is registered with, and asked for its entries, while it
/// comes and while it goes.
fn headless(database: &Database, role: Part) -> serde_json::Value {
    let port = database.listen.port();
    json!({ "spec": {
        "clusterIP": "None",
        "publishNotReadyAddresses": true,
        "selector": role.selector(),
        "ports": [{ "name": "http", "protocol": "TCP", "port": port, "targetPort": port }],
    } })
}
