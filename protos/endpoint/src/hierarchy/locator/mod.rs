//! The walk of a client from the roots down to its tunnel servers (draft-liefooghe-castgate-02 §4.1.5).
//!
//! Owns the order in which databases are asked and what is remembered for the next time. Looks nothing up, sends nothing,
//! stores nothing: whoever has a resolver, an HTTP client and a file carries out one [`Step`] after the other.
//!
//! ```text
//!   cache younger than 24 h ──▶ its databases, then the roots, in drawn order
//!                                   │ name: SRV, then address
//!                                   ▼
//!                     race of the members of one step, 250 ms apart
//!                       │ first usable answer: the others are dropped
//!            TDSs ◀─────┴─────▶ TSs: Found
//!             │
//!             ▼ one step deeper: race of its members ── all failed: members of the step above that were not asked yet,
//!                                                       at last other roots
//! ```
//! A member is asked when the one before it has failed or has not answered for [`HEAD_START`] (RFC 8305 does so with the
//! addresses of a host). Steps are not mixed: the step above waits until every member of the one below has failed, for its
//! answer would name the same databases again.
//!
//! # How to drive it
//! ```
//! use std::time::{Instant, SystemTime};
//! use castgate_endpoint::hierarchy::locator::{Answer, Locator, Step, Wanted};
//! use castgate_wire::registry::{EntryType, Protocol, ProtocolFilter, Server};
//!
//! let roots = vec!["127.0.4.1:5632".parse()?];
//! let wanted = Wanted { country: Some("BE".parse()?), protocol: ProtocolFilter::Only(Protocol::Udp) };
//! let mut locator = Locator::new(roots, wanted, None, 7, SystemTime::now().into());
//! let found = loop {
//!     // None would mean: wait for the result of what was started, or until `locator.next_timeout()`. After each result
//!     // drop what `locator.awaits` does not want any more.
//!     match locator.poll(Instant::now()).expect("the only database has answered") {
//!         Step::ResolveService { id, name } => locator.handle_service(id, Err(format!("no resolver for {name}"))),
//!         Step::ResolveAddress { id, name } => locator.handle_addresses(id, Err(format!("no resolver for {name}"))),
//!         // Here: connect to `ask.address` within CONNECT_TIMEOUT, then
//!         // GET ask.target HTTP/1.1, Host: ask.authority, within ANSWER_TIMEOUT and ANSWER_BYTES_MAX.
//!         Step::Ask(ask) => {
//!             assert_eq!(ask.target, "/script/castgate.cgs?ACTION=QUERY&TYPE=TS&COUNTRY=BE&PROTOCOL=UDP");
//!             let servers = castgate_wire::registry::xml::parse_servers(
//!                 b"<SERVERS><SERVER><ADDRESS>127.0.2.1</ADDRESS><PORT>10100</PORT><TYPE>0</TYPE>\
//!                   <PROTOCOL>UDP</PROTOCOL></SERVER></SERVERS>")?;
//!             locator.handle_answer(ask.id, Ok(Answer { servers, tier: Some("country".to_owned()) }));
//!         }
//!         Step::Found(found) => break found,
//!         Step::Failed(error) => return Err(error.into()),
//!     }
//! };
//! assert_eq!(found.servers[0].port, 10100);
//! // Keep `found.cache` (serde) on disk and hand it to the next Locator::new.
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cache;
mod path;
mod words;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use castgate_wire::registry::{Country, EntryType, ProtocolFilter, Query, Request, Scheme, Server};

use self::cache::CachedServer;
use self::path::{Candidate, Next, Path};
use super::address::{DEFAULT_PORT, DatabaseAddress, Place, SERVICE};
use super::clock::UnixMillis;
use super::lot::Lot;
use super::member::{Member, Named, in_service_order};

pub use self::cache::{CACHE_AGE_MAX, Cache};
pub use self::words::{Answer, Ask, Found, Hop, HopOutcome, LocateError, ServiceTarget, Step, TaskId};

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
/// Head start of a question over the next one of its step: RFC 8305 §5 recommends 250 ms between two connection attempts, which
/// is longer than the way to any database and back, and shorter than what a person notices.
pub const HEAD_START: Duration = Duration::from_millis(250);
/// Questions that are open at the same time. Enough to pass over a dead site within two seconds; more would only load those
/// that are slow already.
pub const RACE_MAX: usize = 8;
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

/// The state machine of one walk. Make a new one for the next.
///
/// [`poll`](Self::poll) hands out what to do, each task once, several at the same time; the matching `handle_*` brings the
/// result. A result that nobody waits for is ignored.
#[derive(Debug)]
pub struct Locator {
    wanted: Wanted,
    target_query: String,
    now: UnixMillis,
    lot: Lot,
    all_roots: Vec<DatabaseAddress>,
    /// Roots not tried yet; the last is next.
    roots: Vec<DatabaseAddress>,
    path: Path,
    /// A database said that there is nothing for us.
    is_denied: bool,
    hops: Vec<Hop>,
    cache: Option<Cache>,
    /// What the driver is busy with, in the order of its start. Questions all belong to the last step of the path.
    open: Vec<Open>,
    next_id: u32,
    /// Until then the tasks that are open have their head start; `None`: the next one may start.
    head_start: Option<Instant>,
    end: Option<End>,
}

#[derive(Debug)]
struct Open {
    id: TaskId,
    task: Task,
}

#[derive(Debug)]
enum Task {
    Service(String),
    Address(Named),
    Ask(Candidate),
}

#[derive(Debug)]
enum End {
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
            path: Path::new(),
            is_denied: false,
            hops: Vec::new(),
            cache,
            open: Vec::new(),
            next_id: 0,
            head_start: None,
            end: None,
        };
        let cached = locator.cache.as_ref().map(|cache| cache.databases.clone()).unwrap_or_default();
        locator.path.add(cached, &mut locator.lot);
        locator
    }

    /// Leaves the databases of the cache out: the walk starts at the roots. Servers of the cache remain what is handed out when
    /// no database answers.
    #[must_use]
    pub fn from_the_roots(mut self) -> Self {
        self.path = Path::new();
        self
    }

    /// What to do next; `None` when there is nothing to start before a result comes or [`next_timeout`](Self::next_timeout) is
    /// reached. [`Step::Found`] and [`Step::Failed`] are repeated for ever.
    #[must_use]
    pub fn poll(&mut self, now: Instant) -> Option<Step> {
        if self.end.is_none() && (self.open.is_empty() || self.head_start.is_none_or(|until| until <= now)) {
            self.head_start = None;
            if self.open.len() < RACE_MAX
                && let Some(task) = self.next_task()
            {
                self.head_start = Some(now + HEAD_START);
                return Some(self.start(task));
            }
            if self.open.is_empty() {
                self.give_up();
            }
        }
        match self.end.as_ref()? {
            End::Found(found) => Some(Step::Found(Found::clone(found))),
            End::Failed => Some(Step::Failed(LocateError { hops: self.hops.clone() })),
        }
    }

    /// When to [`poll`](Self::poll) again although no result has come.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.head_start.filter(|_| !self.open.is_empty())
    }

    /// Whether the result of a task is still of use; if not, the driver may drop it.
    #[must_use]
    pub fn awaits(&self, id: TaskId) -> bool {
        self.open.iter().any(|open| open.id == id)
    }

    /// Brings the SRV records of [`Step::ResolveService`]; none or an error makes the name an ordinary host name.
    pub fn handle_service(&mut self, id: TaskId, result: Result<Vec<ServiceTarget>, String>) {
        let Some(Task::Service(name)) = self.close(id, |task| matches!(task, Task::Service(_))) else { return };
        match result {
            Ok(targets) if !targets.is_empty() => {
                let resolved = HopOutcome::Resolved(targets.len());
                let order = in_service_order(targets, &mut self.lot);
                self.hop(format!("{SERVICE}.{name}"), if order.is_empty() { HopOutcome::Nothing } else { resolved });
                // The last root is next.
                self.roots.extend(order.into_iter().rev());
            }
            Ok(_) | Err(_) => {
                self.roots.push(DatabaseAddress::at(Scheme::Http, Place::Name { name, port: DEFAULT_PORT }));
            }
        }
    }

    /// Brings the addresses of [`Step::ResolveAddress`].
    pub fn handle_addresses(&mut self, id: TaskId, result: Result<Vec<IpAddr>, String>) {
        let Some(Task::Address(named)) = self.close(id, |task| matches!(task, Task::Address(_))) else { return };
        match result {
            Ok(addresses) if addresses.is_empty() => {
                self.hop(named.name, HopOutcome::Failed("the name has no address".to_owned()));
            }
            Ok(addresses) => {
                self.hop(named.name.clone(), HopOutcome::Resolved(addresses.len()));
                self.path.add(named.members(addresses), &mut self.lot);
            }
            Err(sentence) => self.hop(named.name, HopOutcome::Failed(sentence)),
        }
    }

    /// Brings the answer of [`Step::Ask`]; an error is a sentence: refused, timed out, a status other than 200, no XML.
    pub fn handle_answer(&mut self, id: TaskId, result: Result<Answer, String>) {
        let Some(Task::Ask(candidate)) = self.close(id, |task| matches!(task, Task::Ask(_))) else { return };
        match result {
            Err(sentence) => self.hop(candidate.member.address.to_string(), HopOutcome::Failed(sentence)),
            Ok(answer) => {
                self.take(&candidate, answer);
            }
        }
    }

    /// A task is done, well or not: whatever comes next starts at once.
    fn close(&mut self, id: TaskId, is_kind: impl Fn(&Task) -> bool) -> Option<Task> {
        let at = self.open.iter().position(|open| open.id == id && is_kind(&open.task))?;
        self.head_start = None;
        Some(self.open.remove(at).task)
    }

    fn take(&mut self, candidate: &Candidate, Answer { servers, tier }: Answer) {
        let asked = candidate.member.address;
        let (databases, servers): (Vec<Server>, Vec<Server>) =
            servers.into_iter().partition(|server| server.entry_type == EntryType::TunnelDatabase);
        // An answer never holds both kinds; where a stranger's does, delegation wins as it does in our own database.
        if !databases.is_empty() {
            let members: Vec<Member> = databases.iter().map(Member::of_server).collect();
            // Whoever has not answered yet may be asked once more, as a member of the new step.
            let is_open = |address| self.open.iter().any(|open| open.task.asks() == Some(address));
            let is_fresh = |member: &Member| !self.path.was_asked(member) || is_open(member.address);
            let fresh = members.iter().filter(|member| is_fresh(member)).count();
            if self.path.is_full() {
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
            self.is_denied = true;
            return self.hop(asked.to_string(), HopOutcome::Nothing);
        }
        self.hop(asked.to_string(), HopOutcome::Servers(servers.len(), tier));
        let cache = Cache {
            roots: self.all_roots.clone(),
            country: self.wanted.country.as_ref().map(ToString::to_string),
            protocol: self.wanted.protocol.to_string(),
            obtained: self.now,
            databases: self.path.list_of(candidate),
            servers: servers.iter().map(CachedServer::of_server).collect(),
        };
        self.call_back();
        self.finish(servers, false, cache);
    }

    fn finish(&mut self, servers: Vec<Server>, from_cache: bool, cache: Cache) {
        let age = self.now.since(cache.obtained).unwrap_or_default();
        self.end = Some(End::Found(Box::new(Found { servers, hops: self.hops.clone(), from_cache, age, cache })));
    }

    fn descend(&mut self, members: Vec<Member>) {
        self.call_back();
        self.path.descend();
        self.path.add(members, &mut self.lot);
    }

    /// The race is over: what is still open goes back to where it came from, in case the winner leads nowhere.
    fn call_back(&mut self) {
        let open = std::mem::take(&mut self.open);
        // The last is next, so whoever was started first goes back last.
        for Open { id: _, task } in open.into_iter().rev() {
            match task {
                Task::Ask(candidate) => {
                    self.hop(candidate.member.address.to_string(), HopOutcome::Overtaken);
                    self.path.give_back(candidate);
                }
                Task::Service(name) => {
                    self.roots.push(DatabaseAddress::at(Scheme::Http, Place::Service(name)));
                }
                Task::Address(named) => self.roots.push(named.into()),
            }
        }
        self.head_start = None;
    }

    fn start(&mut self, task: Task) -> Step {
        let id = TaskId(self.next_id);
        self.next_id += 1;
        let step = match &task {
            Task::Service(name) => Step::ResolveService { id, name: format!("{SERVICE}.{name}") },
            Task::Address(named) => Step::ResolveAddress { id, name: named.name.clone() },
            Task::Ask(Candidate { member, .. }) => Step::Ask(Ask {
                id,
                scheme: member.scheme,
                address: member.address,
                authority: member.authority.clone(),
                target: format!("{}?{}", member.path, self.target_query),
            }),
        };
        self.open.push(Open { id, task });
        step
    }

    /// Other members, then the step above, then other roots (draft-liefooghe-castgate-02 leaves the failure open).
    fn next_task(&mut self) -> Option<Task> {
        loop {
            match self.path.next() {
                Next::Ask(candidate) => return Some(Task::Ask(candidate)),
                Next::Enough => return None,
                // The step above has to wait for those of this one that have not answered.
                Next::Nobody if self.path.depth() > 0 && !self.open.is_empty() => return None,
                Next::Nobody if self.path.ascend() => continue,
                Next::Nobody => {}
            }
            let DatabaseAddress { scheme, place, path } = self.roots.pop()?;
            match place {
                Place::Service(name) => return Some(Task::Service(name)),
                Place::Name { name, port } => return Some(Task::Address(Named { scheme, name, port, path })),
                Place::Socket(address) => {
                    let member = Member { scheme, address, authority: address.to_string(), path };
                    self.path.add(vec![member], &mut self.lot);
                }
            }
        }
    }

    /// Nothing is open and nothing is left.
    fn give_up(&mut self) {
        self.end = Some(End::Failed);
        // Servers outlive databases: those of the last time are better than none, unless a database said that there are none.
        if !self.is_denied
            && let Some(cache) = self.cache.clone()
            && !cache.servers.is_empty()
        {
            let servers = cache.servers.iter().map(CachedServer::to_server).collect();
            self.finish(servers, true, cache);
        }
    }

    fn hop(&mut self, asked: String, outcome: HopOutcome) {
        self.hops.push(Hop { asked, depth: self.path.depth(), outcome });
    }
}

impl Task {
    /// Whom it asks, if it does.
    fn asks(&self) -> Option<SocketAddr> {
        match self {
            Self::Ask(candidate) => Some(candidate.member.address),
            Self::Service(_) | Self::Address(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
