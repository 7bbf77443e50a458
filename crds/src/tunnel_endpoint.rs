//! `TunnelEndpoint`: one running agent and what it carries. Made by the operator; nobody else writes it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, rule, rule_at};

/// A tunnel endpoint is one agent that runs on one node. The operator makes and removes it; it is there to be read.
#[expect(clippy::duplicated_attributes, reason = "every printer column has a type and a path")]
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "castgate.dev",
    version = "v1alpha1",
    kind = "TunnelEndpoint",
    plural = "tunnelendpoints",
    shortname = "tep",
    category = "castgate",
    namespaced,
    derive = "PartialEq",
    status = "TunnelEndpointStatus",
    selectable = ".spec.node",
    selectable = ".spec.role",
    selectable = ".spec.ownerName",
    doc = "A tunnel endpoint is one agent that runs on one node. The operator makes and removes it; it is there to be read.",
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.address"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Tunnels", type_ = "integer", json_path = ".status.tunnels"),
    printcolumn(name = "Endpoints", type_ = "integer", json_path = ".status.amt.endpoints"),
    printcolumn(name = "Channels", type_ = "integer", json_path = ".status.channels"),
    printcolumn(name = "Mbit/s", type_ = "string", json_path = ".status.megabitsPerSecond"),
    printcolumn(name = "Upstream", type_ = "string", json_path = ".status.upstream"),
    printcolumn(name = "Dropped", type_ = "integer", json_path = ".status.dropped", priority = 1),
    printcolumn(name = "Registered", type_ = "string", json_path = ".status.registered"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(".node", "self.node == oldSelf.node", "node never changes: an agent elsewhere is another endpoint"),
    rule("self.role == oldSelf.role && self.ownerName == oldSelf.ownerName", "role and ownerName never change"),
]))]
pub struct TunnelEndpointSpec {
    /// What the agent does.
    pub role: EndpointRole,
    /// Name of the object it works for; for an adapter the namespace.
    #[schemars(schema_with = "schema::name")]
    pub owner_name: String,
    /// The node it runs on.
    #[schemars(schema_with = "schema::object_name")]
    pub node: String,
}

/// What an agent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EndpointRole {
    /// Carries tunnels for a `TunnelServer`.
    Server,
    /// Carries tunnels for a `TunnelRelay`.
    Relay,
    /// Answers for a `TunnelDatabase`.
    Database,
    /// Registers the agents of its namespace with databases above.
    Adapter,
}

/// What an agent says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TunnelEndpointStatus {
    /// Connected, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Which operator pod holds the agent's stream, and the how many-eth stream of this agent it is. Whoever sees a higher
    /// epoch than its own stops writing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamHolder>,
    /// Whether it carries tunnels, or stands by.
    #[serde(default)]
    pub active: bool,
    /// Where it listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Version of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The pod that it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Generation of the snapshot in force.
    #[serde(default)]
    pub snapshot_generation: i64,
    /// Why the agent refused a snapshot; it goes on with the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<String>,
    /// Tunnels.
    #[serde(default)]
    pub tunnels: i64,
    /// Channels that some tunnel has joined.
    #[serde(default)]
    pub channels: i64,
    /// Rate of what it takes for all channels, rounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub megabits_per_second: Option<String>,
    /// Datagrams taken since its start.
    #[serde(default)]
    pub packets: i64,
    /// Datagrams dropped since its start, whatever the reason.
    #[serde(default)]
    pub dropped: i64,
    /// Datagrams dropped since its start, by reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drops: Vec<Drop>,
    /// Entries of its database.
    #[serde(default)]
    pub entries: i64,
    /// Registrations that stand, of those wanted: `1/1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<String>,
    /// How each registration stands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registrations: Vec<Registration>,
    /// Its AMT relay; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AmtStatus")]
    pub amt: Option<AmtStatus>,
    /// For a relay: the server above that it uses, or what it does to find one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// For a relay: the servers above that are in use or tried, at most 64 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<UpstreamStatus>,
    /// For a database: what each rule of its policies did since it started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PolicyRuleStatus>,
    /// For a database: accounts with two passwords, because one is being changed; at most 256 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rotations: Vec<RotationStatus>,
    /// For a database with an etcd: it does not answer, so that nothing can be registered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub store_lost: bool,
}

/// An account whose password is being changed, at one database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// Its login.
    pub login: String,
    /// Since when the database takes this password before and looks who shows it.
    pub since: Time,
    /// When it was shown last since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub previous_shown: Option<Time>,
}

/// What one rule did at one database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRuleStatus {
    /// Name of its policy.
    pub policy: String,
    /// Its name.
    pub rule: String,
    /// About how many clients it moved.
    #[serde(default)]
    pub clients: i64,
    /// In how many answers.
    #[serde(default)]
    pub answers: i64,
}

/// What an AMT relay carries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AmtStatus {
    /// Where gateways reach it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Anycast addresses that are routed to it now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub anycast: Vec<String>,
    /// Gateways.
    #[serde(default)]
    pub endpoints: i64,
    /// Groups that some gateway has joined.
    #[serde(default)]
    pub groups: i64,
}

/// One server above a relay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamStatus {
    /// Where it is; empty: none is known.
    #[serde(default)]
    pub server: String,
    /// AMT or UMTP.
    #[serde(default)]
    pub protocol: String,
    /// connected, connecting, searching or held (not asked for a while).
    #[serde(default)]
    pub state: String,
    /// Channels that come from it.
    #[serde(default)]
    pub channels: i64,
    /// Why it was last given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}

/// Who holds the stream of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamHolder {
    /// Name of the operator pod.
    pub replica: String,
    /// Grows with every stream.
    pub epoch: i64,
}

/// Datagrams dropped for one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drop {
    /// The reason, as in the agent's counters.
    pub reason: String,
    /// How many.
    pub count: i64,
}

/// One entry at one database above.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// The database above.
    pub parent: String,
    /// What is announced there, as in `TS 192.0.2.1:10100 UDP`.
    pub entry: String,
    /// registered, trying, refused or leaving.
    pub state: String,
    /// For an adapter: the agent whose entry it is. An adapter lists what does not stand, and at most 64 of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// What the parent said when it last refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<String>,
}
