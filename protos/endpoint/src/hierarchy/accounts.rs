//! Who may register at a database, and what (castgate UMTP notes: accounts limit types, networks, countries and sources; draft-liefooghe-castgate-02 §4.1.1
//! has databases of Autonomous Systems as well).
//!
//! Owns logins, password hashes and the list of what an account may claim. Checking a password costs tens of milliseconds
//! of a core on purpose; so [`Accounts::check`] hands the work out as a value that any thread can [`run`](PasswordCheck::run),
//! and remembers a good one, because a registration is refreshed with the same password for months.
//!
//! ```text
//!   login, password ──check──▶ Verified                      (seen before)
//!                          └─▶ PasswordCheck ──run──▶ which ──note──▶ remembered
//! ```
//! While a password is changed, it also remembers when the one before was shown last, so that somebody knows when it can go.

mod allow;
mod systems;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};

use argon2::password_hash::{PasswordHash, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params};
use siphasher::sip128::{Hasher128, SipHasher24};

pub use allow::{Allow, Claim};
pub use systems::Systems;

use super::clock::UnixMillis;

/// Passwords remembered as good. One for each login that refreshes, with room for many; 24 octets each.
const VERIFIED_MAX: usize = 16_384;
/// Longest password that is looked at, in octets: longer ones are nobody's.
const PASSWORD_BYTES_MAX: usize = 1024;
/// Memory a hash may cost, in KiB: a hash is configuration, but a mistyped one shall not take the machine down.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
/// Passes a hash may cost.
const PASSES_MAX: u32 = 16;
/// Lanes a hash may have.
const LANES_MAX: u32 = 16;

/// A login that a database granted.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    login: String,
    password_hash: String,
    /// Of the password before: taken as well while its owner goes over to the new one.
    previous_password_hash: Option<String>,
    allow: Allow,
}

/// Why an account cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// The hash is no PHC string.
    #[error("account `{0}`: the password hash is not a PHC string: {1}")]
    NotPhc(String, String),
    /// The hash is of another function.
    #[error("account `{0}`: the password hash is of {1}, only argon2id is taken")]
    NotArgon2id(String, String),
    /// The hash costs too much.
    #[error(
        "account `{0}`: the password hash costs more than {MEMORY_KIB_MAX} KiB, {PASSES_MAX} passes or {LANES_MAX} lanes"
    )]
    TooExpensive(String),
}

impl Account {
    /// An account whose hash is proven to be one that we can check.
    ///
    /// # Errors
    /// [`AccountError`] when `password_hash` is not a PHC string of argon2id with bearable costs.
    pub fn new(login: String, password_hash: String, allow: Allow) -> Result<Self, AccountError> {
        check_hash(&login, &password_hash)?;
        Ok(Self { login, password_hash, previous_password_hash: None, allow })
    }

    /// The same account while its password is changed: the one before is good as well, so that nobody is turned away between
    /// our change and his.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_previous(self, password_hash: Option<String>) -> Result<Self, AccountError> {
        if let Some(hash) = &password_hash {
            check_hash(&self.login, hash)?;
        }
        Ok(Self { previous_password_hash: password_hash, ..self })
    }

    /// The hash of its password, as peers get it.
    #[must_use]
    pub fn password_hash(&self) -> &str {
        &self.password_hash
    }

    /// The hash of the password before, while it is taken as well.
    #[must_use]
    pub fn previous_password_hash(&self) -> Option<&str> {
        self.previous_password_hash.as_deref()
    }

    fn hashes(&self) -> Vec<String> {
        std::iter::once(&self.password_hash).chain(&self.previous_password_hash).cloned().collect()
    }

    /// The user name.
    #[must_use]
    pub fn login(&self) -> &str {
        &self.login
    }

    /// What it may claim.
    #[must_use]
    pub fn allow(&self) -> &Allow {
        &self.allow
    }

    /// In which parts another form of the account is different, for a log.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let Self { login: _, password_hash, previous_password_hash, allow } = self;
        let parts = [
            ("password", *password_hash != other.password_hash),
            ("previous password", *previous_password_hash != other.previous_password_hash),
            ("limits", !allow.says(&other.allow)),
            ("route table", !allow.systems.has_table_of(&other.allow.systems)),
        ];
        parts.into_iter().filter(|(_, differs)| *differs).map(|(part, _)| part).collect()
    }
}

fn check_hash(login: &str, password_hash: &str) -> Result<(), AccountError> {
    let not_phc = |error: argon2::password_hash::Error| AccountError::NotPhc(login.to_owned(), error.to_string());
    let hash = PasswordHash::new(password_hash).map_err(not_phc)?;
    if hash.algorithm != Algorithm::Argon2id.ident() {
        return Err(AccountError::NotArgon2id(login.to_owned(), hash.algorithm.to_string()));
    }
    let params = Params::try_from(&hash).map_err(not_phc)?;
    if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX || params.p_cost() > LANES_MAX {
        return Err(AccountError::TooExpensive(login.to_owned()));
    }
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(AccountError::NotPhc(login.to_owned(), "salt or hash is missing".to_owned()));
    }
    Ok(())
}

/// Hashes are not for logs.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { login, password_hash: _, previous_password_hash: _, allow } = self;
        f.debug_struct("Account").field("login", login).field("allow", allow).finish_non_exhaustive()
    }
}

/// Which of the passwords of an account somebody showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The one that is to be used.
    Current,
    /// The one before.
    Previous,
}

/// Whether a password is known to be right.
#[derive(Debug)]
pub enum Check {
    /// It was checked before.
    Verified(Shown),
    /// Somebody has to do the work.
    Run(PasswordCheck),
}

/// A password to be checked. Holds all it needs, so that it can be moved to another thread.
pub struct PasswordCheck {
    login: String,
    password: Vec<u8>,
    /// One, or two while a password is changed; none: there is no such login.
    hashes: Vec<String>,
    tag: u128,
}

/// Passwords are not for logs.
impl fmt::Debug for PasswordCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordCheck").field("login", &self.login).finish_non_exhaustive()
    }
}

impl PasswordCheck {
    /// Does the work: tens of milliseconds and tens of MiB. An unknown login costs the same as a wrong password, so that
    /// the time tells nobody which logins exist.
    #[must_use]
    pub fn run(&self) -> Option<Shown> {
        if self.hashes.is_empty() {
            let mut unused = [0; Params::DEFAULT_OUTPUT_LEN];
            let decoy = Argon2::default().hash_password_into(&self.password, b"no such login", &mut unused);
            debug_assert!(decoy.is_ok(), "the salt has a good length and the password is bounded");
            return None;
        }
        let right = self.hashes.iter().position(|hash| {
            PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(&self.password, &hash).is_ok())
        });
        right.map(|index| if index == 0 { Shown::Current } else { Shown::Previous })
    }
}

/// All accounts of a database, and which passwords are known to be right.
#[derive(Debug)]
pub struct Accounts {
    by_login: HashMap<String, Account>,
    /// Of accounts with two passwords, when the one before was shown last, as [`UnixMillis`]; 0: never.
    previous_shown: HashMap<String, AtomicU64>,
    key: [u8; 16],
    verified: HashMap<u128, Shown>,
    /// The same in order of age: the oldest goes first.
    verified_order: VecDeque<u128>,
}

impl Accounts {
    /// `key` is a secret of this process: what is remembered of passwords means nothing without it.
    #[must_use]
    pub fn new(accounts: Vec<Account>, key: [u8; 16]) -> Self {
        let mut this = Self {
            by_login: HashMap::new(),
            previous_shown: HashMap::new(),
            key,
            verified: HashMap::new(),
            verified_order: VecDeque::new(),
        };
        this.set(accounts);
        this
    }

    /// Replaces all accounts. What is remembered stays true: it is bound to login, password and hash.
    pub fn set(&mut self, accounts: Vec<Account>) {
        let mut shown_before = std::mem::take(&mut self.previous_shown);
        for account in accounts.iter().filter(|account| account.previous_password_hash.is_some()) {
            let before = self.by_login.get(&account.login);
            let is_same = before.is_some_and(|before| before.previous_password_hash == account.previous_password_hash);
            let shown = shown_before.remove(&account.login).filter(|_| is_same).unwrap_or_default();
            self.previous_shown.insert(account.login.clone(), shown);
        }
        self.by_login = accounts.into_iter().map(|account| (account.login.clone(), account)).collect();
    }

    /// The account of a login.
    #[must_use]
    pub fn account(&self, login: &str) -> Option<&Account> {
        self.by_login.get(login)
    }

    /// The login of each.
    pub fn logins(&self) -> impl Iterator<Item = &str> {
        self.by_login.keys().map(String::as_str)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_login.len()
    }

    /// Whether nobody may register.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_login.is_empty()
    }

    /// Whether the password is known to be right, or the work to find out.
    #[must_use]
    pub fn check(&self, login: &str, password: &str) -> Check {
        let account = self.by_login.get(login).filter(|_| password.len() <= PASSWORD_BYTES_MAX);
        let password = &password.as_bytes()[..password.len().min(PASSWORD_BYTES_MAX)];
        let none: &str = "";
        let hash = account.map_or(none, |account| &account.password_hash);
        let previous = account.and_then(|account| account.previous_password_hash.as_deref()).unwrap_or(none);
        let tag = self.tag(login, password, hash, previous);
        if account.is_some()
            && let Some(shown) = self.verified.get(&tag)
        {
            return Check::Verified(*shown);
        }
        let hashes = account.map(Account::hashes).unwrap_or_default();
        Check::Run(PasswordCheck { login: login.to_owned(), password: password.to_vec(), hashes, tag })
    }

    /// Remembers a password that proved right. Whether the login is (still) good is what it returns: the account may have
    /// been changed while the work was done.
    pub fn note(&mut self, check: &PasswordCheck, shown: Option<Shown>, wall: UnixMillis) -> bool {
        let account = self.by_login.get(&check.login);
        let unchanged = !check.hashes.is_empty() && account.is_some_and(|account| account.hashes() == check.hashes);
        let Some(shown) = shown.filter(|_| unchanged) else { return false };
        self.note_use(&check.login, shown, wall);
        if self.verified.insert(check.tag, shown).is_none() {
            self.verified_order.push_back(check.tag);
            if self.verified_order.len() > VERIFIED_MAX
                && let Some(oldest) = self.verified_order.pop_front()
            {
                self.verified.remove(&oldest);
            }
        }
        true
    }

    /// Remembers when the password before was shown. Anybody who may read may say so: it is one number of that account.
    pub fn note_use(&self, login: &str, shown: Shown, wall: UnixMillis) {
        if shown == Shown::Previous
            && let Some(last) = self.previous_shown.get(login)
        {
            last.store(wall.0, Ordering::Relaxed);
        }
    }

    /// When the password before of an account was shown last; `None`: never since it became the one before, or since we started.
    #[must_use]
    pub fn previous_shown(&self, login: &str) -> Option<UnixMillis> {
        let last = self.previous_shown.get(login)?.load(Ordering::Relaxed);
        (last != 0).then_some(UnixMillis(last))
    }

    /// The accounts with two passwords.
    pub fn rotating(&self) -> impl Iterator<Item = &Account> {
        self.by_login.values().filter(|account| account.previous_password_hash.is_some())
    }

    /// Of both hashes: when one of them is taken away, everybody shows once more what he knows.
    fn tag(&self, login: &str, password: &[u8], hash: &str, previous: &str) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        for part in [login.as_bytes(), password, hash.as_bytes(), previous.as_bytes()] {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        hasher.finish128().as_u128()
    }
}

#[cfg(test)]
mod tests;
