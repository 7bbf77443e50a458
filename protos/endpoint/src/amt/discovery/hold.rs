//! Relays that are avoided for a while (RFC 8777 §3.3.4.1, §3.3.5).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Which relays, for which source, until when. A relay that is full is avoided for every source.
#[derive(Debug, Clone, Default)]
pub(super) struct HoldDowns(BTreeMap<(SocketAddr, Option<IpAddr>), Instant>);

impl HoldDowns {
    /// Avoids `relay` for `source`, or for all sources; of more than `limit` the one that ends first is forgotten.
    pub(super) fn hold(&mut self, relay: SocketAddr, source: Option<IpAddr>, until: Instant, limit: usize) {
        let held = self.0.entry((relay, source)).or_insert(until);
        *held = until.max(*held);
        while self.0.len() > limit {
            let Some(first) = self.0.iter().min_by_key(|(_, until)| **until).map(|(key, _)| *key) else { return };
            self.0.remove(&first);
        }
    }

    pub(super) fn holds(&self, now: Instant, relay: SocketAddr, source: Option<IpAddr>) -> bool {
        let is_held = |key| self.0.get(&key).is_some_and(|until| now < *until);
        is_held((relay, None)) || (source.is_some() && is_held((relay, source)))
    }

    /// Forgets those that are over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|_, until| now < *until);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_silent_relay_is_avoided_for_its_source_and_a_full_one_for_all() {
        let start = Instant::now();
        let (silent, full) = ("192.0.2.1:2268".parse().unwrap(), "192.0.2.2:2268".parse().unwrap());
        let [source, other] = [10, 11].map(|low| Some(IpAddr::from([198, 51, 100, low])));
        let mut held = HoldDowns::default();
        let minute = start + Duration::from_mins(1);
        held.hold(silent, source, minute, 9);
        held.hold(full, None, minute, 9);
        assert!(held.holds(start, silent, source) && !held.holds(start, silent, other));
        assert!(held.holds(start, full, source) && held.holds(start, full, None));
        assert!(!held.holds(minute, silent, source) && !held.holds(minute, full, source));
        held.expire(minute);
        assert!(held.0.is_empty());
    }

    #[test]
    fn not_more_are_remembered_than_may_be() {
        let start = Instant::now();
        let mut held = HoldDowns::default();
        for port in 1..100_u16 {
            held.hold(([192, 0, 2, 1], port).into(), None, start + Duration::from_secs(port.into()), 9);
        }
        assert_eq!(held.0.len(), 9);
        assert!(held.holds(start, ([192, 0, 2, 1], 99).into(), None));
    }
}
