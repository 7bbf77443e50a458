//! The networks of some Autonomous Systems in as few prefixes as say the same.
//!
//! ```text
//!   10.0.0.0/24, 10.0.1.0/24 of ours             ─▶ 10.0.0.0/23     two halves are a whole
//!   10.0.0.0/8, 10.1.0.0/16 of ours              ─▶ 10.0.0.0/8      what is inside is known already
//!   10.0.0.0/8, 10.1.2.0/24 of ours              ─▶ both            10.1.0.0/16 between them is another's:
//!                                                                   without the /24 its clients would be taken for theirs
//! ```

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ipnet::IpNet;

use super::super::prefixes::Prefixes;
use super::{AGGREGATED_BITS_MAX, RouteTable};

/// More networks than anybody registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("have {found} networks, and no more than {max} are registered")]
pub struct TooManyNetworks {
    /// How many there are.
    pub found: usize,
    /// How many there may be.
    pub max: usize,
}

impl RouteTable {
    /// The networks of some Autonomous Systems, as few as cover the same addresses, in order. Each is one that the table
    /// [gives](Self::gives) them.
    ///
    /// # Errors
    /// [`TooManyNetworks`] when there are more than `max`.
    pub fn networks_of(&self, asns: &[u32], max: usize) -> Result<Vec<IpNet>, TooManyNetworks> {
        let whole = self.halves_made_whole(asns);
        let mut theirs = Prefixes::default();
        for network in &whole {
            theirs.insert(*network, 0);
        }
        let is_needed = |network: &IpNet| {
            let Some(above) = network.supernet() else { return true };
            let around = |prefixes: &Prefixes| prefixes.longest(above).map(|(len, _)| len);
            let of_another = self.asn_around(above).filter(|(_, asn)| !asns.contains(asn)).map(|(len, _)| len);
            // The longer of the two is whose the addresses are without this network.
            around(&theirs) <= of_another
        };
        let mut networks: Vec<IpNet> = whole.iter().copied().filter(is_needed).collect();
        networks.sort_unstable();
        if networks.len() > max { Err(TooManyNetworks { found: networks.len(), max }) } else { Ok(networks) }
    }

    /// Their prefixes, with the network around two halves instead of these, unless that is another's by itself.
    fn halves_made_whole(&self, asns: &[u32]) -> Vec<IpNet> {
        // The longest first, and of two halves the lower one; with how much shorter each is than a prefix of the table.
        let theirs = self.0.iter().filter(|(_, asn)| asns.contains(asn));
        let mut left: BTreeMap<(Reverse<u8>, IpNet), u8> =
            theirs.map(|(prefix, _)| ((Reverse(prefix.prefix_len()), prefix), 0)).collect();
        let mut whole = Vec::new();
        while let Some(((Reverse(len), network), bits)) = left.pop_first() {
            let joined = network.supernet().and_then(|both| {
                let other = both.subnets(len).ok()?.find(|half| *half != network)?;
                let bits = left.get(&(Reverse(len), other)).copied()?.max(bits) + 1;
                let is_another_s = self.asn_around(both).is_some_and(|(at, asn)| at == len - 1 && !asns.contains(&asn));
                (bits <= AGGREGATED_BITS_MAX && !is_another_s).then_some((both, other, bits))
            });
            match joined {
                Some((both, other, bits)) => {
                    left.remove(&(Reverse(len), other));
                    left.entry((Reverse(len - 1), both)).or_insert(bits);
                }
                None => whole.push(network),
            }
        }
        whole
    }

    /// The longest prefix around a network, whosever it is: its length and its number.
    fn asn_around(&self, network: IpNet) -> Option<(u8, u32)> {
        self.0.longest(network)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::hierarchy::policy::routes::Row;

    const OURS: [u32; 2] = [64_500, 64_501];

    #[test]
    fn as_few_networks_as_say_the_same() {
        for (table, expected) in [
            ("10.0.0.0/24,64500 10.0.1.0/24,64501", "10.0.0.0/23"),
            ("10.0.1.0/24,64500 10.0.2.0/24,64500", "10.0.1.0/24 10.0.2.0/24"),
            ("10.0.0.0/8,64500 10.1.0.0/16,64501", "10.0.0.0/8"),
            ("10.0.0.0/8,64500 10.1.0.0/16,64502 10.1.2.0/24,64500 10.1.2.128/25,64500", "10.0.0.0/8 10.1.2.0/24"),
            ("10.0.0.0/24,64500 10.0.1.0/24,64500 10.0.0.0/23,64502", "10.0.0.0/24 10.0.1.0/24"),
            (
                "10.0.0.0/24,64500 10.0.1.0/25,64500 10.0.1.128/25,64500 2001:db8::/33,64500",
                "10.0.0.0/23 2001:db8::/33",
            ),
            ("192.0.2.0/24,64502", ""),
        ] {
            let networks = routes(table).networks_of(&OURS, 10).unwrap();
            let shown: Vec<String> = networks.iter().map(ToString::to_string).collect();
            assert_eq!(shown.join(" "), expected, "{table}");
        }
    }

    #[test]
    fn too_many_are_said_with_their_number() {
        let table = routes("10.0.0.0/24,64500 10.0.2.0/24,64500 10.0.4.0/24,64500");
        let error = table.networks_of(&OURS, 2).unwrap_err();
        assert_eq!(error.to_string(), "have 3 networks, and no more than 2 are registered");
        assert_eq!(table.networks_of(&OURS, 3).map(|networks| networks.len()), Ok(3));
    }

    proptest! {
        /// Whoever registers these networks beside everybody else's gets the addresses that the table gives him, and no other; and
        /// the table agrees that they are his.
        #[test]
        fn the_networks_cover_the_addresses_that_the_table_gives(
            rows in prop::collection::vec((any::<u8>(), 22_u8..=32, 64_500_u32..64_504), 0..40),
            asked in prop::collection::vec(any::<u8>(), 30),
        ) {
            let row = |(low, len, asn): (u8, u8, u32)| {
                Row { prefix: IpNet::new(IpAddr::from([10, 0, low & 3, low]), len).unwrap().trunc(), asn }
            };
            let table = RouteTable::of_rows(rows.into_iter().map(row));
            let networks = table.networks_of(&OURS, usize::MAX).unwrap();
            for network in &networks {
                prop_assert!(table.gives(*network, &OURS), "{network}");
            }
            for low in asked {
                let address = IpAddr::from([10, 0, low & 3, low.rotate_left(3)]);
                let ours = networks.iter().filter(|network| network.contains(&address)).map(IpNet::prefix_len).max();
                let of_others = table.0.iter().filter(|(prefix, asn)| prefix.contains(&address) && !OURS.contains(asn));
                let of_others = of_others.map(|(prefix, _)| prefix.prefix_len()).max();
                let is_ours = table.asn_of(address).is_some_and(|asn| OURS.contains(&asn));
                prop_assert_eq!(ours > of_others, is_ours, "{}: {:?}", address, networks);
            }
        }
    }

    fn routes(rows: &str) -> RouteTable {
        RouteTable::read(rows.replace(' ', "\n").as_bytes()).unwrap()
    }
}
