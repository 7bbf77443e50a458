//! The port of the agents: TLS with the certificate in force, HTTP/2 that notices a dead peer, limits.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use castgate_rpc::v1::fleet_server::FleetServer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, warn};

use super::identity::Pods;
use super::service::FleetService;
use super::token::TokenReviewer;
use crate::pki::{PkiError, ServingCert};

/// What the port takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, handshakes included. An agent has one.
    pub connections: usize,
    /// From the first octet of a connection to the end of its TLS handshake.
    pub handshake: Duration,
    /// Silence after which a peer is asked whether it is there.
    pub keepalive_interval: Duration,
    /// Silence after the question after which it is not.
    pub keepalive_timeout: Duration,
    /// Size of one report.
    pub report_bytes_max: usize,
}

impl Default for Limits {
    /// A dead peer is noticed within ten seconds: the status must tell within twenty.
    fn default() -> Self {
        Self {
            connections: 10_000,
            handshake: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(5),
            report_bytes_max: 4 * 1024 * 1024,
        }
    }
}

/// Streams of one connection: an agent has one, and for a moment two.
const STREAMS_PER_CONNECTION: u32 = 4;
/// Connections whose handshake is over and that the server has not taken yet.
const ACCEPTED_QUEUE: usize = 64;

/// Serves the fleet until `shutdown`.
///
/// # Errors
/// The certificate cannot be used, or the port fails.
pub async fn serve<R: TokenReviewer, P: Pods>(
    listener: TcpListener,
    service: FleetService<R, P>,
    certificate: &Arc<ServingCert>,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let acceptor = TlsAcceptor::from(Arc::new(certificate.server_config()?));
    let (accepted, incoming) = mpsc::channel(ACCEPTED_QUEUE);
    // Ends with this future, however that ends.
    let mut accepting = JoinSet::new();
    accepting.spawn(accept(listener, acceptor, limits, accepted));
    let service = FleetServer::new(service).max_decoding_message_size(limits.report_bytes_max);
    let served = Server::builder()
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .add_service(service)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), shutdown)
        .await;
    Ok(served?)
}

/// Why the port is served no more.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] PkiError),
    /// The server failed.
    #[error("the port of the agents: {0}")]
    Transport(#[from] tonic::transport::Error),
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    limits: Limits,
    accepted: mpsc::Sender<Result<Connection, io::Error>>,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "the port of the agents cannot accept");
                // Out of file descriptors: some must be given back first, and there is no event for that.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
        tokio::spawn(async move {
            match handshake(stream, &acceptor, limits.handshake, place).await {
                // Closed: the server has ended.
                Ok(connection) => drop(accepted.send(Ok(connection)).await),
                Err(error) => debug!(%error, "a TLS handshake failed"),
            }
        });
    }
}

async fn handshake(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    time: Duration,
    place: OwnedSemaphorePermit,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let peer = TcpConnectInfo { local_addr: stream.local_addr().ok(), remote_addr: stream.peer_addr().ok() };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the handshake takes too long");
    let stream = tokio::time::timeout(time, acceptor.accept(stream)).await.map_err(late)??;
    Ok(Connection { stream, peer, _place: place })
}

/// A connection with TLS that gives its place back at its end.
struct Connection {
    stream: TlsStream<TcpStream>,
    peer: TcpConnectInfo,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
