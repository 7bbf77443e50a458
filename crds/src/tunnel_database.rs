//! `TunnelDatabase`: the registry that clients ask for the nearest tunnel server.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hierarchy::{self, Hierarchy};
use crate::schema;
use crate::units::TimeSpan;

/// A tunnel database knows which tunnel servers, or which further databases, serve a network or a country.
#[expect(clippy::duplicated_attributes, reason = "every printer column has a type and a path")]
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "castgate.dev",
    version = "v1alpha1",
    kind = "TunnelDatabase",
    plural = "tunneldatabases",
    shortname = "tdb",
    category = "castgate",
    namespaced,
    derive = "PartialEq",
    doc = "A tunnel database knows which tunnel servers, or which further databases, serve a network or a country.",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.http.address"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.http.port"),
    printcolumn(name = "Country", type_ = "string", json_path = ".spec.hierarchy.country"),
    printcolumn(name = "Parents", type_ = "string", json_path = ".spec.hierarchy.parents[*].url", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct TunnelDatabaseSpec {
    /// Where it answers.
    #[serde(default)]
    pub http: Http,
    /// Where it registers itself; a root registers nowhere.
    #[serde(default)]
    pub hierarchy: Hierarchy,
    /// How often those registered here refresh; an entry not refreshed for two intervals is removed.
    #[serde(default = "hierarchy::update_interval")]
    pub update_interval: TimeSpan,
}

/// Where a database answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Http {
    /// The address it listens on and registers with; without it, every address of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ipv4")]
    pub address: Option<String>,
    /// The TCP port.
    #[serde(default = "http_port")]
    #[schemars(schema_with = "schema::port")]
    pub port: u16,
}

impl Default for Http {
    fn default() -> Self {
        Self { address: None, port: http_port() }
    }
}

fn http_port() -> u16 {
    5632
}
