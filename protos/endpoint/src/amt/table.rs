//! A table of fixed size about addresses that have proven nothing.
//!
//! It is set-associative: a keyed hash names a row of [`WAYS`] entries, and in a full row the entry that matters least gives
//! way. A flood of addresses therefore makes it forget, never grow.

use siphasher::sip::SipHasher24;
use std::hash::{Hash, Hasher};

/// Entries that share a hash.
const WAYS: usize = 8;

/// What is known by key, for as long as there is room.
#[derive(Clone)]
pub(super) struct Table<K, V> {
    key: [u8; 16],
    entries: Box<[Option<(K, V)>]>,
}

impl<K: Hash + Eq, V> Table<K, V> {
    /// An empty table for at least `entries` entries; `key` is secret, so that nobody chooses who shares a row.
    pub(super) fn new(key: [u8; 16], entries: usize) -> Self {
        let rows = entries.div_ceil(WAYS).max(1);
        Self { key, entries: std::iter::repeat_with(|| None).take(rows * WAYS).collect() }
    }

    fn row(&mut self, key: &K) -> &mut [Option<(K, V)>] {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        key.hash(&mut hasher);
        let rows = (self.entries.len() / WAYS) as u64;
        let row = usize::try_from(hasher.finish() % rows).expect("a row of a table in memory");
        &mut self.entries[row * WAYS..(row + 1) * WAYS]
    }

    /// What is known of `key`.
    #[cfg(test)]
    pub(super) fn find(&mut self, key: &K) -> Option<&mut V> {
        self.row(key).iter_mut().flatten().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// What is known of `key`, made first when it is nothing; then the entry of least `weight` gives way in a full row.
    pub(super) fn entry<W: Ord>(&mut self, key: K, weight: impl Fn(&V) -> W, make: impl FnOnce() -> V) -> &mut V {
        let row = self.row(&key);
        let known = row.iter().position(|entry| entry.as_ref().is_some_and(|(known, _)| *known == key));
        let place = known.unwrap_or_else(|| {
            // `None` sorts before every weight: an empty entry is taken first.
            let lightest = (0..row.len()).min_by_key(|place| row[*place].as_ref().map(|(_, value)| weight(value)));
            lightest.unwrap_or_default()
        });
        if known.is_none() {
            row[place] = None;
        }
        &mut row[place].get_or_insert_with(|| (key, make())).1
    }

    /// How many entries there is room for, which never changes.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl<K, V> std::fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_row_gives_up_the_lightest_and_stays_as_large_as_it_was() {
        let mut table = Table::new([1; 16], WAYS);
        for key in 0..8_u32 {
            *table.entry(key, |weight| *weight, || 0) = key + 1;
        }
        table.entry(8, |weight| *weight, || 9);
        assert_eq!(table.find(&0), None, "the lightest");
        assert_eq!(table.find(&1).copied(), Some(2));
        assert_eq!(table.len(), WAYS);
        assert_eq!(table.entry(8, |weight| *weight, || 0), &9, "known already");
    }
}
