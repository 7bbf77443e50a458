//! What a walk and its driver say to each other: what to do, what came of it, and how it ended.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use castgate_wire::registry::{Scheme, Server};

use super::cache::Cache;

/// One thing that the driver was given to do. Never used again in a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TaskId(pub(super) u32);

/// What the driver shall do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Look up the SRV records of `name` (already with `_castgate._tcp.` in front), then [`Locator::handle_service`](super::Locator::handle_service).
    ResolveService {
        /// What the result is handed back with.
        id: TaskId,
        /// The full name of the service.
        name: String,
    },
    /// Look up the addresses of `name`, then [`Locator::handle_addresses`](super::Locator::handle_addresses).
    ResolveAddress {
        /// What the result is handed back with.
        id: TaskId,
        /// The host name.
        name: String,
    },
    /// Ask a database, then [`Locator::handle_answer`](super::Locator::handle_answer).
    Ask(Ask),
    /// Done: these are the servers.
    Found(Found),
    /// Done: there are none to be had.
    Failed(LocateError),
}

/// One HTTP request: `GET target` at `address`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What the answer is handed back with.
    pub id: TaskId,
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Where to connect to.
    pub address: SocketAddr,
    /// The `Host` field.
    pub authority: String,
    /// Path and query string.
    pub target: String,
}

/// One SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTarget {
    /// Lower is asked first.
    pub priority: u16,
    /// Among equal priorities: the share of clients that ask it first.
    pub weight: u16,
    /// TCP port.
    pub port: u16,
    /// Host name; `.` says that there is no such service.
    pub target: String,
}

/// What a database answered with status 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The servers, or the databases to ask next, in the order of the answer.
    pub servers: Vec<Server>,
    /// `X-CastGate-Match`, when present.
    pub tier: Option<String>,
}

/// A walk that ended at tunnel servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The tunnel servers in the order of the database's answer.
    pub servers: Vec<Server>,
    /// Every database asked and every name looked up, in order, with what came of it.
    pub hops: Vec<Hop>,
    /// True when no database could be reached and these are the servers of the last time.
    pub from_cache: bool,
    /// How old the list of servers is; zero when a database has just told it.
    pub age: Duration,
    /// What to keep for the next time.
    pub cache: Cache,
}

/// One question of a walk and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Whom we asked: an address, or a name that was looked up.
    pub asked: String,
    /// How deep below the roots; 0 is a root or a cached database.
    pub depth: usize,
    /// What came of it.
    pub outcome: HopOutcome,
}

/// What came of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HopOutcome {
    /// The name has this many addresses or service records.
    Resolved(usize),
    /// A list of this many databases to ask next, with the tier that matched.
    Databases(usize, Option<String>),
    /// A list of this many tunnel servers, with the tier that matched.
    Servers(usize, Option<String>),
    /// A list without anything we can use.
    Nothing,
    /// No answer, in a sentence.
    Failed(String),
    /// Another one, asked at the same time, was faster.
    Overtaken,
}

/// No tunnel server, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocateError {
    /// Every database asked and every name looked up, in order, with what came of it.
    pub hops: Vec<Hop>,
}

impl fmt::Display for HopOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |tier: &Option<String>| tier.as_ref().map(|tier| format!(" by {tier}")).unwrap_or_default();
        match self {
            Self::Resolved(count) => write!(f, "{count} found in DNS"),
            Self::Databases(count, tier) => write!(f, "{count} databases{}", by(tier)),
            Self::Servers(count, tier) => write!(f, "{count} tunnel servers{}", by(tier)),
            Self::Nothing => f.write_str("knows no tunnel server for this place"),
            Self::Failed(sentence) => f.write_str(sentence),
            Self::Overtaken => f.write_str("another one answered first"),
        }
    }
}

impl fmt::Display for LocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hops.iter().rfind(|hop| hop.outcome != HopOutcome::Overtaken) {
            None => f.write_str("no tunnel server found: no database is configured"),
            Some(Hop { asked, outcome, .. }) => {
                write!(f, "no tunnel server found after {} questions; the last, {asked}: {outcome}", self.hops.len())
            }
        }
    }
}

impl std::error::Error for LocateError {}
