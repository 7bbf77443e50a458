//! What a request to the database means, and with which status it is answered (castgate UMTP notes for the status codes).
//!
//! ```text
//!   path, method, length ─▶ rate ─▶ started? ─▶ pairs ─▶ QUERY    ─────────────────────▶ 200 XML
//!     404    405    414     429      503         400 ├─▶ REGISTER ─▶ password ─▶ claims ─▶ on disk ─▶ 200
//!                                                    ├─▶ BYE          401, 429    403 …     503
//!                                                    └─▶ TRANSFER ─▶ peers' login ─▶ synchronised? ─▶ 200 XML in parts
//! ```

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use castgate_endpoint::hierarchy::accounts::{Check, PasswordCheck};
use castgate_endpoint::hierarchy::database::{Caller, Change, Database, Refusal, Tier};
use castgate_wire::registry::{self, Bye, Login, Query, Register, Request as Action, Transfer, xml};
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use ipnet::IpNet;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::audit::{Act, Audit};
use super::rate::{Rate, host};
use super::source;
use super::store::{Committed, Store};
use crate::http::server::{Answer, Content, Handler, Part, Request};
use crate::http::{MATCH, UPDATE_INTERVAL};

/// Longest target of a GET; the caller switches to POST.
const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Passwords checked at one time: each takes a core and tens of MiB.
const CHECKS_MAX: usize = 2;
/// Passwords that wait to be checked; beyond that a caller comes again later.
const CHECKS_WAITING_MAX: usize = 64;
/// Wrong passwords that an address may send in a minute.
const WRONG_PASSWORDS_PER_MINUTE: u32 = 60;
/// Wrong passwords that a login may get in a minute, from wherever: guessing with a thousand machines is no faster than with two.
const WRONG_PASSWORDS_PER_LOGIN: u32 = 120;
/// Logins remembered with the addresses from which their password was right; they are not held up by others who guess.
const GOOD_PLACES_MAX: usize = 16_384;
/// Parts of an answer to a peer that wait to be sent; then its maker waits.
const PARTS_MAX: usize = 4;
/// What a caller is told to wait while the database starts or its store is stuck.
const BUSY_RETRY: Duration = Duration::from_secs(1);

const NOT_SYNCHRONISED: &str = "this database does not know yet what its peers know";

/// Everything that requests share.
#[derive(Debug)]
pub(super) struct Service {
    /// Any number of questions at one time; a change waits for them, and holds them up for microseconds.
    database: RwLock<Database>,
    /// Absent until the entries are restored.
    store: OnceLock<Store>,
    started: AtomicBool,
    rate: Rate<IpAddr>,
    wrong_passwords: Rate<IpAddr>,
    wrong_for_login: Rate<u64>,
    good_places: Mutex<GoodPlaces>,
    trusted_proxies: RwLock<Vec<IpNet>>,
    /// Who gets all entries; `None`: nobody.
    peer_login: RwLock<Option<PeerLogin>>,
    audit: Audit,
    checks: Semaphore,
    checks_waiting: AtomicUsize,
    /// Another entry is the next to go.
    pub(super) deadline_changed: Notify,
    entries: watch::Sender<usize>,
    hasher: RandomState,
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

/// The login that peers have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PeerLogin {
    proof: [u8; 32],
    /// Whether they get anything.
    serve: bool,
}

impl PeerLogin {
    pub(super) fn new(login: &str, password: &str, serve: bool) -> Self {
        Self { proof: proof(login, password), serve }
    }
}

/// Equal for equal pairs; how long it takes to compare says nothing about either.
fn proof(login: &str, password: &str) -> [u8; 32] {
    // No login has a colon.
    Sha256::digest(format!("{login}:{password}")).into()
}

/// Logins, each with an address from which it was proven; the oldest is forgotten first.
#[derive(Debug, Default)]
struct GoodPlaces {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl GoodPlaces {
    fn remember(&mut self, place: u64) {
        if self.known.insert(place) {
            self.order.push_back(place);
        }
        if self.order.len() > GOOD_PLACES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
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
            started: AtomicBool::new(false),
            rate: Rate::new(requests_per_minute, now),
            wrong_passwords: Rate::new(WRONG_PASSWORDS_PER_MINUTE, now),
            wrong_for_login: Rate::new(WRONG_PASSWORDS_PER_LOGIN, now),
            good_places: Mutex::default(),
            trusted_proxies: RwLock::new(trusted_proxies),
            peer_login: RwLock::new(None),
            audit: Audit::new(state_dir),
            checks: Semaphore::new(CHECKS_MAX),
            checks_waiting: AtomicUsize::new(0),
            deadline_changed: Notify::new(),
            entries: watch::Sender::new(0),
            hasher: RandomState::new(),
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

    pub(super) fn audit(&self) -> &Audit {
        &self.audit
    }

    pub(super) fn store(&self) -> Option<&Store> {
        self.store.get()
    }

    pub(super) fn database(&self) -> RwLockReadGuard<'_, Database> {
        // What is inside is whole between any two statements that can panic.
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills the database from what is in the store already.
    pub(super) fn restore(&self, restore: impl FnOnce(&mut Database)) {
        restore(&mut self.database.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// How many entries there are, whenever that changes.
    pub(super) fn entries(&self) -> watch::Receiver<usize> {
        self.entries.subscribe()
    }

    /// Changes the database, sends what changed to the store, in the same order, and writes down who did it.
    pub(super) fn change<T>(&self, act: Act<'_>, change: impl FnOnce(&mut Database) -> T) -> (T, Option<Committed>) {
        let mut lines: Vec<(&str, String)> = Vec::new();
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let deadline = database.next_timeout();
        let outcome = change(&mut database);
        let mut changes = Vec::new();
        while let Some(change) = database.poll_change() {
            match &change {
                Change::Put(key, _) => lines.push(("put", key.to_string())),
                Change::Delete(key) => lines.push(("gone", key.to_string())),
                // Whoever happened to be served when it was noticed had no part in it.
                Change::Expire(key) => lines.push(("expired", key.to_string())),
                // Its owner changes nothing; what peers tell is told as one line with their number.
                Change::Refresh(..) => {}
            }
            changes.push(change);
        }
        let store = self.store.get().filter(|_| !changes.is_empty());
        let committed = store.and_then(|store| store.follow(changes.into_iter()));
        let entries = database.len();
        self.entries.send_if_modified(|before| std::mem::replace(before, entries) != entries);
        let same_deadline = deadline == database.next_timeout();
        drop(database);
        if !same_deadline {
            self.deadline_changed.notify_one();
        }
        for (outcome, about) in lines {
            let act = if outcome == "expired" { Act { action: "expire", login: None, source: None } } else { act };
            self.audit.write(act, outcome, &about);
        }
        (outcome, committed)
    }

    async fn act(self: &Arc<Self>, request: &Request, source: IpAddr) -> Result<Answer, Failure> {
        let Request { parts, body, local } = request;
        let query = parts.uri.query().unwrap_or_default();
        let pairs = match parts.method {
            Method::GET => query.to_owned(),
            _ => pairs_of_post(&parts.headers, body, query)?,
        };
        let (action, login) = Action::parse(&pairs).map_err(|error| Failure::bad(error.to_string()))?;
        // A password in a URL ends up in logs and histories: there it is not taken.
        let login = login.filter(|_| parts.method == Method::POST);
        match action {
            Action::Query(query) => self.query(Caller { address: source, asked_at: Some(*local) }, &query),
            Action::Register(register) => {
                let login = self.authenticate(source, &parts.headers, login).await?;
                self.register(source, &login, &register).await
            }
            Action::Bye(bye) => {
                let login = self.authenticate(source, &parts.headers, login).await?;
                self.bye(source, &login, &bye).await
            }
            Action::Transfer(transfer) => self.transfer(source, basic(&parts.headers).or(login), transfer),
        }
    }

    fn query(&self, caller: Caller, query: &Query) -> Result<Answer, Failure> {
        self.counters.queries.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let answer = {
            let database = self.database();
            if !database.is_synchronised() {
                return Err(Failure::busy(NOT_SYNCHRONISED));
            }
            database.query(now, caller, query)
        };
        let mut response = with(StatusCode::OK, "text/xml; charset=utf-8", xml::emit_servers(&answer.servers));
        let tier = HeaderValue::from_static(answer.tier.map_or("none", Tier::word));
        response.headers_mut().insert(HeaderName::from_static(MATCH), tier);
        Ok(response)
    }

    /// All entries to a peer, part by part: other callers are answered between two parts.
    fn transfer(self: &Arc<Self>, source: IpAddr, login: Option<Login>, transfer: Transfer) -> Result<Answer, Failure> {
        let Login { login, password } = login.ok_or_else(Failure::unauthorized)?;
        let now = Instant::now();
        self.wrong_passwords.look(host(source), now).map_err(Failure::too_many)?;
        let peers = self.peer_login.read().unwrap_or_else(PoisonError::into_inner).clone();
        let act = Act { action: "transfer", login: Some(&login), source: Some(source) };
        let Some(peers) = peers.filter(|peers| peers.proof == proof(&login, &password)) else {
            let _ = self.wrong_passwords.take(host(source), now);
            self.audit.write(act, "refused", "not the login of a peer");
            return Err(Failure::unauthorized());
        };
        if !peers.serve {
            return Err(Failure::new(StatusCode::FORBIDDEN, "this database gives its entries to nobody"));
        }
        if !self.database().is_synchronised() {
            return Err(Failure::busy(NOT_SYNCHRONISED));
        }
        self.audit.write(act, "done", "all entries");
        let (parts, receiver) = mpsc::channel(PARTS_MAX);
        let service = self.clone();
        tokio::task::spawn_blocking(move || service.send_parts(&transfer, &parts));
        let mut answer = with(StatusCode::OK, "text/xml; charset=utf-8", String::new());
        *answer.body_mut() = Content::Parts(receiver);
        Ok(answer)
    }

    /// Blocks while the peer is slower than we are; ends when it is gone.
    fn send_parts(&self, transfer: &Transfer, parts: &mpsc::Sender<Part>) {
        let mut from = Some(0);
        let mut xml = xml::TRANSFER_BEGIN.to_owned();
        while let Some(at) = from {
            let part = self.database().transfer_part(Instant::now(), transfer, at);
            xml::emit_transfer_entries(&mut xml, &part.entries);
            from = part.next;
            if from.is_none() {
                xml.push_str(xml::TRANSFER_END);
            }
            if !xml.is_empty() && parts.blocking_send(Part::Data(Bytes::from(std::mem::take(&mut xml)))).is_err() {
                return;
            }
        }
        // Nobody listens when the connection is gone.
        let _ = parts.blocking_send(Part::End);
    }

    async fn register(&self, source: IpAddr, login: &str, register: &Register) -> Result<Answer, Failure> {
        let (now, wall) = (Instant::now(), SystemTime::now().into());
        let act = Act { action: "register", login: Some(login), source: Some(source) };
        let (outcome, committed) = self.change(act, |database| database.register(now, wall, login, register));
        let registered = outcome?;
        on_disk(committed).await?;
        self.counters.registers.fetch_add(1, Ordering::Relaxed);
        if registered.is_new {
            tracing::info!(login, entry = %describe(register), "registered");
        }
        let mut response = empty(StatusCode::OK);
        response
            .headers_mut()
            .insert(HeaderName::from_static(UPDATE_INTERVAL), HeaderValue::from(registered.interval.as_secs()));
        Ok(response)
    }

    async fn bye(&self, source: IpAddr, login: &str, bye: &Bye) -> Result<Answer, Failure> {
        let now = Instant::now();
        let act = Act { action: "bye", login: Some(login), source: Some(source) };
        let (outcome, committed) = self.change(act, |database| database.bye(now, login, bye));
        let gone = outcome?;
        on_disk(committed).await?;
        self.counters.byes.fetch_add(1, Ordering::Relaxed);
        if gone > 0 {
            tracing::info!(login, source = %bye.source, port = bye.port, entries = gone, "said goodbye");
        }
        Ok(empty(StatusCode::OK))
    }

    fn failed(&self, source: IpAddr, failure: Failure) -> Answer {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%source, status = failure.status.as_u16(), reason = failure.sentence, "refused");
        failure.into_answer()
    }

    /// The login of the caller, whose password proved right.
    async fn authenticate(&self, source: IpAddr, header: &HeaderMap, body: Option<Login>) -> Result<String, Failure> {
        let Login { login, password } = basic(header).or(body).ok_or_else(Failure::unauthorized)?;
        let check = match self.database().accounts().check(&login, &password) {
            Check::Verified => return Ok(login),
            Check::Run(check) => check,
        };
        let now = Instant::now();
        self.wrong_passwords.look(host(source), now).map_err(Failure::too_many)?;
        let place = self.hasher.hash_one((&login, host(source)));
        let key = self.hasher.hash_one(&login);
        // Others who guess shall not lock the owner out: where it was right before, or where the account may come from at all,
        // only its own guesses count.
        let at_home = lock(&self.good_places).known.contains(&place) || {
            let database = self.database();
            let sources = database.accounts().account(&login).map(|account| account.allow().sources.as_slice());
            sources.is_some_and(|sources| sources.iter().any(|range| range.contains(&source)))
        };
        if !at_home {
            self.wrong_for_login.look(key, now).map_err(Failure::too_many)?;
        }
        let (check, right) = self.run(check).await?;
        if self.database.write().unwrap_or_else(PoisonError::into_inner).accounts_mut().note(&check, right) {
            lock(&self.good_places).remember(place);
            return Ok(login);
        }
        // Whether there was room for it was looked at before; two at once may both have seen the last place.
        let _ = self.wrong_passwords.take(host(source), now);
        if self.wrong_for_login.take(key, now).is_err() {
            tracing::warn!(login, %source, "somebody guesses the password of this login");
        }
        self.audit.write(
            Act { action: "login", login: Some(&login), source: Some(source) },
            "refused",
            "wrong password",
        );
        tracing::debug!(%source, login, "wrong login or password");
        Err(Failure::unauthorized())
    }

    /// Does the work of a check beside the threads that serve requests.
    async fn run(&self, check: PasswordCheck) -> Result<(PasswordCheck, bool), Failure> {
        let _place = Place::take(&self.checks_waiting).ok_or_else(|| Failure::busy("too many passwords to check"))?;
        let _turn = self.checks.acquire().await.expect("nobody closes the semaphore");
        self.counters.password_checks.fetch_add(1, Ordering::Relaxed);
        let done = tokio::task::spawn_blocking(move || {
            let right = check.run();
            (check, right)
        });
        done.await.map_err(|error| {
            tracing::error!(%error, "a password check panicked");
            Failure::busy("the password could not be checked")
        })
    }
}

impl Handler for Service {
    /// The source of the request.
    type Admitted = IpAddr;

    fn admit(&self, peer: SocketAddr, header: &Parts) -> Result<IpAddr, Box<Answer>> {
        let trusted = self.trusted_proxies.read().unwrap_or_else(PoisonError::into_inner);
        let source = source::of(peer.ip(), &header.headers, &trusted);
        drop(trusted);
        let admitted = admit(header).and_then(|()| {
            self.rate.take(host(source), Instant::now()).map_err(Failure::too_many)?;
            if self.started.load(Ordering::Acquire) { Ok(()) } else { Err(Failure::busy("the database is starting")) }
        });
        admitted.map(|()| source).map_err(|failure| Box::new(self.failed(source, failure)))
    }

    async fn handle(self: &Arc<Self>, source: IpAddr, request: Request) -> Answer {
        let outcome = self.act(&request, source).await;
        outcome.unwrap_or_else(|failure| self.failed(source, failure))
    }

    fn refuse(&self, status: StatusCode, sentence: &str) -> Answer {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(BUSY_RETRY);
        Failure { retry_after, ..Failure::new(status, sentence) }.into_answer()
    }
}

/// Whether the request is one for us at all.
fn admit(header: &Parts) -> Result<(), Failure> {
    if !registry::path_is_ours(header.uri.path()) {
        return Err(Failure::new(StatusCode::NOT_FOUND, format!("only {} is served here", registry::PATH)));
    }
    if header.method != Method::GET && header.method != Method::POST {
        return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "only GET and POST are answered"));
    }
    if header.uri.path_and_query().is_some_and(|target| target.as_str().len() > TARGET_BYTES_MAX) {
        return Err(Failure::new(StatusCode::URI_TOO_LONG, "the request line is too long for GET, use POST"));
    }
    Ok(())
}

/// Pairs of the body, then those of the query part. No type of the body is as good as the right one.
fn pairs_of_post(header: &HeaderMap, body: &[u8], query: &str) -> Result<String, Failure> {
    let media_type = header.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let essence = media_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    if !matches!(essence.as_deref(), None | Some("" | "application/x-www-form-urlencoded")) {
        return Err(Failure::bad("the body is not application/x-www-form-urlencoded"));
    }
    let body = std::str::from_utf8(body).map_err(|_| Failure::bad("the body is not text"))?;
    Ok(format!("{}&{query}", body.trim_end_matches(['\r', '\n'])))
}

/// Login and password of `Authorization: Basic` (RFC 7617).
fn basic(header: &HeaderMap) -> Option<Login> {
    let (scheme, coded) = header.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(coded.trim()).ok()?).ok()?;
    let (login, password) = text.split_once(':')?;
    Some(Login { login: login.to_owned(), password: password.to_owned() })
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

/// Why a request is not carried out, as it is told.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    sentence: String,
    retry_after: Option<Duration>,
}

impl Failure {
    fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into(), retry_after: None }
    }

    fn bad(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, sentence)
    }

    fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "login and password of an account are needed")
    }

    fn too_many(wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too many requests") }
    }

    fn busy(sentence: &str) -> Self {
        Self { retry_after: Some(BUSY_RETRY), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence) }
    }

    fn into_answer(self) -> Answer {
        let mut answer = with(self.status, "text/plain; charset=utf-8", self.sentence + "\n");
        let header = answer.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                header
                    .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"castgate\", charset=\"UTF-8\""));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                header.insert(ALLOW, HeaderValue::from_static("GET, POST"));
            }
            _ => {}
        }
        if let Some(wait) = self.retry_after {
            // Whole seconds, never 0: a caller that comes at once comes in vain.
            header.insert(RETRY_AFTER, HeaderValue::from(wait.as_millis().div_ceil(1_000).clamp(1, 3_600) as u64));
        }
        answer
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status()).expect("a refusal has a status of HTTP");
        match status {
            StatusCode::UNAUTHORIZED => Self::unauthorized(),
            StatusCode::SERVICE_UNAVAILABLE => Self::busy(&refusal.to_string()),
            _ => Self::new(status, refusal.to_string()),
        }
    }
}

fn with(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = empty(status);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    *answer.body_mut() = Content::from(body);
    answer
}

/// Every answer depends on who asks and when: nobody keeps it (castgate UMTP notes).
fn empty(status: StatusCode) -> Answer {
    let mut answer = Answer::new(Content::default());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A place among the passwords that wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        // On refusal the place is given back by dropping it.
        (waiting.fetch_add(1, Ordering::Relaxed) < CHECKS_WAITING_MAX).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is whole between any two statements that can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use castgate_endpoint::hierarchy::accounts::{Account, Allow};
    use castgate_endpoint::hierarchy::database::Config;

    #[tokio::test]
    async fn a_database_that_starts_says_when_to_come_again() {
        let service = fresh(Database::new(Config::default(), Vec::new(), [7; 16]), 600, Vec::new());
        let query = "/script/castgate.cgs?ACTION=QUERY&TYPE=TS";
        let answer = ask(&service, request(query)).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()[RETRY_AFTER], "1");
        assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");

        let folder = tempfile::TempDir::new().unwrap();
        service.start(Store::open(folder.path()).unwrap().0);
        assert_eq!(ask(&service, request(query)).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn more_passwords_than_can_be_checked_are_sent_away() {
        let service = fresh(Database::new(Config::default(), Vec::new(), [7; 16]), 600, Vec::new());
        let waiting: Vec<Place<'_>> = std::iter::from_fn(|| Place::take(&service.checks_waiting)).collect();
        assert_eq!(waiting.len(), CHECKS_WAITING_MAX);
        let Check::Run(check) = service.database().accounts().check("x", "y") else { panic!("nobody knows x") };
        let failure = service.run(check).await.unwrap_err();
        assert_eq!(failure.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(waiting);
        assert_eq!(service.checks_waiting.load(Ordering::Relaxed), 0, "every place is given back");
    }

    #[tokio::test]
    async fn a_proxy_of_ours_names_the_source_that_is_counted() {
        let trusted = vec!["192.0.2.0/24".parse().unwrap()];
        let service = fresh(Database::new(Config::default(), Vec::new(), [7; 16]), 1, trusted);
        let folder = tempfile::TempDir::new().unwrap();
        service.start(Store::open(folder.path()).unwrap().0);
        let mut statuses = Vec::new();
        for client in ["198.51.100.1", "198.51.100.2", "198.51.100.2"] {
            let mut request = request("/script/castgate.cgs?ACTION=QUERY&TYPE=TS");
            request.parts.headers.insert("x-forwarded-for", client.parse().unwrap());
            statuses.push(ask(&service, request).await.status().as_u16());
        }
        assert_eq!(statuses, [200, 200, 429]);
    }

    #[tokio::test]
    async fn before_region_transfer_is_finished_questions_are_put_off() {
        let service = fresh(Database::new(Config::default(), Vec::new(), [7; 16]), 600, Vec::new());
        let folder = tempfile::TempDir::new().unwrap();
        service.start(Store::open(folder.path()).unwrap().0);
        service.set_peer_login(Some(PeerLogin::new("peer", "s3cret", true)));
        service.set_synchronised(false);
        let query = "/script/castgate.cgs?ACTION=QUERY&TYPE=TS";
        let mut transfer = request("/script/castgate.cgs?ACTION=TRANSFER");
        let coded = format!("Basic {}", STANDARD.encode("peer:s3cret"));
        transfer.parts.headers.insert(AUTHORIZATION, coded.parse().unwrap());
        let again = || Request { local: transfer.local, parts: transfer.parts.clone(), body: Vec::new() };
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

    #[tokio::test]
    async fn a_login_that_strangers_guess_is_slow_for_them_and_open_to_its_owner() {
        let hash = "$argon2id$v=19$m=8,t=1,p=1$YSBzYWx0IGZvciB0ZXN0cw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let allow = Allow { sources: vec!["10.0.0.0/8".parse().unwrap()], ..Allow::default() };
        let account = Account::new("be".to_owned(), hash.to_owned(), allow).unwrap();
        let service = fresh(Database::new(Config::default(), vec![account], [7; 16]), 600, Vec::new());
        let mut header = HeaderMap::new();
        header.insert(AUTHORIZATION, format!("Basic {}", STANDARD.encode("be:guess")).parse().unwrap());
        let guess = async |source: [u8; 4]| {
            service.authenticate(IpAddr::from(source), &header, None).await.unwrap_err().status.as_u16()
        };
        for n in 0..WRONG_PASSWORDS_PER_LOGIN {
            let [.., high, low] = n.to_be_bytes();
            assert_eq!(guess([198, 51, high, low]).await, 401);
        }
        assert_eq!(guess([203, 0, 113, 1]).await, 429, "the guesses of all are counted together");
        assert_eq!(guess([10, 0, 0, 1]).await, 401, "where the owner is, he is heard");
        lock(&service.good_places)
            .remember(service.hasher.hash_one((&"be".to_owned(), IpAddr::from([203, 0, 113, 2]))));
        assert_eq!(guess([203, 0, 113, 2]).await, 401, "and where he was right before");
    }

    #[tokio::test]
    async fn an_answer_to_a_refusal_is_one_line_of_text() {
        let answer = Failure::bad("this is wrong").into_answer();
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], b"this is wrong\n");
    }

    #[test]
    fn credentials_are_read_as_rfc_7617_writes_them() {
        let read = |value: &str| {
            let mut header = HeaderMap::new();
            header.insert(AUTHORIZATION, value.parse().unwrap());
            basic(&header).map(|login| (login.login, login.password))
        };
        let pair = |login: &str, password: &str| Some((login.to_owned(), password.to_owned()));
        assert_eq!(read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), pair("Aladdin", "open sesame"));
        assert_eq!(read("basic  dGVzdDoxMjPCow=="), pair("test", "123£"));
        assert_eq!(read("Basic YTpiOmM="), pair("a", "b:c"), "the first colon ends the login");
        for wrong in ["Basic", "Basic ", "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Basic !!!", "Basic YWJj", "Basic /w=="]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    fn fresh(database: Database, requests_per_minute: u32, trusted: Vec<IpNet>) -> Arc<Service> {
        // Nobody reads the audit log of these tests.
        Arc::new(Service::new(database, requests_per_minute, trusted, Path::new("/nonexistent")))
    }

    /// As the server does it.
    async fn ask(service: &Arc<Service>, request: Request) -> Answer {
        match service.admit("192.0.2.1:4711".parse().unwrap(), &request.parts) {
            Ok(source) => service.handle(source, request).await,
            Err(answer) => *answer,
        }
    }

    fn request(target: &str) -> Request {
        let (parts, ()) = hyper::Request::builder().uri(target).body(()).unwrap().into_parts();
        Request { local: "192.0.2.2:5632".parse().unwrap(), parts, body: Vec::new() }
    }
}
