//! `TunnelServer`: takes channels natively and carries them to clients through tunnels.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hierarchy::Hierarchy;
use crate::schema;
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
    doc = "A tunnel server takes channels from a network that has multicast and carries them to clients that have none.",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.umtp.address"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.umtp.port"),
    printcolumn(name = "Country", type_ = "string", json_path = ".spec.hierarchy.country"),
    printcolumn(name = "Bundles", type_ = "string", json_path = ".spec.bundles[*].name", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
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
}

/// Where tunnels end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Umtp {
    /// The address it listens on and registers with; without it, every address of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ipv4")]
    pub address: Option<String>,
    /// The UDP port.
    #[serde(default = "umtp_port")]
    #[schemars(schema_with = "schema::port")]
    pub port: u16,
}

impl Default for Umtp {
    fn default() -> Self {
        Self { address: None, port: umtp_port() }
    }
}

fn umtp_port() -> u16 {
    10_100
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
