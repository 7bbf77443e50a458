//! What a request to the database means, and with which status it is answered (castgate UMTP notes for the status codes).
//!
//! ```text
//!   path, method, length ─▶ rate ─▶ started? ─▶ pairs ─▶ QUERY    ─────────────────────▶ 200 XML
//!     404    405    414     429      503         400 ├─▶ REGISTER ─▶ password ─▶ claims ─▶ on disk ─▶ 200
//!                                                    ├─▶ BYE          401, 429    403 …     503
//!                                                    └─▶ TRANSFER 501
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use castgate_endpoint::hierarchy::accounts::{Check, PasswordCheck};
use castgate_endpoint::hierarchy::database::{Caller, Database, Refusal, Tier};
use castgate_wire::registry::{self, Bye, Login, Query, Register, Request as Action, xml};
use http_body_util::Full;
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use ipnet::IpNet;
use tokio::sync::{Notify, Semaphore, watch};

use super::rate::Rate;
use super::source;
use super::store::{Committed, Store};
use crate::http::server::{Answer, Handler, Request};
use crate::http::{MATCH, UPDATE_INTERVAL};

/// Longest target of a GET; the caller switches to POST.
const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Passwords checked at one time: each takes a core and tens of MiB.
const CHECKS_MAX: usize = 2;
/// Passwords that wait to be checked; beyond that a caller comes again later.
const CHECKS_WAITING_MAX: usize = 64;
/// Wrong passwords that an address may send in a minute.
const WRONG_PASSWORDS_PER_MINUTE: u32 = 60;
/// What a caller is told to wait while the database starts or its store is stuck.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// Everything that requests share.
#[derive(Debug)]
pub(super) struct Service {
    database: Mutex<Database>,
    /// Absent until the entries are restored.
    store: OnceLock<Store>,
    started: AtomicBool,
    rate: Mutex<Rate>,
    wrong_passwords: Mutex<Rate>,
    trusted_proxies: Mutex<Vec<IpNet>>,
    checks: Semaphore,
    checks_waiting: AtomicUsize,
    /// Another entry is the next to go.
    pub(super) deadline_changed: Notify,
    entries: watch::Sender<usize>,
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
    pub(super) fn new(database: Database, requests_per_minute: u32, trusted_proxies: Vec<IpNet>) -> Self {
        let now = Instant::now();
        Self {
            database: Mutex::new(database),
            store: OnceLock::new(),
            started: AtomicBool::new(false),
            rate: Mutex::new(Rate::new(requests_per_minute, now)),
            wrong_passwords: Mutex::new(Rate::new(WRONG_PASSWORDS_PER_MINUTE, now)),
            trusted_proxies: Mutex::new(trusted_proxies),
            checks: Semaphore::new(CHECKS_MAX),
            checks_waiting: AtomicUsize::new(0),
            deadline_changed: Notify::new(),
            entries: watch::Sender::new(0),
            counters: Counters::default(),
        }
    }

    /// From now on requests are answered from what the store held.
    pub(super) fn start(&self, store: Store) {
        if self.store.set(store).is_err() {
            unreachable!("a service starts once");
        }
        drop(self.change(|_| ()));
        self.started.store(true, Ordering::Release);
    }

    pub(super) fn set_limits(&self, requests_per_minute: u32, trusted_proxies: Vec<IpNet>) {
        lock(&self.rate).set(requests_per_minute);
        *lock(&self.trusted_proxies) = trusted_proxies;
    }

    pub(super) fn store(&self) -> Option<&Store> {
        self.store.get()
    }

    pub(super) fn database(&self) -> MutexGuard<'_, Database> {
        lock(&self.database)
    }

    /// How many entries there are, whenever that changes.
    pub(super) fn entries(&self) -> watch::Receiver<usize> {
        self.entries.subscribe()
    }

    /// Changes the database and sends what changed to the store, in the same order.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Database) -> T) -> (T, Option<Committed>) {
        let mut database = self.database();
        let deadline = database.next_timeout();
        let outcome = change(&mut database);
        let mut changes = std::iter::from_fn(|| database.poll_change()).peekable();
        let store = self.store.get().filter(|_| changes.peek().is_some());
        let committed = store.map(|store| store.follow(changes));
        let entries = database.len();
        self.entries.send_if_modified(|before| std::mem::replace(before, entries) != entries);
        let same_deadline = deadline == database.next_timeout();
        drop(database);
        if !same_deadline {
            self.deadline_changed.notify_one();
        }
        (outcome, committed)
    }

    async fn act(&self, request: &Request, source: IpAddr) -> Result<Answer, Failure> {
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
            Action::Query(query) => Ok(self.query(Caller { address: source, asked_at: Some(*local) }, &query)),
            Action::Register(register) => {
                let login = self.authenticate(source, &parts.headers, login).await?;
                self.register(&login, &register).await
            }
            Action::Bye(bye) => {
                let login = self.authenticate(source, &parts.headers, login).await?;
                self.bye(&login, &bye).await
            }
            Action::Transfer(_) => {
                Err(Failure::new(StatusCode::NOT_IMPLEMENTED, "this database does not answer TRANSFER"))
            }
        }
    }

    fn query(&self, caller: Caller, query: &Query) -> Answer {
        self.counters.queries.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let (answer, _) = self.change(|database| database.query(now, caller, query));
        let mut response = with(StatusCode::OK, "text/xml; charset=utf-8", xml::emit_servers(&answer.servers));
        let tier = HeaderValue::from_static(answer.tier.map_or("none", Tier::word));
        response.headers_mut().insert(HeaderName::from_static(MATCH), tier);
        response
    }

    async fn register(&self, login: &str, register: &Register) -> Result<Answer, Failure> {
        let (now, wall) = (Instant::now(), SystemTime::now().into());
        let (outcome, committed) = self.change(|database| database.register(now, wall, login, register));
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

    async fn bye(&self, login: &str, bye: &Bye) -> Result<Answer, Failure> {
        let now = Instant::now();
        let (outcome, committed) = self.change(|database| database.bye(now, login, bye));
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
        lock(&self.wrong_passwords).look(source, Instant::now()).map_err(Failure::too_many)?;
        let (check, right) = self.run(check).await?;
        if self.database().accounts_mut().note(&check, right) {
            return Ok(login);
        }
        // Whether there was room for it was looked at before; two at once may both have seen the last place.
        let _ = lock(&self.wrong_passwords).take(source, Instant::now());
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
        let source = source::of(peer.ip(), &header.headers, &lock(&self.trusted_proxies));
        let admitted = admit(header).and_then(|()| {
            lock(&self.rate).take(source, Instant::now()).map_err(Failure::too_many)?;
            if self.started.load(Ordering::Acquire) { Ok(()) } else { Err(Failure::busy("the database is starting")) }
        });
        admitted.map(|()| source).map_err(|failure| Box::new(self.failed(source, failure)))
    }

    async fn handle(&self, source: IpAddr, request: Request) -> Answer {
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
    *answer.body_mut() = Full::new(Bytes::from(body));
    answer
}

/// Every answer depends on who asks and when: nobody keeps it (castgate UMTP notes).
fn empty(status: StatusCode) -> Answer {
    let mut answer = Answer::new(Full::default());
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
    use castgate_endpoint::hierarchy::database::Config;

    #[tokio::test]
    async fn a_database_that_starts_says_when_to_come_again() {
        let service = Service::new(Database::new(Config::default(), Vec::new(), [7; 16]), 600, Vec::new());
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
        let service = Service::new(Database::new(Config::default(), Vec::new(), [7; 16]), 600, Vec::new());
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
        let service = Service::new(Database::new(Config::default(), Vec::new(), [7; 16]), 1, trusted);
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

    /// As the server does it.
    async fn ask(service: &Service, request: Request) -> Answer {
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
