//! The database role: where it answers and who may register.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use castgate_wire::registry::{Country, EntryType};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{SnapshotError, integer, words};

/// A tunnel database. Its entries live in the agent's state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseSnapshot {
    /// Address and TCP port of the HTTP of the hierarchy.
    pub listen: SocketAddr,
    /// Who may register what. Default: nobody.
    #[serde(default)]
    pub accounts: Vec<Account>,
    /// How often an entry is to be refreshed, in seconds; it is gone after two. Default: 300.
    #[serde(default = "default_update_interval", deserialize_with = "integer::read")]
    pub update_interval_seconds: NonZeroU32,
    /// Entries at one time. Default: 100 000.
    #[serde(default = "default_entries_max", deserialize_with = "integer::read")]
    pub entries_max: NonZeroU32,
    /// Entries that one account may hold. Default: 10 000.
    #[serde(default = "default_entries_per_account_max", deserialize_with = "integer::read")]
    pub entries_per_account_max: NonZeroU32,
    /// Requests that one address may make in a minute before it is told to wait. Default: 600.
    #[serde(default = "default_requests_per_minute_max", deserialize_with = "integer::read")]
    pub requests_per_minute_max: NonZeroU32,
    /// Proxies whose `Forwarded` and `X-Forwarded-For` are believed. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<IpNet>,
}

/// A login that this database granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Account {
    /// User name; unique within a database.
    pub login: String,
    /// Password as a PHC string of argon2id (`$argon2id$v=19$…`); the password itself never gets here.
    pub password_hash: String,
    /// What the account may register.
    #[serde(default)]
    pub allow: Allow,
}

/// What an account may register. An empty list of types, networks or countries allows none of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Allow {
    /// `TS`, `TDS` or both.
    #[serde(with = "words::list")]
    pub types: Vec<EntryType>,
    /// Every network of an entry must lie within one of these.
    pub networks: Vec<IpNet>,
    /// Countries an entry may name.
    #[serde(with = "words::list")]
    pub countries: Vec<Country>,
    /// The entry's own address must lie within one of these; empty: any address.
    pub sources: Vec<IpNet>,
}

impl DatabaseSnapshot {
    /// A database with the defaults of everything that has one, where nobody may register yet.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            accounts: Vec::new(),
            update_interval_seconds: default_update_interval(),
            entries_max: default_entries_max(),
            entries_per_account_max: default_entries_per_account_max(),
            requests_per_minute_max: default_requests_per_minute_max(),
            trusted_proxies: Vec::new(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), SnapshotError> {
        if matches!(self.listen.ip(), ip if ip.is_multicast() || ip == IpAddr::from([255, 255, 255, 255])) {
            return Err(SnapshotError::new("listen", format_args!("{} is not an address of a host", self.listen.ip())));
        }
        for (index, account) in self.accounts.iter().enumerate() {
            let field = format!("accounts[{index}]");
            account.check().map_err(|error| error.within(&field))?;
            if self.accounts[..index].iter().any(|other| other.login == account.login) {
                let reason = format!("{:?} is there twice", account.login);
                return Err(SnapshotError::new(format!("{field}.login"), reason));
            }
        }
        Ok(())
    }
}

impl Account {
    fn check(&self) -> Result<(), SnapshotError> {
        // RFC 7617 §2: a colon ends the user-id.
        if self.login.is_empty() || self.login.contains(|c: char| c == ':' || c.is_control()) {
            return Err(SnapshotError::new("login", format_args!("{:?} cannot be a login", self.login)));
        }
        if !self.password_hash.starts_with("$argon2id$") {
            return Err(SnapshotError::new("passwordHash", "is not a PHC string of argon2id"));
        }
        Ok(())
    }
}

const fn non_zero(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("the constants of this file are not zero")
}

const fn default_update_interval() -> NonZeroU32 {
    non_zero(300)
}

const fn default_entries_max() -> NonZeroU32 {
    non_zero(100_000)
}

const fn default_entries_per_account_max() -> NonZeroU32 {
    non_zero(10_000)
}

const fn default_requests_per_minute_max() -> NonZeroU32 {
    non_zero(600)
}
