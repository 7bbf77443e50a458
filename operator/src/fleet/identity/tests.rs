//! Everybody who is not the agent, one by one.

use super::*;

#[test]
fn each_role_gets_the_name_that_follows_from_its_pod() {
    for (case, agent, endpoint) in [
        (Case::server(), "isp/ts-edge@node-1", "ts-edge-node-1"),
        (Case::relay(), "isp/tr-edge@node-1", "tr-edge-node-1"),
        (Case::database(), "isp/tdb-root@node-1", "tdb-root-node-1"),
        (Case::adapter(), "isp/adapter@node-1", "adapter-node-1"),
    ] {
        let identity = case.identify().expect("it is the agent");
        assert_eq!((identity.agent().as_str(), identity.endpoint().as_str()), (agent, endpoint));
        assert_eq!(identity.namespace, "isp");
    }
    assert_eq!(Case::adapter().identify().unwrap().owner, "isp", "an adapter works for its namespace");
}

#[test]
fn a_name_with_hyphens_is_taken_whole() {
    let mut case = Case::server();
    case.pod().controller = Some(made_by("DaemonSet", "ts-north-ts-2"));
    case.pod().labels.insert(LABEL_OWNER.to_owned(), "north-ts-2".to_owned());
    case.hello.agent = "isp/ts-north-ts-2@node-1".to_owned();
    assert_eq!(case.identify().unwrap().owner, "north-ts-2");
}

#[test]
fn a_relay_is_not_the_server_of_its_name() {
    let mut case = Case::relay();
    case.hello.agent = "isp/ts-edge@node-1".to_owned();
    case.refused("hello", Code::PermissionDenied);
    let mut case = Case::relay();
    case.pod().labels.insert(LABEL_COMPONENT.to_owned(), "server".to_owned());
    case.refused("pod", Code::PermissionDenied);
}

#[test]
fn a_token_for_another_audience_is_refused() {
    for audiences in [vec![], vec!["https://kubernetes.default.svc"], vec!["castgate-operator-2", "CASTGATE-OPERATOR"]]
    {
        let mut case = Case::server();
        case.reviewed.audiences = audiences.into_iter().map(str::to_owned).collect();
        case.refused("audience", Code::Unauthenticated);
    }
}

#[test]
fn a_token_of_any_other_account_is_refused() {
    for username in [
        "admin",
        "system:node:node-1",
        "system:serviceaccount:isp",
        "system:serviceaccount:isp:default",
        "system:serviceaccount:isp:castgate-agent:x",
        "system:serviceaccount:isp:castgate-agents",
        "x:system:serviceaccount:isp:castgate-agent",
    ] {
        let mut case = Case::server();
        case.reviewed.username = username.to_owned();
        case.refused("account", Code::PermissionDenied);
    }
}

#[test]
fn a_token_that_is_not_bound_to_one_pod_on_one_node_is_refused() {
    for key in [POD_NAME, POD_UID, NODE_NAME] {
        for values in [None, Some(vec![]), Some(vec![""]), Some(vec!["a", "b"])] {
            let mut case = Case::server();
            match values {
                None => drop(case.reviewed.extra.remove(key)),
                Some(values) => {
                    let values = values.into_iter().map(str::to_owned).collect();
                    case.reviewed.extra.insert(key.to_owned(), values);
                }
            }
            case.refused("unbound", Code::PermissionDenied);
        }
    }
}

#[test]
fn the_pod_is_looked_for_in_the_namespace_of_the_token() {
    let mut case = Case::server();
    assert_eq!(pod_of(&case.reviewed), Ok(("isp", "ts-edge-abcde")));
    case.reviewed.username = "system:serviceaccount:other:castgate-agent".to_owned();
    assert_eq!(pod_of(&case.reviewed), Ok(("other", "ts-edge-abcde")));
    // Should such a pod be there, its agent is still not the one of `isp`.
    case.refused("hello", Code::PermissionDenied);
}

#[test]
fn a_pod_that_is_not_known_yet_is_to_try_again() {
    let mut case = Case::server();
    case.pod = None;
    case.refused("unknown-pod", Code::Unavailable);
}

#[test]
fn a_token_of_a_pod_that_was_replaced_is_refused() {
    let mut case = Case::server();
    case.pod().uid = "another".to_owned();
    case.refused("pod", Code::PermissionDenied);
}

#[test]
fn a_token_of_another_node_is_refused() {
    let mut case = Case::server();
    case.reviewed.extra.insert(NODE_NAME.to_owned(), vec!["node-2".to_owned()]);
    case.refused("pod", Code::PermissionDenied);

    let mut unbound = Case::server();
    unbound.pod().node = None;
    unbound.refused("pod", Code::PermissionDenied);

    // All is well with the token of node 2, but it asks for the snapshot of node 1.
    let mut honest = Case::server();
    honest.reviewed.extra.insert(NODE_NAME.to_owned(), vec!["node-2".to_owned()]);
    honest.pod().node = Some("node-2".to_owned());
    honest.refused("hello", Code::PermissionDenied);
}

#[test]
fn a_foreign_pod_with_stolen_labels_is_refused() {
    for controller in [
        None,
        Some(made_by("DaemonSet", "nginx")),
        Some(made_by("DaemonSet", "ts-")),
        Some(made_by("DaemonSet", "tdb-edge")),
        Some(made_by("ReplicaSet", "ts-edge")),
        Some(made_by("StatefulSet", "ts-edge")),
        Some(made_by("Job", "ts-edge")),
        Some(made_by("Deployment", "ts-edge")),
        Some(made_by("Deployment", "castgate-adapter")),
        Some(made_by("ReplicaSet", "castgate-adapter-evil-5d8f")),
    ] {
        let mut case = Case::server();
        case.pod().controller = controller;
        case.refused("pod", Code::PermissionDenied);
    }
}

#[test]
fn a_pod_without_the_labels_of_its_workload_is_refused() {
    for key in [LABEL_NAME, LABEL_COMPONENT, LABEL_OWNER] {
        let mut missing = Case::server();
        missing.pod().labels.remove(key);
        missing.refused("pod", Code::PermissionDenied);
        let mut other = Case::server();
        other.pod().labels.insert(key.to_owned(), "database".to_owned());
        other.refused("pod", Code::PermissionDenied);
    }
}

#[test]
fn each_role_runs_as_its_own_account() {
    for (mut case, other) in
        [(Case::server(), ADAPTER_ACCOUNT), (Case::database(), ADAPTER_ACCOUNT), (Case::adapter(), AGENT_ACCOUNT)]
    {
        // The token of one account from the pod of another.
        let mut borrowed = case.clone();
        borrowed.reviewed.username = format!("system:serviceaccount:isp:{other}");
        borrowed.refused("pod", Code::PermissionDenied);
        // A pod that really runs as the other.
        case.reviewed.username = format!("system:serviceaccount:isp:{other}");
        case.pod().service_account = other.to_owned();
        case.refused("pod", Code::PermissionDenied);
    }
}

#[test]
fn who_says_to_be_another_is_refused() {
    for agent in ["", "isp/ts-edge@node-2", "isp/ts-core@node-1", "other/ts-edge@node-1", "isp/tdb-edge@node-1"] {
        let mut case = Case::server();
        case.hello.agent = agent.to_owned();
        case.refused("hello", Code::PermissionDenied);
    }
    let mut case = Case::server();
    case.hello.node = "node-2".to_owned();
    case.refused("hello", Code::PermissionDenied);
}

#[test]
fn no_refusal_tells_a_stranger_what_is_there() {
    let refusals = [
        Refusal::NoToken,
        Refusal::Token("secret".to_owned()),
        Refusal::Audience(vec!["secret".to_owned()]),
        Refusal::Account("secret".to_owned()),
        Refusal::Unbound(POD_NAME),
        Refusal::UnknownPod("secret".to_owned()),
        Refusal::Pod { pod: "secret".to_owned(), reason: "secret".to_owned() },
        Refusal::Hello { is: "secret".to_owned(), says: "secret".to_owned() },
        Refusal::NoHello,
        Refusal::Review("secret".to_owned()),
        Refusal::Full(7),
    ];
    let labels: std::collections::BTreeSet<_> = refusals.iter().map(Refusal::label).collect();
    assert_eq!(labels.len(), refusals.len(), "each reason is counted apart");
    for refusal in refusals {
        let status = refusal.status();
        assert!(!status.message().is_empty());
        assert!(!status.message().contains("secret") && !status.message().contains('/'), "{}", status.message());
        assert_eq!(refusal.is_passing(), matches!(status.code(), Code::Unavailable | Code::ResourceExhausted));
    }
}

/// A token, a pod and a Hello that fit, to be spoilt by a test.
#[derive(Clone)]
struct Case {
    reviewed: Reviewed,
    pod: Option<PodFacts>,
    hello: Hello,
}

impl Case {
    fn server() -> Self {
        Self::new("ts-edge-abcde", AGENT_ACCOUNT, "server", Some("edge"), made_by("DaemonSet", "ts-edge"), "ts-edge")
    }

    fn relay() -> Self {
        Self::new("tr-edge-abcde", AGENT_ACCOUNT, "relay", Some("edge"), made_by("DaemonSet", "tr-edge"), "tr-edge")
    }

    fn database() -> Self {
        Self::new("tdb-root-0", AGENT_ACCOUNT, "database", Some("root"), made_by("StatefulSet", "tdb-root"), "tdb-root")
    }

    fn adapter() -> Self {
        let controller = made_by("Deployment", "castgate-adapter");
        Self::new("castgate-adapter-5d8f7-xyz", ADAPTER_ACCOUNT, "adapter", None, controller, "adapter")
    }

    fn new(
        pod: &str,
        account: &str,
        component: &str,
        owner: Option<&str>,
        controller: Controller,
        agent: &str,
    ) -> Self {
        let one = |value: &str| vec![value.to_owned()];
        let mut labels: BTreeMap<String, String> =
            [(LABEL_NAME, "castgate"), (LABEL_COMPONENT, component)].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        if let Some(owner) = owner {
            labels.insert(LABEL_OWNER.to_owned(), owner.to_owned());
        }
        Self {
            reviewed: Reviewed {
                username: format!("system:serviceaccount:isp:{account}"),
                audiences: one(AUDIENCE),
                extra: [
                    (POD_NAME.to_owned(), one(pod)),
                    (POD_UID.to_owned(), one("uid-1")),
                    (NODE_NAME.to_owned(), one("node-1")),
                ]
                .into(),
            },
            pod: Some(PodFacts {
                uid: "uid-1".to_owned(),
                node: Some("node-1".to_owned()),
                service_account: account.to_owned(),
                labels,
                controller: Some(controller),
            }),
            hello: Hello { agent: format!("isp/{agent}@node-1"), node: "node-1".to_owned(), ..Hello::default() },
        }
    }

    fn pod(&mut self) -> &mut PodFacts {
        self.pod.as_mut().expect("this test has a pod")
    }

    fn identify(&self) -> Result<Identity, Refusal> {
        identify(&self.reviewed, self.pod.as_ref(), &self.hello)
    }

    fn refused(&self, label: &str, code: Code) {
        let refusal = self.identify().expect_err("this is not the agent");
        assert_eq!((refusal.label(), refusal.status().code()), (label, code), "{refusal}");
    }
}

fn made_by(kind: &str, name: &str) -> Controller {
    Controller { kind: kind.to_owned(), name: name.to_owned() }
}
