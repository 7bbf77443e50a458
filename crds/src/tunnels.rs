//! What `TunnelServer` and `TunnelRelay` have in common: where their tunnels end, who finds them, what they carry, where they run.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::amt::Amt;
use crate::hierarchy::Hierarchy;
use crate::placement::Toleration;
use crate::schema::{self, rule_at};
use crate::units::TimeSpan;

/// The part of their specs that is the same. In a manifest its fields stand beside the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tunnels {
    /// Where tunnels of UMTP end.
    #[serde(default)]
    pub umtp: Umtp,
    /// An AMT relay beside it, for the same channels; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Amt")]
    pub amt: Option<Amt>,
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

/// The rules between those fields: a schema that others take in cannot hold them itself.
pub(crate) fn rules() -> Value {
    Value::from(vec![
        rule_at(
            ".replicas",
            "!has(self.umtp.address) || !has(self.replicas) || self.replicas <= 1",
            "umtp.address is that of one machine: leave it out, and each of several nodes uses its own",
        ),
        rule_at(
            ".replicas",
            "!has(self.amt) || self.amt.addresses.size() == 0 || !has(self.replicas) || self.replicas <= 1",
            "amt.addresses are those of one machine: leave them out, and each of several nodes uses its own",
        ),
        rule_at(
            ".amt.port",
            "!has(self.amt) || self.amt.port != self.umtp.port",
            "amt.port and umtp.port are both ports of UDP: they differ",
        ),
    ])
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
