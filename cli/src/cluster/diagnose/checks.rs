//! The checks themselves: facts in, sentences out.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::Check;
use super::facts::{Facts, Listed};
use crate::cluster::fleet::{Fleet, Problem};
use crate::cluster::status::count_of;

/// Clocks of this machine and of the operator's may differ by so much before a Lease counts as left.
const CLOCK_SLACK_SECONDS: i64 = 30;
/// How many of several troubles are named.
const NAMED_MAX: usize = 5;

/// Everything, in the order in which one thing depends on the other.
pub(crate) fn checks(facts: &Facts) -> Vec<Check> {
    let none = Fleet::default();
    let fleet = facts.fleet.as_ref().map(|fleet| fleet.as_ref());
    let known = fleet.and_then(Result::ok).unwrap_or(&none);
    let mut checks = vec![kinds(facts), operator(facts), lease(facts), authority(facts, known)];
    checks.push(match fleet {
        Some(Err(reason)) => Check::failed("objects", reason, "see the checks above"),
        _ => objects(known),
    });
    checks.extend([pods(facts), streams(known), refusals(known), registrations(known), databases(facts, known)]);
    checks
}

fn kinds(facts: &Facts) -> Check {
    const NAME: &str = "kinds";
    let advice = "helm upgrade --install castgate-crds charts/castgate-crds, of the version of this command";
    let there = match listed(facts.definitions.as_ref()) {
        Ok(there) => there,
        Err(reason) => return Check::skipped(NAME, reason),
    };
    let mut wrong = Vec::new();
    let ours = castgate_crds::all();
    for definition in &ours {
        let name = format!("{}.{}", definition.spec.names.plural, definition.spec.group);
        let Some(found) = there.iter().find(|found| text(found, "/metadata/name") == name) else {
            wrong.push(format!("{} is missing", definition.spec.names.kind));
            continue;
        };
        let established = conditions(found).any(|(kind, status, _)| kind == "Established" && status == "True");
        if !established {
            wrong.push(format!("{} is not established", definition.spec.names.kind));
            continue;
        }
        let ours = serde_json::to_value(definition).unwrap_or_default();
        let missing: Vec<_> = fields(&ours).difference(&fields(found)).cloned().collect();
        if let Some(first) = missing.first() {
            wrong.push(format!("{} is of another version: it has no {first}", definition.spec.names.kind));
        }
    }
    if wrong.is_empty() {
        return Check::ok(NAME, format!("all {} are there, in the version of this command", ours.len()));
    }
    Check::failed(NAME, some(&wrong), advice)
}

/// The dotted names of all fields that a definition has in its first version.
fn fields(definition: &Value) -> BTreeSet<String> {
    fn walk(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            walk(inner, &path, found);
            found.insert(path);
        }
        if schema["items"].is_object() {
            walk(&schema["items"], path, found);
        }
    }
    let mut found = BTreeSet::new();
    let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema");
    for part in ["spec", "status"] {
        if let Some(schema) = schema.and_then(|schema| schema.pointer(&format!("/properties/{part}"))) {
            walk(schema, part, &mut found);
        }
    }
    found
}

fn operator(facts: &Facts) -> Check {
    const NAME: &str = "operator";
    let operators = match listed(facts.operators.as_ref()) {
        Ok(operators) => operators,
        Err(reason) => return Check::skipped(NAME, reason),
    };
    if operators.is_empty() {
        return Check::failed(NAME, "there is none in this cluster", "helm install castgate charts/castgate");
    }
    let mut wrong = Vec::new();
    let mut right = Vec::new();
    let home = operators.first().map(|operator| text(operator, "/metadata/namespace")).unwrap_or_default();
    let mut advice = format!("kubectl logs -n {home} deployment/castgate-operator");
    for operator in operators {
        let (wanted, ready) = (number(operator, "/spec/replicas"), number(operator, "/status/readyReplicas"));
        let says = format!("{}: {ready} of {} Ready", title(operator), count_of_i64(wanted, "replica", "replicas"));
        if wanted == 0 {
            wrong.push(format!("{} is scaled to 0", title(operator)));
            advice = format!("kubectl scale -n {home} deployment/castgate-operator --replicas=2");
        } else if ready < wanted {
            wrong.push(says);
        } else {
            right.push(says);
        }
    }
    if wrong.is_empty() {
        return Check::ok(NAME, right.join("; "));
    }
    wrong.extend(listed(facts.operator_pods.as_ref()).unwrap_or_default().iter().filter_map(pod_trouble));
    Check::failed(NAME, some(&wrong), advice)
}

fn lease(facts: &Facts) -> Check {
    const NAME: &str = "lease";
    let (leases, pods) = match (listed(facts.leases.as_ref()), listed(facts.operator_pods.as_ref())) {
        (Ok(leases), Ok(pods)) => (leases, pods),
        (Err(reason), _) | (_, Err(reason)) => return Check::skipped(NAME, reason),
    };
    let Some(lease) = leases.iter().find(|lease| text(lease, "/metadata/name") == "castgate-operator") else {
        return Check::failed(
            NAME,
            "no operator has ever taken the Lease castgate-operator",
            "see the check `operator`",
        );
    };
    let holder = text(lease, "/spec/holderIdentity");
    let advice = "nothing is written meanwhile; another replica takes it as soon as one runs";
    if holder.is_empty() {
        return Check::failed(NAME, "nobody holds it", advice);
    }
    let renewed = text(lease, "/spec/renewTime").parse::<Timestamp>().map(Timestamp::as_second);
    let silent = renewed.map_or(i64::MAX, |renewed| facts.now.saturating_sub(renewed));
    if silent > number(lease, "/spec/leaseDurationSeconds") + CLOCK_SLACK_SECONDS {
        return Check::failed(NAME, format!("{holder} holds it and has not renewed it for {silent} s"), advice);
    }
    if !pods.iter().any(|pod| text(pod, "/metadata/name") == holder) {
        return Check::failed(NAME, format!("{holder} holds it, and there is no such pod any more"), advice);
    }
    Check::ok(NAME, format!("{holder} holds it"))
}

fn authority(facts: &Facts, fleet: &Fleet) -> Check {
    const NAME: &str = "authority";
    let maps = match listed(facts.config_maps.as_ref()) {
        Ok(maps) => maps,
        Err(reason) => return Check::skipped(NAME, reason),
    };
    let namespaces = namespaces(fleet);
    if namespaces.is_empty() {
        return Check::skipped(NAME, "there are no objects that agents run for");
    }
    let has_bundle = |namespace: &str| {
        maps.iter().any(|map| {
            let ours = text(map, "/metadata/name") == "castgate-ca" && text(map, "/metadata/namespace") == namespace;
            ours && map
                .pointer("/data/ca.crt")
                .and_then(Value::as_str)
                .is_some_and(|pem| pem.contains("BEGIN CERTIFICATE"))
        })
    };
    let lacking: Vec<_> = namespaces.iter().filter(|namespace| !has_bundle(namespace)).cloned().collect();
    if lacking.is_empty() {
        return Check::ok(
            NAME,
            format!("ConfigMap castgate-ca is in {}", some(&namespaces.into_iter().collect::<Vec<_>>())),
        );
    }
    let says = format!("no certificate in ConfigMap castgate-ca in {}: agents there trust nobody", some(&lacking));
    Check::failed(NAME, says, "the operator writes it: see the checks above and its log")
}

fn objects(fleet: &Fleet) -> Check {
    const NAME: &str = "objects";
    if fleet.is_empty() {
        return Check::failed(
            NAME,
            "there is no TunnelServer and no TunnelDatabase here",
            "kubectl apply -f examples/isp/",
        );
    }
    let problems: Vec<_> =
        fleet.problems().into_iter().filter(|problem| !problem.object.starts_with("TunnelEndpoint")).collect();
    let Some(Problem { advice, .. }) = problems.first() else {
        let all = fleet.servers.len() + fleet.databases.len();
        return Check::ok(NAME, format!("{} accepted and Ready", count_of(all, "object is", "objects are")));
    };
    let named: Vec<_> = problems
        .iter()
        .map(|Problem { object, reason, message, .. }| format!("{object}: {reason}, {message}"))
        .collect();
    Check::failed(NAME, some(&named), advice.clone())
}

fn pods(facts: &Facts) -> Check {
    const NAME: &str = "pods";
    let (workloads, pods) = match (listed(facts.workloads.as_ref()), listed(facts.pods.as_ref())) {
        (Ok(workloads), Ok(pods)) => (workloads, pods),
        (Err(reason), _) | (_, Err(reason)) => return Check::skipped(NAME, reason),
    };
    let mut wrong = Vec::new();
    let mut running = 0;
    for workload in workloads {
        let daemons = text(workload, "/kind") == "DaemonSet";
        let (wanted, ready) = if daemons {
            (number(workload, "/status/desiredNumberScheduled"), number(workload, "/status/numberReady"))
        } else {
            (number(workload, "/spec/replicas"), number(workload, "/status/readyReplicas"))
        };
        running += ready;
        if ready < wanted {
            wrong.push(format!("{} {}: {ready} of {wanted} Ready", text(workload, "/kind"), title(workload)));
        }
    }
    if workloads.is_empty() {
        return Check::skipped(NAME, "no agent runs here");
    }
    if wrong.is_empty() {
        let says = format!(
            "{} Ready in {}",
            count_of_i64(running, "pod is", "pods are"),
            count_of(workloads.len(), "workload", "workloads")
        );
        return Check::ok(NAME, says);
    }
    wrong.extend(pods.iter().filter_map(pod_trouble));
    let home = workloads.first().map(|workload| text(workload, "/metadata/namespace")).unwrap_or_default();
    Check::failed(NAME, some(&wrong), format!("kubectl describe pods -n {home}"))
}

fn streams(fleet: &Fleet) -> Check {
    const NAME: &str = "streams";
    if fleet.endpoints.is_empty() {
        return Check::skipped(NAME, "no agent has ever reported to the operator");
    }
    let lost: Vec<_> = fleet
        .endpoints
        .iter()
        .filter_map(|endpoint| {
            let condition = endpoint.condition("Connected").filter(|condition| condition.status != "True")?;
            Some(format!("{} on {}: {}, {}", endpoint.title(), endpoint.spec.node, condition.reason, condition.message))
        })
        .collect();
    if lost.is_empty() {
        return Check::ok(
            NAME,
            format!("{} connected to the operator", count_of(fleet.endpoints.len(), "agent is", "agents are")),
        );
    }
    let advice = "can the node reach the Service castgate-operator, and resolve its name? Its agent goes on with what it carries";
    Check::failed(NAME, some(&lost), advice)
}

fn refusals(fleet: &Fleet) -> Check {
    const NAME: &str = "refusals";
    if fleet.endpoints.is_empty() {
        return Check::skipped(NAME, "no agent has ever reported to the operator");
    }
    let refused: Vec<_> = fleet
        .endpoints
        .iter()
        .filter_map(|endpoint| Some(format!("{}: {}", endpoint.title(), endpoint.status.last_refusal.as_ref()?)))
        .collect();
    if refused.is_empty() {
        return Check::ok(NAME, "no agent refused what it was told to do");
    }
    Check::failed(
        NAME,
        some(&refused),
        "correct the object that the sentence names; the agent goes on with what it had",
    )
}

fn registrations(fleet: &Fleet) -> Check {
    const NAME: &str = "registrations";
    let all = || fleet.endpoints.iter().flat_map(|endpoint| &endpoint.status.registrations);
    // An agent and the adapter that registers for it both tell of one registration.
    let wrong: BTreeMap<String, String> = all()
        .filter(|registration| registration.state != "registered")
        .map(|registration| {
            let refusal = registration.last_refusal.as_ref().map_or_else(String::new, |refusal| format!(": {refusal}"));
            let what = format!("{} at {}", registration.entry, registration.parent);
            (what.clone(), format!("{what} is {}{refusal}", registration.state))
        })
        .collect();
    if wrong.is_empty() {
        let entries: BTreeSet<_> = all().map(|registration| (&registration.parent, &registration.entry)).collect();
        if entries.is_empty() {
            return Check::skipped(NAME, "no object names a database above it");
        }
        return Check::ok(
            NAME,
            format!("{} at the databases above", count_of(entries.len(), "entry stands", "entries stand")),
        );
    }
    let advice = "is the database above reachable from the pod castgate-adapter, and do login, password and networks match its account?";
    Check::failed(NAME, some(&wrong.into_values().collect::<Vec<_>>()), advice)
}

fn databases(facts: &Facts, fleet: &Fleet) -> Check {
    const NAME: &str = "databases";
    if fleet.databases.is_empty() {
        return Check::skipped(NAME, "there is no TunnelDatabase here");
    }
    let (services, slices) = match (listed(facts.services.as_ref()), listed(facts.slices.as_ref())) {
        (Ok(services), Ok(slices)) => (services, slices),
        (Err(reason), _) | (_, Err(reason)) => return Check::skipped(NAME, reason),
    };
    let mut wrong = Vec::new();
    let mut right = Vec::new();
    for database in &fleet.databases {
        let namespace = &database.metadata.namespace;
        let name = format!("tdb-{}", database.metadata.name);
        let is_ours = |object: &&Value| text(object, "/metadata/namespace") == *namespace;
        let Some(service) = services.iter().filter(is_ours).find(|service| text(service, "/metadata/name") == name)
        else {
            wrong.push(format!("{} has no Service {name}", database.title()));
            continue;
        };
        let answering = slices
            .iter()
            .filter(is_ours)
            .filter(|slice| text(slice, "/metadata/labels/kubernetes.io~1service-name") == name)
            .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten())
            .any(|endpoint| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false)));
        if answering {
            right.push(format!("{namespace}/{name} ({})", way_in(service)));
        } else {
            wrong.push(format!("nothing answers behind Service {namespace}/{name}"));
        }
    }
    if wrong.is_empty() {
        return Check::ok(NAME, format!("clients ask at {}; --tds tries it from here", some(&right)));
    }
    Check::failed(NAME, some(&wrong), "see the check `pods`")
}

/// How clients reach a Service, as far as it tells.
fn way_in(service: &Value) -> String {
    let port = service.pointer("/spec/ports/0").cloned().unwrap_or_default();
    let kind = text(service, "/spec/type");
    let balancer = service.pointer("/status/loadBalancer/ingress/0").cloned().unwrap_or_default();
    let host = [text(&balancer, "/ip"), text(&balancer, "/hostname")].into_iter().find(|host| !host.is_empty());
    match (kind, host, port["nodePort"].as_i64()) {
        ("LoadBalancer", Some(host), _) => format!("{host}:{}", number(&port, "/port")),
        ("LoadBalancer" | "NodePort", None, Some(node_port)) => format!("port {node_port} of its node"),
        _ => format!("{}:{}, within the cluster", text(service, "/spec/clusterIP"), number(&port, "/port")),
    }
}

/// Why a pod is not Ready; `None` when it is, or has ended well.
fn pod_trouble(pod: &Value) -> Option<String> {
    let phase = text(pod, "/status/phase");
    let failed = |wanted: &str| {
        conditions(pod).find(|(kind, status, _)| *kind == wanted && *status != "True").map(|(_, _, message)| message)
    };
    failed("Ready").filter(|_| phase != "Succeeded").or_else(|| failed("PodScheduled"))?;
    let containers = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let waiting = containers.into_iter().flatten().find_map(|container| {
        let state = container.pointer("/state/waiting").or_else(|| container.pointer("/lastState/terminated"))?;
        Some([text(state, "/reason"), text(state, "/message")].join(" ").trim().to_owned())
    });
    let why = failed("PodScheduled").map(str::to_owned).or(waiting).unwrap_or_else(|| phase.to_owned());
    Some(format!("pod {}: {why}", title(pod)))
}

/// Type, status and message of each condition.
fn conditions(object: &Value) -> impl Iterator<Item = (&str, &str, &str)> {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let rows = conditions.into_iter().flatten();
    rows.map(|condition| (text(condition, "/type"), text(condition, "/status"), text(condition, "/message")))
}

/// The namespaces in which agents run.
fn namespaces(fleet: &Fleet) -> BTreeSet<String> {
    let servers = fleet.servers.iter().map(|server| &server.metadata);
    let databases = fleet.databases.iter().map(|database| &database.metadata);
    servers.chain(databases).map(|metadata| metadata.namespace.clone()).collect()
}

fn listed(list: Option<&Listed>) -> Result<&[Value], String> {
    match list {
        Some(Ok(items)) => Ok(items),
        Some(Err(reason)) => Err(reason.clone()),
        None => Err("it was not asked for".to_owned()),
    }
}

/// The first few of several troubles.
fn some(troubles: &[String]) -> String {
    let named = troubles.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join("; ");
    match troubles.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

fn title(object: &Value) -> String {
    format!("{}/{}", text(object, "/metadata/namespace"), text(object, "/metadata/name"))
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

fn count_of_i64(count: i64, one: &str, many: &str) -> String {
    count_of(usize::try_from(count).unwrap_or_default(), one, many)
}

#[cfg(test)]
mod tests;
