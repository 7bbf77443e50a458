//! Where a database keeps its entries, by itself.

use castgate_crds::tunnel_database::{Storage, Store as Spec, StoreType};

use super::fields;
use crate::objects::{Etcd, Store};
use crate::problem::Reporter;

/// Octets of a prefix: it stands before the name of every entry.
const PREFIX_BYTES_MAX: usize = 256;

pub(super) fn store(spec: &Spec, storage: &Storage, reporter: &mut Reporter) -> Store {
    check_storage(storage, reporter);
    let Spec { store_type, endpoints, prefix, credentials_secret_ref, tls_secret_ref } = spec;
    let rows = [
        ("endpoints", !endpoints.is_empty()),
        ("prefix", prefix.is_some()),
        ("credentialsSecretRef", credentials_secret_ref.is_some()),
        ("tlsSecretRef", tls_secret_ref.is_some()),
    ];
    if *store_type == StoreType::Embedded {
        for (field, _) in rows.into_iter().filter(|(_, is_there)| *is_there) {
            reporter.report(format!("spec.store.{field}"), "is for type Etcd, and type is Embedded");
        }
        return Store::Embedded(storage.clone());
    }
    check_endpoints(endpoints, tls_secret_ref.is_some(), reporter);
    if let Some(prefix) = prefix.as_ref().filter(|prefix| !is_prefix(prefix)) {
        let what =
            format_args!("\"{prefix}\" is not 2 to {PREFIX_BYTES_MAX} ASCII signs without blanks, / at both ends");
        reporter.report("spec.store.prefix", what);
    }
    for (field, secret) in [("credentialsSecretRef", credentials_secret_ref), ("tlsSecretRef", tls_secret_ref)] {
        if let Some(secret) = secret {
            fields::label(&secret.name, &format!("spec.store.{field}.name"), reporter);
        }
    }
    Store::Etcd(Etcd {
        endpoints: endpoints.clone(),
        prefix: prefix.clone(),
        credentials: credentials_secret_ref.as_ref().map(|secret| secret.name.clone()),
        tls: tls_secret_ref.as_ref().map(|secret| secret.name.clone()),
    })
}

/// All members are reached in one way, and over https something vouches for them.
fn check_endpoints(endpoints: &[String], has_tls: bool, reporter: &mut Reporter) {
    const FIELD: &str = "spec.store.endpoints";
    if endpoints.is_empty() {
        if !reporter.was_pruned(FIELD) {
            reporter.report(FIELD, "is missing: type Etcd needs the members of an etcd");
        }
        return;
    }
    let is_secure = |endpoint: &String| endpoint.starts_with("https://");
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = format!("{FIELD}[{index}]");
        if !is_endpoint(endpoint) {
            reporter.report(path, format_args!("\"{endpoint}\" is not http://HOST:PORT or https://HOST:PORT"));
        } else if endpoints[..index].contains(endpoint) {
            reporter.report(path, format_args!("{endpoint} is listed twice"));
        }
    }
    let secure = endpoints.iter().filter(|endpoint| is_secure(endpoint)).count();
    match (secure, has_tls) {
        (0, true) => {
            reporter.report("spec.store.tlsSecretRef", "is there beside http:// endpoints, which prove nothing");
        }
        (secure, false) if secure == endpoints.len() => {
            reporter.report("spec.store.tlsSecretRef", "is missing: nothing vouches for https:// endpoints");
        }
        (secure, _) if secure > 0 && secure < endpoints.len() => {
            reporter.report(FIELD, "some begin with http:// and some with https://");
        }
        _ => {}
    }
}

/// As an agent takes it: scheme, host and port, and nothing after them but a slash.
fn is_endpoint(text: &str) -> bool {
    let place = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    place.map(|place| place.strip_suffix('/').unwrap_or(place)).is_some_and(|place| {
        !place.is_empty() && place.chars().all(|sign| sign.is_ascii_graphic() && !matches!(sign, '/' | '@' | '?' | '#'))
    })
}

fn is_prefix(text: &str) -> bool {
    (2..=PREFIX_BYTES_MAX).contains(&text.len())
        && text.starts_with('/')
        && text.ends_with('/')
        && text.bytes().all(|octet| octet.is_ascii_graphic())
}

fn check_storage(storage: &Storage, reporter: &mut Reporter) {
    let size = &storage.size;
    if !is_quantity(size) {
        reporter.report("spec.storage.size", format_args!("\"{size}\" is not a size such as 1Gi"));
    }
    if let Some(class) = storage.storage_class_name.as_ref().filter(|class| !fields::is_object_name(class)) {
        reporter.report("spec.storage.storageClassName", format_args!("\"{class}\" cannot be a storage class"));
    }
}

/// A whole number above zero and perhaps a unit: the part of Kubernetes' quantities that a volume needs.
fn is_quantity(text: &str) -> bool {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    (1..=9).contains(&number.len())
        && !number.starts_with('0')
        && matches!(unit, "" | "Ki" | "Mi" | "Gi" | "Ti" | "k" | "M" | "G" | "T")
}
