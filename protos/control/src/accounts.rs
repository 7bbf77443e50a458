//! The accounts of a database in a file of their own, where no operator has them: `castgate tds account` edits it, the agent
//! takes every edit while it runs.

use serde::{Deserialize, Serialize};

use crate::database::check_accounts;
use crate::{Account, SnapshotError, yaml};

/// What such a file says first: whoever opens it shall know how it is edited.
const HEAD: &str =
    "# Accounts of a tunnel database. Edit with `castgate tds account`; the agent takes every change at once.\n";

/// Longest name of whoever changed the file.
const CHANGED_BY_CHARS_MAX: usize = 200;

/// Who may register, as a file beside the agent's configuration: `database.accountsFile` names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccountsFile {
    /// Who changed the file last, for the database's audit log. Default: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    /// The accounts.
    #[serde(default)]
    pub accounts: Vec<Account>,
}

impl AccountsFile {
    /// Reads the file's text and proves it.
    ///
    /// # Errors
    /// One sentence that names the field: `accounts[2].login: "be" is there twice`.
    pub fn from_yaml(text: &str) -> Result<Self, SnapshotError> {
        let file: Self = yaml::read(text)?;
        file.check()?;
        Ok(file)
    }

    /// Writes it so that [`from_yaml`](Self::from_yaml) reads the same.
    ///
    /// # Panics
    /// Never: it is made of texts and lists only.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let content = serde_saphyr::to_string(self).expect("texts and lists can be written as YAML");
        format!("{HEAD}{content}")
    }

    /// Proves the rules that the types do not hold by themselves.
    ///
    /// # Errors
    /// One sentence that names the first field that breaks a rule.
    pub fn check(&self) -> Result<(), SnapshotError> {
        check_changed_by(self.changed_by.as_deref()).map_err(|reason| SnapshotError::new("changedBy", reason))?;
        check_accounts(&self.accounts)
    }
}

/// It ends up as a word in a log.
pub(crate) fn check_changed_by(name: Option<&str>) -> Result<(), &'static str> {
    match name {
        Some(name) if name.chars().count() > CHANGED_BY_CHARS_MAX => Err("is longer than 200 characters"),
        Some(name) if name.contains(char::is_control) => Err("has control characters"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Allow;

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let account = Account {
            login: "be \"one\" # two".to_owned(),
            password_hash: "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA".to_owned(),
            previous_password_hash: None,
            allow: Allow { networks: vec!["134.184.0.0/16".parse().unwrap()], ..Allow::default() },
        };
        let file = AccountsFile { changed_by: Some("alice@tds.example".to_owned()), accounts: vec![account] };
        assert_eq!(AccountsFile::from_yaml(&file.to_yaml()), Ok(file));
        assert_eq!(AccountsFile::from_yaml(&AccountsFile::default().to_yaml()), Ok(AccountsFile::default()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let account = "{login: be, passwordHash: $argon2id$v=19$x}";
        for (text, sentence) in [
            ("accounts: 7".to_owned(), "accounts: "),
            ("account: []".to_owned(), "account: unknown field `account`"),
            (format!("accounts: [{account}, {account}]"), "accounts[1].login: \"be\" is there twice"),
            ("accounts: [{login: be, passwordHash: s3cret}]".to_owned(), "accounts[0].passwordHash: is not a PHC"),
            ("accounts: [{login: 'b:e', passwordHash: $argon2id$}]".to_owned(), "accounts[0].login: \"b:e\" cannot"),
            ("accounts: [{login: be, passwordHash: $argon2id$, allow: {types: [TX]}}]".to_owned(), "accounts[0].allow"),
            (format!("changedBy: {}", "x".repeat(201)), "changedBy: is longer"),
            ("changedBy: \"a\\nb\"".to_owned(), "changedBy: has control characters"),
        ] {
            let error = AccountsFile::from_yaml(&text).unwrap_err().to_string();
            assert!(error.starts_with(sentence), "{text}: {error}");
        }
    }
}
