//! What a link did, for tests to ask.

use super::frame::{self, Udp};
use super::model::Fate;
use super::shuttle::Way;
use std::time::Instant;

/// Octets of a frame that are kept: enough for a whole datagram of the tests, and a bound on memory.
const KEPT_OCTETS: usize = 1_600;
/// Frames that are kept; later ones are counted only. A test of 20 s at 5 000 datagrams/s stays below.
const KEPT_FRAMES: usize = 200_000;

/// One UDP datagram that entered a link, and what became of it.
#[derive(Debug, Clone)]
pub struct Passage {
    /// When it entered.
    pub at: Instant,
    /// Which way it went.
    pub way: Way,
    /// What became of it.
    pub fate: Fate,
    frame: Box<[u8]>,
}

/// Frames of one direction, ARP not counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Entered the link.
    pub entered: u64,
    /// Dropped by the dice.
    pub dropped: u64,
    /// Dropped because the queue before the rate limit was full.
    pub queue_full: u64,
    /// Sent on twice.
    pub duplicated: u64,
    /// Written to the far end, duplicates included.
    pub delivered: u64,
    /// Refused by the far end's kernel: never expected, and never silent.
    pub refused: u64,
}

/// Everything a link did.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) counts: [Counts; 2],
    pub(super) passages: Vec<Passage>,
}

impl Passage {
    /// The datagram.
    #[must_use]
    pub fn udp(&self) -> Option<Udp<'_>> {
        frame::udp(&self.frame)
    }

    /// Whether it never arrived.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self.fate, Fate::Dropped | Fate::QueueFull)
    }
}

impl Journal {
    pub(super) fn note(&mut self, at: Instant, way: Way, fate: Fate, frame: &[u8], is_udp: bool) {
        let counts = &mut self.counts[way.index()];
        counts.entered += 1;
        match fate {
            Fate::Dropped => counts.dropped += 1,
            Fate::QueueFull => counts.queue_full += 1,
            Fate::Passes(_, None) => {}
            Fate::Passes(_, Some(_)) => counts.duplicated += 1,
        }
        if is_udp && self.passages.len() < KEPT_FRAMES {
            let frame = frame[..frame.len().min(KEPT_OCTETS)].into();
            self.passages.push(Passage { at, way, fate, frame });
        }
    }
}
