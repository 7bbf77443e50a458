//! `TunnelServer`: takes channels natively and carries them to clients through tunnels.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::tunnels::{self, Tunnels};

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
    printcolumn(name = "Endpoints", type_ = "integer", json_path = ".status.endpoints"),
    printcolumn(name = "Channels", type_ = "integer", json_path = ".status.channels"),
    printcolumn(name = "Registered", type_ = "string", json_path = ".status.registrations"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.umtp.port", priority = 1),
    printcolumn(name = "AMT", type_ = "integer", json_path = ".spec.amt.port", priority = 1),
    printcolumn(name = "Country", type_ = "string", json_path = ".spec.hierarchy.country", priority = 1),
    printcolumn(name = "Bundles", type_ = "string", json_path = ".spec.bundles", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = tunnels::rules()))]
pub struct TunnelServerSpec {
    /// What it has in common with a relay.
    #[serde(flatten)]
    pub tunnels: Tunnels,
    /// The interfaces on which it hears channels and re-sends what its clients send.
    #[schemars(length(min = 1, max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub interfaces: Vec<Interface>,
    /// Which tunnels a channel's packet ends that is heard natively from the address of a client.
    #[serde(default)]
    pub loop_check: LoopCheck,
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
    /// AMT gateways on all nodes; absent without `amt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<i64>,
    /// Channels carried on some node.
    #[serde(default)]
    pub channels: i64,
    /// Registrations that stand, of those wanted: `2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registrations: Option<String>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Its name on the machine, such as eth0.
    #[schemars(schema_with = "schema::interface_name")]
    pub name: String,
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
