//! One search: candidates in order, attempts that overlap, and what ends it.

use super::config::{Channel, Method};
use super::output::{AttemptId, NoRelay, Output, Question, QuestionId};
use super::{Discovery, Timer};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

/// Where a candidate stands: the place of its method in the list, what its publisher says, and among equals the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Preference {
    pub(super) method: usize,
    /// Precedence of AMTRELAY, priority of SRV, or the place in a list.
    pub(super) precedence: u32,
}

/// The full order: the preference, the weight of SRV, RFC 6724, chance.
pub(super) type Order = (Preference, u64, (u8, u8), u64);

/// A relay that may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub(super) order: Order,
    pub(super) relay: SocketAddr,
    pub(super) discovery_first: bool,
    pub(super) method: Method,
    /// It is avoided for now, and tried all the same when nothing else is left.
    pub(super) is_last_resort: bool,
}

/// A question that is not answered yet.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) channel: Channel,
    pub(super) question: Question,
    pub(super) preference: Preference,
    /// The weight order of the SRV record that led here.
    pub(super) weight: u64,
    pub(super) port: u16,
    pub(super) discovery_first: bool,
    pub(super) method: Method,
    pub(super) asked_at: Instant,
}

/// A channel and where its search stands.
#[derive(Debug, Default)]
pub(super) struct Search {
    pub(super) phase: Phase,
    /// Silences in a row.
    pub(super) silences: u32,
    /// Searches without a relay in a row.
    failures: u32,
}

#[derive(Debug, Default)]
pub(super) enum Phase {
    Looking(Looking),
    #[default]
    Resting,
    Using(AttemptId),
}

/// A search that runs.
#[derive(Debug)]
pub(super) struct Looking {
    pub(super) candidates: BTreeSet<Candidate>,
    /// Whoever was a candidate once, so that nobody is tried twice.
    pub(super) known: BTreeSet<(SocketAddr, bool)>,
    pub(super) questions: BTreeSet<QuestionId>,
    running: BTreeSet<AttemptId>,
    next_attempt_at: Instant,
    pub(super) names: usize,
    /// The source has said that it has no relay.
    pub(super) has_none: bool,
}

/// A relay that is being tried, or in use.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) channel: Channel,
    /// The candidate, or what it advertised.
    pub(super) relay: SocketAddr,
    pub(super) method: Method,
    pub(super) is_chosen: bool,
}

impl Discovery {
    /// Begins a search: all questions at once.
    pub(super) fn look(&mut self, channel: Channel, now: Instant) {
        let Some(search) = self.searches.get_mut(&channel) else { return };
        self.timers.disarm(Timer::Rest(channel));
        search.phase = Phase::Looking(Looking {
            candidates: BTreeSet::new(),
            known: BTreeSet::new(),
            questions: BTreeSet::new(),
            running: BTreeSet::new(),
            next_attempt_at: now,
            names: 0,
            has_none: false,
        });
        self.ask_all(channel, now);
        self.drive(channel, now);
    }

    /// Starts what may be started now, and wakes when more may be.
    pub(super) fn drive(&mut self, channel: Channel, now: Instant) {
        loop {
            let Some(Phase::Looking(looking)) = self.searches.get_mut(&channel).map(|search| &mut search.phase) else {
                return self.timers.disarm(Timer::Drive(channel));
            };
            let Some(candidate) = looking.candidates.first().copied() else {
                self.timers.disarm(Timer::Drive(channel));
                if looking.questions.is_empty() && looking.running.is_empty() {
                    self.rest(channel, now);
                }
                return;
            };
            let questions = &self.questions;
            let better = looking.questions.iter().filter_map(|id| questions.get(id));
            let better = better.filter(|open| (open.preference, open.weight) < (candidate.order.0, candidate.order.1));
            let patient_until = better.map(|open| open.asked_at + self.config.resolution_delay).max();
            let turn_at = if looking.running.is_empty() { now } else { looking.next_attempt_at };
            let start_at = patient_until.map_or(turn_at, |until| until.max(turn_at));
            if start_at > now {
                return self.timers.arm(Timer::Drive(channel), start_at);
            }
            looking.candidates.remove(&candidate);
            if !candidate.is_last_resort && self.held.holds(now, candidate.relay, channel.source) {
                self.counters.held_down += 1;
                continue;
            }
            self.attempt(channel, candidate, now);
        }
    }

    fn attempt(&mut self, channel: Channel, candidate: Candidate, now: Instant) {
        let attempt = AttemptId(self.next_id());
        let Candidate { relay, discovery_first, method, .. } = candidate;
        if let Some(Phase::Looking(looking)) = self.searches.get_mut(&channel).map(|search| &mut search.phase) {
            looking.running.insert(attempt);
            looking.next_attempt_at = now + self.config.attempt_delay;
        }
        self.attempts.insert(attempt, Attempt { channel, relay, method, is_chosen: false });
        self.timers.arm(Timer::Attempt(attempt), now + self.config.attempt_timeout);
        self.counters.attempts += 1;
        self.outputs.push_back(Output::Try { attempt, channel, relay, discovery_first, method });
    }

    /// Drops an attempt that has not connected; the next may start at once.
    pub(super) fn give_up(&mut self, attempt: AttemptId, now: Instant) {
        let Some(channel) = self.attempts.get(&attempt).filter(|known| !known.is_chosen).map(|known| known.channel)
        else {
            return;
        };
        self.cancel(attempt);
        if let Some(Phase::Looking(looking)) = self.searches.get_mut(&channel).map(|search| &mut search.phase) {
            looking.running.remove(&attempt);
            looking.next_attempt_at = now;
        }
        self.drive(channel, now);
    }

    fn cancel(&mut self, attempt: AttemptId) {
        self.timers.disarm(Timer::Attempt(attempt));
        if self.attempts.remove(&attempt).is_some() {
            self.outputs.push_back(Output::Cancel { attempt });
        }
    }

    /// Ends a search: its questions are forgotten, its attempts dropped but for the winner.
    pub(super) fn end_race(&mut self, channel: Channel, winner: Option<AttemptId>) {
        self.timers.disarm(Timer::Drive(channel));
        self.timers.disarm(Timer::Rest(channel));
        let Some(search) = self.searches.get_mut(&channel) else { return };
        let looking = match std::mem::take(&mut search.phase) {
            Phase::Looking(looking) => looking,
            other @ (Phase::Resting | Phase::Using(_)) => {
                search.phase = other;
                return;
            }
        };
        for id in looking.questions {
            self.questions.remove(&id);
            self.timers.disarm(Timer::Question(id));
        }
        self.queue.retain(|id| self.questions.contains_key(id));
        for attempt in looking.running.into_iter().filter(|attempt| Some(*attempt) != winner) {
            self.cancel(attempt);
        }
    }

    /// The channel is joined through this connection.
    pub(super) fn settle_on(&mut self, channel: Channel, attempt: AttemptId) {
        let Some(Attempt { relay, method, .. }) = self.attempts.get(&attempt) else { return };
        let (relay, method) = (*relay, *method);
        if let Some(search) = self.searches.get_mut(&channel) {
            search.phase = Phase::Using(attempt);
            search.failures = 0;
        }
        self.outputs.push_back(Output::Use { channel, attempt, relay, method });
    }

    /// Takes a channel off whatever it is at; a connection without a channel is dropped.
    pub(super) fn stop(&mut self, channel: Channel) {
        self.end_race(channel, None);
        let Some(search) = self.searches.get_mut(&channel) else { return };
        let Phase::Using(attempt) = std::mem::take(&mut search.phase) else { return };
        self.outputs.push_back(Output::Release { channel, attempt });
        let is_used =
            self.searches.values().any(|search| matches!(search.phase, Phase::Using(used) if used == attempt));
        if !is_used {
            self.cancel(attempt);
        }
    }

    /// Nothing has connected.
    fn rest(&mut self, channel: Channel, now: Instant) {
        let Some(search) = self.searches.get_mut(&channel) else { return };
        let reason = match &search.phase {
            Phase::Looking(looking) if !looking.known.is_empty() => NoRelay::NotConnected,
            Phase::Looking(looking) if looking.has_none => NoRelay::NoneForSource,
            Phase::Looking(_) | Phase::Resting | Phase::Using(_) => NoRelay::NotFound,
        };
        search.phase = Phase::Resting;
        let wait = self.random.back_off(self.config.retry_initial, self.config.retry_max, search.failures);
        search.failures = search.failures.saturating_add(1);
        let retry_at = now + wait;
        self.counters.failures += 1;
        self.timers.arm(Timer::Rest(channel), retry_at);
        self.outputs.push_back(Output::NoRelay { channel, reason, retry_at });
    }
}
