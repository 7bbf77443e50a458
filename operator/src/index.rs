//! What the planner wants to know, read out of the objects of the API server. Pure.
//!
//! Owns the reading of foreign objects (nodes, namespaces, pods, Services, Secrets); what follows from them is the planner's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use castgate_control::TlsIdentity;
use castgate_crds::placement::TaintEffect;
use castgate_crds::tunnel_endpoint::{EndpointRole, TunnelEndpoint};
use castgate_planner::ObjectName;
use castgate_planner::cluster::{
    AdapterFacts, Facts, Metas, NamespaceFacts, NodeFacts, ObjectMeta, Settings, Taint, names,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp as KubeTimestamp;
use serde_json::Value;

use crate::watch::World;
use crate::watch::kinds::{Kind, OWN};

/// Finalizer of an object whose registrations have to be taken back.
pub const FINALIZER: &str = "castgate.dev/registrations";
/// Secret with what an adapter proves itself with.
pub const ADAPTER_SECRET: &str = "castgate-adapter";
/// Label of a pod: the name of the object it works for.
pub const OWNER: &str = "castgate.dev/owner";
/// Label of a pod: what it does.
pub const COMPONENT: &str = "app.kubernetes.io/component";

/// Kinds that agents run for.
pub const SERVED: [&str; 3] = [names::SERVER, names::RELAY, names::DATABASE];

/// Everything, as it is at one moment.
#[derive(Debug, Default)]
pub struct Index {
    /// Objects of ours, the Secrets and the route tables, for [`castgate_planner::judge`].
    pub objects: Vec<Value>,
    /// What the cluster knows of objects of ours.
    pub metas: Metas,
    /// Objects of ours that are endpoints.
    pub endpoints: Vec<TunnelEndpoint>,
    /// Pods of agents.
    pub pods: Vec<Value>,
    /// What we applied, by kind.
    pub applied: BTreeMap<&'static str, Vec<Value>>,
}

impl Index {
    /// Reads what is watched.
    #[must_use]
    pub fn of(world: &World) -> Self {
        let mut index = Self::default();
        for kind in OWN {
            let objects = world.objects(Kind::Own(kind));
            if kind == "TunnelEndpoint" {
                // One that does not fit its type was written by somebody else; the next report mends it.
                index.endpoints = objects.into_iter().filter_map(|one| serde_json::from_value(one).ok()).collect();
                continue;
            }
            index.metas.extend(objects.iter().map(|object| ((kind, name_of(object)), meta_of(object))));
            index.objects.extend(objects);
        }
        index.objects.extend(world.objects(Kind::Secret));
        index.objects.extend(world.objects(Kind::RouteTable));
        index.pods = world.objects(Kind::Pod);
        for (kind, ..) in crate::watch::kinds::APPLIED {
            index.applied.insert(kind, world.objects(Kind::Applied(kind)));
        }
        index
    }

    /// The object that we applied under a name.
    #[must_use]
    pub fn applied(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        let objects = self.applied.get(kind)?;
        objects.iter().find(|object| object["metadata"]["namespace"] == namespace && object["metadata"]["name"] == name)
    }

    /// An object of ours or a Secret.
    #[must_use]
    pub fn object(&self, kind: &str, name: &ObjectName) -> Option<&Value> {
        self.objects.iter().find(|object| object["kind"] == kind && name_of(object) == *name)
    }

    /// What is known of the cluster.
    #[must_use]
    pub fn facts(&self, world: &World, settings: &Settings) -> Facts {
        let mut facts = Facts { settings: settings.clone(), ..Facts::default() };
        facts.nodes =
            world.objects(Kind::Node).iter().map(|node| (text(&node["metadata"]["name"]), node_facts(node))).collect();
        facts.namespaces = world
            .objects(Kind::Namespace)
            .iter()
            .map(|namespace| {
                let metadata = &namespace["metadata"];
                let facts = NamespaceFacts {
                    enforce: metadata["labels"]["pod-security.kubernetes.io/enforce"].as_str().map(str::to_owned),
                    terminating: metadata["deletionTimestamp"].is_string(),
                };
                (text(&metadata["name"]), facts)
            })
            .collect();
        for endpoint in &self.endpoints {
            if let Some(kind @ (names::SERVER | names::RELAY)) = kind_of(endpoint.spec.role)
                && endpoint.status.as_ref().is_some_and(|status| status.active)
            {
                let owner = (kind, sibling(endpoint, &endpoint.spec.owner_name));
                let node = endpoint.spec.node.clone();
                let tunnels = endpoint.status.as_ref().and_then(|status| u64::try_from(status.tunnels).ok());
                facts.tunnels.entry(owner.clone()).or_default().insert(node.clone(), tunnels.unwrap_or_default());
                facts.active.entry(owner).or_default().insert(node);
            }
        }
        for pod in &self.pods {
            let namespace = text(&pod["metadata"]["namespace"]);
            let Some(node) = pod["spec"]["nodeName"].as_str() else { continue };
            if pod["metadata"]["deletionTimestamp"].is_string() {
                continue;
            }
            let labels = &pod["metadata"]["labels"];
            match labels[COMPONENT].as_str() {
                Some("database") => {
                    let name = ObjectName { namespace, name: text(&labels[OWNER]) };
                    // Pods of a StatefulSet are numbered; another pod with these labels is nothing of ours.
                    let pod = text(&pod["metadata"]["name"]);
                    let number =
                        pod.strip_prefix(&names::database_workload(&name)).and_then(|rest| rest.strip_prefix('-'));
                    if let Some(number) = number.and_then(|number| number.parse().ok()) {
                        facts.database_nodes.entry(name).or_default().insert(number, node.to_owned());
                    }
                }
                Some("adapter") => drop(facts.adapter_nodes.insert(namespace, node.to_owned())),
                _ => {}
            }
        }
        for service in self.applied.get("Service").into_iter().flatten() {
            let name = text(&service["metadata"]["name"]);
            let Some(database) = name.strip_prefix("tdb-").filter(|name| !name.ends_with("-pods")) else { continue };
            let database = ObjectName { namespace: text(&service["metadata"]["namespace"]), name: database.to_owned() };
            let ingress = &service["status"]["loadBalancer"]["ingress"][0]["ip"];
            if let Some(address) = ingress.as_str().and_then(|ip| ip.parse::<Ipv4Addr>().ok()) {
                facts.load_balancers.insert(database.clone(), address);
            }
            let port = service["spec"]["ports"][0]["nodePort"].as_u64().and_then(|port| u16::try_from(port).ok());
            if let Some(port) = port.filter(|port| *port != 0) {
                facts.node_ports.insert(database, port);
            }
        }
        for secret in self.objects.iter().filter(|object| object["kind"] == "Secret") {
            if secret["metadata"]["name"] == ADAPTER_SECRET
                && let Some(adapter) = adapter_facts(secret)
            {
                facts.adapters.insert(text(&secret["metadata"]["namespace"]), adapter);
            }
        }
        facts
    }
}

/// The kind that an agent works for; an adapter works for a namespace.
#[must_use]
pub fn kind_of(role: EndpointRole) -> Option<&'static str> {
    match role {
        EndpointRole::Server => Some(names::SERVER),
        EndpointRole::Relay => Some(names::RELAY),
        EndpointRole::Database => Some(names::DATABASE),
        EndpointRole::Adapter => None,
    }
}

/// The label of the pods of a role: see [`COMPONENT`].
#[must_use]
pub fn component_of(role: EndpointRole) -> &'static str {
    kind_of(role).and_then(names::component).unwrap_or("adapter")
}

/// Name of an object.
#[must_use]
pub fn name_of(object: &Value) -> ObjectName {
    ObjectName { namespace: text(&object["metadata"]["namespace"]), name: text(&object["metadata"]["name"]) }
}

/// An owner reference to an object of ours.
#[must_use]
pub fn owner_reference(kind: &str, name: &str, uid: &str, controller: bool) -> OwnerReference {
    OwnerReference {
        api_version: castgate_crds::API_VERSION.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: controller.then_some(true),
        block_owner_deletion: None,
    }
}

fn sibling(endpoint: &TunnelEndpoint, name: &str) -> ObjectName {
    ObjectName { namespace: endpoint.metadata.namespace.clone().unwrap_or_default(), name: name.to_owned() }
}

/// Whether something is above an object: parents that it names, or roots from which they are found.
pub(crate) fn registers(object: &Value) -> bool {
    let hierarchy = &object["spec"]["hierarchy"];
    let has_parents = hierarchy["parents"].as_array().is_some_and(|parents| !parents.is_empty());
    has_parents || hierarchy["discovery"].is_object()
}

fn meta_of(object: &Value) -> ObjectMeta {
    let metadata = &object["metadata"];
    let finalizers = metadata["finalizers"].as_array();
    let held = finalizers.is_some_and(|all| all.iter().any(|finalizer| finalizer == FINALIZER));
    ObjectMeta {
        uid: text(&metadata["uid"]),
        generation: metadata["generation"].as_i64().unwrap_or_default(),
        deleting: metadata["deletionTimestamp"].is_string(),
        registers: registers(object) || held,
    }
}

/// Since when a node is not ready; `None`: it is. A node that does not say when is taken for one that failed just now.
#[must_use]
pub fn away_since(node: &Value) -> Option<KubeTimestamp> {
    let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.find(|condition| condition["type"] == "Ready").unwrap_or(&Value::Null);
    if ready["status"] == "True" {
        return None;
    }
    let since = ready["lastTransitionTime"].as_str().and_then(|time| time.parse().ok());
    Some(since.unwrap_or(KubeTimestamp::MAX))
}

fn node_facts(node: &Value) -> NodeFacts {
    let status = &node["status"];
    let addresses = |kind: &'static str| {
        let all = status["addresses"].as_array().into_iter().flatten();
        let fitting = all.filter(move |address| address["type"] == kind);
        fitting.filter_map(|address| address["address"].as_str()?.parse::<IpAddr>().ok())
    };
    let four =
        |kind| addresses(kind).find_map(|address| if let IpAddr::V4(four) = address { Some(four) } else { None });
    let six = |kind| addresses(kind).find_map(|address| if let IpAddr::V6(six) = address { Some(six) } else { None });
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let taint = |taint: &Value| {
        let effect = match taint["effect"].as_str()? {
            "NoSchedule" => TaintEffect::NoSchedule,
            "PreferNoSchedule" => TaintEffect::PreferNoSchedule,
            _ => TaintEffect::NoExecute,
        };
        Some(Taint { key: text(&taint["key"]), value: text(&taint["value"]), effect })
    };
    NodeFacts {
        labels: labels.map(|(key, value)| (key.clone(), text(value))).collect(),
        ready: away_since(node).is_none(),
        unschedulable: node["spec"]["unschedulable"] == true,
        taints: node["spec"]["taints"].as_array().into_iter().flatten().filter_map(taint).collect(),
        internal_ip: four("InternalIP"),
        external_ip: four("ExternalIP"),
        internal_ip6: six("InternalIP"),
        external_ip6: six("ExternalIP"),
    }
}

fn adapter_facts(secret: &Value) -> Option<AdapterFacts> {
    let data = crate::secret::decode(secret);
    let part = |key: &str| String::from_utf8(data.get(key)?.clone()).ok();
    Some(AdapterFacts {
        tls: TlsIdentity { certificate: part("tls.crt")?, key: part("tls.key")? },
        agents_key: data.get("agents.key")?.clone(),
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_is_read_with_what_decides_about_it() {
        let node = json!({
            "metadata": {"name": "n1", "labels": {"a": "b"}},
            "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]},
            "status": {
                "conditions": [{"type": "MemoryPressure", "status": "True"}, {"type": "Ready", "status": "Unknown"}],
                "addresses": [
                    {"type": "InternalIP", "address": "fd00::1"},
                    {"type": "InternalIP", "address": "192.0.2.7"},
                    {"type": "Hostname", "address": "n1"},
                ],
            },
        });
        let facts = node_facts(&node);
        assert!(!facts.ready);
        assert_eq!((facts.internal_ip, facts.external_ip), (Some([192, 0, 2, 7].into()), None));
        assert_eq!((facts.internal_ip6, facts.external_ip6), ("fd00::1".parse().ok(), None));
        assert_eq!(facts.taints[0].effect, TaintEffect::NoSchedule);
        assert_eq!(facts.labels["a"], "b");
    }

    #[test]
    fn an_object_registers_as_long_as_it_has_parents_finds_them_or_is_held() {
        let object = |parents: Value, finalizers: Value| json!({"metadata": {"finalizers": finalizers}, "spec": {"hierarchy": {"parents": parents}}});
        assert!(meta_of(&object(json!([{}]), json!([]))).registers);
        assert!(meta_of(&object(json!([]), json!([FINALIZER]))).registers);
        assert!(!meta_of(&object(json!([]), json!(["other"]))).registers);
        assert!(meta_of(&json!({"spec": {"hierarchy": {"discovery": {"roots": ["roots.example"]}}}})).registers);
    }

    #[test]
    fn a_node_is_away_since_it_says_so() {
        let second = KubeTimestamp::from_second(100).unwrap();
        let node = |conditions: Value| json!({"status": {"conditions": conditions}});
        let ready =
            |status: &str| json!({"type": "Ready", "status": status, "lastTransitionTime": "1970-01-01T00:01:40Z"});
        let pressed = json!({"type": "MemoryPressure", "status": "True"});
        assert_eq!(away_since(&node(json!([pressed, ready("True")]))), None);
        assert_eq!(away_since(&node(json!([pressed, ready("Unknown")]))), Some(second));
        assert_eq!(away_since(&node(json!([ready("False")]))), Some(second));
        for silent in [node(json!([])), Value::Null, node(json!([{"type": "Ready", "status": "False"}]))] {
            assert_eq!(away_since(&silent), Some(KubeTimestamp::MAX), "{silent}");
        }
    }
}
