//! `TunnelServer`: takes channels natively and carries them to clients through tunnels.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hierarchy::Hierarchy;
use crate::placement::Toleration;
use crate::schema::{self, rule_at};
use crate::units::TimeSpan;

/// A tunnel server takes channels from a network that has multicast and carries them to clients that have none.
#[expect(clippy::duplicated_attributes, reason = "every printer column has a type and a path")]
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "castgate.dev",
    version = "v1alpha1",
    kind = "TunnelServer",
    plural = "tunnelservers",
    shortname = "ts",
    category = "castgate",
    namespaced,
    derive = "PartialEq",
    status = "TunnelServerStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    selectable = ".spec.hierarchy.country",
    doc = "A tunnel server takes channels from a network that has multicast and carries them to clients that have none.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes"),
    printcolumn(name = "Tunnels", type_ = "integer", json_path = ".status.tunnels"),
    printcolumn(name = "Channels", type_ = "integer", json_path = ".status.channels"),
    printcolumn(name = "Registered", type_ = "string", json_path = ".status.registrations"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.umtp.port", priority = 1),
    printcolumn(name = "Country", type_ = "string", json_path = ".spec.hierarchy.country", priority = 1),
    printcolumn(name = "Bundles", type_ = "string", json_path = ".spec.bundles", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(".replicas",
        "!has(self.umtp.address) || !has(self.replicas) || self.replicas <= 1",
        "umtp.address is that of one machine: leave it out, and each of several nodes uses its own",
    ),
]))]
pub struct TunnelServerSpec {
    /// Where tunnels end.
    #[serde(default)]
    pub umtp: Umtp,
    /// The interfaces on which it hears channels and re-sends what its clients send.
    #[schemars(length(min = 1, max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub interfaces: Vec<Interface>,
    /// The bundles whose channels it carries; nothing else can be joined.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub bundles: Vec<BundleRef>,
    /// Where it registers, so that clients find it.
    #[serde(default)]
    pub hierarchy: Hierarchy,
    /// What it carries at most.
    #[serde(default)]
    pub limits: Limits,
    /// How long it waits.
    #[serde(default)]
    pub timers: Timers,
    /// Which tunnels a channel's packet ends that is heard natively from the address of a client.
    #[serde(default)]
    pub loop_check: LoopCheck,
    /// Threads that carry packets; by default one for each processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::workers")]
    pub workers: Option<u8>,
    /// The pool: nodes with all of these labels; without any, every node. On one machine it means nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that it may run on all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// How many nodes of the pool carry tunnels; the others stand by. By default all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::replicas")]
    pub replicas: Option<u32>,
}

/// What a tunnel server does at this moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TunnelServerStatus {
    /// Generation of the spec that the rest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, Ready, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Nodes that carry tunnels.
    #[serde(default)]
    pub replicas: i32,
    /// Labels of its pods, for `kubectl scale` and autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Nodes that carry tunnels, of those that should: `2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,
    /// Tunnels on all nodes.
    #[serde(default)]
    pub tunnels: i64,
    /// Channels carried on some node.
    #[serde(default)]
    pub channels: i64,
    /// Registrations that stand, of those wanted: `2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registrations: Option<String>,
}

/// Where tunnels end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(".addressType",
        "!has(self.address) || self.addressType == 'InternalIP'",
        "addressType says which address is taken when address is absent: name one of the two",
    ),
]))]
pub struct Umtp {
    /// The address it listens on and registers with; without it, every address of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ipv4")]
    pub address: Option<String>,
    /// Which address of its node an agent listens on and registers with when `address` is absent.
    #[serde(default)]
    pub address_type: AddressType,
    /// The UDP port.
    #[serde(default = "umtp_port")]
    #[schemars(schema_with = "schema::port")]
    pub port: u16,
}

impl Default for Umtp {
    fn default() -> Self {
        Self { address: None, address_type: AddressType::default(), port: umtp_port() }
    }
}

fn umtp_port() -> u16 {
    10_100
}

/// Which of the addresses in the status of a node is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum AddressType {
    /// The one that other nodes use.
    #[default]
    #[serde(rename = "InternalIP")]
    InternalIp,
    /// The one that the world uses.
    #[serde(rename = "ExternalIP")]
    ExternalIp,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Its name on the machine, such as eth0.
    #[schemars(schema_with = "schema::interface_name")]
    pub name: String,
}

/// Names a `ChannelBundle` of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundleRef {
    /// Its name.
    #[schemars(schema_with = "schema::name")]
    pub name: String,
}

/// What a tunnel server carries at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Tunnels at a time.
    #[schemars(schema_with = "schema::table_size")]
    pub tunnels: u32,
    /// Channels at a time, over all tunnels.
    #[schemars(schema_with = "schema::table_size")]
    pub channels: u32,
    /// Channels that one tunnel may have joined at a time.
    #[schemars(schema_with = "schema::table_size")]
    pub channels_per_tunnel: u32,
    /// Highest time to live of what it re-sends on its interfaces.
    #[schemars(schema_with = "schema::ttl")]
    pub ttl: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tunnels: 65_536, channels: 4_096, channels_per_tunnel: 256, ttl: 63 }
    }
}

/// How long a tunnel server waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Timers {
    /// A join that is not repeated for so long is over.
    pub join_timeout: TimeSpan,
    /// A client without joins that is silent for so long is forgotten.
    pub idle_timeout: TimeSpan,
    /// How long a cookie is handed out before the next one; each is accepted for twice as long.
    pub cookie_epoch: TimeSpan,
    /// Shortest time between two answers to an address that has proved nothing yet.
    pub answer_interval: TimeSpan,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            join_timeout: TimeSpan::new("60s"),
            idle_timeout: TimeSpan::new("120s"),
            cookie_epoch: TimeSpan::new("1h"),
            answer_interval: TimeSpan::new("1s"),
        }
    }
}

/// Which tunnels end when a channel's packet is heard natively from the address of a client (draft-finlayson-umtp-09 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum LoopCheck {
    /// None. (The word is not `Off`, which YAML 1.1 takes for false.)
    Disabled,
    /// Those of that address that joined this channel: two clients behind one NAT do not end each other's tunnels.
    #[default]
    Endpoint,
    /// All of that address, as the draft has it.
    Address,
}
