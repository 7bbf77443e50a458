//! Connections to the adapter: TLS, and a bound on those of strangers.
//!
//! Whoever reaches the port can open connections, say nothing, or say nonsense. A connection on which no agent has shown its
//! key is a stranger's: it has ten seconds, there are few of them, and fewer of one address. So strangers cannot keep agents
//! out for longer than that.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// Connections at one time, whoever has them.
const CONNECTIONS_MAX: usize = 16_384;
/// Connections of strangers at one time.
const STRANGERS_MAX: usize = 256;
/// Connections of strangers of one address: all agents of one node come from one.
const STRANGERS_PER_SOURCE_MAX: usize = 32;
/// Time to show a key, TLS included.
const PROOF_TIME: Duration = Duration::from_secs(10);
/// Connections that wait for the server.
const WAITING_MAX: usize = 16;
/// Wait after the kernel could not give us a connection, so that we do not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(super) struct Visitor(Arc<State>);

#[derive(Debug)]
struct State {
    peer: SocketAddr,
    proven: AtomicBool,
    /// His place among the strangers.
    seat: Mutex<Option<(OwnedSemaphorePermit, Seat)>>,
}

impl Visitor {
    /// He has shown an agent's key: he may stay.
    pub(super) fn proven(&self) {
        self.0.proven.store(true, Ordering::Relaxed);
        self.0.seat.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.0.peer
    }
}

/// Accepts until `stop` says so.
pub(super) fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    stop: watch::Receiver<bool>,
) -> ReceiverStream<io::Result<Guarded>> {
    let (sender, connections) = mpsc::channel(WAITING_MAX);
    tokio::spawn(run(listener, acceptor, sender, stop));
    ReceiverStream::new(connections)
}

async fn run(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    sender: mpsc::Sender<io::Result<Guarded>>,
    mut stop: watch::Receiver<bool>,
) {
    let (places, strangers) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Arc::new(Semaphore::new(STRANGERS_MAX)));
    let sources = Arc::new(Sources::default());
    let mut greetings = JoinSet::new();
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.expect("nobody closes the semaphore");
            let stranger = strangers.clone().acquire_owned().await.expect("nobody closes the semaphore");
            listener.accept().await.map(|(stream, peer)| (stream, peer, place, stranger))
        };
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = sender.closed() => return,
            Some(_) = greetings.join_next() => continue,
            accepted = accepted => accepted,
        };
        let (stream, peer, place, stranger) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection taken");
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Some(seat) = sources.enter(peer.ip()) else {
            tracing::debug!(%peer, "too many connections of this address without a key");
            continue;
        };
        let state = State { peer, proven: AtomicBool::new(false), seat: Mutex::new(Some((stranger, seat))) };
        let (visitor, acceptor, sender) = (Visitor(Arc::new(state)), acceptor.clone(), sender.clone());
        greetings.spawn(async move {
            if let Some(guarded) = greet(stream, visitor, &acceptor, place).await {
                let _ = sender.send(Ok(guarded)).await;
            }
        });
    }
}

async fn greet(
    stream: TcpStream,
    visitor: Visitor,
    acceptor: &TlsAcceptor,
    place: OwnedSemaphorePermit,
) -> Option<Guarded> {
    let deadline = Box::pin(sleep(PROOF_TIME));
    let _ = stream.set_nodelay(true);
    match timeout(PROOF_TIME, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(Guarded { stream, visitor, deadline, _place: place }),
        Ok(Err(error)) => {
            tracing::debug!(peer = %visitor.peer(), %error, "no TLS");
            None
        }
        Err(_) => None,
    }
}

/// A connection that is cut off when nobody has shown a key on it in time.
pub(super) struct Guarded {
    stream: TlsStream<TcpStream>,
    visitor: Visitor,
    deadline: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connected for Guarded {
    type ConnectInfo = Visitor;

    fn connect_info(&self) -> Visitor {
        self.visitor.clone()
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.visitor.0.proven.load(Ordering::Relaxed) && self.deadline.as_mut().poll(cx).is_ready() {
            tracing::debug!(peer = %self.visitor.peer(), "no key was shown in time");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        Poll::Ready(read)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// How many strangers each address has.
#[derive(Debug, Default)]
struct Sources(Mutex<HashMap<IpAddr, usize>>);

impl Sources {
    fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Seat> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(source).or_default();
        if *count >= STRANGERS_PER_SOURCE_MAX {
            return None;
        }
        *count += 1;
        Some(Seat { sources: self.clone(), source })
    }
}

#[derive(Debug)]
struct Seat {
    sources: Arc<Sources>,
    source: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.sources.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let sources = Arc::new(Sources::default());
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut seats: Vec<_> = (0..STRANGERS_PER_SOURCE_MAX).map(|_| sources.enter(one).expect("a place")).collect();
        assert!(sources.enter(one).is_none());
        assert!(sources.enter(other).is_some());
        seats.pop();
        assert!(sources.enter(one).is_some());
        drop(seats);
        assert!(sources.0.lock().unwrap().is_empty());
    }
}
