//! What discovery asks of its driver, and what it is told.

use super::config::{Channel, Method};
use castgate_wire::membership::Family;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Names a question until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(pub u64);

/// Names an attempt at one relay, and the connection that comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// Something to be looked up. CNAME and DNAME are followed by the resolver (RFC 8777 §3.4).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// AMTRELAY records, type 260: [`Answer::Rdata`].
    AmtRelay {
        /// The reverse name of a source.
        name: String,
    },
    /// PTR records, the instances of a service: [`Answer::Names`].
    Instances {
        /// A service in a domain.
        name: String,
    },
    /// SRV records: [`Answer::Services`].
    Services {
        /// A service in a domain, or an instance of it.
        name: String,
    },
    /// A or AAAA records: [`Answer::Addresses`].
    Addresses {
        /// A host.
        name: String,
        /// A for IPv4, AAAA for IPv6.
        family: Family,
    },
    /// The relays that the hierarchy knows for a channel, the best first: [`Answer::Relays`].
    Hierarchy {
        /// The channel.
        channel: Channel,
    },
}

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    /// Less is better.
    pub priority: u16,
    /// More is more often.
    pub weight: u16,
    /// The UDP port.
    pub port: u16,
    /// The host.
    pub target: String,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The RDATA of each record, as it was in the answer.
    Rdata(Vec<Vec<u8>>),
    /// Names.
    Names(Vec<String>),
    /// SRV records.
    Services(Vec<Service>),
    /// Addresses.
    Addresses(Vec<IpAddr>),
    /// Relays by address and port.
    Relays(Vec<SocketAddr>),
    /// There is no such thing, or nobody to ask.
    Failed,
}

/// One thing to do or to know. Order matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Look this up and call [`super::Discovery::handle_answer`].
    Resolve {
        /// To be given back with the answer.
        id: QuestionId,
        /// The question.
        question: Question,
    },
    /// See whether this relay answers: a valid Membership Query without L. Nothing is reported to it yet.
    Try {
        /// To be given back with the outcome.
        attempt: AttemptId,
        /// For whom.
        channel: Channel,
        /// Where.
        relay: SocketAddr,
        /// Whether a Relay Discovery goes there before the Request (RFC 8777 §4.2.2: D is 0).
        discovery_first: bool,
        /// How it was found.
        method: Method,
    },
    /// Drop this attempt, or the connection that nobody uses any more.
    Cancel {
        /// Which.
        attempt: AttemptId,
    },
    /// Join the channel there.
    Use {
        /// The channel.
        channel: Channel,
        /// The attempt that has connected, or the connection that serves the source already.
        attempt: AttemptId,
        /// The relay.
        relay: SocketAddr,
        /// How it was found.
        method: Method,
    },
    /// Leave the channel there; another relay is looked for.
    Release {
        /// The channel.
        channel: Channel,
        /// Where it was joined.
        attempt: AttemptId,
    },
    /// No relay is to be had; the search begins again by itself.
    NoRelay {
        /// The channel.
        channel: Channel,
        /// Why.
        reason: NoRelay,
        /// When it begins again.
        retry_at: Instant,
    },
}

/// Why a search has ended without a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoRelay {
    /// No method has named one.
    NotFound,
    /// Those that were named did not answer, take nobody, or are avoided for now.
    NotConnected,
    /// The source publishes that it has none (AMTRELAY type 0), and no other method has found one.
    NoneForSource,
}

impl NoRelay {
    /// The reason as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::NotConnected => "not_connected",
            Self::NoneForSource => "none_for_source",
        }
    }
}

/// Counts since discovery was made; they only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Questions asked.
    pub questions: u64,
    /// Questions that failed or were not answered in time.
    pub questions_failed: u64,
    /// AMTRELAY records that could not be read, or whose type is not known.
    pub records_ignored: u64,
    /// Attempts begun.
    pub attempts: u64,
    /// Attempts that connected and were chosen.
    pub connections: u64,
    /// Searches that ended without a relay.
    pub failures: u64,
    /// Candidates passed over because they are avoided for now.
    pub held_down: u64,
    /// Candidates, names or channels beyond their limit.
    pub beyond_limits: u64,
}
