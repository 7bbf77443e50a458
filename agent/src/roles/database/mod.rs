//! The role `database`: HTTP in front, the state machine of the hierarchy inside, a store on disk behind.
//!
//! ```text
//!   TCP ─▶ http::server ─▶ service ─▶ endpoint::hierarchy::database
//!                            │  ▲              │ changes
//!                  passwords ▼  │ committed    ▼
//!              (blocking threads) ◀───────── store (one thread, redb)
//! ```
//! Beside it a task keeps up with the peers (`peers`), and every change is written down (`audit`). Where several databases share
//! an etcd, that takes the place of store and peers (`shared`).
//!
//! Owns tasks and their life. A REGISTER is answered after its entry is on disk, so that a kill -9 takes nothing back that
//! was promised. A database that starts again holds each entry until its old deadline, but for one update interval at least:
//! the servers below had nowhere to refresh while it was down.

mod audit;
mod peers;
mod rotations;
mod rules;
mod service;
mod shared;
mod standstill;
mod store;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use castgate_client::Dns;
use castgate_control::{DatabaseSnapshot, EtcdSnapshot, RouteTableError, SnapshotError, StoreSnapshot};
use castgate_endpoint::hierarchy::accounts::AccountError;
use castgate_endpoint::hierarchy::address::AddressError;
use castgate_endpoint::hierarchy::database::{self as endpoint, StoredEntry};
use castgate_endpoint::hierarchy::policy::Moved;
use castgate_etcd::EtcdError;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

pub use rotations::RotationReport;
pub use rules::{PolicyError, RuleReport};
pub use store::StoreError;

use crate::http::server;
use crate::news::tell;
use crate::roles::peering::Peering;
use crate::tls::Port;
use audit::Act;
use peers::{Peers, Settings};
use rotations::Rotations;
use rules::Rules;
use service::{PeerLogin, Service};
use shared::{Follower, Shared};
use store::Store;

/// Why the role does not run, or not like this: one sentence that names the field, the address or the file.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Certificate and key cannot be used.
    #[error("tls.{0}")]
    Tls(String),
    /// An account cannot be used.
    #[error("accounts: {0}")]
    Account(#[from] AccountError),
    /// A peer's address is none.
    #[error("peers: {0}")]
    Peer(#[from] AddressError),
    /// A policy cannot be used.
    #[error("policies{0}")]
    Policy(#[from] PolicyError),
    /// The route table of the accounts cannot be read.
    #[error("routes.file: {0}: {1}")]
    Routes(PathBuf, RouteTableError),
    /// A row of it is none.
    #[error("routes.{0}")]
    Rows(SnapshotError),
    /// Another part of the snapshot cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The address cannot be listened on.
    #[error("listen: {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The store cannot be used.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// The etcd of the snapshot cannot be used.
    #[error("store.etcd.{0}")]
    Etcd(#[from] EtcdError),
    /// The environment names a resolver that is none.
    #[error("{0}")]
    Resolver(String),
    /// The system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(String),
    /// Another address needs another start.
    #[error("listen: a running database stays at {0}")]
    Moved(SocketAddr),
    /// Another store needs another start.
    #[error("store: a running database stays with its store")]
    OtherStore,
}

/// What the role carries at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatabaseReport {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Entries that it holds.
    pub entries: u64,
    /// Accounts that may register.
    pub accounts: u64,
    /// REGISTERs carried out since the start, refreshes included.
    pub registers: u64,
    /// BYEs carried out since the start.
    pub byes: u64,
    /// QUERYs answered since the start.
    pub queries: u64,
    /// Requests answered with a status of 400 or above since the start.
    pub refused: u64,
    /// Passwords that had to be checked since the start; a refresh with the same password needs none.
    pub password_checks: u64,
    /// What each rule of its policies did.
    pub rules: Vec<RuleReport>,
    /// Accounts whose password is being changed.
    pub rotations: Vec<RotationReport>,
    /// Whether its etcd does not answer: nothing can be registered then.
    pub store_lost: bool,
}

/// The running role.
#[derive(Debug)]
pub struct Database {
    listen: SocketAddr,
    asked_for: SocketAddr,
    store: StoreSnapshot,
    service: Arc<Service>,
    peers: watch::Sender<Option<Settings>>,
    rules: Arc<Mutex<Rules>>,
    /// Where the route tables are that the rules need.
    files: watch::Sender<Vec<PathBuf>>,
    rotations: Rotations,
    tls: Port,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Database {
    /// Listens, opens the store below `state_dir` and brings its entries back. Requests that come meanwhile are told to come
    /// again.
    ///
    /// # Errors
    /// [`DatabaseError`]; nothing runs then.
    ///
    /// # Panics
    /// When opening the store panics.
    pub async fn start(snapshot: DatabaseSnapshot, state_dir: &Path) -> Result<Self, DatabaseError> {
        Self::start_beside(snapshot, state_dir, Peering::default()).await
    }

    /// [`start`](Self::start) beside a registrar that finds peers, and waits until we know what they know.
    ///
    /// # Errors
    /// [`DatabaseError`]; nothing runs then.
    ///
    /// # Panics
    /// When opening the store panics.
    pub async fn start_beside(
        snapshot: DatabaseSnapshot,
        state_dir: &Path,
        board: Peering,
    ) -> Result<Self, DatabaseError> {
        let (peer_login, peer_settings) = peers_of(&snapshot)?;
        let tls = Port::new(snapshot.tls.as_ref()).map_err(DatabaseError::Tls)?;
        let store = snapshot.store.clone();
        let mut key = [0; 16];
        getrandom::fill(&mut key).map_err(|error| DatabaseError::Random(error.to_string()))?;
        let asked_for = snapshot.listen;
        let listener = TcpListener::bind(asked_for).await.map_err(|error| DatabaseError::Listen(asked_for, error))?;
        let listen = listener.local_addr().map_err(|error| DatabaseError::Listen(asked_for, error))?;

        let requests_per_minute = snapshot.requests_per_minute_max.get();
        let trusted_proxies = snapshot.trusted_proxies.clone();
        let rules = Arc::default();
        let (in_force, ready) = Rules::take(&rules, snapshot).await?;
        let files = watch::Sender::new(in_force.files());
        drop(in_force);
        let mut rotations = Rotations::default();
        rotations.set(&ready.accounts);
        let mut database = endpoint::Database::new(ready.config, ready.accounts, key);
        database.set_policies(ready.policies);
        let service = Arc::new(Service::new(database, requests_per_minute, trusted_proxies, state_dir));
        service.set_peer_login(peer_login);
        let peers = watch::Sender::new(peer_settings);
        let (stop, stopped) = watch::channel(false);
        let tasks = Vec::new();
        let mut role = Self { listen, asked_for, store, service, peers, rules, files, rotations, tls, stop, tasks };
        match role.store.clone() {
            StoreSnapshot::Embedded => role.run_embedded(listener, stopped, state_dir, board).await?,
            StoreSnapshot::Etcd(etcd) => role.run_shared(listener, stopped, &etcd, board)?,
        }
        Ok(role)
    }

    /// With a store of its own.
    async fn run_embedded(
        &mut self,
        listener: TcpListener,
        stopped: watch::Receiver<bool>,
        state_dir: &Path,
        board: Peering,
    ) -> Result<(), DatabaseError> {
        let dns = Dns::from_environment().map_err(|error| DatabaseError::Resolver(error.to_string()))?;
        let (service, listen) = (self.service.clone(), self.listen);
        let (found, settings) = (board.peers(), self.peers.subscribe());
        let together = Peers { service: service.clone(), dns, own: listen, settings, found, board };
        // Before the first question can come.
        service.set_synchronised(!together.may_have_members());
        together.board.set_ready(true);
        let server = tokio::spawn(server::serve(listener, self.tls.subscribe(), service.clone(), stopped.clone()));

        let (folder, audit) = (state_dir.to_owned(), service.audit().clone());
        let opened = tokio::task::spawn_blocking(move || Store::open(&folder, audit)).await;
        let (store, entries) = match opened.expect("nobody cancels it") {
            Ok(opened) => opened,
            Err(error) => {
                server.abort();
                // Until it is gone, the address is taken.
                let _ = server.await;
                return Err(error.into());
            }
        };
        restore(&service, entries);
        service.start(store);
        tracing::info!(%listen, entries = service.database().len(), "database started");
        let expiry = tokio::spawn(expire(service.clone(), stopped.clone()));
        let beats = tokio::spawn(beat(service, stopped.clone()));
        let tables = self.follow_tables(stopped.clone());
        let together = tokio::spawn(together.run(stopped));
        self.tasks = vec![server, expiry, beats, tables, together];
        Ok(())
    }

    /// With an etcd, where other databases have the same entries.
    fn run_shared(
        &mut self,
        listener: TcpListener,
        stopped: watch::Receiver<bool>,
        etcd: &EtcdSnapshot,
        board: Peering,
    ) -> Result<(), DatabaseError> {
        let (service, listen) = (self.service.clone(), self.listen);
        let shared = Arc::new(Shared::new(etcd)?);
        // Neither asked nor announced before it knows what the others know.
        service.set_synchronised(false);
        board.set_synchronised(false);
        board.set_ready(false);
        service.start_shared(shared.clone());
        tracing::info!(%listen, endpoints = ?etcd.endpoints, "database started, reading etcd");
        let server = tokio::spawn(server::serve(listener, self.tls.subscribe(), service.clone(), stopped.clone()));
        let beats = tokio::spawn(beat(service.clone(), stopped.clone()));
        let tables = self.follow_tables(stopped.clone());
        let follower = tokio::spawn(Follower::new(shared, service, board).run(stopped));
        self.tasks = vec![server, beats, tables, follower];
        Ok(())
    }

    fn follow_tables(&self, stopped: watch::Receiver<bool>) -> JoinHandle<()> {
        tokio::spawn(rules::follow(self.rules.clone(), self.files.subscribe(), self.service.clone(), stopped))
    }

    /// Goes over to other accounts, bounds, intervals, regions and policies, and to another certificate for connections to come.
    /// Entries that their account may no longer claim are gone at once; the next QUERY is answered after the new policies and
    /// regions. A route table that is not in memory is read before, on a thread that may wait.
    ///
    /// # Errors
    /// [`DatabaseError`]; the role goes on as before.
    pub async fn apply(&mut self, snapshot: DatabaseSnapshot) -> Result<(), DatabaseError> {
        if snapshot.listen != self.asked_for {
            return Err(DatabaseError::Moved(self.asked_for));
        }
        if snapshot.store != self.store {
            return Err(DatabaseError::OtherStore);
        }
        let (peer_login, peer_settings) = peers_of(&snapshot)?;
        let tls = self.tls.prepare(snapshot.tls.as_ref()).map_err(DatabaseError::Tls)?;
        let (requests_per_minute, trusted_proxies) =
            (snapshot.requests_per_minute_max.get(), snapshot.trusted_proxies.clone());
        let (in_force, ready) = Rules::take(&self.rules, snapshot).await?;
        self.rotations.set(&ready.accounts);
        rules::put(&self.service, ready);
        let files = in_force.files();
        tell(&self.files, files);
        drop(in_force);
        if let Some(tls) = tls {
            self.tls.put(tls);
        }
        self.service.set_peer_login(peer_login);
        tell(&self.peers, peer_settings);
        self.service.set_limits(requests_per_minute, trusted_proxies);
        Ok(())
    }

    /// What it carries at this moment.
    #[must_use]
    pub fn report(&self) -> DatabaseReport {
        let (entries, accounts, rules, rotations) = {
            let database = self.service.database();
            let rules = database.moved().map(|Moved { policy, rule, clients, answers }| RuleReport {
                policy,
                rule,
                clients,
                answers,
            });
            let rotations = self.rotations.report(database.accounts());
            (database.len() as u64, database.accounts().len() as u64, rules.collect(), rotations)
        };
        let counters = &self.service.counters;
        DatabaseReport {
            listen: self.listen,
            entries,
            accounts,
            registers: counters.registers.load(Ordering::Relaxed),
            byes: counters.byes.load(Ordering::Relaxed),
            queries: counters.queries.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
            password_checks: counters.password_checks.load(Ordering::Relaxed),
            rules,
            rotations,
            store_lost: self.service.shared().is_some_and(|shared| shared.is_lost()),
        }
    }

    /// Where it listens: the port as well when the snapshot left it to the system.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.listen
    }

    /// How many entries it holds, whenever that changes.
    #[must_use]
    pub fn entries(&self) -> watch::Receiver<usize> {
        self.service.entries()
    }

    /// Whether QUERY is answered: until the first transfer from its peers it is not.
    #[must_use]
    pub fn is_synchronised(&self) -> bool {
        self.service.database().is_synchronised()
    }

    /// Ends: gives its entries to its peers, when the snapshot wants that, lets requests under way finish, writes what is pending,
    /// closes the store. Entries stay in the store.
    pub async fn stop(mut self) {
        self.hand_over().await;
        let _ = self.stop.send(true);
        for task in std::mem::take(&mut self.tasks) {
            let _ = task.await;
        }
        let service = self.service.clone();
        let closed = tokio::task::spawn_blocking(move || {
            if let Some(store) = service.store() {
                store.close();
            }
        });
        let _ = closed.await;
    }
}

impl Database {
    /// Waits until every peer took what we have, and takes nothing new meanwhile.
    async fn hand_over(&self) {
        let settings = self.peers.borrow().clone();
        let Some((members, wait)) = settings.and_then(|settings| Some((settings.members.len(), settings.hand_over?)))
        else {
            return;
        };
        let mut takers = self.service.leave();
        // Who does not know all does not give, and nothing is soon given.
        if members == 0 || !self.is_synchronised() || self.service.database().is_empty() {
            return;
        }
        let all = takers.wait_for(|takers| takers.as_ref().is_some_and(|takers| takers.len() >= members));
        if tokio::time::timeout(wait, all).await.is_ok() {
            tracing::info!(peers = members, "every peer has what this database had");
        } else {
            let waited_seconds = wait.as_secs();
            tracing::warn!(waited_seconds, "not every peer came for the last entries of this database");
        }
    }
}

impl Drop for Database {
    /// Dropped without [`stop`](Self::stop): as if killed, but nothing goes on running in the background.
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn restore(service: &Service, entries: Vec<StoredEntry>) {
    let (now, wall) = (Instant::now(), SystemTime::now().into());
    service.restore(|database| {
        for stored in entries {
            match stored.to_entry() {
                Ok(entry) => database.restore(now, wall, entry, stored.expires()),
                Err(error) => tracing::warn!(%error, "stored entry dropped"),
            }
        }
    });
}

/// Lets entries go when their time is up.
async fn expire(service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    loop {
        let next = service.database().next_timeout();
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = service.deadline_changed.notified() => continue,
            () = due => {}
        }
        let before = service.database().len();
        let act = Act { action: "expire", login: None, source: None };
        drop(service.change(act, |database| database.handle_timeout(Instant::now())));
        // Many may go at once: whoever asks has his turn in between.
        tokio::task::yield_now().await;
        let gone = before.saturating_sub(service.database().len());
        if gone > 0 {
            tracing::info!(entries = gone, "no longer refreshed, removed");
        }
    }
}

/// Notices when this process stood still.
async fn beat(service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    loop {
        service.standstill.beat(Instant::now());
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(standstill::BEAT) => {}
        }
    }
}

/// Who may take all entries, and whom we take them from.
fn peers_of(snapshot: &DatabaseSnapshot) -> Result<(Option<PeerLogin>, Option<Settings>), DatabaseError> {
    let Some(peers) = &snapshot.peers else { return Ok((None, None)) };
    let login = PeerLogin::new(&peers.login, &peers.password, peers.serve);
    Ok((Some(login), Some(Settings::read(peers)?)))
}
