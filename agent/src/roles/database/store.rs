//! The entries on disk: what was answered with 200 is there after a kill -9.
//!
//! One thread writes. Whoever waits for a commit shares it with all that came while the one before was written: the disk's
//! flushes, not the requests, set the pace, and a thousand refreshes a second need no more of them than ten.
//!
//! ```text
//!   follow(changes) ─▶ Pending: last change of each key, who waits ─▶ writer: one transaction, one flush ─▶ waiters
//! ```
//! Pending holds one change for each key at most, so that it is bounded by the entries of the database.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use castgate_endpoint::hierarchy::database::{Change, StoredEntry};
use redb::{Durability, TableDefinition};
use tokio::sync::oneshot;

/// Key of an entry as text → the entry as JSON.
const ENTRIES: TableDefinition<&str, &[u8]> = TableDefinition::new("entries");
/// Name of the file below the agent's state directory.
pub(super) const FILE: &str = "database.redb";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made.
    #[error("{0}: {1}")]
    Folder(String, std::io::Error),
    /// The file is no store of ours, or somebody else has it open.
    #[error("{0}: {1}")]
    Open(String, redb::Error),
    /// The writer cannot be started.
    #[error("no thread for the store: {0}")]
    Thread(std::io::Error),
}

/// The store while it is open.
#[derive(Debug)]
pub(super) struct Store {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// Resolves when the changes are on disk.
pub(super) type Committed = oneshot::Receiver<Result<(), String>>;

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    /// `None`: to be deleted.
    changes: HashMap<String, Option<Vec<u8>>>,
    waiters: Vec<oneshot::Sender<Result<(), String>>>,
    close: bool,
}

impl Store {
    /// Opens or makes the store; also returns what is in it. What cannot be read is dropped with a warning: an entry lost is
    /// an entry that registers again, a database that does not start is a country without tunnels.
    pub(super) fn open(folder: &Path) -> Result<(Self, Vec<StoredEntry>), StoreError> {
        std::fs::create_dir_all(folder).map_err(|error| StoreError::Folder(folder.display().to_string(), error))?;
        let path = folder.join(FILE);
        let failed = |error: redb::Error| StoreError::Open(path.display().to_string(), error);
        let file = redb::Database::create(&path).map_err(|error| failed(error.into()))?;
        let entries = read(&file).map_err(failed)?;
        let shared = Arc::new(Shared::default());
        let of_writer = shared.clone();
        let writer = std::thread::Builder::new()
            .name("castgate-store".to_owned())
            .spawn(move || write(&file, &of_writer))
            .map_err(StoreError::Thread)?;
        Ok((Self { shared, writer: Mutex::new(Some(writer)) }, entries))
    }

    /// Takes changes in their order. Call it while holding whatever keeps them in order.
    pub(super) fn follow(&self, changes: impl Iterator<Item = Change>) -> Committed {
        let (waiter, committed) = oneshot::channel();
        let mut pending = self.shared.lock();
        for change in changes {
            match change {
                Change::Put(key, entry) => {
                    let json = serde_json::to_vec(&entry).expect("texts and numbers can be written as JSON");
                    pending.changes.insert(key.to_string(), Some(json));
                }
                Change::Delete(key) => {
                    pending.changes.insert(key.to_string(), None);
                }
            }
        }
        if pending.close {
            // Dropping the waiter tells the caller that nothing is written any more.
            return committed;
        }
        pending.waiters.push(waiter);
        drop(pending);
        self.shared.work.notify_one();
        committed
    }

    /// Writes what is pending and closes the file. Blocks.
    pub(super) fn close(&self) {
        self.shared.lock().close = true;
        self.shared.work.notify_one();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer of the store panicked");
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(file: &redb::Database) -> Result<Vec<StoredEntry>, redb::Error> {
    let mut entries = Vec::new();
    let writing = file.begin_write()?;
    writing.open_table(ENTRIES)?.retain(|key, json| {
        let entry = serde_json::from_slice(json).map_err(|error| error.to_string());
        match entry.and_then(|entry: StoredEntry| entry.to_entry().map(|_| entry).map_err(|error| error.to_string())) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                tracing::warn!(key, error, "stored entry dropped");
                return false;
            }
        }
        true
    })?;
    writing.commit()?;
    Ok(entries)
}

fn write(file: &redb::Database, shared: &Shared) {
    loop {
        let mut pending = shared.lock();
        while pending.changes.is_empty() && pending.waiters.is_empty() && !pending.close {
            pending = shared.work.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        let changes = std::mem::take(&mut pending.changes);
        let waiters = std::mem::take(&mut pending.waiters);
        let close = pending.close;
        drop(pending);

        let outcome = if changes.is_empty() { Ok(()) } else { commit(file, &changes) };
        if let Err(error) = &outcome {
            tracing::error!(%error, entries = changes.len(), "entries not written");
            // They go with the next commit, unless something newer came for the same key.
            let mut pending = shared.lock();
            for (key, change) in changes {
                pending.changes.entry(key).or_insert(change);
            }
        }
        for waiter in waiters {
            // Nobody listens when the connection is gone.
            let _ = waiter.send(outcome.as_ref().map(|()| ()).map_err(ToString::to_string));
        }
        if close {
            return;
        }
        if outcome.is_err() {
            // Without a pause a full disk would keep a core busy; the next REGISTER wakes us as well.
            let pending = shared.lock();
            let pause = std::time::Duration::from_secs(1);
            drop(shared.work.wait_timeout(pending, pause).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

fn commit(file: &redb::Database, changes: &HashMap<String, Option<Vec<u8>>>) -> Result<(), redb::Error> {
    let mut writing = file.begin_write()?;
    writing.set_durability(Durability::Immediate).map_err(redb::Error::from)?;
    {
        let mut table = writing.open_table(ENTRIES)?;
        for (key, change) in changes {
            match change {
                Some(json) => drop(table.insert(key.as_str(), json.as_slice())?),
                None => drop(table.remove(key.as_str())?),
            }
        }
    }
    writing.commit()?;
    Ok(())
}
