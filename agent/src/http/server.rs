//! Takes connections and hands whole requests to a [`Handler`].
//!
//! A stranger can open connections, send slowly, send much, or never read: each of these has a bound here, so that the
//! handler sees complete requests only and nobody keeps others out for longer than these times.
//!
//! ```text
//!   accept ──▶ too many of this address? closed; too many at all? who kept us waiting longest is (`places`)
//!          └─▶ TLS, where it is spoken, within 5 s; who says something else is told so
//!          └─▶ header within 10 s ─▶ admit ─▶ body within 10 s, 1 MiB ─▶ handle ─▶ answer; at most 60 s in all
//! ```

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::content::Content;
use super::pace::Pace;
use super::places::{Leave, Places};
use crate::tls::Acceptor;

/// Time for the TLS handshake: two ways there and back, and a signature.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// First octet of a TLS connection: its handshake (RFC 8446 §5.1). No method of HTTP begins so.
const TLS_HANDSHAKE: u8 = 22;
/// Time to send the body of a request.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Octets of the header of a request. Above the longest request line that hyper takes, so that we can say 414.
const HEADER_BYTES_MAX: usize = 80 * 1024;
/// Octets of the body of a request.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Octets of a body that every connection has room for.
const BODY_BYTES_ALWAYS: usize = 64 * 1024;
/// Octets beyond that of all bodies together: otherwise as many connections as there may be could fill the memory.
const LARGE_BODIES_BYTES_MAX: usize = 64 << 20;
/// Time that requests under way are given when we stop.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// Wait after the kernel could not give us a connection (out of file descriptors), so that we do not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What stands before the body of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header<'a> {
    pub(crate) method: &'a Method,
    pub(crate) target: &'a Uri,
    pub(crate) fields: &'a HeaderMap,
}

impl<'a, B> From<&'a hyper::Request<B>> for Header<'a> {
    fn from(request: &'a hyper::Request<B>) -> Self {
        Self { method: request.method(), target: request.uri(), fields: request.headers() }
    }
}

/// A complete request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// When it came.
    pub(crate) at: std::time::Instant,
    /// Our address that it came to.
    pub(crate) local: SocketAddr,
    pub(crate) header: Header<'a>,
    /// Empty for methods without one.
    pub(crate) body: &'a [u8],
}

/// An answer.
pub(crate) type Answer = Response<Content>;

/// An answer, or where it will come from. What needs nobody else is answered at once, and costs no task of its own.
pub(crate) enum Reply {
    /// Made.
    Now(Ready<Answer>),
    /// Being made.
    Later(Making),
}

impl Reply {
    pub(crate) fn now(answer: Answer) -> Self {
        Self::Now(ready(answer))
    }
}

impl Future for Reply {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        match self.get_mut() {
            Self::Now(answer) => Pin::new(answer).poll(context),
            Self::Later(making) => making.as_mut().poll(context),
        }
    }
}

/// An answer that is being made.
pub(crate) type Making = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What a request means.
pub(crate) trait Handler: Send + Sync + 'static {
    /// What was found out before the body is read.
    type Admitted: Send + 'static;

    /// Decides by the header alone, which is there `now`; a refusal is answered without reading a body.
    fn admit(
        &self,
        peer: SocketAddr,
        header: Header<'_>,
        now: std::time::Instant,
    ) -> Result<Self::Admitted, Box<Answer>>;

    /// Answers one request.
    fn handle(self: &Arc<Self>, admitted: Self::Admitted, request: Request<'_>) -> Reply;

    /// Answers a request whose body is not to be had.
    fn refuse(&self, status: StatusCode, sentence: &str) -> Answer;
}

/// What makes TLS of new connections; `None`: http is spoken.
pub(crate) type Tls = watch::Receiver<Option<Acceptor>>;

/// Serves until `stop` says so, then lets requests under way finish.
pub(crate) async fn serve<H: Handler>(
    listener: TcpListener,
    tls: Tls,
    handler: Arc<H>,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Places::default());
    let large_bodies = Arc::new(Semaphore::new(LARGE_BODIES_BYTES_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection taken");
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let place = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            place = places.enter(peer.ip()) => place,
        };
        let Some(place) = place else {
            tracing::debug!(%peer, "too many connections of this address");
            continue;
        };
        let Ok(local) = stream.local_addr() else { continue };
        let shared = Connection {
            handler: handler.clone(),
            large_bodies: large_bodies.clone(),
            pace: Arc::new(Pace::new(place, Instant::now())),
            is_misled: false,
            peer,
            local,
        };
        // Whoever connects from now on is shown the certificate of now.
        match tls.borrow().clone() {
            None => connections.spawn(connection(stream, shared)),
            Some(acceptor) => connections.spawn(secured(stream, acceptor, shared)),
        };
    }
    places.send_all_away();
    // Whoever is still busy after this loses the connection, as if we had been killed.
    let drained = timeout(DRAIN_TIME, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::debug!(connections = connections.len(), "connections cut");
    }
}

/// What the requests of one connection share.
struct Connection<H> {
    handler: Arc<H>,
    large_bodies: Arc<Semaphore>,
    pace: Arc<Pace>,
    /// It speaks http where https is spoken.
    is_misled: bool,
    peer: SocketAddr,
    local: SocketAddr,
}

/// Makes TLS of a connection. It keeps its place meanwhile like one that sends a header, and no longer than that.
async fn secured<H: Handler>(stream: TcpStream, Acceptor(acceptor): Acceptor, mut shared: Connection<H>) {
    let greeted = async {
        let mut first = [0];
        stream.peek(&mut first).await?;
        if first[0] != TLS_HANDSHAKE {
            return Ok(Err(stream));
        }
        acceptor.accept(stream).await.map(Ok)
    };
    let greeted = tokio::select! {
        greeted = timeout(HANDSHAKE_TIME, greeted) => greeted,
        _ = shared.pace.place().leave() => return,
    };
    shared.pace.expect_header(Instant::now());
    match greeted {
        Ok(Ok(Ok(stream))) => connection(stream, shared).await,
        Ok(Ok(Err(stream))) => {
            shared.is_misled = true;
            connection(stream, shared).await;
        }
        Ok(Err(error)) => tracing::debug!(peer = %shared.peer, %error, "no TLS"),
        Err(_) => tracing::debug!(peer = %shared.peer, "the TLS handshake took too long"),
    }
}

/// Carries out the requests of a connection.
async fn connection<H: Handler>(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Connection<H>) {
    let (peer, pace, is_misled) = (shared.peer, shared.pace.clone(), shared.is_misled);
    let shared = Arc::new(shared);
    let service = service_fn(move |request| {
        let reply = shared.answer(request);
        async move { Ok::<_, Infallible>(reply.await) }
    });
    let connection = http1::Builder::new()
        // hyper makes a timer for each request and takes it down again. Ours is one for all of them.
        .header_read_timeout(None)
        .max_buf_size(HEADER_BYTES_MAX)
        // Answers are short: to copy one behind its header costs less than to hand two pieces to the kernel.
        .writev(false)
        .keep_alive(!is_misled)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut end = pace.end();
    let mut look = std::pin::pin!(sleep_until(pace.first_look()));
    let mut is_leaving = false;
    loop {
        tokio::select! {
            // Hardly ever is anything but the connection ready: nothing is drawn by lot for it, millions of times.
            biased;
            outcome = connection.as_mut() => {
                if let Err(error) = outcome {
                    tracing::trace!(%peer, %error, "connection broken");
                }
                return;
            }
            leave = pace.place().leave(), if !is_leaving => match leave {
                Leave::AtOnce => return,
                Leave::Answered => {
                    is_leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
            },
            () = look.as_mut() => {
                let Some(next) = pace.look(&mut end, Instant::now()) else {
                    tracing::debug!(%peer, "connection took too long");
                    return;
                };
                look.as_mut().reset(next);
            }
        }
    }
}

impl<H: Handler> Connection<H> {
    /// A header is there.
    fn answer(self: &Arc<Self>, request: hyper::Request<Incoming>) -> Reply {
        // Timers go by the clock of Tokio, which tests can turn; what the handler holds, by that of the machine.
        let (now, at) = (Instant::now(), std::time::Instant::now());
        let header = Header::from(&request);
        if self.is_misled {
            let sentence = "https is spoken here, and the request came in the clear";
            return Reply::now(self.handler.refuse(StatusCode::BAD_REQUEST, sentence));
        }
        let admitted = match self.handler.admit(self.peer, header, at) {
            Ok(admitted) => admitted,
            Err(answer) => {
                self.pace.expect_header(now);
                return Reply::now(*answer);
            }
        };
        // Other methods have no body that we would look at; hyper drops what comes or closes the connection.
        if *header.method != Method::POST {
            return self.handle(admitted, Request { at, local: self.local, header, body: &[] }, now);
        }
        self.pace.has_header();
        let connection = self.clone();
        Reply::Later(Box::pin(async move { connection.answer_post(admitted, request).await }))
    }

    async fn answer_post(self: &Arc<Self>, admitted: H::Admitted, mut request: hyper::Request<Incoming>) -> Answer {
        let (status, sentence) = match timeout(BODY_TIME, read(request.body_mut(), &self.large_bodies)).await {
            // The room of a large body is given back after its answer.
            Ok(Ok((body, _room))) => {
                let (at, header) = (std::time::Instant::now(), Header::from(&request));
                let request = Request { at, local: self.local, header, body: &body };
                return self.handle(admitted, request, Instant::now()).await;
            }
            Ok(Err(BodyError::Broken)) => (StatusCode::BAD_REQUEST, "the body is broken off"),
            Ok(Err(BodyError::TooLong)) => (StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 1 MiB"),
            Ok(Err(BodyError::NoRoom)) => (StatusCode::SERVICE_UNAVAILABLE, "too many large bodies at one time"),
            Err(_) => (StatusCode::REQUEST_TIMEOUT, "the body did not come within 10 s"),
        };
        self.pace.expect_header(Instant::now());
        self.handler.refuse(status, sentence)
    }

    /// The request is there, whole.
    fn handle(self: &Arc<Self>, admitted: H::Admitted, request: Request<'_>, now: Instant) -> Reply {
        match self.handler.handle(admitted, request) {
            Reply::Now(made) => {
                let mut answer = made.into_inner();
                self.pace.answered(&mut answer, now);
                Reply::now(answer)
            }
            Reply::Later(making) => {
                self.pace.place().busy();
                self.pace.has_header();
                let pace = self.pace.clone();
                Reply::Later(Box::pin(async move {
                    let mut answer = making.await;
                    pace.answered(&mut answer, Instant::now());
                    answer
                }))
            }
        }
    }
}

/// Why a body is not to be had.
#[derive(Debug, PartialEq, Eq)]
enum BodyError {
    Broken,
    TooLong,
    NoRoom,
}

/// Reads a body. Room is taken for what has come, not for what was announced: announcing costs nothing.
async fn read<B>(mut body: B, large_bodies: &Semaphore) -> Result<(Vec<u8>, Vec<SemaphorePermit<'_>>), BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (mut octets, mut room) = (Vec::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        if octets.len() + data.len() > BODY_BYTES_MAX {
            return Err(BodyError::TooLong);
        }
        let beyond = (octets.len() + data.len()).saturating_sub(BODY_BYTES_ALWAYS.max(octets.len()));
        let beyond = u32::try_from(beyond).expect("a body is at most 1 MiB");
        room.push(large_bodies.try_acquire_many(beyond).map_err(|_| BodyError::NoRoom)?);
        octets.extend_from_slice(&data);
    }
    Ok((octets, room))
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn large_bodies_share_their_room_and_give_it_back_and_small_ones_need_none() {
        let full = Semaphore::new(0);
        let small = Full::new(Bytes::from(vec![b'x'; BODY_BYTES_ALWAYS]));
        assert_eq!(read(small.clone(), &full).await.unwrap().0.len(), BODY_BYTES_ALWAYS);
        let larger = Full::new(Bytes::from(vec![b'x'; BODY_BYTES_ALWAYS + 10]));
        assert_eq!(read(larger.clone(), &full).await.unwrap_err(), BodyError::NoRoom);
        let room = Semaphore::new(19);
        {
            let _held = read(larger.clone(), &room).await.unwrap();
            assert_eq!(room.available_permits(), 9);
            assert_eq!(read(larger, &room).await.unwrap_err(), BodyError::NoRoom);
        }
        assert_eq!(room.available_permits(), 19);
        let monstrous = Full::new(Bytes::from(vec![b'x'; BODY_BYTES_MAX + 1]));
        assert_eq!(read(monstrous, &Semaphore::new(LARGE_BODIES_BYTES_MAX)).await.unwrap_err(), BodyError::TooLong);
    }
}
