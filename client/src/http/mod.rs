//! One HTTP exchange with a tunnel database: HTTP/1, over TLS where its address says https, bounded in time and size.
//!
//! Liberal in what it takes, for databases are old and stand behind web servers of all kinds: HTTP/1.0, a body that ends with the
//! connection, chunks, any content type or none, and redirects by the rules of [`castgate_endpoint::hierarchy::redirect`].
//!
//! The address the request is made *from* matters: a database matches it against the networks of its servers
//! (draft-liefooghe-castgate-02 §6.3), so a client that binds its tunnel to an address binds this connection to it too.

mod database;
mod error;
mod opened;

use std::io;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use castgate_endpoint::hierarchy::address::Place;
use castgate_endpoint::hierarchy::locator::{ANSWER_TIMEOUT, CONNECT_TIMEOUT};
use castgate_endpoint::hierarchy::redirect::{REDIRECTS_MAX, Redirect, RedirectError, is_redirect};
use castgate_wire::registry::Scheme;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, FORWARDED, HOST, HeaderValue, LOCATION};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::dns::Dns;
use crate::tls::{Stream, Trust};

pub use database::DatabaseRequest;
pub use error::HttpError;
pub use opened::{Answer, Opened, Verdict};

/// Longest request line sent as GET; longer ones go as POST, before a server has to say 414.
const GET_BYTES_MAX: usize = 2_000;

/// Name and password at a tunnel database.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The account.
    pub login: String,
    /// Its password.
    pub password: String,
}

impl Credentials {
    fn basic(&self) -> HeaderValue {
        let Self { login, password } = self;
        let basic = STANDARD.encode(format!("{login}:{password}"));
        let mut value = HeaderValue::from_str(&format!("Basic {basic}")).expect("base64 is visible ASCII");
        value.set_sensitive(true);
        value
    }
}

impl std::fmt::Debug for Credentials {
    /// Never shows the password.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Credentials").field("login", &self.login).finish_non_exhaustive()
    }
}

/// One request to one address of a database.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'a> {
    /// How the database is spoken to.
    pub scheme: Scheme,
    /// Whose certificates are believed, where it is over https; `None`: those of the system.
    pub trust: Option<&'a Trust>,
    /// Where to connect to.
    pub peer: SocketAddr,
    /// The `Host` field: the database as it was named.
    pub authority: &'a str,
    /// Path and pairs: `/script/castgate.cgs?ACTION=QUERY&…`.
    pub target: &'a str,
    /// The address to connect from, where it matters.
    pub local: Option<IpAddr>,
    /// Who asks, where the database wants to know.
    pub credentials: Option<&'a Credentials>,
    /// For whom it is asked: told as a proxy does (RFC 7239), and believed by databases that trust us as one.
    pub on_behalf_of: Option<IpAddr>,
}

impl<'a> Exchange<'a> {
    /// A question of our own over http, from whatever address, by nobody in particular.
    #[must_use]
    pub const fn new(peer: SocketAddr, authority: &'a str, target: &'a str) -> Self {
        let scheme = Scheme::Http;
        Self { scheme, trust: None, peer, authority, target, local: None, credentials: None, on_behalf_of: None }
    }
}

impl Exchange<'_> {
    /// Sends the request and waits for the answer, wherever redirects lead; names in them are asked of `dns`.
    ///
    /// # Errors
    /// [`HttpError`] when no complete answer comes in time; any HTTP status but that of a redirect is an answer.
    pub async fn run(&self, dns: &Dns) -> Result<Answer, HttpError> {
        self.open(dns).await?.whole().await
    }

    /// Sends the request and waits for the head of the answer; the body is still to come.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn open(&self, dns: &Dns) -> Result<Opened, HttpError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let late = |_| HttpError::Timeout { peer: self.peer, after: ANSWER_TIMEOUT };
        timeout_at(deadline, self.follow(dns, deadline)).await.map_err(late)?
    }

    async fn follow(&self, dns: &Dns, deadline: Instant) -> Result<Opened, HttpError> {
        let (mut scheme, mut peers) = (self.scheme, vec![self.peer]);
        let (mut authority, mut target) = (self.authority.to_owned(), self.target.to_owned());
        let mut is_too_long = false;
        let mut redirects = 0;
        loop {
            let exchange = Exchange { scheme, authority: &authority, target: &target, ..*self };
            let request = exchange.request(is_too_long);
            let is_get = request.method() == Method::GET;
            let opened = exchange.first_of(&peers, request, deadline).await?;
            if opened.status() == StatusCode::URI_TOO_LONG && is_get && !is_too_long {
                is_too_long = true;
                continue;
            }
            if !is_redirect(opened.status().as_u16()) {
                return Ok(opened);
            }
            let peer = opened.peer;
            redirects += 1;
            if redirects > REDIRECTS_MAX {
                return Err(HttpError::Redirect { peer, error: RedirectError::TooMany });
            }
            let location = opened.text(&LOCATION);
            let redirect = Redirect::parse((scheme, &authority), location.as_deref(), self.credentials.is_some())
                .map_err(|error| HttpError::Redirect { peer, error })?;
            target = redirect.target(&target);
            peers = match redirect.place {
                None => vec![peer],
                Some(Place::Socket(address)) => vec![address],
                Some(Place::Name { name, port }) => {
                    let found = dns.addresses(&name).await.map_err(|error| HttpError::Lookup { peer, error })?;
                    found.into_iter().map(|address| SocketAddr::new(address, port)).collect()
                }
                Some(Place::Service(name)) => {
                    return Err(HttpError::Redirect { peer, error: RedirectError::Url(name) });
                }
            };
            (scheme, authority) = (redirect.scheme, redirect.authority);
        }
    }

    /// Asks the first of these that takes a connection.
    async fn first_of(
        &self,
        peers: &[SocketAddr],
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Opened, HttpError> {
        let mut refused = None;
        for peer in peers.iter().copied() {
            match (Exchange { peer, ..*self }).connect().await {
                Ok(stream) => return send(peer, stream, request, deadline).await,
                Err(error @ (HttpError::Connect { .. } | HttpError::Timeout { .. })) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        let nobody = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        Err(refused.unwrap_or_else(|| HttpError::Connect { peer: self.peer, error: nobody() }))
    }

    /// The connection, over TLS where that is spoken.
    async fn connect(&self) -> Result<Box<dyn Stream>, HttpError> {
        let peer = self.peer;
        let late = |_| HttpError::Timeout { peer, after: CONNECT_TIMEOUT };
        let connected = timeout(CONNECT_TIMEOUT, connect(peer, self.local)).await.map_err(late)?;
        let stream = connected.map_err(|error| HttpError::Connect { peer, error })?;
        let system = Trust::system();
        let secured = self.trust.unwrap_or(&system).connect(self.scheme, stream, self.authority);
        let secured = timeout(CONNECT_TIMEOUT, secured).await.map_err(late)?;
        secured.map_err(|error| HttpError::Tls { database: self.authority.to_owned(), peer, error })
    }

    /// By GET, unless that `is_too_long` for the database or would be for many.
    fn request(&self, is_too_long: bool) -> Request<Full<Bytes>> {
        let builder = Request::builder().header(HOST, self.authority).header(CONNECTION, "close");
        let builder = match self.credentials {
            Some(credentials) => builder.header(AUTHORIZATION, credentials.basic()),
            None => builder,
        };
        let builder = match self.on_behalf_of {
            Some(IpAddr::V4(client)) => builder.header(FORWARDED, format!("for={client}")),
            Some(IpAddr::V6(client)) => builder.header(FORWARDED, format!("for=\"[{client}]\"")),
            None => builder,
        };
        let request = match self.target.split_once('?') {
            Some((path, pairs)) if is_too_long || pairs.len() > GET_BYTES_MAX => builder
                .method(Method::POST)
                .uri(path)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Full::from(pairs.to_owned())),
            _ => builder.method(Method::GET).uri(self.target).body(Full::default()),
        };
        request
            .expect("a database's address, path and pairs hold nothing that HTTP cannot carry, nor does a redirect's")
    }
}

/// Sends the request and waits for the head of its answer.
async fn send(
    peer: SocketAddr,
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
    deadline: Instant,
) -> Result<Opened, HttpError> {
    let protocol = |error| HttpError::Protocol { peer, error };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(protocol)?;
    let mut driver = JoinSet::new();
    // Its errors come out of the request and the body as well.
    driver.spawn(async move { drop(connection.await) });
    let (head, body) = sender.send_request(request).await.map_err(protocol)?.into_parts();
    Ok(Opened { peer, head, body, deadline, _driver: driver })
}

async fn connect(peer: SocketAddr, local: Option<IpAddr>) -> io::Result<tokio::net::TcpStream> {
    let socket = if peer.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(local) = local.filter(|local| local.is_ipv4() == peer.is_ipv4()) {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    socket.connect(peer).await
}

#[cfg(test)]
mod tests;
