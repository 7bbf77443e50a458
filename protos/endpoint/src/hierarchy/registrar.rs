//! Announces entries at the databases above: REGISTER, refresh, BYE (draft-liefooghe-castgate-02 §4.1.3, §4.1.4).
//!
//! Owns one state for each pair of an entry and a parent. Parents are named by configuration, or found by walks from the roots
//! (the `survey`). Sends nothing: [`Registrar::poll_call`] hands out requests and [`Registrar::poll_question`] what the walks
//! have to know, the driver brings back what came of each.
//!
//! ```text
//!                      due                    200: next in one interval ± 10 %
//!   Idle(at) ───────────────────▶ Registering ───────────────────────────────▶ Idle(at)
//!      │ ▲                             │ refused, or no answer: 1, 2, 4 … 60 s      ▲
//!      │ │                             └───────────────────────────────────────────┘
//!      │ │  entry is wanted again while BYE is under way
//!      │ └──────────────────────────────────┐
//!      │ entry removed, or the end          │
//!      └──────────────────────────────▶ Leaving (BYE) ──▶ gone; no answer: again for 30 s
//! ```
//! A request that is under way is never overtaken by the next one for the same pair: a BYE that arrives before its REGISTER
//! would leave the entry behind for two intervals.

mod survey;

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use castgate_wire::registry::{Bye, EntryType, Register, Request};

use super::address::DatabaseAddress;
use super::lot::Lot;
pub use survey::{Discovery, Lookup, Question, QuestionId, Reply, subjects};
use survey::{News, Survey};

/// Longest wait between two tries.
const RETRY_MAX: Duration = Duration::from_mins(1);
/// Whatever a parent asks for, an entry is refreshed within a day and at most once a second.
const INTERVAL_MAX: Duration = Duration::from_hours(24);
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Refreshes are spread by this share of the interval to both sides, in percent.
const JITTER_PERCENT: u64 = 10;
/// Longest sentence of a parent that is kept, in characters.
const SENTENCE_CHARS_MAX: usize = 300;
/// How long a parent that does not answer a BYE is asked again.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(30);

/// Timing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How often an entry is refreshed where the parent does not say.
    pub interval: Duration,
    /// First wait after a failure; doubled up to 60 s.
    pub retry: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { interval: Duration::from_mins(5), retry: Duration::from_secs(1) }
    }
}

/// A database above us, and who we are there.
#[derive(Clone, PartialEq, Eq)]
pub struct Parent {
    /// Where it is.
    pub address: DatabaseAddress,
    /// Our login there.
    pub login: String,
    /// Our password there.
    pub password: String,
    /// The certificates that vouch for it, as PEM; `None`: those that the system trusts. For https.
    pub ca: Option<String>,
}

/// Passwords are not for logs.
impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, login, password: _, ca: _ } = self;
        f.debug_struct("Parent").field("address", address).field("login", login).finish_non_exhaustive()
    }
}

/// Names a [`Call`] until its result is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(u64);

/// A request for the driver to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// To be handed back with the result.
    pub id: CallId,
    /// Whom to ask, and as whom.
    pub parent: Parent,
    /// The `Host` field of the request: the parent as it was named, where it was found by its name.
    pub authority: String,
    /// What to ask.
    pub request: Request,
}

/// What came of a [`Call`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Status 200; the interval is `X-CastGate-Update-Interval`, where present.
    Done {
        /// How often the parent wants to hear from us.
        interval: Option<Duration>,
    },
    /// Any other status.
    Refused {
        /// The status and the parent's sentence.
        sentence: String,
        /// `Retry-After`, where present.
        retry_after: Option<Duration>,
    },
    /// No answer: not connected, timed out, not HTTP.
    Unreachable {
        /// What happened.
        sentence: String,
    },
}

/// What came of the last try to register an entry at a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// No answer yet, or none to the last try.
    Trying,
    /// Accepted.
    Registered,
    /// The parent said no.
    Refused,
    /// It is no longer wanted there: a BYE is under way, or waits for a REGISTER that is.
    Leaving,
}

/// How one entry stands at one parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status<'a> {
    /// The entry.
    pub entry: &'a Register,
    /// The parent.
    pub parent: &'a DatabaseAddress,
    /// What came of the last try.
    pub standing: Standing,
    /// When a REGISTER was accepted last.
    pub accepted_at: Option<Instant>,
    /// Failures in a row.
    pub failures: u32,
    /// Why the last try failed; `None` after a success.
    pub error: Option<&'a str>,
}

/// The state machine. Call [`handle_timeout`](Self::handle_timeout) at [`next_timeout`](Self::next_timeout), carry out every
/// [`poll_call`](Self::poll_call) and bring each result to [`handle_outcome`](Self::handle_outcome).
#[derive(Debug)]
pub struct Registrar {
    config: Config,
    /// Who feeds our tunnel servers, when they are relays.
    fed_by: Vec<IpAddr>,
    lot: Lot,
    pairs: Vec<Pair>,
    calls: VecDeque<Call>,
    next_id: u64,
    /// Where parents are found and not named.
    survey: Option<Survey>,
}

/// An entry that shall be at a parent.
#[derive(Debug)]
struct Wish {
    entry: Register,
    parent: Parent,
    authority: String,
    /// Why not yet.
    held: Option<String>,
}

#[derive(Debug)]
struct Pair {
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

impl Registrar {
    /// Announces every entry at every parent, the first time at once. `seed` spreads the refreshes.
    #[must_use]
    pub fn new(config: Config, entries: &[Register], parents: &[Parent], seed: u64, now: Instant) -> Self {
        let mut this = Self::empty(config, seed);
        this.set(config, entries, parents, now);
        this
    }

    /// Announces every entry where it belongs, as soon as that is found.
    #[must_use]
    pub fn discovering(config: Config, entries: &[Register], discovery: Discovery, seed: u64, now: Instant) -> Self {
        let mut this = Self::empty(config, seed);
        this.set_discovering(config, entries, discovery, now);
        this
    }

    fn empty(config: Config, seed: u64) -> Self {
        let lot = Lot::new(seed);
        let (fed_by, pairs, calls) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { config, fed_by, lot, pairs, calls, next_id: 0, survey: None }
    }

    /// Replaces what is announced and where. What stays the same is left in peace, what changed is announced at once, what
    /// is no longer there is taken back.
    pub fn set(&mut self, config: Config, entries: &[Register], parents: &[Parent], now: Instant) {
        self.config = config;
        self.survey = None;
        let wish = |entry: &Register, parent: &Parent| Wish {
            entry: entry.clone(),
            parent: parent.clone(),
            authority: parent.address.authority(),
            held: None,
        };
        let wishes = entries.iter().flat_map(|entry| parents.iter().map(move |parent| wish(entry, parent)));
        self.carry_out(wishes.collect(), now);
    }

    /// The same with parents that are found. What was found for networks that stay is kept until it is found anew.
    pub fn set_discovering(&mut self, config: Config, entries: &[Register], discovery: Discovery, now: Instant) {
        self.config = config;
        let survey = match self.survey.take() {
            Some(mut survey) => {
                survey.change(discovery, entries, config, now);
                survey
            }
            None => Survey::new(discovery, entries, config, now),
        };
        let wishes = self.survey.insert(survey).wishes();
        self.carry_out(wishes, now);
        self.explore(false, now);
    }

    /// Takes back everything; see [`is_finished`](Self::is_finished).
    pub fn shut_down(&mut self, now: Instant) {
        self.survey = None;
        self.carry_out(Vec::new(), now);
    }

    /// Makes these, and no others, what is announced.
    fn carry_out(&mut self, wishes: Vec<Wish>, now: Instant) {
        self.replace(wishes, now);
        self.settle(now);
    }

    fn replace(&mut self, wishes: Vec<Wish>, now: Instant) {
        for pair in &mut self.pairs {
            pair.wish = Wished::Gone;
        }
        for mut wish in wishes {
            wish.entry = self.with_chain(wish.entry);
            let same =
                |pair: &&mut Pair| same_key(&pair.entry, &wish.entry) && pair.parent.address == wish.parent.address;
            match self.pairs.iter_mut().find(same) {
                Some(pair) => pair.want(wish, now),
                None => self.pairs.push(Pair::new(wish, now)),
            }
        }
    }

    /// Tunnel servers are relays that are fed by this chain, nearest first, which is announced with them from now on
    /// ([`super::feed`]).
    pub fn set_fed_by(&mut self, fed_by: &[IpAddr], now: Instant) {
        self.fed_by = fed_by.to_vec();
        for at in 0..self.pairs.len() {
            let entry = self.with_chain(self.pairs[at].entry.clone());
            let pair = &mut self.pairs[at];
            if pair.is_wanted() {
                let (parent, authority, held) = (pair.parent.clone(), pair.authority.clone(), pair.held.clone());
                pair.want(Wish { entry, parent, authority, held }, now);
            }
        }
        self.settle(now);
    }

    fn with_chain(&self, entry: Register) -> Register {
        let fed_by = match entry.entry_type {
            EntryType::TunnelServer => self.fed_by.clone(),
            EntryType::TunnelDatabase => Vec::new(),
        };
        Register { fed_by, ..entry }
    }

    /// Starts the walks that are due, and carries out what follows when something was found.
    fn explore(&mut self, is_news: bool, now: Instant) {
        let Some(survey) = &mut self.survey else { return };
        let is_news = survey.start_due(self.config, &mut self.lot, now) || is_news;
        if is_news && survey.is_ready() {
            let wishes = survey.wishes();
            self.replace(wishes, now);
            for pair in self.pairs.iter_mut().filter(|pair| !pair.is_wanted() && pair.is_silent()) {
                pair.wish = Wished::GivenUp;
            }
            self.settle(now);
        }
    }

    /// Whether nothing is announced and nothing under way.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.pairs.is_empty() && self.survey.as_ref().is_none_or(Survey::is_idle)
    }

    /// The next request to make.
    pub fn poll_call(&mut self) -> Option<Call> {
        self.calls.pop_front()
    }

    /// The next thing to find out, for [`handle_reply`](Self::handle_reply).
    pub fn poll_question(&mut self) -> Option<Question> {
        self.survey.as_mut().and_then(Survey::poll_question)
    }

    /// Brings what came of a question. Replies that nobody waits for are ignored.
    pub fn handle_reply(&mut self, now: Instant, id: QuestionId, reply: Reply) {
        let Some(survey) = &mut self.survey else { return };
        let is_news = survey.handle_reply(id, reply, self.config, &mut self.lot, now);
        self.explore(is_news, now);
    }

    /// The databases that one of ours takes its entries from, in order. After each change
    /// [`set_synchronised`](Self::set_synchronised) is to be called anew.
    #[must_use]
    pub fn peers(&self) -> &[DatabaseAddress] {
        self.survey.as_ref().map(Survey::peers).unwrap_or_default()
    }

    /// Whether it is known who they are: every network was found once, or parents are named and there is nothing to find.
    #[must_use]
    pub fn knows_peers(&self) -> bool {
        self.survey.as_ref().is_none_or(Survey::knows_peers)
    }

    /// Says whether our database holds what its peers hold: until then it is not announced where it has peers.
    pub fn set_synchronised(&mut self, now: Instant, synchronised: bool) {
        let is_news = self.survey.as_mut().is_some_and(|survey| survey.set_synchronised(synchronised));
        self.explore(is_news, now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let idle = |pair: &Pair| match pair.phase {
            Phase::Idle { .. } if pair.is_held() => None,
            Phase::Idle { at } => Some(at),
            Phase::Registering(_) | Phase::Leaving(_) => None,
        };
        let survey = self.survey.as_ref().and_then(Survey::next_timeout);
        self.pairs.iter().filter_map(idle).chain(survey).min()
    }

    /// Time has passed. Early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.settle(now);
        self.explore(false, now);
    }

    /// Brings what came of a call. Results of calls that nobody waits for are ignored.
    pub fn handle_outcome(&mut self, now: Instant, id: CallId, outcome: Outcome) {
        let waits =
            |pair: &&mut Pair| matches!(pair.phase, Phase::Registering(call) | Phase::Leaving(call) if call == id);
        let Some(pair) = self.pairs.iter_mut().find(waits) else { return };
        let news = match (&pair.phase, &outcome) {
            (Phase::Registering(_), Outcome::Done { interval }) => {
                let interval = interval.unwrap_or(self.config.interval);
                Some(News::Accepted { interval, is_back: pair.is_silent() })
            }
            (Phase::Registering(_), Outcome::Refused { retry_after: None, .. }) => Some(News::Refused),
            (Phase::Registering(_), Outcome::Unreachable { .. }) => Some(News::Unreachable),
            // One that says when to come again does not send us away.
            (Phase::Registering(_), Outcome::Refused { retry_after: Some(_), .. })
            | (Phase::Idle { .. } | Phase::Leaving(_), _) => None,
        };
        let is_news = match (&mut self.survey, news) {
            (Some(survey), Some(news)) => {
                survey.note(&pair.entry, &pair.parent.address, news, self.config, &mut self.lot, now)
            }
            _ => false,
        };
        let at = match (pair.phase, outcome) {
            // A parent that does not answer may be back in a moment: to be asked again spares clients a server that is gone.
            (Phase::Leaving(_), Outcome::Unreachable { sentence })
                if !pair.is_wanted() && pair.goodbye_until.is_none_or(|until| now < until) =>
            {
                if pair.goodbye_until.is_none() {
                    pair.goodbye_until = Some(now + GOODBYE_PATIENCE);
                    pair.failures = 0;
                }
                now + pair.fail(&sentence, self.config.retry)
            }
            // Whatever else comes of it: what is not taken back goes by itself after two intervals.
            (Phase::Leaving(_), outcome) => {
                pair.may_be_there = false;
                pair.standing = Standing::Trying;
                pair.accepted_at = None;
                pair.error = match outcome {
                    Outcome::Done { .. } => None,
                    Outcome::Refused { sentence, .. } | Outcome::Unreachable { sentence } => Some(sentence),
                };
                now
            }
            (Phase::Registering(_), Outcome::Done { interval }) => {
                pair.may_be_there = true;
                pair.standing = Standing::Registered;
                pair.accepted_at = Some(now);
                pair.failures = 0;
                pair.error = None;
                now + jittered(&mut self.lot, interval.unwrap_or(self.config.interval))
            }
            (Phase::Registering(_), Outcome::Refused { sentence, retry_after }) => {
                pair.standing = Standing::Refused;
                let wait = pair.fail(&sentence, self.config.retry);
                // A parent that names a time is asked no earlier, but not forgotten for ever either.
                now + wait.max(retry_after.unwrap_or_default().min(self.config.interval))
            }
            (Phase::Registering(_), Outcome::Unreachable { sentence }) => {
                pair.may_be_there = true;
                pair.standing = Standing::Trying;
                now + pair.fail(&sentence, self.config.retry)
            }
            (Phase::Idle { .. }, _) => return,
        };
        pair.phase = Phase::Idle { at: if std::mem::take(&mut pair.stale) { now } else { at } };
        self.settle(now);
        self.explore(is_news, now);
    }

    /// How every entry stands at every parent, those on their way out included; where no parent is found yet, at the first root.
    pub fn statuses(&self) -> impl Iterator<Item = Status<'_>> {
        let pairs = self.pairs.iter().map(|pair| Status {
            entry: &pair.entry,
            parent: &pair.parent.address,
            standing: if pair.is_wanted() { pair.standing } else { Standing::Leaving },
            accepted_at: pair.accepted_at,
            failures: pair.failures,
            error: pair.held.as_deref().filter(|_| pair.is_held()).or(pair.error.as_deref()),
        });
        pairs.chain(self.survey.iter().flat_map(Survey::statuses))
    }

    /// Starts what is due and drops what is done.
    fn settle(&mut self, now: Instant) {
        let Self { pairs, calls, next_id, .. } = self;
        pairs.retain_mut(|pair| {
            let Phase::Idle { at } = pair.phase else { return true };
            if pair.is_held() {
                return true;
            }
            // A refresh is not due yet, or the next try of a goodbye is not.
            if now < at && (pair.is_wanted() || pair.goodbye_until.is_some()) {
                return true;
            }
            if pair.wish == Wished::GivenUp || (!pair.is_wanted() && !pair.may_be_there) {
                return false;
            }
            let id = CallId(*next_id);
            *next_id += 1;
            let request = if pair.is_wanted() {
                pair.phase = Phase::Registering(id);
                Request::Register(pair.entry.clone())
            } else {
                pair.phase = Phase::Leaving(id);
                Request::Bye(Bye {
                    source: pair.entry.source,
                    port: pair.entry.port,
                    entry_type: Some(pair.entry.entry_type),
                    protocol: pair.entry.protocol.clone(),
                    strict: false,
                })
            };
            calls.push_back(Call { id, parent: pair.parent.clone(), authority: pair.authority.clone(), request });
            true
        });
    }
}

impl Pair {
    fn new(Wish { entry, parent, authority, held }: Wish, now: Instant) -> Self {
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

    fn want(&mut self, Wish { entry, parent, authority, held }: Wish, now: Instant) {
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

    /// Notes a failure; returns how long to wait.
    fn fail(&mut self, sentence: &str, first: Duration) -> Duration {
        let wait = backoff(first, self.failures);
        self.failures = self.failures.saturating_add(1);
        self.error = Some(sentence.chars().take(SENTENCE_CHARS_MAX).collect());
        wait
    }
}

/// How long to wait after so many failures before the last one.
fn backoff(first: Duration, failures: u32) -> Duration {
    first.saturating_mul(1 << failures.min(16)).min(RETRY_MAX)
}

/// The key of an entry in a database: two REGISTERs with the same key are the same entry.
fn same_key(one: &Register, other: &Register) -> bool {
    (one.entry_type, one.source, one.port, &one.protocol)
        == (other.entry_type, other.source, other.port, &other.protocol)
}

/// A thousand servers that started together shall not come back together.
fn jittered(lot: &mut Lot, interval: Duration) -> Duration {
    let interval = interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
    let span_millis = u64::try_from(interval.as_millis()).expect("a day in milliseconds fits") * JITTER_PERCENT / 100;
    let earliest = interval.saturating_sub(Duration::from_millis(span_millis));
    earliest + Duration::from_millis(lot.below(2 * span_millis + 1))
}

#[cfg(test)]
mod tests;
