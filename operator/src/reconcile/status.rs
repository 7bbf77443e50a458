//! What an object of ours is told about itself, from its acceptance, its plan and its endpoints. Pure.
//!
//! ```text
//!   accepted? ──no──▶ Accepted=False, Ready=False NotAccepted, Stalled=True
//!       │ yes
//!       ▼
//!   endpoints of the active nodes: each Ready? registrations complete? ──▶ Ready, Reconciling, Stalled
//! ```

use castgate_crds::tunnel_database::TunnelDatabaseStatus;
use castgate_crds::tunnel_endpoint::{TunnelEndpoint, TunnelEndpointStatus};
use castgate_crds::tunnel_relay::TunnelRelayStatus;
use castgate_crds::tunnel_server::TunnelServerStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use super::conditions::{Saying, conditions};

/// Whether an object can be served at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
    /// It can.
    Accepted,
    /// It cannot: a reason for programs, a sentence for people.
    Refused(&'static str, String),
}

impl Acceptance {
    fn sayings(&self) -> Vec<Saying> {
        match self {
            Self::Accepted => vec![Saying::new("Accepted", true, "Accepted", "the object is valid and is served")],
            Self::Refused(reason, message) => vec![
                Saying::new("Accepted", false, reason, message.clone()),
                Saying::new("Ready", false, "NotAccepted", message.clone()),
                Saying::new("Reconciling", false, "NotAccepted", "nothing is under way"),
                Saying::new("Stalled", true, reason, message.clone()),
            ],
        }
    }
}

/// What concerns one tunnel server or tunnel relay.
#[derive(Debug)]
pub struct ServerFacts<'a> {
    /// Generation of its spec.
    pub generation: Option<i64>,
    /// Its status so far.
    pub before: &'a TunnelServerStatus,
    /// Whether it can be served.
    pub acceptance: &'a Acceptance,
    /// Nodes that were chosen to carry tunnels.
    pub active: Vec<String>,
    /// How many nodes should.
    pub wanted: usize,
    /// Nodes of the pool.
    pub pool: usize,
    /// What is wrong with its workload or with single nodes, one sentence each.
    pub problems: Vec<String>,
    /// Its endpoints.
    pub endpoints: Vec<&'a TunnelEndpoint>,
    /// Whether it wants to be registered anywhere.
    pub registers: bool,
    /// Labels of its pods.
    pub selector: String,
}

/// The status of a tunnel server.
#[must_use]
pub fn server(facts: &ServerFacts, now: Timestamp) -> TunnelServerStatus {
    carrier(facts, None, now)
}

/// The status of a tunnel relay.
#[must_use]
pub fn relay(facts: &ServerFacts, now: Timestamp) -> TunnelRelayStatus {
    let above = above(facts);
    TunnelRelayStatus { tunnels: carrier(facts, Some(&above), now), upstream: Some(above.ratio()) }
}

fn carrier(facts: &ServerFacts, above: Option<&Above>, now: Timestamp) -> TunnelServerStatus {
    let ServerFacts { generation, before, acceptance, active, wanted, pool, problems, endpoints, registers, selector } =
        facts;
    let states = || endpoints.iter().filter_map(|endpoint| endpoint.status.as_ref());
    let ready: Vec<&str> = endpoints
        .iter()
        .filter(|endpoint| active.contains(&endpoint.spec.node))
        .filter(|endpoint| endpoint.status.as_ref().is_some_and(|status| status.active && is_ready(status)))
        .map(|endpoint| endpoint.spec.node.as_str())
        .collect();
    let registered = registered(states());
    let mut sayings = acceptance.sayings();
    if **acceptance == Acceptance::Accepted {
        let missing: Vec<&String> = active.iter().filter(|node| !ready.contains(&node.as_str())).collect();
        let (holds, reason, message) = if *pool == 0 {
            (false, "NoNodes", "no node matches nodeSelector and tolerations".to_owned())
        } else if *wanted == 0 {
            (true, "ScaledToZero", "no node carries tunnels, as asked".to_owned())
        } else if let Some((node, refusal)) = refusal(endpoints) {
            (false, "AgentRefused", format!("the agent on {node} refused its snapshot: {refusal}"))
        } else if let Some(problem) = problems.first() {
            (false, "NotReady", problem.clone())
        } else if let Some(node) = missing.first() {
            let why = reason_of(endpoints, node);
            (false, "NotReady", format!("{} of {wanted} nodes carry tunnels; {node}: {why}", ready.len()))
        } else if active.len() < *wanted {
            (false, "NotReady", format!("{} of {wanted} nodes carry tunnels; no other node is ready", ready.len()))
        } else if let Some(sentence) = above.and_then(Above::sentence) {
            (false, "NoUpstream", sentence)
        } else if *registers && !registered.complete() {
            (false, "NotRegistered", registered.sentence())
        } else {
            (true, "Ready", format!("{} of {wanted} nodes carry tunnels", ready.len()))
        };
        sayings.extend(ready_and_kin(holds, reason, message));
    }
    TunnelServerStatus {
        observed_generation: *generation,
        conditions: conditions(&before.conditions, &sayings, *generation, now),
        replicas: small(ready.len()),
        selector: Some(selector.clone()),
        nodes: Some(format!("{}/{wanted}", ready.len())),
        tunnels: states().map(|status| status.tunnels).sum(),
        endpoints: states()
            .filter_map(|status| status.amt.as_ref())
            .map(|amt| amt.endpoints)
            .fold(None, |sum, endpoints| Some(sum.unwrap_or(0) + endpoints)),
        channels: states().map(|status| status.channels).max().unwrap_or_default(),
        registrations: registers.then(|| registered.ratio()),
    }
}

/// What concerns one tunnel database.
#[derive(Debug)]
pub struct DatabaseFacts<'a> {
    /// Generation of its spec.
    pub generation: Option<i64>,
    /// Its status so far.
    pub before: &'a TunnelDatabaseStatus,
    /// Whether it can be served.
    pub acceptance: &'a Acceptance,
    /// What is wrong with its workload or its place, one sentence each.
    pub problems: &'a [String],
    /// How many replicas there should be.
    pub wanted: usize,
    /// Nodes of the replicas that Kubernetes found ready: a Service leads to no others.
    pub ready_pods: Vec<&'a str>,
    /// Its endpoints.
    pub endpoints: Vec<&'a TunnelEndpoint>,
    /// Whether it wants to be registered anywhere.
    pub registers: bool,
    /// Where clients reach it.
    pub service: Option<String>,
    /// Labels of its pods.
    pub selector: String,
}

/// The status of a tunnel database.
#[must_use]
pub fn database(facts: &DatabaseFacts, now: Timestamp) -> TunnelDatabaseStatus {
    let DatabaseFacts {
        generation,
        before,
        acceptance,
        problems,
        wanted,
        ready_pods,
        endpoints,
        registers,
        service,
        selector,
    } = facts;
    let states = || endpoints.iter().filter_map(|endpoint| endpoint.status.as_ref());
    let answers = |endpoint: &TunnelEndpoint| {
        endpoint.status.as_ref().is_some_and(|status| status.active && is_ready(status))
            && ready_pods.contains(&endpoint.spec.node.as_str())
    };
    let (answering, silent): (Vec<&TunnelEndpoint>, Vec<_>) =
        endpoints.iter().copied().partition(|endpoint| answers(endpoint));
    let answering = answering.len();
    let registered = registered(states());
    let mut sayings = acceptance.sayings();
    if **acceptance == Acceptance::Accepted {
        let (holds, reason, message) = if let Some((node, refusal)) = refusal(endpoints) {
            (false, "AgentRefused", format!("the agent on {node} refused its snapshot: {refusal}"))
        } else if let Some(problem) = problems.first() {
            (false, "NotReady", problem.clone())
        } else if let Some(node) = store_lost(endpoints) {
            let message = format!(
                "the database on {node} has lost its etcd: nothing can be registered, and questions are answered from memory"
            );
            (false, "StoreLost", message)
        } else if answering < *wanted {
            let why = silent.first().map(|endpoint| reason_of(endpoints, &endpoint.spec.node));
            let why = why.unwrap_or_else(|| "its pod has not reported yet".to_owned());
            let message =
                if *wanted == 1 { why } else { format!("{answering} of {wanted} replicas answer; the next: {why}") };
            (false, "NotReady", message)
        } else if *registers && !registered.complete() {
            (false, "NotRegistered", registered.sentence())
        } else {
            let message = if *wanted == 1 { "it answers".to_owned() } else { format!("{answering} replicas answer") };
            (true, "Ready", message)
        };
        sayings.extend(ready_and_kin(holds, reason, message));
    }
    TunnelDatabaseStatus {
        observed_generation: *generation,
        conditions: conditions(&before.conditions, &sayings, *generation, now),
        replicas: small(answering),
        selector: Some(selector.clone()),
        answering: Some(format!("{answering}/{wanted}")),
        entries: states().map(|status| status.entries).max().unwrap_or_default(),
        registrations: registers.then(|| registered.ratio()),
        service: service.clone(),
    }
}

/// The conditions of an object that nothing runs for: it is accepted, or not; `more` is said of one that is.
#[must_use]
pub fn acceptance_alone(
    before: &[Condition],
    acceptance: &Acceptance,
    more: Option<Saying>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut sayings = acceptance.sayings();
    if *acceptance == Acceptance::Accepted {
        sayings.extend(ready_and_kin(true, "Accepted", "the object is valid".to_owned()));
        sayings.extend(more);
    }
    conditions(before, &sayings, generation, now)
}

/// Ready, and what kstatus wants beside it: under way, or stuck until somebody does something.
fn ready_and_kin(holds: bool, reason: &'static str, message: String) -> [Saying; 3] {
    let stuck = !holds && matches!(reason, "AgentRefused" | "NoNodes");
    let reconciling = !holds && !stuck;
    [
        Saying::new("Ready", holds, reason, message.clone()),
        Saying::new(
            "Reconciling",
            reconciling,
            reason,
            if reconciling { message.clone() } else { "nothing is under way".to_owned() },
        ),
        Saying::new("Stalled", stuck, reason, if stuck { message } else { "nothing is in the way".to_owned() }),
    ]
}

fn is_ready(status: &TunnelEndpointStatus) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn refusal<'a>(endpoints: &[&'a TunnelEndpoint]) -> Option<(&'a str, &'a str)> {
    endpoints
        .iter()
        .find_map(|endpoint| Some((endpoint.spec.node.as_str(), endpoint.status.as_ref()?.last_refusal.as_deref()?)))
}

/// The node of a replica that has lost its etcd, as far as it can still tell.
fn store_lost<'a>(endpoints: &[&'a TunnelEndpoint]) -> Option<&'a str> {
    let lost = endpoints.iter().find(|endpoint| endpoint.status.as_ref().is_some_and(|status| status.store_lost));
    lost.map(|endpoint| endpoint.spec.node.as_str())
}

fn reason_of(endpoints: &[&TunnelEndpoint], node: &str) -> String {
    let status =
        endpoints.iter().find(|endpoint| endpoint.spec.node == node).and_then(|endpoint| endpoint.status.as_ref());
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let wrong = conditions.iter().find(|condition| condition.status != "True");
    match wrong {
        Some(condition) => condition.message.clone(),
        None if conditions.is_empty() => "its agent has not reported yet".to_owned(),
        // As far as the agent knows; the probes of its pod say more.
        None => "its pod is not ready yet".to_owned(),
    }
}

/// Servers above the nodes of a relay.
#[derive(Debug, Default)]
struct Above {
    /// Nodes that have one, or need none at this moment: nobody there wants a channel.
    served: usize,
    wanted: usize,
    /// What the first node without one says.
    wrong: Option<String>,
}

fn above(facts: &ServerFacts) -> Above {
    let mut above = Above::default();
    let active = facts.endpoints.iter().filter(|endpoint| facts.active.contains(&endpoint.spec.node));
    let states = active.filter_map(|endpoint| Some((&endpoint.spec.node, endpoint.status.as_ref()?)));
    for (node, status) in states.filter(|(_, status)| status.active) {
        let rows = &status.upstreams;
        above.wanted += 1;
        if rows.is_empty() || rows.iter().any(|row| row.state == "connected") {
            above.served += 1;
        } else if above.wrong.is_none() {
            let told = rows.iter().find(|row| row.last_failure.is_some()).or(rows.first());
            above.wrong = told.map(|row| {
                let server = if row.server.is_empty() { row.protocol.as_str() } else { row.server.as_str() };
                let why = row.last_failure.as_deref().unwrap_or("no answer yet");
                format!("{node}: {} {server}: {why}", row.state)
            });
        }
    }
    above
}

impl Above {
    fn ratio(&self) -> String {
        format!("{}/{}", self.served, self.wanted)
    }

    fn sentence(&self) -> Option<String> {
        let wrong = self.wrong.as_ref()?;
        Some(format!("{} of {} nodes have the server above that they need; {wrong}", self.served, self.wanted))
    }
}

/// Registrations of all endpoints together.
#[derive(Debug, Default)]
struct Registered {
    standing: usize,
    wanted: usize,
    wrong: Option<String>,
}

fn registered<'a>(states: impl Iterator<Item = &'a TunnelEndpointStatus>) -> Registered {
    let mut all = Registered::default();
    for registration in states.filter(|status| status.active).flat_map(|status| &status.registrations) {
        all.wanted += 1;
        if registration.state == "registered" {
            all.standing += 1;
        } else if all.wrong.is_none() {
            let said = registration.last_refusal.as_deref().unwrap_or("no answer yet");
            all.wrong = Some(format!("{} at {}: {said}", registration.entry, registration.parent));
        }
    }
    all
}

impl Registered {
    fn complete(&self) -> bool {
        self.wanted > 0 && self.standing == self.wanted
    }

    fn ratio(&self) -> String {
        format!("{}/{}", self.standing, self.wanted)
    }

    fn sentence(&self) -> String {
        let wrong = self.wrong.as_deref().unwrap_or("no agent has reported a registration yet");
        format!("{} of {} registrations stand; {wrong}", self.standing, self.wanted)
    }
}

fn small(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
