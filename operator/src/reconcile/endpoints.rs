//! Endpoints that nobody looks after any more: their agent is gone, or the operator replica that held its stream. Pure.

use std::collections::BTreeMap;

use castgate_crds::tunnel_endpoint::{EndpointRole, TunnelEndpoint};
use castgate_planner::cluster::Facts;
use jiff::Timestamp;
use k8s_openapi::jiff::Timestamp as KubeTimestamp;
use serde_json::{Value, json};

use super::conditions::{Saying, conditions};
use crate::index::{COMPONENT, Index, OWNER, component_of};

/// What is done with one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// It goes.
    Remove(Value),
    /// Its status says from now on that nobody holds the stream. The epoch is above that of the replica that did.
    TakeOver(Value),
}

/// The pods of the operator, each with when its node ceased to be ready; `None`: it is ready.
pub type Replicas = BTreeMap<String, Option<KubeTimestamp>>;

/// Looks at every endpoint.
#[must_use]
pub fn tidy(index: &Index, facts: &Facts, replicas: &Replicas, me: &str, now: Timestamp) -> Vec<Step> {
    let mut steps = Vec::new();
    for endpoint in &index.endpoints {
        let status = endpoint.status.clone().unwrap_or_default();
        let connected = status.conditions.iter().find(|one| one.type_ == "Connected" && one.status == "True");
        let connected = connected.map(|condition| condition.last_transition_time.0);
        let holder = status.stream.unwrap_or_default();
        let orphaned = match replicas.get(&holder.replica) {
            None => true,
            Some(None) => false,
            // One that has taken its endpoint back meanwhile lives: its node is only not heard of, as all are when the API
            // server was away.
            Some(Some(away)) => connected.is_none_or(|since| since < *away),
        };
        let connected = connected.is_some();
        let pod_is_there = index.pods.iter().any(|pod| works_for(pod, endpoint));
        if !pod_is_there && (!connected || orphaned) {
            let mut object = serde_json::to_value(endpoint).unwrap_or_default();
            object["apiVersion"] = castgate_crds::API_VERSION.into();
            object["kind"] = "TunnelEndpoint".into();
            steps.push(Step::Remove(object));
        } else if connected && orphaned {
            let ready = facts.nodes.get(&endpoint.spec.node).is_some_and(|node| node.ready);
            let (reason, message) = if ready {
                (
                    "StreamLost",
                    format!("operator replica {} is gone, and the agent has not come back yet", holder.replica),
                )
            } else {
                ("NodeNotReady", format!("node {} is not ready", endpoint.spec.node))
            };
            let sayings = [
                Saying::new("Connected", false, reason, message.clone()),
                Saying::new("Ready", false, reason, message),
            ];
            let conditions = conditions(&status.conditions, &sayings, None, kube_time(now));
            steps.push(Step::TakeOver(json!({
                "apiVersion": castgate_crds::API_VERSION, "kind": "TunnelEndpoint",
                "metadata": {
                    "name": endpoint.metadata.name, "namespace": endpoint.metadata.namespace,
                    "resourceVersion": endpoint.metadata.resource_version,
                },
                "status": { "stream": { "replica": me, "epoch": holder.epoch + 1 }, "conditions": conditions },
            })));
        }
    }
    steps
}

fn kube_time(now: Timestamp) -> KubeTimestamp {
    KubeTimestamp::from_second(now.as_second()).unwrap_or_default()
}

fn works_for(pod: &Value, endpoint: &TunnelEndpoint) -> bool {
    let labels = &pod["metadata"]["labels"];
    let component = component_of(endpoint.spec.role);
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    !ended
        && pod["metadata"]["namespace"].as_str() == endpoint.metadata.namespace.as_deref()
        && labels[COMPONENT] == component
        && (endpoint.spec.role == EndpointRole::Adapter || labels[OWNER] == *endpoint.spec.owner_name)
        && pod["spec"]["nodeName"] == *endpoint.spec.node
}

#[cfg(test)]
mod tests {
    use super::*;
    use castgate_crds::tunnel_endpoint::{StreamHolder, TunnelEndpointSpec, TunnelEndpointStatus};

    fn endpoint(replica: &str, connected: bool) -> TunnelEndpoint {
        let spec =
            TunnelEndpointSpec { role: EndpointRole::Server, owner_name: "edge".to_owned(), node: "n1".to_owned() };
        let mut endpoint = TunnelEndpoint::new("ts-edge-n1", spec);
        endpoint.metadata.namespace = Some("castgate".to_owned());
        let sayings = [Saying::new("Connected", connected, "X", "x")];
        endpoint.status = Some(TunnelEndpointStatus {
            conditions: conditions(&[], &sayings, None, second(100)),
            stream: Some(StreamHolder { replica: replica.to_owned(), epoch: 4 }),
            ..TunnelEndpointStatus::default()
        });
        endpoint
    }

    fn pod(node: &str) -> Value {
        json!({"metadata": {"namespace": "castgate", "labels": {COMPONENT: "server", OWNER: "edge"}}, "spec": {"nodeName": node}})
    }

    fn second(second: i64) -> KubeTimestamp {
        KubeTimestamp::from_second(second).unwrap()
    }

    /// Two replicas on nodes that are ready, one on a node that is not since the given second.
    fn look_when(away: i64, endpoint: TunnelEndpoint, pods: Vec<Value>) -> Vec<Step> {
        let index = Index { endpoints: vec![endpoint], pods, ..Index::default() };
        let replicas = [("op-1", None), ("op-2", None), ("away", Some(second(away)))];
        let replicas = replicas.map(|(name, away)| (name.to_owned(), away)).into();
        tidy(&index, &Facts::default(), &replicas, "op-1", Timestamp::UNIX_EPOCH)
    }

    fn look(endpoint: TunnelEndpoint, pods: Vec<Value>) -> Vec<Step> {
        look_when(100, endpoint, pods)
    }

    #[test]
    fn an_endpoint_that_is_looked_after_is_left_alone() {
        assert_eq!(look(endpoint("op-2", true), vec![pod("n1")]), []);
        assert_eq!(look(endpoint("op-2", false), vec![pod("n1")]), []);
        assert_eq!(look(endpoint("op-2", true), vec![]), [], "its pod is going, the stream still stands");
    }

    #[test]
    fn an_endpoint_whose_agent_is_gone_goes() {
        assert!(matches!(look(endpoint("op-2", false), vec![pod("n2")])[..], [Step::Remove(_)]));
        assert!(matches!(look(endpoint("gone", true), vec![])[..], [Step::Remove(_)]));
    }

    #[test]
    fn an_endpoint_whose_replica_is_gone_is_taken_over_with_a_higher_epoch() {
        let steps = look(endpoint("gone", true), vec![pod("n1")]);
        let [Step::TakeOver(object)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(object["status"]["stream"], json!({"replica": "op-1", "epoch": 5}));
        assert_eq!(object["status"]["conditions"][0]["status"], "False");
    }

    #[test]
    fn a_replica_whose_node_is_not_ready_is_gone_unless_it_wrote_since() {
        // The endpoint says since second 100 that its stream is there.
        let steps = look_when(101, endpoint("away", true), vec![pod("n1")]);
        assert!(matches!(steps[..], [Step::TakeOver(_)]), "{steps:?}");
        assert_eq!(look_when(100, endpoint("away", true), vec![pod("n1")]), [], "taken back in the same second");
        assert_eq!(look_when(99, endpoint("away", true), vec![pod("n1")]), []);
    }
}
