//! The role `registrar`: announces what this agent serves at the databases above it.
//!
//! ```text
//!   Registrar ─┬─ direct:  databases above, with accounts of our own; named, or found from the roots
//!              └─ adapter: the adapter of our namespace, which has the accounts
//! ```
//! Owns which of the two it is. Going from one to the other is another start (`config::diff`).

mod adapter;
mod complaints;
mod direct;
mod lookups;
mod systems;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use castgate_control::{EntryType, Protocol, RegistrarSnapshot, RouteTableError, SnapshotError};
use castgate_endpoint::hierarchy::address::AddressError;
use tokio::task::JoinSet;

pub use adapter::Through;
pub use direct::Direct;
pub(crate) use direct::register_of;
pub(crate) use lookups::find_out;

use crate::report::RegistrationReport;
use crate::surroundings::Surroundings;

/// Why the role does not run, or not like this.
#[derive(Debug, thiserror::Error)]
pub enum RegistrarError {
    /// A parent is no address of a database.
    #[error("parents[{0}].url: {1}")]
    Parent(usize, AddressError),
    /// What vouches for a parent cannot be read.
    #[error("parents[{0}].{1}")]
    ParentCa(usize, String),
    /// What vouches for databases that are found cannot be read.
    #[error("discovery.{0}")]
    DiscoveryCa(String),
    /// A root is no address of a database.
    #[error("discovery.roots[{0}]: {1}")]
    Root(usize, AddressError),
    /// The networks of its Autonomous Systems are not known, or too many.
    #[error(transparent)]
    Systems(#[from] SnapshotError),
    /// Their route table cannot be read.
    #[error("systems.routes.file: {0}: {1}")]
    Routes(PathBuf, RouteTableError),
    /// The environment names a resolver that is none.
    #[error("{0}")]
    Resolver(String),
    /// The system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(String),
}

/// The running role.
#[derive(Debug)]
pub struct Registrar {
    running: Arc<Mutex<Running>>,
    around: Surroundings,
    /// Reads the route table again when its file changes.
    follower: JoinSet<()>,
}

/// What runs, and the snapshot that it follows from.
#[derive(Debug)]
struct Running {
    snapshot: RegistrarSnapshot,
    /// `None`: it has ended.
    way: Option<Way>,
}

#[derive(Debug)]
enum Way {
    Direct(Direct),
    Through(Through),
}

impl Registrar {
    /// Announces everything at once and goes on refreshing it. A file of routes is not read here: an agent reads it before, and
    /// again when it changes.
    ///
    /// # Errors
    /// [`RegistrarError`]; nothing runs then.
    pub fn start(snapshot: RegistrarSnapshot, around: &Surroundings) -> Result<Self, RegistrarError> {
        let around = around.clone();
        let way = Way::start(snapshot.clone(), &around)?;
        let running = Arc::new(Mutex::new(Running { snapshot, way: Some(way) }));
        Ok(Self { running, around, follower: JoinSet::new() })
    }

    /// The same with the networks of its Autonomous Systems, as its route table has them now and whenever the file changes.
    ///
    /// # Errors
    /// [`RegistrarError`]; nothing runs then.
    pub(crate) async fn start_following(
        snapshot: RegistrarSnapshot,
        around: &Surroundings,
    ) -> Result<Self, RegistrarError> {
        let (resolved, routes) = systems::resolved(snapshot.clone()).await?;
        let mut started = Self::start(resolved, around)?;
        lock(&started.running).snapshot = snapshot;
        started.follow(routes);
        Ok(started)
    }

    /// Announces what is new or changed, takes back what is gone, leaves the rest in peace.
    ///
    /// # Errors
    /// [`RegistrarError`]; the role goes on as before.
    pub async fn apply(&mut self, snapshot: RegistrarSnapshot) -> Result<(), RegistrarError> {
        let (resolved, routes) = systems::resolved(snapshot.clone()).await?;
        {
            let mut running = lock(&self.running);
            running.put(resolved, &self.around)?;
            running.snapshot = snapshot;
        }
        self.follow(routes);
        Ok(())
    }

    /// Follows this file from now on, and no other one.
    fn follow(&mut self, routes: Option<systems::Routes>) {
        self.follower = JoinSet::new();
        if let Some(routes) = routes {
            self.follower.spawn(systems::follow(routes, self.running.clone(), self.around.clone()));
        }
    }

    /// How every entry stands at every parent.
    #[must_use]
    pub fn report(&self) -> Vec<RegistrationReport> {
        match &lock(&self.running).way {
            Some(Way::Direct(direct)) => direct.report(),
            Some(Way::Through(through)) => through.report(),
            None => Vec::new(),
        }
    }

    /// Takes everything back and ends; who does not answer is given 3 seconds.
    pub async fn stop(self) {
        let way = lock(&self.running).way.take();
        match way {
            Some(Way::Direct(direct)) => direct.stop().await,
            Some(Way::Through(through)) => through.stop().await,
            None => {}
        }
    }
}

impl Running {
    /// Goes over to a snapshot whose systems are resolved.
    fn put(&mut self, resolved: RegistrarSnapshot, around: &Surroundings) -> Result<(), RegistrarError> {
        match (&mut self.way, &resolved.adapter) {
            (Some(Way::Direct(direct)), None) => direct.apply(resolved)?,
            (Some(Way::Through(through)), Some(adapter)) => {
                through.apply(adapter.clone(), resolved.entries);
            }
            // The other way would be another start, which says goodbye on the old one first.
            (Some(way), _) => *way = Way::start(resolved, around)?,
            (None, _) => {}
        }
        Ok(())
    }
}

fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    // What is inside is whole between any two statements that can panic.
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Way {
    fn start(snapshot: RegistrarSnapshot, around: &Surroundings) -> Result<Self, RegistrarError> {
        match snapshot.adapter.clone() {
            Some(adapter) => Ok(Self::Through(Through::start(adapter, snapshot.entries, around))),
            None => Direct::start_beside(snapshot, around).map(Self::Direct),
        }
    }
}

/// An entry as reports name it: `TS 127.0.2.1:10100 UDP`.
pub(crate) fn entry_name(
    entry_type: EntryType,
    source: IpAddr,
    port: impl fmt::Display,
    protocol: Option<&Protocol>,
) -> String {
    let protocol = protocol.map(|protocol| format!(" {protocol}")).unwrap_or_default();
    format!("{entry_type} {source}:{port}{protocol}")
}
