//! The role `registrar`: announces what this agent serves at the databases above it.
//!
//! ```text
//!   Registrar ─┬─ direct:  databases above, with accounts of our own; named, or found from the roots
//!              └─ adapter: the adapter of our namespace, which has the accounts
//! ```
//! Owns which of the two it is. Going from one to the other is another start (`config::diff`).

mod adapter;
mod direct;
mod lookups;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use castgate_control::{EntryType, Protocol, RegistrarSnapshot, RouteTableError, SnapshotError};
use castgate_endpoint::hierarchy::address::AddressError;

pub use adapter::Through;
pub use direct::Direct;
pub(crate) use direct::register_of;
pub(crate) use lookups::find_out;

use crate::report::RegistrationReport;
use crate::roles::database::read_routes;
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
    way: Way,
    around: Surroundings,
}

#[derive(Debug)]
enum Way {
    Direct(Direct),
    Through(Through),
}

impl Registrar {
    /// Announces everything at once and goes on refreshing it.
    ///
    /// # Errors
    /// [`RegistrarError`]; nothing runs then.
    pub fn start(snapshot: RegistrarSnapshot, around: &Surroundings) -> Result<Self, RegistrarError> {
        let around = around.clone();
        Ok(Self { way: Way::start(snapshot, &around)?, around })
    }

    /// Announces what is new or changed, takes back what is gone, leaves the rest in peace.
    ///
    /// # Errors
    /// [`RegistrarError`]; the role goes on as before.
    pub fn apply(&mut self, snapshot: RegistrarSnapshot) -> Result<(), RegistrarError> {
        match (&mut self.way, &snapshot.adapter) {
            (Way::Direct(direct), None) => direct.apply(snapshot)?,
            (Way::Through(through), Some(adapter)) => {
                through.apply(adapter.clone(), snapshot.entries);
            }
            // The other way would be another start, which says goodbye on the old one first.
            (way, _) => *way = Way::start(snapshot, &self.around)?,
        }
        Ok(())
    }

    /// How every entry stands at every parent.
    #[must_use]
    pub fn report(&self) -> Vec<RegistrationReport> {
        match &self.way {
            Way::Direct(direct) => direct.report(),
            Way::Through(through) => through.report(),
        }
    }

    /// Takes everything back and ends; who does not answer is given 3 seconds.
    pub async fn stop(self) {
        match self.way {
            Way::Direct(direct) => direct.stop().await,
            Way::Through(through) => through.stop().await,
        }
    }
}

impl Way {
    fn start(snapshot: RegistrarSnapshot, around: &Surroundings) -> Result<Self, RegistrarError> {
        match snapshot.adapter.clone() {
            Some(adapter) => Ok(Self::Through(Through::start(adapter, snapshot.entries, around))),
            None => Direct::start_beside(snapshot, around).map(Self::Direct),
        }
    }
}

/// The snapshot with the networks of its Autonomous Systems in its entries. A file of routes is read where a long one keeps nobody
/// waiting.
///
/// # Errors
/// [`RegistrarError`]
pub(crate) async fn resolved(snapshot: RegistrarSnapshot) -> Result<RegistrarSnapshot, RegistrarError> {
    let resolve = move || {
        let file = snapshot.systems.as_ref().and_then(|systems| systems.routes.file.as_ref());
        let table = file.map(|file| match read_routes(file) {
            Ok(table) => Ok(Arc::new(table)),
            Err(error) => Err(RegistrarError::Routes(file.clone(), error)),
        });
        let table = table.transpose()?;
        Ok(snapshot.resolve(table)?)
    };
    tokio::task::spawn_blocking(resolve).await.expect("nobody cancels it")
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
