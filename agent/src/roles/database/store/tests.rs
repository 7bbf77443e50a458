//! The file, and what a crash leaves of it.

use castgate_endpoint::hierarchy::accounts::{Account, Allow};
use castgate_endpoint::hierarchy::clock::UnixMillis;
use castgate_endpoint::hierarchy::database::{Config, Database};
use castgate_wire::registry::{EntryType, Register, Scheme};
use tempfile::TempDir;

use super::super::audit::Act;
use super::*;

#[test]
fn what_is_committed_is_in_a_copy_of_the_file() {
    let folder = TempDir::new().unwrap();
    let (store, entries) = open(folder.path()).unwrap();
    assert!(entries.is_empty());
    let (first, second) = (put(1), put(2));
    let delete = match &second {
        Change::Put(key, _) | Change::Refresh(key, _) | Change::Delete(key) | Change::Expire(key) => {
            Change::Delete(key.clone())
        }
    };
    store.follow([first, second].into_iter()).unwrap().blocking_recv().unwrap().unwrap();
    assert_eq!(ports(copy(folder.path()).path()), [1, 2]);
    store.follow([delete].into_iter()).unwrap().blocking_recv().unwrap().unwrap();
    assert_eq!(ports(copy(folder.path()).path()), [1]);
}

#[test]
fn lines_of_the_audit_log_are_there_when_their_change_is() {
    let folder = TempDir::new().unwrap();
    let audit = Arc::new(Audit::new(folder.path()));
    let (store, _) = Store::open(folder.path(), audit.clone()).unwrap();
    let act = Act { action: "register", login: None, source: None };
    for port in [1, 2] {
        let _ = audit.hold(act, "put", &port.to_string());
        store.follow([put(port)].into_iter()).unwrap().blocking_recv().unwrap().unwrap();
        let log = std::fs::read_to_string(folder.path().join("audit.log")).unwrap();
        assert_eq!(log.lines().count(), usize::from(port));
    }
}

#[test]
fn of_changes_to_one_key_the_last_one_counts() {
    let folder = TempDir::new().unwrap();
    let (store, _) = open(folder.path()).unwrap();
    let Change::Put(key, entry) = put(1) else { unreachable!("that is what it makes") };
    let changes = [
        Change::Put(key.clone(), entry.clone()),
        Change::Delete(key.clone()),
        Change::Put(key.clone(), entry),
        Change::Delete(key),
    ];
    store.follow(changes.into_iter()).unwrap().blocking_recv().unwrap().unwrap();
    assert!(ports(copy(folder.path()).path()).is_empty());
}

#[test]
fn closing_writes_what_is_pending_and_nothing_is_promised_afterwards() {
    let folder = TempDir::new().unwrap();
    let (store, _) = open(folder.path()).unwrap();
    let mut committed = store.follow([put(1)].into_iter()).unwrap();
    store.close();
    assert!(matches!(committed.try_recv(), Ok(Ok(()))));
    assert!(store.follow([put(2)].into_iter()).unwrap().blocking_recv().is_err());
    drop(store);
    let (_, entries) = open(folder.path()).unwrap();
    assert_eq!(entries.len(), 1);
}

#[test]
fn a_refresh_waits_for_its_entry_alone_and_is_written_at_the_end() {
    let folder = TempDir::new().unwrap();
    let (store, _) = open(folder.path()).unwrap();
    let Change::Put(key, entry) = put(1) else { unreachable!("that is what it makes") };
    let refresh = || Change::Refresh(key.clone(), entry.clone());
    {
        // While the entry itself is not written, a refresh promises no more than is there.
        let mut pending = store.shared.lock();
        pending.writing = Arc::new([(key.to_string(), Planned { json: None, urgent: true })].into());
    }
    let committed = store.follow([refresh()].into_iter()).expect("the entry is owed");
    committed.blocking_recv().unwrap().unwrap();
    assert!(store.follow([refresh()].into_iter()).is_none(), "now it is there");
    assert!(store.follow([put(2)].into_iter()).is_some());
    store.close();
    assert_eq!(ports(copy(folder.path()).path()), [1, 2]);
}

#[test]
fn a_row_that_cannot_be_read_is_dropped_and_the_others_are_not() {
    let folder = TempDir::new().unwrap();
    let (store, _) = open(folder.path()).unwrap();
    store.follow([put(1)].into_iter()).unwrap().blocking_recv().unwrap().unwrap();
    drop(store);
    let file = redb::Database::create(folder.path().join(FILE)).unwrap();
    let broken = ["{", "{}"].map(|json| (json.to_owned(), Planned { json: Some(json.into()), urgent: true }));
    let broken = Changes::from(broken);
    commit(&file, &broken).unwrap();
    drop(file);
    assert_eq!(ports(folder.path()), [1]);
}

#[test]
fn a_file_of_something_else_is_named() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join(FILE), "not a store, but longer than any header of one".repeat(100)).unwrap();
    let error = open(folder.path()).unwrap_err().to_string();
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
        scheme: Scheme::Http,
    };
    database.register(std::time::Instant::now(), UnixMillis(0), "be", &register).unwrap();
    database.poll_change().expect("a REGISTER is a change")
}

fn open(folder: &Path) -> Result<(Store, Vec<StoredEntry>), StoreError> {
    Store::open(folder, Arc::new(Audit::new(folder)))
}

/// What a kill leaves behind.
fn copy(folder: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    std::fs::copy(folder.join(FILE), copy.path().join(FILE)).unwrap();
    copy
}

fn ports(folder: &Path) -> Vec<u16> {
    let (_store, entries) = open(folder).unwrap();
    entries.iter().map(|entry| entry.to_entry().unwrap().key.port).collect()
}
