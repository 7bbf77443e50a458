//! What a request to the front means, and with which status it is answered; the same words as a database's.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use castgate_control::{FrontSnapshot, Registration};
use castgate_rpc::v1::{LocateRequest, TransferEntry, TransferRequest};
use castgate_wire::registry::{self, Bye, Login, Query, Register, Request as Action, Server, Transfer, xml};
use hyper::StatusCode;
use hyper::header::HeaderValue;
use ipnet::IpNet;
use tokio::sync::{Semaphore, mpsc};
use tonic::Streaming;

use super::sessions::{Outcome, Sessions};
use super::upstream::Upstream;
use crate::http::content::{Content, Part};
use crate::http::rate::{Rate, host};
use crate::http::server::{Answer, Handler, Header, Reply, Request};
use crate::http::words::{BUSY_RETRY, Failure, XML, admit, empty, read, with};
use crate::http::{MATCH, UPDATE_INTERVAL, source};
use crate::surroundings::Surroundings;

/// Wrong passwords that an address may send in a minute, as at a database.
const WRONG_PASSWORDS_PER_MINUTE: u32 = 60;
/// Requests that wait for the service behind at one time.
const WAITING_MAX: usize = 256;
/// Parts of a long answer that wait to be sent.
const PARTS_MAX: usize = 4;
/// Octets that are gathered for one part.
const PART_BYTES: usize = 16 * 1024;

/// Everything that requests share.
#[derive(Debug)]
pub(super) struct Service {
    /// Name of this agent.
    agent: String,
    upstream: Upstream,
    sessions: Sessions,
    interval_seconds: AtomicU32,
    rate: Rate<IpAddr>,
    wrong_passwords: Rate<IpAddr>,
    trusted_proxies: RwLock<Vec<IpNet>>,
    waiting: Semaphore,
}

impl Service {
    pub(super) fn new(snapshot: &FrontSnapshot, around: &Surroundings) -> Self {
        let now = Instant::now();
        Self {
            agent: around.agent.clone(),
            upstream: Upstream::new(snapshot.upstream.clone(), around.ca.clone()),
            sessions: Sessions::new(around),
            interval_seconds: AtomicU32::new(snapshot.update_interval_seconds.get()),
            rate: Rate::new(snapshot.requests_per_minute_max.get(), now),
            wrong_passwords: Rate::new(WRONG_PASSWORDS_PER_MINUTE, now),
            trusted_proxies: RwLock::new(snapshot.trusted_proxies.clone()),
            waiting: Semaphore::new(WAITING_MAX),
        }
    }

    pub(super) fn set(&self, snapshot: &FrontSnapshot) {
        self.upstream.set(snapshot.upstream.clone());
        self.sessions.move_to(&snapshot.upstream.endpoint);
        self.interval_seconds.store(snapshot.update_interval_seconds.get(), Ordering::Relaxed);
        self.rate.set(snapshot.requests_per_minute_max.get());
        let mut trusted = self.trusted_proxies.write().unwrap_or_else(PoisonError::into_inner);
        trusted.clone_from(&snapshot.trusted_proxies);
    }

    pub(super) fn expire(&self, now: Instant) {
        self.sessions.expire(now);
    }

    async fn act(&self, action: Action, login: Option<Login>, source: IpAddr) -> Result<Answer, Failure> {
        let _turn =
            self.waiting.try_acquire().map_err(|_| Failure::busy("too many requests wait for the service behind"))?;
        match action {
            Action::Query(query) => self.query(source, &query).await,
            Action::Register(register) => {
                let login = self.prove(source, login).await?;
                self.register(&login, register).await
            }
            Action::Bye(bye) => {
                let login = self.prove(source, login).await?;
                self.bye(&login, &bye).await
            }
            Action::Transfer(transfer) => {
                let login = login.ok_or_else(Failure::unauthorized)?;
                self.wrong_passwords.look(host(source), Instant::now()).map_err(Failure::too_many)?;
                self.transfer(login, &transfer).await.inspect_err(|failure| self.note_wrong(source, failure))
            }
        }
    }

    async fn query(&self, source: IpAddr, query: &Query) -> Result<Answer, Failure> {
        let question = LocateRequest::of_query(self.agent.clone(), query, Some(source));
        let answer = match self.upstream.locate(question).await {
            Ok(answer) => answer,
            // Our own key is not taken: whoever asks can do nothing about it.
            Err(failure) if failure.status == StatusCode::UNAUTHORIZED => {
                return Err(Failure::busy("the service behind this front does not know it"));
            }
            Err(failure) => return Err(failure),
        };
        let servers = answer.servers.iter().map(Server::try_from).collect::<Result<Vec<_>, _>>();
        let servers = servers
            .map_err(|error| Failure::busy(&format!("the service behind this front answers nonsense: {error}")))?;
        let mut response = with(StatusCode::OK, &XML, xml::emit_servers(&servers));
        let tier = if answer.matched.is_empty() { "none" } else { &answer.matched };
        if let Ok(tier) = HeaderValue::from_str(tier) {
            response.headers_mut().insert(&MATCH, tier);
        }
        Ok(response)
    }

    /// Login and password of the caller, which the service behind knows as an agent and its key.
    async fn prove(&self, source: IpAddr, login: Option<Login>) -> Result<Login, Failure> {
        let login = login.ok_or_else(Failure::unauthorized)?;
        if self.sessions.knows(&login.login, &login.password) {
            return Ok(login);
        }
        self.wrong_passwords.look(host(source), Instant::now()).map_err(Failure::too_many)?;
        let proven = self.upstream.prove(&login.login, &login.password).await;
        proven.inspect_err(|failure| self.note_wrong(source, failure)).map(|()| login)
    }

    fn note_wrong(&self, source: IpAddr, failure: &Failure) {
        if failure.status == StatusCode::UNAUTHORIZED {
            // Whether there was room for it was looked at before.
            let _ = self.wrong_passwords.take(host(source), Instant::now());
        }
    }

    async fn register(&self, login: &Login, register: Register) -> Result<Answer, Failure> {
        let Register { source, port, entry_type, protocol, networks, country, fed_by, scheme } = register;
        let port = NonZeroU16::new(port).ok_or_else(|| Failure::bad("Parameter PORT is 0."))?;
        let registration = Registration { entry_type, source, port, protocol, networks, country, scheme };
        let interval = Duration::from_secs(self.interval_seconds.load(Ordering::Relaxed).into());
        let endpoint = self.upstream.adapter().endpoint;
        let who = (login.login.as_str(), login.password.as_str());
        match self.sessions.register(endpoint, who, (registration, fed_by), interval).await {
            Outcome::Registered => {
                let mut response = empty(StatusCode::OK);
                let seconds = HeaderValue::from(interval.as_secs());
                response.headers_mut().insert(&UPDATE_INTERVAL, seconds);
                Ok(response)
            }
            Outcome::Refused(reason) => Err(Failure::new(StatusCode::FORBIDDEN, reason)),
            Outcome::NotYet(reason) => Err(Failure::busy(&reason)),
        }
    }

    async fn bye(&self, login: &Login, bye: &Bye) -> Result<Answer, Failure> {
        match self.sessions.bye(&login.login, bye).await {
            0 if bye.strict => Err(Failure::new(StatusCode::NOT_FOUND, "there is no such entry")),
            _ => Ok(empty(StatusCode::OK)),
        }
    }

    async fn transfer(&self, login: Login, transfer: &Transfer) -> Result<Answer, Failure> {
        let Login { login: agent, password } = login;
        let text = |value: Option<String>| value.unwrap_or_default();
        let wanted = TransferRequest {
            agent,
            peer: String::new(),
            network: text(transfer.network.map(|network| network.to_string())),
            country: text(transfer.country.map(|country| country.to_string())),
        };
        let entries = self.upstream.transfer(wanted, &password).await?;
        let (parts, receiver) = mpsc::channel(PARTS_MAX);
        tokio::spawn(hand_on(entries, parts));
        let mut answer = with(StatusCode::OK, &XML, String::new());
        *answer.body_mut() = Content::Parts(receiver, None);
        Ok(answer)
    }

    fn failed(source: IpAddr, failure: Failure) -> Answer {
        tracing::debug!(%source, status = failure.status.as_u16(), reason = failure.sentence, "refused");
        failure.into_answer()
    }
}

/// Writes entries while they come. Without its end whoever reads it does not take it for the whole.
async fn hand_on(mut entries: Streaming<TransferEntry>, parts: mpsc::Sender<Part>) {
    let mut xml = xml::TRANSFER_BEGIN.to_owned();
    loop {
        let entry = tokio::select! {
            entry = entries.message() => entry,
            () = parts.closed() => return,
        };
        let is_last = match entry {
            Ok(Some(entry)) => {
                match registry::TransferEntry::try_from(&entry) {
                    Ok(entry) => xml::emit_transfer_entries(&mut xml, &[entry]),
                    Err(error) => tracing::warn!(%error, "an entry of the service behind is none"),
                }
                false
            }
            Ok(None) => {
                xml.push_str(xml::TRANSFER_END);
                true
            }
            Err(status) => {
                tracing::warn!(reason = crate::dial::said(&status), "the service behind breaks off a transfer");
                return;
            }
        };
        if is_last || xml.len() >= PART_BYTES {
            let part = Part::Data(std::mem::take(&mut xml));
            if parts.send(part).await.is_err() {
                return;
            }
        }
        if is_last {
            // Nobody listens when the connection is gone.
            let _ = parts.send(Part::End).await;
            return;
        }
    }
}

impl Handler for Service {
    /// The source of the request.
    type Admitted = IpAddr;

    fn admit(&self, peer: SocketAddr, header: Header<'_>, now: Instant) -> Result<IpAddr, Box<Answer>> {
        let trusted = self.trusted_proxies.read().unwrap_or_else(PoisonError::into_inner);
        let source = source::of(peer.ip(), header.fields, &trusted);
        drop(trusted);
        let admitted = admit(header).and_then(|()| self.rate.take(host(source), now).map_err(Failure::too_many));
        admitted.map(|()| source).map_err(|failure| Box::new(Self::failed(source, failure)))
    }

    fn handle(self: &Arc<Self>, source: IpAddr, request: Request<'_>) -> Reply {
        let (action, login) = match read(request) {
            Ok(read) => read,
            Err(failure) => return Reply::now(Self::failed(source, failure)),
        };
        let service = self.clone();
        Reply::Later(Box::pin(async move {
            let outcome = service.act(action, login, source).await;
            outcome.unwrap_or_else(|failure| Self::failed(source, failure))
        }))
    }

    fn refuse(&self, status: StatusCode, sentence: &str) -> Answer {
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(BUSY_RETRY);
        Failure { retry_after, ..Failure::new(status, sentence) }.into_answer()
    }
}
