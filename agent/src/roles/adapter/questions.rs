//! Questions to databases on behalf of an agent: where servers are, where entries belong, what a peer holds.
//!
//! Owns how many are answered at one time and for how long. Whoever asks has shown his key before.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use castgate_client::http::Exchange;
use castgate_client::{CacheFolder, Dns, LocateError, Locator, Trust};
use castgate_control::{AdapterClient, AdapterPeers, DatabaseRole, Registration};
use castgate_endpoint::hierarchy::address::DatabaseAddress;
use castgate_endpoint::hierarchy::discovery::{Found, Member, PathStep, Role, Step, Subject, Walk};
use castgate_endpoint::hierarchy::locator::HopOutcome;
use castgate_endpoint::hierarchy::registrar::{Lookup, Reply, subjects};
use castgate_rpc::v1::{
    self, DiscoverAnswer, DiscoverRequest, LocateAnswer, LocateRequest, TransferRequest, Whereabouts,
};
use castgate_wire::registry::xml::ParseError;
use castgate_wire::registry::{EntryType, Query, Request, Server, Transfer, TransferEntry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Status;

use crate::http::client::{self, PeerAccount, trust_of};
use crate::roles::registrar::{find_out, register_of};

/// Questions at one time: each is some connections, and a transfer goes on for minutes.
const QUESTIONS_MAX: usize = 64;
const TRANSFERS_MAX: usize = 8;
/// Time of one question, a walk of many databases included.
const QUESTION_TIME: Duration = Duration::from_secs(30);
/// Networks of one Discover.
const SUBJECTS_MAX: usize = 256;
/// Walks of one Discover at one time: each has one question under way.
const WALKS_MAX: usize = 8;
/// Entries on their way to an agent that is slower than the peer.
const ENTRIES_WAITING_MAX: usize = 64;

/// Answers them.
#[derive(Debug)]
pub(super) struct Questions {
    dns: Dns,
    turns: Arc<Semaphore>,
    transfers: Arc<Semaphore>,
}

impl Questions {
    pub(super) fn new(dns: Dns) -> Self {
        let semaphore = |places| Arc::new(Semaphore::new(places));
        Self { dns, turns: semaphore(QUESTIONS_MAX), transfers: semaphore(TRANSFERS_MAX) }
    }

    /// The servers of a place, as the databases above this client name them.
    pub(super) async fn locate(&self, client: &AdapterClient, request: &LocateRequest) -> Result<LocateAnswer, Status> {
        let (query, place) = request.query().map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (roots, trust) = above(client)?;
        let _turn = turn(&self.turns)?;
        let asked = match query.entry_type {
            EntryType::TunnelServer => in_time(self.servers(roots, trust, &query, place)).await?,
            EntryType::TunnelDatabase => in_time(self.databases(&roots, &trust, &query, place)).await?,
        };
        let (servers, matched) = asked?;
        Ok(LocateAnswer { servers: servers.iter().map(Into::into).collect(), matched: matched.unwrap_or_default() })
    }

    /// Walks down until somebody names tunnel servers.
    async fn servers(
        &self,
        roots: Vec<DatabaseAddress>,
        trust: Trust,
        query: &Query,
        place: Option<IpAddr>,
    ) -> Answered {
        let locator = Locator::new(roots, query.country, self.dns.clone(), CacheFolder::none()).trusting(trust);
        match locator.for_protocol(query.protocol.clone()).on_behalf_of(place).locate().await {
            Ok(found) => {
                let tier = found.hops.into_iter().rev().find_map(|hop| match hop.outcome {
                    HopOutcome::Servers(_, tier) => tier,
                    _ => None,
                });
                Ok((found.servers, tier))
            }
            // Somebody has answered, and knows nobody.
            Err(LocateError::Walk(error)) if error.hops.iter().any(|hop| hop.outcome == HopOutcome::Nothing) => {
                Ok((Vec::new(), None))
            }
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }

    /// What the first of these that answers knows below it.
    async fn databases(
        &self,
        roots: &[DatabaseAddress],
        trust: &Trust,
        query: &Query,
        place: Option<IpAddr>,
    ) -> Answered {
        let mut last = "no database has an address".to_owned();
        for root in roots {
            let peers = match self.dns.databases(root).await {
                Ok(peers) => peers,
                Err(error) => {
                    last = error.to_string();
                    continue;
                }
            };
            let target = format!("{}?{}", root.path, Request::Query(query.clone()).emit());
            for (peer, authority) in peers {
                let (scheme, trust) = (root.scheme, Some(trust));
                let asked = Exchange::new(peer, &authority, &target);
                let exchange = Exchange { scheme, trust, on_behalf_of: place, ..asked };
                match exchange.run(&self.dns).await {
                    Ok(answer) => match answer.servers() {
                        Ok(servers) => return Ok((servers, answer.matched)),
                        Err(sentence) => last = format!("{peer}: {sentence}"),
                    },
                    Err(error) => last = error.to_string(),
                }
            }
        }
        Err(Status::unavailable(last))
    }

    /// Where the entries of this client would belong.
    pub(super) async fn discover(
        &self,
        client: &AdapterClient,
        request: &DiscoverRequest,
    ) -> Result<DiscoverAnswer, Status> {
        let registration = |entry| Registration::try_from(entry).map(register_of);
        let entries = request.entries.iter().map(registration).collect::<Result<Vec<_>, _>>();
        let entries = entries.map_err(|error| Status::invalid_argument(error.to_string()))?;
        if entries.is_empty() {
            return Ok(DiscoverAnswer::default());
        }
        let Some(discovery) = &client.discovery else {
            let sentence = format!("the databases above {} are named: there is nothing to discover", client.agent);
            return Err(Status::failed_precondition(sentence));
        };
        let role = match discovery.role {
            DatabaseRole::Peer => Role::Peer,
            DatabaseRole::Customer => Role::Customer,
        };
        let mut wanted: Vec<Subject> = Vec::new();
        for subject in subjects(&entries, role) {
            if !wanted.contains(&subject) {
                wanted.push(subject);
            }
            if wanted.len() > SUBJECTS_MAX {
                return Err(Status::invalid_argument(format!("entries: have more than {SUBJECTS_MAX} networks")));
            }
        }
        let (roots, trust) = above(client)?;
        let _turn = turn(&self.turns)?;
        let lines = Arc::new(Semaphore::new(WALKS_MAX));
        let mut walks: JoinSet<(usize, Whereabouts)> = JoinSet::new();
        for (number, subject) in wanted.into_iter().enumerate() {
            let (dns, trust) = (self.dns.clone(), trust.clone());
            let (roots, lines) = (roots.clone(), lines.clone());
            walks.spawn(async move {
                let _line = lines.acquire().await.expect("nobody closes the semaphore");
                (number, whereabouts(&dns, &trust, roots, subject).await)
            });
        }
        let mut found = in_time(walks.join_all()).await?;
        found.sort_by_key(|(number, _)| *number);
        Ok(DiscoverAnswer { found: found.into_iter().map(|(_, whereabouts)| whereabouts).collect() })
    }

    /// The entries of a peer, while they come; until the last the agent's own turn is taken. `found` are the peers that are not named but were found.
    pub(super) fn transfer(
        &self,
        client: &AdapterClient,
        found: &[DatabaseAddress],
        request: &TransferRequest,
        own: OwnedSemaphorePermit,
    ) -> Result<mpsc::Receiver<Result<v1::TransferEntry, Status>>, Status> {
        let transfer = request.transfer().map_err(|error| Status::invalid_argument(error.to_string()))?;
        let Some(peers) = &client.peers else {
            let sentence = format!("no login of peers is given for {}", client.agent);
            return Err(Status::failed_precondition(sentence));
        };
        let mut members: Vec<DatabaseAddress> =
            parse(&peers.members)?.into_iter().chain(found.iter().cloned()).collect();
        if !request.peer.is_empty() {
            let wanted: Option<DatabaseAddress> = request.peer.parse().ok();
            members.retain(|member| Some(member) == wanted.as_ref());
        }
        if members.is_empty() {
            let sentence = format!("{:?} is no peer of the database of {}", request.peer, client.agent);
            return Err(Status::not_found(sentence));
        }
        let turn = turn(&self.transfers)?;
        let (sender, receiver) = mpsc::channel(ENTRIES_WAITING_MAX);
        tokio::spawn(hand_on(self.dns.clone(), members, peers.clone(), transfer, sender, [own, turn]));
        Ok(receiver)
    }
}

type Answered = Result<(Vec<Server>, Option<String>), Status>;

/// Fetches from the first peer that gives anything, until the agent is gone.
async fn hand_on(
    dns: Dns,
    members: Vec<DatabaseAddress>,
    peers: AdapterPeers,
    transfer: Transfer,
    sender: mpsc::Sender<Result<v1::TransferEntry, Status>>,
    _turns: [OwnedSemaphorePermit; 2],
) {
    let AdapterPeers { members: _, login, password, ca } = peers;
    let account = PeerAccount { login: &login, password: &password, ca: ca.as_deref() };
    let mut last = String::new();
    for member in members {
        let (entries, given) = (sender.clone(), Arc::new(AtomicBool::new(false)));
        let begun = given.clone();
        let peer = member.to_string();
        let each = move |entry: Result<TransferEntry, ParseError>| {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    tracing::debug!(peer, %error, "an entry that cannot be read is not handed on");
                    return ControlFlow::Continue(());
                }
            };
            begun.store(true, Ordering::Relaxed);
            match entries.blocking_send(Ok((&entry).into())) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        };
        let outcome = tokio::select! {
            outcome = client::transfer(&dns, &member, account, &transfer, each) => outcome,
            () = sender.closed() => return,
        };
        match outcome {
            Ok(()) => return,
            Err(sentence) => last = format!("{member}: {sentence}"),
        }
        if given.load(Ordering::Relaxed) {
            break;
        }
    }
    // What came before is good, and not all.
    let _ = sender.send(Err(Status::unavailable(last))).await;
}

async fn whereabouts(dns: &Dns, trust: &Trust, roots: Vec<DatabaseAddress>, subject: Subject) -> Whereabouts {
    let mut whereabouts = Whereabouts {
        r#type: subject.entry_type.word().to_owned(),
        network: subject.range.map(|range| range.to_string()).unwrap_or_default(),
        country: subject.country.map(|country| country.to_string()).unwrap_or_default(),
        ..Whereabouts::default()
    };
    match walk(dns, trust, roots, subject).await {
        Ok(Found { path, decision, hops: _ }) => {
            let members =
                |members: Vec<Member>| members.into_iter().map(|member| member.address.to_string()).collect::<Vec<_>>();
            let step = |PathStep { members: those, matched }| v1::PathStep {
                members: members(those),
                matched: matched.map(u32::from),
            };
            whereabouts.path = path.into_iter().map(step).collect();
            whereabouts.register = members(decision.register);
            whereabouts.peers = members(decision.transfer);
        }
        Err(sentence) => whereabouts.trouble = sentence,
    }
    whereabouts
}

async fn walk(dns: &Dns, trust: &Trust, roots: Vec<DatabaseAddress>, subject: Subject) -> Result<Found, String> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| format!("no random numbers: {error}"))?;
    let mut walk = Walk::new(roots, subject, &[], u64::from_le_bytes(seed));
    loop {
        let lookup = match walk.step() {
            Step::ResolveService { name } => Lookup::Services(name),
            Step::ResolveAddress { name } => Lookup::Addresses(name),
            Step::Ask(ask) => Lookup::Databases(ask),
            Step::Found(found) => return Ok(found),
            Step::Failed(error) => return Err(error.to_string()),
        };
        match find_out(dns, trust, lookup).await {
            Reply::Services(result) => walk.handle_service(result),
            Reply::Addresses(result) => walk.handle_addresses(result),
            Reply::Databases(result) => walk.handle_answer(result),
        }
    }
}

/// Where the questions of a client begin, and whose certificates are believed on the way down.
fn above(client: &AdapterClient) -> Result<(Vec<DatabaseAddress>, Trust), Status> {
    let trusted = |ca: Option<&str>| trust_of(ca).map_err(Status::failed_precondition);
    let (roots, trust) = if let Some(discovery) = &client.discovery {
        (parse(&discovery.roots)?, trusted(discovery.ca.as_deref())?)
    } else {
        // One walk meets what any of them names.
        let trusts = client.parents.iter().map(|parent| trusted(parent.ca.as_deref()));
        let trust = trusts.reduce(|one, other| Ok(one?.or(&other?))).transpose()?.unwrap_or_default();
        (parse(client.parents.iter().map(|parent| &parent.url))?, trust)
    };
    if roots.is_empty() {
        return Err(Status::failed_precondition(format!("no database is above {}", client.agent)));
    }
    Ok((roots, trust))
}

/// Addresses that the snapshot has; the role proves them, but for those of peers, when it takes it.
fn parse<'a>(addresses: impl IntoIterator<Item = &'a String>) -> Result<Vec<DatabaseAddress>, Status> {
    let parsed = addresses.into_iter().map(|address| address.parse::<DatabaseAddress>());
    parsed.collect::<Result<_, _>>().map_err(|error| Status::failed_precondition(error.to_string()))
}

/// Nobody waits for his turn: he comes again.
pub(super) fn turn(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    turns.clone().try_acquire_owned().map_err(|_| Status::resource_exhausted("too many questions at one time"))
}

async fn in_time<T>(question: impl Future<Output = T>) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded(format!("no answer within {} s", QUESTION_TIME.as_secs()));
    timeout(QUESTION_TIME, question).await.map_err(late)
}
