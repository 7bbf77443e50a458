//! Takes connections and hands whole requests to a [`Handler`].
//!
//! A stranger can open connections, send slowly, send much, or never read: each of these has a bound here, so that the
//! handler sees complete requests only and nobody keeps others out for longer than these times.
//!
//! ```text
//!   accept ──▶ too many of this address? closed
//!          └─▶ header within 10 s ─▶ body within 10 s, 1 MiB ─▶ Handler ─▶ answer; at most 60 s in all
//! ```

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections at one time; the next one waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// Connections of one address at one time: a NAT in front of many, but not all of the above.
const CONNECTIONS_PER_SOURCE_MAX: usize = 128;
/// Time to send the header of a request, waiting between two requests included.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Time to send the body of a request.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Time of a connection, whatever happens on it.
const CONNECTION_TIME: Duration = Duration::from_mins(1);
/// Octets of the header of a request. Above the longest request line that hyper takes, so that we can say 414.
const HEADER_BYTES_MAX: usize = 128 * 1024;
/// Octets of the body of a request.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Time that requests under way are given when we stop.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// Wait after the kernel could not give us a connection (out of file descriptors), so that we do not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A complete request.
#[derive(Debug)]
pub(crate) struct Request {
    /// Who sent it.
    pub(crate) peer: SocketAddr,
    /// Our address that it came to.
    pub(crate) local: SocketAddr,
    /// Method, target, header.
    pub(crate) parts: Parts,
    /// Empty for methods without one.
    pub(crate) body: Bytes,
}

/// An answer.
pub(crate) type Answer = Response<Full<Bytes>>;

/// What a request means.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: Request) -> impl Future<Output = Answer> + Send;

    /// Answers a request whose body is not to be had.
    fn refuse(&self, status: StatusCode, sentence: &str) -> Answer;
}

/// Serves until `stop` says so, then lets requests under way finish.
pub(crate) async fn serve<H: Handler>(listener: TcpListener, handler: Arc<H>, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let sources = Arc::new(Sources::default());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection taken");
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Some(seat) = sources.enter(peer.ip()) else {
            tracing::debug!(%peer, "too many connections of this address");
            continue;
        };
        let (handler, stop) = (handler.clone(), stop.clone());
        connections.spawn(async move {
            connection(stream, peer, handler, stop).await;
            drop((place, seat));
        });
    }
    // Whoever is still busy after this loses the connection, as if we had been killed.
    let drained = timeout(DRAIN_TIME, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::debug!(connections = connections.len(), "connections cut");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.expect("nobody closes the semaphore");
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

async fn connection<H: Handler>(stream: TcpStream, peer: SocketAddr, handler: Arc<H>, mut stop: watch::Receiver<bool>) {
    let Ok(local) = stream.local_addr() else { return };
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(answer(&*handler, request, peer, local).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let served = timeout(CONNECTION_TIME, async {
        tokio::select! {
            served = connection.as_mut() => return served,
            _ = stop.wait_for(|stop| *stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    });
    match served.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::trace!(%peer, %error, "connection broken"),
        Err(_) => tracing::debug!(%peer, "connection took too long"),
    }
}

async fn answer<H: Handler>(
    handler: &H,
    request: hyper::Request<Incoming>,
    peer: SocketAddr,
    local: SocketAddr,
) -> Answer {
    let (parts, body) = request.into_parts();
    // Other methods have no body that we would look at; hyper drops what comes or closes the connection.
    if parts.method != Method::POST {
        return handler.handle(Request { peer, local, parts, body: Bytes::new() }).await;
    }
    match timeout(BODY_TIME, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => handler.handle(Request { peer, local, parts, body: body.to_bytes() }).await,
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            handler.refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 1 MiB")
        }
        Ok(Err(_)) => handler.refuse(StatusCode::BAD_REQUEST, "the body is broken off"),
        Err(_) => handler.refuse(StatusCode::REQUEST_TIMEOUT, "the body did not come within 10 s"),
    }
}

/// Connections by address. Bounded by the number of connections.
#[derive(Debug, Default)]
struct Sources(Mutex<HashMap<IpAddr, usize>>);

/// A connection's place among those of its address.
#[derive(Debug)]
struct Seat(Arc<Sources>, IpAddr);

impl Sources {
    fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Seat> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(source).or_default();
        if *count >= CONNECTIONS_PER_SOURCE_MAX {
            return None;
        }
        *count += 1;
        Some(Seat(self.clone(), source))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_take_all_places_and_gives_its_own_back() {
        let sources = Arc::new(Sources::default());
        let greedy = IpAddr::from([192, 0, 2, 1]);
        let mut seats: Vec<Seat> = std::iter::from_fn(|| sources.enter(greedy)).collect();
        assert_eq!(seats.len(), CONNECTIONS_PER_SOURCE_MAX);
        assert!(sources.enter(IpAddr::from([192, 0, 2, 2])).is_some());
        seats.pop();
        assert!(sources.enter(greedy).is_some());
        seats.clear();
        assert!(sources.0.lock().unwrap().is_empty(), "nothing is remembered of those who left");
    }
}
