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

        let outcome =
            if changes.is_empty() { Ok(()) } else { commit(file, &changes).map_err(|error| error.to_string()) };
        if let Err(error) = &outcome {
            tracing::error!(error, entries = changes.len(), "entries not written");
            // They go with the next commit, unless something newer came for the same key.
            let mut pending = shared.lock();
            for (key, change) in changes {
                pending.changes.entry(key).or_insert(change);
            }
        }
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

#[cfg(test)]
mod tests {
    use castgate_endpoint::hierarchy::accounts::{Account, Allow};
    use castgate_endpoint::hierarchy::clock::UnixMillis;
    use castgate_endpoint::hierarchy::database::{Config, Database};
    use castgate_wire::registry::{EntryType, Register};
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn what_is_committed_is_in_a_copy_of_the_file() {
        let folder = TempDir::new().unwrap();
        let (store, entries) = Store::open(folder.path()).unwrap();
        assert!(entries.is_empty());
        let (first, second) = (put(1), put(2));
        let delete = match &second {
            Change::Put(key, _) | Change::Delete(key) => Change::Delete(key.clone()),
        };
        store.follow([first, second].into_iter()).blocking_recv().unwrap().unwrap();
        assert_eq!(ports(copy(folder.path()).path()), [1, 2]);
        store.follow([delete].into_iter()).blocking_recv().unwrap().unwrap();
        assert_eq!(ports(copy(folder.path()).path()), [1]);
    }

    #[test]
    fn of_changes_to_one_key_the_last_one_counts() {
        let folder = TempDir::new().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        let Change::Put(key, entry) = put(1) else { unreachable!("that is what it makes") };
        let changes = [
            Change::Put(key.clone(), entry.clone()),
            Change::Delete(key.clone()),
            Change::Put(key.clone(), entry),
            Change::Delete(key),
        ];
        store.follow(changes.into_iter()).blocking_recv().unwrap().unwrap();
        assert!(ports(copy(folder.path()).path()).is_empty());
    }

    #[test]
    fn closing_writes_what_is_pending_and_nothing_is_promised_afterwards() {
        let folder = TempDir::new().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        let mut committed = store.follow([put(1)].into_iter());
        store.close();
        assert!(matches!(committed.try_recv(), Ok(Ok(()))));
        assert!(store.follow([put(2)].into_iter()).blocking_recv().is_err());
        drop(store);
        let (_, entries) = Store::open(folder.path()).unwrap();
        assert_eq!(entries.len(), 1);
    }

    #[test]
    fn a_row_that_cannot_be_read_is_dropped_and_the_others_are_not() {
        let folder = TempDir::new().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        store.follow([put(1)].into_iter()).blocking_recv().unwrap().unwrap();
        drop(store);
        let file = redb::Database::create(folder.path().join(FILE)).unwrap();
        let broken = HashMap::from([("x".to_owned(), Some(b"{".to_vec())), ("y".to_owned(), Some(b"{}".to_vec()))]);
        commit(&file, &broken).unwrap();
        drop(file);
        assert_eq!(ports(folder.path()), [1]);
    }

    #[test]
    fn a_file_of_something_else_is_named() {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join(FILE), "not a store, but longer than any header of one".repeat(100)).unwrap();
        let error = Store::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(FILE), "{error}");
    }

    /// A change as the state machine makes it.
    fn put(port: u16) -> Change {
        let hash = "$argon2id$v=19$m=8,t=1,p=1$YSBzYWx0IGZvciB0ZXN0cw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let allow =
            Allow { types: vec![EntryType::TunnelServer], countries: vec!["BE".parse().unwrap()], ..Allow::default() };
        let account = Account::new("be".to_owned(), hash.to_owned(), allow).unwrap();
        let mut database = Database::new(Config::default(), vec![account], [7; 16]);
        let register = Register {
            source: "127.0.2.1".parse().unwrap(),
            port,
            entry_type: EntryType::TunnelServer,
            protocol: None,
            networks: Vec::new(),
            country: Some("BE".parse().unwrap()),
            fed_by: Vec::new(),
        };
        database.register(std::time::Instant::now(), UnixMillis(0), "be", &register).unwrap();
        database.poll_change().expect("a REGISTER is a change")
    }

    /// What a kill leaves behind.
    fn copy(folder: &Path) -> TempDir {
        let copy = TempDir::new().unwrap();
        std::fs::copy(folder.join(FILE), copy.path().join(FILE)).unwrap();
        copy
    }

    fn ports(folder: &Path) -> Vec<u16> {
        let (_store, entries) = Store::open(folder).unwrap();
        entries.iter().map(|entry| entry.to_entry().unwrap().key.port).collect()
    }
}
