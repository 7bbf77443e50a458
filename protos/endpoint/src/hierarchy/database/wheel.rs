//! When which entry goes: a hierarchical timer wheel (G. Varghese, A. Lauck, "Hashed and hierarchical timing wheels", scheme 6).
//!
//! Setting, moving and removing a timer costs the same however many there are, and 16 octets each. A timer stands on the level of
//! the highest digit (to base 64) in which its tick differs from the present one; when the present reaches its place there, it
//! moves down, and on the lowest level it fires. Knows ticks only: how long one is, its owner says.
//!
//! ```text
//!   level 2  ·····▣······   4096 ticks a place ┐ moves down when
//!   level 1  ··▣·▣·······     64 ticks a place ┤ its place begins
//!   level 0  ▣▣··▣·······      1 tick a place  ┘──▶ due ──▶ fires, so many a call as the caller allows
//! ```

use super::slab::{Chunks, NONE, Slot};

const DIGIT_BITS: u32 = 6;
const PLACES: usize = 1 << DIGIT_BITS;
/// Enough for every tick there is.
const LEVELS: usize = Tick::BITS.div_ceil(DIGIT_BITS) as usize;

/// A moment. At eight a second they last for 17 years of one process; later ones are cut to the last.
pub(super) type Tick = u32;

/// Timers by their number, one each at most.
#[derive(Debug)]
pub(super) struct Wheel {
    /// Up to here everything is fired or in `due`.
    now: Tick,
    /// The first timer of each place.
    heads: [[Slot; PLACES]; LEVELS],
    /// Which places have one, a bit each.
    occupied: [u64; LEVELS],
    /// The first timer of a place that has begun: its timers move down or fire.
    due: Slot,
    links: Chunks<Link>,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    tick: Tick,
    next: Slot,
    previous: Slot,
    level: u8,
    place: u8,
    linked: bool,
}

const UNLINKED: Link = Link { tick: 0, next: NONE, previous: NONE, level: 0, place: 0, linked: false };

impl Default for Wheel {
    fn default() -> Self {
        Self { now: 0, heads: [[NONE; PLACES]; LEVELS], occupied: [0; LEVELS], due: NONE, links: Chunks::default() }
    }
}

impl Wheel {
    /// Lets a timer fire at a tick, and at no other any more. A tick that has passed means the next one.
    pub(super) fn set(&mut self, timer: Slot, tick: Tick) {
        while self.links.len() <= timer as usize {
            self.links.push(UNLINKED);
        }
        self.remove(timer);
        self.insert(timer, tick.max(self.now.saturating_add(1)));
    }

    /// Takes a timer out, if it is in.
    pub(super) fn remove(&mut self, timer: Slot) {
        if self.links.len() <= timer as usize || !self.links[timer].linked {
            return;
        }
        let Link { next, previous, level, place, .. } = self.links[timer];
        if next != NONE {
            self.links[next].previous = previous;
        }
        if previous != NONE {
            self.links[previous].next = next;
        } else if self.due == timer {
            self.due = next;
        } else {
            let (level, place) = (usize::from(level), usize::from(place));
            self.heads[level][place] = next;
            if next == NONE {
                self.occupied[level] &= !(1 << place);
            }
        }
        self.links[timer] = UNLINKED;
    }

    /// When to call [`advance`](Self::advance): the tick of the next timer, or an earlier one.
    pub(super) fn next(&self) -> Option<Tick> {
        if self.due == NONE { self.next_place().map(|(_, _, start)| start) } else { Some(self.now) }
    }

    /// Lets time pass up to `to` and returns timers that fired, each of which is out. Takes `steps_max` steps at most, one for each
    /// timer that it touches, and goes on from there at the next call.
    pub(super) fn advance(&mut self, to: Tick, steps_max: usize, mut fired: impl FnMut(Slot)) {
        for _ in 0..steps_max {
            if self.due == NONE {
                match self.next_place() {
                    Some((level, place, start)) if start <= to => {
                        self.now = start;
                        self.due = std::mem::replace(&mut self.heads[level][place], NONE);
                        self.occupied[level] &= !(1 << place);
                    }
                    _ => {
                        self.now = self.now.max(to);
                        return;
                    }
                }
            }
            let timer = self.due;
            let tick = self.links[timer].tick;
            self.remove(timer);
            if tick <= self.now {
                fired(timer);
            } else {
                self.insert(timer, tick);
            }
        }
    }

    /// The first place that has timers: level, place and the tick with which it begins. Timers of a level are all earlier than those
    /// of the levels above, because they differ from the present in a lower digit.
    fn next_place(&self) -> Option<(usize, usize, Tick)> {
        let level = self.occupied.iter().position(|occupied| *occupied != 0)?;
        let place = self.occupied[level].trailing_zeros();
        let shift = DIGIT_BITS * u32::try_from(level).expect("a level");
        let above = self.now.checked_shr(shift + DIGIT_BITS).unwrap_or(0).checked_shl(shift + DIGIT_BITS).unwrap_or(0);
        Some((level, place as usize, above | place << shift))
    }

    /// `tick` lies ahead of `now`.
    fn insert(&mut self, timer: Slot, tick: Tick) {
        // Only at the end of all ticks: it is due at once, and fires when somebody looks.
        let differing = (tick ^ self.now).max(1);
        let level = (Tick::BITS - 1 - differing.leading_zeros()) / DIGIT_BITS;
        let place = (tick >> (level * DIGIT_BITS)) as usize % PLACES;
        let level = level as usize;
        let next = std::mem::replace(&mut self.heads[level][place], timer);
        self.occupied[level] |= 1 << place;
        if next != NONE {
            self.links[next].previous = timer;
        }
        let place = u8::try_from(place).expect("below 64");
        self.links[timer] =
            Link { tick, next, previous: NONE, level: u8::try_from(level).expect("below 6"), place, linked: true };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_call_touches_no_more_timers_than_it_may_and_the_next_one_goes_on() {
        let mut wheel = Wheel::default();
        (0..100).for_each(|timer| wheel.set(timer, 5_000));
        let mut fired = Vec::new();
        let mut calls = 0;
        while fired.len() < 100 {
            let before = fired.len();
            wheel.advance(6_000, 10, |timer| fired.push(timer));
            assert!(fired.len() - before <= 10);
            calls += 1;
            assert!(calls < 100 && (fired.len() == 100 || wheel.next().is_some_and(|next| next <= 6_000)));
        }
        fired.sort_unstable();
        assert_eq!(fired, (0..100).collect::<Vec<_>>());
        wheel.advance(6_000, 10, |_| unreachable!("all are out"));
        assert_eq!(wheel.next(), None);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Set(Slot, Tick),
        Remove(Slot),
        Pass(Tick, usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        let span = prop_oneof![Just(0), 0..70_u32, 0..5_000_u32, 0..400_000_u32, Just(1 << 29)];
        prop_oneof![
            4 => (0..40_u32, span.clone()).prop_map(|(timer, ahead)| Op::Set(timer, ahead)),
            1 => (0..40_u32).prop_map(Op::Remove),
            3 => (span, 1..60_usize).prop_map(|(span, steps)| Op::Pass(span, steps)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        /// As a plain map from timers to ticks: nothing fires early, everything fires in time, `next` is never late.
        #[test]
        fn timers_fire_as_those_of_a_plain_map(ops in prop::collection::vec(op(), 1..80)) {
            let (mut wheel, mut model, mut now) = (Wheel::default(), BTreeMap::<Slot, Tick>::new(), 0_u32);
            for op in ops {
                match op {
                    Op::Set(timer, ahead) => {
                        wheel.set(timer, now.saturating_add(ahead));
                        // A tick that has passed is the next one that the wheel comes to.
                        model.insert(timer, now.saturating_add(ahead));
                    }
                    Op::Remove(timer) => {
                        wheel.remove(timer);
                        model.remove(&timer);
                    }
                    Op::Pass(span, steps) => {
                        now = now.saturating_add(span.max(1));
                        let mut fired = Vec::new();
                        for _ in 0..10_000 {
                            wheel.advance(now, steps, |timer| fired.push(timer));
                            if wheel.next().is_none_or(|next| next > now) {
                                break;
                            }
                        }
                        fired.sort_unstable();
                        let due: Vec<Slot> = model.iter().filter(|(_, tick)| **tick <= now).map(|(timer, _)| *timer).collect();
                        prop_assert_eq!(&fired, &due);
                        model.retain(|_, tick| *tick > now);
                    }
                }
                let first = model.values().min().copied();
                prop_assert_eq!(wheel.next().is_some(), first.is_some());
                prop_assert!(wheel.next() <= first.map(|first| first.max(now.saturating_add(1))));
            }
        }
    }
}
