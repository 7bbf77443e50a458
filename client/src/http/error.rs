//! Why a database gave no answer: one sentence that names it.

use std::io;
use std::net::SocketAddr;

use castgate_endpoint::hierarchy::redirect::RedirectError;
use thiserror::Error;

use crate::dns::DnsError;
use crate::tls::TlsError;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The name of the database leads nowhere.
    #[error(transparent)]
    Name(DnsError),
    /// The name of the database is there, and has no address.
    #[error("the database {database} has no address")]
    NoAddress {
        /// The database as it was named.
        database: String,
    },
    /// The connection was not made.
    #[error("no connection to {peer}: {error}")]
    Connect {
        /// Whom we called.
        peer: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// The connection or the answer took too long.
    #[error("{peer} did not answer within {} s", after.as_secs())]
    Timeout {
        /// Whom we called.
        peer: SocketAddr,
        /// How long we waited.
        after: std::time::Duration,
    },
    /// No TLS, or not with the one who was asked for.
    #[error("{} {error}", place(database, *peer))]
    Tls {
        /// The database as it was named.
        database: String,
        /// Whom we called.
        peer: SocketAddr,
        /// What was wrong.
        error: TlsError,
    },
    /// Not HTTP, or cut off.
    #[error("{peer} does not speak HTTP as expected: {error}")]
    Protocol {
        /// Whom we called.
        peer: SocketAddr,
        /// What was wrong.
        error: hyper::Error,
    },
    /// A body that cannot be read or is too long.
    #[error("the answer of {peer} cannot be read: {error}")]
    Body {
        /// Whom we called.
        peer: SocketAddr,
        /// What was wrong.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A redirect that is not followed.
    #[error("{peer} {error}")]
    Redirect {
        /// Who redirects.
        peer: SocketAddr,
        /// Why it is not followed.
        error: RedirectError,
    },
    /// A redirect to a name that leads nowhere.
    #[error("{peer} redirects, and {error}")]
    Lookup {
        /// Who redirects.
        peer: SocketAddr,
        /// What the resolver said.
        error: DnsError,
    },
}

/// A database that was called by its address is named once.
fn place(database: &str, peer: SocketAddr) -> String {
    if peer.to_string() == database { database.to_owned() } else { format!("{database} at {peer}") }
}
