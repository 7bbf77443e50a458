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
mod tests {
    use super::*;
    use castgate_crds::tunnel_endpoint::{AmtStatus, EndpointRole, Registration, TunnelEndpointSpec, UpstreamStatus};

    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn endpoint(node: &str, ready: bool, registered: &[&str]) -> TunnelEndpoint {
        let spec =
            TunnelEndpointSpec { role: EndpointRole::Server, owner_name: "edge".to_owned(), node: node.to_owned() };
        let mut endpoint = TunnelEndpoint::new(node, spec);
        let saying = Saying::new("Ready", ready, "X", format!("{node} says so"));
        let registrations = registered.iter().map(|state| Registration {
            parent: "tds:5632".to_owned(),
            entry: format!("TS {node}"),
            state: (*state).to_owned(),
            last_refusal: (*state == "refused").then(|| "403".to_owned()),
            ..Registration::default()
        });
        endpoint.status = Some(TunnelEndpointStatus {
            conditions: conditions(&[], &[saying], None, now()),
            active: true,
            tunnels: 3,
            channels: 2,
            registrations: registrations.collect(),
            ..TunnelEndpointStatus::default()
        });
        endpoint
    }

    struct Case {
        acceptance: Acceptance,
        active: Vec<String>,
        wanted: usize,
        pool: usize,
        problems: Vec<String>,
        endpoints: Vec<TunnelEndpoint>,
    }

    impl Case {
        fn of(nodes: &[&str], endpoints: Vec<TunnelEndpoint>) -> Self {
            let active: Vec<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
            let count = active.len();
            Self {
                acceptance: Acceptance::Accepted,
                active,
                wanted: count,
                pool: count,
                problems: Vec::new(),
                endpoints,
            }
        }

        fn look(&self) -> TunnelServerStatus {
            server(&self.facts(&TunnelServerStatus::default()), now())
        }

        fn look_at_relay(&self) -> TunnelRelayStatus {
            relay(&self.facts(&TunnelServerStatus::default()), now())
        }

        fn facts<'a>(&'a self, before: &'a TunnelServerStatus) -> ServerFacts<'a> {
            ServerFacts {
                generation: Some(4),
                before,
                acceptance: &self.acceptance,
                active: self.active.clone(),
                wanted: self.wanted,
                pool: self.pool,
                problems: self.problems.clone(),
                endpoints: self.endpoints.iter().collect(),
                registers: true,
                selector: "a=b".to_owned(),
            }
        }
    }

    fn said<'a>(status: &'a TunnelServerStatus, kind: &str) -> (&'a str, &'a str, &'a str) {
        let condition = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        (&condition.status, &condition.reason, &condition.message)
    }

    #[test]
    fn a_server_is_ready_when_every_node_carries_tunnels_and_is_registered() {
        let case =
            Case::of(&["n1", "n2"], vec![endpoint("n1", true, &["registered"]), endpoint("n2", true, &["registered"])]);
        let status = case.look();
        assert_eq!(said(&status, "Ready"), ("True", "Ready", "2 of 2 nodes carry tunnels"));
        assert_eq!((status.nodes.as_deref(), status.registrations.as_deref()), (Some("2/2"), Some("2/2")));
        assert_eq!((status.tunnels, status.channels, status.replicas), (6, 2, 2));
        assert_eq!(said(&status, "Reconciling").0, "False");
        assert_eq!(said(&status, "Stalled").0, "False");
    }

    #[test]
    fn a_node_that_is_not_ready_is_named_with_its_own_words() {
        let case = Case::of(
            &["n1", "n2"],
            vec![endpoint("n1", true, &["registered"]), endpoint("n2", false, &["registered"])],
        );
        let status = case.look();
        assert_eq!(said(&status, "Ready"), ("False", "NotReady", "1 of 2 nodes carry tunnels; n2: n2 says so"));
        assert_eq!(said(&status, "Reconciling").0, "True");
    }

    #[test]
    fn a_registration_that_does_not_stand_is_named_with_what_the_parent_said() {
        let status = Case::of(&["n1"], vec![endpoint("n1", true, &["refused"])]).look();
        assert_eq!(
            said(&status, "Ready"),
            ("False", "NotRegistered", "0 of 1 registrations stand; TS n1 at tds:5632: 403")
        );
        let nothing = Case::of(&["n1"], vec![endpoint("n1", true, &[])]).look();
        assert_eq!(said(&nothing, "Ready").1, "NotRegistered");
    }

    #[test]
    fn gateways_of_all_nodes_are_counted_where_there_is_amt() {
        let mut case =
            Case::of(&["n1", "n2"], vec![endpoint("n1", true, &["registered"]), endpoint("n2", true, &["registered"])]);
        assert_eq!(case.look().endpoints, None);
        for (endpoint, endpoints) in case.endpoints.iter_mut().zip([3, 4]) {
            endpoint.status.as_mut().unwrap().amt = Some(AmtStatus { endpoints, ..AmtStatus::default() });
        }
        assert_eq!(case.look().endpoints, Some(7));
    }

    #[test]
    fn a_relay_without_the_server_above_is_not_ready_and_says_what_its_agent_says() {
        let row = |state: &str, failure: Option<&str>| UpstreamStatus {
            server: "192.0.2.1:2268".to_owned(),
            protocol: "AMT".to_owned(),
            state: state.to_owned(),
            last_failure: failure.map(str::to_owned),
            ..UpstreamStatus::default()
        };
        let mut case =
            Case::of(&["n1", "n2"], vec![endpoint("n1", true, &["registered"]), endpoint("n2", true, &["registered"])]);
        let upstream = |case: &mut Case, rows: Vec<UpstreamStatus>| {
            case.endpoints[1].status.as_mut().unwrap().upstreams = rows;
        };
        // Who wants nothing needs nobody above.
        assert_eq!(case.look_at_relay().upstream.as_deref(), Some("2/2"));
        assert_eq!(said(&case.look_at_relay().tunnels, "Ready").1, "Ready");
        upstream(&mut case, vec![row("held", Some("silent for 4 s")), row("searching", None)]);
        let status = case.look_at_relay();
        assert_eq!(status.upstream.as_deref(), Some("1/2"));
        let sentence = "1 of 2 nodes have the server above that they need; n2: held 192.0.2.1:2268: silent for 4 s";
        assert_eq!(said(&status.tunnels, "Ready"), ("False", "NoUpstream", sentence));
        assert_eq!(said(&status.tunnels, "Reconciling").0, "True");
        upstream(&mut case, vec![row("held", Some("silent for 4 s")), row("connected", None)]);
        assert_eq!(said(&case.look_at_relay().tunnels, "Ready").1, "Ready");
        // What is above means nothing to a server.
        upstream(&mut case, vec![row("searching", None)]);
        assert_eq!(said(&case.look(), "Ready").1, "Ready");
    }

    #[test]
    fn a_refused_snapshot_stalls_until_somebody_acts() {
        let mut case = Case::of(&["n1"], vec![endpoint("n1", true, &["registered"])]);
        case.endpoints[0].status.as_mut().unwrap().last_refusal = Some("server.listen: no such address".to_owned());
        let status = case.look();
        assert_eq!(said(&status, "Ready").1, "AgentRefused");
        assert!(said(&status, "Stalled").2.contains("n1 refused its snapshot: server.listen"));
        assert_eq!(said(&status, "Stalled").0, "True");
    }

    #[test]
    fn a_database_that_has_lost_its_etcd_says_so() {
        let (acceptance, before) = (Acceptance::Accepted, TunnelDatabaseStatus::default());
        let mut endpoints = [endpoint("n1", true, &[]), endpoint("n2", true, &[])];
        endpoints[1].status.as_mut().unwrap().store_lost = true;
        let facts = DatabaseFacts {
            generation: Some(1),
            before: &before,
            acceptance: &acceptance,
            problems: &[],
            wanted: 2,
            ready_pods: vec!["n1", "n2"],
            endpoints: endpoints.iter().collect(),
            registers: false,
            service: None,
            selector: "a=b".to_owned(),
        };
        let status = database(&facts, now());
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "StoreLost"));
        assert!(ready.message.starts_with("the database on n2 has lost its etcd"), "{}", ready.message);
        assert_eq!(status.answering.as_deref(), Some("2/2"), "questions are answered");
    }

    #[test]
    fn a_database_is_ready_when_every_replica_answers_and_its_pods_are_ready() {
        let acceptance = Acceptance::Accepted;
        let before = TunnelDatabaseStatus::default();
        let endpoints = [endpoint("n1", true, &[]), endpoint("n2", true, &[]), endpoint("n3", false, &[])];
        let look = |wanted, count, ready_pods: &[&'static str]| {
            let facts = DatabaseFacts {
                generation: Some(1),
                before: &before,
                acceptance: &acceptance,
                problems: &[],
                wanted,
                ready_pods: ready_pods.to_vec(),
                endpoints: endpoints[..count].iter().collect(),
                registers: false,
                service: None,
                selector: "a=b".to_owned(),
            };
            let status = database(&facts, now());
            let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
            (status.answering.unwrap(), ready.status.clone(), ready.message.clone())
        };
        let told =
            |answering: &str, ready: &str, message: &str| (answering.to_owned(), ready.to_owned(), message.to_owned());
        assert_eq!(look(1, 1, &["n1"]), told("1/1", "True", "it answers"));
        assert_eq!(look(1, 1, &[]), told("0/1", "False", "its pod is not ready yet"));
        assert_eq!(look(1, 0, &[]), told("0/1", "False", "its pod has not reported yet"));
        assert_eq!(look(2, 2, &["n1", "n2"]), told("2/2", "True", "2 replicas answer"));
        let sentence = "2 of 3 replicas answer; the next: n3 says so";
        assert_eq!(look(3, 3, &["n1", "n2", "n3"]), told("2/3", "False", sentence));
        let sentence = "1 of 3 replicas answer; the next: its pod is not ready yet";
        assert_eq!(look(3, 2, &["n1"]), told("1/3", "False", sentence));
    }

    #[test]
    fn an_object_that_is_not_accepted_says_why_everywhere() {
        let mut case = Case::of(&[], Vec::new());
        case.acceptance = Acceptance::Refused("Invalid", "spec.x: is wrong".to_owned());
        let status = case.look();
        assert_eq!(said(&status, "Accepted"), ("False", "Invalid", "spec.x: is wrong"));
        assert_eq!(said(&status, "Ready"), ("False", "NotAccepted", "spec.x: is wrong"));
        assert_eq!(said(&status, "Stalled").0, "True");
    }

    #[test]
    fn no_node_is_stuck_and_none_wanted_is_fine() {
        assert_eq!(said(&Case::of(&[], Vec::new()).look(), "Ready").1, "NoNodes");
        let mut scaled = Case::of(&[], Vec::new());
        scaled.pool = 3;
        assert_eq!(said(&scaled.look(), "Ready").1, "ScaledToZero");
        assert_eq!(scaled.look().nodes.as_deref(), Some("0/0"));
    }

    #[test]
    fn saying_the_same_twice_is_no_change() {
        let case = Case::of(&["n1"], vec![endpoint("n1", true, &["registered"])]);
        let first = case.look();
        assert_eq!(server(&case.facts(&first), Timestamp::from_second(99).unwrap()), first);
    }
}
