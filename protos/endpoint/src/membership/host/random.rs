//! Random delays out of one seed: a keyed hash of a counter.

use siphasher::sip::SipHasher24;
use std::hash::Hasher;
use std::time::Duration;

#[derive(Clone)]
pub(super) struct Random {
    key: [u8; 16],
    count: u64,
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random(..)")
    }
}

impl Random {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self { key, count: 0 }
    }

    /// A time in `0..=longest`.
    pub(super) fn delay(&mut self, longest: Duration) -> Duration {
        self.count = self.count.wrapping_add(1);
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write_u64(self.count);
        let ends = u128::from(u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX)) + 1;
        // The high half of the product: even enough for nanoseconds.
        let nanos = (u128::from(hasher.finish()) * ends) >> 64;
        Duration::from_nanos(u64::try_from(nanos).expect("the high half of the product of two 64-bit numbers"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_fill_their_range_and_stay_in_it() {
        let mut random = Random::new([7; 16]);
        let longest = Duration::from_secs(10);
        let mut tenths = [0; 10];
        for _ in 0..1000 {
            let delay = random.delay(longest);
            assert!(delay <= longest);
            tenths[usize::try_from(delay.as_nanos() / 1_000_000_001).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|times| (50..200).contains(times)), "{tenths:?}");
        assert_eq!(random.delay(Duration::ZERO), Duration::ZERO);
        assert!(random.delay(Duration::MAX) <= Duration::from_nanos(u64::MAX));
    }
}
