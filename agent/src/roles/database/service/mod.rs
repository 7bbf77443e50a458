//! What a request to the database means, and with which status it is answered (castgate UMTP notes for the status codes).
//!
//! ```text
//!   path, method, length ─▶ rate ─▶ started? ─▶ pairs ─▶ QUERY    ─────────────────────▶ 200 XML
//!     404    405    414     429      503         400 ├─▶ REGISTER ─▶ password ─▶ claims ─▶ on disk ─▶ 200
//!                                                    ├─▶ BYE          401, 429    403 …     503
//!                                                    └─▶ TRANSFER ─▶ peers' login ─▶ synchronised? ─▶ 200 XML in parts
//! ```

mod answer;
mod passwords;
mod transfer;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Instant, SystemTime};

use castgate_endpoint::hierarchy::database::{Caller, Change, Database, Doubt, Tier};
use castgate_wire::registry::{Bye, Query, Register, Request as Action, xml};
use hyper::StatusCode;
use hyper::header::HeaderValue;
use ipnet::IpNet;
use tokio::sync::{Notify, watch};

pub(super) use transfer::PeerLogin;

use super::audit::{Act, Audit, Held};
use super::shared::Shared;
use super::standstill::Standstill;
use super::store::{Committed, Store};
use crate::http::rate::{Rate, host};
use crate::http::server::{Answer, Handler, Header, Reply, Request};
use crate::http::words::{BUSY_RETRY, Failure, XML, admit, empty, read, with};
use crate::http::{MATCH, UPDATE_INTERVAL, source};
use crate::news::tell;
use passwords::Passwords;

const NOT_SYNCHRONISED: &str = "this database does not know yet what its peers know";

/// Everything that requests share.
#[derive(Debug)]
pub(super) struct Service {
    /// Any number of questions at one time; a change waits for them, and holds them up for microseconds.
    database: RwLock<Database>,
    /// Absent until the entries are restored.
    store: OnceLock<Store>,
    /// Instead of it: entries that several databases share.
    shared: OnceLock<Arc<Shared>>,
    started: AtomicBool,
    rate: Rate<IpAddr>,
    passwords: Passwords,
    trusted_proxies: RwLock<Vec<IpNet>>,
    /// Who gets all entries; `None`: nobody.
    peer_login: RwLock<Option<PeerLogin>>,
    /// While we end: the peers that came for all entries since.
    takers: watch::Sender<Option<BTreeSet<IpAddr>>>,
    audit: Arc<Audit>,
    /// Another entry is the next to go.
    pub(super) deadline_changed: Notify,
    entries: watch::Sender<usize>,
    doubt: watch::Sender<Doubt>,
    pub(super) standstill: Standstill,
    pub(super) counters: Counters,
}

/// Requests since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) registers: AtomicU64,
    pub(super) byes: AtomicU64,
    pub(super) queries: AtomicU64,
    /// Answered with 400 or above.
    pub(super) refused: AtomicU64,
    pub(super) password_checks: AtomicU64,
}

impl Service {
    pub(super) fn new(
        database: Database,
        requests_per_minute: u32,
        trusted_proxies: Vec<IpNet>,
        state_dir: &Path,
    ) -> Self {
        let now = Instant::now();
        Self {
            database: RwLock::new(database),
            store: OnceLock::new(),
            shared: OnceLock::new(),
            started: AtomicBool::new(false),
            rate: Rate::new(requests_per_minute, now),
            passwords: Passwords::new(now),
            trusted_proxies: RwLock::new(trusted_proxies),
            peer_login: RwLock::new(None),
            takers: watch::Sender::new(None),
            audit: Arc::new(Audit::new(state_dir)),
            deadline_changed: Notify::new(),
            entries: watch::Sender::new(0),
            doubt: watch::Sender::new(Doubt::None),
            standstill: Standstill::new(now),
            counters: Counters::default(),
        }
    }

    /// From now on requests are answered from what the store held.
    pub(super) fn start(&self, store: Store) {
        if self.store.set(store).is_err() {
            unreachable!("a service starts once");
        }
        drop(self.change(Act { action: "restore", login: None, source: None }, |_| ()));
        self.started.store(true, Ordering::Release);
    }

    /// From now on requests are answered; what is in the store comes with time (`set_synchronised`).
    pub(super) fn start_shared(&self, shared: Arc<Shared>) {
        if self.shared.set(shared).is_err() {
            unreachable!("a service starts once");
        }
        self.started.store(true, Ordering::Release);
    }

    pub(super) fn set_limits(&self, requests_per_minute: u32, trusted_proxies: Vec<IpNet>) {
        self.rate.set(requests_per_minute);
        *self.trusted_proxies.write().unwrap_or_else(PoisonError::into_inner) = trusted_proxies;
    }

    pub(super) fn set_peer_login(&self, peer_login: Option<PeerLogin>) {
        *self.peer_login.write().unwrap_or_else(PoisonError::into_inner) = peer_login;
    }

    /// Whether QUERY and TRANSFER are answered.
    pub(super) fn set_synchronised(&self, synchronised: bool) {
        if self.database().is_synchronised() != synchronised {
            self.database.write().unwrap_or_else(PoisonError::into_inner).set_synchronised(synchronised);
        }
    }

    /// From now on nothing is taken any more, and peers that take all entries are noted: what they get is all there ever was.
    pub(super) fn leave(&self) -> watch::Receiver<Option<BTreeSet<IpAddr>>> {
        // Every change before is done, and every one after sees it.
        let _changes = self.database.write().unwrap_or_else(PoisonError::into_inner);
        self.takers.send_replace(Some(BTreeSet::new()));
        self.takers.subscribe()
    }

    /// To be looked at under the lock of a change.
    fn stays(&self) -> Result<(), Failure> {
        if self.takers.borrow().is_some() {
            return Err(Failure::busy("this database ends; ask again, and another one answers"));
        }
        Ok(())
    }

    pub(super) fn audit(&self) -> &Arc<Audit> {
        &self.audit
    }

    pub(super) fn store(&self) -> Option<&Store> {
        self.store.get()
    }

    pub(super) fn shared(&self) -> Option<&Arc<Shared>> {
        self.shared.get()
    }

    pub(super) fn database(&self) -> RwLockReadGuard<'_, Database> {
        // What is inside is whole between any two statements that can panic.
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills the database from what is in the store already.
    pub(super) fn restore(&self, restore: impl FnOnce(&mut Database)) {
        restore(&mut self.database.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Says whether there are peers to learn from.
    pub(super) fn set_has_peers(&self, has_peers: bool) {
        self.database.write().unwrap_or_else(PoisonError::into_inner).set_has_peers(has_peers);
    }

    /// What the database thinks of what it knows, whenever that changes.
    pub(super) fn doubt(&self) -> watch::Receiver<Doubt> {
        self.doubt.subscribe()
    }

    /// How many entries there are, whenever that changes.
    pub(super) fn entries(&self) -> watch::Receiver<usize> {
        self.entries.subscribe()
    }

    /// Changes the database, sends what changed to the store, in the same order, and writes down who did it: at once, or with what the
    /// store writes next.
    pub(super) fn change<T>(&self, act: Act<'_>, change: impl FnOnce(&mut Database) -> T) -> (T, Option<Committed>) {
        let nobody = Act { action: "expire", login: None, source: None };
        let mut lines: Vec<(Act<'_>, &str, String)> = Vec::new();
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let deadline = database.next_timeout();
        let outcome = change(&mut database);
        let mut changes = Vec::new();
        while let Some(change) = database.poll_change() {
            match &change {
                Change::Put(key, _) => lines.push((act, "put", key.to_string())),
                Change::Delete(key) => lines.push((act, "gone", key.to_string())),
                // Whoever happened to be served when it was noticed had no part in it.
                Change::Expire(key) => lines.push((nobody, "expired", key.to_string())),
                // Its owner changes nothing; what peers tell is told as one line with their number.
                Change::Refresh(..) => {}
            }
            changes.push(change);
        }
        // Before the store can have written any of it.
        let mut held = Held::Little;
        for (act, outcome, about) in &lines {
            held = self.audit.hold(*act, outcome, about);
        }
        let store = self.store.get().filter(|_| !changes.is_empty());
        if let Some(shared) = self.shared.get() {
            shared.follow(changes.iter());
        }
        let committed = store.and_then(|store| store.follow(changes.into_iter()));
        let entries = database.len();
        tell(&self.entries, entries);
        let doubt = database.doubt();
        tell(&self.doubt, doubt);
        let same_deadline = deadline == database.next_timeout();
        drop(database);
        if !same_deadline {
            self.deadline_changed.notify_one();
        }
        for (act, outcome, about) in &lines {
            Audit::tell(*act, None, outcome, about);
        }
        if !lines.is_empty() && (committed.is_none() || held == Held::Much) {
            self.audit.flush();
        }
        (outcome, committed)
    }

    /// What asks for something without proving who it is, is answered at once; the rest waits for passwords and the disk.
    fn act(self: &Arc<Self>, request: Request<'_>, source: IpAddr) -> Result<Reply, Failure> {
        let (action, login) = read(request)?;
        match action {
            Action::Query(query) => {
                let caller = Caller { address: source, asked_at: Some(request.local) };
                self.query(request.at, caller, &query).map(Reply::now)
            }
            Action::Transfer(transfer) => self.transfer(source, login, transfer).map(Reply::now),
            Action::Register(register) => Ok(self.later(source, |service| async move {
                let login = service.authenticate(source, login).await?;
                service.register(source, &login, &register).await
            })),
            Action::Bye(bye) => Ok(self.later(source, |service| async move {
                let login = service.authenticate(source, login).await?;
                service.bye(source, &login, &bye).await
            })),
        }
    }

    fn query(&self, now: Instant, caller: Caller, query: &Query) -> Result<Answer, Failure> {
        self.counters.queries.fetch_add(1, Ordering::Relaxed);
        let wall = SystemTime::now().into();
        let answer = {
            let database = self.database();
            database.answers().then(|| database.query(now, wall, caller, query))
        };
        let Some(answer) = answer else {
            if *self.doubt.borrow() == Doubt::Unheard {
                let act = Act { action: "query", login: None, source: Some(caller.address) };
                drop(self.change(act, Database::notice_question));
            }
            return Err(Failure::busy(NOT_SYNCHRONISED));
        };
        let mut response = with(StatusCode::OK, &XML, xml::emit_servers(&answer.servers));
        let tier = HeaderValue::from_static(answer.tier.map_or("none", Tier::word));
        response.headers_mut().insert(&MATCH, tier);
        Ok(response)
    }

    async fn register(&self, source: IpAddr, login: &str, register: &Register) -> Result<Answer, Failure> {
        let (now, wall) = (Instant::now(), SystemTime::now().into());
        let act = Act { action: "register", login: Some(login), source: Some(source) };
        let registered = if let Some(shared) = self.shared() {
            let (proposal, lifetime) = {
                let database = self.database();
                (database.propose(wall, login, register)?, database.lifetime())
            };
            shared.register(&proposal, lifetime).await?;
            if !proposal.is_known {
                self.audit.write(act, "put", &proposal.key.to_string());
            }
            proposal.registered
        } else {
            let (outcome, committed) =
                self.change(act, |database| self.stays().map(|()| database.register(now, wall, login, register)));
            let registered = outcome??;
            on_disk(committed).await?;
            registered
        };
        self.counters.registers.fetch_add(1, Ordering::Relaxed);
        if registered.is_new {
            // What an operator cares about is told with the line of the audit log.
            tracing::debug!(login, entry = %describe(register), "registered");
        }
        let mut response = empty(StatusCode::OK);
        let interval = HeaderValue::from(registered.interval.as_secs());
        response.headers_mut().insert(&UPDATE_INTERVAL, interval);
        Ok(response)
    }

    async fn bye(&self, source: IpAddr, login: &str, bye: &Bye) -> Result<Answer, Failure> {
        let now = Instant::now();
        let act = Act { action: "bye", login: Some(login), source: Some(source) };
        let gone = if let Some(shared) = self.shared() {
            let gone = shared.bye(bye, |entry| self.database().may_take_away(login, bye, entry)).await?;
            for key in &gone {
                self.audit.write(act, "gone", &key.to_string());
            }
            gone.len()
        } else {
            let (outcome, committed) =
                self.change(act, |database| self.stays().map(|()| database.bye(now, login, bye)));
            let gone = outcome??;
            on_disk(committed).await?;
            gone
        };
        self.counters.byes.fetch_add(1, Ordering::Relaxed);
        if gone > 0 {
            tracing::debug!(login, source = %bye.source, port = bye.port, entries = gone, "said goodbye");
        }
        Ok(empty(StatusCode::OK))
    }

    /// Answers with what this comes to.
    fn later<F>(self: &Arc<Self>, source: IpAddr, answer: impl FnOnce(Arc<Self>) -> F) -> Reply
    where
        F: Future<Output = Result<Answer, Failure>> + Send + 'static,
    {
        let (service, answer) = (self.clone(), answer(self.clone()));
        Reply::Later(Box::pin(async move { answer.await.unwrap_or_else(|failure| service.failed(source, failure)) }))
    }

    fn failed(&self, source: IpAddr, failure: Failure) -> Answer {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%source, status = failure.status.as_u16(), reason = failure.sentence, "refused");
        failure.into_answer()
    }
}

impl Handler for Service {
    /// The source of the request.
    type Admitted = IpAddr;

    fn admit(&self, peer: SocketAddr, header: Header<'_>, now: Instant) -> Result<IpAddr, Box<Answer>> {
        let trusted = self.trusted_proxies.read().unwrap_or_else(PoisonError::into_inner);
        let source = source::of(peer.ip(), header.fields, &trusted);
        drop(trusted);
        let admitted = admit(header).and_then(|()| {
            self.rate.take(host(source), now).map_err(Failure::too_many)?;
            if self.standstill.is_fresh_from(now) {
                return Err(Failure::busy("this database stood still, and does not know how old this request is"));
            }
            if self.started.load(Ordering::Acquire) { Ok(()) } else { Err(Failure::busy("the database is starting")) }
        });
        admitted.map(|()| source).map_err(|failure| Box::new(self.failed(source, failure)))
    }

    fn handle(self: &Arc<Self>, source: IpAddr, request: Request<'_>) -> Reply {
        self.act(request, source).unwrap_or_else(|failure| Reply::now(self.failed(source, failure)))
    }

    fn refuse(&self, status: StatusCode, sentence: &str) -> Answer {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(BUSY_RETRY);
        Failure { retry_after, ..Failure::new(status, sentence) }.into_answer()
    }
}

/// Waits until what was changed cannot get lost.
async fn on_disk(committed: Option<Committed>) -> Result<(), Failure> {
    let Some(committed) = committed else { return Ok(()) };
    match committed.await {
        Ok(Ok(())) => Ok(()),
        // The entry is in memory, but we promised that it outlives us: the caller shall come again.
        Ok(Err(_)) | Err(_) => Err(Failure::busy("the store does not take the entry")),
    }
}

fn describe(register: &Register) -> String {
    let Register { source, port, entry_type, protocol, .. } = register;
    let protocol = protocol.as_ref().map(|protocol| format!(" {protocol}")).unwrap_or_default();
    format!("{entry_type} {source}:{port}{protocol}")
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use castgate_endpoint::hierarchy::database::Config;
    use http_body_util::BodyExt as _;
    use hyper::header::{AUTHORIZATION, CACHE_CONTROL, RETRY_AFTER};

    use super::*;

    #[tokio::test]
    async fn a_database_that_starts_says_when_to_come_again() {
        let service = fresh(Database::new(Config::default(), Vec::new(), [7; 16]), 600, Vec::new());
        let query = "/script/castgate.cgs?ACTION=QUERY&TYPE=TS";
        let answer = ask(&service, request(query)).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()[RETRY_AFTER], "1");
        assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");

        let folder = tempfile::TempDir::new().unwrap();
        service.start(Store::open(folder.path(), service.audit().clone()).unwrap().0);
        assert_eq!(ask(&service, request(query)).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_proxy_of_ours_names_the_source_that_is_counted() {
        let trusted = vec!["192.0.2.0/24".parse().unwrap()];
        let service = fresh(Database::new(Config::default(), Vec::new(), [7; 16]), 1, trusted);
        let folder = tempfile::TempDir::new().unwrap();
        service.start(Store::open(folder.path(), service.audit().clone()).unwrap().0);
        let mut statuses = Vec::new();
        for client in ["198.51.100.1", "198.51.100.2", "198.51.100.2"] {
            let mut request = request("/script/castgate.cgs?ACTION=QUERY&TYPE=TS");
            request.headers_mut().insert("x-forwarded-for", client.parse().unwrap());
            statuses.push(ask(&service, request).await.status().as_u16());
        }
        assert_eq!(statuses, [200, 200, 429]);
    }

    #[tokio::test]
    async fn before_region_transfer_is_finished_questions_are_put_off() {
        let service = fresh(Database::new(Config::default(), Vec::new(), [7; 16]), 600, Vec::new());
        let folder = tempfile::TempDir::new().unwrap();
        service.start(Store::open(folder.path(), service.audit().clone()).unwrap().0);
        service.set_peer_login(Some(PeerLogin::new("peer", "s3cret", true)));
        service.set_synchronised(false);
        let query = "/script/castgate.cgs?ACTION=QUERY&TYPE=TS";
        let mut transfer = request("/script/castgate.cgs?ACTION=TRANSFER");
        let coded = format!("Basic {}", STANDARD.encode("peer:s3cret"));
        transfer.headers_mut().insert(AUTHORIZATION, coded.parse().unwrap());
        let again = || transfer.clone();
        assert_eq!(ask(&service, request(query)).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        let put_off = ask(&service, again()).await;
        assert_eq!(
            (put_off.status(), &put_off.headers()[RETRY_AFTER]),
            (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap())
        );
        let register = "/script/castgate.cgs?ACTION=REGISTER&TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=BE";
        assert_eq!(
            ask(&service, request(register)).await.status(),
            StatusCode::UNAUTHORIZED,
            "it is taken, with a login"
        );
        service.set_synchronised(true);
        assert_eq!(ask(&service, request(query)).await.status(), StatusCode::OK);
        let all = ask(&service, again()).await.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(xml::parse_transfer(&all), Ok(Vec::new()));
        assert_eq!(
            ask(&service, request("/script/castgate.cgs?ACTION=TRANSFER")).await.status(),
            StatusCode::UNAUTHORIZED
        );
        service.set_peer_login(Some(PeerLogin::new("peer", "s3cret", false)));
        assert_eq!(ask(&service, again()).await.status(), StatusCode::FORBIDDEN);
    }

    pub(super) fn fresh(database: Database, requests_per_minute: u32, trusted: Vec<IpNet>) -> Arc<Service> {
        // Nobody reads the audit log of these tests.
        Arc::new(Service::new(database, requests_per_minute, trusted, Path::new("/nonexistent")))
    }

    /// As the server does it.
    async fn ask(service: &Arc<Service>, request: hyper::Request<()>) -> Answer {
        let (at, header) = (Instant::now(), Header::from(&request));
        match service.admit("192.0.2.1:4711".parse().unwrap(), header, at) {
            Ok(source) => {
                let request = Request { at, local: "192.0.2.2:5632".parse().unwrap(), header, body: &[] };
                service.handle(source, request).await
            }
            Err(answer) => *answer,
        }
    }

    fn request(target: &str) -> hyper::Request<()> {
        hyper::Request::builder().uri(target).body(()).unwrap()
    }
}
