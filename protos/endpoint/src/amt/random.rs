//! Random numbers out of one secret: a keyed hash of a counter.
//!
//! Nonces must not be guessed (RFC 7450 §5.2.3.5.6), and a state machine without a system to ask must draw them itself.

use siphasher::sip::SipHasher24;
use std::fmt;
use std::hash::Hasher;
use std::time::Duration;

/// A sequence that nobody foretells who does not know the key.
#[derive(Clone)]
pub(super) struct Random {
    key: [u8; 16],
    count: u64,
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random(..)")
    }
}

impl Random {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self { key, count: 0 }
    }

    fn next(&mut self) -> u64 {
        self.count = self.count.wrapping_add(1);
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write_u64(self.count);
        hasher.finish()
    }

    /// A key for a sequence of its own.
    pub(super) fn key(&mut self) -> [u8; 16] {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.next().to_be_bytes());
        key[8..].copy_from_slice(&self.next().to_be_bytes());
        key
    }

    /// 32 bits that are not all zero.
    pub(super) fn nonce(&mut self) -> u32 {
        loop {
            let [a, b, c, d, ..] = self.next().to_be_bytes();
            match u32::from_be_bytes([a, b, c, d]) {
                0 => {}
                nonce => return nonce,
            }
        }
    }

    /// A time in `first..=last`; `first` when the order is wrong.
    pub(super) fn between(&mut self, first: Duration, last: Duration) -> Duration {
        let span_nanos = u64::try_from(last.saturating_sub(first).as_nanos()).unwrap_or(u64::MAX - 1);
        first + Duration::from_nanos(self.below(span_nanos + 1))
    }

    /// A number below `end`, which is not zero.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        // The high half of the product: no bias that a timer or a shuffle would notice.
        let product = u128::from(self.next()) * u128::from(end);
        u64::try_from(product >> 64).expect("the high half of 128 bits")
    }

    /// The wait after a number of unanswered tries: random in `[initial, min(initial · 2^tries, maximum)]`
    /// (RFC 7450 §5.2.3.4.3, RFC 8777 §3.3.4.1).
    pub(super) fn back_off(&mut self, initial: Duration, maximum: Duration, tries: u32) -> Duration {
        let doubled = 2_u32.checked_pow(tries).and_then(|factor| initial.checked_mul(factor)).unwrap_or(maximum);
        self.between(initial, doubled.min(maximum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MAXIMUM: Duration = Duration::from_mins(2);

    #[test]
    fn waits_grow_between_the_bounds_of_the_rfc_and_never_beyond() {
        let mut random = Random::new([7; 16]);
        for tries in 0..70 {
            let waits: Vec<_> = (0..200).map(|_| random.back_off(SECOND, MAXIMUM, tries)).collect();
            let limit = SECOND * 2_u32.pow(tries.min(7));
            assert!(waits.iter().all(|wait| (SECOND..=limit.min(MAXIMUM)).contains(wait)), "{tries}");
            assert!(tries == 0 || waits.iter().any(|wait| *wait > limit.min(MAXIMUM) / 2), "{tries}: spread");
        }
    }

    #[test]
    fn nonces_are_never_zero_and_differ_by_key() {
        let nonces = |key| {
            let mut random = Random::new([key; 16]);
            (0..1000).map(|_| random.nonce()).collect::<std::collections::BTreeSet<_>>()
        };
        assert!(!nonces(1).contains(&0) && nonces(1).len() > 990);
        assert!(nonces(1).is_disjoint(&nonces(2)));
    }

    #[test]
    fn a_wait_without_a_span_is_that_wait() {
        let mut random = Random::new([7; 16]);
        assert_eq!(random.between(SECOND, SECOND), SECOND);
        assert_eq!(random.between(MAXIMUM, SECOND), MAXIMUM);
    }
}
