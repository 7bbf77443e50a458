//! Registrations, and the database that takes them, by themselves.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use castgate_control::{Country, DatabaseRole, Regions, Scheme};
use castgate_crds::tunnel_database::{Peers as SpecPeers, Service, ServiceType, StoreType, Tls};
use castgate_crds::{TunnelDatabaseSpec, hierarchy as spec};

use super::policy::read_routes;
use super::{fields, store};
use crate::objects::{Database, FromTheRoots, Hierarchy, Parent, ParentPlace, Peers};
use crate::problem::Reporter;
use crate::url::{DatabaseUrl, DatabaseUrlError};

pub(crate) fn database(spec: &TunnelDatabaseSpec, reporter: &mut Reporter) -> Database {
    let TunnelDatabaseSpec {
        replicas,
        peers,
        http,
        hierarchy: registers,
        update_interval,
        route_table,
        strict_source,
        regions,
        service,
        store: kept,
        storage,
        node_selector,
        tolerations,
    } = spec;
    fields::node_selector(node_selector, "spec.nodeSelector", reporter);
    fields::tolerations(tolerations, "spec.tolerations", reporter);
    check_service(service, reporter);
    if peers.is_some() && kept.store_type == StoreType::Etcd {
        let what = "are there beside store type Etcd: databases with one etcd share one view already";
        reporter.report("spec.peers", what);
    }
    let address = http.address.as_deref().and_then(|text| fields::host(text, "spec.http.address", reporter));
    Database {
        listen: SocketAddrV4::new(address.unwrap_or(Ipv4Addr::UNSPECIFIED), http.port),
        tls: http.tls.as_ref().map(|Tls { secret_ref }| {
            fields::label(&secret_ref.name, "spec.http.tls.secretRef.name", reporter);
            secret_ref.name.clone()
        }),
        hierarchy: hierarchy(registers, reporter),
        update_interval: fields::interval(update_interval, "spec.updateInterval", reporter),
        replicas: *replicas,
        peers: peers.as_ref().map(|peers| with_peers(peers, *replicas, reporter)),
        routes: route_table.as_ref().and_then(|table| read_routes(table, "spec.routeTable", reporter)),
        strict_source: *strict_source,
        regions: read_regions(regions, reporter),
        service: service.clone(),
        store: store::store(kept, storage, reporter),
        node_selector: node_selector.clone(),
        tolerations: tolerations.clone(),
    }
}

/// Regions with countries that there are, each of them once.
fn read_regions(spec: &BTreeMap<String, Vec<String>>, reporter: &mut Reporter) -> BTreeMap<String, Vec<Country>> {
    let read = |(name, codes): (&String, &Vec<String>)| {
        (name.clone(), fields::countries(codes, &format!("spec.regions.{name}"), reporter))
    };
    let regions: BTreeMap<String, Vec<Country>> = spec.iter().map(read).collect();
    if let Err((name, error)) = Regions::new(&regions) {
        reporter.report(format!("spec.regions.{name}"), error);
    }
    regions
}

fn with_peers(spec: &SpecPeers, replicas: u32, reporter: &mut Reporter) -> Peers {
    let SpecPeers { addresses, credentials_secret_ref, ca_secret_ref, serve } = spec;
    fields::label(&credentials_secret_ref.name, "spec.peers.credentialsSecretRef.name", reporter);
    check_places(addresses, "spec.peers.addresses", reporter);
    if replicas > 1 && !serve {
        let what = "is false beside more than one replica: replicas give their entries to each other";
        reporter.report("spec.peers.serve", what);
    }
    Peers {
        addresses: addresses.clone(),
        secret: credentials_secret_ref.name.clone(),
        ca: authority(ca_secret_ref.as_ref(), "spec.peers", reporter),
        serve: *serve,
    }
}

/// The Secret with certificates that vouch for others.
pub(super) fn authority(secret: Option<&spec::SecretRef>, path: &str, reporter: &mut Reporter) -> Option<String> {
    let secret = secret?;
    fields::label(&secret.name, &format!("{path}.caSecretRef.name"), reporter);
    Some(secret.name.clone())
}

fn check_service(service: &Service, reporter: &mut Reporter) {
    if service.node_port.is_some() && service.service_type == ServiceType::ClusterIp {
        reporter.report("spec.service.nodePort", "needs type NodePort or LoadBalancer");
    }
}

pub(super) fn hierarchy(spec: &spec::Hierarchy, reporter: &mut Reporter) -> Hierarchy {
    let spec::Hierarchy { parents: rows, discovery, networks, asns, route_table, country, update_interval } = spec;
    let mut parents: Vec<Parent> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let path = format!("spec.hierarchy.parents[{index}]");
        fields::label(&row.credentials_secret_ref.name, &format!("{path}.credentialsSecretRef.name"), reporter);
        let ca = authority(row.ca_secret_ref.as_ref(), &path, reporter);
        let Some(place) = place(row, &path, reporter) else { continue };
        if let (Some(_), ParentPlace::Url(url)) = (&ca, &place)
            && url.scheme() == Scheme::Http
        {
            reporter.report(format!("{path}.caSecretRef"), format_args!("is for https, and the url is {url}"));
        }
        if parents.iter().any(|parent| parent.place == place) {
            match &place {
                ParentPlace::Url(url) => {
                    reporter.report(format!("{path}.url"), format_args!("{url} is listed twice"));
                }
                ParentPlace::Database(name) => {
                    reporter.report(format!("{path}.databaseRef.name"), format_args!("\"{name}\" is listed twice"));
                }
            }
            continue;
        }
        parents.push(Parent { place, secret: row.credentials_secret_ref.name.clone(), ca });
    }
    let wrong = ["spec.hierarchy.country", "spec.hierarchy.networks", "spec.hierarchy.asns"]
        .iter()
        .any(|field| reporter.was_pruned(field));
    let for_nobody = networks.is_empty() && asns.is_empty() && country.is_none() && !wrong;
    if !rows.is_empty() && for_nobody {
        reporter
            .report("spec.hierarchy", "has parents but neither networks nor a country: no client would be sent here");
    }
    if discovery.is_some() && for_nobody {
        reporter
            .report("spec.hierarchy", "has discovery but neither networks nor a country: they are what is looked for");
    }
    if discovery.is_some() && !rows.is_empty() {
        reporter.report("spec.hierarchy.discovery", "is there beside parents: they are either named or found");
    }
    Hierarchy {
        parents,
        discovery: discovery.as_ref().map(|discovery| from_the_roots(discovery, reporter)),
        networks: fields::prefixes(networks, "spec.hierarchy.networks", reporter),
        asns: fields::asns(asns, "spec.hierarchy.asns", reporter),
        routes: route_table.as_ref().and_then(|table| read_routes(table, "spec.hierarchy.routeTable", reporter)),
        country: country.as_deref().and_then(|text| fields::country(text, "spec.hierarchy.country", reporter)),
        update_interval: fields::interval(update_interval, "spec.hierarchy.updateInterval", reporter),
    }
}

fn from_the_roots(spec: &spec::Discovery, reporter: &mut Reporter) -> FromTheRoots {
    let spec::Discovery { roots, credentials_secret_ref, ca_secret_ref, role } = spec;
    let path = "spec.hierarchy.discovery";
    fields::label(&credentials_secret_ref.name, &format!("{path}.credentialsSecretRef.name"), reporter);
    if roots.is_empty() {
        reporter.report(format!("{path}.roots"), "is empty: every way begins at a root");
    }
    check_places(roots, &format!("{path}.roots"), reporter);
    FromTheRoots {
        roots: roots.clone(),
        secret: credentials_secret_ref.name.clone(),
        ca: authority(ca_secret_ref.as_ref(), path, reporter),
        role: match role {
            spec::DatabaseRole::Peer => DatabaseRole::Peer,
            spec::DatabaseRole::Customer => DatabaseRole::Customer,
        },
    }
}

/// Databases named by URL or by place, each once.
fn check_places(places: &[String], path: &str, reporter: &mut Reporter) {
    for (index, place) in places.iter().enumerate() {
        let path = format!("{path}[{index}]");
        // Without a scheme it is the same place; only the agent tells a service from a host.
        let url = if place.contains("://") { place.clone() } else { format!("http://{place}") };
        match url.parse::<DatabaseUrl>() {
            Ok(_) if places[..index].contains(place) => reporter.report(path, format_args!("{place} is listed twice")),
            Ok(_) => {}
            Err(DatabaseUrlError::Form(_)) => {
                let what = "is neither HOST, HOST:PORT nor a URL such as http://tds.example.net:5632";
                reporter.report(path, format_args!("\"{place}\" {what}"));
            }
            Err(error @ (DatabaseUrlError::Scheme(_) | DatabaseUrlError::Login)) => reporter.report(path, error),
        }
    }
}

/// Which database a parent is: a URL, or one of ours.
fn place(row: &spec::Parent, path: &str, reporter: &mut Reporter) -> Option<ParentPlace> {
    match (&row.url, &row.database_ref) {
        (Some(url), None) => match url.parse::<DatabaseUrl>() {
            Ok(url) => return Some(ParentPlace::Url(url)),
            Err(error) => reporter.report(format!("{path}.url"), error),
        },
        (None, Some(database)) => {
            fields::label(&database.name, &format!("{path}.databaseRef.name"), reporter);
            return Some(ParentPlace::Database(database.name.clone()));
        }
        (None, None) => reporter.report(format!("{path}.url"), "is missing: name a url, or a databaseRef"),
        (Some(_), Some(_)) => {
            reporter.report(format!("{path}.databaseRef"), "is there beside url: name one of the two");
        }
    }
    None
}
