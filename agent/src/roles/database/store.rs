//! The entries on disk: what was answered with 200 is there after a kill -9.
//!
//! One thread writes. Whoever waits for a commit shares it with all that came while the one before was written: the disk's
//! flushes, not the requests, set the pace, and a thousand refreshes a second need no more of them than ten.
//!
//! ```text
//!   follow(changes) ─▶ Pending: last change of each key, who waits ─▶ writer: one transaction, one flush ─▶ waiters
//! ```
//! Pending holds one change for each key at most, so that it is bounded by the entries of the database.
//!
//! A refresh that changes nothing is promised without a flush, and written with the next commit or within [`LAZY_TIME`]: after a
//! kill -9 its entry is there, because it was before, and lives for an interval, because every entry of the store does. Only while
//! an earlier change of the same entry is not on disk yet, a refresh waits for that one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use castgate_endpoint::hierarchy::database::{Change, StoredEntry};
use redb::{Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tokio::sync::oneshot;

use super::audit::Audit;

/// Key of an entry as text → the entry as JSON.
const ENTRIES: TableDefinition<&str, &[u8]> = TableDefinition::new("entries");
/// How long a refresh may stay in memory alone. Far below an update interval: what an entry loses by a kill -9 is this much of its
/// second interval.
const LAZY_TIME: Duration = Duration::from_secs(5);
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
    changes: Changes,
    /// What is written at this moment.
    writing: Arc<Changes>,
    waiters: Vec<oneshot::Sender<Result<(), String>>>,
    /// A change is there that does not wait for company.
    urgent: bool,
    /// When the first of those came that do.
    lazy_since: Option<Instant>,
    close: bool,
}

type Changes = HashMap<String, Planned>;

/// A change of one key.
#[derive(Debug, Clone)]
struct Planned {
    /// `None`: to be deleted.
    json: Option<Vec<u8>>,
    urgent: bool,
}

impl Pending {
    /// Whether the entry itself, and not only its deadline, is still to be written.
    fn is_owed(&self, key: &str) -> bool {
        [&self.changes, &*self.writing].into_iter().filter_map(|changes| changes.get(key)).any(|planned| planned.urgent)
    }

    /// How long the writer may rest: `None` for not at all.
    fn rest(&self) -> Option<Duration> {
        if self.close || self.urgent || !self.waiters.is_empty() {
            return None;
        }
        let rest = self.lazy_since.map_or(Duration::MAX, |since| LAZY_TIME.saturating_sub(since.elapsed()));
        (!rest.is_zero()).then_some(rest)
    }
}

impl Store {
    /// Opens or makes the store; also returns what is in it. What cannot be read is dropped with a warning: an entry lost is
    /// an entry that registers again, a database that does not start is a country without tunnels.
    /// The lines of `audit` are written before the changes that they tell of.
    pub(super) fn open(folder: &Path, audit: Arc<Audit>) -> Result<(Self, Vec<StoredEntry>), StoreError> {
        std::fs::create_dir_all(folder).map_err(|error| StoreError::Folder(folder.display().to_string(), error))?;
        let path = folder.join(FILE);
        let failed = |error: redb::Error| StoreError::Open(path.display().to_string(), error);
        let file = redb::Database::create(&path).map_err(|error| failed(error.into()))?;
        let entries = read(&file).map_err(failed)?;
        let shared = Arc::new(Shared::default());
        let of_writer = shared.clone();
        let writer = std::thread::Builder::new()
            .name("castgate-store".to_owned())
            .spawn(move || write(&file, &of_writer, &audit))
            .map_err(StoreError::Thread)?;
        Ok((Self { shared, writer: Mutex::new(Some(writer)) }, entries))
    }

    /// Takes changes in their order. Call it while holding whatever keeps them in order. `None` when there is nothing to wait for.
    pub(super) fn follow(&self, changes: impl Iterator<Item = Change>) -> Option<Committed> {
        let json = |entry: &StoredEntry| serde_json::to_vec(entry).expect("texts and numbers can be written as JSON");
        // Written down before the lock is taken: the writer and others want it too.
        let changes: Vec<_> = changes
            .map(|change| match change {
                Change::Put(key, entry) => (key.to_string(), Some(json(&entry)), true),
                Change::Refresh(key, entry) => (key.to_string(), Some(json(&entry)), false),
                Change::Delete(key) => (key.to_string(), None, true),
                // After a restart it would live for an interval more, as after a longer absence.
                Change::Expire(key) => (key.to_string(), None, false),
            })
            .collect();
        let mut pending = self.shared.lock();
        let mut any_urgent = false;
        for (key, json, urgent) in changes {
            let urgent = urgent || pending.is_owed(&key);
            any_urgent |= urgent;
            pending.changes.insert(key, Planned { json, urgent });
        }
        let (waiter, committed) = oneshot::channel();
        if pending.close {
            // Dropping the waiter tells the caller that nothing is written any more.
            return Some(committed);
        }
        let first = !pending.changes.is_empty() && pending.lazy_since.is_none();
        pending.lazy_since.get_or_insert_with(Instant::now);
        if any_urgent {
            pending.urgent = true;
            pending.waiters.push(waiter);
        }
        drop(pending);
        if any_urgent || first {
            self.shared.work.notify_one();
        }
        any_urgent.then_some(committed)
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
    let mut broken = Vec::new();
    match file.begin_read()?.open_table(ENTRIES) {
        Ok(table) => {
            for row in table.iter()? {
                let (key, json) = row?;
                let entry = serde_json::from_slice::<StoredEntry>(json.value()).map_err(|error| error.to_string());
                match entry.and_then(|entry| entry.to_entry().map(|_| entry).map_err(|error| error.to_string())) {
                    Ok(entry) => entries.push(entry),
                    Err(error) => {
                        tracing::warn!(key = key.value(), error, "stored entry dropped");
                        broken.push((key.value().to_owned(), Planned { json: None, urgent: false }));
                    }
                }
            }
        }
        // Nothing was ever written.
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    if !broken.is_empty() {
        commit(file, &broken.into_iter().collect())?;
    }
    Ok(entries)
}

fn write(file: &redb::Database, shared: &Shared, audit: &Audit) {
    loop {
        let mut pending = shared.lock();
        while let Some(rest) = pending.rest() {
            pending = shared.work.wait_timeout(pending, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        let changes = Arc::new(std::mem::take(&mut pending.changes));
        pending.writing = changes.clone();
        let waiters = std::mem::take(&mut pending.waiters);
        (pending.urgent, pending.lazy_since) = (false, None);
        let close = pending.close;
        drop(pending);

        audit.flush();
        let outcome =
            if changes.is_empty() { Ok(()) } else { commit(file, &changes).map_err(|error| error.to_string()) };
        let mut pending = shared.lock();
        pending.writing = Arc::default();
        if let Err(error) = &outcome {
            tracing::error!(error, entries = changes.len(), "entries not written");
            // They go with the next commit, unless something newer came for the same key.
            for (key, change) in &*changes {
                pending.changes.entry(key.clone()).or_insert_with(|| change.clone());
            }
            pending.lazy_since.get_or_insert_with(Instant::now);
        }
        drop(pending);
        for waiter in waiters {
            // Nobody listens when the connection is gone.
            let _ = waiter.send(outcome.clone());
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

fn commit(file: &redb::Database, changes: &Changes) -> Result<(), redb::Error> {
    let mut writing = file.begin_write()?;
    writing.set_durability(Durability::Immediate).map_err(redb::Error::from)?;
    {
        let mut table = writing.open_table(ENTRIES)?;
        // In the order of the table: neighbours share its pages.
        let mut changes: Vec<_> = changes.iter().collect();
        changes.sort_unstable_by_key(|(key, _)| *key);
        for (key, Planned { json, urgent: _ }) in changes {
            match json {
                Some(json) => drop(table.insert(key.as_str(), json.as_slice())?),
                None => drop(table.remove(key.as_str())?),
            }
        }
    }
    writing.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests;
