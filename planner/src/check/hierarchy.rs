//! Registrations, and the database that takes them, by themselves.

use std::net::{Ipv4Addr, SocketAddrV4};

use castgate_crds::{TunnelDatabaseSpec, hierarchy as spec};

use super::fields;
use crate::objects::{Database, Hierarchy, Parent};
use crate::problem::Reporter;
use crate::url::DatabaseUrl;

pub(crate) fn database(spec: &TunnelDatabaseSpec, reporter: &mut Reporter) -> Database {
    let TunnelDatabaseSpec { http, hierarchy: registers, update_interval } = spec;
    let address = http.address.as_deref().and_then(|text| fields::host(text, "spec.http.address", reporter));
    Database {
        listen: SocketAddrV4::new(address.unwrap_or(Ipv4Addr::UNSPECIFIED), http.port),
        hierarchy: hierarchy(registers, reporter),
        update_interval: fields::interval(update_interval, "spec.updateInterval", reporter),
    }
}

pub(super) fn hierarchy(spec: &spec::Hierarchy, reporter: &mut Reporter) -> Hierarchy {
    let spec::Hierarchy { parents: rows, networks, country, update_interval } = spec;
    let mut parents: Vec<Parent> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let path = format!("spec.hierarchy.parents[{index}]");
        fields::label(&row.credentials_secret_ref.name, &format!("{path}.credentialsSecretRef.name"), reporter);
        match row.url.parse::<DatabaseUrl>() {
            Ok(url) if parents.iter().any(|parent| parent.url == url) => {
                reporter.report(format!("{path}.url"), format_args!("{url} is listed twice"));
            }
            Ok(url) => parents.push(Parent { url, secret: row.credentials_secret_ref.name.clone() }),
            Err(error) => reporter.report(format!("{path}.url"), error),
        }
    }
    let wrong = ["spec.hierarchy.country", "spec.hierarchy.networks"].iter().any(|field| reporter.was_pruned(field));
    if !rows.is_empty() && networks.is_empty() && country.is_none() && !wrong {
        reporter
            .report("spec.hierarchy", "has parents but neither networks nor a country: no client would be sent here");
    }
    Hierarchy {
        parents,
        networks: fields::prefixes(networks, "spec.hierarchy.networks", reporter),
        country: country.as_deref().and_then(|text| fields::country(text, "spec.hierarchy.country", reporter)),
        update_interval: fields::interval(update_interval, "spec.hierarchy.updateInterval", reporter),
    }
}
