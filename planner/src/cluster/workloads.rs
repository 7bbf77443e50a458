//! Objects of Kubernetes that agents run in, as they are applied: the whole of what we want of each field we name.
//!
//! They are written as JSON, which is what server-side apply sends; a test reads each one back through the types of Kubernetes
//! and finds every field again. Nothing here may depend on what agents learn from their snapshots: that would restart them.

mod adapter;
mod database;
mod pod;
mod server;

use serde_json::{Value, json};

use super::{Fleet, World, names};
use crate::objects::{Hierarchy, ObjectName};

/// An object to apply.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The field manager to apply it as: always the same for the same object.
    pub manager: &'static str,
    /// The object, with `apiVersion`, `kind` and `metadata`.
    pub object: Value,
}

/// Field managers.
const OF_SERVERS: &str = "castgate-tunnelserver";
const OF_RELAYS: &str = "castgate-tunnelrelay";
const OF_DATABASES: &str = "castgate-tunneldatabase";
const OF_ADAPTERS: &str = "castgate-adapter";
/// For what servers, relays and databases share.
const OF_BOTH: &str = "castgate-fleet";

pub(super) fn plan(world: World, fleet: &mut Fleet) {
    let mut workloads = Vec::new();
    for namespace in namespaces(world) {
        let all = owners(world, namespace, |_| true);
        // Before the pods that name it: they would be tried in vain, and again after a while.
        workloads.push(account(OF_BOTH, namespace, names::AGENT_ACCOUNT, &all));
        let registering = owners(world, namespace, |registers| registers);
        if !registering.is_empty() {
            workloads.extend(adapter::all(world, namespace, &registering));
        }
    }
    for (kind, name, server) in world.carriers() {
        if fleet.servers.get(&(kind, name.clone())).is_some_and(|plan| plan.refused.is_none()) {
            workloads.push(server::daemon_set(world, kind, name, server));
        }
    }
    for (name, database) in world.living(names::DATABASE, &world.objects.databases) {
        if fleet.databases.get(name).is_some_and(|plan| plan.refused.is_none()) {
            workloads.extend(database::all(world, name, database));
        }
    }
    fleet.workloads = workloads;
}

/// Namespaces with some object of ours, in which things can be made.
fn namespaces(world: World<'_>) -> Vec<&str> {
    let mut namespaces: Vec<_> = world
        .metas
        .keys()
        .filter(|(kind, _)| names::prefix(kind).is_some())
        .map(|(_, name)| name.namespace.as_str())
        .filter(|namespace| !world.facts.namespaces.get(*namespace).is_some_and(|facts| facts.terminating))
        .collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    namespaces
}

/// References to the objects of a namespace that share something: it goes when the last of them is gone. Those being deleted
/// count: their agents still have to say good-bye.
fn owners(world: World, namespace: &str, wanted: impl Fn(bool) -> bool) -> Vec<Value> {
    let of_namespace = world.metas.iter().filter(|((_, name), _)| name.namespace == namespace);
    let wanted = of_namespace.filter(|((kind, name), meta)| {
        let hierarchy = match *kind {
            names::SERVER => world.objects.servers.get(name).map(|entry| &entry.object.hierarchy),
            names::RELAY => world.objects.relays.get(name).map(|entry| &entry.object.hierarchy),
            names::DATABASE => world.objects.databases.get(name).map(|entry| &entry.object.hierarchy),
            _ => return false,
        };
        wanted(meta.registers || hierarchy.is_some_and(Hierarchy::registers))
    });
    wanted.map(|((kind, name), meta)| reference(kind, name, &meta.uid, false)).collect()
}

fn reference(kind: &str, name: &ObjectName, uid: &str, controller: bool) -> Value {
    let mut reference =
        json!({ "apiVersion": castgate_crds::API_VERSION, "kind": kind, "name": name.name, "uid": uid });
    if controller {
        reference["controller"] = json!(true);
    }
    reference
}

/// The reference of what belongs to one object alone.
fn controller(world: World, kind: &'static str, name: &ObjectName) -> Vec<Value> {
    let meta = world.metas.get(&(kind, name.clone()));
    meta.map(|meta| reference(kind, name, &meta.uid, true)).into_iter().collect()
}

/// What a workload is part of, as labels say it.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    component: &'static str,
    /// Name of its server, relay or database; an adapter belongs to many.
    owner: Option<&'a str>,
}

impl Part<'_> {
    /// By which its pods are found; never changes.
    fn selector(self) -> Value {
        let mut labels = json!({ "app.kubernetes.io/name": "castgate", "app.kubernetes.io/component": self.component });
        if let Some(owner) = self.owner {
            labels["castgate.dev/owner"] = json!(owner);
        }
        labels
    }

    fn labels(self) -> Value {
        let mut labels = self.selector();
        labels["app.kubernetes.io/managed-by"] = json!("castgate-operator");
        labels
    }
}

/// Puts an object together.
fn workload(
    manager: &'static str,
    (api_version, kind): (&str, &str),
    (namespace, name): (&str, &str),
    role: Part,
    owners: &[Value],
    rest: Value,
) -> Workload {
    let mut object = json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": { "name": name, "namespace": namespace, "labels": role.labels(), "ownerReferences": owners },
    });
    if let (Value::Object(object), Value::Object(rest)) = (&mut object, rest) {
        object.extend(rest);
    }
    Workload { manager, object }
}

/// A `ServiceAccount` that no API of the cluster is open to: its pods prove themselves with a token of their own.
fn account(manager: &'static str, namespace: &str, name: &str, owners: &[Value]) -> Workload {
    let role = Part { component: "agent", owner: None };
    let rest = json!({ "automountServiceAccountToken": false });
    workload(manager, ("v1", "ServiceAccount"), (namespace, name), role, owners, rest)
}

/// Lets everybody reach one port of some pods, and nothing else.
fn network_policy(manager: &'static str, place: (&str, &str), role: Part, owners: &[Value], port: u16) -> Workload {
    let rest = json!({ "spec": {
        "podSelector": { "matchLabels": role.selector() },
        "policyTypes": ["Ingress"],
        "ingress": [{ "ports": [{ "protocol": "TCP", "port": port }] }],
    } });
    workload(manager, ("networking.k8s.io/v1", "NetworkPolicy"), place, role, owners, rest)
}
