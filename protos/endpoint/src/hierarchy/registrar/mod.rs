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

mod pair;
mod survey;
mod words;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

use castgate_wire::registry::{EntryType, Register};

use self::pair::{Pair, Turn, Wish};
use self::survey::Survey;
use super::address::DatabaseAddress;
use super::lot::Lot;

pub use self::survey::{Discovery, Lookup, Question, QuestionId, Reply, subjects};
pub use self::words::{Call, CallId, Config, Outcome, Parent, Standing, Status};

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
        self.pairs.iter_mut().for_each(Pair::dismiss);
        for mut wish in wishes {
            wish.entry = self.with_chain(wish.entry);
            match self.pairs.iter_mut().find(|pair| pair.is_of(&wish)) {
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
            if let Some(wish) = self.pairs[at].wish() {
                let entry = self.with_chain(wish.entry);
                self.pairs[at].want(Wish { entry, ..wish }, now);
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
            self.pairs.iter_mut().for_each(Pair::give_up_if_silent);
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

    /// Whether parents are found, and not named.
    #[must_use]
    pub fn is_discovering(&self) -> bool {
        self.survey.is_some()
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
        let survey = self.survey.as_ref().and_then(Survey::next_timeout);
        self.pairs.iter().filter_map(Pair::next_timeout).chain(survey).min()
    }

    /// Time has passed. Early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.settle(now);
        self.explore(false, now);
    }

    /// Brings what came of a call. Results of calls that nobody waits for are ignored.
    pub fn handle_outcome(&mut self, now: Instant, id: CallId, outcome: Outcome) {
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.awaits(id)) else { return };
        let is_news = match (&mut self.survey, pair.news(&outcome, self.config)) {
            (Some(survey), Some(news)) => {
                survey.note(pair.entry(), pair.parent(), news, self.config, &mut self.lot, now)
            }
            _ => false,
        };
        pair.conclude(outcome, self.config, &mut self.lot, now);
        self.settle(now);
        self.explore(is_news, now);
    }

    /// How every entry stands at every parent, those on their way out included; where no parent is found yet, at the first root.
    pub fn statuses(&self) -> impl Iterator<Item = Status<'_>> {
        self.pairs.iter().map(Pair::status).chain(self.survey.iter().flat_map(Survey::statuses))
    }

    /// Starts what is due and drops what is done.
    fn settle(&mut self, now: Instant) {
        let Self { pairs, calls, next_id, .. } = self;
        pairs.retain_mut(|pair| match pair.turn(CallId(*next_id), now) {
            Turn::Rest => true,
            Turn::Gone => false,
            Turn::Call(call) => {
                *next_id += 1;
                calls.push_back(*call);
                true
            }
        });
    }
}

#[cfg(test)]
mod tests;
