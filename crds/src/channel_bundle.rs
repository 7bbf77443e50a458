//! `ChannelBundle`: channels that may be joined, under names people can use.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, rule, rule_at};
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
    status = "ChannelBundleStatus",
    doc = "A channel bundle lists channels; a tunnel server that names the bundle lets its clients join them, and nothing else.",
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].reason"),
    printcolumn(name = "Servers", type_ = "integer", json_path = ".status.servers"),
    printcolumn(name = "Channels", type_ = "integer", json_path = ".status.channels"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    // Pairs of more than 128 channels, or of more than 32 ranges, would cost more than an API server spends on one rule:
    // what it lets through there is refused by the planner.
    rule_at(".channels",
        "self.channels.size() > 128 || self.channels.all(a, !has(a.port) || self.channels.exists_one(b, has(b.port) && \
         a.port == b.port && a.group == b.group && \
         (has(a.source) ? has(b.source) && a.source == b.source : !has(b.source))))",
        "two channels hold the same group, source and port",
    ),
    rule_at(".channels",
        "self.channels.filter(c, has(c.ports)).size() > 32 || \
         self.channels.filter(c, has(c.ports)).all(a, self.channels.exists_one(b, a.group == b.group && \
         (has(a.source) ? has(b.source) && a.source == b.source : !has(b.source)) && \
         a.ports.first <= (has(b.ports) ? b.ports.last : has(b.port) ? b.port : 0) && \
         (has(b.ports) ? b.ports.first : has(b.port) ? b.port : 65536) <= a.ports.last))",
        "the ports of two channels with the same group and source overlap",
    ),
]))]
pub struct ChannelBundleSpec {
    /// The channels.
    #[schemars(length(min = 1, max = 256))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub channels: Vec<Channel>,
}

/// Who carries a bundle at this moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelBundleStatus {
    /// Generation of the spec that the rest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Tunnel servers that carry it.
    #[serde(default)]
    pub servers: i32,
    /// Channels that it lists; those of a range of ports count as one.
    #[serde(default)]
    pub channels: i32,
}

/// One channel, or the same channel on a range of ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule("has(self.port) != has(self.ports)", "name either port or ports"),
    rule_at(".source",
        "has(self.source) || !(self.group.startsWith('232.') || self.group.matches('^[fF]{2}3[0-9a-fA-F]:(0{0,4}:|:)'))",
        "a group of 232.0.0.0/8 or ff3x::/32 needs a source",
    ),
    rule_at(".source",
        "!has(self.source) || self.source.contains(':') == self.group.contains(':')",
        "group and source are of one version",
    ),
    rule("!self.group.contains(':') || !(self.send || has(self.pattern))",
        "send and pattern are for channels of version 4: UMTP carries no others",
    ),
    rule_at(".pattern", "!has(self.pattern) || has(self.port)", "a pattern is sent to one port: name port"),
]))]
pub struct Channel {
    /// What people call it; once per bundle.
    #[schemars(schema_with = "schema::name")]
    pub name: String,
    /// The group, such as 232.1.2.3. One of version 6, such as `ff3e::8000:1`, is carried by AMT alone.
    #[schemars(schema_with = "schema::group")]
    pub group: String,
    /// The sender's address, for a source-specific channel. Groups of 232.0.0.0/8 and `ff3x::/32` need one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::host")]
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
#[schemars(extend("x-kubernetes-validations" = [rule_at(".last", "self.first <= self.last", "first must not be above last")]))]
pub struct Ports {
    /// The lowest.
    #[schemars(schema_with = "schema::port")]
    pub first: u16,
    /// The highest.
    #[schemars(schema_with = "schema::port")]
    pub last: u16,
}
