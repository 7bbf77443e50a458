//! Where the entries for a client are found: by network, by country, and those for everybody.
//!
//! Owns numbers of entries only, one [`Slot`] each; the entries themselves are the database's.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use castgate_wire::registry::{Country, Prefix};
use prefix_trie::joint::map::JointPrefixMap;

use super::entry::Entry;
use crate::hierarchy::region::Region;

/// The number of an entry for as long as it is in the database.
pub(super) type Slot = u64;

/// Every entry is in at least one of these: a REGISTER that would be in none is refused.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Networks of length above 0, of all entries.
    networks: JointPrefixMap<Prefix, BTreeSet<Slot>>,
    /// Entries without such a network, by each of their countries.
    countries: HashMap<Country, BTreeSet<Slot>>,
    /// Entries for everybody, those with networks of their own as well included.
    public: BTreeSet<Slot>,
}

impl Index {
    pub(super) fn insert(&mut self, slot: Slot, entry: &Entry) {
        for network in entry.specific_networks() {
            self.networks.entry(*network).or_default().insert(slot);
        }
        if entry.is_unspecific() {
            for country in &entry.countries {
                self.countries.entry(*country).or_default().insert(slot);
            }
        }
        if entry.is_public() {
            self.public.insert(slot);
        }
    }

    pub(super) fn remove(&mut self, slot: Slot, entry: &Entry) {
        for network in entry.specific_networks() {
            if let Some(slots) = self.networks.get_mut(network) {
                slots.remove(&slot);
                if slots.is_empty() {
                    self.networks.remove(network);
                }
            }
        }
        for country in &entry.countries {
            if let Some(slots) = self.countries.get_mut(country) {
                slots.remove(&slot);
                if slots.is_empty() {
                    self.countries.remove(country);
                }
            }
        }
        self.public.remove(&slot);
    }

    /// The networks that contain all of `range`, the longest first, each with its entries.
    pub(super) fn around(&self, range: Prefix) -> impl Iterator<Item = (Prefix, &BTreeSet<Slot>)> {
        let mut from_the_root: Vec<_> = self.networks.cover(&range).collect();
        from_the_root.reverse();
        from_the_root.into_iter()
    }

    pub(super) fn in_country(&self, country: Country) -> impl Iterator<Item = Slot> {
        self.countries.get(&country).into_iter().flatten().copied()
    }

    /// Entries of any country of the region, each once.
    pub(super) fn in_region_of(&self, country: Country) -> BTreeSet<Slot> {
        let neighbours = Region::of(country).into_iter().flat_map(Region::countries);
        neighbours.flat_map(|neighbour| self.in_country(neighbour)).collect()
    }

    pub(super) fn public(&self) -> impl Iterator<Item = Slot> {
        self.public.iter().copied()
    }

    /// Nothing is left behind: for tests.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.countries.is_empty() && self.public.is_empty()
    }
}

/// An address as the range that holds it alone; an IPv4 address that an IPv6 socket shows is an IPv4 address.
pub(super) fn host(address: IpAddr) -> Prefix {
    Prefix::from(address.to_canonical())
}
