//! Not more than so many questions in any window of time (RFC 8777 §3.2.2).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// When the last questions were asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Throttle {
    asked: VecDeque<Instant>,
}

impl Throttle {
    /// Takes a question as asked at `now`, or says when there is room for one.
    pub(super) fn admit(&mut self, now: Instant, window: Duration, limit: usize) -> Result<(), Instant> {
        let limit = limit.max(1);
        while self.asked.front().is_some_and(|asked_at| *asked_at + window <= now) {
            self.asked.pop_front();
        }
        if self.asked.len() >= limit {
            let oldest = self.asked[self.asked.len() - limit];
            return Err(oldest + window);
        }
        self.asked.push_back(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_window_has_more_than_ten_questions() {
        let start = Instant::now();
        let window = Duration::from_millis(100);
        let mut throttle = Throttle::default();
        let mut asked = Vec::new();
        for millis in 0..1_000 {
            let now = start + Duration::from_millis(millis);
            match throttle.admit(now, window, 10) {
                Ok(()) => asked.push(now),
                Err(at) => assert!(at > now),
            }
        }
        assert_eq!(asked.len(), 100);
        assert!(asked.windows(11).all(|eleven| eleven[10] - eleven[0] >= window));
    }
}
