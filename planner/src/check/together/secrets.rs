//! The Secrets that a field names: they exist, and hold what is needed.

use super::Known;
use crate::check::account::check_login;
use crate::document::Kind;
use crate::objects::{CA, Etcd, ObjectName, TLS_CERTIFICATE, TLS_KEY};
use crate::problem::Reporter;

/// What begins every certificate in PEM.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
/// Keys of the Secret with the login that a parent gave us.
const LOGIN: &str = "login";
const PASSWORD: &str = "password";

/// The Secret that a field names holds a login and a password, which are returned when there is nothing to report.
pub(super) fn check_credentials<'a>(
    known: &'a Known,
    name: &ObjectName,
    secret: &str,
    field: &str,
    reporter: &mut Reporter,
) -> Option<(&'a str, &'a str)> {
    if !known.exists(Kind::Secret, name, secret, field, reporter) {
        return None;
    }
    let login = known.secret_text(name, secret, LOGIN, field, reporter);
    let password = known.secret_text(name, secret, PASSWORD, field, reporter);
    if let Some(Err(reason)) = login.map(check_login) {
        reporter.report(field, format_args!("Secret {}: {reason}", name.sibling(secret)));
        return None;
    }
    login.zip(password)
}

/// The Secrets for an etcd exist, and hold what is needed: a certificate of ours only as a whole.
pub(super) fn check_etcd(known: &Known, name: &ObjectName, etcd: &Etcd, reporter: &mut Reporter) {
    if let Some(secret) = &etcd.credentials {
        let field = "spec.store.credentialsSecretRef.name";
        if known.exists(Kind::Secret, name, secret, field, reporter) {
            known.secret_text(name, secret, LOGIN, field, reporter);
            known.secret_text(name, secret, PASSWORD, field, reporter);
        }
    }
    let Some(secret) = &etcd.tls else { return };
    let field = "spec.store.tlsSecretRef.name";
    if !known.exists(Kind::Secret, name, secret, field, reporter) {
        return;
    }
    check_pem(known, name, (secret, CA), (CERTIFICATE, "certificate"), field, reporter);
    let object = known.objects.secrets.get(&name.sibling(secret)).map(|entry| &entry.object);
    let has = |key: &str| object.is_some_and(|secret| secret.text(key).is_some());
    if has(TLS_CERTIFICATE) || has(TLS_KEY) {
        check_pair(known, name, secret, field, reporter);
    }
}

/// The Secret that proves a database holds a certificate and a private key.
pub(super) fn check_identity(known: &Known, name: &ObjectName, secret: &str, reporter: &mut Reporter) {
    let field = "spec.http.tls.secretRef.name";
    if !known.exists(Kind::Secret, name, secret, field, reporter) {
        return;
    }
    check_pair(known, name, secret, field, reporter);
    // Whoever names this database believes what is there.
    let own = known.objects.secrets.get(&name.sibling(secret)).map(|entry| &entry.object);
    if own.is_some_and(|secret| secret.text(CA).is_some_and(|text| !text.is_empty())) {
        check_pem(known, name, (secret, CA), (CERTIFICATE, "certificate"), field, reporter);
    }
}

/// A Secret holds a certificate and its private key.
fn check_pair(known: &Known, name: &ObjectName, secret: &str, field: &str, reporter: &mut Reporter) {
    check_pem(known, name, (secret, TLS_CERTIFICATE), (CERTIFICATE, "certificate"), field, reporter);
    check_pem(known, name, (secret, TLS_KEY), ("PRIVATE KEY-----", "private key"), field, reporter);
}

/// The Secret that a field names, where it does, holds certificates.
pub(super) fn check_authority(
    known: &Known,
    name: &ObjectName,
    secret: Option<&str>,
    path: &str,
    reporter: &mut Reporter,
) {
    let Some(secret) = secret else { return };
    let field = format!("{path}.caSecretRef.name");
    if known.exists(Kind::Secret, name, secret, &field, reporter) {
        check_pem(known, name, (secret, CA), (CERTIFICATE, "certificate"), &field, reporter);
    }
}

/// What stands under a key of a Secret is PEM of this kind. More can be said only by who uses it.
fn check_pem(
    known: &Known,
    name: &ObjectName,
    (secret, key): (&str, &str),
    (begin, what): (&str, &str),
    field: &str,
    reporter: &mut Reporter,
) {
    let text = known.secret_text(name, secret, key, field, reporter);
    if text.is_some_and(|text| !text.contains(begin)) {
        let secret = name.sibling(secret);
        reporter.report(field, format_args!("key \"{key}\" of Secret {secret} holds no {what} in PEM"));
    }
}
