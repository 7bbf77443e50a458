//! `TunnelRelay`: a tunnel server whose channels come through another tunnel.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hierarchy::SecretRef;
use crate::schema::{self, rule, rule_at};
use crate::tunnel_account::DatabaseRef;
use crate::tunnel_server::{Interface, TunnelServerStatus};
use crate::tunnels::{self, Tunnels};
use crate::units::{SPAN_IN_CEL, TimeSpan};

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
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    selectable = ".spec.hierarchy.country",
    doc = "A tunnel relay takes channels through an upstream tunnel and carries them to clients through tunnels of its own.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes"),
    printcolumn(name = "Upstream", type_ = "string", json_path = ".status.upstream"),
    printcolumn(name = "Protocol", type_ = "string", json_path = ".spec.upstream.protocol"),
    printcolumn(name = "Discovery", type_ = "string", json_path = ".spec.upstream.discovery", priority = 1),
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
pub struct TunnelRelaySpec {
    /// What it has in common with a server.
    #[serde(flatten)]
    pub tunnels: Tunnels,
    /// Where channels come from.
    pub upstream: Upstream,
    /// Where channels go beside the tunnels; absent: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Delivery")]
    pub delivery: Option<Delivery>,
}

/// What a relay does at this moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TunnelRelayStatus {
    /// What it has in common with a server.
    #[serde(flatten)]
    pub tunnels: TunnelServerStatus,
    /// Nodes with a server above, of those that carry tunnels: `2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
}

/// Where a relay takes its channels from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(".discovery",
        "self.protocol == 'AMT' || self.discovery in ['Hierarchy', 'Static']",
        "Driad, Anycast and Map find AMT relays: they need protocol AMT",
    ),
    rule_at(".servers",
        "self.discovery == 'Static' ? self.servers.size() > 0 : self.servers.size() == 0",
        "servers and discovery Static go together",
    ),
    rule_at(".tds",
        "self.discovery == 'Hierarchy' ? (self.tds.size() > 0) != has(self.databaseRef) : \
         self.tds.size() == 0 && !has(self.databaseRef)",
        "discovery Hierarchy goes together with tds or databaseRef, one of the two",
    ),
    rule_at(".country", "!has(self.country) || self.discovery == 'Hierarchy'", "country is for discovery Hierarchy"),
    rule_at(".caSecretRef",
        "!has(self.caSecretRef) || self.discovery == 'Hierarchy'",
        "caSecretRef is for discovery Hierarchy",
    ),
    rule_at(".driad", "!has(self.driad) || self.discovery == 'Driad'", "driad is for discovery Driad"),
    rule_at(".relays", "self.relays.size() == 0 || self.discovery == 'Anycast'", "relays are for discovery Anycast"),
    rule_at(".map",
        "self.discovery == 'Map' ? self.map.size() > 0 : self.map.size() == 0",
        "map and discovery Map go together",
    ),
    rule_at(".gateway", "!has(self.gateway) || self.protocol == 'AMT'", "gateway is for protocol AMT"),
]))]
pub struct Upstream {
    /// The tunnel to the server above.
    pub protocol: UpstreamProtocol,
    /// How the server above is found.
    pub discovery: Discovery,
    /// Databases to ask, as a name, an address, or either with a port; over https as a URL such as `https://tds.example.net`; for
    /// discovery `Hierarchy`.
    #[schemars(schema_with = "schema::database_places")]
    pub tds: Vec<String>,
    /// Instead of `tds`: a database of ours in the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DatabaseRef")]
    pub database_ref: Option<DatabaseRef>,
    /// The Secret with the certificates that vouch for databases over https, under the key `ca.crt`; for discovery `Hierarchy`. By
    /// default those of `databaseRef`, or those that the agent's system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretRef")]
    pub ca_secret_ref: Option<SecretRef>,
    /// Country to ask for; by default that of `hierarchy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::country")]
    pub country: Option<String>,
    /// Servers or relays, best first, as HOST or HOST:PORT; for discovery `Static`. Without a port 2268 is meant for AMT, 10100
    /// for UMTP.
    #[schemars(schema_with = "schema::server_places")]
    pub servers: Vec<String>,
    /// What is tried before the records of a source; for discovery `Driad`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Driad")]
    pub driad: Option<Driad>,
    /// Addresses that several relays have, or names of such, best first; for discovery `Anycast`. By default 192.52.193.1 and
    /// `2001:3::1`.
    #[schemars(schema_with = "schema::server_places")]
    pub relays: Vec<String>,
    /// Which channels come from where; for discovery `Map`. The first row that covers a channel counts; what none covers comes
    /// from nowhere.
    #[schemars(length(max = 256))]
    pub map: Vec<MapRow>,
    /// Name servers to ask, as ADDRESS or ADDRESS:PORT; by default those of the node.
    #[schemars(schema_with = "schema::resolvers")]
    pub resolvers: Vec<String>,
    /// How the AMT gateway behaves; for protocol `AMT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Gateway")]
    pub gateway: Option<Gateway>,
}

/// What tunnels carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum UpstreamProtocol {
    /// Automatic Multicast Tunneling (RFC 7450).
    #[default]
    #[serde(rename = "AMT")]
    Amt,
    /// The UDP Multicast Tunneling Protocol.
    #[serde(rename = "UMTP")]
    Umtp,
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
    /// Relays are found under an address that several have.
    Anycast,
    /// Each channel has its relays (RFC 8313 section 3.4 d).
    Map,
}

/// What is tried before the records of a source, in this order (RFC 8777 section 2.3).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Driad {
    /// Domains whose service `_amt._udp` is asked.
    #[schemars(schema_with = "schema::domains")]
    pub dns_sd: Vec<String>,
    /// The anycast addresses 192.52.193.1 and `2001:3::1`.
    pub anycast: bool,
}

/// Some channels and the relays that have them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule("has(self.group) || has(self.source)", "name group or source, or both"),
    rule_at(".source",
        "!has(self.group) || !has(self.source) || self.group.contains(':') == self.source.contains(':')",
        "group and source are of one version",
    ),
]))]
pub struct MapRow {
    /// Groups, as a prefix such as 232.0.0.0/8; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::prefix")]
    pub group: Option<String>,
    /// Sources, as a prefix such as 192.0.2.0/24; by default all. A channel of any source is in no such row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::prefix")]
    pub source: Option<String>,
    /// The relays, best first, as HOST or HOST:PORT.
    #[schemars(schema_with = "schema::relays_of_row")]
    pub relays: Vec<String>,
}

/// How the AMT gateway of a relay behaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Gateway {
    /// Whether relays with an address of version 6 are used.
    pub ipv6: bool,
    /// Whether relays are told that it understands ECN (RFC 9601). Some old relays are silent then, and are asked again without.
    pub ecn: bool,
    /// How long it waits.
    pub timers: GatewayTimers,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { ipv6: true, ecn: true, timers: GatewayTimers::default() }
    }
}

/// How long an AMT gateway waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(".maximumTimeout",
        &format!(
            "!(self.initialTimeout.matches('{SPAN_IN_CEL}') && self.maximumTimeout.matches('{SPAN_IN_CEL}')) || \
             duration(self.initialTimeout) <= duration(self.maximumTimeout)"
        ),
        "maximumTimeout is not shorter than initialTimeout",
    ),
]))]
pub struct GatewayTimers {
    /// First wait for an answer; doubled each time.
    pub initial_timeout: TimeSpan,
    /// Longest such wait.
    pub maximum_timeout: TimeSpan,
    /// A channel that is silent for so long, up to twice as long by chance, has lost its relay.
    pub silence: TimeSpan,
    /// How long a relay without traffic is not asked again.
    pub hold_down: TimeSpan,
    /// How long a relay that is full is not asked again.
    pub full_hold_down: TimeSpan,
}

impl Default for GatewayTimers {
    fn default() -> Self {
        Self {
            initial_timeout: TimeSpan::new("1s"),
            maximum_timeout: TimeSpan::new("120s"),
            silence: TimeSpan::new("4s"),
            hold_down: TimeSpan::new("3m"),
            full_hold_down: TimeSpan::new("10m"),
        }
    }
}

/// Where the channels of a relay go beside its tunnels, with their own source addresses. What hosts there ask for with IGMP or MLD
/// is taken from the server above, as far as a bundle names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    rule("self.interfaces.size() > 0 || has(self.tun)", "name interfaces or tun, or both"),
    rule_at(".tun", "!has(self.tun) || self.interfaces.all(a, a.name != self.tun)", "tun is an interface of its own"),
]))]
pub struct Delivery {
    /// Interfaces with receivers.
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub interfaces: Vec<Interface>,
    /// Name of a TUN interface that is made for receivers on the node. Agents need `NET_ADMIN` to make it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::interface_name")]
    pub tun: Option<String>,
}
