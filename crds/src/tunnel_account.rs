//! `TunnelAccount`: the right to register with one of our databases.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, rule, rule_at};

/// A tunnel account lets a server or a database register with one of our databases, within limits.
#[expect(clippy::duplicated_attributes, reason = "every printer column has a type and a path")]
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "castgate.dev",
    version = "v1alpha1",
    kind = "TunnelAccount",
    plural = "tunnelaccounts",
    shortname = "tacc",
    category = "castgate",
    namespaced,
    derive = "PartialEq",
    status = "TunnelAccountStatus",
    selectable = ".spec.databaseRef.name",
    selectable = ".spec.login",
    doc = "A tunnel account lets a server or a database register with one of our databases, within limits.",
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].reason"),
    printcolumn(name = "Database", type_ = "string", json_path = ".spec.databaseRef.name"),
    printcolumn(name = "Login", type_ = "string", json_path = ".spec.login"),
    printcolumn(
        name = "PreviousInUse",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"PreviousPasswordInUse\")].status"
    ),
    printcolumn(name = "Types", type_ = "string", json_path = ".spec.allow.types"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct TunnelAccountSpec {
    /// The database that takes the registration; it never changes.
    #[schemars(extend("x-kubernetes-validations" = [
        rule("self == oldSelf", "databaseRef never changes: make another account"),
    ]))]
    pub database_ref: DatabaseRef,
    /// The name to log in with; once per database.
    #[schemars(schema_with = "schema::login")]
    pub login: String,
    /// The Secret that holds the password.
    pub password_secret_ref: PasswordRef,
    /// What may be registered.
    pub allow: Allow,
}

/// Whether an account is in force, and how far a change of its password has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TunnelAccountStatus {
    /// Generation of the spec that the rest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted; and, as long as there is a password before, `PreviousPasswordInUse`: when it is False, that one can go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// When the password before was shown last, as far as its databases know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub previous_password_last_used: Option<Time>,
}

/// Names a `TunnelDatabase` of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseRef {
    /// Its name.
    #[schemars(schema_with = "schema::name")]
    pub name: String,
}

/// Names one value of a Secret of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(".previousKey", "self.key != self.previousKey", "the password and the one before stand under different keys"),
]))]
pub struct PasswordRef {
    /// Name of the Secret.
    #[schemars(schema_with = "schema::name")]
    pub name: String,
    /// Key in the Secret.
    #[serde(default = "password_key")]
    #[schemars(schema_with = "schema::secret_key")]
    pub key: String,
    /// Key in the Secret of the password before this one. While it is there, both are taken, so that nobody is turned away between
    /// our change and that of who logs in. It need not be there; an empty one counts as none.
    #[serde(default = "previous_key")]
    #[schemars(schema_with = "schema::secret_key")]
    pub previous_key: String,
}

fn password_key() -> String {
    "password".to_owned()
}

fn previous_key() -> String {
    "previous".to_owned()
}

/// What an account may register. What is not listed is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule(
        "self.networks.size() > 0 || self.asns.size() > 0 || self.countries.size() > 0",
        "name networks, asns or countries: nothing else can be registered for",
    ),
]))]
pub struct Allow {
    /// Tunnel servers (TS), databases (TDS), or both.
    #[schemars(length(min = 1, max = 2))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub types: Vec<EntryType>,
    /// It may register these networks and any within; 0.0.0.0/0 is every network.
    #[serde(default)]
    #[schemars(schema_with = "schema::prefixes")]
    pub networks: Vec<String>,
    /// It may register the networks of these Autonomous Systems, which the routeTable of the database knows.
    #[serde(default)]
    #[schemars(schema_with = "schema::asns")]
    pub asns: Vec<u32>,
    /// It may register for these countries.
    #[serde(default)]
    #[schemars(schema_with = "schema::countries")]
    pub countries: Vec<String>,
    /// It may register entries with an address in these prefixes; with none, any address.
    #[serde(default)]
    #[schemars(schema_with = "schema::prefixes")]
    pub sources: Vec<String>,
    /// It may register a network only from an address in it, or in the same network above: the address of the entry and all of its
    /// networks lie within one of the networks here, or of one of the Autonomous Systems. Not for servers behind NAT.
    #[serde(default)]
    pub strict_source: bool,
}

/// What registers: the words of draft-liefooghe-castgate-02.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum EntryType {
    /// A tunnel server.
    #[serde(rename = "TS")]
    TunnelServer,
    /// A tunnel database.
    #[serde(rename = "TDS")]
    TunnelDatabase,
}
