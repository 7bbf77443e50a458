//! A map whose copies share what did not change.
//!
//! The map is cut into a fixed number of parts by the hash of the key. A copy copies pointers to the parts; changing one
//! entry copies one part, and only if a copy still uses it.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// Parts of a map. A table of ten thousand tunnels is copied forty at a time, and an empty one costs two kilobytes.
const PARTS: usize = 256;

/// A map that is cheap to copy and to change by little.
#[derive(Debug, Clone)]
pub(crate) struct Sharded<K, V> {
    // Keys come from the network: the hash is keyed, and the same for all parts.
    hasher: RandomState,
    parts: Box<[Arc<HashMap<K, V, RandomState>>]>,
}

impl<K: Hash + Eq + Clone, V: Clone> Sharded<K, V> {
    pub(crate) fn new() -> Self {
        let hasher = RandomState::new();
        let empty = Arc::new(HashMap::with_hasher(hasher.clone()));
        Self { hasher, parts: vec![empty; PARTS].into() }
    }

    fn part(&self, key: &K) -> usize {
        // The top of the hash: its bottom places the entry within the part.
        usize::try_from(self.hasher.hash_one(key) >> 56).expect("8 bits fit")
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.parts[self.part(key)].get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let part = self.part(key);
        if !self.parts[part].contains_key(key) {
            return None;
        }
        Arc::make_mut(&mut self.parts[part]).get_mut(key)
    }

    pub(crate) fn get_or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        let part = self.part(&key);
        Arc::make_mut(&mut self.parts[part]).entry(key).or_insert_with(value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        let part = self.part(&key);
        Arc::make_mut(&mut self.parts[part]).insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let part = self.part(key);
        if !self.parts[part].contains_key(key) {
            return None;
        }
        Arc::make_mut(&mut self.parts[part]).remove(key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.is_empty())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// The keys in parts that are not shared with `other`, a copy of this map from before or after some changes: all keys
    /// that differ are among them. A key may be given twice.
    pub(crate) fn keys_near_changes<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a K> {
        let pairs = self.parts.iter().zip(&other.parts).filter(|(ours, theirs)| !Arc::ptr_eq(ours, theirs));
        pairs.flat_map(|(ours, theirs)| ours.keys().chain(theirs.keys()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_does_not_see_later_changes_and_shares_the_rest() {
        let mut map = Sharded::new();
        for key in 0..1000 {
            map.insert(key, key * 2);
        }
        let copy = map.clone();
        map.insert(7, 0);
        map.remove(&8);
        *map.get_mut(&9).unwrap() += 1;
        assert_eq!((copy.get(&7), copy.get(&8), copy.get(&9)), (Some(&14), Some(&16), Some(&18)));
        assert_eq!((map.get(&7), map.get(&8), map.get(&9)), (Some(&0), None, Some(&19)));
        let unshared = map.parts.iter().zip(&copy.parts).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert!(unshared <= 3);
        let near: Vec<_> = map.keys_near_changes(&copy).copied().collect();
        assert!([7, 8, 9].iter().all(|key| near.contains(key)) && near.len() < 100);
    }

    #[test]
    fn what_is_not_there_is_not_copied() {
        let mut map = Sharded::new();
        map.insert(1, 1);
        let copy = map.clone();
        assert_eq!((map.remove(&2), map.get_mut(&3)), (None, None));
        assert_eq!(map.keys_near_changes(&copy).count(), 0);
        assert_eq!(map.iter().collect::<Vec<_>>(), [(&1, &1)]);
    }
}
