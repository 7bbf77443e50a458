//! Who has a place among the connections, and who gives his up when all are taken.
//!
//! A stranger may open connections and say nothing, or a little at a time: he keeps his places for as long as nobody else wants
//! them. When the last one is taken, whoever has kept us waiting longest goes. Somebody whose request is being answered stays.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Connections at one time.
pub(super) const CONNECTIONS_MAX: usize = 1024;
/// Connections of one address at one time: a NAT in front of many, but not all of the above.
pub(super) const CONNECTIONS_PER_SOURCE_MAX: usize = 128;

/// A request of this connection is being answered.
const BUSY: u64 = 0;

/// The places.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    taken: Mutex<Taken>,
    origin: Instant,
}

/// Bounded by the number of places.
#[derive(Debug, Default)]
struct Taken {
    places: HashMap<u64, Arc<Shared>>,
    by_source: HashMap<IpAddr, usize>,
    next: u64,
}

/// What a connection says of itself.
#[derive(Debug)]
struct Shared {
    /// [`BUSY`], or since when we wait for it, in milliseconds from the origin.
    waiting_since: AtomicU64,
    leave: Notify,
    /// Nobody else wants the place: all are to go.
    is_over: AtomicBool,
}

/// How somebody is to leave his place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// Somebody else shall have it.
    AtOnce,
    /// When he has the answer that is being made.
    Answered,
}

/// One place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    source: IpAddr,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Default for Places {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(CONNECTIONS_MAX)), taken: Mutex::default(), origin: Instant::now() }
    }
}

impl Places {
    /// A place for a connection of `source`, as soon as there is one; `None` when that address has all it may.
    pub(super) async fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let is_full = self.lock().by_source.get(&source).is_some_and(|count| *count >= CONNECTIONS_PER_SOURCE_MAX);
        if is_full {
            return None;
        }
        let permit = if let Ok(permit) = self.free.clone().try_acquire_owned() {
            permit
        } else {
            self.send_away();
            self.free.clone().acquire_owned().await.expect("nobody closes the semaphore")
        };
        let shared = Arc::new(Shared {
            waiting_since: AtomicU64::new(self.millis(Instant::now())),
            leave: Notify::new(),
            is_over: AtomicBool::new(false),
        });
        let mut taken = self.lock();
        let number = taken.next;
        taken.next += 1;
        taken.places.insert(number, shared.clone());
        *taken.by_source.entry(source).or_default() += 1;
        drop(taken);
        Some(Place { places: self.clone(), number, source, shared, _permit: permit })
    }

    /// Tells whoever has kept us waiting longest.
    fn send_away(&self) {
        let taken = self.lock();
        let waiting = taken.places.values().map(|place| (place.waiting_since.load(Ordering::Relaxed), place));
        if let Some((_, place)) = waiting.filter(|(since, _)| *since != BUSY).min_by_key(|(since, _)| *since) {
            // Nobody is told twice: he is on his way out.
            place.waiting_since.store(BUSY, Ordering::Relaxed);
            place.leave.notify_one();
        }
    }

    /// Tells all: nobody is waited for any more.
    pub(super) fn send_all_away(&self) {
        for place in self.lock().places.values() {
            place.is_over.store(true, Ordering::Release);
            place.leave.notify_one();
        }
    }

    /// Never [`BUSY`].
    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // What is inside is whole between any two statements that can panic.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A request is there, whole: it will be answered.
    pub(super) fn busy(&self) {
        self.shared.waiting_since.store(BUSY, Ordering::Relaxed);
    }

    /// Whatever comes next is up to the other side.
    pub(super) fn waiting(&self, now: Instant) {
        self.shared.waiting_since.store(self.places.millis(now), Ordering::Relaxed);
    }

    /// Waits until somebody else shall have the place, or all are to go.
    pub(super) async fn leave(&self) -> Leave {
        self.shared.leave.notified().await;
        if self.shared.is_over.load(Ordering::Acquire) { Leave::Answered } else { Leave::AtOnce }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.places.remove(&self.number);
        if let Some(count) = taken.by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                taken.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_address_does_not_take_all_places_and_gives_its_own_back() {
        let places = Arc::new(Places::default());
        let greedy = IpAddr::from([192, 0, 2, 1]);
        let mut held = Vec::new();
        while let Some(place) = places.enter(greedy).await {
            held.push(place);
        }
        assert_eq!(held.len(), CONNECTIONS_PER_SOURCE_MAX);
        assert!(places.enter(IpAddr::from([192, 0, 2, 2])).await.is_some());
        held.pop();
        assert!(places.enter(greedy).await.is_some());
        held.clear();
        let taken = places.lock();
        assert!(taken.places.is_empty() && taken.by_source.is_empty(), "nothing is remembered of those who left");
    }

    #[tokio::test]
    async fn when_all_are_taken_whoever_kept_us_waiting_longest_goes_and_nobody_who_is_answered() {
        let places = Arc::new(Places::default());
        let mut held = Vec::new();
        for number in 0..CONNECTIONS_MAX {
            let source = IpAddr::from([198, 51, 100, u8::try_from(number / CONNECTIONS_PER_SOURCE_MAX).unwrap()]);
            let place = places.enter(source).await.unwrap();
            place.shared.waiting_since.store(1_000 + number as u64, Ordering::Relaxed);
            held.push(place);
        }
        held[0].busy();
        let mut late = std::pin::pin!(places.enter(IpAddr::from([192, 0, 2, 1])));
        assert!(futures_poll(late.as_mut()).await.is_none(), "nobody is gone yet");
        let leave = tokio::time::timeout(Duration::from_secs(1), held[1].leave()).await.expect("the second is told");
        assert_eq!(leave, Leave::AtOnce);
        drop(held.remove(1));
        assert!(late.await.is_some());
        held.iter().for_each(Place::busy);
        places.send_all_away();
        for place in &held {
            let leave = tokio::time::timeout(Duration::from_secs(1), place.leave()).await;
            assert_eq!(leave, Ok(Leave::Answered), "all are told, busy or not");
        }
        let mut later = std::pin::pin!(places.enter(IpAddr::from([192, 0, 2, 1])));
        // One place is free again: the late one gave it back.
        assert!(later.as_mut().await.is_some());
    }

    /// Polls once.
    async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match future.as_mut().poll(context) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
