//! The `DaemonSet` of a tunnel server: one pod on every node of its pool, on the network of the node.

use serde_json::json;

use super::pod::Pod;
use super::{OF_SERVERS, Part, Workload, controller, workload};
use crate::cluster::{World, names};
use crate::objects::{ObjectName, Server};

pub(super) fn daemon_set(world: World, name: &ObjectName, server: &Server) -> Workload {
    let role = Part { component: "server", owner: Some(&name.name) };
    let pod = Pod {
        role,
        settings: &world.facts.settings,
        agent: format!("{}/{}", name.namespace, names::server_workload(name)),
        account: names::AGENT_ACCOUNT,
        host_network: true,
        privileged_port: server.port < 1024,
        // An agent restarts and forwards with nobody to ask, also after its pod was replaced.
        state: Some(json!({ "hostPath": {
            "path": format!("/var/lib/castgate/{}.{}", name.namespace, name.name),
            "type": "DirectoryOrCreate",
        } })),
        memory: "64Mi",
    };
    let mut template = pod.template();
    if !server.node_selector.is_empty() {
        template["spec"]["nodeSelector"] = json!(server.node_selector);
    }
    if !server.tolerations.is_empty() {
        template["spec"]["tolerations"] = json!(server.tolerations);
    }
    let spec = json!({ "spec": {
        "selector": { "matchLabels": role.selector() },
        // One node at a time, and never two agents on one: they would want the same port.
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 0 } },
        "template": template,
    } });
    let owners = controller(world, names::SERVER, name);
    let place = (name.namespace.as_str(), &*names::server_workload(name));
    workload(OF_SERVERS, ("apps/v1", "DaemonSet"), place, role, &owners, spec)
}
