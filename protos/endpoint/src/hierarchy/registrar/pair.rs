//! One entry at one parent: whether it is wanted there, what is under way, and what came of the last try.

use std::time::{Duration, Instant};

use castgate_wire::registry::{Bye, Register, Request};

use super::survey::News;
use super::words::{Call, CallId, Config, Outcome, Parent, Standing, Status};
use crate::hierarchy::address::DatabaseAddress;
use crate::hierarchy::lot::Lot;

/// Longest wait between two tries.
pub(super) const RETRY_MAX: Duration = Duration::from_mins(1);
/// Whatever a parent asks for, an entry is refreshed within a day and at most once a second.
const INTERVAL_MAX: Duration = Duration::from_hours(24);
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Refreshes are spread by this share of the interval to both sides, in percent.
const JITTER_PERCENT: u64 = 10;
/// Longest sentence of a parent that is kept, in characters.
const SENTENCE_CHARS_MAX: usize = 300;
/// How long a parent that does not answer a BYE is asked again.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(30);

/// An entry that shall be at a parent.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) entry: Register,
    pub(super) parent: Parent,
    pub(super) authority: String,
    /// Why not yet.
    pub(super) held: Option<String>,
}

/// The state of one entry at one parent.
#[derive(Debug)]
pub(super) struct Pair {
    entry: Register,
    parent: Parent,
    authority: String,
    /// Why nothing is announced yet.
    held: Option<String>,
    wish: Wished,
    phase: Phase,
    /// Entry or login changed while a REGISTER was under way.
    stale: bool,
    /// A REGISTER was accepted, or its answer got lost: there may be something to take back.
    may_be_there: bool,
    standing: Standing,
    accepted_at: Option<Instant>,
    failures: u32,
    error: Option<String>,
    /// Until when a goodbye that the parent did not hear is tried again.
    goodbye_until: Option<Instant>,
}

/// Where an entry shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wished {
    There,
    /// Gone from the parent, which is told so.
    Gone,
    /// The parent does not answer, and was left because others are in its place. What may be there goes by itself: a BYE would say that
    /// the entry is off-line, and would arrive when the parent is back and was told of us by its peers.
    GivenUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle { at: Instant },
    Registering(CallId),
    Leaving(CallId),
}

/// What a pair does now.
#[derive(Debug)]
pub(super) enum Turn {
    /// Nothing yet.
    Rest,
    /// There is nothing left to do for it.
    Gone,
    /// It asks its parent.
    Call(Box<Call>),
}

impl Pair {
    pub(super) fn new(Wish { entry, parent, authority, held }: Wish, now: Instant) -> Self {
        Self {
            entry,
            parent,
            authority,
            held,
            wish: Wished::There,
            phase: Phase::Idle { at: now },
            stale: false,
            may_be_there: false,
            standing: Standing::Trying,
            accepted_at: None,
            failures: 0,
            error: None,
            goodbye_until: None,
        }
    }

    pub(super) fn entry(&self) -> &Register {
        &self.entry
    }

    pub(super) fn parent(&self) -> &DatabaseAddress {
        &self.parent.address
    }

    pub(super) fn is_of(&self, wish: &Wish) -> bool {
        same_key(&self.entry, &wish.entry) && self.parent.address == wish.parent.address
    }

    /// What is wanted of it, if anything is.
    pub(super) fn wish(&self) -> Option<Wish> {
        let Self { entry, parent, authority, held, .. } = self;
        let (entry, parent) = (entry.clone(), parent.clone());
        self.is_wanted().then(|| Wish { entry, parent, authority: authority.clone(), held: held.clone() })
    }

    /// It is wanted no more, unless it is [wanted](Self::want) again.
    pub(super) fn dismiss(&mut self) {
        self.wish = Wished::Gone;
    }

    /// Who is not wanted and did not answer is left without a BYE.
    pub(super) fn give_up_if_silent(&mut self) {
        if !self.is_wanted() && self.is_silent() {
            self.wish = Wished::GivenUp;
        }
    }

    pub(super) fn awaits(&self, id: CallId) -> bool {
        matches!(self.phase, Phase::Registering(call) | Phase::Leaving(call) if call == id)
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle { at } if !self.is_held() => Some(at),
            Phase::Idle { .. } | Phase::Registering(_) | Phase::Leaving(_) => None,
        }
    }

    pub(super) fn status(&self) -> Status<'_> {
        Status {
            entry: &self.entry,
            parent: &self.parent.address,
            standing: if self.is_wanted() { self.standing } else { Standing::Leaving },
            accepted_at: self.accepted_at,
            failures: self.failures,
            error: self.held.as_deref().filter(|_| self.is_held()).or(self.error.as_deref()),
        }
    }

    fn is_wanted(&self) -> bool {
        self.wish == Wished::There
    }

    /// Whether it did not answer when it was asked last.
    fn is_silent(&self) -> bool {
        self.standing == Standing::Trying && self.failures > 0
    }

    /// It is wanted, but not to be announced yet.
    fn is_held(&self) -> bool {
        self.is_wanted() && self.held.is_some()
    }

    pub(super) fn want(&mut self, Wish { entry, parent, authority, held }: Wish, now: Instant) {
        let came_back = std::mem::replace(&mut self.wish, Wished::There) != Wished::There;
        if came_back && self.goodbye_until.take().is_some() {
            self.phase = Phase::Idle { at: now };
        }
        // What is registered already stays so.
        self.held = held.filter(|_| self.accepted_at.is_none());
        if self.entry == entry && self.parent == parent && self.authority == authority {
            return;
        }
        self.entry = entry;
        self.parent = parent;
        self.authority = authority;
        match &mut self.phase {
            Phase::Idle { at } => *at = now,
            Phase::Registering(_) | Phase::Leaving(_) => self.stale = true,
        }
    }

    /// Starts what is due, with this number.
    pub(super) fn turn(&mut self, id: CallId, now: Instant) -> Turn {
        let Phase::Idle { at } = self.phase else { return Turn::Rest };
        // A refresh is not due yet, or the next try of a goodbye is not.
        if self.is_held() || now < at && (self.is_wanted() || self.goodbye_until.is_some()) {
            return Turn::Rest;
        }
        if self.wish == Wished::GivenUp || (!self.is_wanted() && !self.may_be_there) {
            return Turn::Gone;
        }
        let request = if self.is_wanted() {
            self.phase = Phase::Registering(id);
            Request::Register(self.entry.clone())
        } else {
            self.phase = Phase::Leaving(id);
            Request::Bye(Bye {
                source: self.entry.source,
                port: self.entry.port,
                entry_type: Some(self.entry.entry_type),
                protocol: self.entry.protocol.clone(),
                strict: false,
            })
        };
        Turn::Call(Box::new(Call { id, parent: self.parent.clone(), authority: self.authority.clone(), request }))
    }

    /// What the result of its call tells of the parent.
    pub(super) fn news(&self, outcome: &Outcome, config: Config) -> Option<News> {
        match (&self.phase, outcome) {
            (Phase::Registering(_), Outcome::Done { interval }) => {
                Some(News::Accepted { interval: interval.unwrap_or(config.interval), is_back: self.is_silent() })
            }
            (Phase::Registering(_), Outcome::Refused { retry_after: None, .. }) => Some(News::Refused),
            (Phase::Registering(_), Outcome::Unreachable { .. }) => Some(News::Unreachable),
            // One that says when to come again does not send us away.
            (Phase::Registering(_), Outcome::Refused { retry_after: Some(_), .. })
            | (Phase::Idle { .. } | Phase::Leaving(_), _) => None,
        }
    }

    /// Takes in what came of its call, and when to go on.
    pub(super) fn conclude(&mut self, outcome: Outcome, config: Config, lot: &mut Lot, now: Instant) {
        let at = match (self.phase, outcome) {
            // A parent that does not answer may be back in a moment: to be asked again spares clients a server that is gone.
            (Phase::Leaving(_), Outcome::Unreachable { sentence })
                if !self.is_wanted() && self.goodbye_until.is_none_or(|until| now < until) =>
            {
                if self.goodbye_until.is_none() {
                    self.goodbye_until = Some(now + GOODBYE_PATIENCE);
                    self.failures = 0;
                }
                now + self.fail(&sentence, config.retry)
            }
            // Whatever else comes of it: what is not taken back goes by itself after two intervals.
            (Phase::Leaving(_), outcome) => {
                self.may_be_there = false;
                self.standing = Standing::Trying;
                self.accepted_at = None;
                self.error = match outcome {
                    Outcome::Done { .. } => None,
                    Outcome::Refused { sentence, .. } | Outcome::Unreachable { sentence } => Some(sentence),
                };
                now
            }
            (Phase::Registering(_), Outcome::Done { interval }) => {
                self.may_be_there = true;
                self.standing = Standing::Registered;
                self.accepted_at = Some(now);
                self.failures = 0;
                self.error = None;
                now + jittered(lot, interval.unwrap_or(config.interval))
            }
            (Phase::Registering(_), Outcome::Refused { sentence, retry_after }) => {
                self.standing = Standing::Refused;
                let wait = self.fail(&sentence, config.retry);
                // A parent that names a time is asked no earlier, but not forgotten for ever either.
                now + wait.max(retry_after.unwrap_or_default().min(config.interval))
            }
            (Phase::Registering(_), Outcome::Unreachable { sentence }) => {
                self.may_be_there = true;
                self.standing = Standing::Trying;
                now + self.fail(&sentence, config.retry)
            }
            (Phase::Idle { .. }, _) => return,
        };
        self.phase = Phase::Idle { at: if std::mem::take(&mut self.stale) { now } else { at } };
    }

    /// Notes a failure; returns how long to wait.
    fn fail(&mut self, sentence: &str, first: Duration) -> Duration {
        let wait = backoff(first, self.failures);
        self.failures = self.failures.saturating_add(1);
        self.error = Some(sentence.chars().take(SENTENCE_CHARS_MAX).collect());
        wait
    }
}

/// How long to wait after so many failures before the last one.
pub(super) fn backoff(first: Duration, failures: u32) -> Duration {
    first.saturating_mul(1 << failures.min(16)).min(RETRY_MAX)
}

/// The key of an entry in a database: two REGISTERs with the same key are the same entry.
fn same_key(one: &Register, other: &Register) -> bool {
    (one.entry_type, one.source, one.port, &one.protocol)
        == (other.entry_type, other.source, other.port, &other.protocol)
}

/// A thousand servers that started together shall not come back together.
pub(super) fn jittered(lot: &mut Lot, interval: Duration) -> Duration {
    let interval = interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
    let span_millis = u64::try_from(interval.as_millis()).expect("a day in milliseconds fits") * JITTER_PERCENT / 100;
    let earliest = interval.saturating_sub(Duration::from_millis(span_millis));
    earliest + Duration::from_millis(lot.below(2 * span_millis + 1))
}
