//! What a client may be told, given what has happened to servers and databases of late: what is right, or was within two intervals.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// For what is under way on a machine that has more to do.
const SLACK: Duration = Duration::from_secs(6);

/// Whether somebody is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    There,
    Gone,
    /// It starts, or is out of reach: both are right.
    Unsure,
}

/// The history of every party.
pub struct Judge {
    interval: Duration,
    histories: BTreeMap<&'static str, Vec<(Instant, Presence)>>,
    /// When a database was started again last: what it knows of its own, it holds for an interval at least.
    restarted: Option<Instant>,
}

impl Judge {
    pub fn new(interval: Duration) -> Self {
        Self { interval, histories: BTreeMap::new(), restarted: None }
    }

    pub fn note(&mut self, party: &'static str, presence: Presence) {
        self.histories.entry(party).or_default().push((Instant::now(), presence));
    }

    pub fn note_restart(&mut self) {
        self.restarted = Some(Instant::now());
    }

    /// How old an answer may be: two intervals; an entry that a database restores from its disk lives for one more, so that its owner
    /// has the time to find it.
    pub fn age_max(&self) -> Duration {
        let is_after_restart = self.restarted.is_some_and(|at| at.elapsed() <= self.interval * 4);
        self.interval * if is_after_restart { 3 } else { 2 } + SLACK
    }

    /// What a party may have been within the age of an answer: there, and gone.
    fn was(&self, asked: Instant, party: &str) -> (bool, bool) {
        let (now, oldest) = (Instant::now(), asked.checked_sub(self.age_max()).unwrap_or(asked));
        let (mut there, mut gone) = (false, false);
        let history = self.histories.get(party).map(Vec::as_slice).unwrap_or_default();
        for (at, (_, presence)) in history.iter().enumerate() {
            let until = history.get(at + 1).map_or(now, |(next, _)| *next);
            if until >= oldest {
                there |= *presence != Presence::Gone;
                gone |= *presence != Presence::There;
            }
        }
        // Before its history began it was there.
        there |= history.first().is_none_or(|(from, _)| *from > oldest);
        (there, gone)
    }

    /// Whether a list is one that a client may get. `ways` are the parties that a way leads through, its server last; the first way
    /// whose parties are all there is the right one.
    pub fn allows(&self, asked: Instant, ways: &[&[&str]], any: bool, list: &[&str]) -> bool {
        let is_there = |way: &[&str]| way.iter().all(|party| self.was(asked, party).0);
        let is_gone = |way: &&[&str]| way.iter().any(|party| self.was(asked, party).1);
        match list {
            // Behind a database without a peer there is nobody to ask.
            [] => ways.iter().all(is_gone) || (!any && ways.iter().any(|way| way.len() > 1 && is_gone(way))),
            [one] => ways
                .iter()
                .enumerate()
                .any(|(at, way)| way.last() == Some(one) && is_there(way) && (any || ways[..at].iter().all(is_gone))),
            _ => false,
        }
    }

    /// Since when somebody has been away for good.
    pub fn gone_since(&self, party: &str) -> Option<Instant> {
        self.histories.get(party)?.last().filter(|(_, presence)| *presence == Presence::Gone).map(|(since, _)| *since)
    }
}
