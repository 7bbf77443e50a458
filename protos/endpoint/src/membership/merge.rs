//! One filter out of many (RFC 3376 §3.2, RFC 3810 §4.2), kept up to date as single ones change.
//!
//! Owns the filters of any number of keys: the tunnels of a relay, the programs behind an interface. Knows no time.
//!
//! ```text
//!   (key, group) ──▶ filter ─┐ equal filters of a group are one, with a count
//!                            ▼
//!   group: filters × count · how many of them include and exclude each source ──▶ merged filter
//! ```
//! A thousand viewers of one film have one filter among them: the second to the last cost a look-up. A filter that is new costs
//! its own length, whatever the others hold, and little more than the difference when it follows one of the same mode. Only
//! when the last EXCLUDE goes is the union of all others built anew.

use super::Filter;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The merged filter of a group is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The group.
    pub group: IpAddr,
    /// What is wanted of it now; `None` when nobody wants anything any more.
    pub filter: Option<Filter>,
}

/// The filters of all keys, and what they come to. See the [module](self).
#[derive(Debug, Clone)]
pub struct Merged<K> {
    /// The key first: what one key has is a range.
    by_key: BTreeMap<(K, IpAddr), Arc<Filter>>,
    groups: BTreeMap<IpAddr, Group>,
}

/// A mode and a length before the filter: they make comparing cheap, and the shortest EXCLUDE list easy to find.
type Rank = (bool, usize, Arc<Filter>);

#[derive(Debug, Clone, Default)]
struct Group {
    /// Different filters, and how many keys have each.
    filters: BTreeMap<Rank, usize>,
    /// How many of the different filters exclude.
    excluding: usize,
    /// How many of the different filters name a source.
    included: BTreeMap<IpAddr, usize>,
    excluded: BTreeMap<IpAddr, usize>,
    merged: Filter,
}

impl<K> Default for Merged<K> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), groups: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Merged<K> {
    /// No filters: nobody wants anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces what `key` wants of `group`; the merged filter when it has changed by that. `None` and INCLUDE {} both want
    /// nothing.
    pub fn set(&mut self, key: K, group: IpAddr, filter: Option<Filter>) -> Option<Change> {
        self.update(key, group, filter).then(|| Change { group, filter: self.filter(group).cloned() })
    }

    /// As [`set`](Self::set), without a copy of the merged filter: whether it has changed. For drivers that gather changes.
    pub fn update(&mut self, key: K, group: IpAddr, filter: Option<Filter>) -> bool {
        let place = (key, group);
        let Some(filter) = filter.and_then(Filter::into_option) else {
            return self.by_key.remove(&place).is_some_and(|before| self.withdraw(group, &before));
        };
        let before = self.by_key.get(&place);
        if before.is_some_and(|before| **before == filter) {
            return false;
        }
        let before = before.cloned();
        let entry = self.groups.entry(group).or_default();
        let filter = entry.share(filter);
        self.by_key.insert(place, Arc::clone(&filter));
        entry.replace(before.as_ref(), Some(&filter))
    }

    /// Forgets everything of `key`; the groups whose merged filter has changed by that.
    pub fn remove(&mut self, key: &K) -> Vec<Change> {
        let groups: Vec<IpAddr> = self.of(key).map(|(group, _)| group).collect();
        groups.into_iter().filter_map(|group| self.set(key.clone(), group, None)).collect()
    }

    /// What all keys together want of `group`.
    #[must_use]
    pub fn filter(&self, group: IpAddr) -> Option<&Filter> {
        self.groups.get(&group).map(|group| &group.merged)
    }

    /// What `key` wants of `group`.
    #[must_use]
    pub fn filter_of(&self, key: &K, group: IpAddr) -> Option<&Filter> {
        self.by_key.get(&(key.clone(), group)).map(|filter| &**filter)
    }

    /// All that `key` wants, in the order of groups.
    pub fn of(&self, key: &K) -> impl Iterator<Item = (IpAddr, &Filter)> {
        let first = (key.clone(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let last = (key.clone(), IpAddr::V6(Ipv6Addr::from(u128::MAX)));
        self.by_key.range(first..=last).map(|((_, group), filter)| (*group, &**filter))
    }

    /// All groups that somebody wants, in order.
    pub fn groups(&self) -> impl Iterator<Item = (IpAddr, &Filter)> {
        self.groups.iter().map(|(group, entry)| (*group, &entry.merged))
    }

    /// How many pairs of key and group there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether nobody wants anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    fn withdraw(&mut self, group: IpAddr, before: &Arc<Filter>) -> bool {
        let Some(entry) = self.groups.get_mut(&group) else { return false };
        let is_changed = entry.replace(Some(before), None);
        if entry.filters.is_empty() {
            self.groups.remove(&group);
        }
        is_changed
    }
}

fn rank(filter: &Arc<Filter>) -> Rank {
    (filter.is_exclude(), filter.sources().len(), Arc::clone(filter))
}

/// One more or one less of every source of a list.
fn count<'a>(counts: &mut BTreeMap<IpAddr, usize>, sources: impl IntoIterator<Item = &'a IpAddr>, is_more: bool) {
    for source in sources {
        let count = counts.entry(*source).or_default();
        *count = if is_more { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            counts.remove(source);
        }
    }
}

impl Group {
    /// The filter that is here already, or this one.
    fn share(&self, filter: Filter) -> Arc<Filter> {
        let filter = Arc::new(filter);
        match self.filters.get_key_value(&rank(&filter)) {
            Some(((_, _, known), _)) => Arc::clone(known),
            None => filter,
        }
    }

    /// A key has another filter; whether the merged one is another by that.
    fn replace(&mut self, before: Option<&Arc<Filter>>, after: Option<&Arc<Filter>>) -> bool {
        let new = after.filter(|filter| self.acquire(filter));
        let gone = before.filter(|filter| self.release(filter));
        match (gone, new) {
            (None, None) => false,
            // Mostly a source more or less: what both name need not be counted.
            (Some(gone), Some(new)) if gone.is_exclude() == new.is_exclude() => {
                let counts = if new.is_exclude() { &mut self.excluded } else { &mut self.included };
                count(counts, new.sources().difference(gone.sources()), true);
                count(counts, gone.sources().difference(new.sources()), false);
                self.merge(gone.sources().symmetric_difference(new.sources()))
            }
            (gone, new) => {
                if let Some(new) = new {
                    self.count(new, true);
                }
                if let Some(gone) = gone {
                    self.count(gone, false);
                }
                self.merge([gone, new].into_iter().flatten().flat_map(|filter| filter.sources()))
            }
        }
    }

    /// One key more has the filter; true when it is the first.
    fn acquire(&mut self, filter: &Arc<Filter>) -> bool {
        let keys = self.filters.entry(rank(filter)).or_default();
        *keys += 1;
        *keys == 1
    }

    /// One key less has the filter; true when it was the last.
    fn release(&mut self, filter: &Arc<Filter>) -> bool {
        let rank = rank(filter);
        let Some(keys) = self.filters.get_mut(&rank) else { return false };
        *keys -= 1;
        if *keys > 0 {
            return false;
        }
        self.filters.remove(&rank);
        true
    }

    fn count(&mut self, filter: &Filter, is_more: bool) {
        match filter {
            Filter::Include(sources) => count(&mut self.included, sources, is_more),
            Filter::Exclude(sources) => {
                count(&mut self.excluded, sources, is_more);
                self.excluding = if is_more { self.excluding + 1 } else { self.excluding - 1 };
            }
        }
    }

    /// Brings the merged filter up to date after the counts of the touched sources have changed.
    fn merge<'a>(&mut self, touched: impl Iterator<Item = &'a IpAddr>) -> bool {
        let shortest_exclude = self.filters.range((true, 0, Arc::new(Filter::nothing()))..).next();
        if let Some(((_, _, shortest), _)) = shortest_exclude {
            // Excluded is what all excluding filters name and no including one: no list of them is shorter than that.
            let is_excluded = |source: &&IpAddr| {
                self.excluded.get(*source) == Some(&self.excluding) && !self.included.contains_key(*source)
            };
            let merged = Filter::Exclude(shortest.sources().iter().filter(is_excluded).copied().collect());
            let is_changed = merged != self.merged;
            self.merged = merged;
            return is_changed;
        }
        let Filter::Include(sources) = &mut self.merged else {
            self.merged = Filter::Include(self.included.keys().copied().collect());
            return true;
        };
        let mut is_changed = false;
        for source in touched {
            is_changed |=
                if self.included.contains_key(source) { sources.insert(*source) } else { sources.remove(source) };
        }
        is_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(232, 1, 1, 1));

    fn list(letters: &str) -> impl Iterator<Item = IpAddr> {
        letters.bytes().map(|letter| IpAddr::from([192, 0, 2, letter]))
    }

    #[test]
    fn the_sockets_of_rfc_3376_come_to_the_interface_record_of_rfc_3376() {
        let mut merged = Merged::new();
        merged.set("s1", GROUP, Some(Filter::exclude(list("abcd"))));
        merged.set("s2", GROUP, Some(Filter::exclude(list("bcde"))));
        let change = merged.set("s3", GROUP, Some(Filter::include(list("def"))));
        assert_eq!(change, Some(Change { group: GROUP, filter: Some(Filter::exclude(list("bc"))) }));
        let change = merged.set("s4", GROUP, Some(Filter::everything()));
        assert_eq!(change, Some(Change { group: GROUP, filter: Some(Filter::everything()) }));
        for key in ["s1", "s2", "s4"] {
            merged.set(key, GROUP, None);
        }
        assert_eq!(merged.filter(GROUP), Some(&Filter::include(list("def"))), "no EXCLUDE when nobody excludes");
    }

    #[test]
    fn only_the_last_of_many_with_one_filter_changes_anything() {
        let mut merged = Merged::new();
        let filter = || Some(Filter::include(list("a")));
        assert!(merged.set(1, GROUP, filter()).is_some());
        assert!((2..9).all(|key| merged.set(key, GROUP, filter()).is_none()));
        assert!((1..8).all(|key| merged.set(key, GROUP, None).is_none()));
        assert_eq!(merged.set(8, GROUP, Some(Filter::nothing())), Some(Change { group: GROUP, filter: None }));
        assert!(merged.is_empty() && merged.groups.is_empty());
        assert!(merged.set(8, GROUP, None).is_none());
    }

    #[test]
    fn what_one_key_wants_goes_with_it_and_the_rest_stays() {
        let mut merged = Merged::new();
        let other = IpAddr::from([0xff3e, 0, 0, 0, 0, 0, 0, 1]);
        merged.set(1, GROUP, Some(Filter::include(list("ab"))));
        merged.set(1, other, Some(Filter::everything()));
        merged.set(2, GROUP, Some(Filter::include(list("bc"))));
        assert_eq!(merged.of(&1).map(|(group, _)| group).collect::<Vec<_>>(), [GROUP, other]);
        let changes = merged.remove(&1);
        assert_eq!(
            changes,
            [Change { group: GROUP, filter: Some(Filter::include(list("bc"))) }, Change { group: other, filter: None }]
        );
        assert_eq!(merged.len(), 1);
        assert_eq!(merged.filter_of(&2, GROUP), Some(&Filter::include(list("bc"))));
    }
}
