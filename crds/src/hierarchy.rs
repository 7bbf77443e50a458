//! Where an object registers: the part of the spec that tunnel servers and databases have in common.
//!
//! A registration says "I serve these networks, or this country" to every parent named. Granting such a registration is the
//! parent's side: [`TunnelAccount`](crate::TunnelAccount).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, rule, rule_at};
use crate::tunnel_account::DatabaseRef;
use crate::tunnel_assignment_policy::RouteTable;
use crate::units::TimeSpan;

/// Where this object registers, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule(
        "self.parents.size() == 0 || self.networks.size() > 0 || self.asns.size() > 0 || has(self.country)",
        "parents need networks, asns or a country: no client would be sent here",
    ),
    rule(
        "!has(self.discovery) || self.networks.size() > 0 || self.asns.size() > 0 || has(self.country)",
        "discovery needs networks, asns or a country: they are what is looked for",
    ),
    rule_at(".routeTable",
        "self.asns.size() == 0 || has(self.routeTable)",
        "asns need a routeTable, which says what their networks are",
    ),
    rule_at(".discovery", "!has(self.discovery) || self.parents.size() == 0", "name either parents or discovery"),
    rule_at(".parents",
        "self.parents.all(a, (!has(a.url) && !has(a.databaseRef)) || self.parents.exists_one(b, \
         has(a.url) ? has(b.url) && a.url == b.url : has(b.databaseRef) && a.databaseRef.name == b.databaseRef.name))",
        "a parent is listed twice",
    ),
]))]
pub struct Hierarchy {
    /// The databases it registers with. With none it is found by nobody but those who know its address.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub parents: Vec<Parent>,
    /// Instead of parents: the databases it registers with are found, from the roots down, by its networks and its country.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Discovery")]
    pub discovery: Option<Discovery>,
    /// Networks whose clients it is offered to, such as 192.0.2.0/24; 0.0.0.0/0 offers it to everybody as the last resort.
    #[serde(default)]
    #[schemars(schema_with = "schema::prefixes")]
    pub networks: Vec<String>,
    /// Autonomous Systems whose networks it is offered to as well: those that the routeTable gives them.
    #[serde(default)]
    #[schemars(schema_with = "schema::asns")]
    pub asns: Vec<u32>,
    /// Which networks belong to which Autonomous System.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RouteTable")]
    pub route_table: Option<RouteTable>,
    /// Country whose clients it is offered to, after ISO 3166-1 alpha-2. Write "NO" in quotes: YAML takes it for false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::country")]
    pub country: Option<String>,
    /// How often the registration is refreshed. A parent forgets it after two of its own intervals.
    #[serde(default = "update_interval")]
    #[schemars(schema_with = "schema::interval")]
    pub update_interval: TimeSpan,
}

impl Default for Hierarchy {
    fn default() -> Self {
        Self {
            parents: Vec::new(),
            discovery: None,
            networks: Vec::new(),
            asns: Vec::new(),
            route_table: None,
            country: None,
            update_interval: update_interval(),
        }
    }
}

/// 300 s: draft-liefooghe-castgate-02 §4.1.4 leaves the value to the implementation.
pub(crate) fn update_interval() -> TimeSpan {
    TimeSpan::new("300s")
}

/// One database that takes our registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule("has(self.url) != has(self.databaseRef)", "name either url or databaseRef"),
]))]
pub struct Parent {
    /// Where it answers, such as `http://tds.example.net:5632` or `https://tds.example.net:5632`. Without a port 5632 is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    pub url: Option<String>,
    /// Instead of a URL: a database of ours in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DatabaseRef")]
    pub database_ref: Option<DatabaseRef>,
    /// The Secret with the login and the password that its operator gave us, under the keys `login` and `password`.
    pub credentials_secret_ref: SecretRef,
    /// The Secret with the certificates that vouch for it over https, under the key `ca.crt`; by default those of a
    /// database of ours, or those that the agent's system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretRef")]
    pub ca_secret_ref: Option<SecretRef>,
}

/// Where the way to the databases that take our registration begins, and who we are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Discovery {
    /// Databases at the top, such as `http://roots.example.net:5632` or `192.0.2.1:5632`. A bare name such as `roots.example.net`
    /// is tried as the service `_castgate._tcp` first, then as a host at port 5632.
    #[schemars(schema_with = "schema::roots")]
    pub roots: Vec<String>,
    /// The Secret with the login and the password that the operators of the databases on the way gave us, under the keys `login`
    /// and `password`.
    pub credentials_secret_ref: SecretRef,
    /// The Secret with the certificates that vouch for databases over https, under the key `ca.crt`; by default those that the
    /// agent's system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretRef")]
    pub ca_secret_ref: Option<SecretRef>,
    /// What a database of ours is to one that has exactly its network.
    #[serde(default)]
    pub role: DatabaseRole,
}

/// What a database is to another one with exactly the same network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DatabaseRole {
    /// Another copy of it, registered beside it.
    #[default]
    Peer,
    /// That of a customer, whose address is in the network: registered below it.
    Customer,
}

/// Names a Secret of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Its name.
    #[schemars(schema_with = "schema::name")]
    pub name: String,
}
