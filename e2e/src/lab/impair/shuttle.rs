//! The thread that carries frames between the two ends of an impaired link.

use super::frame;
use super::journal::{Counts, Journal, Passage};
use super::model::{Fate, Impairment, Model};
use anyhow::{Context, Result};
use castgate_udp::tap::Tap;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Larger than any frame of an interface with the usual MTU.
const FRAME_LEN_MAX: usize = 2_048;
/// Frames read from one end before due ones are written: a burst must not delay those whose time has come.
const BURST: usize = 64;

/// A direction, seen from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the host to its LAN.
    Up,
    /// From the LAN to the host.
    Down,
}

/// An impaired link that is up. Dropping it takes it down.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    models: [Mutex<Model>; 2],
    journal: Mutex<Journal>,
}

/// A frame on its way. Frames of the same time keep their order.
type OnTheWay = Reverse<(Instant, u64, usize, Box<[u8]>)>;

impl Way {
    pub(super) fn index(self) -> usize {
        match self {
            Self::Up => 0,
            Self::Down => 1,
        }
    }

    fn from_index(index: usize) -> Self {
        if index == 0 { Self::Up } else { Self::Down }
    }
}

impl Link {
    /// Starts to carry frames between the two ends.
    ///
    /// # Errors
    /// When the kernel refuses the thread or its stop signal.
    pub fn start(host_end: Tap, lan_end: Tap, impairment: &Impairment) -> Result<Self> {
        let models = [Way::Up, Way::Down].map(|way| Mutex::new(model(impairment, way)));
        let shared = Arc::new(Shared { models, journal: Mutex::default() });
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).context("the link has no stop signal")?);
        let carrier = Carrier { ends: [host_end, lan_end], shared: shared.clone(), stop: stop.clone() };
        let thread = std::thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || carrier.run())
            .context("the link has no thread")?;
        Ok(Self { shared, stop, thread: Some(thread) })
    }

    /// Changes what happens to frames that enter from now on, in both directions. The dice start again.
    pub fn set(&self, impairment: &Impairment) {
        self.set_way(Way::Up, impairment);
        self.set_way(Way::Down, impairment);
    }

    /// Changes one direction alone.
    pub fn set_way(&self, way: Way, impairment: &Impairment) {
        *lock(&self.shared.models[way.index()]) = model(impairment, way);
    }

    /// What one direction did so far.
    #[must_use]
    pub fn counts(&self, way: Way) -> Counts {
        lock(&self.shared.journal).counts[way.index()]
    }

    /// Asks the journal: every UDP datagram for which `pick` gives something, in the order in which they entered.
    pub fn pick<T>(&self, pick: impl FnMut(&Passage) -> Option<T>) -> Vec<T> {
        lock(&self.shared.journal).passages.iter().filter_map(pick).collect()
    }

    /// Forgets what was counted and kept.
    pub fn reset(&self) {
        *lock(&self.shared.journal) = Journal::default();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        rustix::io::write(&*self.stop, &1_u64.to_ne_bytes()).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

struct Carrier {
    /// The host's and the LAN's, as in [`Way::index`].
    ends: [Tap; 2],
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
}

impl Carrier {
    fn run(self) {
        let mut on_the_way: BinaryHeap<OnTheWay> = BinaryHeap::new();
        let mut order = 0;
        let mut buffer = [0; FRAME_LEN_MAX];
        loop {
            let wait = on_the_way.peek().map(|Reverse((due, ..))| due.saturating_duration_since(Instant::now()));
            let Some(ready) = self.wait(wait) else { return };
            for (from, _) in ready.into_iter().enumerate().filter(|(_, ready)| *ready) {
                for _ in 0..BURST {
                    let Ok(len) = self.ends[from].read(&mut buffer) else { break };
                    self.enter(from, &buffer[..len], &mut order, &mut on_the_way);
                }
            }
            while on_the_way.peek().is_some_and(|Reverse((due, ..))| *due <= Instant::now()) {
                let Some(Reverse((_, _, from, frame))) = on_the_way.pop() else { break };
                self.deliver(from, &frame);
            }
        }
    }

    /// Which ends have frames; `None` when the link shall end.
    fn wait(&self, longest: Option<Duration>) -> Option<[bool; 2]> {
        let [host, lan] = &self.ends;
        let mut fds = [
            PollFd::new(host, PollFlags::IN),
            PollFd::new(lan, PollFlags::IN),
            PollFd::new(&*self.stop, PollFlags::IN),
        ];
        let timeout = longest.map(|longest| Timespec {
            tv_sec: i64::try_from(longest.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(longest.subsec_nanos()),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
        let [host, lan, stop] = fds.map(|fd| fd.revents());
        (!stop.contains(PollFlags::IN)).then_some([host.contains(PollFlags::IN), lan.contains(PollFlags::IN)])
    }

    fn enter(&self, from: usize, frame: &[u8], order: &mut u64, on_the_way: &mut BinaryHeap<OnTheWay>) {
        let now = Instant::now();
        if frame::is_arp(frame) {
            self.ends[1 - from].write(frame).ok();
            return;
        }
        let is_udp = frame::udp(frame).is_some();
        let fate = lock(&self.shared.models[from]).handle(now, frame.len(), is_udp);
        lock(&self.shared.journal).note(now, Way::from_index(from), fate, frame, is_udp);
        let Fate::Passes(due, again) = fate else { return };
        for due in [Some(due), again].into_iter().flatten() {
            *order += 1;
            on_the_way.push(Reverse((due, *order, from, frame.into())));
        }
    }

    fn deliver(&self, from: usize, frame: &[u8]) {
        let written = self.ends[1 - from].write(frame);
        let counts = &mut lock(&self.shared.journal).counts[from];
        match written {
            Ok(_) => counts.delivered += 1,
            Err(_) => counts.refused += 1,
        }
    }
}

fn model(impairment: &Impairment, way: Way) -> Model {
    Model::new(impairment.clone(), way.index() as u64)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("the link's thread does not panic with the journal in its hand")
}
