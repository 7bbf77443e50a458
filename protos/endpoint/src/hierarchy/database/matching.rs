//! Which entries a caller gets (draft-liefooghe-castgate-02 §4.1.2, §4.1.5 in the precise form of the castgate UMTP notes).
//!
//! ```text
//!   TYPE=TS   policy ─▶ longest network around the caller ─▶ its country ─▶ its region ─▶ public
//!   TYPE=TDS            longest network around the range  ─▶ its country
//! ```
//! The first tier that has an entry answers. Where it has both kinds, only its databases are named: who delegated a network
//! knows it best.

use std::fmt;
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

use castgate_wire::registry::{EntryType, Query, Server};
use siphasher::sip::SipHasher13;

use super::Database;
use super::entry::Entry;
use super::index::{Slot, host};

/// Servers in one answer: what a client can make use of, and far below the size it refuses to read.
pub const ANSWER_SERVERS_MAX: usize = 256;

/// By what the entries of an answer were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// A rule of a Tunnel Server Assignment Policy. No such rule exists yet.
    Policy,
    /// The longest network around the caller.
    Network,
    /// The caller's country.
    Country,
    /// The neighbours of the caller's country.
    Region,
    /// For everybody.
    Public,
}

impl Tier {
    /// The word of `X-CastGate-Match`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Policy => "tsap",
            Self::Network => "network",
            Self::Country => "country",
            Self::Region => "region",
            Self::Public => "public",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Who asks, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Source address of the request.
    pub address: IpAddr,
    /// Our own address that it came to: an entry there is ourselves, and never part of an answer.
    pub asked_at: Option<SocketAddr>,
}

/// The list for a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Tunnel servers, or databases to ask, never both.
    pub servers: Vec<Server>,
    /// What found them; `None` for an empty list.
    pub tier: Option<Tier>,
}

impl Database {
    pub(super) fn find(&self, caller: Caller, query: &Query) -> Answer {
        let found = match query.entry_type {
            EntryType::TunnelServer => self.find_servers(caller, query),
            EntryType::TunnelDatabase => self.find_databases(caller, query),
        };
        match found {
            Some((tier, entries, prefix_len)) => {
                let servers = share(entries, caller.address).into_iter().map(|entry| entry.to_server(prefix_len));
                Answer { servers: servers.collect(), tier: Some(tier) }
            }
            None => Answer { servers: Vec::new(), tier: None },
        }
    }

    /// TYPE=TS: the five tiers.
    fn find_servers(&self, caller: Caller, query: &Query) -> Option<(Tier, Vec<&Entry>, Option<u8>)> {
        // PROTOCOL filters tunnel servers only: what a database below has, it says itself.
        let wanted = |entry: &&Entry| {
            entry.key.entry_type == EntryType::TunnelDatabase || query.protocol.matches(Some(&entry.key.protocol))
        };
        let pick = |slots: &mut dyn Iterator<Item = Slot>| {
            let entries = self.below(slots, caller).filter(wanted).collect();
            delegated(entries)
        };
        let by_network = || {
            self.index.around(host(caller.address)).find_map(|(_, slots)| {
                let meant = slots.iter().copied().filter(|slot| self.held[slot].entry.serves(query.country));
                pick(&mut { meant })
            })
        };
        // A caller that does not know its country has no region either (castgate UMTP notes).
        let by_country = || pick(&mut self.index.in_country(query.country?));
        let by_region = || pick(&mut self.index.in_region_of(query.country?).into_iter());
        let public = || pick(&mut self.index.public());
        by_network()
            .map(|entries| (Tier::Network, entries))
            .or_else(|| by_country().map(|entries| (Tier::Country, entries)))
            .or_else(|| by_region().map(|entries| (Tier::Region, entries)))
            .or_else(|| public().map(|entries| (Tier::Public, entries)))
            .map(|(tier, entries)| (tier, entries, None))
    }

    /// TYPE=TDS: who is responsible for a range. Public databases are never named, or everybody would register there.
    fn find_databases(&self, caller: Caller, query: &Query) -> Option<(Tier, Vec<&Entry>, Option<u8>)> {
        let range = query.network.unwrap_or_else(|| host(caller.address));
        let pick = |slots: &mut dyn Iterator<Item = Slot>| {
            let databases = self.below(slots, caller).filter(|entry| entry.key.entry_type == EntryType::TunnelDatabase);
            let entries: Vec<&Entry> = databases.collect();
            (!entries.is_empty()).then_some(entries)
        };
        let by_network = self.index.around(range).find_map(|(network, slots)| {
            let meant = slots.iter().copied().filter(|slot| self.held[slot].entry.serves(query.country));
            pick(&mut { meant }).map(|entries| (Tier::Network, entries, Some(network.prefix_len())))
        });
        by_network.or_else(|| {
            pick(&mut self.index.in_country(query.country?)).map(|entries| (Tier::Country, entries, Some(0)))
        })
    }

    /// The entries of these slots, without ourselves.
    fn below(&self, slots: &mut dyn Iterator<Item = Slot>, caller: Caller) -> impl Iterator<Item = &Entry> {
        let entries: Vec<&Entry> = slots
            .map(|slot| &self.held[&slot].entry)
            .filter(|entry| {
                let here = SocketAddr::new(entry.key.source, entry.key.port);
                entry.key.entry_type != EntryType::TunnelDatabase
                    || (caller.asked_at != Some(here) && !self.config.own.contains(&here))
            })
            .collect();
        entries.into_iter()
    }
}

/// Where a tier has both kinds, only the databases count; `None` for a tier without entries.
fn delegated(mut entries: Vec<&Entry>) -> Option<Vec<&Entry>> {
    let is_database = |entry: &&Entry| entry.key.entry_type == EntryType::TunnelDatabase;
    if entries.iter().any(is_database) {
        entries.retain(is_database);
    }
    (!entries.is_empty()).then_some(entries)
}

/// In the order of keys. Of a list that is too long every caller gets a part, each always the same, and all parts are used.
fn share(mut entries: Vec<&Entry>, caller: IpAddr) -> Vec<&Entry> {
    entries.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    if entries.len() > ANSWER_SERVERS_MAX {
        let mut hasher = SipHasher13::new();
        match caller.to_canonical() {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        }
        let start = hasher.finish() % entries.len() as u64;
        entries.rotate_left(usize::try_from(start).expect("below a length"));
        entries.truncate(ANSWER_SERVERS_MAX);
    }
    entries
}
