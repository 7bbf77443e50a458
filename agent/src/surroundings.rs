//! What roles find around them, whatever their snapshot says: a place for state, whom to trust, and where to say that
//! something worth telling happened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;

use crate::roles::feeding::Feeding;
use crate::roles::peering::Peering;

/// The same for every role of one agent; clones share [`changed`](Self::changed), [`peering`](Self::peering) and
/// [`feeding`](Self::feeding).
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Name of the agent; filled in from its snapshot.
    pub agent: String,
    /// Where is kept what has to outlive the process.
    pub state_dir: PathBuf,
    /// File with the certificates, as PEM, of those who may vouch for an adapter. Read at each connect: it may be replaced.
    pub ca: Option<PathBuf>,
    /// Told when a registration stands otherwise than before.
    pub changed: Arc<Notify>,
    /// Where registrar and database tell each other of peers.
    pub peering: Peering,
    /// Where the server tells the registrar who feeds it.
    pub feeding: Feeding,
}

impl Surroundings {
    /// A place for state, and nobody to trust.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self {
            agent: String::new(),
            state_dir: state_dir.to_owned(),
            ca: None,
            changed: Arc::default(),
            peering: Peering::default(),
            feeding: Feeding::default(),
        }
    }

    /// With a file of certificates.
    #[must_use]
    pub fn trusting(self, ca: &Path) -> Self {
        Self { ca: Some(ca.to_owned()), ..self }
    }
}
