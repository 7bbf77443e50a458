//! What a client may be told, given what has happened to the servers of late.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// For what is under way.
const SLACK: Duration = Duration::from_secs(15);

/// Whether a server is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    There,
    Gone,
    /// It starts, or is out of reach: both are right.
    Unsure,
}

/// A client: where it is, what country it says, and the servers for it, the nearest first. `any`: one of those that are there.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    pub address: &'static str,
    pub country: Option<&'static str>,
    pub servers: &'static [&'static str],
    pub any: bool,
}

pub const POSITIONS: &[Position] = &[
    position("160.0.0.1", Some("JP"), &["public"]),
    position("133.0.0.1", None, &["public"]),
    position("150.0.1.1", Some("SE"), &["public"]),
    Position { any: true, ..position("150.0.0.1", Some("NL"), &["beserver", "frserver"]) },
    position("133.0.0.1", Some("BE"), &["beserver"]),
    position("133.1.0.1", Some("FR"), &["frserver"]),
    position("135.0.5.5", Some("BE"), &["ispserver"]),
    position("135.0.5.5", Some("FR"), &["frserver"]),
    position("134.184.50.7", Some("BE"), &["corpserver", "campus"]),
    position("134.184.7.7", Some("BE"), &["campus"]),
    position("151.0.0.1", Some("BE"), &["nated", "beserver"]),
];

const fn position(address: &'static str, country: Option<&'static str>, servers: &'static [&'static str]) -> Position {
    Position { address, country, servers, any: false }
}

/// The history of every server.
pub struct Judge {
    interval: Duration,
    histories: BTreeMap<&'static str, Vec<(Instant, Presence)>>,
    /// When a database was started again last: what it knows of its own, it holds for an interval at least.
    restarted: Option<Instant>,
    /// When a process went on last that had stood still, and for how long: what it had received by then it takes for new.
    thawed: Option<(Instant, Duration)>,
}

impl Judge {
    pub fn new(interval: Duration) -> Self {
        Self { interval, histories: BTreeMap::new(), restarted: None, thawed: None }
    }

    pub fn note(&mut self, now: Instant, server: &'static str, presence: Presence) {
        self.histories.entry(server).or_default().push((now, presence));
    }

    pub fn note_restart(&mut self, now: Instant) {
        self.restarted = Some(now);
    }

    pub fn note_thaw(&mut self, now: Instant, frozen: Duration) {
        self.thawed = Some((now, frozen));
    }

    /// How old an answer may be: two intervals; an entry that a database restores from its disk lives for one more, so that its owner has
    /// the time to find it.
    pub fn age_max(&self, now: Instant) -> Duration {
        let is_after_restart = self.restarted.is_some_and(|at| now - at <= self.interval * 3);
        let thawed = self.thawed.filter(|(at, _)| now - *at <= self.interval * 3);
        self.interval * if is_after_restart { 3 } else { 2 } + thawed.map_or(SLACK, |(_, frozen)| SLACK + frozen)
    }

    /// What the server may have been within the age of an answer: there, and gone.
    fn was(&self, asked: Instant, now: Instant, server: &str) -> (bool, bool) {
        let oldest = asked.checked_sub(self.age_max(now)).unwrap_or(asked);
        let (mut there, mut gone) = (false, false);
        let history = self.histories.get(server).map(Vec::as_slice).unwrap_or_default();
        for (at, (from, presence)) in history.iter().enumerate() {
            let until = history.get(at + 1).map_or(now, |(next, _)| *next);
            if until >= oldest && *from <= now {
                there |= *presence != Presence::Gone;
                gone |= *presence != Presence::There;
            }
        }
        // Before its history began it was there.
        there |= history.first().is_none_or(|(from, _)| *from > oldest);
        (there, gone)
    }

    /// Whether a list was right at a moment that is not too old.
    pub fn allows(&self, asked: Instant, now: Instant, position: &Position, list: &[&str]) -> bool {
        match list {
            [] => position.servers.iter().all(|server| self.was(asked, now, server).1),
            [one] => {
                let Some(at) = position.servers.iter().position(|server| server == one) else { return false };
                let is_nearest = || position.servers[..at].iter().all(|nearer| self.was(asked, now, nearer).1);
                self.was(asked, now, one).0 && (position.any || is_nearest())
            }
            _ => false,
        }
    }

    /// Since when a server has been away for good.
    pub fn gone_since(&self, server: &str) -> Option<Instant> {
        self.histories.get(server)?.last().filter(|(_, presence)| *presence == Presence::Gone).map(|(since, _)| *since)
    }
}

/// Entries that said BYE, and databases that have not had them since.
#[derive(Default)]
pub struct Audit {
    /// Per database with its process, and server.
    without: BTreeMap<(usize, u64, SocketAddr), Instant>,
}

impl Audit {
    /// The server is back.
    pub fn returned(&mut self, server: SocketAddr) {
        self.without.retain(|(_, _, other), _| *other != server);
    }

    /// Looks at one database while a server is away that said BYE.
    pub fn look(&mut self, now: Instant, (database, process): (usize, u64), server: SocketAddr, is_held: bool) -> bool {
        let key = (database, process, server);
        if !is_held {
            self.without.entry(key).or_insert(now);
        }
        !(is_held && self.without.contains_key(&key))
    }
}
