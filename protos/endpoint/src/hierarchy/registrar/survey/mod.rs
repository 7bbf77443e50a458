//! The parents of a registrar that has to find them: one search for each network, repeated at every fourth update.
//!
//! Owns the searches and what they found. What follows for the registrations is [`Survey::wishes`]; the registrar carries it out.
//!
//! ```text
//!              due                        Found: again after 4 intervals, from the cached parents
//!   Idle(at) ──────▶ Walking(questions) ──────────────────────────────────────────▶ Idle(at)
//!                        │ Failed: 1, 2, 4 … 60 s, from the roots; what was found before stays ▲
//!                        └─────────────────────────────────────────────────────────────────────┘
//! ```
//! draft-liefooghe-castgate-02 §4.1.4 has the parents of one's parents asked again, so that new peers are told as well.

mod search;
mod words;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use castgate_wire::registry::{EntryType, Prefix, Register};

use self::search::{Noted, Phase, Search, Taken, Whereabouts, address, is_subject_of, specific};
use super::pair::{RETRY_MAX, Wish, backoff};
use super::words::{Config, Parent, Standing, Status};
use crate::hierarchy::address::DatabaseAddress;
use crate::hierarchy::discovery::{Member, Step, Subject, Walk};
use crate::hierarchy::lot::Lot;

pub use self::search::subjects;
pub use self::words::{Discovery, Lookup, Question, QuestionId, Reply};

/// Walks at one time: each has one question under way.
const WALKS_MAX: usize = 8;

/// What came of a REGISTER, as far as it tells something of the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// `is_back`: it did not answer before.
    Accepted {
        interval: Duration,
        is_back: bool,
    },
    Refused,
    Unreachable,
}

/// All searches of one registrar.
#[derive(Debug)]
pub(super) struct Survey {
    discovery: Discovery,
    entries: Vec<Register>,
    searches: Vec<Search>,
    questions: VecDeque<Question>,
    next_id: u64,
    /// The databases that ours takes its entries from, in order.
    peers: Vec<DatabaseAddress>,
    /// Whether our database holds what these peers hold.
    synchronised: bool,
}

impl Survey {
    pub(super) fn new(discovery: Discovery, entries: &[Register], config: Config, now: Instant) -> Self {
        let mut this = Self {
            discovery,
            entries: Vec::new(),
            searches: Vec::new(),
            questions: VecDeque::new(),
            next_id: 0,
            peers: Vec::new(),
            synchronised: false,
        };
        this.set_entries(entries, config, now);
        this
    }

    /// Goes on with other entries or other roots. What was found for networks that stay is kept.
    pub(super) fn change(&mut self, discovery: Discovery, entries: &[Register], config: Config, now: Instant) {
        let moved = self.discovery.roots != discovery.roots;
        self.discovery = discovery;
        self.set_entries(entries, config, now);
        if moved {
            for search in &mut self.searches {
                if let Some(found) = &mut search.found {
                    found.above.clear();
                }
                search.phase = Phase::Idle { at: now };
            }
        }
    }

    fn set_entries(&mut self, entries: &[Register], config: Config, now: Instant) {
        self.entries = entries.to_vec();
        let mut before = std::mem::take(&mut self.searches);
        for subject in subjects(entries, self.discovery.role) {
            if self.searches.iter().any(|search| search.subject == subject) {
                continue;
            }
            let same = |search: &Search| {
                let other = &search.subject;
                (other.entry_type, other.range, other.country) == (subject.entry_type, subject.range, subject.country)
            };
            let search = match before.iter().position(same) {
                Some(at) => {
                    let mut search = before.swap_remove(at);
                    if search.subject != subject {
                        // Who we are decides where we belong.
                        search.subject = subject;
                        search.phase = Phase::Idle { at: now };
                    }
                    search
                }
                None => Search::new(subject, config.interval, now),
            };
            self.searches.push(search);
        }
        self.note_peers();
    }

    pub(super) fn is_idle(&self) -> bool {
        self.searches.is_empty()
    }

    pub(super) fn poll_question(&mut self) -> Option<Question> {
        self.questions.pop_front()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        if self.walking() >= WALKS_MAX {
            return None;
        }
        let idle = |search: &Search| match search.phase {
            Phase::Idle { at } => Some(at),
            Phase::Walking { .. } => None,
        };
        self.searches.iter().filter_map(idle).min()
    }

    fn walking(&self) -> usize {
        self.searches.iter().filter(|search| matches!(search.phase, Phase::Walking { .. })).count()
    }

    /// Begins the walks that are due. Returns whether one of them is over already.
    pub(super) fn start_due(&mut self, config: Config, lot: &mut Lot, now: Instant) -> bool {
        let mut free = WALKS_MAX.saturating_sub(self.walking());
        let mut is_news = false;
        for number in 0..self.searches.len() {
            let search = &mut self.searches[number];
            if free == 0 || !matches!(search.phase, Phase::Idle { at } if at <= now) {
                continue;
            }
            free -= 1;
            let above = match &search.found {
                Some(found) if search.failures == 0 => &found.above[..],
                _ => &[],
            };
            let walk = Walk::new(self.discovery.roots.clone(), search.subject.clone(), above, lot.below(u64::MAX));
            search.phase = Phase::Walking { walk: Box::new(walk), question: None };
            is_news |= self.go_on(number, config, lot, now);
        }
        is_news
    }

    /// Brings the reply to a question. Returns whether a walk is over, or got into trouble: then others wait for it no longer.
    pub(super) fn handle_reply(
        &mut self,
        id: QuestionId,
        reply: Reply,
        config: Config,
        lot: &mut Lot,
        now: Instant,
    ) -> bool {
        let waits = |search: &Search| matches!(search.phase, Phase::Walking { question, .. } if question == Some(id));
        let Some(number) = self.searches.iter().position(waits) else { return false };
        let Phase::Walking { walk, question } = &mut self.searches[number].phase else { return false };
        *question = None;
        match reply {
            Reply::Services(result) => walk.handle_service(result),
            Reply::Addresses(result) => walk.handle_addresses(result),
            Reply::Databases(result) => walk.handle_answer(result),
        }
        let is_in_trouble = walk.is_in_trouble();
        self.go_on(number, config, lot, now) || is_in_trouble
    }

    /// Asks the next question of a walk, or takes in its end.
    fn go_on(&mut self, number: usize, config: Config, lot: &mut Lot, now: Instant) -> bool {
        let search = &mut self.searches[number];
        let Phase::Walking { walk, question } = &mut search.phase else { return false };
        let lookup = match walk.step() {
            Step::ResolveService { name } => Lookup::Services(name),
            Step::ResolveAddress { name } => Lookup::Addresses(name),
            Step::Ask(ask) => Lookup::Databases(ask),
            Step::Found(found) => {
                search.is_rushed = false;
                let Taken { news, left } = search.take(found, lot, now);
                self.rush(number, &news, now);
                let subject = self.searches[number].subject.clone();
                let entries: Vec<Register> =
                    self.entries.iter().filter(|entry| is_subject_of(&subject, entry)).cloned().collect();
                for entry in &entries {
                    self.leave(entry, &left);
                }
                self.note_peers();
                let waits = self.is_held(&self.searches[number]);
                if waits {
                    // Peers that are gone would be waited for in vain.
                    self.searches[number].phase = Phase::Idle { at: now + RETRY_MAX };
                }
                return true;
            }
            Step::Failed(error) => {
                search.error = Some(error.to_string());
                search.is_rushed = false;
                search.phase = Phase::Idle { at: now + backoff(config.retry, search.failures) };
                search.failures = search.failures.saturating_add(1);
                return true;
            }
        };
        let id = QuestionId(self.next_id);
        self.next_id += 1;
        *question = Some(id);
        self.questions.push_back(Question { id, lookup });
        false
    }

    /// Has the other networks of an entry searched again when one leads to parents that these do not have.
    fn rush(&mut self, number: usize, news: &[Member], now: Instant) {
        let (entries, found) = (&self.entries, &self.searches[number].subject);
        let of_same_entry = |subject: &Subject| {
            entries.iter().any(|entry| is_subject_of(found, entry) && is_subject_of(subject, entry))
        };
        let rushed: Vec<usize> = (0..self.searches.len())
            .filter(|other| {
                let search = &self.searches[*other];
                let lacks = |member: &Member| !search.found.iter().any(|found| found.has_parent(member));
                *other != number && of_same_entry(&search.subject) && news.iter().any(lacks)
            })
            .collect();
        for other in rushed {
            let search = &mut self.searches[other];
            if let Phase::Idle { at } = &mut search.phase {
                *at = (*at).min(now);
                search.is_rushed = true;
            }
        }
    }

    /// Networks of an entry leave a parent together where all of them miss it: the last REGISTER that it hears says all that it may be told.
    fn leave(&mut self, entry: &Register, left: &[SocketAddr]) {
        for search in self.searches.iter_mut().filter(|search| search.is_of(entry)) {
            search.leave(left);
        }
    }

    /// Takes in what came of a REGISTER. Returns whether [`wishes`](Self::wishes) changed.
    pub(super) fn note(
        &mut self,
        entry: &Register,
        parent: &DatabaseAddress,
        news: News,
        config: Config,
        lot: &mut Lot,
        now: Instant,
    ) -> bool {
        let mut changed = false;
        let mut left: Vec<SocketAddr> = Vec::new();
        for search in self.searches.iter_mut().filter(|search| search.is_of(entry)) {
            match search.note(parent, news, config, lot, now) {
                Noted::Nothing => {}
                Noted::Left(gone) => {
                    changed = true;
                    left.extend(gone);
                }
            }
        }
        self.leave(entry, &left);
        changed
    }

    pub(super) fn set_synchronised(&mut self, synchronised: bool) -> bool {
        std::mem::replace(&mut self.synchronised, synchronised) != synchronised
    }

    pub(super) fn peers(&self) -> &[DatabaseAddress] {
        &self.peers
    }

    pub(super) fn knows_peers(&self) -> bool {
        let mut databases =
            self.searches.iter().filter(|search| search.subject.entry_type == EntryType::TunnelDatabase);
        databases.all(|search| search.found.is_some())
    }

    /// Collects the peers of all searches. With new ones our database is not synchronised until it says so.
    fn note_peers(&mut self) {
        let found = self.searches.iter().filter_map(|search| search.found.as_ref());
        let mut peers: Vec<DatabaseAddress> = found.flat_map(|found| found.peers.iter().cloned()).collect();
        peers.sort_unstable();
        peers.dedup();
        if peers != self.peers {
            self.synchronised = false;
            self.peers = peers;
        }
    }

    /// Whether every search has been through once, or has met somebody who does not answer: the networks of one parent go there in
    /// one REGISTER.
    pub(super) fn is_ready(&self) -> bool {
        let is_through = |search: &Search| {
            let is_in_trouble = matches!(&search.phase, Phase::Walking { walk, .. } if walk.is_in_trouble());
            !search.is_rushed && (search.found.is_some() || search.failures > 0) || is_in_trouble
        };
        self.searches.iter().all(is_through)
    }

    /// What is to be registered, and where: each parent gets the networks that led to it.
    pub(super) fn wishes(&mut self) -> Vec<Wish> {
        let mut wishes: Vec<Wish> = Vec::new();
        for entry in &self.entries {
            let first = wishes.len();
            // What waits comes last: a parent that gets some networks now gets the others later.
            for held in [false, true] {
                for search in self.searches.iter().filter(|search| search.is_of(entry) && self.is_held(search) == held)
                {
                    let networks = entry.networks.iter().filter(|network| search.subject.range == specific(**network));
                    let networks: Vec<Prefix> = networks.copied().collect();
                    for known in search.found.iter().flat_map(|found| &found.parents) {
                        let address = address(&known.member);
                        match wishes[first..].iter_mut().find(|wish| wish.parent.address == address) {
                            Some(wish) if held && wish.held.is_none() => {}
                            Some(wish) => wish.entry.networks.extend(&networks),
                            None => wishes.push(Wish {
                                entry: Register { networks: networks.clone(), ..entry.clone() },
                                parent: self.parent(address),
                                authority: known.member.authority.clone(),
                                held: held.then(|| Self::waiting(search)),
                            }),
                        }
                    }
                }
            }
        }
        for number in 0..self.searches.len() {
            let is_held = self.is_held(&self.searches[number]);
            if let Some(found) = &mut self.searches[number].found {
                found.is_admitted |= !is_held;
            }
        }
        wishes
    }

    /// draft-liefooghe-castgate-02 §4.1.2: a database takes over the entries of its peers before it is announced, so that it is
    /// never asked while empty.
    fn is_held(&self, search: &Search) -> bool {
        let waits = |found: &Whereabouts| !found.peers.is_empty() && !found.is_admitted;
        self.discovery.waits_for_peers && !self.synchronised && search.found.as_ref().is_some_and(waits)
    }

    fn waiting(search: &Search) -> String {
        let peers = search.found.iter().flat_map(|found| &found.peers);
        let peers: Vec<String> = peers.map(ToString::to_string).collect();
        format!("waits for the entries of its peers {}", peers.join(", "))
    }

    fn parent(&self, address: DatabaseAddress) -> Parent {
        let Discovery { login, password, ca, .. } = &self.discovery;
        Parent { address, login: login.clone(), password: password.clone(), ca: ca.clone() }
    }

    /// The entries that have a network of which nobody knows yet where it belongs: each once, at the first root.
    pub(super) fn statuses(&self) -> impl Iterator<Item = Status<'_>> {
        let root = self.discovery.roots.first();
        self.entries.iter().filter_map(move |entry| {
            let lost = self.searches.iter().filter(|search| search.is_of(entry) && search.found.is_none());
            let lost = lost.max_by_key(|search| search.failures)?;
            Some(Status {
                entry,
                parent: root?,
                standing: Standing::Trying,
                accepted_at: None,
                failures: lost.failures,
                error: lost.error.as_deref(),
            })
        })
    }
}

#[cfg(test)]
mod tests;
