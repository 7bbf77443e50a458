//! Makes one request to a database above us.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use castgate_endpoint::hierarchy::address::{DEFAULT_PORT, DatabaseAddress, Place};
use castgate_endpoint::hierarchy::redirect::{REDIRECTS_MAX, Redirect, RedirectError, is_redirect};
use castgate_endpoint::hierarchy::registrar::{Call, Outcome};
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

async fn exchange(call: &Call) -> Result<Outcome, String> {
    let pairs = call.request.emit();
    let target = format!("{}?{pairs}", call.parent.address.path);
    if target.len() <= TARGET_BYTES_MAX {
        let outcome = follow(call, Method::GET, target, String::new()).await?;
        let Sent::Status(StatusCode::URI_TOO_LONG, ..) = outcome else { return Ok(outcome.into_outcome()) };
    }
    Ok(follow(call, Method::POST, call.parent.address.path.clone(), pairs).await?.into_outcome())
}

/// Sends where redirects lead, which is to other paths of the same host: login and password are for nobody else.
async fn follow(call: &Call, method: Method, mut target: String, body: String) -> Result<Sent, String> {
    let database = &call.parent.address;
    for _ in 0..=REDIRECTS_MAX {
        let sent = send(call, &method, &target, &body).await?;
        let Sent::Status(status, header, _) = &sent;
        if !is_redirect(status.as_u16()) {
            return Ok(sent);
        }
        let location = header.get(LOCATION).and_then(|value| value.to_str().ok());
        let redirect =
            Redirect::parse(&database.authority(), location, true).map_err(|error| format!("{database} {error}"))?;
        let pairs = redirect.pairs.as_deref().or_else(|| target.split_once('?').map(|(_, pairs)| pairs));
        target = pairs.map_or_else(|| redirect.path.clone(), |pairs| format!("{}?{pairs}", redirect.path));
    }
    Err(format!("{database} {}", RedirectError::TooMany))
}

/// An answer, as far as it matters.
enum Sent {
    Status(StatusCode, HeaderMap, Bytes),
}

async fn send(call: &Call, method: &Method, target: &str, body: &str) -> Result<Sent, String> {
    let stream = connect(&call.parent.address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let basic = STANDARD.encode(format!("{}:{}", call.parent.login, call.parent.password));
    let mut authorization = HeaderValue::from_str(&format!("Basic {basic}")).expect("base64 is visible ASCII");
    authorization.set_sensitive(true);
    let mut request = hyper::Request::builder()
        .method(method.clone())
        .uri(target)
        .header(HOST, call.parent.address.authority())
        .header(AUTHORIZATION, authorization)
        .header(CONNECTION, "close");
    if *method == Method::POST {
        request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).map_err(|error| error.to_string())?;
    let answered = async {
        let (head, body) = sender.send_request(request).await.map_err(|error| error.to_string())?.into_parts();
        // A body that is too long or broken off takes nothing away from the status.
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map(Collected::to_bytes).unwrap_or_default();
        Ok(Sent::Status(head.status, head.headers, body))
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

/// The first address that takes a connection.
async fn connect(database: &DatabaseAddress) -> Result<TcpStream, String> {
    let addresses: Vec<SocketAddr> = match &database.place {
        Place::Socket(address) => vec![*address],
        Place::Name { name, port } => look_up(name, *port).await?,
        Place::Service(name) => look_up(name, DEFAULT_PORT).await?,
    };
    let mut last = format!("{database} has no address");
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
        let Self::Status(status, header, body) = self;
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
        let said = if is_text { String::from_utf8_lossy(&body) } else { "".into() };
        let said = said.split(char::is_control).find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
        let sentence = if said.is_empty() { status.to_string() } else { format!("{}: {said}", status.as_u16()) };
        Outcome::Refused { sentence, retry_after: seconds(RETRY_AFTER.as_str()) }
    }
}
