//! Numbered places that keep their number: what the database's tables are made of.
//!
//! Grows by one chunk at a time. A vector that doubles would copy all entries at once while everybody waits, and hold twice the
//! memory it needs for most of its life.

use std::ops::{Index, IndexMut};

/// The number of a place for as long as something is in it.
pub(in crate::hierarchy) type Slot = u32;
/// No place.
pub(in crate::hierarchy) const NONE: Slot = Slot::MAX;

/// Places of one chunk, as a power of two: large enough that the list of chunks is small, small enough to be got at once.
const CHUNK_BITS: u32 = 12;
const CHUNK_LEN: usize = 1 << CHUNK_BITS;

/// A list that grows without moving what is in it.
#[derive(Debug)]
pub(super) struct Chunks<T> {
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T> Chunks<T> {
    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK_LEN + last.len())
    }

    pub(super) fn push(&mut self, value: T) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK_LEN => last.push(value),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK_LEN);
                chunk.push(value);
                self.chunks.push(chunk);
            }
        }
    }
}

const fn place(slot: Slot) -> (usize, usize) {
    ((slot >> CHUNK_BITS) as usize, slot as usize & (CHUNK_LEN - 1))
}

impl<T> Index<Slot> for Chunks<T> {
    type Output = T;

    fn index(&self, slot: Slot) -> &T {
        let (chunk, at) = place(slot);
        &self.chunks[chunk][at]
    }
}

impl<T> IndexMut<Slot> for Chunks<T> {
    fn index_mut(&mut self, slot: Slot) -> &mut T {
        let (chunk, at) = place(slot);
        &mut self.chunks[chunk][at]
    }
}

/// Values in numbered places; a place that becomes free is used again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Chunks<Option<T>>,
    free: Vec<Slot>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Chunks::default(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// All numbers below this one may be in use, and none from it on.
    pub(super) fn end(&self) -> Slot {
        Slot::try_from(self.places.len()).expect("insert gives no larger number")
    }

    /// # Panics
    /// With 2^31 values in it: far more than the memory of a machine holds, and than the bounds of a database allow.
    pub(super) fn insert(&mut self, value: T) -> Slot {
        if let Some(slot) = self.free.pop() {
            self.places[slot] = Some(value);
            return slot;
        }
        let slot = Slot::try_from(self.places.len()).ok().filter(|slot| *slot < 1 << 31).expect("a bounded table");
        self.places.push(Some(value));
        slot
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&T> {
        self.places[slot].as_ref()
    }

    /// The value, whose place becomes free.
    pub(super) fn remove(&mut self, slot: Slot) -> T {
        let value = self.places[slot].take().expect("the place is in use");
        self.free.push(slot);
        value
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        (0..self.end()).filter_map(|slot| Some((slot, self.get(slot)?)))
    }
}

impl<T> Index<Slot> for Slab<T> {
    type Output = T;

    fn index(&self, slot: Slot) -> &T {
        self.places[slot].as_ref().expect("the place is in use")
    }
}

impl<T> IndexMut<Slot> for Slab<T> {
    fn index_mut(&mut self, slot: Slot) -> &mut T {
        self.places[slot].as_mut().expect("the place is in use")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_free_ones_are_used_again_across_chunks() {
        let mut slab = Slab::default();
        let count = 3 * CHUNK_LEN + 5;
        for n in 0..count {
            assert_eq!(slab.insert(n) as usize, n);
        }
        assert_eq!((slab.len(), slab.remove(7), slab.len()), (count, 7, count - 1));
        assert!(slab.get(7).is_none() && slab.iter().all(|(slot, n)| slot as usize == *n));
        assert_eq!((slab.insert(70), slab[7], slab.end() as usize), (7, 70, count));
    }
}
