//! The way down from the roots for one range and one country (draft-liefooghe-castgate-02 §4.1.2).
//!
//! Owns whom to ask next and when the way is at its end. Looks nothing up and sends nothing: whoever has a resolver and an HTTP
//! client carries out one [`Step`] after the other, as for the [`Locator`](crate::hierarchy::locator::Locator).
//!
//! ```text
//!   cached path ────────────────────────┐
//!   roots: SRV, then addresses ──▶ all ─┤
//!                                       ▼
//!                 ┌──────▶ ask a member of the last step ──nothing below──▶ Found(path, decision)
//!                 │             │ databases         │ failure
//!                 └── push ◀────┘                   ▼
//!                                     next member; all gone: the step above; all gone: the roots
//! ```
//! All roots are looked up before the first is asked: who registers at the roots registers at every one of them.
//!
//! A database that has exactly our range hides that of our country, if that came later: an answer holds the longest match alone.
//! So who names such twins, or ourselves, is asked once more, for our country as that of a network that nobody has:
//!
//! ```text
//!   ask for our range ──twins──▶ ask for the country alone ──nobody──▶ the twins are the next step
//!                                        │ databases of the country
//!                                        ▼
//!                     these are the next step; where the way ends, the twins are its last one
//! ```
//! A wider network that came later is not looked for: whoever has it would take over who never asked him. The longest match sorts
//! them out.

mod words;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use castgate_wire::registry::{self, EntryType, Prefix, ProtocolFilter, Query, Request, Scheme, Server};
use ipnet::Ipv4Net;

use super::{PathStep, Subject, decide};
use crate::hierarchy::address::{DEFAULT_PORT, DatabaseAddress, Place, SERVICE};
pub use crate::hierarchy::locator::PATH_STEPS_MAX;
use crate::hierarchy::locator::{ASKS_MAX, ServiceTarget};
use crate::hierarchy::lot::Lot;
use crate::hierarchy::member::{MEMBERS_MAX, Member, Named, in_service_order};

pub use words::{Ask, DiscoverError, Found, Hop, HopOutcome, Step};

/// Names looked up in one walk: the roots and what their service records lead to.
const NAMES_MAX: usize = 64;
/// Longest sentence that is kept of a failure, in characters: it may quote a stranger.
const SENTENCE_CHARS_MAX: usize = 300;

/// The state machine of one walk. Make a new one for the next.
///
/// [`step`](Self::step) says what to do and keeps saying it until the matching `handle_*` brings the result; a result that
/// nobody waits for is ignored.
#[derive(Debug)]
pub struct Walk {
    subject: Subject,
    query: String,
    lot: Lot,
    /// Roots not looked up yet; the last is next. Empty while a cached path is walked that has not failed.
    unresolved: Vec<DatabaseAddress>,
    /// What the roots turned out to be, until the last of them is known.
    roots: Vec<Member>,
    /// The configured roots, for when the cached path fails.
    fallback: Option<Vec<DatabaseAddress>>,
    path: Vec<WalkStep>,
    /// What those are asked who name our twins; `None` for what has none, or no country.
    country_query: Option<String>,
    /// Databases with exactly our range that were named by somebody who may know our country: the end of the way.
    twins: Vec<Member>,
    asked: HashSet<SocketAddr>,
    /// Questions to databases.
    asks: usize,
    names: usize,
    hops: Vec<Hop>,
    state: State,
}

#[derive(Debug)]
struct WalkStep {
    step: PathStep,
    /// Members not asked yet; the last is next.
    left: Vec<Member>,
}

#[derive(Debug)]
enum State {
    Service(String),
    Address(Named),
    Ask(Member),
    AskCountry(Member),
    Found(Box<Found>),
    Failed,
}

impl Walk {
    /// Starts a walk. `cached` is the upper part of an earlier path for the same subject, or nothing; where nobody of it answers,
    /// the walk begins at the roots. `seed` decides which members are asked first.
    #[must_use]
    pub fn new(roots: Vec<DatabaseAddress>, subject: Subject, cached: &[PathStep], seed: u64) -> Self {
        let mut walk = Self {
            query: query(&subject, subject.range),
            country_query: country_query(&subject),
            subject,
            twins: Vec::new(),
            asks: 0,
            lot: Lot::new(seed),
            unresolved: Vec::new(),
            roots: Vec::new(),
            fallback: Some(roots),
            path: Vec::new(),
            asked: HashSet::new(),
            names: 0,
            hops: Vec::new(),
            state: State::Failed,
        };
        for PathStep { members, matched } in cached.iter().take(PATH_STEPS_MAX) {
            walk.descend(members.clone(), *matched);
        }
        walk.advance();
        walk
    }

    /// What to do next.
    #[must_use]
    pub fn step(&self) -> Step {
        match &self.state {
            State::Service(name) => Step::ResolveService { name: format!("{SERVICE}.{name}") },
            State::Address(named) => Step::ResolveAddress { name: named.name.clone() },
            State::Ask(member) => Step::Ask(ask(member, &self.query)),
            State::AskCountry(member) => Step::Ask(ask(member, self.country_query.as_deref().unwrap_or(&self.query))),
            State::Found(found) => Step::Found(Found::clone(found)),
            State::Failed => Step::Failed(DiscoverError { hops: self.hops.clone() }),
        }
    }

    /// Whether something of this walk failed already, so that its end may be far.
    #[must_use]
    pub fn is_in_trouble(&self) -> bool {
        self.hops.iter().any(|hop| matches!(hop.outcome, HopOutcome::Failed(_)))
    }

    /// Brings the SRV records of [`Step::ResolveService`]; none or an error makes the name an ordinary host name.
    pub fn handle_service(&mut self, result: Result<Vec<ServiceTarget>, String>) {
        let State::Service(name) = &self.state else { return };
        let name = name.clone();
        match result {
            Ok(targets) if !targets.is_empty() => {
                let resolved = HopOutcome::Resolved(targets.len());
                let order = in_service_order(targets, &mut self.lot);
                let not_there = || HopOutcome::Failed("the service is not there".to_owned());
                self.hop(format!("{SERVICE}.{name}"), if order.is_empty() { not_there() } else { resolved });
                // The last one is next.
                self.unresolved.extend(order.into_iter().rev());
            }
            Ok(_) | Err(_) => {
                let path = registry::PATH.to_owned();
                self.state = State::Address(Named { scheme: Scheme::Http, name, port: DEFAULT_PORT, path });
                return;
            }
        }
        self.advance();
    }

    /// Brings the addresses of [`Step::ResolveAddress`].
    pub fn handle_addresses(&mut self, result: Result<Vec<IpAddr>, String>) {
        let State::Address(named) = &self.state else { return };
        let named = named.clone();
        match result {
            Ok(addresses) if addresses.is_empty() => {
                self.hop(named.name, HopOutcome::Failed("the name has no address".to_owned()));
            }
            Ok(addresses) => {
                self.hop(named.name.clone(), HopOutcome::Resolved(addresses.len()));
                self.roots.extend(named.members(addresses));
            }
            Err(sentence) => self.hop(named.name, HopOutcome::Failed(shortened(&sentence))),
        }
        self.advance();
    }

    /// Brings the list of [`Step::Ask`]; an error is a sentence: refused, timed out, a status other than 200, no XML.
    pub fn handle_answer(&mut self, result: Result<Vec<Server>, String>) {
        let (member, by_country) = match &self.state {
            State::Ask(member) => (member.clone(), false),
            State::AskCountry(member) => (member.clone(), true),
            State::Service(_) | State::Address(_) | State::Found(_) | State::Failed => return,
        };
        let asked = member.address.to_string();
        let servers = match result {
            Ok(servers) => servers,
            Err(sentence) => {
                self.hop(asked, HopOutcome::Failed(shortened(&sentence)));
                // It answered before: what it said then holds.
                return if by_country { self.end() } else { self.advance() };
            }
        };
        let has_twins = !by_country && self.has_twins(&servers);
        let (mut members, matched) = self.below(servers);
        if by_country && matched != 0 {
            // It looks at our address, whatever we ask for.
            members.clear();
        }
        if members.is_empty() {
            self.hop(asked, HopOutcome::Nothing);
        } else if self.path.len() < PATH_STEPS_MAX {
            self.hop(asked, HopOutcome::Databases(members.len(), matched));
        } else {
            let sentence = format!("it names further databases after {PATH_STEPS_MAX} steps");
            self.hop(asked, HopOutcome::Failed(sentence));
            return self.advance();
        }
        if has_twins && self.asks < ASKS_MAX {
            self.asks += 1;
            self.twins.extend(members);
            self.state = State::AskCountry(member);
        } else if members.is_empty() {
            self.end();
        } else {
            self.descend(members, Some(matched));
            self.advance();
        }
    }

    /// Whether an answer hides our country: it names somebody with exactly our range, if only ourselves. Below one of those there is no
    /// country.
    fn has_twins(&self, servers: &[Server]) -> bool {
        let ours = self.subject.range_len();
        let is_twin = |server: &Server| server.entry_type == EntryType::TunnelDatabase && server.prefix_len == ours;
        let is_above = self.path.last().is_some_and(|step| step.step.matched != ours);
        self.country_query.is_some() && is_above && servers.iter().any(is_twin)
    }

    /// Nobody knows anything further down but the twins that were met on the way.
    fn end(&mut self) {
        let (twins, steps) = (std::mem::take(&mut self.twins), self.path.len());
        if steps < PATH_STEPS_MAX {
            self.descend(twins, self.subject.range_len());
        }
        if self.path.len() > steps { self.advance() } else { self.finish() }
    }

    /// The databases of an answer that lead on, and by what they were found.
    fn below(&self, servers: Vec<Server>) -> (Vec<Member>, u8) {
        let databases = servers.into_iter().filter(|server| server.entry_type == EntryType::TunnelDatabase);
        // Without a length there is no telling peers from parents: a parent is the careful guess.
        let found = databases.map(|server| (server.prefix_len.unwrap_or(0), server));
        let above: Vec<(u8, Server)> = found.filter(|(matched, _)| self.subject.is_above(*matched)).collect();
        // One answer has one length; where a stranger's has several, the longest match counts.
        let longest = above.iter().map(|(matched, _)| *matched).max().unwrap_or(0);
        let mut members: Vec<Member> = Vec::new();
        for (_, server) in above.iter().filter(|(matched, _)| *matched == longest) {
            let member = Member::of_server(server);
            if self.is_news(&member) && !members.contains(&member) {
                members.push(member);
            }
        }
        (members, longest)
    }

    /// The loop guard: neither ourselves, nor anybody whom this path already has.
    fn is_news(&self, member: &Member) -> bool {
        let seen = |step: &WalkStep| step.step.members.iter().any(|other| other.address == member.address);
        !self.subject.is_ours(member.address) && !self.path.iter().any(seen)
    }

    /// One step deeper.
    fn descend(&mut self, mut members: Vec<Member>, matched: Option<u8>) {
        members.retain(|member| self.is_news(member));
        let mut seen = HashSet::new();
        members.retain(|member| seen.insert(member.address));
        if members.is_empty() {
            return;
        }
        self.lot.shuffle(&mut members);
        members.truncate(MEMBERS_MAX);
        let left = members.clone();
        self.path.push(WalkStep { step: PathStep { members, matched }, left });
    }

    /// Other members, then the step above, then the roots (draft-liefooghe-castgate-02 leaves the failure open).
    fn advance(&mut self) {
        loop {
            if let Some(step) = self.path.last_mut() {
                match step.left.pop() {
                    Some(member) if self.asks >= ASKS_MAX => {
                        let sentence = format!("{ASKS_MAX} databases were asked before it");
                        self.hop(member.address.to_string(), HopOutcome::Failed(sentence));
                        break;
                    }
                    Some(member) if self.asked.insert(member.address) => {
                        self.asks += 1;
                        self.state = State::Ask(member);
                        return;
                    }
                    // It was asked on another way, and that way led nowhere.
                    Some(_) => {}
                    None => {
                        self.path.pop();
                    }
                }
                continue;
            }
            if let Some(roots) = self.fallback.take() {
                self.unresolved = roots;
            }
            let Some(DatabaseAddress { scheme, place, path }) = self.unresolved.pop() else {
                let roots = std::mem::take(&mut self.roots);
                if roots.is_empty() {
                    break;
                }
                self.descend(roots, None);
                if self.path.is_empty() {
                    let sentence = "there is no root but ourselves".to_owned();
                    self.hop("the roots".to_owned(), HopOutcome::Failed(sentence));
                    break;
                }
                continue;
            };
            match place {
                Place::Socket(address) => {
                    self.roots.push(Member { scheme, address, authority: address.to_string(), path });
                    continue;
                }
                Place::Service(_) | Place::Name { .. } if self.names >= NAMES_MAX => continue,
                Place::Service(name) => self.state = State::Service(name),
                Place::Name { name, port } => self.state = State::Address(Named { scheme, name, port, path }),
            }
            self.names += 1;
            return;
        }
        self.state = State::Failed;
    }

    fn finish(&mut self) {
        let path: Vec<PathStep> = self.path.iter().map(|step| step.step.clone()).collect();
        let decision = decide(&path, &self.subject);
        self.state = State::Found(Box::new(Found { path, decision, hops: self.hops.clone() }));
    }

    fn hop(&mut self, asked: String, outcome: HopOutcome) {
        let depth = self.path.len().saturating_sub(1);
        self.hops.push(Hop { asked, depth, outcome });
    }
}

fn ask(Member { scheme, address, authority, path }: &Member, query: &str) -> Ask {
    Ask { scheme: *scheme, address: *address, authority: authority.clone(), target: format!("{path}?{query}") }
}

/// What is asked for the sake of a country that our twins hide. A server has no twins: it registers with who has its range.
fn country_query(subject: &Subject) -> Option<String> {
    subject.range_len().filter(|_| subject.entry_type == EntryType::TunnelDatabase)?;
    subject.country.map(|_| query(subject, None))
}

/// What every database of the way is asked.
fn query(subject: &Subject, range: Option<Prefix>) -> String {
    // Without NETWORK our own address would be matched. The range that no network holds leaves the country.
    let everything = || Prefix::V4(Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0).expect("0 is a length of IPv4"));
    Request::Query(Query {
        entry_type: EntryType::TunnelDatabase,
        country: subject.country,
        protocol: ProtocolFilter::All,
        network: Some(range.unwrap_or_else(everything)),
    })
    .emit()
}

fn shortened(sentence: &str) -> String {
    sentence.chars().take(SENTENCE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
