//! `ChannelBundle`: channels that may be joined, under names people can use.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, rule};
use crate::units::RateText;

/// A channel bundle lists channels; a tunnel server that names the bundle lets its clients join them, and nothing else.
#[expect(clippy::duplicated_attributes, reason = "every printer column has a type and a path")]
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "castgate.dev",
    version = "v1alpha1",
    kind = "ChannelBundle",
    plural = "channelbundles",
    shortname = "cb",
    category = "castgate",
    namespaced,
    derive = "PartialEq",
    doc = "A channel bundle lists channels; a tunnel server that names the bundle lets its clients join them, and nothing else.",
    printcolumn(name = "Channels", type_ = "string", json_path = ".spec.channels[*].name"),
    printcolumn(name = "Groups", type_ = "string", json_path = ".spec.channels[*].group", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ChannelBundleSpec {
    /// The channels.
    #[schemars(length(min = 1, max = 256))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub channels: Vec<Channel>,
}

/// One channel, or the same channel on a range of ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule("has(self.port) != has(self.ports)", "name either port or ports"),
    rule("has(self.source) || !self.group.startsWith('232.')", "a group of 232.0.0.0/8 needs a source"),
    rule("!has(self.pattern) || has(self.port)", "a pattern is sent to one port: name port"),
]))]
pub struct Channel {
    /// What people call it; once per bundle.
    #[schemars(schema_with = "schema::name")]
    pub name: String,
    /// The group, such as 232.1.2.3.
    #[schemars(schema_with = "schema::group")]
    pub group: String,
    /// The sender's address, for a source-specific channel. Groups of 232.0.0.0/8 need one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ipv4")]
    pub source: Option<String>,
    /// The UDP port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::port")]
    pub port: Option<u16>,
    /// A range of UDP ports instead of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Ports")]
    pub ports: Option<Ports>,
    /// Clients may send into it too.
    #[serde(default)]
    pub send: bool,
    /// Highest time to live of what clients send into it; by default that of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ttl")]
    pub ttl: Option<u8>,
    /// Lets the agent of the first server that carries the bundle send numbered datagrams into it at this rate, such as
    /// 2Mbit, 500kbit or 100pps: a channel to try tunnels with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RateText")]
    pub pattern: Option<RateText>,
    /// What it carries, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 1000))]
    pub description: Option<String>,
}

/// Ports from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [rule("self.first <= self.last", "first must not be above last")]))]
pub struct Ports {
    /// The lowest.
    #[schemars(schema_with = "schema::port")]
    pub first: u16,
    /// The highest.
    #[schemars(schema_with = "schema::port")]
    pub last: u16,
}
