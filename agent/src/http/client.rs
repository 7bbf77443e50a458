//! Makes one request to a database above us: a call of the registrar with its login, or a question of its walks without.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use castgate_endpoint::hierarchy::address::{DEFAULT_PORT, DatabaseAddress, Place};
use castgate_endpoint::hierarchy::discovery::Ask;
use castgate_endpoint::hierarchy::locator;
use castgate_endpoint::hierarchy::redirect::{REDIRECTS_MAX, Redirect, RedirectError, is_redirect};
use castgate_endpoint::hierarchy::registrar::{Call, Outcome};
use castgate_wire::registry::{Server, xml};
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::UPDATE_INTERVAL;

/// Time to connect (castgate UMTP notes).
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Time of the whole exchange (castgate UMTP notes).
const TOTAL_TIME: Duration = Duration::from_secs(10);
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
pub(crate) async fn ask(ask: &Ask) -> Result<Vec<Server>, String> {
    let exchange = async {
        let Ask { address, mut authority, mut target } = ask.clone();
        let mut addresses = vec![address];
        for _ in 0..=REDIRECTS_MAX {
            let stream = connect_to(&addresses).await?;
            let line = Line { authority: &authority, authorization: None, answer_bytes_max: locator::ANSWER_BYTES_MAX };
            let sent = line.send(stream, Method::GET, &target, String::new()).await?;
            if is_redirect(sent.status.as_u16()) {
                let redirect = redirect(&sent, &authority, false).map_err(|error| error.to_string())?;
                target = aim(&redirect, &target);
                if let Some(place) = &redirect.place {
                    addresses = addresses_of(place).await?;
                }
                authority = redirect.authority;
                continue;
            }
            if sent.status != StatusCode::OK {
                return Err(format!("answered {}", sent.status));
            }
            return xml::parse_servers(&sent.body?).map_err(|error| error.to_string());
        }
        Err(RedirectError::TooMany.to_string())
    };
    let late = |_| Err(format!("no answer within {} s", TOTAL_TIME.as_secs()));
    timeout(TOTAL_TIME, exchange).await.unwrap_or_else(late)
}

async fn exchange(call: &Call) -> Result<Outcome, String> {
    let pairs = call.request.emit();
    let target = format!("{}?{pairs}", call.parent.address.path);
    if target.len() <= TARGET_BYTES_MAX {
        let sent = follow(call, Method::GET, target, String::new()).await?;
        if sent.status != StatusCode::URI_TOO_LONG {
            return Ok(sent.into_outcome());
        }
    }
    Ok(follow(call, Method::POST, call.parent.address.path.clone(), pairs).await?.into_outcome())
}

/// Sends where redirects lead, which is to other paths of the same host: login and password are for nobody else.
async fn follow(call: &Call, method: Method, mut target: String, body: String) -> Result<Sent, String> {
    let database = &call.parent.address;
    for _ in 0..=REDIRECTS_MAX {
        let sent = send(call, method.clone(), &target, body.clone()).await?;
        if !is_redirect(sent.status.as_u16()) {
            return Ok(sent);
        }
        let redirect = redirect(&sent, &call.authority, true).map_err(|error| format!("{database} {error}"))?;
        target = aim(&redirect, &target);
    }
    Err(format!("{database} {}", RedirectError::TooMany))
}

/// Where an answer sends whoever asked `authority`.
fn redirect(sent: &Sent, authority: &str, has_credentials: bool) -> Result<Redirect, RedirectError> {
    let location = sent.header.get(LOCATION).and_then(|value| value.to_str().ok());
    Redirect::parse(authority, location, has_credentials)
}

/// The target of the next request: a redirect that names no pairs keeps those of the one before.
fn aim(redirect: &Redirect, target: &str) -> String {
    let pairs = redirect.pairs.as_deref().or_else(|| target.split_once('?').map(|(_, pairs)| pairs));
    pairs.map_or_else(|| redirect.path.clone(), |pairs| format!("{}?{pairs}", redirect.path))
}

async fn send(call: &Call, method: Method, target: &str, body: String) -> Result<Sent, String> {
    let stream = connect(&call.parent.address).await?;
    let basic = STANDARD.encode(format!("{}:{}", call.parent.login, call.parent.password));
    let mut authorization = HeaderValue::from_str(&format!("Basic {basic}")).expect("base64 is visible ASCII");
    authorization.set_sensitive(true);
    let line =
        Line { authority: &call.authority, authorization: Some(authorization), answer_bytes_max: ANSWER_BYTES_MAX };
    line.send(stream, method, target, body).await
}

/// How a database is spoken to.
struct Line<'a> {
    /// The `Host` field.
    authority: &'a str,
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

impl Line<'_> {
    async fn send(self, stream: TcpStream, method: Method, target: &str, body: String) -> Result<Sent, String> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let Self { authority, authorization, answer_bytes_max } = self;
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
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())?;
        let answered = async {
            let (head, body) = sender.send_request(request).await.map_err(|error| error.to_string())?.into_parts();
            let body = Limited::new(body, answer_bytes_max).collect().await;
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
async fn connect(database: &DatabaseAddress) -> Result<TcpStream, String> {
    let addresses = addresses_of(&database.place).await?;
    if addresses.is_empty() {
        return Err(format!("{database} has no address"));
    }
    connect_to(&addresses).await
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
            return Outcome::Done { interval: seconds(UPDATE_INTERVAL).filter(|interval| !interval.is_zero()) };
        }
        let is_text = header
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.to_ascii_lowercase().starts_with("text/plain"));
        let body = body.unwrap_or_default();
        let said = if is_text { String::from_utf8_lossy(&body) } else { "".into() };
        let said = said.split(char::is_control).find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
        let sentence = if said.is_empty() { status.to_string() } else { format!("{}: {said}", status.as_u16()) };
        Outcome::Refused { sentence, retry_after: seconds(RETRY_AFTER.as_str()) }
    }
}
