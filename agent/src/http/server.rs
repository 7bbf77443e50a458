//! Takes connections and hands whole requests to a [`Handler`].
//!
//! A stranger can open connections, send slowly, send much, or never read: each of these has a bound here, so that the
//! handler sees complete requests only and nobody keeps others out for longer than these times.
//!
//! ```text
//!   accept ──▶ too many of this address? closed; too many at all? who kept us waiting longest is (`places`)
//!          └─▶ header within 10 s ─▶ admit ─▶ body within 10 s, 1 MiB ─▶ handle ─▶ answer; at most 60 s in all
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::places::{Place, Places};

/// Time to send the header of a request, waiting between two requests included.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Time to send the body of a request.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Time of a connection, whatever happens on it.
const CONNECTION_TIME: Duration = Duration::from_mins(1);
/// Time beyond that for an answer in parts: a whole database to a peer far away. Strangers get none.
const LONG_ANSWER_TIME: Duration = Duration::from_mins(10);
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

/// A complete request.
#[derive(Debug)]
pub(crate) struct Request {
    /// Our address that it came to.
    pub(crate) local: SocketAddr,
    /// Method, target, header.
    pub(crate) parts: Parts,
    /// Empty for methods without one.
    pub(crate) body: Vec<u8>,
}

/// An answer.
pub(crate) type Answer = Response<Content>;

/// The body of an answer: whole, or part by part as it is made.
#[derive(Debug)]
pub(crate) enum Content {
    /// What most answers are.
    Whole(Full<Bytes>),
    /// One that may be long; it is broken off when its maker goes without [`Part::End`].
    Parts(mpsc::Receiver<Part>),
    /// All parts are sent.
    Ended,
}

/// A part of a long answer.
#[derive(Debug)]
pub(crate) enum Part {
    /// Octets.
    Data(Bytes),
    /// That was all.
    End,
}

/// The maker of a long answer is gone before its end.
#[derive(Debug, thiserror::Error)]
#[error("the answer is not complete")]
pub(crate) struct Incomplete;

impl Default for Content {
    fn default() -> Self {
        Self::Whole(Full::default())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Whole(Full::new(Bytes::from(text)))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Incomplete;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Incomplete>>> {
        let (outcome, ended) = match &mut *self {
            Self::Whole(body) => {
                return Pin::new(body)
                    .poll_frame(context)
                    .map(|frame| frame.map(|frame| frame.map_err(|never| match never {})));
            }
            Self::Ended => return Poll::Ready(None),
            Self::Parts(parts) => match std::task::ready!(parts.poll_recv(context)) {
                Some(Part::Data(data)) => (Some(Ok(Frame::data(data))), false),
                Some(Part::End) => (None, true),
                // Without its end, whoever reads it shall not take it for the whole.
                None => (Some(Err(Incomplete)), true),
            },
        };
        if ended {
            *self = Self::Ended;
        }
        Poll::Ready(outcome)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Parts(_) => false,
            Self::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Parts(_) => SizeHint::default(),
            Self::Ended => SizeHint::with_exact(0),
        }
    }
}

/// What a request means.
pub(crate) trait Handler: Send + Sync + 'static {
    /// What was found out before the body is read.
    type Admitted: Send;

    /// Decides by the header alone; a refusal is answered without reading a body.
    fn admit(&self, peer: SocketAddr, header: &Parts) -> Result<Self::Admitted, Box<Answer>>;

    /// Answers one request.
    fn handle(self: &Arc<Self>, admitted: Self::Admitted, request: Request) -> impl Future<Output = Answer> + Send;

    /// Answers a request whose body is not to be had.
    fn refuse(&self, status: StatusCode, sentence: &str) -> Answer;
}

/// Serves until `stop` says so, then lets requests under way finish.
pub(crate) async fn serve<H: Handler>(listener: TcpListener, handler: Arc<H>, mut stop: watch::Receiver<bool>) {
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
        connections.spawn(connection(stream, peer, place, handler.clone(), large_bodies.clone(), stop.clone()));
    }
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
    place: Place,
    /// An answer in parts is under way.
    is_long: AtomicBool,
    peer: SocketAddr,
    local: SocketAddr,
}

async fn connection<H: Handler>(
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    handler: Arc<H>,
    large_bodies: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
) {
    let Ok(local) = stream.local_addr() else { return };
    let shared = Arc::new(Connection { handler, large_bodies, place, is_long: AtomicBool::new(false), peer, local });
    let of_requests = shared.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let shared = of_requests.clone();
        async move { Ok::<_, Infallible>(shared.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut served = std::pin::pin!(async {
        tokio::select! {
            served = connection.as_mut() => return served,
            _ = stop.wait_for(|stop| *stop) => {}
            () = shared.place.leave() => return Ok(()),
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    });
    let mut outcome = timeout(CONNECTION_TIME, served.as_mut()).await;
    if outcome.is_err() && shared.is_long.load(Ordering::Relaxed) {
        outcome = timeout(LONG_ANSWER_TIME, served).await;
    }
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::trace!(%peer, %error, "connection broken"),
        Err(_) => tracing::debug!(%peer, "connection took too long"),
    }
}

impl<H: Handler> Connection<H> {
    async fn answer(&self, request: hyper::Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let admitted = match self.handler.admit(self.peer, &parts) {
            Ok(admitted) => admitted,
            Err(answer) => return *answer,
        };
        // Other methods have no body that we would look at; hyper drops what comes or closes the connection.
        if parts.method != Method::POST {
            return self.handle(admitted, parts, Vec::new()).await;
        }
        let refuse = |status, sentence| self.handler.refuse(status, sentence);
        match timeout(BODY_TIME, read(body, &self.large_bodies)).await {
            // The room of a large body is given back after its answer.
            Ok(Ok((body, _room))) => self.handle(admitted, parts, body).await,
            Ok(Err(BodyError::Broken)) => refuse(StatusCode::BAD_REQUEST, "the body is broken off"),
            Ok(Err(BodyError::TooLong)) => refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 1 MiB"),
            Ok(Err(BodyError::NoRoom)) => refuse(StatusCode::SERVICE_UNAVAILABLE, "too many large bodies at one time"),
            Err(_) => refuse(StatusCode::REQUEST_TIMEOUT, "the body did not come within 10 s"),
        }
    }

    async fn handle(&self, admitted: H::Admitted, parts: Parts, body: Vec<u8>) -> Answer {
        self.place.busy();
        let answer = self.handler.handle(admitted, Request { local: self.local, parts, body }).await;
        let is_long = matches!(answer.body(), Content::Parts(_));
        self.is_long.store(is_long, Ordering::Relaxed);
        if !is_long {
            self.place.waiting();
        }
        answer
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
