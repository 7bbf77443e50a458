//! The role `front`: the draft's HTTP for servers, databases and clients that speak nothing else, answered by a gRPC `Hierarchy`.
//!
//! ```text
//!   TCP ─▶ http::server ─▶ service ─┬─ QUERY, TRANSFER ──▶ upstream: Locate, Transfer ─▶ Hierarchy: the adapter of a
//!                                   └─ REGISTER, BYE ────▶ sessions: one Register stream a login ─▶  namespace, or another
//! ```
//! Owns tasks and their life. It has no accounts: login and password are an agent's name and key, and whoever is behind it
//! judges them. What is registered here lives for two intervals, as at any database, and is forgotten when the role ends: its
//! owners refresh it, and whoever is behind takes it back when it does not come again.

mod service;
mod sessions;
mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use castgate_control::FrontSnapshot;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::http::server;
use crate::surroundings::Surroundings;
use crate::tls::Port;
use service::Service;

/// How often is looked for entries whose time is up.
const SWEEP: Duration = Duration::from_secs(1);

/// Why the role does not run, or not like this: one sentence that names the field or the address.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// The address cannot be listened on.
    #[error("listen: {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// Certificate and key cannot be used.
    #[error("tls.{0}")]
    Tls(String),
    /// Another address needs another start.
    #[error("listen: a running front stays at {0}")]
    Moved(SocketAddr),
}

/// The running role.
#[derive(Debug)]
pub struct Front {
    listen: SocketAddr,
    asked_for: SocketAddr,
    service: Arc<Service>,
    tls: Port,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Front {
    /// Listens.
    ///
    /// # Errors
    /// [`FrontError`]; nothing runs then.
    pub async fn start(snapshot: &FrontSnapshot, around: &Surroundings) -> Result<Self, FrontError> {
        let tls = Port::new(snapshot.tls.as_ref()).map_err(FrontError::Tls)?;
        let asked_for = snapshot.listen;
        let listener = TcpListener::bind(asked_for).await.map_err(|error| FrontError::Listen(asked_for, error))?;
        let listen = listener.local_addr().map_err(|error| FrontError::Listen(asked_for, error))?;
        let service = Arc::new(Service::new(snapshot, around));
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(server::serve(listener, tls.subscribe(), service.clone(), stopped.clone()));
        let sweeper = tokio::spawn(sweep(service.clone(), stopped));
        tracing::info!(%listen, upstream = snapshot.upstream.endpoint, "front started");
        Ok(Self { listen, asked_for, service, tls, stop, tasks: vec![server, sweeper] })
    }

    /// Goes over to another service behind it, another certificate, other bounds and intervals; what is registered stays.
    ///
    /// # Errors
    /// [`FrontError`]; the role goes on as before.
    pub fn apply(&mut self, snapshot: &FrontSnapshot) -> Result<(), FrontError> {
        if snapshot.listen != self.asked_for {
            return Err(FrontError::Moved(self.asked_for));
        }
        if let Some(tls) = self.tls.prepare(snapshot.tls.as_ref()).map_err(FrontError::Tls)? {
            self.tls.put(tls);
        }
        self.service.set(snapshot);
        Ok(())
    }

    /// Where it listens: the port as well when the snapshot left it to the system.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.listen
    }

    /// Ends: lets requests under way finish, and every stream without a goodbye.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        for task in std::mem::take(&mut self.tasks) {
            let _ = task.await;
        }
    }
}

impl Drop for Front {
    /// Dropped without [`stop`](Self::stop): nothing goes on running in the background.
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn sweep(service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = ticks.tick() => service.expire(Instant::now()),
        }
    }
}
