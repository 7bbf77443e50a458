//! What agents, workloads and their parts are called: one place, for the plan and for whoever looks things up by name.

use crate::objects::ObjectName;

/// Kind of a server.
pub const SERVER: &str = "TunnelServer";
/// Kind of a relay.
pub const RELAY: &str = "TunnelRelay";
/// Kind of a database.
pub const DATABASE: &str = "TunnelDatabase";

/// `ServiceAccount` of servers and databases.
pub const AGENT_ACCOUNT: &str = "castgate-agent";
/// Name of everything that an adapter is made of.
pub const ADAPTER: &str = "castgate-adapter";
/// `ConfigMap` with the certificate that agents trust, under the key `ca.crt`.
pub const CA_CONFIG_MAP: &str = "castgate-ca";
/// Port of an adapter.
pub const ADAPTER_PORT: u16 = 8444;

/// What names of the agents and workloads of a kind begin with; `None`: it has none.
#[must_use]
pub fn prefix(kind: &str) -> Option<&'static str> {
    match kind {
        SERVER => Some("ts"),
        RELAY => Some("tr"),
        DATABASE => Some("tdb"),
        _ => None,
    }
}

/// The label `app.kubernetes.io/component` of the pods of a kind; `None`: it has none.
#[must_use]
pub fn component(kind: &str) -> Option<&'static str> {
    match kind {
        SERVER => Some("server"),
        RELAY => Some("relay"),
        DATABASE => Some("database"),
        _ => None,
    }
}

/// The agent of a server or a relay on one node.
#[must_use]
pub fn server_agent(kind: &str, server: &ObjectName, node: &str) -> String {
    format!("{}/{}@{node}", server.namespace, server_workload(kind, server))
}

/// The agent of a database.
#[must_use]
pub fn database_agent(database: &ObjectName, node: &str) -> String {
    format!("{}/{}@{node}", database.namespace, database_workload(database))
}

/// The agent that registers the others of a namespace.
#[must_use]
pub fn adapter_agent(namespace: &str, node: &str) -> String {
    format!("{namespace}/adapter@{node}")
}

/// `DaemonSet` of a server or a relay.
///
/// # Panics
/// For a kind that carries no tunnels.
#[must_use]
pub fn server_workload(kind: &str, server: &ObjectName) -> String {
    format!("{}-{}", prefix(kind).expect("only kinds that carry tunnels are asked for"), server.name)
}

/// `StatefulSet` of a database, its Service for clients, and what guards it.
#[must_use]
pub fn database_workload(database: &ObjectName) -> String {
    format!("tdb-{}", database.name)
}

/// The Service that gives each pod of a database its name.
#[must_use]
pub fn database_pods(database: &ObjectName) -> String {
    format!("{}-pods", database_workload(database))
}

/// Name under which agents of the cluster reach one replica of a database, by its number: it stays while pods come and go.
#[must_use]
pub fn replica_host(database: &ObjectName, number: u32) -> String {
    format!("{}-{number}.{}.{}.svc", database_workload(database), database_pods(database), database.namespace)
}

/// Secret with the login that the replicas of a database have in common, where no other is named.
#[must_use]
pub fn peers_secret(database: &ObjectName) -> String {
    format!("{}-peers", database_workload(database))
}

/// Name under which an adapter is reached, and which its certificate has.
#[must_use]
pub fn adapter_host(namespace: &str) -> String {
    format!("{ADAPTER}.{namespace}.svc")
}

/// Name under which agents of the cluster reach a database.
#[must_use]
pub fn database_host(database: &ObjectName) -> String {
    format!("{}.{}.svc", database_workload(database), database.namespace)
}
