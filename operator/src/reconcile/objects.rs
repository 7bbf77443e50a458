//! What a turn has to say and do about objects of ours: who owns what, who is held, who is spared, who is told what. Pure.

use std::collections::{BTreeMap, BTreeSet};

use castgate_crds::tunnel_assignment_policy::RuleStatus;
use castgate_crds::tunnel_database::TunnelDatabaseStatus;
use castgate_crds::tunnel_endpoint::{EndpointRole, TunnelEndpoint};
use castgate_crds::tunnel_relay::TunnelRelayStatus;
use castgate_crds::tunnel_server::TunnelServerStatus;
use castgate_planner::cluster::{Fleet as Plan, names};
use castgate_planner::{ObjectName, Problem};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::View;
use super::conditions::{Saying, flips};
use super::rotation::rotation;
use super::status::{self, Acceptance, DatabaseFacts, ServerFacts};
use crate::index::{
    COMPONENT, FINALIZER, Index, OWNER, SERVED, component_of, kind_of, name_of, owner_reference, registers,
};

/// Owners of what a namespace shares, as owner references.
#[derive(Debug, Default, PartialEq)]
pub struct Owners {
    /// Every object that agents run for.
    pub all: Vec<Value>,
    /// Those that register with databases above.
    pub registering: Vec<Value>,
}

/// Who owns the shared things of each namespace.
#[must_use]
pub fn owners_by_namespace(index: &Index) -> BTreeMap<String, Owners> {
    let mut owners: BTreeMap<String, Owners> = BTreeMap::new();
    for ((kind, name), meta) in index.metas.iter().filter(|((kind, _), _)| SERVED.contains(kind)) {
        let reference = json!(owner_reference(kind, &name.name, &meta.uid, false));
        let owners = owners.entry(name.namespace.clone()).or_default();
        if meta.registers {
            owners.registering.push(reference.clone());
        }
        owners.all.push(reference);
    }
    owners
}

/// Databases with several replicas that need a login among themselves, each with itself as the owner of what is made for it.
pub fn with_replicas<'a>(view: &View<'a>) -> impl Iterator<Item = (&'a ObjectName, Vec<Value>)> {
    let (databases, index, facts) = (view.judged.objects.databases(), view.index, view.facts);
    let several = databases.iter().filter(|(_, entry)| {
        let database = &entry.object;
        database.replicas > 1 && database.peers.is_none() && database.store.etcd().is_none()
    });
    several.filter_map(move |(name, _)| {
        let meta = index.metas.get(&(names::DATABASE, name.clone())).filter(|meta| !meta.deleting)?;
        let ends = facts.namespaces.get(&name.namespace).is_some_and(|namespace| namespace.terminating);
        let owner = json!(owner_reference(names::DATABASE, &name.name, &meta.uid, true));
        (!ends).then(|| (name, vec![owner]))
    })
}

/// Whether an object needs the finalizer and does not have it.
#[must_use]
pub fn wants_hold(object: &Value) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    SERVED.iter().any(|kind| object["kind"] == **kind)
        && registers(object)
        && !object["metadata"]["deletionTimestamp"].is_string()
        && !finalizers.is_some_and(|all| all.iter().any(|finalizer| finalizer == FINALIZER))
}

/// The part of an object that holds it, or lets it go. The uid keeps us from making an object that is gone.
#[must_use]
pub fn held(object: &Value, holds: bool) -> Value {
    let metadata = &object["metadata"];
    let finalizers: &[&str] = if holds { &[FINALIZER] } else { &[] };
    json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"],
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"], "finalizers": finalizers,
        },
    })
}

/// Objects that are there but cannot be planned: somebody made a mistake in them, and what runs for them goes on.
#[must_use]
pub fn spared(index: &Index, plan: &Plan) -> BTreeSet<String> {
    let held = plan.held.iter().filter_map(|key| index.metas.get(key));
    held.filter(|meta| !meta.deleting).map(|meta| meta.uid.clone()).collect()
}

/// Whether something that we applied belongs to one of them.
#[must_use]
pub fn is_spared(live: &Value, spared: &BTreeSet<String>) -> bool {
    let owners = live["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    owners.filter_map(|owner| owner["uid"].as_str()).any(|uid| spared.contains(uid))
}

fn refused(plan: &Plan, kind: &str, name: &ObjectName) -> Option<(&'static str, String)> {
    let refused = match kind {
        names::SERVER => plan.servers.get(&(names::SERVER, name.clone()))?.refused.as_ref()?,
        names::RELAY => plan.servers.get(&(names::RELAY, name.clone()))?.refused.as_ref()?,
        names::DATABASE => plan.databases.get(name)?.refused.as_ref()?,
        _ => return None,
    };
    Some((refused.reason, refused.message.clone()))
}

/// An object and what it is told.
#[derive(Debug)]
pub struct Told<'a> {
    /// The object as it is.
    pub object: &'a Value,
    /// The status it should have.
    pub status: Value,
    conditions: Vec<Condition>,
}

impl Told<'_> {
    /// The status to write and the conditions that flipped; `None` when the object says so already.
    #[must_use]
    pub fn change(&self) -> Option<(&Value, Vec<Condition>)> {
        let before = &self.object["status"];
        if *before == self.status {
            return None;
        }
        let conditions: Vec<Condition> = serde_json::from_value(before["conditions"].clone()).unwrap_or_default();
        Some((&self.status, flips(&conditions, &self.conditions).into_iter().cloned().collect()))
    }
}

/// What the API server refuses, one sentence each, by kind and name of whom it is for.
pub type Refusals = BTreeMap<(String, ObjectName), String>;

/// Notes that an object is refused, for everybody who owns it.
pub fn note_refusal(refusals: &mut Refusals, object: &Value, sentence: &str) {
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    for owner in object["metadata"]["ownerReferences"].as_array().into_iter().flatten() {
        let (Some(kind), Some(name)) = (owner["kind"].as_str(), owner["name"].as_str()) else { continue };
        let name = ObjectName { namespace: namespace.to_owned(), name: name.to_owned() };
        refusals.entry((kind.to_owned(), name)).or_insert_with(|| sentence.to_owned());
    }
}

/// What every object of ours is told.
#[must_use]
pub fn statuses<'a>(view: &View<'a>, refusals: &Refusals) -> Vec<Told<'a>> {
    let ours = view.index.objects.iter().filter(|object| object["kind"] != "Secret" && object["kind"] != "ConfigMap");
    ours.filter(|object| !object["metadata"]["deletionTimestamp"].is_string())
        .map(|object| told(view, object, refusals))
        .collect()
}

fn told<'a>(view: &View<'a>, object: &'a Value, refusals: &Refusals) -> Told<'a> {
    let name = name_of(object);
    let kind = object["kind"].as_str().unwrap_or_default();
    let refused = refusals.get(&(kind.to_owned(), name.clone()));
    let generation = object["metadata"]["generation"].as_i64();
    let acceptance = acceptance(view, kind, &name);
    let now = Timestamp::from_second(view.now.as_second()).unwrap_or_default();
    match kind {
        names::SERVER => {
            let before: TunnelServerStatus = status_of(object);
            let status = status::server(
                &carrier(view, EndpointRole::Server, &name, object, (&before, &acceptance), refused),
                now,
            );
            said(object, &status, status.conditions.clone())
        }
        names::RELAY => {
            let before: TunnelRelayStatus = status_of(object);
            let facts = carrier(view, EndpointRole::Relay, &name, object, (&before.tunnels, &acceptance), refused);
            let status = status::relay(&facts, now);
            said(object, &status, status.tunnels.conditions.clone())
        }
        names::DATABASE => {
            let plan = view.plan.databases.get(&name);
            let problem = plan.and_then(|plan| plan.problem.clone());
            let problems: Vec<String> = refused.cloned().into_iter().chain(problem).collect();
            let before: TunnelDatabaseStatus = status_of(object);
            let facts = DatabaseFacts {
                generation,
                before: &before,
                acceptance: &acceptance,
                problems: &problems,
                wanted: plan.map_or(1, |plan| usize::try_from(plan.wanted).unwrap_or(usize::MAX)),
                ready_pods: ready_pods(view.index, &name),
                endpoints: endpoints_of(view.index, EndpointRole::Database, &name),
                registers: registers(object),
                service: service_of(view.index, &name),
                selector: format!("{COMPONENT}={},{OWNER}={}", component_of(EndpointRole::Database), name.name),
            };
            let status = status::database(&facts, now);
            said(object, &status, status.conditions.clone())
        }
        _ => {
            let before: Vec<Condition> =
                serde_json::from_value(object["status"]["conditions"].clone()).unwrap_or_default();
            let rotation = (kind == "TunnelAccount").then(|| rotating(view, object, &name, now)).flatten();
            let (saying, last_used) = rotation.unzip();
            let conditions = status::acceptance_alone(&before, &acceptance, saying, generation, now);
            let mut status = json!({ "observedGeneration": generation, "conditions": conditions });
            if let Some(last_used) = last_used.flatten() {
                status["previousPasswordLastUsed"] = json!(last_used);
            }
            if kind == "ChannelBundle" {
                status["servers"] = json!(carriers(view.index, &name));
                status["channels"] = json!(object["spec"]["channels"].as_array().map_or(0, Vec::len));
            }
            if kind == "TunnelAssignmentPolicy" {
                status["rules"] = json!(moved(view.index, object, &name));
            }
            Told { object, status, conditions }
        }
    }
}

/// What concerns one server or relay.
fn carrier<'a>(
    view: &View<'a>,
    role: EndpointRole,
    name: &ObjectName,
    object: &'a Value,
    (before, acceptance): (&'a TunnelServerStatus, &'a Acceptance),
    refused: Option<&String>,
) -> ServerFacts<'a> {
    let plan = kind_of(role).and_then(|kind| view.plan.servers.get(&(kind, name.clone())));
    ServerFacts {
        generation: object["metadata"]["generation"].as_i64(),
        before,
        acceptance,
        active: plan.map(|plan| plan.active.clone()).unwrap_or_default(),
        wanted: plan.map_or(0, |plan| plan.wanted),
        pool: plan.map_or(0, |plan| plan.pool.len()),
        problems: refused
            .into_iter()
            .chain(plan.into_iter().flat_map(|plan| plan.problems.values()))
            .cloned()
            .collect(),
        endpoints: endpoints_of(view.index, role, name),
        registers: registers(object),
        selector: format!("{COMPONENT}={},{OWNER}={}", component_of(role), name.name),
    }
}

fn said<'a>(object: &'a Value, status: &impl Serialize, conditions: Vec<Condition>) -> Told<'a> {
    Told { object, status: serde_json::to_value(status).unwrap_or_default(), conditions }
}

/// A status that does not fit its type was written by somebody else: it counts as none.
fn status_of<T: DeserializeOwned + Default>(object: &Value) -> T {
    serde_json::from_value(object["status"].clone()).unwrap_or_default()
}

fn acceptance(view: &View, kind: &str, name: &ObjectName) -> Acceptance {
    let problems = view.judged.problems.iter().find(|((of, whose), _)| *of == kind && whose == name);
    if let Some((_, problems)) = problems {
        return Acceptance::Refused("Invalid", sentence(problems));
    }
    match refused(view.plan, kind, name) {
        Some((reason, message)) => Acceptance::Refused(reason, message),
        None => Acceptance::Accepted,
    }
}

/// The first problem, and how many more there are.
fn sentence(problems: &[Problem]) -> String {
    let Some(first) = problems.first() else { return String::new() };
    let place = if first.field.is_empty() { String::new() } else { format!("{}: ", first.field) };
    match problems.len() - 1 {
        0 => format!("{place}{}", first.message),
        more => format!("{place}{} (and {more} more)", first.message),
    }
}

fn endpoints_of<'a>(index: &'a Index, role: EndpointRole, name: &ObjectName) -> Vec<&'a TunnelEndpoint> {
    let of_object = |endpoint: &&TunnelEndpoint| {
        endpoint.spec.role == role
            && endpoint.spec.owner_name == name.name
            && endpoint.metadata.namespace.as_deref() == Some(&name.namespace)
    };
    index.endpoints.iter().filter(of_object).collect()
}

/// Nodes on which a pod of a database is ready.
fn ready_pods<'a>(index: &'a Index, database: &ObjectName) -> Vec<&'a str> {
    let is_ready = |pod: &&Value| {
        let labels = &pod["metadata"]["labels"];
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        pod["metadata"]["namespace"] == *database.namespace
            && labels[COMPONENT] == component_of(EndpointRole::Database)
            && labels[OWNER] == *database.name
            && !pod["metadata"]["deletionTimestamp"].is_string()
            && conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    index.pods.iter().filter(is_ready).filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect()
}

/// How clients reach a database, as a person would write it.
fn service_of(index: &Index, name: &ObjectName) -> Option<String> {
    let service = index.applied("Service", &name.namespace, &format!("tdb-{}", name.name))?;
    let port = &service["spec"]["ports"][0];
    let ingress = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
    match (service["spec"]["type"].as_str(), ingress) {
        (_, Some(ingress)) => Some(format!("{ingress}:{}", port["port"])),
        (Some("NodePort"), None) => Some(format!("NODE:{}", port["nodePort"])),
        _ => Some(format!("{}:{}", service["spec"]["clusterIP"].as_str()?, port["port"])),
    }
}

/// How far a change of an account's password has come, as every replica of its database saw it.
fn rotating(view: &View, account: &Value, name: &ObjectName, now: Timestamp) -> Option<(Saying, Option<Time>)> {
    let database = name.sibling(account["spec"]["databaseRef"]["name"].as_str()?);
    let interval = view.judged.objects.databases().get(&database)?.object.update_interval;
    let endpoints = endpoints_of(view.index, EndpointRole::Database, &database);
    let rows = endpoints.iter().filter_map(|endpoint| endpoint.status.as_ref()).flat_map(|status| &status.rotations);
    let rows: Vec<_> = rows.filter(|row| account["spec"]["login"] == *row.login).collect();
    rotation(&rows, interval, now)
}

/// What each rule of a policy did, at all databases that keep to it.
fn moved(index: &Index, policy: &Value, name: &ObjectName) -> Vec<RuleStatus> {
    let rules = policy["spec"]["rules"].as_array().into_iter().flatten();
    let endpoints = index.endpoints.iter().filter(|endpoint| {
        endpoint.spec.role == EndpointRole::Database && endpoint.metadata.namespace.as_deref() == Some(&name.namespace)
    });
    let rows: Vec<_> =
        endpoints.filter_map(|endpoint| endpoint.status.as_ref()).flat_map(|status| &status.rules).collect();
    let rule = |rule: &Value| {
        let mut sum =
            RuleStatus { name: rule["name"].as_str().unwrap_or_default().to_owned(), ..RuleStatus::default() };
        for row in rows.iter().filter(|row| row.policy == name.name && row.rule == sum.name) {
            sum.clients = sum.clients.saturating_add(row.clients);
            sum.answers = sum.answers.saturating_add(row.answers);
        }
        sum
    };
    rules.map(rule).collect()
}

/// How many servers and relays carry a bundle.
fn carriers(index: &Index, bundle: &ObjectName) -> usize {
    let servers =
        index.objects.iter().filter(|object| object["kind"] == names::SERVER || object["kind"] == names::RELAY);
    let carries = |server: &&Value| {
        let bundles = server["spec"]["bundles"].as_array().into_iter().flatten();
        server["metadata"]["namespace"] == *bundle.namespace
            && bundles.into_iter().any(|row| row["name"] == *bundle.name)
    };
    servers.filter(carries).count()
}

#[cfg(test)]
mod tests {
    use castgate_crds::tunnel_endpoint::{PolicyRuleStatus, TunnelEndpoint, TunnelEndpointSpec, TunnelEndpointStatus};

    use super::*;

    #[test]
    fn a_refusal_is_noted_for_every_owner_and_the_first_one_stands() {
        let owners = json!([{"kind": "TunnelServer", "name": "a"}, {"kind": "TunnelDatabase", "name": "b"}]);
        let object = json!({"metadata": {"namespace": "isp", "name": "shared", "ownerReferences": owners}});
        let mut refusals = Refusals::default();
        note_refusal(&mut refusals, &object, "first");
        note_refusal(&mut refusals, &object, "second");
        let noted: Vec<_> = refusals.iter().map(|((kind, name), said)| format!("{kind} {name}: {said}")).collect();
        assert_eq!(noted, ["TunnelDatabase isp/b: first", "TunnelServer isp/a: first"]);
    }

    #[test]
    fn a_policy_is_told_what_each_rule_did_at_all_of_its_databases() {
        let row = |policy: &str, rule: &str, clients| PolicyRuleStatus {
            policy: policy.to_owned(),
            rule: rule.to_owned(),
            clients,
            answers: 2 * clients,
        };
        let endpoint = |namespace: &str, rules: Vec<PolicyRuleStatus>| {
            let spec = TunnelEndpointSpec { role: EndpointRole::Database, owner_name: "d".into(), node: "n".into() };
            let mut endpoint = TunnelEndpoint::new("tdb-d-n", spec);
            endpoint.metadata.namespace = Some(namespace.to_owned());
            endpoint.status = Some(TunnelEndpointStatus { rules, ..TunnelEndpointStatus::default() });
            endpoint
        };
        let index = Index {
            endpoints: vec![
                endpoint("castgate", vec![row("p", "evening", 3), row("other", "evening", 100)]),
                endpoint("castgate", vec![row("p", "evening", 4), row("p", "gone", 100)]),
                endpoint("elsewhere", vec![row("p", "evening", 100)]),
            ],
            ..Index::default()
        };
        let policy = json!({"spec": {"rules": [{"name": "evening"}, {"name": "new"}]}});
        let name = ObjectName { namespace: "castgate".to_owned(), name: "p".to_owned() };
        let told = moved(&index, &policy, &name);
        let shown: Vec<_> = told.iter().map(|rule| (rule.name.as_str(), rule.clients, rule.answers)).collect();
        assert_eq!(shown, [("evening", 7, 14), ("new", 0, 0)]);
    }
}
