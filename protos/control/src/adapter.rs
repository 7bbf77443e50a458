//! The adapter role: registers the agents of its namespace with databases above, so that no credential leaves it.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::database::check_credentials;
use crate::registrar::{Parent, RegistrarDiscovery, Registration, check_discovery, check_entries, check_parents};
use crate::tls::{TlsIdentity, check_ca};
use crate::{SnapshotError, integer};

/// Most agents that one adapter registers.
const CLIENTS_MAX: usize = 10_000;

/// An adapter: where agents reach it, and whom it lets announce what, where, with which account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdapterSnapshot {
    /// Address and TCP port of its gRPC service.
    pub listen: SocketAddr,
    /// What proves it to agents.
    pub tls: TlsIdentity,
    /// The agents it works for.
    #[serde(default)]
    pub clients: Vec<AdapterClient>,
    /// How long an agent may be gone, in seconds, before its entries are taken back. Default: 15.
    #[serde(default = "default_grace", deserialize_with = "integer::read")]
    pub grace_seconds: std::num::NonZeroU32,
}

/// One agent that may announce entries through the adapter.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdapterClient {
    /// Its name: `namespace/ts-name@node`.
    pub agent: String,
    /// What it shows as a bearer token.
    pub key: String,
    /// What it may announce; it says itself when.
    pub entries: Vec<Registration>,
    /// The databases that are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Parent>,
    /// Instead of parents: where the walks to them begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<RegistrarDiscovery>,
    /// The peers of its database, whose entries it may fetch through the adapter. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<AdapterPeers>,
    /// How often, in seconds; as in the registrar.
    #[serde(default = "crate::registrar::default_interval", deserialize_with = "integer::read")]
    pub interval_seconds: std::num::NonZeroU32,
}

/// Without the key: a snapshot may end up in a log.
impl fmt::Debug for AdapterClient {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let Self { agent, key: _, entries, parents, discovery, peers, interval_seconds } = self;
        formatter
            .debug_struct("AdapterClient")
            .field("agent", agent)
            .field("entries", entries)
            .field("parents", parents)
            .field("discovery", discovery)
            .field("peers", peers)
            .field("interval_seconds", interval_seconds)
            .finish_non_exhaustive()
    }
}

/// Whose entries may be fetched, with which login: that of the peers, which no agent holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdapterPeers {
    /// `HOST[:PORT]` or `http://HOST[:PORT]` of each, beside those that are found. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// User name that all of them have in common.
    pub login: String,
    /// Their password.
    pub password: String,
    /// The certificates that vouch for them, as PEM; for https. Default: those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// Without the password: a snapshot may end up in a log.
impl fmt::Debug for AdapterPeers {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let Self { members, login, password: _, ca: _ } = self;
        formatter.debug_struct("AdapterPeers").field("members", members).field("login", login).finish_non_exhaustive()
    }
}

/// Where a registrar without parents of its own has its entries announced.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdapterRef {
    /// `https://HOST:PORT` of the adapter; its certificate names HOST.
    pub endpoint: String,
    /// What is shown as a bearer token.
    pub key: String,
}

/// Without the key: a snapshot may end up in a log.
impl fmt::Debug for AdapterRef {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_struct("AdapterRef").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl AdapterSnapshot {
    pub(crate) fn check(&self) -> Result<(), SnapshotError> {
        if self.clients.len() > CLIENTS_MAX {
            return Err(SnapshotError::new("clients", format_args!("lists more than {CLIENTS_MAX} agents")));
        }
        for (index, client) in self.clients.iter().enumerate() {
            let field = format!("clients[{index}]");
            client.check().map_err(|error| error.within(&field))?;
        }
        let mut agents: Vec<&str> = self.clients.iter().map(|client| client.agent.as_str()).collect();
        agents.sort_unstable();
        match agents.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(SnapshotError::new("clients", format_args!("{} is there twice", pair[0]))),
            None => Ok(()),
        }
    }
}

impl AdapterClient {
    fn check(&self) -> Result<(), SnapshotError> {
        if self.agent.trim().is_empty() {
            return Err(SnapshotError::new("agent", "is empty"));
        }
        if self.key.len() < 32 {
            return Err(SnapshotError::new("key", "is shorter than 32 characters"));
        }
        if let Some(AdapterPeers { members: _, login, password, ca }) = &self.peers {
            check_credentials(login, password).map_err(|error| error.within("peers"))?;
            check_ca(ca.as_ref()).map_err(|error| error.within("peers"))?;
        }
        check_entries(&self.entries)?;
        check_parents(&self.parents)?;
        check_discovery(self.discovery.as_ref(), &self.parents, &self.entries)
    }
}

impl AdapterRef {
    pub(crate) fn check(&self) -> Result<(), SnapshotError> {
        let authority = self.endpoint.strip_prefix("https://").unwrap_or_default();
        if authority.is_empty() || authority.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@' | '?' | '#'))
        {
            return Err(SnapshotError::new("endpoint", format_args!("{:?} is not https://HOST:PORT", self.endpoint)));
        }
        if self.key.is_empty() {
            return Err(SnapshotError::new("key", "is empty"));
        }
        Ok(())
    }
}

const fn default_grace() -> std::num::NonZeroU32 {
    std::num::NonZeroU32::new(15).expect("15 is not zero")
}
