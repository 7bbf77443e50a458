//! Who the fleet trusts: the authority in its Secret, the bundle that agents read, the certificates of adapters.
//!
//! ```text
//!   Secret castgate-ca (operator's namespace) ──▶ Authority ──┬──▶ our own serving certificate
//!                     ▲ leader: made, turned                  ├──▶ ConfigMap castgate-ca of every namespace with agents
//!                     └───────────────────────────────────────└──▶ Secret castgate-adapter of every namespace with an adapter
//! ```
//! Owns what these objects hold; the turning itself is [`crate::pki`]'s, the writing the reconciler's.

use std::collections::BTreeMap;
use std::time::Duration;

use castgate_planner::ObjectName;
use castgate_planner::cluster::names;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::index::ADAPTER_SECRET;
use crate::pki::{self, Authority, Lifetimes, PkiError};
use crate::secret;
use crate::watch::kinds::{MANAGED_BY, OPERATOR};

/// Name of the Secret of the authority, and of each `ConfigMap` with its bundle.
pub const AUTHORITY: &str = "castgate-ca";
/// How long the certificate of an adapter is good. It is renewed after half of it.
const ADAPTER_CERTIFICATE_LIFE: Duration = Duration::from_hours(30 * 24);
/// Annotation: when the certificate of an adapter is renewed.
const RENEW_AFTER: &str = "castgate.dev/renew-after";
/// Annotation: a hash of the authority that signed it.
const SIGNER: &str = "castgate.dev/signer";
/// Login of the replicas of a database among themselves.
const PEERS_LOGIN: &str = "castgate-peers";
/// Octets of the secret from which keys of agents follow.
const AGENTS_KEY_OCTETS: usize = 32;

/// Reads the authority from its Secret; `None` when there is no Secret yet.
///
/// # Errors
/// When the Secret is damaged: it is never replaced silently, because every agent trusts it.
pub fn authority_of(secret: Option<&Value>) -> Result<Option<Authority>, PkiError> {
    let Some(secret) = secret else { return Ok(None) };
    let data = secret::decode(secret).into_iter().map(|(key, octets)| (key, ByteString(octets))).collect();
    pki::from_secret_data(&data).map(Some)
}

/// The authority as it should be now, and whether that has to be written first.
///
/// # Errors
/// When no key can be made.
pub fn turned(
    authority: Option<&Authority>,
    lifetimes: &Lifetimes,
    now: Timestamp,
) -> Result<Option<Authority>, PkiError> {
    match authority {
        Some(authority) => authority.turn(now, lifetimes),
        None => Authority::create(now, lifetimes).map(Some),
    }
}

/// The Secret of an authority.
#[must_use]
pub fn authority_secret(authority: &Authority, namespace: &str) -> Value {
    let data: BTreeMap<String, Vec<u8>> =
        pki::to_secret_data(authority).into_iter().map(|(key, octets)| (key, octets.0)).collect();
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": { "name": AUTHORITY, "namespace": namespace, "labels": labels() },
        "data": secret::encode(&data),
    })
}

/// What the agents of a namespace trust.
#[must_use]
pub fn bundle(authority: &Authority, namespace: &str, owners: &[Value]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": AUTHORITY, "namespace": namespace, "labels": labels(), "ownerReferences": owners },
        "data": { "ca.crt": authority.bundle() },
    })
}

/// What the adapter of a namespace proves itself with: as it is, while it is good; else with a new certificate, and the same
/// key for agents.
///
/// # Errors
/// When no key can be made.
pub fn adapter_secret(
    authority: &Authority,
    namespace: &str,
    host: &str,
    owners: &[Value],
    live: Option<&Value>,
    now: Timestamp,
) -> Result<Value, PkiError> {
    let signer = signer(authority);
    let annotations = live.map(|live| &live["metadata"]["annotations"]);
    let renew_after = annotations.and_then(|all| all[RENEW_AFTER].as_str()?.parse::<Timestamp>().ok());
    let good = annotations.is_some_and(|all| all[SIGNER] == *signer) && renew_after.is_some_and(|at| now < at);
    let before = live.map(secret::decode).unwrap_or_default();
    let agents_key = match before.get("agents.key").filter(|key| key.len() >= AGENTS_KEY_OCTETS) {
        Some(key) => key.clone(),
        None => random_key()?,
    };
    let (certificate, key, renew_after) = match (before.get("tls.crt"), before.get("tls.key"), renew_after) {
        (Some(certificate), Some(key), Some(renew_after)) if good => (certificate.clone(), key.clone(), renew_after),
        _ => {
            let issued = authority.issue(&[host.to_owned()], &[], ADAPTER_CERTIFICATE_LIFE, now)?;
            let renew_after = now + ADAPTER_CERTIFICATE_LIFE / 2;
            (issued.certificate.into_bytes(), issued.key.into_bytes(), renew_after)
        }
    };
    let data = BTreeMap::from([
        ("agents.key".to_owned(), agents_key),
        ("tls.crt".to_owned(), certificate),
        ("tls.key".to_owned(), key),
    ]);
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {
            "name": ADAPTER_SECRET, "namespace": namespace, "labels": labels(), "ownerReferences": owners,
            "annotations": { RENEW_AFTER: renew_after.to_string(), SIGNER: signer },
        },
        "data": secret::encode(&data),
    }))
}

/// What the replicas of a database show to each other: as it is, once it is there.
///
/// # Errors
/// When the system gives no random numbers.
pub fn peers_secret(database: &ObjectName, owners: &[Value], live: Option<&Value>) -> Result<Value, PkiError> {
    let before = live.map(secret::decode).unwrap_or_default();
    let kept = |key: &str| before.get(key).filter(|value| !value.is_empty()).cloned();
    let password = match kept("password") {
        Some(password) => password,
        None => random_key()?.iter().fold(String::new(), |text, octet| format!("{text}{octet:02x}")).into_bytes(),
    };
    let login = kept("login").unwrap_or_else(|| PEERS_LOGIN.as_bytes().to_vec());
    let data = BTreeMap::from([("login".to_owned(), login), ("password".to_owned(), password)]);
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {
            "name": names::peers_secret(database), "namespace": database.namespace, "labels": labels(),
            "ownerReferences": owners,
        },
        "data": secret::encode(&data),
    }))
}

fn random_key() -> Result<Vec<u8>, PkiError> {
    let mut key = vec![0; AGENTS_KEY_OCTETS];
    getrandom::fill(&mut key).map_err(|_| PkiError::Make(rcgen::Error::RingUnspecified))?;
    Ok(key)
}

/// Which authority signs: a hash of its certificate.
fn signer(authority: &Authority) -> String {
    use siphasher::sip128::{Hasher128 as _, SipHasher13};
    use std::hash::Hasher as _;
    let mut hasher = SipHasher13::new();
    hasher.write(authority.current.certificate.as_bytes());
    format!("{:032x}", hasher.finish128().as_u128())
}

fn labels() -> Value {
    json!({ "app.kubernetes.io/name": "castgate", MANAGED_BY: OPERATOR })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn the_authority_that_is_written_is_the_one_that_is_read() {
        let authority = turned(None, &Lifetimes::default(), now()).unwrap().unwrap();
        let secret = authority_secret(&authority, "castgate-system");
        assert_eq!(authority_of(Some(&secret)).unwrap(), Some(authority));
        assert_eq!(authority_of(None).unwrap(), None);
        let mut damaged = secret;
        damaged["data"]["times.json"] = json!("AAAA");
        let field = damaged["data"].as_object().unwrap().keys().find(|key| key.contains("time")).cloned();
        assert!(field.is_some());
        damaged["data"] = json!({});
        assert!(authority_of(Some(&damaged)).is_err());
    }

    #[test]
    fn replicas_of_a_database_keep_the_login_that_was_made_for_them() {
        let database = |name: &str| ObjectName { namespace: "castgate".to_owned(), name: name.to_owned() };
        let first = peers_secret(&database("root"), &[], None).unwrap();
        assert_eq!(first["metadata"]["name"], "tdb-root-peers");
        let values = secret::decode(&first);
        assert_eq!((values["login"].as_slice(), values["password"].len()), (&b"castgate-peers"[..], 64));
        assert_eq!(peers_secret(&database("root"), &[], Some(&first)).unwrap(), first);
        assert_ne!(peers_secret(&database("root"), &[], None).unwrap()["data"]["password"], first["data"]["password"]);
        let mut damaged = first.clone();
        damaged["data"]["password"] = json!("");
        let mended = peers_secret(&database("root"), &[], Some(&damaged)).unwrap();
        assert_ne!(mended["data"]["password"], json!(""), "nobody gets in without a password");
    }

    #[test]
    fn the_secret_of_an_adapter_stays_until_half_its_life_or_another_signer() {
        let authority = turned(None, &Lifetimes::default(), now()).unwrap().unwrap();
        let make = |authority: &Authority, live: Option<&Value>, at: Timestamp| {
            adapter_secret(authority, "castgate", "castgate-adapter.castgate.svc", &[], live, at).unwrap()
        };
        let first = make(&authority, None, now());
        assert_eq!(make(&authority, Some(&first), now() + Duration::from_hours(24)), first);
        let renewed = make(&authority, Some(&first), now() + Duration::from_hours(16 * 24));
        assert_ne!(renewed["data"]["tls.crt"], first["data"]["tls.crt"]);
        assert_eq!(renewed["data"]["agents.key"], first["data"]["agents.key"]);
        let other = turned(None, &Lifetimes::default(), now()).unwrap().unwrap();
        let resigned = make(&other, Some(&first), now());
        assert_ne!(resigned["data"]["tls.crt"], first["data"]["tls.crt"]);
        assert_eq!(resigned["data"]["agents.key"], first["data"]["agents.key"]);
    }
}
