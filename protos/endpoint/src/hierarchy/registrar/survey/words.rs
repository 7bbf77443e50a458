//! What a survey and its driver say to each other: where to begin, what to find out, what came of it.

use std::fmt;
use std::net::IpAddr;

use castgate_wire::registry::Server;

use crate::hierarchy::address::DatabaseAddress;
use crate::hierarchy::discovery::{Ask, Role};
use crate::hierarchy::locator::ServiceTarget;

/// How the databases to register with are found, where they are not named.
#[derive(Clone, PartialEq, Eq)]
pub struct Discovery {
    /// Where every walk begins.
    pub roots: Vec<DatabaseAddress>,
    /// Our login at every database that is found.
    pub login: String,
    /// Our password there.
    pub password: String,
    /// The certificates that vouch for databases, as PEM; `None`: those that the system trusts. For https.
    pub ca: Option<String>,
    /// What a database of ours is to one with exactly the same network.
    pub role: Role,
    /// Whether a database of ours that has peers is announced only after [`set_synchronised`](super::super::Registrar::set_synchronised).
    pub waits_for_peers: bool,
}

/// Passwords are not for logs.
impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { roots, login, password: _, ca: _, role, waits_for_peers } = self;
        f.debug_struct("Discovery")
            .field("roots", roots)
            .field("login", login)
            .field("role", role)
            .field("waits_for_peers", waits_for_peers)
            .finish_non_exhaustive()
    }
}

/// Names a [`Question`] until its reply is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QuestionId(pub(super) u64);

/// Something for the driver to find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// To be handed back with the reply.
    pub id: QuestionId,
    /// What to find out.
    pub lookup: Lookup,
}

/// What a [`Question`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The SRV records of this name; the reply is [`Reply::Services`].
    Services(String),
    /// The addresses of this name; the reply is [`Reply::Addresses`].
    Addresses(String),
    /// The list of a database, asked without credentials; the reply is [`Reply::Databases`].
    Databases(Ask),
}

/// What came of a [`Question`]; an error is a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Of [`Lookup::Services`].
    Services(Result<Vec<ServiceTarget>, String>),
    /// Of [`Lookup::Addresses`].
    Addresses(Result<Vec<IpAddr>, String>),
    /// Of [`Lookup::Databases`].
    Databases(Result<Vec<Server>, String>),
}
