//! Whether this process stood still: suspended, or on a machine that was.
//!
//! Requests that came meanwhile wait in the kernel, and some of those who sent them are gone since. A REGISTER among them would make a
//! server new that has said BYE elsewhere, or died, long ago. So what waited is not carried out: whoever is still there comes again.
//!
//! ```text
//!   ─ beat ─ beat ─ beat ─────────── stood still ─────────── beat ── 1 s ── beat ─
//!                                 503 │◀─────────────────────────────▶│
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two beats.
pub(super) const BEAT: Duration = Duration::from_millis(500);
/// Beats that are further apart mean that we stood still. A busy machine is not that late.
const STILL_MILLIS: u64 = 5_000;
/// How long what waited is turned away: it all comes at once.
const AFTER_MILLIS: u64 = 1_000;

/// The beats of this process. Moments are milliseconds since the start.
#[derive(Debug)]
pub(super) struct Standstill {
    start: Instant,
    last: AtomicU64,
    over: AtomicU64,
}

impl Standstill {
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, last: AtomicU64::new(0), over: AtomicU64::new(0) }
    }

    /// To be called at every [`BEAT`].
    pub(super) fn beat(&self, now: Instant) {
        let now = self.millis(now);
        let last = self.last.swap(now, Ordering::Relaxed);
        if now.saturating_sub(last) >= STILL_MILLIS {
            self.over.store(now + AFTER_MILLIS, Ordering::Relaxed);
        }
    }

    /// Whether a request that comes now may have waited.
    pub(super) fn is_fresh_from(&self, now: Instant) -> bool {
        let now = self.millis(now);
        let is_late = now.saturating_sub(self.last.load(Ordering::Relaxed)) >= STILL_MILLIS;
        is_late || now < self.over.load(Ordering::Relaxed)
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_while_we_stood_still_is_turned_away_for_a_second() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let still = Standstill::new(start);
        for beat in [500, 1_000, 3_000, 3_500] {
            still.beat(at(beat));
            assert!(!still.is_fresh_from(at(beat + 400)), "late is not still");
        }
        assert!(still.is_fresh_from(at(60_000)), "before the first beat");
        still.beat(at(60_000));
        assert!(still.is_fresh_from(at(60_999)), "and after it");
        still.beat(at(60_500));
        assert!(!still.is_fresh_from(at(61_000)));
    }
}
