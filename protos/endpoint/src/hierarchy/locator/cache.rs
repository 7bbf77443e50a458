//! What a walk leaves for the next one.

use std::net::IpAddr;
use std::time::Duration;

use castgate_wire::registry::{EntryType, Scheme, Server};
use serde::{Deserialize, Serialize};

use super::Wanted;
use crate::hierarchy::address::DatabaseAddress;
use crate::hierarchy::clock::UnixMillis;
use crate::hierarchy::member::Member;

/// How long a cached answer may be used.
pub const CACHE_AGE_MAX: Duration = Duration::from_hours(24);

/// What is remembered from one walk to the next; made for serde.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    pub(super) roots: Vec<DatabaseAddress>,
    pub(super) country: Option<String>,
    pub(super) protocol: String,
    pub(super) obtained: UnixMillis,
    pub(super) databases: Vec<Member>,
    pub(super) servers: Vec<CachedServer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CachedServer {
    address: IpAddr,
    port: u16,
    protocol: Option<String>,
    /// Absent in what an earlier version left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fed_by: Vec<IpAddr>,
}

impl Cache {
    pub(super) fn answers(&self, roots: &[DatabaseAddress], wanted: &Wanted, now: UnixMillis) -> bool {
        self.roots == roots
            && self.country == wanted.country.as_ref().map(ToString::to_string)
            && self.protocol == wanted.protocol.to_string()
            && now.since(self.obtained).is_some_and(|age| age < CACHE_AGE_MAX)
    }
}

impl CachedServer {
    pub(super) fn of_server(server: &Server) -> Self {
        let protocol = server.protocol.as_ref().map(ToString::to_string);
        Self { address: server.address, port: server.port, protocol, fed_by: server.fed_by.clone() }
    }

    pub(super) fn to_server(&self) -> Server {
        Server {
            address: self.address,
            port: self.port,
            entry_type: EntryType::TunnelServer,
            protocol: self.protocol.as_deref().and_then(|word| word.parse().ok()),
            prefix_len: None,
            fed_by: self.fed_by.clone(),
            scheme: Scheme::Http,
        }
    }
}
