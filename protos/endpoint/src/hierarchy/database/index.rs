//! Where the entries for a client are found: by network, by country, and those for everybody.
//!
//! Owns numbers of entries only; the entries themselves are the database's. Most networks have one entry: it stands in the trie
//! itself, and only a second one makes a bag of them.

use std::collections::HashMap;
use std::net::IpAddr;

use castgate_wire::registry::{Country, Prefix};
use ipnet::IpNet;
use smallvec::SmallVec;

use super::bag::Bag;
use super::entry::Held;
use super::slab::{NONE, Slab, Slot};
use super::trie::Trie;
use crate::hierarchy::region::Region;

/// Marks a number in a trie as that of a bag.
const IS_BAG: u32 = 1 << 31;

/// Every entry is in at least one of these: a REGISTER that would be in none is refused.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Networks of length above 0, of all entries: the slot of the only one, or the number of a bag.
    networks: Networks,
    bags: Slab<Bag>,
    /// Entries without such a network, by each of their countries.
    countries: HashMap<Country, Bag>,
    /// Entries for everybody, those with networks of their own as well included.
    public: Bag,
}

/// The entries of a network.
#[derive(Debug, Clone, Copy)]
pub(super) enum Posting<'a> {
    One(Slot),
    Many(&'a Bag),
}

impl Index {
    /// Puts the entry of a slot where it belongs.
    pub(super) fn insert(&mut self, slot: Slot, entries: &Slab<Held>) {
        let held = &entries[slot];
        let member = held.member(slot);
        for network in held.specific_networks() {
            self.networks.update(network, |value| {
                if value == NONE {
                    return slot;
                }
                let number = if value & IS_BAG == 0 {
                    let mut bag = Bag::default();
                    bag.insert(entries[value].member(value));
                    self.bags.insert(bag)
                } else {
                    value & !IS_BAG
                };
                self.bags[number].insert(member);
                number | IS_BAG
            });
        }
        if held.is_unspecific() {
            for country in held.countries() {
                self.countries.entry(*country).or_default().insert(member);
            }
        }
        if held.is_public() {
            self.public.insert(member);
        }
    }

    /// Takes the entry of a slot out; it is still what it was when it was put in.
    pub(super) fn remove(&mut self, slot: Slot, entries: &Slab<Held>) {
        let held = &entries[slot];
        let member = held.member(slot);
        for network in held.specific_networks() {
            self.networks.update(network, |value| {
                if value & IS_BAG == 0 {
                    return NONE;
                }
                let number = value & !IS_BAG;
                self.bags[number].remove(member);
                let Some(last) = self.bags[number].single() else { return value };
                self.bags.remove(number);
                last.slot()
            });
        }
        if held.is_unspecific() {
            for country in held.countries() {
                if let Some(bag) = self.countries.get_mut(country) {
                    bag.remove(member);
                    if bag.is_empty() {
                        self.countries.remove(country);
                    }
                }
            }
        }
        self.public.remove(member);
    }

    /// The networks that contain all of `range`, the longest first: length and entries.
    pub(super) fn around(&self, range: Prefix) -> impl Iterator<Item = (u8, Posting<'_>)> {
        // Hardly ever does anybody want to know of the shorter ones.
        let far = std::iter::once_with(move || self.networks.far(range));
        let longest_first =
            std::iter::once(self.networks.near(range)).chain(far).flat_map(|found| found.into_iter().rev());
        longest_first.map(|(len, value)| {
            let posting =
                if value & IS_BAG == 0 { Posting::One(value) } else { Posting::Many(&self.bags[value & !IS_BAG]) };
            (len, posting)
        })
    }

    pub(super) fn in_country(&self, country: Country) -> Option<&Bag> {
        self.countries.get(&country)
    }

    /// Of each country of the region that has entries.
    pub(super) fn in_region(&self, region: &Region) -> impl Iterator<Item = &Bag> {
        region.countries().iter().filter_map(|neighbour| self.in_country(*neighbour))
    }

    pub(super) fn public(&self) -> &Bag {
        &self.public
    }

    /// Nothing is left behind: for tests.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let no_network = self.networks.is_empty() && self.bags.len() == 0;
        no_network && self.countries.is_empty() && self.public.is_empty()
    }
}

/// Networks around a range, the longest last: length and value. There are hardly ever many.
type Around = SmallVec<[(u8, u32); 4]>;

/// A value for each network, whatever its family.
#[derive(Debug, Default)]
struct Networks {
    v4: Trie<u32>,
    v6: Trie<u128>,
}

impl Networks {
    fn update(&mut self, network: &IpNet, change: impl FnOnce(u32) -> u32) {
        match network {
            IpNet::V4(net) => self.v4.update(net.network().to_bits(), net.prefix_len(), change),
            IpNet::V6(net) => self.v6.update(net.network().to_bits(), net.prefix_len(), change),
        }
    }

    /// Those around a range that are found quickly, the longest last.
    fn near(&self, range: IpNet) -> Around {
        let mut found = Around::new();
        let each = |len, value| found.push((len, value));
        match range {
            IpNet::V4(net) => self.v4.near(net.network().to_bits(), net.prefix_len(), each),
            IpNet::V6(net) => self.v6.near(net.network().to_bits(), net.prefix_len(), each),
        }
        found
    }

    /// The others.
    fn far(&self, range: IpNet) -> Around {
        let mut found = Around::new();
        let each = |len, value| found.push((len, value));
        match range {
            IpNet::V4(net) => self.v4.far(net.network().to_bits(), net.prefix_len(), each),
            IpNet::V6(net) => self.v6.far(net.network().to_bits(), net.prefix_len(), each),
        }
        found
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// An address as the range that holds it alone; an IPv4 address that an IPv6 socket shows is an IPv4 address.
pub(super) fn host(address: IpAddr) -> Prefix {
    Prefix::from(address.to_canonical())
}
