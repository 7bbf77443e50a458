//! Accounts whose password is being changed: since when, and when the password before was shown last.

use std::collections::BTreeMap;
use std::time::SystemTime;

use castgate_endpoint::hierarchy::accounts::{Account, Accounts};
use castgate_endpoint::hierarchy::clock::UnixMillis;
use serde::Serialize;

/// An account with two passwords.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RotationReport {
    /// User name.
    pub login: String,
    /// Since when this database takes this password before and looks who shows it, in seconds since 1970.
    pub since: u64,
    /// When it was shown last since then, in seconds since 1970.
    pub previous_shown: Option<u64>,
}

/// Since when each account has the password before that it has.
#[derive(Debug, Default)]
pub(super) struct Rotations(BTreeMap<String, Rotation>);

#[derive(Debug)]
struct Rotation {
    previous_password_hash: String,
    since: UnixMillis,
}

impl Rotations {
    /// Takes the accounts that are in force from now on.
    pub(super) fn set(&mut self, accounts: &[Account]) {
        let now = SystemTime::now().into();
        let mut before = std::mem::take(&mut self.0);
        self.0 = accounts
            .iter()
            .filter_map(|account| {
                let hash = account.previous_password_hash()?;
                let same = before.remove(account.login()).filter(|one| one.previous_password_hash == hash);
                let begun = || Rotation { previous_password_hash: hash.to_owned(), since: now };
                Some((account.login().to_owned(), same.unwrap_or_else(begun)))
            })
            .collect();
    }

    pub(super) fn report(&self, accounts: &Accounts) -> Vec<RotationReport> {
        let seconds = |at: UnixMillis| at.0 / 1_000;
        let row = |(login, rotation): (&String, &Rotation)| RotationReport {
            login: login.clone(),
            since: seconds(rotation.since),
            previous_shown: accounts.previous_shown(login).map(seconds),
        };
        self.0.iter().map(row).collect()
    }
}
