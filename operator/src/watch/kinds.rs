//! What is watched: every kind with what of it concerns us.

use kube::api::ApiResource;
use serde_json::{Value, json};

/// A kind that the operator watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Ours: a custom resource, written by people.
    Own(&'static str),
    /// Credentials.
    Secret,
    /// A `ConfigMap` with a route table: one with the label [`ROUTES`].
    RouteTable,
    /// Where agents run.
    Node,
    /// What Pod Security allows.
    Namespace,
    /// Agents, and the replicas of the operator.
    Pod,
    /// Who made a pod of a Deployment.
    ReplicaSet,
    /// What we apply.
    Applied(&'static str),
}

/// Label of everything that the operator makes.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of that label.
pub const OPERATOR: &str = "castgate-operator";

/// Label of the `ConfigMap`s that hold route tables, with any value: all others are nobody's business here.
pub const ROUTES: &str = "castgate.dev/routes";

/// Kinds of ours, as the planner reads them.
pub const OWN: [&str; 7] = [
    "ChannelBundle",
    "TunnelAccount",
    "TunnelAssignmentPolicy",
    "TunnelDatabase",
    "TunnelEndpoint",
    "TunnelRelay",
    "TunnelServer",
];

/// Kinds that we apply: name, group, version, plural.
pub const APPLIED: [(&str, &str, &str, &str); 8] = [
    ("ConfigMap", "", "v1", "configmaps"),
    ("DaemonSet", "apps", "v1", "daemonsets"),
    ("Deployment", "apps", "v1", "deployments"),
    ("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies"),
    ("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets"),
    ("Service", "", "v1", "services"),
    ("ServiceAccount", "", "v1", "serviceaccounts"),
    ("StatefulSet", "apps", "v1", "statefulsets"),
];

impl Kind {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        let own = OWN.into_iter().map(Self::Own);
        let applied = APPLIED.into_iter().map(|(kind, ..)| Self::Applied(kind));
        own.chain([Self::Secret, Self::RouteTable, Self::Node, Self::Namespace, Self::Pod, Self::ReplicaSet])
            .chain(applied)
    }

    /// Its name in a manifest.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own(kind) | Self::Applied(kind) => kind,
            Self::Secret => "Secret",
            Self::RouteTable => "ConfigMap",
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::ReplicaSet => "ReplicaSet",
        }
    }

    /// How the API server knows it.
    ///
    /// # Panics
    /// For a kind that is in none of the tables above.
    #[must_use]
    pub fn resource(self) -> ApiResource {
        let (group, version, plural) = match self {
            Self::Own(kind) => (castgate_crds::GROUP, castgate_crds::VERSION, plural_of_own(kind)),
            Self::Secret => ("", "v1", "secrets".to_owned()),
            Self::RouteTable => ("", "v1", "configmaps".to_owned()),
            Self::Node => ("", "v1", "nodes".to_owned()),
            Self::Namespace => ("", "v1", "namespaces".to_owned()),
            Self::Pod => ("", "v1", "pods".to_owned()),
            Self::ReplicaSet => ("apps", "v1", "replicasets".to_owned()),
            Self::Applied(kind) => {
                let row = APPLIED.iter().find(|(name, ..)| *name == kind).expect("only kinds of the table are made");
                (row.1, row.2, row.3.to_owned())
            }
        };
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version,
            kind: self.name().to_owned(),
            plural,
        }
    }

    /// Whether its objects lie in no namespace.
    #[must_use]
    pub const fn is_cluster_wide(self) -> bool {
        matches!(self, Self::Node | Self::Namespace)
    }

    /// The part of an object whose change concerns us: a node's heartbeat does not, nor does bookkeeping of the API server.
    #[must_use]
    pub fn relevant(self, object: &Value) -> Value {
        let metadata = &object["metadata"];
        match self {
            Self::Node => {
                let ready = object["status"]["conditions"].as_array().into_iter().flatten();
                let ready = ready.filter(|condition| condition["type"] == "Ready").map(|ready| ready["status"].clone());
                json!({
                    "name": metadata["name"], "labels": metadata["labels"], "taints": object["spec"]["taints"],
                    "unschedulable": object["spec"]["unschedulable"], "addresses": object["status"]["addresses"],
                    "ready": ready.collect::<Vec<_>>(), "deleted": metadata["deletionTimestamp"],
                })
            }
            Self::Namespace => json!({
                "name": metadata["name"], "labels": metadata["labels"], "deleted": metadata["deletionTimestamp"],
            }),
            _ => {
                let mut object = object.clone();
                if let Some(metadata) = object["metadata"].as_object_mut() {
                    metadata.remove("managedFields");
                    metadata.remove("resourceVersion");
                }
                object
            }
        }
    }
}

/// Plural of a kind of ours: the definitions have no irregular one but `policies`.
fn plural_of_own(kind: &str) -> String {
    let small = kind.to_ascii_lowercase();
    small.strip_suffix("cy").map_or_else(|| format!("{small}s"), |stem| format!("{stem}cies"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_ours_are_those_of_the_definitions() {
        for definition in castgate_crds::all() {
            let kind = OWN.into_iter().find(|kind| **kind == definition.spec.names.kind);
            let kind = kind.unwrap_or_else(|| panic!("{} is not watched", definition.spec.names.kind));
            assert_eq!(Kind::Own(kind).resource().plural, definition.spec.names.plural);
        }
    }

    #[test]
    fn a_heartbeat_of_a_node_is_no_change_and_its_failure_is() {
        let node = |heartbeat: &str, ready: &str| {
            json!({"metadata": {"name": "n1", "resourceVersion": heartbeat}, "status": {
                "conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat}],
            }})
        };
        let relevant = |object: &Value| Kind::Node.relevant(object);
        assert_eq!(relevant(&node("1", "True")), relevant(&node("2", "True")));
        assert_ne!(relevant(&node("1", "True")), relevant(&node("2", "Unknown")));
    }
}
