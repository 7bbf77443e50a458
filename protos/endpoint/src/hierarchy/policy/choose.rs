//! Who gets whom, always the same and without a list of who has whom: rendezvous hashing (D. Thaler, C. Ravishankar).
//!
//! Every candidate draws a number from its name and the client, and the best one wins. When a candidate leaves, only its own
//! clients move, each to its own second; when one comes, it takes its share from all alike. Every database draws the same
//! numbers: the key is no secret, because nobody gains by knowing which address leads where.

use std::cmp::Ordering;
use std::hash::Hasher as _;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

/// Bits of an IPv6 address that are one client: what is behind them is one household's, whose devices change the rest at will.
const CLIENT_BITS_V6: u32 = 64;

/// A client as the draw sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientKey(u128);

impl ClientKey {
    pub(super) fn new(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_bits().into()),
            IpAddr::V6(address) => Self(address.to_bits() >> CLIENT_BITS_V6 << CLIENT_BITS_V6),
        }
    }

    /// Evenly distributed, whatever the names are.
    pub(super) fn draw(self, name: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&[0; 16]);
        hasher.write(&self.0.to_be_bytes());
        hasher.write(name.as_bytes());
        hasher.finish()
    }

    /// The candidates, the best first: each is first for a share of all clients that goes by its weight. Weight 0 is never first
    /// before one that has some; those keep the order they came in.
    pub(super) fn by_weight<T>(self, candidates: &mut [T], of: impl Fn(&T) -> (&str, u32)) {
        // The least of exponential variables, each with its weight as rate, is a given one in proportion to its weight.
        candidates.sort_by_cached_key(|candidate| {
            let (name, weight) = of(candidate);
            let waits = if weight == 0 { 0 } else { negative_log2(self.draw(name)) };
            Wait { waits, weight }
        });
    }

    /// Candidates of equal weight, the best first.
    pub(super) fn rank<T>(self, candidates: &mut [T], name: impl Fn(&T) -> &str) {
        candidates.sort_by_cached_key(|candidate| std::cmp::Reverse(self.draw(name(candidate))));
    }
}

/// `waits / weight`, compared without dividing.
#[derive(PartialEq, Eq)]
struct Wait {
    waits: u64,
    weight: u32,
}

impl Ord for Wait {
    fn cmp(&self, other: &Self) -> Ordering {
        let idle = (self.weight == 0).cmp(&(other.weight == 0));
        let product = |waits: u64, weight: u32| u128::from(waits) * u128::from(weight);
        idle.then_with(|| product(self.waits, other.weight).cmp(&product(other.waits, self.weight)))
    }
}

impl PartialOrd for Wait {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Fraction bits of a logarithm.
const FRACTION_BITS: u32 = 32;

/// -log2 of `draw` / 2^64 as a number with [`FRACTION_BITS`], of integers alone: the same on every machine.
fn negative_log2(draw: u64) -> u64 {
    let draw = draw.max(1);
    let zeros = draw.leading_zeros();
    // In [1, 2), with 63 bits of fraction.
    let mut mantissa = draw << zeros;
    let mut log = 0_u64;
    for _ in 0..FRACTION_BITS {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        let carry = u64::try_from(square >> 64).expect("below four");
        mantissa = u64::try_from(square >> carry).expect("below two");
        log = log << 1 | carry;
    }
    // draw = 2^(63 - zeros) * mantissa
    ((u64::from(zeros) + 1) << FRACTION_BITS) - log
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_logarithm_is_one() {
        let one = 1_u64 << FRACTION_BITS;
        assert_eq!(negative_log2(1 << 63), one);
        assert_eq!(negative_log2(1), 64 * one);
        assert_eq!(negative_log2(0), 64 * one);
        assert!(negative_log2(u64::MAX) <= 1);
        // 3/4 = 2^-0.41503749927…
        let three_quarters = negative_log2(3 << 62);
        assert!((1_782_572_486..=1_782_572_488).contains(&three_quarters), "{three_quarters}");
    }

    #[test]
    fn shares_go_by_weight() {
        let pools = [("a", 3), ("b", 1), ("idle", 0)];
        let mut firsts = [0_u32; 3];
        for client in 0..8_000_u32 {
            let mut order = pools;
            ClientKey::new(IpAddr::V4((0x0a00_0000 + client).into())).by_weight(&mut order, |pool| *pool);
            assert_eq!(order[2].0, "idle");
            firsts[pools.iter().position(|pool| *pool == order[0]).unwrap()] += 1;
        }
        assert!((5_850..=6_150).contains(&firsts[0]), "{firsts:?}");
    }

    #[test]
    fn devices_of_one_household_are_one_client() {
        let key = |address: &str| ClientKey::new(address.parse().unwrap());
        assert_eq!(key("2001:db8:0:1::1"), key("2001:db8:0:1:ffff::2"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8:0:2::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.2"), key("192.0.2.1"));
    }

    proptest! {
        /// Whoever leaves takes nobody's place but his own: the order of the others stays, so only his clients move.
        #[test]
        fn the_others_keep_their_order_when_one_leaves(
            client in any::<u32>(), weights in prop::collection::vec(0..5_u32, 2..9), leaving in any::<prop::sample::Index>(),
            turn in any::<prop::sample::Index>(),
        ) {
            let names: Vec<String> = (0..weights.len()).map(|n| format!("server-{n}")).collect();
            let mut all: Vec<(&str, u32)> = names.iter().map(String::as_str).zip(weights).collect();
            let key = ClientKey::new(IpAddr::V4(client.into()));
            let order = |mut list: Vec<(&str, u32)>| {
                key.by_weight(&mut list, |pool| *pool);
                list.into_iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
            };
            let rank = |mut list: Vec<(&str, u32)>| {
                key.rank(&mut list, |pool| pool.0);
                list.into_iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
            };
            let gone = all[leaving.index(all.len())];
            let (mut ordered, mut ranked) = (order(all.clone()), rank(all.clone()));
            ordered.retain(|name| name != gone.0);
            ranked.retain(|name| name != gone.0);
            all.retain(|pool| *pool != gone);
            prop_assert_eq!(order(all.clone()), ordered);
            prop_assert_eq!(rank(all.clone()), ranked.clone());
            // Nor does it matter in which order a policy names them.
            let middle = turn.index(all.len());
            all.rotate_left(middle);
            prop_assert_eq!(rank(all), ranked);
        }
    }
}
