//! Silence: how long a joined channel may bring nothing (RFC 8777 §3.3.4.1).
//!
//! ```text
//!   joined, or a packet ──── half the patience ────▶ ask the relay anew ──── the other half ────▶ Silent; more patience
//! ```
//! A relay that was restarted has forgotten us, and a Request puts that right before anybody has to go elsewhere. Packets only
//! ever postpone, so that they need not touch a timer.

use super::{Event, Gateway, Timer};
use crate::membership::Filter;
use castgate_wire::membership::Family;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// One channel that is joined: a source of a group, or a group with any source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch {
    /// The last packet, or when the patience began.
    since: Instant,
    patience: Duration,
    /// The relay was asked for its sake.
    is_asked: bool,
    /// Nothing has come since it was joined or silent.
    is_fresh: bool,
    silences: u32,
}

impl Watch {
    fn next_at(&self) -> Instant {
        self.since + if self.is_asked { self.patience } else { self.patience / 2 }
    }
}

impl Gateway {
    /// How often a channel was silent in a row elsewhere: the patience for it begins there.
    pub fn set_silences(&mut self, group: IpAddr, source: Option<IpAddr>, silences: u32, now: Instant) {
        let patience = self.patience(silences);
        let Some(watch) = self.watches.get_mut(&(group, source)) else { return };
        *watch = Watch { since: now, patience, is_asked: false, is_fresh: true, silences };
        self.timers.arm(Timer::Watch(group, source), watch.next_at());
    }

    fn patience(&mut self, silences: u32) -> Duration {
        let initial = self.config.silence_initial.unwrap_or_default();
        self.random.back_off(initial, self.config.silence_max, silences)
    }

    /// Watches what is wanted of a group, and nothing else of it. What is watched already goes on.
    pub(super) fn rewatch(&mut self, group: IpAddr, now: Instant) {
        let family = Family::of(group);
        let wanted: Vec<Option<IpAddr>> = match self.side(family).host.filter(group) {
            Some(Filter::Include(sources)) => sources.iter().copied().map(Some).collect(),
            Some(Filter::Exclude(_)) => vec![None],
            None => Vec::new(),
        };
        let stale: Vec<(IpAddr, Option<IpAddr>)> = self
            .watches
            .range((group, None)..)
            .take_while(|((watched, _), _)| *watched == group)
            .map(|(key, _)| *key)
            .filter(|(_, source)| !wanted.contains(source))
            .collect();
        for (group, source) in stale {
            self.watches.remove(&(group, source));
            self.timers.disarm(Timer::Watch(group, source));
        }
        // Before the relay can know of it, silence tells nothing.
        if self.config.silence_initial.is_none() || self.side(family).grant.is_none() {
            return;
        }
        for source in wanted {
            if !self.watches.contains_key(&(group, source)) {
                let patience = self.patience(0);
                let watch = Watch { since: now, patience, is_asked: false, is_fresh: true, silences: 0 };
                self.watches.insert((group, source), watch);
                self.timers.arm(Timer::Watch(group, source), watch.next_at());
            }
        }
    }

    pub(super) fn rewatch_all(&mut self, family: Family, now: Instant) {
        let groups: Vec<IpAddr> = self.side(family).host.groups().map(|(group, _)| group).collect();
        for group in groups {
            self.rewatch(group, now);
        }
    }

    /// A packet that [`takes`](Self::takes) has let through has come. A driver that delivers packets itself calls this now and
    /// then, at least every second.
    pub fn handle_data(&mut self, now: Instant, source: IpAddr, group: IpAddr) {
        self.counters.data += 1;
        let exact = self.watches.contains_key(&(group, Some(source)));
        let key = (group, exact.then_some(source));
        let Some(watch) = self.watches.get_mut(&key) else { return };
        watch.since = now;
        watch.is_asked = false;
        if std::mem::take(&mut watch.is_fresh) {
            watch.silences = 0;
            watch.patience = self.config.silence_initial.unwrap_or_default();
            self.timers.arm(Timer::Watch(key.0, key.1), watch.next_at());
            self.event(Event::FirstData { source, group });
        }
    }

    /// The time of a channel may be over.
    pub(super) fn look_at(&mut self, group: IpAddr, source: Option<IpAddr>, now: Instant) {
        let Some(watch) = self.watches.get_mut(&(group, source)) else { return };
        if watch.next_at() > now {
            return self.rearm(group, source);
        }
        if watch.is_asked {
            watch.silences = watch.silences.saturating_add(1);
            let silences = watch.silences;
            let patience = self.patience(silences);
            if let Some(watch) = self.watches.get_mut(&(group, source)) {
                *watch = Watch { since: now, patience, is_asked: false, is_fresh: true, silences };
            }
            self.counters.silences += 1;
            self.event(Event::Silent { source, group, silences });
        } else {
            watch.is_asked = true;
            let family = Family::of(group);
            if self.side(family).ask.is_none() {
                self.ask(family, now);
            }
        }
        self.rearm(group, source);
    }

    fn rearm(&mut self, group: IpAddr, source: Option<IpAddr>) {
        if let Some(watch) = self.watches.get(&(group, source)) {
            self.timers.arm(Timer::Watch(group, source), watch.next_at());
        }
    }
}
