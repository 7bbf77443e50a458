//! A small seeded generator: the same seed gives the same lab, on every machine and for ever.

/// `SplitMix64` (Steele, Lea, Flood 2014): statistically good, 64 bits of state, nothing to depend on.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator that always starts the same way for this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next 16 bits.
    pub fn bits16(&mut self) -> u16 {
        let [high, low, ..] = self.bits().to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    /// A number from 0 up to, not including, 1.
    pub fn fraction(&mut self) -> f64 {
        let [a, b, c, d, ..] = self.bits().to_be_bytes();
        // 32 bits fit an f64 without rounding.
        f64::from(u32::from_be_bytes([a, b, c, d])) / 4_294_967_296.0
    }

    /// True in this fraction of the cases.
    pub fn chance(&mut self, fraction: f64) -> bool {
        self.fraction() < fraction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_values_are_those_of_the_publication() {
        let mut random = Random::new(1_234_567);
        assert_eq!([random.bits(), random.bits()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn a_chance_of_two_percent_comes_true_in_two_percent() {
        let mut random = Random::new(7);
        let hits = (0..100_000).filter(|_| random.chance(0.02)).count();
        assert!((1_850..2_150).contains(&hits), "{hits}");
    }
}
