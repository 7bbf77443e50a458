//! What a walk and its driver say to each other.

use std::fmt;
use std::net::SocketAddr;

use castgate_wire::registry::Scheme;

use super::super::{Decision, PathStep};

/// What the driver shall do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Look up the SRV records of `name` (already with `_castgate._tcp.` in front), then [`Walk::handle_service`](super::Walk::handle_service).
    ResolveService {
        /// The full name of the service.
        name: String,
    },
    /// Look up the addresses of `name`, then [`Walk::handle_addresses`](super::Walk::handle_addresses).
    ResolveAddress {
        /// The host name.
        name: String,
    },
    /// Ask a database, then [`Walk::handle_answer`](super::Walk::handle_answer).
    Ask(Ask),
    /// Done: this is where we belong.
    Found(Found),
    /// Done: it cannot be told.
    Failed(DiscoverError),
}

/// One HTTP request of a walk, without credentials: `GET target` at `address`. A walk has one under way at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Where to connect to.
    pub address: SocketAddr,
    /// The `Host` field.
    pub authority: String,
    /// Path and query string.
    pub target: String,
}

/// A way to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// From the roots down.
    pub path: Vec<PathStep>,
    /// What follows from it.
    pub decision: Decision,
    /// Every database asked and every name looked up, in order, with what came of it.
    pub hops: Vec<Hop>,
}

/// No way, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoverError {
    /// Every database asked and every name looked up, in order, with what came of it.
    pub hops: Vec<Hop>,
}

/// One question of a walk and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Whom we asked: an address, or a name that was looked up.
    pub asked: String,
    /// How deep below the roots; 0 is a root, or a name of one.
    pub depth: usize,
    /// What came of it.
    pub outcome: HopOutcome,
}

/// What came of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HopOutcome {
    /// The name has this many addresses or service records.
    Resolved(usize),
    /// So many databases below, found by a network of this length; 0: by the country.
    Databases(usize, u8),
    /// Nobody below: the way ends here.
    Nothing,
    /// No answer, in a sentence.
    Failed(String),
}

impl fmt::Display for HopOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolved(count) => write!(f, "{count} found in DNS"),
            Self::Databases(count, 0) => write!(f, "{count} databases by country"),
            Self::Databases(count, matched) => write!(f, "{count} databases by a network of length {matched}"),
            Self::Nothing => f.write_str("knows no database below it"),
            Self::Failed(sentence) => f.write_str(sentence),
        }
    }
}

impl fmt::Display for DiscoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hops.last() {
            None => f.write_str("no database to register with was found: no root is configured"),
            Some(Hop { asked, outcome, .. }) => write!(
                f,
                "no database to register with was found after {} questions; the last, {asked}: {outcome}",
                self.hops.len()
            ),
        }
    }
}

impl std::error::Error for DiscoverError {}
