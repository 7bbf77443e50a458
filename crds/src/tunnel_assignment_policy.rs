//! `TunnelAssignmentPolicy`: rules of a database that win over what was registered (TSAP).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, rule, rule_at};
use crate::tunnel_account::DatabaseRef;

/// A tunnel assignment policy sends clients of databases to certain servers, whatever else is registered.
#[expect(clippy::duplicated_attributes, reason = "every printer column has a type and a path")]
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "castgate.dev",
    version = "v1alpha1",
    kind = "TunnelAssignmentPolicy",
    plural = "tunnelassignmentpolicies",
    shortname = "tap",
    category = "castgate",
    namespaced,
    derive = "PartialEq",
    status = "TunnelAssignmentPolicyStatus",
    doc = "A tunnel assignment policy sends clients of databases to certain servers, whatever else is registered.",
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].reason"),
    printcolumn(name = "Databases", type_ = "string", json_path = ".spec.databaseRefs"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(".rules",
        "self.rules.all(a, self.rules.exists_one(b, a.name == b.name))",
        "two rules have the same name",
    ),
]))]
pub struct TunnelAssignmentPolicySpec {
    /// The databases that keep to it.
    #[schemars(length(min = 1, max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub database_refs: Vec<DatabaseRef>,
    /// The rules. The first that matches and that has a server to assign counts; what any that matches excludes is excluded.
    #[schemars(length(min = 1, max = 64))]
    pub rules: Vec<Rule>,
    /// Which Autonomous System an address belongs to; without it the routeTable of each database says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RouteTable")]
    pub route_table: Option<RouteTable>,
}

/// Where the route table is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule("has(self.configMapRef) != has(self.file)", "name either configMapRef or file"),
]))]
pub struct RouteTable {
    /// A key of a `ConfigMap`, with lines of prefix,asn such as 192.0.2.0/24,64500. On a cluster the `ConfigMap` has the label
    /// castgate.dev/routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ConfigMapRef")]
    pub config_map_ref: Option<ConfigMapRef>,
    /// A file of the machine that the database runs on: the same lines or `TABLE_DUMP_V2` of MRT, packed with gzip or not.
    /// Not on a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::file")]
    pub file: Option<String>,
}

/// Names a key of a `ConfigMap` of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapRef {
    /// Its name.
    #[schemars(schema_with = "schema::name")]
    pub name: String,
    /// The key.
    #[serde(default = "routes")]
    #[schemars(schema_with = "schema::secret_key")]
    pub key: String,
}

fn routes() -> String {
    "routes.csv".to_owned()
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule(
        "has(self.assign) || self.exclude.size() > 0",
        "a rule without assign and without exclude does nothing",
    ),
]))]
pub struct Rule {
    /// What people call it; once per policy.
    #[schemars(schema_with = "schema::name")]
    pub name: String,
    /// Which clients it is for; everything named has to hold. Without anything: all of them.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// Servers that they are sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Assign")]
    pub assign: Option<Assign>,
    /// Servers that they are never sent to.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub exclude: Vec<Target>,
}

/// What makes a client one of those that a rule is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// Its address is in one of these networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::prefixes")]
    pub networks: Vec<String>,
    /// It is in one of these countries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::countries")]
    pub countries: Vec<String>,
    /// Its address belongs to one of these Autonomous Systems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::asns")]
    pub asns: Vec<u32>,
    /// It asks at this time of day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TimeWindow")]
    pub time_window: Option<TimeWindow>,
}

/// A part of every day; one that ends before it starts goes over midnight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [rule_at(".to", "self.from != self.to", "to must not be the same as from")]))]
pub struct TimeWindow {
    /// When it starts, as 18:00.
    #[schemars(schema_with = "schema::time_of_day")]
    pub from: String,
    /// When it is over, as 23:30.
    #[schemars(schema_with = "schema::time_of_day")]
    pub to: String,
    /// Whose clock is meant, as Europe/Brussels.
    #[serde(default = "utc")]
    #[schemars(schema_with = "schema::time_zone")]
    pub zone: String,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// Where clients are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(".pools", "self.pools.exists(pool, pool.weight > 0)", "one pool at least has a weight above 0"),
]))]
pub struct Assign {
    /// Pools that share the clients by their weights; one of weight 0 takes what the others cannot.
    #[schemars(length(min = 1, max = 16))]
    pub pools: Vec<Pool>,
}

/// One server, or those with certain labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule("has(self.serverRef) != has(self.selector)", "name either serverRef or selector"),
]))]
pub struct Pool {
    /// A server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ServerRef")]
    pub server_ref: Option<ServerRef>,
    /// Instead of one: the servers with all of these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::labels")]
    pub selector: Option<BTreeMap<String, String>>,
    /// Its share of the clients.
    #[serde(default = "one")]
    #[schemars(schema_with = "schema::weight")]
    pub weight: u32,
    /// A server that has this part of the tunnels it may have, in percent, gets no more clients.
    #[serde(default = "all")]
    #[schemars(schema_with = "schema::percent")]
    pub max_load_percent: u8,
}

fn all() -> u8 {
    100
}

fn one() -> u32 {
    1
}

/// One server, or those with certain labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule("has(self.serverRef) != has(self.selector)", "name either serverRef or selector"),
]))]
pub struct Target {
    /// A server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ServerRef")]
    pub server_ref: Option<ServerRef>,
    /// Instead of one: the servers with all of these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::labels")]
    pub selector: Option<BTreeMap<String, String>>,
}

/// Names a `TunnelServer` of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerRef {
    /// Its name.
    #[schemars(schema_with = "schema::name")]
    pub name: String,
}

/// Whether a policy is in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TunnelAssignmentPolicyStatus {
    /// Generation of the spec that the rest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// What each rule did, at all databases together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleStatus>,
}

/// What one rule did since its databases started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleStatus {
    /// Its name.
    pub name: String,
    /// About how many clients it moved.
    #[serde(default)]
    pub clients: i64,
    /// In how many answers.
    #[serde(default)]
    pub answers: i64,
}
