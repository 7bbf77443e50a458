//! The whole snapshot: reading, writing, and the rules between its parts.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::{
    AdapterSnapshot, DatabaseSnapshot, FrontSnapshot, PatternSource, RegistrarSnapshot, ServerSnapshot, SnapshotError,
    yaml,
};

/// Everything one agent shall do. A role that is absent does not run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentSnapshot {
    /// Grows with each change; reports carry the one that is in force. Default: 0.
    #[serde(default)]
    pub generation: u64,
    /// Whose snapshot it is: `namespace/name`.
    pub agent: String,
    /// Tunnel server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerSnapshot>,
    /// Tunnel database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseSnapshot>,
    /// Announcements at databases above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registrar: Option<RegistrarSnapshot>,
    /// Registrations on behalf of other agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterSnapshot>,
    /// The draft's HTTP in front of a `Hierarchy` service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front: Option<FrontSnapshot>,
    /// Channels fed by this agent itself. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<PatternSource>,
}

impl AgentSnapshot {
    /// Reads a snapshot from YAML (or JSON, which is YAML) and proves it.
    ///
    /// # Errors
    /// One sentence that names the field: `server.limits.ttl: 300 is not in 1..=255`.
    pub fn from_yaml(text: &str) -> Result<Self, SnapshotError> {
        let snapshot: Self = yaml::read(text)?;
        snapshot.check()?;
        Ok(snapshot)
    }

    /// Writes the snapshot so that [`from_yaml`](Self::from_yaml) reads the same.
    ///
    /// # Panics
    /// Never: a snapshot is made of texts, numbers and lists only.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self).expect("texts, numbers and lists can be written as YAML")
    }

    /// A short text that is the same for two snapshots exactly when they ask for the same, whatever their generation: 16
    /// octets of a hash, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> String {
        let content = Self { generation: 0, ..self.clone() }.to_yaml();
        let mut hasher = SipHasher13::new();
        hasher.write(content.as_bytes());
        format!("{:032x}", hasher.finish128().as_u128())
    }

    /// Proves the rules that the types do not hold by themselves.
    ///
    /// # Errors
    /// One sentence that names the first field that breaks a rule.
    pub fn check(&self) -> Result<(), SnapshotError> {
        let Self { generation: _, agent, server, database, registrar, adapter, front, patterns } = self;
        if agent.trim().is_empty() {
            return Err(SnapshotError::new("agent", "is empty"));
        }
        if let Some(server) = server {
            server.check().map_err(|error| error.within("server"))?;
        }
        if let Some(database) = database {
            database.check().map_err(|error| error.within("database"))?;
        }
        if let Some(registrar) = registrar {
            registrar.check().map_err(|error| error.within("registrar"))?;
        }
        if let Some(adapter) = adapter {
            adapter.check().map_err(|error| error.within("adapter"))?;
        }
        if let Some(front) = front {
            front.check().map_err(|error| error.within("front"))?;
        }
        for (index, pattern) in patterns.iter().enumerate() {
            let field = format!("patterns[{index}]");
            pattern.check().map_err(|error| error.within(&field))?;
            if patterns[..index].iter().any(|other| other.channel == pattern.channel) {
                return Err(SnapshotError::new(
                    format!("{field}.channel"),
                    format_args!("{} is fed twice", pattern.channel),
                ));
            }
        }
        Ok(())
    }
}
