//! `TunnelRelay`: a tunnel server whose channels come through another tunnel.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hierarchy::Hierarchy;
use crate::placement::Toleration;
use crate::schema::{self, rule_at};
use crate::tunnel_server::{BundleRef, Limits, Timers, Umtp};

/// A tunnel relay takes channels through an upstream tunnel and carries them to clients through tunnels of its own.
#[expect(clippy::duplicated_attributes, reason = "every printer column has a type and a path")]
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "castgate.dev",
    version = "v1alpha1",
    kind = "TunnelRelay",
    plural = "tunnelrelays",
    shortname = "tr",
    category = "castgate",
    namespaced,
    derive = "PartialEq",
    status = "TunnelRelayStatus",
    selectable = ".spec.hierarchy.country",
    doc = "A tunnel relay takes channels through an upstream tunnel and carries them to clients through tunnels of its own.",
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].reason"),
    printcolumn(name = "Upstream", type_ = "string", json_path = ".spec.upstream.protocol"),
    printcolumn(name = "Discovery", type_ = "string", json_path = ".spec.upstream.discovery"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.umtp.port", priority = 1),
    printcolumn(name = "Country", type_ = "string", json_path = ".spec.hierarchy.country", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(".replicas",
        "!has(self.umtp.address) || !has(self.replicas) || self.replicas <= 1",
        "umtp.address is that of one machine: leave it out, and each of several nodes uses its own",
    ),
]))]
pub struct TunnelRelaySpec {
    /// Where channels come from.
    pub upstream: Upstream,
    /// Where tunnels end.
    #[serde(default)]
    pub umtp: Umtp,
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
    /// The pool: nodes with all of these labels; without any, every node.
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

/// Where a relay takes its channels from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(".discovery",
        "self.discovery != 'Driad' || self.protocol == 'AMT'",
        "Driad finds AMT relays (RFC 8777): it needs protocol AMT",
    ),
    rule_at(".servers",
        "self.discovery == 'Static' ? self.servers.size() > 0 : self.servers.size() == 0",
        "servers and discovery Static go together",
    ),
    rule_at(".tds",
        "self.discovery == 'Hierarchy' ? self.tds.size() > 0 : self.tds.size() == 0",
        "tds and discovery Hierarchy go together",
    ),
]))]
pub struct Upstream {
    /// The tunnel to the server above.
    #[serde(default)]
    pub protocol: UpstreamProtocol,
    /// How the server above is found.
    #[serde(default)]
    pub discovery: Discovery,
    /// Databases to ask, as a name, an address, or either with a port; for discovery `Hierarchy`.
    #[serde(default)]
    #[schemars(schema_with = "schema::database_places")]
    pub tds: Vec<String>,
    /// Servers or relays, as HOST:PORT, the first that answers; for discovery `Static`.
    #[serde(default)]
    #[schemars(schema_with = "schema::server_places")]
    pub servers: Vec<String>,
}

/// What tunnels carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum UpstreamProtocol {
    /// The UDP Multicast Tunneling Protocol.
    #[default]
    #[serde(rename = "UMTP")]
    Umtp,
    /// Automatic Multicast Tunneling (RFC 7450).
    #[serde(rename = "AMT")]
    Amt,
}

/// How the server above is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Discovery {
    /// Databases are asked, as clients do.
    #[default]
    Hierarchy,
    /// AMTRELAY records of the source are looked up (RFC 8777).
    Driad,
    /// Servers are named.
    Static,
}

/// What a relay does at this moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TunnelRelayStatus {
    /// Generation of the spec that the rest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
