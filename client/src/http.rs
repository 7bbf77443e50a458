//! One HTTP exchange with a tunnel database: HTTP/1, over TLS where its address says https, bounded in time and size.
//!
//! Liberal in what it takes, for databases are old and stand behind web servers of all kinds: HTTP/1.0, a body that ends with the
//! connection, chunks, any content type or none, and redirects by the rules of [`castgate_endpoint::hierarchy::redirect`].
//!
//! The address the request is made *from* matters: a database matches it against the networks of its servers
//! (draft-liefooghe-castgate-02 §6.3), so a client that binds its tunnel to an address binds this connection to it too.

use std::io;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use castgate_endpoint::hierarchy::address::Place;
use castgate_endpoint::hierarchy::locator::{ANSWER_BYTES_MAX, ANSWER_TIMEOUT, CONNECT_TIMEOUT};
use castgate_endpoint::hierarchy::redirect::{REDIRECTS_MAX, Redirect, RedirectError, is_redirect};
use castgate_wire::registry::Scheme;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, FORWARDED, HOST, HeaderName, LOCATION};
use hyper::http::response::Parts;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::dns::{Dns, DnsError};
use crate::tls::{TlsError, Trust};

/// Longest request line sent as GET; longer ones go as POST, before a server has to say 414.
const GET_BYTES_MAX: usize = 2_000;
/// The tier that matched.
const MATCH: HeaderName = HeaderName::from_static("x-castgate-match");

/// Name and password at a tunnel database.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The account.
    pub login: String,
    /// Its password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    /// Never shows the password.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Credentials").field("login", &self.login).finish_non_exhaustive()
    }
}

/// One request to a database.
#[derive(Debug, Clone)]
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

/// What a database answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// Which tier matched, from `X-CastGate-Match`, where the database says so.
    pub matched: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The connection was not made.
    #[error("no connection to {peer}: {error}")]
    Connect {
        /// Whom we called.
        peer: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// The connection or the answer took too long.
    #[error("{peer} did not answer within {} s", after.as_secs())]
    Timeout {
        /// Whom we called.
        peer: SocketAddr,
        /// How long we waited.
        after: std::time::Duration,
    },
    /// No TLS, or not with the one who was asked for.
    #[error("{} {error}", place(database, *peer))]
    Tls {
        /// The database as it was named.
        database: String,
        /// Whom we called.
        peer: SocketAddr,
        /// What was wrong.
        error: TlsError,
    },
    /// Not HTTP, or cut off.
    #[error("{peer} does not speak HTTP as expected: {error}")]
    Protocol {
        /// Whom we called.
        peer: SocketAddr,
        /// What was wrong.
        error: hyper::Error,
    },
    /// A body that cannot be read or is too long.
    #[error("the answer of {peer} cannot be read: {error}")]
    Body {
        /// Whom we called.
        peer: SocketAddr,
        /// What was wrong.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A redirect that is not followed.
    #[error("{peer} {error}")]
    Redirect {
        /// Who redirects.
        peer: SocketAddr,
        /// Why it is not followed.
        error: RedirectError,
    },
    /// A redirect to a name that leads nowhere.
    #[error("{peer} redirects, and {error}")]
    Lookup {
        /// Who redirects.
        peer: SocketAddr,
        /// What the resolver said.
        error: DnsError,
    },
}

/// A database that was called by its address is named once.
fn place(database: &str, peer: SocketAddr) -> String {
    if peer.to_string() == database { database.to_owned() } else { format!("{database} at {peer}") }
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
        let whole = async { self.follow(dns).await?.whole(ANSWER_BYTES_MAX).await };
        match timeout(ANSWER_TIMEOUT, whole).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.late()),
        }
    }

    /// Sends the request and waits for the head of the answer; the body is still to come.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(crate) async fn open(&self, dns: &Dns) -> Result<Opened, HttpError> {
        match timeout(ANSWER_TIMEOUT, self.follow(dns)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.late()),
        }
    }

    fn late(&self) -> HttpError {
        HttpError::Timeout { peer: self.peer, after: ANSWER_TIMEOUT }
    }

    async fn follow(&self, dns: &Dns) -> Result<Opened, HttpError> {
        let (mut scheme, mut peers) = (self.scheme, vec![self.peer]);
        let (mut authority, mut target) = (self.authority.to_owned(), self.target.to_owned());
        for _ in 0..=REDIRECTS_MAX {
            let opened = self.first_of(scheme, &peers, &authority, &target).await?;
            if !is_redirect(opened.head.status.as_u16()) {
                return Ok(opened);
            }
            let peer = opened.peer;
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
        Err(HttpError::Redirect { peer: self.peer, error: RedirectError::TooMany })
    }

    /// Asks the first of these that takes a connection.
    async fn first_of(
        &self,
        scheme: Scheme,
        peers: &[SocketAddr],
        authority: &str,
        target: &str,
    ) -> Result<Opened, HttpError> {
        let mut refused = None;
        for peer in peers.iter().copied() {
            let local = self.local.filter(|local| local.is_ipv4() == peer.is_ipv4());
            match (Exchange { scheme, peer, authority, target, local, ..*self }).once().await {
                Ok(opened) => return Ok(opened),
                Err(error @ (HttpError::Connect { .. } | HttpError::Timeout { .. })) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        let nobody = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        Err(refused.unwrap_or_else(|| HttpError::Connect { peer: self.peer, error: nobody() }))
    }

    /// One request, and the head of its answer.
    async fn once(&self) -> Result<Opened, HttpError> {
        let peer = self.peer;
        let stream = timeout(CONNECT_TIMEOUT, connect(peer, self.local))
            .await
            .map_err(|_| HttpError::Timeout { peer, after: CONNECT_TIMEOUT })?
            .map_err(|error| HttpError::Connect { peer, error })?;
        let system = Trust::system();
        let secured = self.trust.unwrap_or(&system).connect(self.scheme, stream, self.authority);
        let stream = timeout(CONNECT_TIMEOUT, secured)
            .await
            .map_err(|_| HttpError::Timeout { peer, after: CONNECT_TIMEOUT })?
            .map_err(|error| HttpError::Tls { database: self.authority.to_owned(), peer, error })?;
        let protocol = |error| HttpError::Protocol { peer, error };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(protocol)?;
        let mut driver = JoinSet::new();
        // Its errors come out of the request and the body as well.
        driver.spawn(async move { drop(connection.await) });
        let (head, body) = sender.send_request(self.request()).await.map_err(protocol)?.into_parts();
        Ok(Opened { peer, head, body, _driver: driver })
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let builder = Request::builder().header(HOST, self.authority).header("connection", "close");
        let builder = match self.credentials {
            Some(Credentials { login, password }) => {
                builder.header(AUTHORIZATION, format!("Basic {}", STANDARD.encode(format!("{login}:{password}"))))
            }
            None => builder,
        };
        let builder = match self.on_behalf_of {
            Some(IpAddr::V4(client)) => builder.header(FORWARDED, format!("for={client}")),
            Some(IpAddr::V6(client)) => builder.header(FORWARDED, format!("for=\"[{client}]\"")),
            None => builder,
        };
        let request = match self.target.split_once('?') {
            Some((path, pairs)) if pairs.len() > GET_BYTES_MAX => builder
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

/// The head of an answer, and what is still to come. Dropped, the connection is closed.
pub(crate) struct Opened {
    /// Who answers, after all redirects.
    pub(crate) peer: SocketAddr,
    pub(crate) head: Parts,
    pub(crate) body: Incoming,
    _driver: JoinSet<()>,
}

impl Opened {
    /// Reads the whole body, when it has so many octets at most.
    pub(crate) async fn whole(self, bytes_max: usize) -> Result<Answer, HttpError> {
        let (peer, status, matched) = (self.peer, self.head.status, self.text(&MATCH));
        let collected = Limited::new(self.body, bytes_max).collect().await;
        let body = collected.map_err(|error| HttpError::Body { peer, error })?.to_bytes();
        Ok(Answer { status, matched, body })
    }

    fn text(&self, name: &HeaderName) -> Option<String> {
        self.head.headers.get(name)?.to_str().ok().map(str::to_owned)
    }
}

async fn connect(peer: SocketAddr, local: Option<IpAddr>) -> io::Result<tokio::net::TcpStream> {
    let socket = if peer.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(local) = local.filter(|local| local.is_ipv4() == peer.is_ipv4()) {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    socket.connect(peer).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[test]
    fn a_database_without_a_name_is_named_once() {
        let said = |database: &str| {
            let (database, peer) = (database.to_owned(), "192.0.2.1:5632".parse().unwrap());
            HttpError::Tls { database, peer, error: TlsError::Expired }.to_string()
        };
        assert_eq!(said("192.0.2.1:5632"), "192.0.2.1:5632 has a certificate that has expired");
        assert_eq!(said("tds.example:5632"), "tds.example:5632 at 192.0.2.1:5632 has a certificate that has expired");
    }

    #[tokio::test]
    async fn a_query_is_a_get_from_the_local_address_and_its_body_comes_back() {
        let (peer, server) =
            serve(b"HTTP/1.1 200 OK\r\nX-CastGate-Match: country\r\nContent-Length: 2\r\n\r\nhi").await;
        let local = Some("127.0.3.77".parse().unwrap());
        let answer = Exchange { local, ..get(peer) }.run(&Dns::default()).await.unwrap();
        assert_eq!(
            (answer.status, answer.matched.as_deref(), &answer.body[..]),
            (StatusCode::OK, Some("country"), &b"hi"[..])
        );
        let (from, head) = server.await.unwrap();
        assert_eq!(from.ip().to_string(), "127.0.3.77");
        assert!(head.starts_with("GET /script/castgate.cgs?ACTION=QUERY&TYPE=TS HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("host: tds.example.org:5632\r\n") && !head.contains("authorization"), "{head}");
    }

    #[tokio::test]
    async fn credentials_go_as_basic_and_long_pairs_as_post() {
        let (peer, server) = serve(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
        let credentials = Credentials { login: "be".to_owned(), password: "secret".to_owned() };
        let target = format!("/script/castgate.cgs?ACTION=REGISTER&NETWORKS={}", "192.0.2.0/24,".repeat(300));
        let exchange = Exchange { target: &target, credentials: Some(&credentials), ..get(peer) };
        let answer = exchange.run(&Dns::default()).await.unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        let (_, head) = server.await.unwrap();
        assert!(head.starts_with("POST /script/castgate.cgs HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("authorization: Basic YmU6c2VjcmV0\r\n"), "{head}");
        assert!(!format!("{credentials:?}").contains("secret"));
    }

    #[tokio::test]
    async fn for_whom_it_is_asked_is_told_as_proxies_do() {
        for (client, field) in [("192.0.2.7", "forwarded: for=192.0.2.7\r\n"), ("::7", "forwarded: for=\"[::7]\"\r\n")]
        {
            let (peer, server) = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            let on_behalf_of = Some(client.parse().unwrap());
            Exchange { on_behalf_of, ..get(peer) }.run(&Dns::default()).await.unwrap();
            let (_, head) = server.await.unwrap();
            assert!(head.contains(field), "{head}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_address() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = free.local_addr().unwrap();
        drop(free);
        let error = get(peer).run(&Dns::default()).await.unwrap_err();
        assert!(matches!(error, HttpError::Connect { .. }) && error.to_string().contains(&peer.to_string()), "{error}");
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_off() {
        let (peer, _server) = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n").await;
        let error = get(peer).run(&Dns::default()).await.unwrap_err();
        assert!(matches!(error, HttpError::Body { .. }), "{error}");
    }

    fn get(peer: SocketAddr) -> Exchange<'static> {
        let target = "/script/castgate.cgs?ACTION=QUERY&TYPE=TS";
        Exchange::new(peer, "tds.example.org:5632", target)
    }

    /// Answers one connection with fixed octets; yields who called and what was sent.
    async fn serve(answer: &'static [u8]) -> (SocketAddr, tokio::task::JoinHandle<(SocketAddr, String)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, from) = listener.accept().await.unwrap();
            let mut head = vec![0; 8_192];
            let len = stream.read(&mut head).await.unwrap();
            stream.write_all(answer).await.unwrap();
            (from, String::from_utf8_lossy(&head[..len]).into_owned())
        });
        (peer, server)
    }
}
