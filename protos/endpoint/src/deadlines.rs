//! Deadlines in order: the earliest in logarithmic time, however many timers there are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// At most one deadline per timer.
#[derive(Debug, Clone)]
pub(super) struct Deadlines<T> {
    by_time: BTreeSet<(Instant, T)>,
    by_timer: BTreeMap<T, Instant>,
}

impl<T: Ord + Copy> Deadlines<T> {
    pub(super) fn new() -> Self {
        Self { by_time: BTreeSet::new(), by_timer: BTreeMap::new() }
    }

    /// Sets `timer`; an earlier setting is forgotten.
    pub(super) fn arm(&mut self, timer: T, at: Instant) {
        if let Some(before) = self.by_timer.insert(timer, at) {
            if before == at {
                return;
            }
            self.by_time.remove(&(before, timer));
        }
        self.by_time.insert((at, timer));
    }

    pub(super) fn disarm(&mut self, timer: T) {
        if let Some(before) = self.by_timer.remove(&timer) {
            self.by_time.remove(&(before, timer));
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out the earliest timer that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<T> {
        let (at, timer) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.by_time.pop_first();
        self.by_timer.remove(&timer);
        Some(timer)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_time.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timers_fire_in_order_and_only_when_due() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::new();
        deadlines.arm('b', after(2));
        deadlines.arm('a', after(3));
        deadlines.arm('c', after(9));
        deadlines.arm('a', after(1));
        deadlines.disarm('c');
        assert_eq!(deadlines.next(), Some(after(1)));
        assert_eq!(deadlines.pop_due(after(0)), None);
        assert_eq!(deadlines.pop_due(after(5)), Some('a'));
        assert_eq!(deadlines.pop_due(after(5)), Some('b'));
        assert_eq!(deadlines.pop_due(after(99)), None);
        assert_eq!(deadlines.len(), 0);
    }
}
