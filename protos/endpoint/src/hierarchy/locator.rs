//! The walk of a client from the roots down to its tunnel servers (draft-liefooghe-castgate-02 §4.1.5).
//!
//! Owns the order in which databases are asked and what is remembered for the next time. Looks nothing up, sends nothing,
//! stores nothing: whoever has a resolver, an HTTP client and a file carries out one [`Step`] after the other.
//!
//! ```text
//!   cache younger than 24 h ──▶ its databases ─┐
//!                                              │ nothing
//!   roots, in drawn order ◀────────────────────┘
//!     │ name: SRV, then address
//!     ▼
//!   ask a member ──TDSs──▶ one step deeper: ask a member ──TSs──▶ Found
//!     │ failure or nothing     │ failure or nothing
//!     ▼                        ▼
//!   next member, next root   next member; all gone: next member of the step above
//! ```
//!
//! # How to drive it
//! ```
//! use std::time::SystemTime;
//! use castgate_endpoint::hierarchy::locator::{Answer, Locator, Step, Wanted};
//! use castgate_wire::registry::{EntryType, Protocol, ProtocolFilter, Server};
//!
//! let roots = vec!["127.0.4.1:5632".parse()?];
//! let wanted = Wanted { country: Some("BE".parse()?), protocol: ProtocolFilter::Only(Protocol::Udp) };
//! let now = SystemTime::now().into();
//! let mut locator = Locator::new(roots, wanted, None, 7, now);
//! let found = loop {
//!     match locator.step() {
//!         Step::ResolveService { name } => locator.handle_service(Err(format!("no resolver for {name}"))),
//!         Step::ResolveAddress { name } => locator.handle_addresses(Err(format!("no resolver for {name}"))),
//!         // Here: connect to `ask.address` within CONNECT_TIMEOUT, then
//!         // GET ask.target HTTP/1.1, Host: ask.authority, within ANSWER_TIMEOUT and ANSWER_BYTES_MAX.
//!         Step::Ask(ask) => {
//!             assert_eq!(ask.target, "/script/castgate.cgs?ACTION=QUERY&TYPE=TS&COUNTRY=BE&PROTOCOL=UDP");
//!             let servers = castgate_wire::registry::xml::parse_servers(
//!                 b"<SERVERS><SERVER><ADDRESS>127.0.2.1</ADDRESS><PORT>10100</PORT><TYPE>0</TYPE>\
//!                   <PROTOCOL>UDP</PROTOCOL></SERVER></SERVERS>")?;
//!             locator.handle_answer(Ok(Answer { servers, tier: Some("country".to_owned()) }));
//!         }
//!         Step::Found(found) => break found,
//!         Step::Failed(error) => return Err(error.into()),
//!     }
//! };
//! assert_eq!(found.servers[0].port, 10100);
//! // Keep `found.cache` (serde) on disk and hand it to the next Locator::new.
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use castgate_wire::registry::{self, Country, EntryType, ProtocolFilter, Query, Request, Server};
use serde::{Deserialize, Serialize};

use super::address::{DEFAULT_PORT, DatabaseAddress, Place, SERVICE};
use super::clock::UnixMillis;
use super::lot::Lot;
use super::member::{MEMBERS_MAX, Member, in_service_order};

/// How long a cached answer may be used.
pub const CACHE_AGE_MAX: Duration = Duration::from_hours(24);
/// How long the driver waits for a TCP connection to a database.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the driver waits for the whole answer, connecting included.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer body the driver reads.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Longest way from a root to a tunnel server, in databases. A longer one is a loop of ever new addresses.
pub const PATH_STEPS_MAX: usize = 16;
/// Databases asked in one walk, all detours included: a hierarchy out of order costs seconds, never hours.
pub const ASKS_MAX: usize = 64;
/// Tunnel servers handed out; the rest of a longer list is dropped.
const SERVERS_MAX: usize = 256;

/// What the client looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where the client is, as far as it knows.
    pub country: Option<Country>,
    /// Which tunnel servers it can use.
    pub protocol: ProtocolFilter,
}

/// What the driver shall do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Look up the SRV records of `name` (already with `_castgate._tcp.` in front), then [`Locator::handle_service`].
    ResolveService {
        /// The full name of the service.
        name: String,
    },
    /// Look up the addresses of `name`, then [`Locator::handle_addresses`].
    ResolveAddress {
        /// The host name.
        name: String,
    },
    /// Ask a database, then [`Locator::handle_answer`].
    Ask(Ask),
    /// Done: these are the servers.
    Found(Found),
    /// Done: there are none to be had.
    Failed(LocateError),
}

/// One HTTP request: `GET target` at `address`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Where to connect to.
    pub address: SocketAddr,
    /// The `Host` field.
    pub authority: String,
    /// Path and query string.
    pub target: String,
}

/// One SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTarget {
    /// Lower is asked first.
    pub priority: u16,
    /// Among equal priorities: the share of clients that ask it first.
    pub weight: u16,
    /// TCP port.
    pub port: u16,
    /// Host name; `.` says that there is no such service.
    pub target: String,
}

/// What a database answered with status 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The servers, or the databases to ask next, in the order of the answer.
    pub servers: Vec<Server>,
    /// `X-CastGate-Match`, when present.
    pub tier: Option<String>,
}

/// A walk that ended at tunnel servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The tunnel servers in the order of the database's answer.
    pub servers: Vec<Server>,
    /// Every database asked and every name looked up, in order, with what came of it.
    pub hops: Vec<Hop>,
    /// True when no database could be reached and these are the servers of the last time.
    pub from_cache: bool,
    /// What to keep for the next time.
    pub cache: Cache,
}

/// One question of a walk and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Whom we asked: an address, or a name that was looked up.
    pub asked: String,
    /// How deep below the roots; 0 is a root or a cached database.
    pub depth: usize,
    /// What came of it.
    pub outcome: HopOutcome,
}

/// What came of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HopOutcome {
    /// The name has this many addresses or service records.
    Resolved(usize),
    /// A list of this many databases to ask next, with the tier that matched.
    Databases(usize, Option<String>),
    /// A list of this many tunnel servers, with the tier that matched.
    Servers(usize, Option<String>),
    /// A list without anything we can use.
    Nothing,
    /// No answer, in a sentence.
    Failed(String),
}

/// What is remembered from one walk to the next; made for serde.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    roots: Vec<DatabaseAddress>,
    country: Option<String>,
    protocol: String,
    obtained: UnixMillis,
    databases: Vec<Member>,
    servers: Vec<CachedServer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CachedServer {
    address: IpAddr,
    port: u16,
    protocol: Option<String>,
}

/// No tunnel server, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocateError {
    /// Every database asked and every name looked up, in order, with what came of it.
    pub hops: Vec<Hop>,
}

/// The state machine of one walk. Make a new one for the next.
///
/// [`step`](Self::step) says what to do and keeps saying it until the matching `handle_*` brings the result; a result that
/// nobody waits for is ignored.
#[derive(Debug)]
pub struct Locator {
    wanted: Wanted,
    target_query: String,
    now: UnixMillis,
    lot: Lot,
    all_roots: Vec<DatabaseAddress>,
    /// Roots not tried yet; the last is next.
    roots: Vec<DatabaseAddress>,
    /// From the root step down. Each holds the members not asked yet; the last is next.
    path: Vec<PathStep>,
    asked: HashSet<SocketAddr>,
    answered: bool,
    hops: Vec<Hop>,
    cache: Option<Cache>,
    state: State,
}

#[derive(Debug)]
struct PathStep {
    left: Vec<Member>,
    all: Vec<Member>,
}

#[derive(Debug)]
enum State {
    Service(String),
    Address { name: String, port: u16, path: String },
    Ask(Member),
    Found(Box<Found>),
    Failed,
}

impl Locator {
    /// Starts a walk. `cache` is what an earlier walk left, from whatever roots; it is used only when it answers the same
    /// question and is young enough. `seed` decides which members are asked first.
    #[must_use]
    pub fn new(roots: Vec<DatabaseAddress>, wanted: Wanted, cache: Option<Cache>, seed: u64, now: UnixMillis) -> Self {
        let mut lot = Lot::new(seed);
        let cache = cache.filter(|cache| cache.answers(&roots, &wanted, now));
        let mut left = roots.clone();
        lot.shuffle(&mut left);
        let query = Request::Query(Query {
            entry_type: EntryType::TunnelServer,
            country: wanted.country,
            protocol: wanted.protocol.clone(),
            network: None,
        });
        let mut locator = Self {
            wanted,
            target_query: query.emit(),
            now,
            lot,
            all_roots: roots,
            roots: left,
            path: Vec::new(),
            asked: HashSet::new(),
            answered: false,
            hops: Vec::new(),
            cache,
            state: State::Failed,
        };
        let cached = locator.cache.as_ref().map(|cache| cache.databases.clone()).unwrap_or_default();
        locator.descend(cached);
        locator.advance();
        locator
    }

    /// What to do next.
    #[must_use]
    pub fn step(&self) -> Step {
        match &self.state {
            State::Service(name) => Step::ResolveService { name: format!("{SERVICE}.{name}") },
            State::Address { name, .. } => Step::ResolveAddress { name: name.clone() },
            State::Ask(member) => Step::Ask(Ask {
                address: member.address,
                authority: member.authority.clone(),
                target: format!("{}?{}", member.path, self.target_query),
            }),
            State::Found(found) => Step::Found(Found::clone(found)),
            State::Failed => Step::Failed(LocateError { hops: self.hops.clone() }),
        }
    }

    /// Brings the SRV records of [`Step::ResolveService`]; none or an error makes the name an ordinary host name.
    pub fn handle_service(&mut self, result: Result<Vec<ServiceTarget>, String>) {
        let State::Service(name) = &self.state else { return };
        let name = name.clone();
        match result {
            // RFC 2782: a single target "." says that the service is decidedly not there.
            Ok(targets) if targets.iter().any(|target| matches!(target.target.as_str(), "" | ".")) => {
                self.hop(format!("{SERVICE}.{name}"), HopOutcome::Nothing);
            }
            Ok(targets) if !targets.is_empty() => {
                self.hop(format!("{SERVICE}.{name}"), HopOutcome::Resolved(targets.len()));
                let mut order = in_service_order(targets, &mut self.lot);
                // The last root is next.
                order.reverse();
                self.roots.extend(order.into_iter().map(|target| DatabaseAddress {
                    place: Place::Name { name: target.target.trim_end_matches('.').to_owned(), port: target.port },
                    path: registry::PATH.to_owned(),
                }));
            }
            Ok(_) | Err(_) => {
                self.state = State::Address { name, port: DEFAULT_PORT, path: registry::PATH.to_owned() };
                return;
            }
        }
        self.advance();
    }

    /// Brings the addresses of [`Step::ResolveAddress`].
    pub fn handle_addresses(&mut self, result: Result<Vec<IpAddr>, String>) {
        let State::Address { name, port, path } = &self.state else { return };
        let (name, port, path) = (name.clone(), *port, path.clone());
        match result {
            Ok(addresses) if addresses.is_empty() => {
                self.hop(name, HopOutcome::Failed("the name has no address".to_owned()));
            }
            Ok(addresses) => {
                self.hop(name.clone(), HopOutcome::Resolved(addresses.len()));
                let member = |address| Member {
                    address: SocketAddr::new(address, port),
                    authority: format!("{name}:{port}"),
                    path: path.clone(),
                };
                let members = addresses.into_iter().map(member).collect();
                self.descend(members);
            }
            Err(sentence) => self.hop(name, HopOutcome::Failed(sentence)),
        }
        self.advance();
    }

    /// Brings the answer of [`Step::Ask`]; an error is a sentence: refused, timed out, a status other than 200, no XML.
    pub fn handle_answer(&mut self, result: Result<Answer, String>) {
        let State::Ask(member) = &self.state else { return };
        let asked = member.address;
        match result {
            Err(sentence) => self.hop(asked.to_string(), HopOutcome::Failed(sentence)),
            Ok(answer) => {
                self.answered = true;
                self.take(asked, answer);
                if matches!(self.state, State::Found(_)) {
                    return;
                }
            }
        }
        self.advance();
    }

    fn take(&mut self, asked: SocketAddr, Answer { servers, tier }: Answer) {
        let (databases, servers): (Vec<Server>, Vec<Server>) =
            servers.into_iter().partition(|server| server.entry_type == EntryType::TunnelDatabase);
        // An answer never holds both kinds; where a stranger's does, delegation wins as it does in our own database.
        if !databases.is_empty() {
            let members: Vec<Member> = databases.iter().map(Member::of_server).collect();
            let fresh = members.iter().filter(|member| !self.asked.contains(&member.address)).count();
            if self.path.len() >= PATH_STEPS_MAX {
                let sentence = format!("it names further databases after {PATH_STEPS_MAX} steps");
                return self.hop(asked.to_string(), HopOutcome::Failed(sentence));
            }
            if fresh == 0 {
                let sentence = "it names only databases that were asked already".to_owned();
                return self.hop(asked.to_string(), HopOutcome::Failed(sentence));
            }
            self.hop(asked.to_string(), HopOutcome::Databases(databases.len(), tier));
            return self.descend(members);
        }
        let mut seen = HashSet::new();
        let servers: Vec<Server> = servers
            .into_iter()
            .filter(|server| self.wanted.protocol.matches(server.protocol.as_ref()))
            .filter(|server| seen.insert((server.address, server.port, server.protocol.clone())))
            .take(SERVERS_MAX)
            .collect();
        if servers.is_empty() {
            return self.hop(asked.to_string(), HopOutcome::Nothing);
        }
        self.hop(asked.to_string(), HopOutcome::Servers(servers.len(), tier));
        let databases = self.path.last().map(|step| step.all.clone()).unwrap_or_default();
        let cache = Cache {
            roots: self.all_roots.clone(),
            country: self.wanted.country.as_ref().map(ToString::to_string),
            protocol: self.wanted.protocol.to_string(),
            obtained: self.now,
            databases,
            servers: servers.iter().map(CachedServer::of_server).collect(),
        };
        self.finish(servers, false, cache);
    }

    fn finish(&mut self, servers: Vec<Server>, from_cache: bool, cache: Cache) {
        self.state = State::Found(Box::new(Found { servers, hops: self.hops.clone(), from_cache, cache }));
    }

    /// One step deeper. The loop guard sits in [`advance`](Self::advance): what was asked once is never asked again.
    fn descend(&mut self, mut members: Vec<Member>) {
        if members.is_empty() {
            return;
        }
        self.lot.shuffle(&mut members);
        members.truncate(MEMBERS_MAX);
        self.path.push(PathStep { left: members.clone(), all: members });
    }

    /// Other members, then the step above, then other roots (draft-liefooghe-castgate-02 leaves the failure open).
    fn advance(&mut self) {
        while self.asked.len() < ASKS_MAX {
            if let Some(step) = self.path.last_mut() {
                match step.left.pop() {
                    Some(member) if self.asked.insert(member.address) => {
                        self.state = State::Ask(member);
                        return;
                    }
                    Some(_asked_already) => {}
                    None => {
                        self.path.pop();
                    }
                }
                continue;
            }
            let Some(DatabaseAddress { place, path }) = self.roots.pop() else { break };
            self.state = match place {
                Place::Service(name) => State::Service(name),
                Place::Name { name, port } => State::Address { name, port, path },
                Place::Socket(address) => {
                    self.descend(vec![Member { address, authority: address.to_string(), path }]);
                    continue;
                }
            };
            return;
        }
        self.state = State::Failed;
        // Servers outlive databases: those of the last time are better than none, unless a database said that there are none.
        if !self.answered
            && let Some(cache) = self.cache.clone()
            && !cache.servers.is_empty()
        {
            let servers = cache.servers.iter().map(CachedServer::to_server).collect();
            self.finish(servers, true, cache);
        }
    }

    fn hop(&mut self, asked: String, outcome: HopOutcome) {
        let depth = self.path.len().saturating_sub(1);
        self.hops.push(Hop { asked, depth, outcome });
    }
}

impl Cache {
    fn answers(&self, roots: &[DatabaseAddress], wanted: &Wanted, now: UnixMillis) -> bool {
        self.roots == roots
            && self.country == wanted.country.as_ref().map(ToString::to_string)
            && self.protocol == wanted.protocol.to_string()
            && now.since(self.obtained).is_some_and(|age| age < CACHE_AGE_MAX)
    }
}

impl CachedServer {
    fn of_server(server: &Server) -> Self {
        let protocol = server.protocol.as_ref().map(ToString::to_string);
        Self { address: server.address, port: server.port, protocol }
    }

    fn to_server(&self) -> Server {
        Server {
            address: self.address,
            port: self.port,
            entry_type: EntryType::TunnelServer,
            protocol: self.protocol.as_deref().and_then(|word| word.parse().ok()),
            prefix_len: None,
        }
    }
}

impl fmt::Display for HopOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |tier: &Option<String>| tier.as_ref().map(|tier| format!(" by {tier}")).unwrap_or_default();
        match self {
            Self::Resolved(count) => write!(f, "{count} found in DNS"),
            Self::Databases(count, tier) => write!(f, "{count} databases{}", by(tier)),
            Self::Servers(count, tier) => write!(f, "{count} tunnel servers{}", by(tier)),
            Self::Nothing => f.write_str("knows no tunnel server for this place"),
            Self::Failed(sentence) => f.write_str(sentence),
        }
    }
}

impl fmt::Display for LocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hops.last() {
            None => f.write_str("no tunnel server found: no database is configured"),
            Some(Hop { asked, outcome, .. }) => {
                write!(f, "no tunnel server found after {} questions; the last, {asked}: {outcome}", self.hops.len())
            }
        }
    }
}

impl std::error::Error for LocateError {}

#[cfg(test)]
mod tests;
