//! What objects are told: accepted or not, ready or not, and why.

use super::*;
use castgate_crds::tunnel_endpoint::{AmtStatus, EndpointRole, Registration, TunnelEndpointSpec, UpstreamStatus};

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn endpoint(node: &str, ready: bool, registered: &[&str]) -> TunnelEndpoint {
    let spec = TunnelEndpointSpec { role: EndpointRole::Server, owner_name: "edge".to_owned(), node: node.to_owned() };
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
        Self { acceptance: Acceptance::Accepted, active, wanted: count, pool: count, problems: Vec::new(), endpoints }
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
    let case =
        Case::of(&["n1", "n2"], vec![endpoint("n1", true, &["registered"]), endpoint("n2", false, &["registered"])]);
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
