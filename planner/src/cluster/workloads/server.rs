//! The `DaemonSet` of a tunnel server or a tunnel relay: one pod on every node of its pool, on the network of the node.

use serde_json::json;

use super::pod::Pod;
use super::{OF_RELAYS, OF_SERVERS, Part, Workload, controller, workload};
use crate::cluster::{World, names};
use crate::objects::{Feed, ObjectName, Server};

pub(super) fn daemon_set(world: World, kind: &'static str, name: &ObjectName, server: &Server) -> Workload {
    let component = names::component(kind).expect("only kinds that carry tunnels are asked for");
    let role = Part { component, owner: Some(&name.name) };
    // A server and a relay may share a name; their agents may not share a folder.
    let folder = match kind {
        names::RELAY => format!("{}.relay.{}", name.namespace, name.name),
        _ => format!("{}.{}", name.namespace, name.name),
    };
    let own = names::server_workload(kind, name);
    let pod = Pod {
        role,
        settings: &world.facts.settings,
        agent: format!("{}/{own}", name.namespace),
        account: names::AGENT_ACCOUNT,
        host_network: true,
        capabilities: capabilities(server),
        privileged_port: false,
        // An agent restarts and forwards with nobody to ask, also after its pod was replaced.
        state: Some(json!({ "hostPath": {
            "path": format!("/var/lib/castgate/{folder}"),
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
    let owners = controller(world, kind, name);
    let manager = if kind == names::RELAY { OF_RELAYS } else { OF_SERVERS };
    workload(manager, ("apps/v1", "DaemonSet"), (name.namespace.as_str(), &own), role, &owners, spec)
}

/// What an agent needs beyond what everybody may.
///
/// `NET_RAW` opens packet sockets, with which an AMT relay takes whole IP packets from a network, and raw ones, with which a relay
/// puts them there with their own source. `NET_ADMIN` changes routes and makes interfaces: for nothing but an anycast address and a TUN interface.
fn capabilities(server: &Server) -> Vec<&'static str> {
    let amt = server.amt.as_ref();
    let (takes_packets, delivery) = match &server.feed {
        Feed::Native { .. } => (amt.is_some(), None),
        Feed::Upstream(upstream) => (false, upstream.snapshot.delivery.as_ref()),
    };
    let ports = std::iter::once(server.port).chain(amt.map(|amt| amt.port));
    let needs = [
        (
            "NET_ADMIN",
            amt.is_some_and(|amt| amt.snapshot.anycast.is_some()) || delivery.is_some_and(|at| at.tun.is_some()),
        ),
        ("NET_BIND_SERVICE", ports.min().is_some_and(|port| port < 1024)),
        ("NET_RAW", takes_packets || delivery.is_some_and(|at| !at.interfaces.is_empty())),
    ];
    needs.into_iter().filter_map(|(capability, needed)| needed.then_some(capability)).collect()
}
