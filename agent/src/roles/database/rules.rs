//! Who may register, and who is sent where: the accounts and the policies of a snapshot, with the route tables that they name.
//!
//! ```text
//!   snapshot ──take──▶ ┌───────┐ ──▶ Ready: bounds, regions, accounts, policies ──▶ put ──▶ database
//!   file     ──follow─▶│ Rules │
//!   changed            └───────┘  tables in memory, each file once
//! ```
//! A table of the whole Internet takes seconds to read: it is read on a thread that may wait, and again only when its file has
//! changed. One that cannot be read is said, and the one before stays in force.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use castgate_control::{
    DatabaseSnapshot, Policy, PolicySnapshot, RouteTable, RouteTableError, RoutesSnapshot, SnapshotError,
};
use castgate_endpoint::hierarchy::accounts::Account;
use castgate_endpoint::hierarchy::database::{self as endpoint, Config};
use serde::Serialize;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use super::DatabaseError;
use super::audit::Act;
use super::service::Service;
use crate::config::watch::changed;
use crate::roles::routes::{Stamp, read_stamped, stamp, watched};

/// Why there are no such policies: one sentence that names the field or the file.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A policy cannot be used.
    #[error("[{0}].{1}")]
    Policy(usize, SnapshotError),
    /// Its route table cannot be read.
    #[error("[{0}].routes.file: {1}: {2}")]
    Routes(usize, PathBuf, RouteTableError),
}

/// What one rule did since the database started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleReport {
    /// Name of its policy.
    pub policy: String,
    /// Its name.
    pub rule: String,
    /// About how many clients it moved.
    pub clients: u64,
    /// In how many answers.
    pub answers: u64,
}

/// What a snapshot comes to when its tables are read.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) config: Config,
    pub(super) accounts: Vec<Account>,
    pub(super) policies: Vec<Policy>,
    /// Who changed the accounts.
    by: Option<String>,
}

/// What is in force, and the tables that it needs.
#[derive(Debug, Default)]
pub(super) struct Rules {
    snapshot: Option<DatabaseSnapshot>,
    tables: Tables,
}

impl Rules {
    /// Goes over to a snapshot, and reads the tables that are not in memory yet. Whoever holds what is returned keeps others from
    /// changing anything.
    ///
    /// # Errors
    /// [`DatabaseError`]; what was in force still is.
    pub(super) async fn take(
        this: &Arc<Mutex<Self>>,
        snapshot: DatabaseSnapshot,
    ) -> Result<(OwnedMutexGuard<Self>, Ready), DatabaseError> {
        let mut rules = this.clone().lock_owned().await;
        let take = move || {
            let ready = rules.tables.ready(&snapshot)?;
            rules.snapshot = Some(snapshot);
            Ok((rules, ready))
        };
        tokio::task::spawn_blocking(take).await.expect("nobody cancels it")
    }

    /// The same snapshot with the tables as they are now; `None`: they are as they were.
    async fn read_again(this: &Arc<Mutex<Self>>) -> Result<Option<(OwnedMutexGuard<Self>, Ready)>, DatabaseError> {
        let mut rules = this.clone().lock_owned().await;
        let read = move || {
            if !rules.tables.have_changed() {
                return Ok(None);
            }
            let Some(snapshot) = rules.snapshot.clone() else { return Ok(None) };
            // Nobody edited the accounts.
            let ready = Ready { by: None, ..rules.tables.ready(&snapshot)? };
            Ok(Some((rules, ready)))
        };
        tokio::task::spawn_blocking(read).await.expect("nobody cancels it")
    }

    /// The files of the tables.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.tables.files.keys().cloned().collect();
        files.sort_unstable();
        files
    }
}

/// Puts into force what is ready. Entries that their account may no longer claim are gone at once, each with a line in the audit
/// log, and so is every account that is different.
pub(super) fn put(service: &Service, ready: Ready) {
    let Ready { config, accounts, policies, by } = ready;
    audit_accounts(service, &accounts, by.as_deref());
    let set = |database: &mut endpoint::Database| {
        database.set(config, accounts);
        database.set_policies(policies);
    };
    drop(service.change(Act { action: "accounts", login: None, source: None }, set));
    if let Some(shared) = service.shared() {
        shared.read_again();
    }
}

/// Which accounts come, go or change, and what of them, before they do.
fn audit_accounts(service: &Service, accounts: &[Account], by: Option<&str>) {
    let database = service.database();
    let before = database.accounts();
    let audit = service.audit();
    let act = |login| Act { action: "accounts", login: Some(login), source: None };
    for account in accounts {
        match before.account(account.login()) {
            Some(same) if same == account => {}
            Some(old) => audit.write_by(act(account.login()), by, "changed", &old.differences(account).join(", ")),
            None => audit.write_by(act(account.login()), by, "added", "account"),
        }
    }
    let known: HashSet<&str> = accounts.iter().map(Account::login).collect();
    for login in before.logins().filter(|login| !known.contains(login)) {
        audit.write_by(act(login), by, "removed", "account");
    }
}

/// Reads tables again when their files change. `files` names them.
pub(super) async fn follow(
    rules: Arc<Mutex<Rules>>,
    mut files: watch::Receiver<Vec<PathBuf>>,
    service: Arc<Service>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let named = files.borrow_and_update().clone();
        let watch = watched(&named);
        loop {
            // Also once at first: a file may have changed after it was read and before it was watched.
            read_again(&rules, &named, &service).await;
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                named = files.changed() => match named {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = changed(watch.as_ref(), "route tables") => {}
            }
        }
    }
}

async fn read_again(rules: &Arc<Mutex<Rules>>, files: &[PathBuf], service: &Service) {
    match Rules::read_again(rules).await {
        Ok(None) => {}
        Ok(Some((_in_force, ready))) => {
            put(service, ready);
            tracing::info!(?files, "a route table changed and is in force");
        }
        Err(error) => {
            tracing::error!(%error, "a route table changed and cannot be read: the one before stays in force");
        }
    }
}

/// Tables that are in memory.
#[derive(Debug, Default)]
struct Tables {
    files: Files,
    /// That of the database where it is no file: the same rows are the same table, and nobody's entries are looked at again.
    rows: Option<(RoutesSnapshot, Arc<RouteTable>)>,
}

impl Tables {
    /// Makes a snapshot ready, and forgets the tables that it does not name.
    fn ready(&mut self, snapshot: &DatabaseSnapshot) -> Result<Ready, DatabaseError> {
        let mut files = HashMap::new();
        let policies = self.policies(&snapshot.policies, &mut files)?;
        let mut rows = None;
        let table = match &snapshot.routes {
            None => None,
            Some(RoutesSnapshot { file: Some(file), rows: _ }) => {
                let table = self.table_once(file, &mut files);
                Some(table.map_err(|error| DatabaseError::Routes(file.clone(), error))?)
            }
            Some(routes) => {
                let kept = self.rows.as_ref().filter(|(same, _)| same == routes).map(|(_, table)| table.clone());
                let compile = || routes.compile().map_err(DatabaseError::Rows);
                let table = kept.map_or_else(compile, |table| Ok(Some(table)))?;
                rows = table.clone().map(|table| (routes.clone(), table));
                table
            }
        };
        let accounts = snapshot.compile_accounts(table.as_ref())?;
        let config = config(snapshot)?;
        (self.files, self.rows) = (files, rows);
        Ok(Ready { config, accounts, policies, by: snapshot.accounts_changed_by.clone() })
    }

    fn policies(&self, snapshots: &[PolicySnapshot], files: &mut Files) -> Result<Vec<Policy>, PolicyError> {
        let compile = |(index, policy): (usize, &PolicySnapshot)| {
            let file = policy.routes.as_ref().and_then(|routes| routes.file.as_ref());
            let table = file.map(|file| {
                self.table_once(file, files).map_err(|error| PolicyError::Routes(index, file.clone(), error))
            });
            policy.compile(table.transpose()?).map_err(|error| PolicyError::Policy(index, error))
        };
        snapshots.iter().enumerate().map(compile).collect()
    }

    /// The table of a file, which several may name.
    fn table_once(&self, file: &Path, files: &mut Files) -> Result<Arc<RouteTable>, RouteTableError> {
        if let Some((_, table)) = files.get(file) {
            return Ok(table.clone());
        }
        let (stamp, table) = self.table(file)?;
        files.insert(file.to_owned(), (stamp, table.clone()));
        Ok(table)
    }

    fn table(&self, path: &Path) -> Result<(Stamp, Arc<RouteTable>), RouteTableError> {
        let now = stamp(path)?;
        if let Some(kept) = self.files.get(path).filter(|(stamp, _)| *stamp == now) {
            return Ok(kept.clone());
        }
        read_stamped(path).map(|(stamp, table)| (stamp, Arc::new(table)))
    }

    /// Whether a file is not the one that was read.
    fn have_changed(&self) -> bool {
        self.files.iter().any(|(path, (before, _))| !stamp(path).is_ok_and(|now| now == *before))
    }
}

type Files = HashMap<PathBuf, (Stamp, Arc<RouteTable>)>;

fn config(snapshot: &DatabaseSnapshot) -> Result<Config, DatabaseError> {
    let bound = |value: std::num::NonZeroU32| usize::try_from(value.get()).unwrap_or(usize::MAX);
    Ok(Config {
        update_interval: Duration::from_secs(snapshot.update_interval_seconds.get().into()),
        entries_max: bound(snapshot.entries_max),
        entries_per_account_max: bound(snapshot.entries_per_account_max),
        networks_per_account_max: bound(snapshot.networks_per_account_max),
        own: vec![snapshot.listen],
        regions: Arc::new(snapshot.compile_regions()?),
        ..Config::default()
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use castgate_control::{MatchSnapshot, PoolSnapshot, RoutesSnapshot, RuleSnapshot};
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn a_table_is_read_packed_or_not_and_again_only_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes.csv.gz");
        let write = |text: &str| {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(text.as_bytes()).unwrap();
            std::fs::write(&path, packed.finish().unwrap()).unwrap();
        };
        write("192.0.2.0/24,64500\n");
        let mut tables = Tables::default();
        let mut table = || {
            let snapshot = DatabaseSnapshot { policies: vec![policy(&path)], ..snapshot() };
            tables.ready(&snapshot).map(|mut ready| ready.policies.remove(0).routes.unwrap())
        };
        let first = table().unwrap();
        assert_eq!(first.asn_of([192, 0, 2, 1].into()), Some(64_500));
        assert!(Arc::ptr_eq(&first, &table().unwrap()), "it is not read again");
        write("192.0.2.0/24,64501\n198.51.100.0/24,64501\n");
        assert_eq!(table().unwrap().asn_of([192, 0, 2, 1].into()), Some(64_501));
        write("192.0.2.0/24,x\n");
        let sentence = table().unwrap_err().to_string();
        let place = path.display();
        assert_eq!(
            sentence,
            format!("policies[0].routes.file: {place}: line 1: \"x\" is not the number of an Autonomous System")
        );
        std::fs::write(&path, [0x1f, 0x8b, 8, 0]).unwrap();
        assert!(table().unwrap_err().to_string().contains("cannot be read"));
        std::fs::remove_file(&path).unwrap();
        assert!(table().unwrap_err().to_string().contains("No such file"));
    }

    #[test]
    fn a_file_that_policies_and_accounts_name_is_in_memory_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes.csv");
        std::fs::write(&path, "192.0.2.0/24,64500\n").unwrap();
        let routes = Some(RoutesSnapshot { file: Some(path.clone()), rows: Vec::new() });
        let policies = vec![policy(&path), PolicySnapshot { name: "q".to_owned(), ..policy(&path) }];
        let mut tables = Tables::default();
        let ready = tables.ready(&DatabaseSnapshot { routes, policies, ..snapshot() }).unwrap();
        let of_policies: Vec<_> = ready.policies.into_iter().map(|policy| policy.routes.unwrap()).collect();
        assert!(Arc::ptr_eq(&of_policies[0], &of_policies[1]));
        assert!(Arc::ptr_eq(&of_policies[0], &tables.files[&path].1) && tables.files.len() == 1);
        assert!(!tables.have_changed());
        std::fs::write(&path, "192.0.2.0/24,64500\n198.51.100.0/24,64500\n").unwrap();
        assert!(tables.have_changed());
    }

    /// Or each snapshot would have the entries of every account looked at again, and say so in the audit log.
    #[test]
    fn the_same_rows_are_the_same_table() {
        let routes = |row: &str| Some(RoutesSnapshot { file: None, rows: vec![row.to_owned()] });
        let account = castgate_control::Account {
            login: "be".to_owned(),
            password_hash:
                "$argon2id$v=19$m=8,t=1,p=1$YSBzYWx0IGZvciB0ZXN0cw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
                    .to_owned(),
            previous_password_hash: None,
            allow: castgate_control::Allow { asns: vec![64_500], ..Default::default() },
        };
        let mut tables = Tables::default();
        let mut accounts = |row| {
            let accounts = vec![account.clone()];
            tables.ready(&DatabaseSnapshot { accounts, routes: routes(row), ..snapshot() }).unwrap().accounts
        };
        let before = accounts("192.0.2.0/24,64500");
        assert_eq!(before, accounts("192.0.2.0/24,64500"));
        assert_eq!(before[0].differences(&accounts("192.0.2.0/25,64500")[0]), ["route table"]);
    }

    fn snapshot() -> DatabaseSnapshot {
        DatabaseSnapshot::new("127.0.0.1:0".parse().unwrap())
    }

    fn policy(path: &Path) -> PolicySnapshot {
        let matches = MatchSnapshot { asns: vec![64_500], ..MatchSnapshot::default() };
        let pool = PoolSnapshot { name: "p".to_owned(), weight: 1, load_percent_max: 100, servers: Vec::new() };
        let rule = RuleSnapshot { name: "r".to_owned(), matches, pools: vec![pool], exclude: Vec::new() };
        let routes = Some(RoutesSnapshot { file: Some(path.to_owned()), rows: Vec::new() });
        PolicySnapshot { name: "p".to_owned(), rules: vec![rule], routes }
    }
}
