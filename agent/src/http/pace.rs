//! How long a connection may stand where it stands: a header has its time, and the whole has, whatever happens on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::content::Content;
use super::places::Place;
use super::server::Answer;

/// Time to send the header of a request, waiting between two requests included.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Time of a connection, whatever happens on it.
const CONNECTION_TIME: Duration = Duration::from_mins(1);
/// Time beyond that for an answer in parts: a whole database to a peer far away. Strangers get none.
const LONG_ANSWER_TIME: Duration = Duration::from_mins(10);

/// Where a connection stands, and how long it may stand there.
#[derive(Debug)]
pub(super) struct Pace {
    place: Place,
    begun: Instant,
    /// When the header of a request has to be there, in nanoseconds since it begun; [`NO_HEADER`] while we wait for none.
    header_by: AtomicU64,
    /// An answer in parts is under way.
    is_long: AtomicBool,
}

const NO_HEADER: u64 = u64::MAX;

/// When a connection ends, whatever happens on it.
#[derive(Debug)]
pub(super) struct End {
    at: Instant,
    is_put_off: bool,
}

impl Pace {
    /// A connection that begins, and the header of whose first request is waited for.
    pub(super) fn new(place: Place, now: Instant) -> Self {
        let (header_by, is_long) = (AtomicU64::new(NO_HEADER), AtomicBool::new(false));
        let new = Self { place, begun: now, header_by, is_long };
        new.expect_header(now);
        new
    }

    /// Who has the place.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// When it ends.
    pub(super) fn end(&self) -> End {
        End { at: self.begun + CONNECTION_TIME, is_put_off: false }
    }

    /// When to look for the first time.
    pub(super) fn first_look(&self) -> Instant {
        self.begun + HEADER_TIME
    }

    /// From now on a header is waited for.
    pub(super) fn expect_header(&self, now: Instant) {
        let by = (now + HEADER_TIME).saturating_duration_since(self.begun);
        self.header_by.store(u64::try_from(by.as_nanos()).unwrap_or(NO_HEADER), Ordering::Relaxed);
    }

    /// From now on no header is waited for.
    pub(super) fn has_header(&self) {
        self.header_by.store(NO_HEADER, Ordering::Relaxed);
    }

    /// An answer is made. Whatever comes next is up to the other side, unless it is a long one.
    pub(super) fn answered(self: &Arc<Self>, answer: &mut Answer, now: Instant) {
        let is_long = if let Content::Parts(_, sending) = answer.body_mut() {
            *sending = Some(Sending(self.clone()));
            true
        } else {
            false
        };
        self.is_long.store(is_long, Ordering::Relaxed);
        if is_long {
            self.place.busy();
            self.has_header();
        } else {
            self.place.waiting(now);
            self.expect_header(now);
        }
    }

    /// When to look again; `None` when time is up. A header that we begin to wait for later has more time than until then.
    pub(super) fn look(&self, end: &mut End, now: Instant) -> Option<Instant> {
        if now >= end.at {
            if end.is_put_off || !self.is_long.load(Ordering::Relaxed) {
                return None;
            }
            *end = End { at: now + LONG_ANSWER_TIME, is_put_off: true };
        }
        let header_by = match self.header_by.load(Ordering::Relaxed) {
            NO_HEADER => now + HEADER_TIME,
            nanos => self.begun + Duration::from_nanos(nanos),
        };
        (now < header_by).then(|| header_by.min(end.at))
    }
}

/// An answer in parts that is being sent; at its end the next header is waited for.
#[derive(Debug)]
pub(crate) struct Sending(Arc<Pace>);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.expect_header(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::super::places::Places;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_header_has_ten_seconds_and_nobody_is_cut_off_while_his_answer_is_made_or_sent() {
        let entered = Arc::new(Places::default()).enter([192, 0, 2, 1].into()).await.unwrap();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let pace = Arc::new(Pace::new(entered, start));
        let mut end = pace.end();
        assert_eq!(pace.look(&mut end, at(5)), Some(at(10)));
        assert_eq!(pace.look(&mut end, at(10)), None, "no header came");
        pace.has_header();
        assert_eq!(pace.look(&mut end, at(10)), Some(at(20)), "what is waited for next has as much time");
        pace.answered(&mut Answer::default(), at(12));
        assert_eq!(pace.look(&mut end, at(20)), Some(at(22)));
        assert_eq!(pace.look(&mut end, at(22)), None);
        let (_parts, receiver) = mpsc::channel(1);
        let mut long = Answer::new(Content::Parts(receiver, None));
        pace.answered(&mut long, at(21));
        assert_eq!(pace.look(&mut end, at(55)), Some(at(60)));
        assert_eq!(pace.look(&mut end, at(60)), Some(at(70)), "a long answer puts the end off");
        assert_eq!(pace.look(&mut end, at(655)), Some(at(660)));
        assert_eq!(pace.look(&mut end, at(660)), None, "once");
        // At the start, where this clock stands.
        drop(long);
        assert_eq!(pace.look(&mut end, at(9)), Some(at(10)), "it is sent, and the next header is waited for");
    }
}
