//! What a database is told and what it answers: bounds, changes for the store, refusals.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::entry::{Key, StoredEntry};
use crate::hierarchy::accounts::Claim;
use crate::hierarchy::region::Regions;

/// Bounds and timing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How often an entry is to be refreshed.
    pub update_interval: Duration,
    /// Entries at one time.
    pub entries_max: usize,
    /// Entries of one account.
    pub entries_per_account_max: usize,
    /// Networks of one entry.
    pub networks_per_entry_max: usize,
    /// Networks of all entries of one account: each costs memory, however few entries they are spread over.
    pub networks_per_account_max: usize,
    /// Addresses of this database: an entry there is ourselves, and never part of an answer.
    pub own: Vec<SocketAddr>,
    /// Which countries are neighbours.
    pub regions: Arc<Regions>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            update_interval: Duration::from_mins(5),
            entries_max: 300_000,
            entries_per_account_max: 10_000,
            networks_per_entry_max: 8_192,
            networks_per_account_max: 262_144,
            own: Vec::new(),
            regions: Arc::default(),
        }
    }
}

/// What the store has to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The entry is there, until then. It was not, or it said something else: it is promised only when it is on disk.
    Put(Key, StoredEntry),
    /// The entry stays as it is, for longer. Nobody has to wait for it: an entry that is in the store lives for an interval after
    /// a restart, whatever deadline is written there.
    Refresh(Key, StoredEntry),
    /// The entry is gone: it said BYE, or its account may no longer claim it.
    Delete(Key),
    /// The entry is gone by itself. Nobody waits for it either.
    Expire(Key),
}

/// A REGISTER was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// False for a refresh.
    pub is_new: bool,
    /// When the next one is expected (`X-CastGate-Update-Interval`).
    pub interval: Duration,
}

/// Why a REGISTER or BYE is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The login has no account (any more).
    #[error("there is no such account")]
    NoAccount,
    /// The account may not claim this.
    #[error(transparent)]
    Claim(#[from] Claim),
    /// Another account registered this entry.
    #[error("entry {0} belongs to another account")]
    Foreign(Key),
    /// SOURCE is not the address of a host.
    #[error("SOURCE {0} is not the address of a host")]
    NotAHost(IpAddr),
    /// The entry could never be part of an answer.
    #[error("neither NETWORKS nor COUNTRY says whose clients the entry is for")]
    ForNobody,
    /// More networks than an entry may have.
    #[error("an entry may have {0} networks, this one has {1}")]
    TooManyNetworks(usize, usize),
    /// More entries than an account may have.
    #[error("the account holds {0} entries, which is all it may")]
    AccountEntries(usize),
    /// More networks than an account may have.
    #[error("the entries of the account would hold more than {0} networks")]
    AccountNetworks(usize),
    /// The database is full.
    #[error("the database holds {0} entries, which is all it can")]
    Full(usize),
    /// A strict BYE for an entry that is not there.
    #[error("there is no such entry")]
    NoEntry,
}

impl Refusal {
    /// The HTTP status (castgate UMTP notes).
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::NotAHost(_) | Self::ForNobody => 400,
            Self::NoAccount => 401,
            Self::Claim(_)
            | Self::Foreign(_)
            | Self::TooManyNetworks(..)
            | Self::AccountEntries(_)
            | Self::AccountNetworks(_) => 403,
            Self::NoEntry => 404,
            Self::Full(_) => 503,
        }
    }

    /// The cause as a metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoAccount => "no_account",
            Self::Claim(Claim::Type(_)) => "claim_type",
            Self::Claim(Claim::Network(_)) => "claim_network",
            Self::Claim(Claim::System { .. }) => "claim_system",
            Self::Claim(Claim::Apart { .. }) => "claim_apart",
            Self::Claim(Claim::Country(_)) => "claim_country",
            Self::Claim(Claim::Source(_)) => "claim_source",
            Self::Foreign(_) => "foreign_entry",
            Self::NotAHost(_) => "not_a_host",
            Self::ForNobody => "for_nobody",
            Self::TooManyNetworks(..) => "too_many_networks",
            Self::AccountEntries(_) => "account_entries",
            Self::AccountNetworks(_) => "account_networks",
            Self::Full(_) => "full",
            Self::NoEntry => "no_entry",
        }
    }
}
