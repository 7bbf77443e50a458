//! Where an entry belongs: the way of a server or a database from the roots down to the databases that it registers with
//! (draft-liefooghe-castgate-02 §4.1.2, §4.1.3).
//!
//! ```text
//!   walk:    roots ──QUERY TYPE=TDS──▶ member ──▶ member … until nobody knows anything below     (one range, one country)
//!                                          │
//!   decide:  the path and its prefix lengths ──▶ register with these, transfer from those
//! ```
//! [`decide`](decide()) is a function of what was answered; [`Walk`] gets the answers. Registering is the
//! [`Registrar`](super::registrar::Registrar)'s.

mod decide;
mod walk;

use std::net::SocketAddr;

use castgate_wire::registry::{Country, EntryType, Prefix};

pub use super::member::Member;
pub use decide::{Decision, decide};
pub use walk::{Ask, DiscoverError, Found, Hop, HopOutcome, PATH_STEPS_MAX, Step, Walk};

/// What is to be registered: one range of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// A server, or a database.
    pub entry_type: EntryType,
    /// The network to be registered; `None` for a whole country, and for everybody. A network of length 0 counts as `None`: it
    /// says nothing about where the entry belongs.
    pub range: Option<Prefix>,
    /// The country, where one is configured.
    pub country: Option<Country>,
    /// Our own addresses as a database: never asked, never registered with.
    pub own: Vec<SocketAddr>,
    /// What we are to a database that has exactly our range.
    pub role: Role,
}

/// What a database is to another one with exactly the same range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// Another copy of it.
    #[default]
    Peer,
    /// A customer of it, whose own address is inside the range: a child (castgate UMTP notes: the draft would make the first
    /// such database a peer of its ISP's).
    Customer,
}

/// One set of databases on the way down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStep {
    /// The databases of one answer, or the roots.
    pub members: Vec<Member>,
    /// By what they were found: the length of the registered network, 0 for a country; `None` for the roots.
    pub matched: Option<u8>,
}

impl Subject {
    /// The length of the range that is registered; `None` without a range.
    fn range_len(&self) -> Option<u8> {
        self.range.map(|range| range.prefix_len()).filter(|length| *length > 0)
    }

    /// Whether a database that was found by a network of this length can be above us: a network matches when it holds the range.
    ///
    /// One that does not look at `NETWORK` matches our address instead, and may find us far below.
    fn is_above(&self, matched: u8) -> bool {
        matched <= self.range_len().unwrap_or(0)
    }

    fn is_ours(&self, address: SocketAddr) -> bool {
        self.own.contains(&address)
    }
}
