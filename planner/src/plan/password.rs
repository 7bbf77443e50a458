//! Passwords to what a database may keep: argon2id after RFC 9106.
//!
//! A plan must be equal when its objects are, so the salt cannot be random. It is a hash of namespace, database and login
//! instead: still different for every account, which is what a salt is for; what is given up is that the same account with the
//! same password in two installations has the same hash.
//!
//! A hash costs tens of milliseconds on purpose, and a cluster is planned anew with every change: hashes are remembered, so that
//! a plan with no new account hashes nothing. Being remembered changes no hash, so a plan is still a function of its input.

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::{Mutex, PoisonError};

use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use sha2::{Digest, Sha256};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::objects::ObjectName;

/// Cost of a hash: the second recommendation of RFC 9106 §4 with the memory that OWASP names as the least, 19 MiB.
const MEMORY_KIBIBYTES: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Hashes remembered in one generation, of which two are kept: more accounts than an installation has, and 10 MB at most.
const REMEMBERED_MAX: usize = 16_384;

static MEMORY: Mutex<Memory> = Mutex::new(Memory { young: None, old: None });

/// Hashes the password of `login` at `database` to a PHC string, or remembers it.
pub(super) fn hash(database: &ObjectName, login: &str, password: &str) -> String {
    let key = key(database, login, password);
    let remembered = MEMORY.lock().unwrap_or_else(PoisonError::into_inner).recall(&key);
    // The lock is not held while a hash is made: two who want the same one make the same.
    remembered.unwrap_or_else(|| {
        let hash = make(database, login, password);
        MEMORY.lock().unwrap_or_else(PoisonError::into_inner).remember(key, hash.clone());
        hash
    })
}

fn make(database: &ObjectName, login: &str, password: &str) -> String {
    argon2id(password, &salt(database, login))
}

/// The PHC string of a password with this salt, which has to be that of one account alone: for who keeps accounts without a plan.
#[must_use]
pub fn password_hash(password: &str, salt: &[u8; 16]) -> String {
    argon2id(password, &encoded(salt))
}

fn argon2id(password: &str, salt: &SaltString) -> String {
    let params = Params::new(MEMORY_KIBIBYTES, PASSES, LANES, None).expect("the constants are within the RFC's bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(password.as_bytes(), salt)
        .expect("any password of less than 4 GiB can be hashed")
        .to_string()
}

type Key = [u8; 32];

/// What a hash is remembered under: not the password itself, which need not lie about for longer than its Secret.
fn key(database: &ObjectName, login: &str, password: &str) -> Key {
    let mut digest = Sha256::new();
    for part in [&database.namespace, &database.name, login, password] {
        // Lengths, because a password may hold any octet.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    digest.finalize().into()
}

/// Hashes in two generations: when the young one is full, the old one is forgotten. What is used stays.
#[derive(Debug)]
struct Memory {
    young: Option<HashMap<Key, String>>,
    old: Option<HashMap<Key, String>>,
}

impl Memory {
    fn recall(&mut self, key: &Key) -> Option<String> {
        if let Some(hash) = self.young.as_ref().and_then(|young| young.get(key)) {
            return Some(hash.clone());
        }
        let hash = self.old.as_mut()?.remove(key)?;
        self.remember(*key, hash.clone());
        Some(hash)
    }

    fn remember(&mut self, key: Key, hash: String) {
        let young = self.young.get_or_insert_default();
        young.insert(key, hash);
        if young.len() >= REMEMBERED_MAX {
            self.old = self.young.take();
        }
    }
}

/// 16 octets that are those of this account alone.
fn salt(database: &ObjectName, login: &str) -> SaltString {
    // No secret is needed: a salt is stored beside the hash.
    let mut hasher = SipHasher13::new_with_keys(0x6361_7374_6761_7465, 0x7464_732d_7361_6c74);
    for part in [&database.namespace, &database.name, login] {
        hasher.write(part.as_bytes());
        // No name holds this octet, so "a" + "bc" is not "ab" + "c".
        hasher.write_u8(0xff);
    }
    encoded(&hasher.finish128().as_bytes())
}

fn encoded(salt: &[u8; 16]) -> SaltString {
    SaltString::encode_b64(salt).expect("16 octets are a salt of the recommended length")
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordHash, PasswordVerifier};

    use super::*;

    #[test]
    fn a_hash_proves_its_password_and_no_other() {
        let hash = hash(&database("root"), "be", "correct horse");
        let parsed = PasswordHash::new(&hash).unwrap();
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"correct horsf", &parsed).is_err());
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    }

    #[test]
    fn a_hash_with_a_salt_of_ones_own_is_as_good() {
        let hash = password_hash("correct horse", &[7; 16]);
        let parsed = PasswordHash::new(&hash).unwrap();
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
        assert_ne!(hash, password_hash("correct horse", &[8; 16]));
    }

    #[test]
    fn salts_differ_by_account_and_stay_the_same_over_time() {
        let salt_of = |name: &str, login| salt(&database(name), login).to_string();
        assert_eq!(salt_of("root", "be"), salt_of("root", "be"));
        assert_ne!(salt_of("root", "be"), salt_of("root", "nl"));
        assert_ne!(salt_of("root", "be"), salt_of("roo", "tbe"));
    }

    #[test]
    fn a_remembered_hash_is_the_one_that_was_made() {
        let first = hash(&database("memory"), "be", "correct horse");
        assert_eq!(first, make(&database("memory"), "be", "correct horse"));
        let begin = std::time::Instant::now();
        for _ in 0..1000 {
            assert_eq!(hash(&database("memory"), "be", "correct horse"), first);
        }
        // A thousand real ones take longer than ten seconds on any machine: 19 MiB are filled twice for each.
        assert!(begin.elapsed().as_secs() < 5, "nothing was remembered");
    }

    #[test]
    fn what_is_used_is_never_forgotten_and_memory_is_bounded() {
        let mut memory = Memory { young: None, old: None };
        memory.remember([0xff; 32], "used".into());
        let mut key = [0; 32];
        for number in 0..(3 * REMEMBERED_MAX as u64) {
            key[..8].copy_from_slice(&number.to_be_bytes());
            memory.remember(key, String::new());
            assert_eq!(memory.recall(&[0xff; 32]).as_deref(), Some("used"), "after {number} others");
        }
        let kept = memory.young.map_or(0, |young| young.len()) + memory.old.map_or(0, |old| old.len());
        assert!((REMEMBERED_MAX..=2 * REMEMBERED_MAX).contains(&kept), "{kept}");
    }

    fn database(name: &str) -> ObjectName {
        ObjectName { namespace: "castgate".into(), name: name.into() }
    }
}
