//! The search for one network: its walks, and what the last one found.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use castgate_wire::registry::{EntryType, Prefix, Register};

use super::News;
use super::words::QuestionId;
use crate::hierarchy::address::{DatabaseAddress, Place};
use crate::hierarchy::discovery::{Found, Member, PathStep, Role, Subject, Walk};
use crate::hierarchy::lot::Lot;
use crate::hierarchy::registrar::pair::{RETRY_MAX, backoff, jittered};
use crate::hierarchy::registrar::words::Config;

/// The parents are asked again at every update of this number (castgate UMTP notes).
const UPDATES_PER_WALK: u32 = 4;
/// A parent that its own parents do not name any more is left after so many updates. A walk proves little, and two in a row no more:
/// who lost his memory, or was cut off, and names nobody gets it back within an interval or two.
const MISSED_UPDATES: u32 = 3;

/// The state of one search.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) subject: Subject,
    pub(super) phase: Phase,
    pub(super) found: Option<Whereabouts>,
    /// Of the walks since the last one that came to an end.
    pub(super) failures: u32,
    /// Walks in a row that led to the same parents, who refuse us.
    refusals: u32,
    /// Whether the last walk is one of them.
    is_refused: bool,
    /// Another network of the entry leads to a new parent: this one may do so as well, and is waited for, since a REGISTER says all that
    /// the parent gets.
    pub(super) is_rushed: bool,
    pub(super) error: Option<String>,
    /// How often the parents want to hear from us.
    interval: Duration,
}

#[derive(Debug)]
pub(super) enum Phase {
    Idle { at: Instant },
    Walking { walk: Box<Walk>, question: Option<QuestionId> },
}

/// What the last walk found.
#[derive(Debug)]
pub(super) struct Whereabouts {
    walked_at: Instant,
    /// The path above those that we register with.
    pub(super) above: Vec<PathStep>,
    pub(super) parents: Vec<Known>,
    pub(super) peers: Vec<DatabaseAddress>,
    /// It was announced once: a peer that comes later is one that takes over from us.
    pub(super) is_admitted: bool,
}

/// What is different since the walk before.
pub(super) struct Taken {
    /// Parents that are found for the first time.
    pub(super) news: Vec<Member>,
    /// Parents that are left.
    pub(super) left: Vec<SocketAddr>,
}

#[derive(Debug)]
pub(super) struct Known {
    pub(super) member: Member,
    /// Since when walks do not find it.
    missed_since: Option<Instant>,
}

/// What came of a REGISTER for a search.
pub(super) enum Noted {
    /// The parents are those of before.
    Nothing,
    /// A parent is left: where it is one that does not answer, by all networks of the entry together.
    Left(Option<SocketAddr>),
}

impl Search {
    pub(super) fn new(subject: Subject, interval: Duration, now: Instant) -> Self {
        Self {
            subject,
            phase: Phase::Idle { at: now },
            found: None,
            failures: 0,
            refusals: 0,
            is_refused: false,
            is_rushed: false,
            error: None,
            interval,
        }
    }

    /// Whether an entry has the network of this search.
    pub(super) fn is_of(&self, entry: &Register) -> bool {
        is_subject_of(&self.subject, entry)
    }

    /// Takes in the end of a walk.
    pub(super) fn take(&mut self, Found { path, decision, hops: _ }: Found, lot: &mut Lot, now: Instant) -> Taken {
        let found = self.found.take();
        let is_admitted = found.as_ref().is_some_and(|found| found.is_admitted);
        let is_known = |member: &Member| {
            let known = found.iter().flat_map(|found| &found.parents);
            known.into_iter().any(|known| address(&known.member) == address(member))
        };
        let mut news: Vec<Member> = decision.register.iter().filter(|member| !is_known(member)).cloned().collect();
        if !news.is_empty() {
            // One step further: the next one may follow at once.
            self.refusals = 0;
        }
        if found.is_none() {
            // The first time all are waited for anyway.
            news.clear();
        }
        self.is_refused = false;
        let mut parents: Vec<Known> =
            decision.register.into_iter().map(|member| Known { member, missed_since: None }).collect();
        let mut left = Vec::new();
        for mut known in found.into_iter().flat_map(|found| found.parents) {
            let is_found = parents.iter().any(|other| address(&other.member) == address(&known.member));
            let is_gone = known.is_gone(self.interval, now);
            known.missed_since.get_or_insert(now);
            // Where nothing was registered yet there is nothing to stay for.
            if !is_found && is_admitted && !is_gone {
                parents.push(known);
            } else if !is_found {
                left.push(known.member.address);
            }
        }
        let mut above = path;
        above.truncate(decision.step);
        let peers = decision.transfer.iter().map(address).collect();
        self.found = Some(Whereabouts { walked_at: now, above, parents, peers, is_admitted });
        self.failures = 0;
        self.error = None;
        self.phase = Phase::Idle { at: now + jittered(lot, self.interval.saturating_mul(UPDATES_PER_WALK)) };
        Taken { news, left }
    }

    /// Takes in what came of a REGISTER at a parent that may be one of ours.
    pub(super) fn note(
        &mut self,
        parent: &DatabaseAddress,
        news: News,
        config: Config,
        lot: &mut Lot,
        now: Instant,
    ) -> Noted {
        let Some(found) = &mut self.found else { return Noted::Nothing };
        let Some(at) = found.parents.iter().position(|known| address(&known.member) == *parent) else {
            return Noted::Nothing;
        };
        if matches!(news, News::Accepted { is_back: true, .. })
            && let Some(since) = &mut found.parents[at].missed_since
        {
            // It was cut off, and those above it learn only now that it is back.
            *since = now;
        }
        match news {
            News::Accepted { interval, .. } if interval != self.interval => {
                self.interval = interval;
                if let Phase::Idle { at } = &mut self.phase {
                    *at = found.walked_at + jittered(lot, interval.saturating_mul(UPDATES_PER_WALK));
                }
            }
            // Its own parents do not name it any more: we belong somewhere else, or it is gone for good.
            News::Refused if found.parents[at].missed_since.is_some() => {
                found.parents.remove(at);
                return Noted::Left(None);
            }
            News::Unreachable if found.parents[at].is_gone(self.interval, now) => {
                return Noted::Left(Some(found.parents.remove(at).member.address));
            }
            News::Accepted { .. } => self.refusals = 0,
            // Perhaps we belong somewhere else: whoever was to name our parents did not know them yet.
            News::Refused => {
                if let Phase::Idle { at } = &mut self.phase
                    && !std::mem::replace(&mut self.is_refused, true)
                {
                    *at = (*at).min(now + backoff(config.retry, self.refusals));
                    self.refusals = self.refusals.saturating_add(1);
                }
            }
            // There may be another one in its place.
            News::Unreachable => {
                if let Phase::Idle { at } = &mut self.phase {
                    *at = (*at).min(now + RETRY_MAX);
                }
            }
        }
        Noted::Nothing
    }

    /// Leaves those of these parents that it misses.
    pub(super) fn leave(&mut self, left: &[SocketAddr]) {
        if let Some(found) = &mut self.found {
            let is_left = |known: &Known| known.missed_since.is_some() && left.contains(&known.member.address);
            found.parents.retain(|known| !is_left(known));
        }
    }
}

impl Whereabouts {
    pub(super) fn has_parent(&self, member: &Member) -> bool {
        self.parents.iter().any(|known| known.member.address == member.address)
    }
}

pub(super) fn is_subject_of(subject: &Subject, entry: &Register) -> bool {
    let Subject { entry_type, range, country, .. } = subject;
    (entry.entry_type, entry.country) == (*entry_type, *country) && ranges(entry).any(|own| own == *range)
}

impl Known {
    fn is_gone(&self, interval: Duration, now: Instant) -> bool {
        self.missed_since.is_some_and(|since| now.saturating_duration_since(since) >= interval * MISSED_UPDATES)
    }
}

/// What has to be searched for these entries; the same may be there several times.
#[must_use]
pub fn subjects(entries: &[Register], role: Role) -> Vec<Subject> {
    let databases = entries.iter().filter(|entry| entry.entry_type == EntryType::TunnelDatabase);
    let own: Vec<SocketAddr> = databases.map(|entry| SocketAddr::new(entry.source, entry.port)).collect();
    let subject = |entry: &Register, range| Subject {
        entry_type: entry.entry_type,
        range,
        country: entry.country,
        own: own.clone(),
        role,
    };
    entries.iter().flat_map(|entry| ranges(entry).map(|range| subject(entry, range)).collect::<Vec<_>>()).collect()
}

/// The ranges that an entry is searched for; `None` where it has no network, or the one of everybody.
fn ranges(entry: &Register) -> impl Iterator<Item = Option<Prefix>> {
    let none = entry.networks.is_empty().then_some(None);
    entry.networks.iter().map(|network| specific(*network)).chain(none)
}

pub(super) fn specific(network: Prefix) -> Option<Prefix> {
    (network.prefix_len() > 0).then(|| network.trunc())
}

/// A database that was found, as one that is named.
pub(super) fn address(member: &Member) -> DatabaseAddress {
    DatabaseAddress { scheme: member.scheme, place: Place::Socket(member.address), path: member.path.clone() }
}
