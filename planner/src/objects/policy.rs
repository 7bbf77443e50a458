//! Policies of databases.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use castgate_control::MatchSnapshot;

use super::{ObjectName, Server};

/// Rules of some databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Names of the databases that keep to it.
    pub databases: Vec<String>,
    /// The rules, the first one first.
    pub rules: Vec<PolicyRule>,
    /// Which Autonomous System an address belongs to; `None`: as its database has it.
    pub routes: Option<RouteSource>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// Its name.
    pub name: String,
    /// Whom it is for.
    pub matches: MatchSnapshot,
    /// Where they are sent.
    pub pools: Vec<PolicyPool>,
    /// Where they are never sent.
    pub exclude: Vec<Target>,
}

/// Servers that share clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyPool {
    /// The servers.
    pub target: Target,
    /// Their share.
    pub weight: u32,
    /// A server with this part of its tunnels, in percent, gets no more clients.
    pub load_percent_max: u8,
}

/// Which servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One, by its name.
    Server(String),
    /// Those with all of these labels.
    Labels(BTreeMap<String, String>),
}

impl Target {
    /// Whether a server is meant.
    pub(crate) fn means(&self, name: &ObjectName, server: &Server) -> bool {
        match self {
            Self::Server(wanted) => *wanted == name.name,
            Self::Labels(wanted) => wanted.iter().all(|(key, value)| server.labels.get(key) == Some(value)),
        }
    }
}

/// As `brussels`, or as `site=brussels,line=fast`.
impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Server(name) => formatter.write_str(name),
            Self::Labels(labels) if labels.is_empty() => formatter.write_str("every server"),
            Self::Labels(labels) => {
                let rows: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                formatter.write_str(&rows.join(","))
            }
        }
    }
}

/// Where a route table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteSource {
    /// A file of the machine of the database.
    File(PathBuf),
    /// A key of a `ConfigMap`.
    ConfigMap {
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
}
