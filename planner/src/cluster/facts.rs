//! What the cluster is like at this moment: everything that a plan depends on and that no manifest says.
//!
//! Whoever watches the cluster fills it in. A fact that is not known yet is absent, and what depends on it waits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use castgate_control::{AgentSnapshot, TlsIdentity};
use castgate_crds::placement::TaintEffect;

use crate::objects::ObjectName;

/// All that is known of the cluster.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The nodes by name.
    pub nodes: BTreeMap<String, NodeFacts>,
    /// The namespaces by name.
    pub namespaces: BTreeMap<String, NamespaceFacts>,
    /// By server or relay: the nodes that carry tunnels now. They are kept as long as they may be.
    pub active: BTreeMap<Owner, BTreeSet<String>>,
    /// By namespace: what its adapter proves itself with. Without it, registrations wait.
    pub adapters: BTreeMap<String, AdapterFacts>,
    /// By server and node: its tunnels, as its agent said last.
    pub tunnels: BTreeMap<Owner, BTreeMap<String, u64>>,
    /// By database: the nodes that its pods were put on, by their numbers. Those that are going are not among them.
    pub database_nodes: BTreeMap<ObjectName, BTreeMap<u32, String>>,
    /// By namespace: the node that the pod of its adapter was put on.
    pub adapter_nodes: BTreeMap<String, String>,
    /// By database: the address that a load balancer gave to its Service.
    pub load_balancers: BTreeMap<ObjectName, Ipv4Addr>,
    /// By database: the port of the nodes that Kubernetes gave to its Service.
    pub node_ports: BTreeMap<ObjectName, u16>,
    /// The snapshots of the plan before this one. Agents of an object that cannot be planned now (somebody made a mistake in
    /// it) keep theirs.
    pub previous: BTreeMap<String, AgentSnapshot>,
    /// How the operator was told to start agents.
    pub settings: Settings,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether its condition Ready is True.
    pub ready: bool,
    /// Whether it is cordoned. That keeps no server from it: a cordon is not a drain.
    pub unschedulable: bool,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// The address that other nodes use.
    pub internal_ip: Option<Ipv4Addr>,
    /// The address that the world uses.
    pub external_ip: Option<Ipv4Addr>,
    /// The address of version 6 that other nodes use.
    pub internal_ip6: Option<Ipv6Addr>,
    /// The address of version 6 that the world uses.
    pub external_ip6: Option<Ipv6Addr>,
}

/// A taint of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value; empty for none.
    pub value: String,
    /// What it does.
    pub effect: TaintEffect,
}

/// A namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its label `pod-security.kubernetes.io/enforce`.
    pub enforce: Option<String>,
    /// Whether it is being deleted: nothing can be made in it any more.
    pub terminating: bool,
}

/// What the adapter of a namespace proves itself with, and others to it: the Secret `castgate-adapter`.
#[derive(Clone, PartialEq, Eq)]
pub struct AdapterFacts {
    /// Its certificate and key.
    pub tls: TlsIdentity,
    /// The secret from which the key of each agent follows.
    pub agents_key: Vec<u8>,
}

/// Without the secrets: facts may end up in a log.
impl std::fmt::Debug for AdapterFacts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("AdapterFacts").finish_non_exhaustive()
    }
}

/// How agents are started. A change restarts all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Their image.
    pub agent_image: String,
    /// When it is pulled: a word of Kubernetes; `None`: its default.
    pub image_pull_policy: Option<String>,
    /// Names of the Secrets to pull it with.
    pub image_pull_secrets: Vec<String>,
    /// Where the operator serves agents, as `https://HOST:PORT`.
    pub control_endpoint: String,
    /// For whom their tokens are.
    pub token_audience: String,
    /// How long a token is good for; a new one comes in time.
    pub token_seconds: u32,
    /// What they log, as in `info` or `castgate_agent=debug`.
    pub agent_log: String,
    /// The priority class of their pods; `None`: that of the cluster.
    pub priority_class: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            agent_image: "castgate.local/agent:dev".into(),
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            control_endpoint: "https://castgate-operator.castgate-system.svc:8443".into(),
            token_audience: "castgate-operator".into(),
            token_seconds: 3600,
            agent_log: "info".into(),
            priority_class: None,
        }
    }
}

/// What a cluster knows of an object beside its spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its identity, which those that belong to it name.
    pub uid: String,
    /// How often its spec was changed.
    pub generation: i64,
    /// Whether somebody deleted it and only finalizers hold it.
    pub deleting: bool,
    /// Whether it has parents or still carries the finalizer that its registrations have to be taken back.
    pub registers: bool,
}

/// An object with agents: its kind (`"TunnelServer"`, `"TunnelRelay"`, `"TunnelDatabase"`) and its name.
pub type Owner = (&'static str, ObjectName);

/// Every object of the cluster, good or not.
pub type Metas = BTreeMap<Owner, ObjectMeta>;
