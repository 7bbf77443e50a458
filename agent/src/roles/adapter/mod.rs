//! The role `adapter`: registers the agents of its namespace with databases above, so that no credential leaves it, and asks
//! databases on their behalf.
//!
//! ```text
//!   TCP ─▶ connections ─▶ TLS ─▶ tonic ─▶ desk ─▶ client (one task each) ─▶ registrar::Direct ─▶ databases above
//!          (bounded,      (identity       (who       what it asks for,
//!           strangers      may change)     calls) │  its grace time
//!           cut off)                              └▶ questions ─▶ any database
//! ```
//! Owns tasks and their life. An adapter that ends says no BYE: its agents are alive, and its successor announces them again.

mod client;
mod connections;
mod desk;
mod questions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use castgate_client::Dns;
use castgate_control::AdapterSnapshot;
use castgate_rpc::v1::hierarchy_server::HierarchyServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Server;

use crate::report::ClientReport;
use crate::roles::registrar::RegistrarError;
use crate::surroundings::Surroundings;
use crate::tls::Identities;
use desk::Desk;
use questions::Questions;

/// An agent that is gone is noticed after two of these.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// One stream for its entries is what an agent needs, and a second one replaces it; the others are for questions.
const STREAMS_PER_CONNECTION_MAX: u32 = 32;
/// Time that connections get to close when we stop.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// Why the role does not run, or not like this: one sentence that names the field or the address.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// Certificate and key cannot be used.
    #[error("tls: {0}")]
    Tls(String),
    /// The address cannot be listened on.
    #[error("listen: {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// Another address needs another start.
    #[error("listen: a running adapter stays at {0}")]
    Moved(SocketAddr),
    /// The environment names a resolver that is none.
    #[error("{0}")]
    Resolver(String),
    /// What a client may announce cannot be announced.
    #[error("clients[{0}].{1}")]
    Client(usize, RegistrarError),
}

/// The running role.
#[derive(Debug)]
pub struct Adapter {
    listen: SocketAddr,
    asked_for: SocketAddr,
    identities: Arc<Identities>,
    desk: Arc<Desk>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl Adapter {
    /// Listens; who is let in follows from the snapshot.
    ///
    /// # Errors
    /// [`AdapterError`]; nothing runs then.
    pub async fn start(snapshot: AdapterSnapshot, around: &Surroundings) -> Result<Self, AdapterError> {
        check_clients(&snapshot)?;
        let identities = Arc::new(Identities::new(&snapshot.tls).map_err(AdapterError::Tls)?);
        let asked_for = snapshot.listen;
        let listener = TcpListener::bind(asked_for).await.map_err(|error| AdapterError::Listen(asked_for, error))?;
        let listen = listener.local_addr().map_err(|error| AdapterError::Listen(asked_for, error))?;
        let dns = Dns::from_environment().map_err(|error| AdapterError::Resolver(error.to_string()))?;
        let desk = Arc::new(Desk::new(around.changed.clone(), Questions::new(dns)));
        desk.set(&snapshot);
        let acceptor = identities.acceptor(b"h2").map_err(AdapterError::Tls)?;
        let (stop, stopped) = watch::channel(false);
        let mut ended = stopped.clone();
        let incoming = connections::accept(listener, acceptor, stopped);
        let router = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .add_service(HierarchyServer::from_arc(desk.clone()));
        let server = tokio::spawn(async move {
            let end = async move {
                let _ = ended.wait_for(|stop| *stop).await;
            };
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, end).await {
                tracing::error!(%error, "the adapter serves no more");
            }
        });
        tracing::info!(%listen, clients = snapshot.clients.len(), "adapter started");
        Ok(Self { listen, asked_for, identities, desk, stop, server })
    }

    /// Goes over to other clients, entries, accounts, certificates; streams that may stay stay.
    ///
    /// # Errors
    /// [`AdapterError`]; the role goes on as before.
    pub fn apply(&mut self, snapshot: &AdapterSnapshot) -> Result<(), AdapterError> {
        if snapshot.listen != self.asked_for {
            return Err(AdapterError::Moved(self.asked_for));
        }
        check_clients(snapshot)?;
        self.identities.replace(&snapshot.tls).map_err(AdapterError::Tls)?;
        self.desk.set(snapshot);
        Ok(())
    }

    /// Where it listens: the port as well when the snapshot left it to the system.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.listen
    }

    /// Whether it takes streams.
    #[must_use]
    pub fn serves(&self) -> bool {
        !self.server.is_finished()
    }

    /// How the registrations of every agent stand.
    #[must_use]
    pub fn report(&self) -> Vec<ClientReport> {
        self.desk.report()
    }

    /// Ends every stream without a word to the databases.
    pub async fn stop(mut self) {
        self.desk.leave();
        let _ = self.stop.send(true);
        // Whoever does not close his connection loses it.
        let _ = timeout(CLOSE_TIME, &mut self.server).await;
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        self.server.abort();
        self.desk.leave();
    }
}

fn check_clients(snapshot: &AdapterSnapshot) -> Result<(), AdapterError> {
    for (index, client) in snapshot.clients.iter().enumerate() {
        client::check(client).map_err(|error| AdapterError::Client(index, error))?;
    }
    Ok(())
}
