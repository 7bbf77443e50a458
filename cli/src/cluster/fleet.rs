//! The objects of castgate as the commands see them: servers, databases, endpoints, and what is wrong with each.
//!
//! Decodes the fields that are shown and no more: an object of another version is still a row.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::access::{Cluster, DATABASES, ENDPOINTS, RELAYS, SERVERS};

/// All objects that tell how things are.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    pub(crate) servers: Vec<Server>,
    pub(crate) relays: Vec<Server>,
    pub(crate) databases: Vec<Database>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// Objects that could not be read, with the reason.
    pub(crate) unreadable: Vec<Problem>,
}

/// A `TunnelServer` or a `TunnelRelay`.
pub(crate) type Server = Object<ServerSpec, ServerStatus>;
pub(crate) type Database = Object<Empty, DatabaseStatus>;
pub(crate) type Endpoint = Object<EndpointSpec, EndpointStatus>;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// As in `TunnelServer castgate/brussels`.
    pub(crate) object: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// What to do.
    pub(crate) advice: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Object<S, T> {
    pub(crate) kind: String,
    pub(crate) metadata: Metadata,
    pub(crate) spec: S,
    pub(crate) status: T,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) generation: i64,
    pub(crate) deletion_timestamp: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Empty {}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServerSpec {
    pub(crate) node_selector: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServerStatus {
    pub(crate) observed_generation: Option<i64>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) nodes: Option<String>,
    pub(crate) tunnels: i64,
    /// Gateways of its AMT relay.
    pub(crate) endpoints: Option<i64>,
    pub(crate) channels: i64,
    pub(crate) registrations: Option<String>,
    /// Nodes of a relay with the server above that they need.
    pub(crate) upstream: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DatabaseStatus {
    pub(crate) observed_generation: Option<i64>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) entries: i64,
    pub(crate) registrations: Option<String>,
    pub(crate) service: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EndpointSpec {
    pub(crate) role: String,
    pub(crate) owner_name: String,
    pub(crate) node: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EndpointStatus {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) active: bool,
    pub(crate) address: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) pod: Option<String>,
    pub(crate) last_refusal: Option<String>,
    pub(crate) tunnels: i64,
    pub(crate) channels: i64,
    pub(crate) megabits_per_second: Option<String>,
    pub(crate) dropped: i64,
    pub(crate) entries: i64,
    pub(crate) registered: Option<String>,
    pub(crate) registrations: Vec<Registration>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Registration {
    pub(crate) parent: String,
    pub(crate) entry: String,
    pub(crate) state: String,
    pub(crate) last_refusal: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// What a status has in common with the others.
pub(crate) trait Status {
    fn conditions(&self) -> &[Condition];
    /// Generation that it is about; `None` where it does not tell.
    fn observed(&self) -> Option<i64>;
}

impl Status for ServerStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    fn observed(&self) -> Option<i64> {
        self.observed_generation
    }
}

impl Status for DatabaseStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    fn observed(&self) -> Option<i64> {
        self.observed_generation
    }
}

impl Status for EndpointStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    fn observed(&self) -> Option<i64> {
        None
    }
}

impl<S, T: Status> Object<S, T> {
    /// `namespace/name`.
    pub(crate) fn title(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    pub(crate) fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions().iter().find(|condition| condition.kind == kind)
    }

    /// Whether it is Ready, and that is about what it is now.
    pub(crate) fn is_ready(&self) -> bool {
        self.trouble().is_none()
    }

    /// Reason and message of the first thing that is wrong.
    pub(crate) fn trouble(&self) -> Option<(String, String)> {
        let told = |reason: &str, message: &str| Some((reason.to_owned(), message.to_owned()));
        if self.metadata.deletion_timestamp.is_some() {
            return told("Deleting", "is being deleted and waits until its registrations are taken back");
        }
        let behind = self.status.observed().is_some_and(|observed| observed < self.metadata.generation);
        let failed = |kind| self.condition(kind).filter(|condition| condition.status != "True");
        match failed("Accepted").or_else(|| failed("Connected")).or_else(|| failed("Ready")) {
            _ if behind => told("Reconciling", "the operator has not acted on the last change yet"),
            Some(Condition { reason, message, .. }) => told(reason, message),
            None if self.condition("Ready").is_none() => told("Unseen", "no operator has looked at it yet"),
            None => None,
        }
    }
}

impl Fleet {
    /// Asks the cluster.
    pub(crate) async fn read(cluster: &Cluster) -> anyhow::Result<Self> {
        let lists = tokio::try_join!(
            cluster.list(SERVERS),
            cluster.list(RELAYS),
            cluster.list(DATABASES),
            cluster.list(ENDPOINTS)
        )?;
        Ok(Self::decode(lists.0, lists.1, lists.2, lists.3))
    }

    /// Decodes each object by itself.
    pub(crate) fn decode(
        servers: Vec<Value>,
        relays: Vec<Value>,
        databases: Vec<Value>,
        endpoints: Vec<Value>,
    ) -> Self {
        let mut fleet = Self::default();
        fleet.servers = decode(servers, &mut fleet.unreadable);
        fleet.relays = decode(relays, &mut fleet.unreadable);
        fleet.databases = decode(databases, &mut fleet.unreadable);
        fleet.endpoints = decode(endpoints, &mut fleet.unreadable);
        fleet
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.relays.is_empty() && self.databases.is_empty() && self.unreadable.is_empty()
    }

    /// Everything that is wrong, servers first.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = self.unreadable.clone();
        let servers = self.servers.iter().chain(&self.relays);
        problems.extend(servers.filter_map(|server| problem(server, &server.spec.node_selector)));
        let anywhere = BTreeMap::new();
        problems.extend(self.databases.iter().filter_map(|database| problem(database, &anywhere)));
        problems.extend(self.endpoints.iter().filter_map(|endpoint| problem(endpoint, &anywhere)));
        problems
    }
}

fn decode<T: for<'de> Deserialize<'de>>(items: Vec<Value>, unreadable: &mut Vec<Problem>) -> Vec<T> {
    let mut objects = Vec::new();
    for item in items {
        let text = |pointer| item.pointer(pointer).and_then(Value::as_str).unwrap_or("?");
        let object = format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
        match serde_json::from_value(item) {
            Ok(decoded) => objects.push(decoded),
            Err(error) => unreadable.push(Problem {
                object,
                reason: "Unreadable".to_owned(),
                message: error.to_string(),
                advice: "take the castgate command of the operator's version".to_owned(),
            }),
        }
    }
    objects
}

fn problem<S, T: Status>(object: &Object<S, T>, selector: &BTreeMap<String, String>) -> Option<Problem> {
    let (reason, message) = object.trouble()?;
    let Metadata { name, namespace, .. } = &object.metadata;
    let advice = match reason.as_str() {
        "Invalid" => format!("correct it: kubectl edit -n {namespace} {} {name}", object.kind.to_lowercase()),
        "HostNetworkForbidden" => {
            format!("kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged --overwrite")
        }
        "NoNodes" if !selector.is_empty() => {
            let labels: Vec<_> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("kubectl label node NODE {}", labels.join(" "))
        }
        "Reconciling" => "wait a moment and ask again".to_owned(),
        "NodeNotReady" => "kubectl get nodes".to_owned(),
        "StreamLost" => format!("kubectl get pods -n {namespace} -o wide; the agent goes on with what it carries"),
        "NoUpstream" => {
            "open UDP from its nodes to the server above, or name another in spec.upstream; the agents go on looking"
                .to_owned()
        }
        "Deleting" => "wait: the operator gives up after its --withdraw-timeout".to_owned(),
        _ => format!("kubectl castgate diagnose -n {namespace}"),
    };
    Some(Problem { object: format!("{} {}", object.kind, object.title()), reason, message, advice })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A fleet with one of each, and things that are wrong.
    pub(crate) fn isp() -> Fleet {
        let mut lists: BTreeMap<String, Vec<Value>> =
            serde_json::from_str(include_str!("fixtures/isp.json")).expect("the fixture is JSON");
        let mut take = |name: &str| lists.remove(name).expect("the fixture has it");
        Fleet::decode(take("servers"), take("relays"), take("databases"), take("endpoints"))
    }

    fn server(generation: i64, observed: Option<i64>, conditions: &Value) -> Server {
        serde_json::from_value(json!({
            "kind": "TunnelServer",
            "metadata": {"name": "a", "namespace": "n", "generation": generation},
            "status": {"observedGeneration": observed, "conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn ready_about_an_older_generation_is_not_ready() {
        let ready = json!([{"type": "Ready", "status": "True", "reason": "Ready", "message": ""}]);
        assert!(server(2, Some(2), &ready).is_ready());
        assert_eq!(server(2, Some(1), &ready).trouble().unwrap().0, "Reconciling");
        assert_eq!(server(1, None, &json!([])).trouble().unwrap().0, "Unseen");
    }

    #[test]
    fn what_was_not_accepted_says_why_rather_than_that_it_is_not_ready() {
        let conditions = json!([
            {"type": "Ready", "status": "False", "reason": "NotAccepted", "message": "see Accepted"},
            {"type": "Accepted", "status": "False", "reason": "Invalid", "message": "spec.umtp.port is taken"},
        ]);
        let refused = server(1, Some(1), &conditions);
        let problem = problem(&refused, &BTreeMap::new()).unwrap();
        assert_eq!((problem.reason.as_str(), problem.message.as_str()), ("Invalid", "spec.umtp.port is taken"));
        assert_eq!(problem.advice, "correct it: kubectl edit -n n tunnelserver a");
    }

    #[test]
    fn one_object_that_cannot_be_read_hides_no_other() {
        let good = json!({"kind": "TunnelServer", "metadata": {"name": "a", "namespace": "n"}});
        let bad =
            json!({"kind": "TunnelServer", "metadata": {"name": "b", "namespace": "n"}, "status": {"tunnels": "many"}});
        let fleet = Fleet::decode(vec![bad, good], vec![], vec![], vec![]);
        assert_eq!(fleet.servers.len(), 1);
        assert_eq!(fleet.unreadable[0].object, "TunnelServer n/b");
        assert!(fleet.problems().iter().any(|problem| problem.reason == "Unreadable"));
    }

    #[test]
    fn a_pool_without_nodes_names_the_label_that_is_missing() {
        let fleet = isp();
        let problems = fleet.problems();
        let pool = problems.iter().find(|problem| problem.reason == "NoNodes").unwrap();
        assert_eq!(pool.advice, "kubectl label node NODE castgate.dev/pool=ghent");
    }
}
