//! What a registrar and its driver say to each other: how to announce, what to ask, what came of it, how everything stands.

use std::fmt;
use std::time::{Duration, Instant};

use castgate_wire::registry::{Register, Request};

use crate::hierarchy::address::DatabaseAddress;

/// Timing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How often an entry is refreshed where the parent does not say.
    pub interval: Duration,
    /// First wait after a failure; doubled up to 60 s.
    pub retry: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { interval: Duration::from_mins(5), retry: Duration::from_secs(1) }
    }
}

/// A database above us, and who we are there.
#[derive(Clone, PartialEq, Eq)]
pub struct Parent {
    /// Where it is.
    pub address: DatabaseAddress,
    /// Our login there.
    pub login: String,
    /// Our password there.
    pub password: String,
    /// The certificates that vouch for it, as PEM; `None`: those that the system trusts. For https.
    pub ca: Option<String>,
}

/// Passwords are not for logs.
impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, login, password: _, ca: _ } = self;
        f.debug_struct("Parent").field("address", address).field("login", login).finish_non_exhaustive()
    }
}

/// Names a [`Call`] until its result is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub(super) u64);

/// A request for the driver to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// To be handed back with the result.
    pub id: CallId,
    /// Whom to ask, and as whom.
    pub parent: Parent,
    /// The `Host` field of the request: the parent as it was named, where it was found by its name.
    pub authority: String,
    /// What to ask.
    pub request: Request,
}

/// What came of a [`Call`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Status 200; the interval is `X-CastGate-Update-Interval`, where present.
    Done {
        /// How often the parent wants to hear from us.
        interval: Option<Duration>,
    },
    /// Any other status.
    Refused {
        /// The status and the parent's sentence.
        sentence: String,
        /// `Retry-After`, where present.
        retry_after: Option<Duration>,
    },
    /// No answer: not connected, timed out, not HTTP.
    Unreachable {
        /// What happened.
        sentence: String,
    },
}

/// What came of the last try to register an entry at a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// No answer yet, or none to the last try.
    Trying,
    /// Accepted.
    Registered,
    /// The parent said no.
    Refused,
    /// It is no longer wanted there: a BYE is under way, or waits for a REGISTER that is.
    Leaving,
}

/// How one entry stands at one parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status<'a> {
    /// The entry.
    pub entry: &'a Register,
    /// The parent.
    pub parent: &'a DatabaseAddress,
    /// What came of the last try.
    pub standing: Standing,
    /// When a REGISTER was accepted last.
    pub accepted_at: Option<Instant>,
    /// Failures in a row.
    pub failures: u32,
    /// Why the last try failed; `None` after a success.
    pub error: Option<&'a str>,
}
