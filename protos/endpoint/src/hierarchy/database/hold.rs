//! Putting entries in and taking them out: every table at once.

use super::entry::{Entry, Held, Key};
use super::slab::Slot;
use super::wheel::Tick;
use super::{Change, Database};

/// Milliseconds of a tick of the wheel. A QUERY looks at the deadline itself; this is only how long what has gone still takes room.
pub(super) const TICK_MILLIS: u64 = 125;

/// How long an entry is held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until {
    pub(super) deadline: u64,
    pub(super) vouched: u64,
    pub(super) hearsay: bool,
}

impl Database {
    /// The entry of a key. One whose time is up is gone, whether or not the wheel has come to it.
    pub(super) fn live(&mut self, now: u64, hash: u32, key: &Key) -> Option<Slot> {
        let slot = self.keys.find(hash, |slot| self.held[slot].key == *key)?;
        if self.held[slot].deadline <= now {
            self.expire(now, slot);
            return None;
        }
        Some(slot)
    }

    /// Puts or replaces an entry. A refresh that changes nothing touches its deadline alone.
    pub(super) fn hold(&mut self, entry: Entry, hash: u32, Until { deadline, vouched, hearsay }: Until) {
        let before = self.keys.find(hash, |slot| self.held[slot].key == entry.key);
        let same = |slot: &Slot| {
            let held = &self.held[*slot];
            **self.logins.name(held.login) == *entry.login && held.says(&entry)
        };
        let slot = if let Some(slot) = before.filter(same) {
            slot
        } else {
            if let Some(before) = before {
                self.take_out(before);
            }
            let login = self.logins.take(&entry.login, entry.networks.len());
            let slot = self.held.insert(Held::new(entry, login, hash));
            self.index.insert(slot, &self.held);
            self.keys.insert(hash, slot, |slot| self.held[slot].hash);
            slot
        };
        let held = &mut self.held[slot];
        self.hearsay = self.hearsay + usize::from(hearsay) - usize::from(held.hearsay);
        (held.deadline, held.vouched, held.hearsay) = (deadline, vouched, hearsay);
        self.wheel.set(slot, tick_of(deadline));
    }

    pub(super) fn drop_slot(&mut self, slot: Slot) {
        let held = self.take_out(slot);
        self.changes.push_back(Change::Delete(held.key));
    }

    pub(super) fn expire(&mut self, now: u64, slot: Slot) {
        let held = self.take_out(slot);
        if !held.hearsay {
            self.hearing.miss(now, self.overdue());
        }
        self.changes.push_back(Change::Expire(held.key));
    }

    pub(super) fn take_out(&mut self, slot: Slot) -> Held {
        self.index.remove(slot, &self.held);
        self.wheel.remove(slot);
        let held = self.held.remove(slot);
        self.keys.remove(held.hash, slot);
        self.logins.give_back(held.login, held.networks.len());
        self.hearsay -= usize::from(held.hearsay);
        held
    }
}

/// The first tick at which the deadline has passed.
pub(super) fn tick_of(deadline: u64) -> Tick {
    Tick::try_from(deadline.div_ceil(TICK_MILLIS)).unwrap_or(Tick::MAX)
}
