//! What the fleet asks about the cluster, answered from what is watched.

use std::collections::BTreeMap;

use castgate_crds::tunnel_endpoint::EndpointRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;

use crate::fleet::{Controller, Objects, PodFacts, Pods};
use crate::index::{SERVED, kind_of, owner_reference};
use crate::watch::World;
use crate::watch::kinds::Kind;

/// Answers from the reflectors.
#[derive(Clone)]
pub struct Lookup(pub World);

impl Pods for Lookup {
    fn pod(&self, namespace: &str, name: &str) -> Option<PodFacts> {
        let pod = self.0.object(Kind::Pod, namespace, name)?;
        let mut facts = pod_facts(&pod)?;
        // A pod of a Deployment is made by a ReplicaSet, whose name says nothing: its own maker does.
        if let Some(controller) = facts.controller.as_mut().filter(|controller| controller.kind == "ReplicaSet") {
            *controller = controller_of(&self.0.object(Kind::ReplicaSet, namespace, &controller.name)?)?;
        }
        Some(facts)
    }
}

impl Objects for Lookup {
    fn owners(&self, role: EndpointRole, namespace: &str, name: &str) -> Vec<OwnerReference> {
        match kind_of(role) {
            Some(kind) => self.owner(kind, namespace, name).into_iter().collect(),
            None => SERVED
                .into_iter()
                .flat_map(|kind| self.0.objects(Kind::Own(kind)).into_iter().map(move |object| (kind, object)))
                .filter(|(_, object)| object["metadata"]["namespace"] == namespace)
                .filter_map(|(kind, object)| reference(kind, &object, false))
                .collect(),
        }
    }

    fn epoch(&self, namespace: &str, name: &str) -> Option<i64> {
        let endpoint = self.0.object(Kind::Own("TunnelEndpoint"), namespace, name)?;
        Some(endpoint["status"]["stream"]["epoch"].as_i64().unwrap_or_default())
    }

    fn held(&self, replica: &str) -> Vec<(String, String)> {
        let all = self.0.objects(Kind::Own("TunnelEndpoint"));
        let held = all.iter().filter(|endpoint| endpoint["status"]["stream"]["replica"] == replica);
        let name = |endpoint: &Value| {
            let metadata = &endpoint["metadata"];
            Some((metadata["namespace"].as_str()?.to_owned(), metadata["name"].as_str()?.to_owned()))
        };
        held.filter_map(name).collect()
    }
}

impl Lookup {
    fn owner(&self, kind: &'static str, namespace: &str, name: &str) -> Option<OwnerReference> {
        reference(kind, &self.0.object(Kind::Own(kind), namespace, name)?, true)
    }
}

fn reference(kind: &str, object: &Value, controller: bool) -> Option<OwnerReference> {
    let metadata = &object["metadata"];
    Some(owner_reference(kind, metadata["name"].as_str()?, metadata["uid"].as_str()?, controller))
}

fn pod_facts(pod: &Value) -> Option<PodFacts> {
    let metadata = &pod["metadata"];
    let labels = metadata["labels"].as_object().into_iter().flatten();
    let labels: BTreeMap<String, String> =
        labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    Some(PodFacts {
        uid: metadata["uid"].as_str()?.to_owned(),
        node: pod["spec"]["nodeName"].as_str().map(str::to_owned),
        service_account: pod["spec"]["serviceAccountName"].as_str().unwrap_or("default").to_owned(),
        labels,
        controller: controller_of(pod),
    })
}

fn controller_of(object: &Value) -> Option<Controller> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let controller = owners.iter().find(|owner| owner["controller"] == true)?;
    Some(Controller { kind: controller["kind"].as_str()?.to_owned(), name: controller["name"].as_str()?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_read_with_what_proves_its_agent() {
        let pod = json!({
            "metadata": {"uid": "u", "labels": {"a": "b"}, "ownerReferences": [
                {"kind": "Other", "name": "x"},
                {"kind": "DaemonSet", "name": "ts-edge", "controller": true},
            ]},
            "spec": {"nodeName": "n1", "serviceAccountName": "castgate-agent"},
        });
        let facts = pod_facts(&pod).unwrap();
        assert_eq!(facts.controller, Some(Controller { kind: "DaemonSet".to_owned(), name: "ts-edge".to_owned() }));
        assert_eq!((facts.node.as_deref(), facts.service_account.as_str()), (Some("n1"), "castgate-agent"));
    }
}
