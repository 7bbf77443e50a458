//! Objects and facts to what runs on a cluster: workloads to apply, and one snapshot for each agent.
//!
//! ```text
//!   Judged, Metas, Facts ──▶ fleet ──▶ Fleet ─┬─ workloads: DaemonSets, StatefulSets, Services…   (the operator applies them)
//!                                             ├─ snapshots: what each agent shall do              (Fleet.Sync serves them)
//!                                             ├─ servers, databases: what became of each object   (for its status)
//!                                             └─ held: what is left as it is
//! ```
//! Pure: equal input gives equal output, and a plan of what has not changed costs nothing worth naming.
//!
//! What changes without a restart is in snapshots and in no template: bundles, accounts, limits, parents, addresses. A template
//! holds what Kubernetes itself must know: where pods run, under which identity, with which volumes.
//!
//! An object that cannot be planned because somebody made a mistake in it is **held**: its workloads are neither applied nor
//! removed, its agents keep the snapshots of the plan before. One that is being deleted is not planned at all, so whoever
//! applies a plan removes what it left out; the adapter, which takes its registrations back, stays until nobody needs it.

mod adapters;
mod databases;
mod facts;
pub mod names;
mod pool;
mod servers;
mod workloads;

pub use facts::{AdapterFacts, Facts, Metas, NamespaceFacts, NodeFacts, ObjectMeta, Owner, Settings, Taint};
pub use workloads::Workload;

use std::collections::{BTreeMap, BTreeSet};

use castgate_control::AgentSnapshot;

use crate::Judged;
use crate::objects::{Entry, ObjectName, Objects, Server};

/// What shall run on a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fleet {
    /// What is to be applied, each object once. Whatever carries our labels, is not here and does not belong to something
    /// [held](Self::held) is to be removed.
    pub workloads: Vec<Workload>,
    /// By name of the agent: what it shall do. Every generation is 0; who serves them counts.
    pub snapshots: BTreeMap<String, AgentSnapshot>,
    /// What became of each server and each relay.
    pub servers: BTreeMap<Owner, ServerPlan>,
    /// What became of each database.
    pub databases: BTreeMap<ObjectName, DatabasePlan>,
    /// Objects, by kind and name, that cannot be planned now and whose workloads stay as they are.
    pub held: BTreeSet<Owner>,
}

/// Where a server or a relay runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerPlan {
    /// Nodes that its pods run on, by name.
    pub pool: Vec<String>,
    /// Those of them that carry tunnels, by name; the others stand by.
    pub active: Vec<String>,
    /// How many should carry tunnels: all of the pool, or `spec.replicas` of it.
    pub wanted: usize,
    /// Why nothing of it runs.
    pub refused: Option<Refusal>,
    /// By node: one sentence on what it cannot do.
    pub problems: BTreeMap<String, String>,
}

/// Where a database runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabasePlan {
    /// The nodes that its pods were put on, by their numbers.
    pub nodes: BTreeMap<u32, String>,
    /// How many there should be.
    pub wanted: u32,
    /// Why nothing of it runs.
    pub refused: Option<Refusal>,
    /// One sentence on what keeps it from serving or from registering with its parents.
    pub problem: Option<String>,
}

/// Why an object is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Reason of the condition `Accepted`, in one word.
    pub reason: &'static str,
    /// Its message, in one sentence.
    pub message: String,
}

/// The input of a plan.
#[derive(Clone, Copy)]
struct World<'a> {
    objects: &'a Objects,
    metas: &'a Metas,
    facts: &'a Facts,
}

/// Plans all objects onto a cluster.
#[must_use]
pub fn fleet(judged: &Judged, metas: &Metas, facts: &Facts) -> Fleet {
    let world = World { objects: &judged.objects, metas, facts };
    let mut fleet = Fleet::default();
    let mut clients = Vec::new();
    servers::plan(world, &mut fleet, &mut clients);
    databases::plan(world, &mut fleet, &mut clients);
    hold(world, &mut fleet);
    adapters::plan(world, &mut fleet, clients);
    workloads::plan(world, &mut fleet);
    fleet
}

/// Finds the objects that are there but cannot be planned, and hands their agents what they had.
fn hold(world: World, fleet: &mut Fleet) {
    let Fleet { held, servers, databases, snapshots, .. } = fleet;
    for (owner @ (kind, name), meta) in world.metas {
        let planned = match *kind {
            names::SERVER | names::RELAY => servers.get(owner).is_some_and(|plan| plan.refused.is_none()),
            names::DATABASE => databases.get(name).is_some_and(|plan| plan.refused.is_none()),
            _ => continue,
        };
        if !planned && !meta.deleting {
            held.insert(owner.clone());
        }
    }
    for (agent, snapshot) in &world.facts.previous {
        if is_held(held, agent) {
            snapshots.entry(agent.clone()).or_insert_with(|| snapshot.clone());
        }
    }
}

/// Whether an agent works for an object that is held.
fn is_held(held: &BTreeSet<Owner>, agent: &str) -> bool {
    // No name of an object holds an `@`, and no name of a namespace a `/`.
    let owner = agent.split_once('@').map_or(agent, |(owner, _)| owner);
    let Some((namespace, workload)) = owner.split_once('/') else { return false };
    [names::SERVER, names::RELAY, names::DATABASE].into_iter().any(|kind| {
        let name = names::prefix(kind).and_then(|prefix| workload.strip_prefix(prefix)?.strip_prefix('-'));
        name.is_some_and(|name| {
            held.contains(&(kind, ObjectName { namespace: namespace.to_owned(), name: name.to_owned() }))
        })
    })
}

impl<'a> World<'a> {
    /// Servers and relays that are to run.
    fn carriers(self) -> impl Iterator<Item = (&'static str, &'a ObjectName, &'a Server)> {
        let servers = self.living(names::SERVER, &self.objects.servers);
        let relays = self.living(names::RELAY, &self.objects.relays);
        let of = |kind| move |(name, server)| (kind, name, server);
        servers.map(of(names::SERVER)).chain(relays.map(of(names::RELAY)))
    }

    /// Objects of one kind that are to run, with what the cluster knows of them.
    fn living<T>(
        self,
        kind: &'static str,
        objects: &'a BTreeMap<ObjectName, Entry<T>>,
    ) -> impl Iterator<Item = (&'a ObjectName, &'a T)> {
        objects.iter().map(|(name, entry)| (name, &entry.object)).filter(move |(name, _)| {
            let known = self.metas.get(&(kind, (*name).clone())).is_some_and(|meta| !meta.deleting);
            // In a namespace that ends nothing can be made.
            known && !self.facts.namespaces.get(&name.namespace).is_some_and(|namespace| namespace.terminating)
        })
    }
}
