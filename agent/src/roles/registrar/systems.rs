//! The networks of the Autonomous Systems that a snapshot names, as the file of their routes has them now.
//!
//! ```text
//!   snapshot ──resolved──▶ entries with networks ──put──▶ what runs
//!   file ──────follow────▶ the same, when it changed
//! ```
//! A table that cannot be read is said, and the one before stays in force.

use std::path::PathBuf;
use std::slice;
use std::sync::{Arc, Mutex};

use castgate_control::RegistrarSnapshot;

use super::{RegistrarError, Running, lock};
use crate::config::watch::changed;
use crate::roles::routes::{Stamp, read_stamped, stamp, watched};
use crate::surroundings::Surroundings;

/// A file of routes, and the state in which it was read.
#[derive(Debug)]
pub(super) struct Routes {
    file: PathBuf,
    stamp: Stamp,
}

/// The snapshot with the networks of its Autonomous Systems in its entries, and the file that they are from. A file of routes is
/// read where a long one keeps nobody waiting.
///
/// # Errors
/// [`RegistrarError`]
pub(super) async fn resolved(
    snapshot: RegistrarSnapshot,
) -> Result<(RegistrarSnapshot, Option<Routes>), RegistrarError> {
    let resolve = move || {
        let file = snapshot.systems.as_ref().and_then(|systems| systems.routes.file.clone());
        let Some(file) = file else { return Ok((snapshot.resolve(None)?, None)) };
        match read_stamped(&file) {
            Ok((stamp, table)) => Ok((snapshot.resolve(Some(Arc::new(table)))?, Some(Routes { file, stamp }))),
            Err(error) => Err(RegistrarError::Routes(file, error)),
        }
    };
    tokio::task::spawn_blocking(resolve).await.expect("nobody cancels it")
}

/// Puts the snapshot that is in force into force again, whenever its route table has changed.
pub(super) async fn follow(mut routes: Routes, running: Arc<Mutex<Running>>, around: Surroundings) {
    let watch = watched(slice::from_ref(&routes.file));
    loop {
        // Also once at first: the file may have changed after it was read and before it was watched.
        if stamp(&routes.file).is_ok_and(|now| now != routes.stamp) {
            match again(&running, &around).await {
                Ok(Some(read)) => {
                    tracing::info!(file = %routes.file.display(), "the route table changed and is in force");
                    routes = read;
                }
                // Whoever came meanwhile follows the file.
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "the route table changed and cannot be used: the one before stays in force");
                }
            }
        }
        changed(watch.as_ref(), "the route table").await;
    }
}

/// Reads the table again; `None`: another snapshot came meanwhile, which read it itself.
async fn again(running: &Mutex<Running>, around: &Surroundings) -> Result<Option<Routes>, RegistrarError> {
    let snapshot = lock(running).snapshot.clone();
    let (resolved, routes) = resolved(snapshot.clone()).await?;
    let mut running = lock(running);
    if running.snapshot != snapshot {
        return Ok(None);
    }
    running.put(resolved, around)?;
    Ok(routes)
}
