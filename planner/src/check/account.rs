//! An account by itself.

use castgate_control::{Allow, EntryType};
use castgate_crds::TunnelAccountSpec;
use castgate_crds::tunnel_account as spec;

use super::fields;
use crate::objects::Account;
use crate::problem::Reporter;

pub(crate) fn account(spec: &TunnelAccountSpec, reporter: &mut Reporter) -> Account {
    let TunnelAccountSpec { database_ref, login, password_secret_ref, allow } = spec;
    fields::label(&database_ref.name, "spec.databaseRef.name", reporter);
    fields::label(&password_secret_ref.name, "spec.passwordSecretRef.name", reporter);
    let spec::PasswordRef { name: _, key, previous_key } = password_secret_ref;
    for (field, key) in [("key", key), ("previousKey", previous_key)] {
        if key.is_empty() || !key.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._".contains(&octet)) {
            let field = format!("spec.passwordSecretRef.{field}");
            reporter.report(field, format_args!("\"{key}\" cannot be a key of a Secret"));
        }
    }
    if key == previous_key {
        let what = format_args!("\"{key}\" is the key of the password itself: the one before stands under another");
        reporter.report("spec.passwordSecretRef.previousKey", what);
    }
    if let Err(reason) = check_login(login) {
        reporter.report("spec.login", reason);
    }
    let spec::Allow { types, networks, asns, countries, sources, strict_source } = allow;
    let mut types: Vec<_> = types.iter().map(|kind| entry_type(*kind)).collect();
    types.sort();
    Account {
        database: database_ref.name.clone(),
        login: login.clone(),
        secret: password_secret_ref.name.clone(),
        key: key.clone(),
        previous_key: previous_key.clone(),
        allow: Allow {
            types,
            networks: fields::prefixes(networks, "spec.allow.networks", reporter),
            asns: fields::asns(asns, "spec.allow.asns", reporter),
            countries: fields::countries(countries, "spec.allow.countries", reporter),
            sources: fields::prefixes(sources, "spec.allow.sources", reporter),
            strict_source: *strict_source,
        },
    }
}

fn entry_type(kind: spec::EntryType) -> EntryType {
    match kind {
        spec::EntryType::TunnelServer => EntryType::TunnelServer,
        spec::EntryType::TunnelDatabase => EntryType::TunnelDatabase,
    }
}

/// RFC 7617 §2: a colon ends the login. Blanks and signs beyond ASCII are a matter of luck in HTTP.
pub(super) fn check_login(login: &str) -> Result<(), String> {
    let possible =
        (1..=64).contains(&login.len()) && login.bytes().all(|octet| octet.is_ascii_graphic() && octet != b':');
    if possible {
        Ok(())
    } else {
        Err(format!("\"{login}\" cannot be a login: 1 to 64 ASCII characters, no blank, no colon"))
    }
}
