//! What the tests of the fleet share: an agent, and what is planned for it.

use castgate_control::AgentSnapshot;
use castgate_crds::tunnel_endpoint::EndpointRole;

use super::identity::Identity;

/// Of the pod of a tunnel server on a node.
pub(super) fn identity(node: &str) -> Identity {
    Identity {
        namespace: "isp".to_owned(),
        role: EndpointRole::Server,
        owner: "edge".to_owned(),
        node: node.to_owned(),
        pod: format!("ts-edge-{node}"),
    }
}

/// The agent of that pod and a snapshot for it, which differs with `content`.
pub(super) fn snapshot(node: &str, content: u16) -> (String, AgentSnapshot) {
    let agent = format!("isp/ts-edge@{node}");
    let listen = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 10_000 + content);
    let server = castgate_control::ServerSnapshot::new(listen, vec!["lo".to_owned()]);
    (agent.clone(), AgentSnapshot { agent, server: Some(server), ..AgentSnapshot::default() })
}
