//! A number for each network of a list, and which of them is the longest around an address.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::hierarchy::database::slab::NONE;
use crate::hierarchy::database::trie::Trie;

/// Networks of both versions, each with a number that is not [`u32::MAX`].
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    v4: Trie<u32>,
    v6: Trie<u128>,
    len: usize,
}

impl Prefixes {
    /// Puts a network in; the number it had before, which then stays.
    pub(super) fn insert(&mut self, network: IpNet, number: u32) -> Option<u32> {
        let mut before = NONE;
        let put = |known| {
            before = known;
            if known == NONE { number } else { known }
        };
        match network {
            IpNet::V4(net) => self.v4.update(net.network().to_bits(), net.prefix_len(), put),
            IpNet::V6(net) => self.v6.update(net.network().to_bits(), net.prefix_len(), put),
        }
        if before != NONE {
            return Some(before);
        }
        self.len += 1;
        None
    }

    /// The longest network around all of `range`: its length and its number.
    pub(super) fn longest(&self, range: IpNet) -> Option<(u8, u32)> {
        let mut longest = None;
        let each = |len, number| longest = Some((len, number));
        match range {
            IpNet::V4(net) => self.v4.around(net.network().to_bits(), net.prefix_len(), each),
            IpNet::V6(net) => self.v6.around(net.network().to_bits(), net.prefix_len(), each),
        }
        longest
    }

    /// The same for one address.
    pub(super) fn around(&self, address: IpAddr) -> Option<(u8, u32)> {
        self.longest(IpNet::from(address.to_canonical()))
    }

    /// Every network with its number, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IpNet, u32)> {
        let v4 = self
            .v4
            .iter()
            .filter_map(|(bits, len, number)| Some((IpNet::V4(Ipv4Net::new(bits.into(), len).ok()?), number)));
        let v6 = self
            .v6
            .iter()
            .filter_map(|(bits, len, number)| Some((IpNet::V6(Ipv6Net::new(bits.into(), len).ok()?), number)));
        v4.chain(v6)
    }

    /// How many networks there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}
