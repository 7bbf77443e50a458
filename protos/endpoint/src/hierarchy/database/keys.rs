//! Which slot an entry is in, by the hash of its source and port.
//!
//! Owns hashes and numbers; the keys themselves are the entries', so that a key costs five octets more and not its own size again.

use hashbrown::HashTable;

use super::slab::Slot;

/// Tables, as a power of two: when one of them grows, a hundredth of the entries moves, and not all at once.
const TABLE_BITS: u32 = 7;

/// Slots by hash. Several may have the same: the protocols of one server.
#[derive(Debug)]
pub(super) struct Keys {
    tables: Box<[HashTable<Slot>]>,
}

impl Default for Keys {
    fn default() -> Self {
        Self { tables: (0..1 << TABLE_BITS).map(|_| HashTable::new()).collect() }
    }
}

/// The table looks at the lowest and the highest bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// By the highest bits, which then are the same in one table.
fn table(hash: u32) -> usize {
    (hash >> (u32::BITS - TABLE_BITS)) as usize
}

impl Keys {
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(Slot) -> bool) -> Option<Slot> {
        self.tables[table(hash)].find(spread(hash), |slot| is_it(*slot)).copied()
    }

    /// Those of this hash, and perhaps others.
    pub(super) fn of_hash(&self, hash: u32) -> impl Iterator<Item = Slot> {
        self.tables[table(hash)].iter_hash(spread(hash)).copied()
    }

    /// `hash_of` tells the hash of those that are in it already.
    pub(super) fn insert(&mut self, hash: u32, slot: Slot, hash_of: impl Fn(Slot) -> u32) {
        self.tables[table(hash)].insert_unique(spread(hash), slot, |slot| spread(hash_of(*slot)));
    }

    pub(super) fn remove(&mut self, hash: u32, slot: Slot) {
        if let Ok(found) = self.tables[table(hash)].find_entry(spread(hash), |other| *other == slot) {
            found.remove();
        }
    }
}
