//! Drawing lots from a seed: which member of a list is asked first, how much an interval is jittered.
//!
//! `SplitMix64`: spreads load and nothing else. Nothing here is a secret, so that tests can repeat a run by its seed.

/// A sequence of numbers that depends on its seed alone.
#[derive(Debug, Clone)]
pub(super) struct Lot(u64);

impl Lot {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0. The bias of the modulo is far below what matters to load.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }

    /// Puts the list in a drawn order.
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).expect("an index of this list fits usize");
            list.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_every_member_and_reaches_every_first_place() {
        let mut firsts = [0_u32; 4];
        for seed in 0..400 {
            let mut list = [0_usize, 1, 2, 3];
            Lot::new(seed).shuffle(&mut list);
            firsts[list[0]] += 1;
            list.sort_unstable();
            assert_eq!(list, [0, 1, 2, 3]);
        }
        assert!(firsts.iter().all(|times| (60..=140).contains(times)), "{firsts:?}");
    }
}
