//! Makes one request to a database above us or beside us: a call of the registrar with its login, a question of its walks
//! without, or the TRANSFER of a peer's entries. Over TLS where its address says https.

use std::io::BufRead;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes};
use castgate_client::Trust;
use castgate_client::tls::Stream;
use castgate_endpoint::hierarchy::address::{DEFAULT_PORT, DatabaseAddress, Place};
use castgate_endpoint::hierarchy::discovery::Ask;
use castgate_endpoint::hierarchy::locator;
use castgate_endpoint::hierarchy::redirect::{REDIRECTS_MAX, Redirect, RedirectError, is_redirect};
use castgate_endpoint::hierarchy::registrar::{Call, Outcome};
use castgate_wire::registry::{Request, Scheme, Server, Transfer, TransferEntry, xml};
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::UPDATE_INTERVAL;

/// Time to connect (castgate UMTP notes).
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Time of the whole exchange (castgate UMTP notes).
const TOTAL_TIME: Duration = Duration::from_secs(10);
/// Time of a whole transfer: as long as the peer takes for its answer.
const TRANSFER_TIME: Duration = Duration::from_mins(10);
/// Parts of an answer that wait to be read; then the peer waits.
const PARTS_MAX: usize = 16;
/// Longest target that goes into a GET; what is longer goes into a POST before anybody has to say 414.
const TARGET_BYTES_MAX: usize = 2_000;
/// Octets of an answer that are read: a status says all, the rest is a sentence.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Carries out a call of the registrar. Everything that can happen is an outcome.
pub(crate) async fn carry_out(call: &Call) -> Outcome {
    match timeout(TOTAL_TIME, exchange(call)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(sentence)) => Outcome::Unreachable { sentence },
        Err(_) => Outcome::Unreachable { sentence: format!("no answer within {} s", TOTAL_TIME.as_secs()) },
    }
}

/// Asks a database which databases are below it. An error is a sentence.
pub(crate) async fn ask(ask: &Ask, trust: &Trust) -> Result<Vec<Server>, String> {
    let Ask { scheme, address, authority, target } = ask.clone();
    let (trust, answer_bytes_max) = (trust.clone(), locator::ANSWER_BYTES_MAX);
    let line = Line { scheme, trust, authority, authorization: None, answer_bytes_max };
    let exchange = async {
        let sent = line.follow(vec![address], Method::GET, target, Bytes::new()).await?;
        if sent.status != StatusCode::OK {
            return Err(format!("answered {}", sent.status));
        }
        xml::parse_servers(&sent.body?).map_err(|error| error.to_string())
    };
    let late = |_| Err(format!("no answer within {} s", TOTAL_TIME.as_secs()));
    timeout(TOTAL_TIME, exchange).await.unwrap_or_else(late)
}

async fn exchange(call: &Call) -> Result<Outcome, String> {
    let addresses = addresses_of(&call.parent.address.place).await?;
    if addresses.is_empty() {
        return Err(format!("{} has no address", call.parent.address));
    }
    let trust = trust_of(call.parent.ca.as_deref())?;
    let line = || Line {
        scheme: call.parent.address.scheme,
        trust: trust.clone(),
        authority: call.authority.clone(),
        authorization: Some(authorization(&call.parent.login, &call.parent.password)),
        answer_bytes_max: ANSWER_BYTES_MAX,
    };
    let path = &call.parent.address.path;
    let pairs = call.request.emit();
    let target = format!("{path}?{pairs}");
    if target.len() <= TARGET_BYTES_MAX {
        let sent = line().follow(addresses.clone(), Method::GET, target, Bytes::new()).await?;
        if sent.status != StatusCode::URI_TOO_LONG {
            return Ok(sent.into_outcome());
        }
    }
    Ok(line().follow(addresses, Method::POST, path.clone(), Bytes::from(pairs)).await?.into_outcome())
}

/// Whose certificates are believed: those that are named, or those that the system trusts. An error is a sentence.
pub(crate) fn trust_of(ca: Option<&str>) -> Result<Trust, String> {
    let Some(ca) = ca else { return Ok(Trust::system()) };
    Trust::only(ca).ok_or_else(|| "ca: holds no certificate that can be read".to_owned())
}

/// Who we are at a peer, and whose certificates we believe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerAccount<'a> {
    pub(crate) login: &'a str,
    pub(crate) password: &'a str,
    pub(crate) ca: Option<&'a str>,
}

/// Asks a peer for its entries and hands them on while they come, from a thread that may block; `None` after the last. Returns what
/// `take` returned last, and how many entries could not be read. An error is a sentence.
pub(crate) async fn transfer<T: Send + 'static>(
    peer: &DatabaseAddress,
    account: PeerAccount<'_>,
    wanted: &Transfer,
    take: impl FnMut(Option<TransferEntry>) -> T + Send + 'static,
) -> Result<(T, usize), String> {
    let outcome = timeout(TRANSFER_TIME, receive(peer, account, wanted, take)).await;
    let late = || Err(format!("no end within {} s", TRANSFER_TIME.as_secs()));
    outcome.unwrap_or_else(|_| late())
}

async fn receive<T: Send + 'static>(
    peer: &DatabaseAddress,
    PeerAccount { login, password, ca }: PeerAccount<'_>,
    wanted: &Transfer,
    mut take: impl FnMut(Option<TransferEntry>) -> T + Send + 'static,
) -> Result<(T, usize), String> {
    let stream = connect(peer, &trust_of(ca)?).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = hyper::Request::get(format!("{}?{}", peer.path, Request::Transfer(wanted.clone()).emit()))
        .header(HOST, peer.authority())
        .header(AUTHORIZATION, authorization(login, password))
        .header(CONNECTION, "close")
        .body(Full::<Bytes>::default())
        .map_err(|error| error.to_string())?;
    let answer = timeout(TOTAL_TIME, sender.send_request(request)).await;
    let answer = answer.map_err(|_| format!("no answer within {} s", TOTAL_TIME.as_secs()))?;
    let (head, mut body) = answer.map_err(|error| error.to_string())?.into_parts();
    if head.status != StatusCode::OK {
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map(Collected::to_bytes).unwrap_or_default();
        return Err(sentence(head.status, &head.headers, &body));
    }
    let (parts, received) = mpsc::channel(PARTS_MAX);
    let reader = tokio::task::spawn_blocking(move || {
        let mut unreadable = 0;
        let source = Received { parts: received, current: Bytes::new(), ended: false };
        let read = xml::read_transfer(source, |entry| match entry {
            Ok(entry) => drop(take(Some(entry))),
            Err(_) => unreadable += 1,
        });
        // What came before a break is good.
        let last = take(None);
        read.map(|()| (last, unreadable)).map_err(|error| error.to_string())
    });
    loop {
        let frame = timeout(TOTAL_TIME, body.frame()).await;
        let part = match frame {
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Ok(data),
                Err(_) => continue,
            },
            Ok(Some(Err(error))) => Err(error.to_string()),
            Ok(None) => break,
            Err(_) => Err(format!("nothing more within {} s", TOTAL_TIME.as_secs())),
        };
        let broken = part.is_err();
        // The reader may have refused what it got; it says why.
        if parts.send(part).await.is_err() || broken {
            break;
        }
    }
    drop(parts);
    reader.await.map_err(|error| error.to_string())?
}

/// The parts of a body as something to read from, in a thread that may block.
struct Received {
    parts: mpsc::Receiver<Result<Bytes, String>>,
    current: Bytes,
    ended: bool,
}

impl std::io::Read for Received {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let from = self.fill_buf()?;
        let len = from.len().min(into.len());
        into[..len].copy_from_slice(&from[..len]);
        self.consume(len);
        Ok(len)
    }
}

impl BufRead for Received {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.current.is_empty() && !self.ended {
            match self.parts.blocking_recv() {
                Some(Ok(part)) => self.current = part,
                Some(Err(error)) => return Err(std::io::Error::other(error)),
                None => self.ended = true,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, len: usize) {
        self.current.advance(len);
    }
}

fn authorization(login: &str, password: &str) -> HeaderValue {
    let basic = STANDARD.encode(format!("{login}:{password}"));
    let mut value = HeaderValue::from_str(&format!("Basic {basic}")).expect("base64 is visible ASCII");
    value.set_sensitive(true);
    value
}

/// How a database is spoken to.
struct Line {
    scheme: Scheme,
    trust: Trust,
    /// The `Host` field.
    authority: String,
    /// Login and password, for this host alone.
    authorization: Option<HeaderValue>,
    answer_bytes_max: usize,
}

/// An answer, as far as it matters.
struct Sent {
    status: StatusCode,
    header: HeaderMap,
    /// A body that is too long or broken off takes nothing away from the status.
    body: Result<Bytes, String>,
}

impl Line {
    /// Sends where redirects lead; with credentials that is to other paths of the same host.
    async fn follow(
        mut self,
        mut addresses: Vec<SocketAddr>,
        method: Method,
        mut target: String,
        body: Bytes,
    ) -> Result<Sent, String> {
        for _ in 0..=REDIRECTS_MAX {
            let stream = secured(self.scheme, &self.trust, connect_to(&addresses).await?, &self.authority).await?;
            let sent = self.send(stream, method.clone(), &target, body.clone()).await?;
            if !is_redirect(sent.status.as_u16()) {
                return Ok(sent);
            }
            let location = sent.header.get(LOCATION).and_then(|value| value.to_str().ok());
            let redirect = Redirect::parse((self.scheme, &self.authority), location, self.authorization.is_some())
                .map_err(|error| format!("{} {error}", self.authority))?;
            target = redirect.target(&target);
            if let Some(place) = &redirect.place {
                addresses = addresses_of(place).await?;
            }
            (self.scheme, self.authority) = (redirect.scheme, redirect.authority);
        }
        Err(format!("{} {}", self.authority, RedirectError::TooMany))
    }

    async fn send(&self, stream: Box<dyn Stream>, method: Method, target: &str, body: Bytes) -> Result<Sent, String> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let Self { scheme: _, trust: _, authority, authorization, answer_bytes_max } = self;
        let mut request = hyper::Request::builder()
            .method(method.clone())
            .uri(target)
            .header(HOST, authority)
            .header(CONNECTION, "close");
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let answered = async {
            let (head, body) = sender.send_request(request).await.map_err(|error| error.to_string())?.into_parts();
            let body = Limited::new(body, *answer_bytes_max).collect().await;
            let body = body.map(Collected::to_bytes).map_err(|error| format!("the answer cannot be read: {error}"));
            Ok(Sent { status: head.status, header: head.headers, body })
        };
        let driven = async {
            // An error here comes out of send_request as well; without one the answer is still to be read.
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answered = answered => answered,
            () = driven => unreachable!("it never ends"),
        }
    }
}

/// The first address that takes a connection.
async fn connect(database: &DatabaseAddress, trust: &Trust) -> Result<Box<dyn Stream>, String> {
    let addresses = addresses_of(&database.place).await?;
    if addresses.is_empty() {
        return Err(format!("{database} has no address"));
    }
    secured(database.scheme, trust, connect_to(&addresses).await?, &database.authority()).await
}

/// TLS, where that is spoken, with the one who was asked for.
async fn secured(scheme: Scheme, trust: &Trust, stream: TcpStream, authority: &str) -> Result<Box<dyn Stream>, String> {
    let secured = timeout(CONNECT_TIME, trust.connect(scheme, stream, authority)).await;
    let late = |_| format!("{authority} did not finish the TLS handshake within {} s", CONNECT_TIME.as_secs());
    secured.map_err(late)?.map_err(|error| format!("{authority} {error}"))
}

async fn addresses_of(place: &Place) -> Result<Vec<SocketAddr>, String> {
    match place {
        Place::Socket(address) => Ok(vec![*address]),
        Place::Name { name, port } => look_up(name, *port).await,
        Place::Service(name) => look_up(name, DEFAULT_PORT).await,
    }
}

async fn connect_to(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut last = String::new();
    for address in addresses {
        match timeout(CONNECT_TIME, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = format!("no connection to {address}: {error}"),
            Err(_) => last = format!("no connection to {address} within {} s", CONNECT_TIME.as_secs()),
        }
    }
    Err(last)
}

async fn look_up(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::net::lookup_host((name, port)).await;
    found.map(Iterator::collect).map_err(|error| format!("no address of {name}: {error}"))
}

impl Sent {
    fn into_outcome(self) -> Outcome {
        let Self { status, header, body } = self;
        let seconds = |name: &str| {
            let value = header.get(name)?.to_str().ok()?.trim().parse().ok()?;
            Some(Duration::from_secs(value))
        };
        if status == StatusCode::OK {
            return Outcome::Done {
                interval: seconds(UPDATE_INTERVAL.as_str()).filter(|interval| !interval.is_zero()),
            };
        }
        let body = body.unwrap_or_default();
        Outcome::Refused { sentence: sentence(status, &header, &body), retry_after: seconds(RETRY_AFTER.as_str()) }
    }
}

/// Status and first line of a refusal.
fn sentence(status: StatusCode, header: &HeaderMap, body: &[u8]) -> String {
    let is_text = header
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.to_ascii_lowercase().starts_with("text/plain"));
    let said = if is_text { String::from_utf8_lossy(body) } else { "".into() };
    let said = said.split(char::is_control).find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    if said.is_empty() { status.to_string() } else { format!("{}: {said}", status.as_u16()) }
}
