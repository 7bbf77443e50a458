//! The database role: where it answers and who may register.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use castgate_endpoint::hierarchy::accounts::{self as endpoint, AccountError, Systems};
use castgate_endpoint::hierarchy::policy::RouteTable;
use castgate_endpoint::hierarchy::region::Regions;
use castgate_wire::registry::{Country, EntryType};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::accounts::check_changed_by;
use crate::store::StoreSnapshot;
use crate::tls::{TlsFiles, TlsIdentity, check_ca, check_tls};
use crate::{PolicySnapshot, RoutesSnapshot, SnapshotError, integer, words};

/// A tunnel database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseSnapshot {
    /// Address and TCP port of the HTTP of the hierarchy.
    pub listen: SocketAddr,
    /// What proves it to those who ask: then it is https that it speaks there, and nothing else. Default: it speaks http.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsIdentity>,
    /// The same in two files: only an agent that takes its snapshot from a file has them. What runs holds what was in them.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_files: Option<TlsFiles>,
    /// Who may register what. Default: nobody.
    #[serde(default)]
    pub accounts: Vec<Account>,
    /// A file with more accounts, as `castgate tds account` writes it, relative to the folder of the file with this snapshot: only
    /// an agent that takes its snapshot from a file has one. What runs holds its accounts, and no name of a file. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts_file: Option<PathBuf>,
    /// Who changed the accounts last, for the audit log. Default: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts_changed_by: Option<String>,
    /// How often an entry is to be refreshed, in seconds; it is gone after two. Default: 300.
    #[serde(default = "default_update_interval", deserialize_with = "integer::read")]
    pub update_interval_seconds: NonZeroU32,
    /// Entries at one time; a server has one for each protocol. Default: 300 000.
    #[serde(default = "default_entries_max", deserialize_with = "integer::read")]
    pub entries_max: NonZeroU32,
    /// Entries that one account may hold. Default: 10 000.
    #[serde(default = "default_entries_per_account_max", deserialize_with = "integer::read")]
    pub entries_per_account_max: NonZeroU32,
    /// Networks of all entries of one account. Default: 262 144.
    #[serde(
        default = "default_networks_per_account_max",
        deserialize_with = "integer::read",
        skip_serializing_if = "is_default_networks"
    )]
    pub networks_per_account_max: NonZeroU32,
    /// Requests that one address may make in a minute before it is told to wait. Default: 600.
    #[serde(default = "default_requests_per_minute_max", deserialize_with = "integer::read")]
    pub requests_per_minute_max: NonZeroU32,
    /// Proxies whose `Forwarded` and `X-Forwarded-For` are believed. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<IpNet>,
    /// The databases that hold the same entries. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<PeersSnapshot>,
    /// Rules that win over what is registered, in their order. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicySnapshot>,
    /// Which Autonomous System a network belongs to, for accounts that have `asns`. Default: nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<RoutesSnapshot>,
    /// Whether every account is as one with `strictSource`. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict_source: bool,
    /// The countries of regions, for those that are not to be in that of UN M49. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", with = "words::lists")]
    pub regions: BTreeMap<String, Vec<Country>>,
    /// Where its entries are kept. Default: in the agent's state directory.
    #[serde(default, skip_serializing_if = "StoreSnapshot::is_embedded")]
    pub store: StoreSnapshot,
}

/// Nobody waits longer for a process that was told to end.
const HAND_OVER_MAX: u32 = 300;

/// The peers of a database: whom it takes its entries from when it starts, and who may take them from it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeersSnapshot {
    /// `HOST[:PORT]` or `http://HOST[:PORT]` of each; port 5632 when absent. The database itself may be among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// User name that all of them have in common.
    pub login: String,
    /// Their password.
    pub password: String,
    /// The certificates that vouch for them, as PEM; for https. Default: those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Whether those who show it get our entries. Default: true.
    #[serde(default = "yes")]
    pub serve: bool,
    /// How long a start waits for peers none of which can give anything, in seconds, before it serves what its own store holds:
    /// two that start together do not wait for each other for ever. Default: 30.
    #[serde(default = "default_wait", deserialize_with = "integer::read")]
    pub wait_seconds: NonZeroU32,
    /// How long a database that ends goes on giving its entries, in seconds, until every member took them once more: for one that
    /// does not come back. Default: it ends at once, and its store keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "integer::read_some")]
    pub hand_over_seconds: Option<NonZeroU32>,
}

/// Without the password: a snapshot may end up in a log.
impl fmt::Debug for PeersSnapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let Self { members, login, password: _, ca: _, serve, wait_seconds, hand_over_seconds } = self;
        formatter
            .debug_struct("PeersSnapshot")
            .field("members", members)
            .field("login", login)
            .field("serve", serve)
            .field("wait_seconds", wait_seconds)
            .field("hand_over_seconds", hand_over_seconds)
            .finish_non_exhaustive()
    }
}

/// A login that this database granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Account {
    /// User name; unique within a database.
    pub login: String,
    /// Password as a PHC string of argon2id (`$argon2id$v=19$…`); the password itself never gets here.
    pub password_hash: String,
    /// The hash of the password before, while its owner goes over to the new one: both are taken. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_password_hash: Option<String>,
    /// What the account may register.
    #[serde(default)]
    pub allow: Allow,
}

/// What an account may register. An empty list of types, networks, Autonomous Systems or countries allows none of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Allow {
    /// `TS`, `TDS` or both.
    #[serde(with = "words::list")]
    pub types: Vec<EntryType>,
    /// Every network of an entry must lie within one of these.
    pub networks: Vec<IpNet>,
    /// Or be one that the database's `routes` give to one of these Autonomous Systems.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asns: Vec<u32>,
    /// Countries an entry may name.
    #[serde(with = "words::list")]
    pub countries: Vec<Country>,
    /// The entry's own address must lie within one of these; empty: any address.
    pub sources: Vec<IpNet>,
    /// Whether the entry's own address and its networks must lie within one and the same network of the account.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strict_source: bool,
}

impl DatabaseSnapshot {
    /// A database with the defaults of everything that has one, where nobody may register yet.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            tls: None,
            tls_files: None,
            accounts: Vec::new(),
            accounts_file: None,
            accounts_changed_by: None,
            update_interval_seconds: default_update_interval(),
            entries_max: default_entries_max(),
            entries_per_account_max: default_entries_per_account_max(),
            networks_per_account_max: default_networks_per_account_max(),
            requests_per_minute_max: default_requests_per_minute_max(),
            trusted_proxies: Vec::new(),
            peers: None,
            policies: Vec::new(),
            routes: None,
            strict_source: false,
            regions: BTreeMap::new(),
            store: StoreSnapshot::Embedded,
        }
    }

    /// The accounts as a database works with them. `table` is that of `routes`.
    ///
    /// # Errors
    /// [`AccountError`] for a password hash that is none.
    pub fn compile_accounts(&self, table: Option<&Arc<RouteTable>>) -> Result<Vec<endpoint::Account>, AccountError> {
        self.accounts.iter().map(|account| account.compile(table, self.strict_source)).collect()
    }

    /// The regions as a database works with them.
    ///
    /// # Errors
    /// One sentence that names the region.
    pub fn compile_regions(&self) -> Result<Regions, SnapshotError> {
        Regions::new(&self.regions).map_err(|(name, error)| SnapshotError::new(format!("regions.{name}"), error))
    }

    pub(crate) fn check(&self) -> Result<(), SnapshotError> {
        if matches!(self.listen.ip(), ip if ip.is_multicast() || ip == IpAddr::from([255, 255, 255, 255])) {
            return Err(SnapshotError::new("listen", format_args!("{} is not an address of a host", self.listen.ip())));
        }
        check_tls(self.tls.as_ref(), self.tls_files.as_ref())?;
        if let Some(peers) = &self.peers {
            peers.check().map_err(|error| error.within("peers"))?;
        }
        self.store.check().map_err(|error| error.within("store"))?;
        if self.peers.is_some() && !self.store.is_embedded() {
            let reason = "are not for a database with store.etcd: its replicas share one view already";
            return Err(SnapshotError::new("peers", reason));
        }
        if self.accounts_file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
            return Err(SnapshotError::new("accountsFile", "is empty"));
        }
        for (index, policy) in self.policies.iter().enumerate() {
            let field = format!("policies[{index}]");
            policy.compile(None).map_err(|error| error.within(&field))?;
            if self.policies[..index].iter().any(|other| other.name == policy.name) {
                let reason = format!("{:?} is there twice", policy.name);
                return Err(SnapshotError::new(format!("{field}.name"), reason));
            }
        }
        if let Some(routes) = &self.routes {
            routes.compile().map_err(|error| error.within("routes"))?;
        }
        self.compile_regions()?;
        check_changed_by(self.accounts_changed_by.as_deref())
            .map_err(|reason| SnapshotError::new("accountsChangedBy", reason))?;
        check_accounts(&self.accounts)?;
        let of_systems = self.accounts.iter().position(|account| !account.allow.asns.is_empty());
        match of_systems.filter(|_| self.routes.is_none()) {
            Some(index) => Err(SnapshotError::new(format!("accounts[{index}].allow.asns"), "needs a table in routes")),
            None => Ok(()),
        }
    }
}

/// Every account is one, and no two have the same login.
pub(crate) fn check_accounts(accounts: &[Account]) -> Result<(), SnapshotError> {
    let mut logins = HashSet::new();
    for (index, account) in accounts.iter().enumerate() {
        let field = format!("accounts[{index}]");
        account.check().map_err(|error| error.within(&field))?;
        if !logins.insert(&account.login) {
            let reason = format!("{:?} is there twice", account.login);
            return Err(SnapshotError::new(format!("{field}.login"), reason));
        }
    }
    Ok(())
}

/// RFC 7617 §2: a colon ends the user-id.
fn check_login(login: &str) -> Result<(), SnapshotError> {
    if login.is_empty() || login.contains(|c: char| c == ':' || c.is_control()) {
        return Err(SnapshotError::new("login", format_args!("{login:?} cannot be a login")));
    }
    Ok(())
}

/// Login and password of peers.
pub(crate) fn check_credentials(login: &str, password: &str) -> Result<(), SnapshotError> {
    check_login(login)?;
    if password.is_empty() || password.contains(char::is_control) {
        return Err(SnapshotError::new("password", "is empty or has control characters"));
    }
    Ok(())
}

impl PeersSnapshot {
    /// Peers with the default waiting time, that get our entries as well.
    #[must_use]
    pub fn new(members: Vec<String>, login: String, password: String) -> Self {
        Self { members, login, password, ca: None, serve: true, wait_seconds: default_wait(), hand_over_seconds: None }
    }

    fn check(&self) -> Result<(), SnapshotError> {
        check_credentials(&self.login, &self.password)?;
        check_ca(self.ca.as_ref())?;
        if let Some(seconds) = self.hand_over_seconds.filter(|seconds| seconds.get() > HAND_OVER_MAX) {
            return Err(SnapshotError::new("handOverSeconds", format_args!("{seconds} is not in 1..={HAND_OVER_MAX}")));
        }
        for (index, member) in self.members.iter().enumerate() {
            if member.trim().is_empty() {
                return Err(SnapshotError::new(format!("members[{index}]"), "is empty"));
            }
        }
        Ok(())
    }
}

impl Account {
    fn check(&self) -> Result<(), SnapshotError> {
        check_login(&self.login)?;
        if self.previous_password_hash.as_ref().is_some_and(|hash| !hash.starts_with("$argon2id$")) {
            return Err(SnapshotError::new("previousPasswordHash", "is not a PHC string of argon2id"));
        }
        if !self.password_hash.starts_with("$argon2id$") {
            return Err(SnapshotError::new("passwordHash", "is not a PHC string of argon2id"));
        }
        // RFC 7607 and RFC 7300: neither is anybody's.
        if let Some(asn) = self.allow.asns.iter().find(|asn| matches!(**asn, 0 | u32::MAX)) {
            let reason = format_args!("{asn} is not the number of an Autonomous System");
            return Err(SnapshotError::new("allow.asns", reason));
        }
        Ok(())
    }

    fn compile(&self, table: Option<&Arc<RouteTable>>, strict: bool) -> Result<endpoint::Account, AccountError> {
        let Self { login, password_hash, previous_password_hash, allow } = self.clone();
        let Allow { types, networks, asns, countries, sources, strict_source } = allow;
        let systems = Systems::new(asns, table.cloned());
        let strict_source = strict_source || strict;
        let allow = endpoint::Allow { types, networks, systems, countries, sources, strict_source };
        endpoint::Account::new(login, password_hash, allow)?.with_previous(previous_password_hash)
    }
}

const fn non_zero(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("the constants of this file are not zero")
}

const fn yes() -> bool {
    true
}

const fn default_wait() -> NonZeroU32 {
    non_zero(30)
}

const fn default_update_interval() -> NonZeroU32 {
    non_zero(300)
}

const fn default_entries_max() -> NonZeroU32 {
    non_zero(300_000)
}

const fn default_entries_per_account_max() -> NonZeroU32 {
    non_zero(10_000)
}

const fn default_networks_per_account_max() -> NonZeroU32 {
    non_zero(262_144)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
fn is_default_networks(networks: &NonZeroU32) -> bool {
    *networks == default_networks_per_account_max()
}

const fn default_requests_per_minute_max() -> NonZeroU32 {
    non_zero(600)
}
