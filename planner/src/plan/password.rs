//! Passwords to what a database may keep: argon2id after RFC 9106.
//!
//! A plan must be equal when its objects are, so the salt cannot be random. It is a hash of namespace, database and login
//! instead: still different for every account, which is what a salt is for; what is given up is that the same account with the
//! same password in two installations has the same hash.

use std::hash::Hasher;

use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::objects::ObjectName;

/// Cost of a hash: the second recommendation of RFC 9106 §4 with the memory that OWASP names as the least, 19 MiB.
const MEMORY_KIBIBYTES: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Hashes the password of `login` at `database` to a PHC string.
pub(super) fn hash(database: &ObjectName, login: &str, password: &str) -> String {
    let params = Params::new(MEMORY_KIBIBYTES, PASSES, LANES, None).expect("the constants are within the RFC's bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(password.as_bytes(), &salt(database, login))
        .expect("any password of less than 4 GiB can be hashed")
        .to_string()
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
    SaltString::encode_b64(&hasher.finish128().as_bytes()).expect("16 octets are a salt of the recommended length")
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
    fn salts_differ_by_account_and_stay_the_same_over_time() {
        let salt_of = |name: &str, login| salt(&database(name), login).to_string();
        assert_eq!(salt_of("root", "be"), salt_of("root", "be"));
        assert_ne!(salt_of("root", "be"), salt_of("root", "nl"));
        assert_ne!(salt_of("root", "be"), salt_of("roo", "tbe"));
    }

    fn database(name: &str) -> ObjectName {
        ObjectName { namespace: "castgate".into(), name: name.into() }
    }
}
