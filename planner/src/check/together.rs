//! The objects together: every name leads somewhere, and nobody is in another's way.

mod listeners;
mod secrets;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::num::NonZeroU16;

use castgate_control::{AMT_PORT, Discovery, EntryType, Place, RouteTable, StaticDiscovery, UpstreamProtocol};
use serde_json::Value;

use super::bundle::{overlap, place};
use super::systems::sources;
use crate::document::Kind;
use crate::load::{Documents, Key};
use crate::nearest::suggestion;
use crate::objects::{
    Account, Bundle, Database, Entry, Feed, FromTheRoots, Hierarchy, ObjectName, Objects, ParentPlace, Secret, Server,
    Target, Upstream,
};
use crate::plan::policies;
use crate::problem::{Problem, Reporter};

pub(crate) use listeners::listeners;
use secrets::{check_authority, check_credentials, check_etcd, check_identity};
use tables::{check_borrowed_table, check_route_files, check_route_table};

/// Port of a server of UMTP that names none.
const UMTP_PORT: u16 = 10_100;

/// Checks the objects of some manifests, all of them at once.
pub(crate) fn together(documents: &Documents, objects: &Objects, problems: &mut Vec<Problem>) {
    let none = BTreeSet::new();
    references(&Known { documents, objects, bad: &none }, problems);
    // An address that is named is one place on whatever machine it is; those that are not named are a matter of planning.
    listeners(objects, None, problems, |listener| !listener.address.ip().is_unspecified());
}

/// Checks the objects of a cluster that are left when the bad ones are taken out.
pub(crate) fn left_together(
    documents: &Documents,
    objects: &Objects,
    bad: &BTreeSet<Key>,
    problems: &mut Vec<Problem>,
) {
    references(&Known { documents, objects, bad }, problems);
    check_route_files(objects, problems);
    // A database is in a pod of its own there, with an address of its own.
    listeners(objects, None, problems, |listener| {
        listener.kind != Kind::TunnelDatabase && !listener.address.ip().is_unspecified()
    });
}

/// Every name leads somewhere.
fn references(known: &Known, problems: &mut Vec<Problem>) {
    let objects = known.objects;
    for (kind, name, entry) in objects.carriers() {
        let title = format!("{kind} {name}");
        let mut reporter = Reporter::new(&entry.file, &title, problems);
        let reporter = &mut reporter.pruned(&entry.pruned);
        let server = &entry.object;
        check_bundles(known, name, server, reporter);
        let umtp = server.address.map(|address| ("umtp.address".to_owned(), IpAddr::V4(address)));
        let amt = server.amt.iter().flat_map(|amt| amt.addresses.iter().enumerate());
        let amt = amt.map(|(index, address)| (format!("amt.addresses[{index}]"), *address));
        let own: Vec<_> = umtp.into_iter().chain(amt).collect();
        check_parents(known, name, EntryType::TunnelServer, &own, &server.hierarchy, reporter);
        if let Feed::Upstream(upstream) = &server.feed {
            check_upstream(known, name, server, upstream, reporter);
        }
    }
    for (name, entry) in &objects.databases {
        let title = format!("{} {name}", Kind::TunnelDatabase);
        let mut reporter = Reporter::new(&entry.file, &title, problems);
        let reporter = &mut reporter.pruned(&entry.pruned);
        let Database { listen, hierarchy, peers, store, tls, .. } = &entry.object;
        if let Some(secret) = tls {
            check_identity(known, name, secret, reporter);
        }
        if let Some(peers) = peers {
            let field = "spec.peers.credentialsSecretRef.name";
            check_credentials(known, name, &peers.secret, field, reporter);
            check_authority(known, name, peers.ca.as_deref(), "spec.peers", reporter);
        }
        if let Some(source) = &entry.object.routes {
            check_route_table(known, name, "spec.routeTable", source, reporter);
        }
        if let Some(etcd) = store.etcd() {
            check_etcd(known, name, etcd, reporter);
        }
        let own = Some(*listen.ip()).filter(|address| !address.is_unspecified());
        let own: Vec<_> = own.map(|address| ("http.address".to_owned(), IpAddr::V4(address))).into_iter().collect();
        check_parents(known, name, EntryType::TunnelDatabase, &own, hierarchy, reporter);
        check_cycle(known, name, &entry.object, reporter);
    }
    for (kind, name, file, source) in sources(objects) {
        let title = format!("{kind} {name}");
        let mut reporter = Reporter::new(file, &title, problems);
        check_route_table(known, name, "spec.hierarchy.routeTable", source, &mut reporter);
    }
    check_accounts(known, problems);
    check_policies(known, problems);
}

/// All that was read, good or not: what is there but wrong is not missing.
struct Known<'a> {
    documents: &'a Documents,
    objects: &'a Objects,
    /// Objects that were taken out: whoever needs one is no better.
    bad: &'a BTreeSet<Key>,
}

impl Known<'_> {
    /// Whether the object that `from` names is there and good; reports it when not.
    fn exists(&self, kind: Kind, from: &ObjectName, name: &str, field: &str, reporter: &mut Reporter) -> bool {
        let key = (kind, from.sibling(name));
        if self.bad.contains(&key) {
            reporter.report(field, format_args!("{kind} {} has a problem itself", key.1));
            return false;
        }
        if self.documents.contains_key(&key) {
            return true;
        }
        let siblings =
            self.documents.keys().filter(|(other, sibling)| *other == kind && sibling.namespace == from.namespace);
        let suggestion = suggestion(name, siblings.map(|(_, sibling)| sibling.name.as_str()));
        reporter.report(field, format_args!("there is no {kind} {}{suggestion}", from.sibling(name)));
        false
    }

    /// The text under a key of a Secret; reports what is missing.
    fn secret_text(
        &self,
        from: &ObjectName,
        name: &str,
        key: &str,
        field: &str,
        reporter: &mut Reporter,
    ) -> Option<&str> {
        let secret = self.objects.secrets.get(&from.sibling(name)).map(|entry: &Entry<Secret>| &entry.object)?;
        match secret.text(key) {
            Some("") => reporter.report(field, format_args!("key \"{key}\" of Secret {} is empty", from.sibling(name))),
            Some(text) => return Some(text),
            None => reporter.report(field, format_args!("Secret {} has no key \"{key}\"", from.sibling(name))),
        }
        None
    }

    /// The server or relay of these manifests that has this address by name.
    fn carrier_at(&self, place: &Place, protocol: UpstreamProtocol) -> Option<&Server> {
        let address = place.address()?;
        let port = place.port().map(NonZeroU16::get);
        let mut carriers = self.objects.carriers().map(|(_, _, entry)| &entry.object);
        carriers.find(|server| {
            let here = server.place(*server.listen.ip(), None);
            match protocol {
                UpstreamProtocol::Amt => here.amt.contains(&SocketAddr::new(address, port.unwrap_or(AMT_PORT.get()))),
                UpstreamProtocol::Umtp => {
                    SocketAddr::V4(here.umtp) == SocketAddr::new(address, port.unwrap_or(UMTP_PORT))
                }
            }
        })
    }

    /// The database of these manifests that answers at this place.
    fn database_at(&self, address: SocketAddrV4) -> Option<(&ObjectName, &Database)> {
        let databases = self.objects.databases.iter();
        databases.map(|(name, entry)| (name, &entry.object)).find(|(_, database)| database.listen == address)
    }

    /// The database of ours that a parent is; `None`: a stranger's, or one that is not there.
    fn parent(&self, from: &ObjectName, place: &ParentPlace) -> Option<(&ObjectName, &Database)> {
        match place {
            ParentPlace::Url(url) => self.database_at(address_of(url.host(), url.port())?),
            ParentPlace::Database(name) => {
                let (name, entry) = self.objects.databases.get_key_value(&from.sibling(name))?;
                Some((name, &entry.object))
            }
        }
    }

    fn account_of(&self, database: &ObjectName, login: &str) -> Option<(&ObjectName, &Account)> {
        let accounts = self.objects.accounts.iter().map(|(name, entry)| (name, &entry.object));
        accounts
            .filter(|(name, account)| name.sibling(&account.database) == *database)
            .find(|(_, account)| account.login == login)
    }

    /// The route table of a database, as far as the manifests hold it.
    fn table_of(&self, database: &ObjectName) -> Option<RouteTable> {
        let source = self.objects.databases.get(database)?.object.routes.as_ref()?;
        Some(RouteTable::of_rows(policies::rows(self.objects, database, source)?.ok()?))
    }

    /// The account that would grant a login if it were good.
    fn bad_account_of(&self, database: &ObjectName, login: &str) -> Option<&ObjectName> {
        let grants = |key: &&Key| {
            let spec = self.documents.get(*key).and_then(|document| document.body.get("spec"));
            let text = |pointer| spec.and_then(|spec| spec.pointer(pointer)).and_then(Value::as_str);
            text("/login") == Some(login)
                && text("/databaseRef/name").is_some_and(|named| key.1.sibling(named) == *database)
        };
        self.bad.iter().filter(|(kind, _)| *kind == Kind::TunnelAccount).find(grants).map(|(_, name)| name)
    }
}

/// The bundles of a server exist and are not in each other's way.
fn check_bundles(known: &Known, name: &ObjectName, server: &Server, reporter: &mut Reporter) {
    let mut before: Vec<(&str, &Bundle)> = Vec::new();
    for (index, bundle_name) in server.bundles.iter().enumerate() {
        let field = format!("spec.bundles[{index}].name");
        if !known.exists(Kind::ChannelBundle, name, bundle_name, &field, reporter) {
            continue;
        }
        let Some(Entry { object: bundle, .. }) = known.objects.bundles.get(&name.sibling(bundle_name)) else {
            continue;
        };
        for channel in &bundle.channels {
            for (other_name, other) in
                before.iter().flat_map(|(name, other)| other.channels.iter().map(move |row| (name, row)))
            {
                if let Some(ports) = overlap(other, channel) {
                    let place = place(channel, ports);
                    let what = format!(
                        "channel \"{}\" of \"{bundle_name}\" and channel \"{}\" of \"{other_name}\" both hold {place}",
                        channel.name, other.name
                    );
                    reporter.report(&field, what);
                }
            }
        }
        before.push((bundle_name, bundle));
    }
}

/// The Secrets for the parents exist, and a parent of these manifests would let us in.
fn check_parents(
    known: &Known,
    name: &ObjectName,
    kind: EntryType,
    own: &[(String, IpAddr)],
    hierarchy: &Hierarchy,
    reporter: &mut Reporter,
) {
    if let Some(FromTheRoots { secret, ca, .. }) = &hierarchy.discovery {
        check_authority(known, name, ca.as_deref(), "spec.hierarchy.discovery", reporter);
        check_credentials(known, name, secret, "spec.hierarchy.discovery.credentialsSecretRef.name", reporter);
    }
    for (index, parent) in hierarchy.parents.iter().enumerate() {
        let path = format!("spec.hierarchy.parents[{index}]");
        check_authority(known, name, parent.ca.as_deref(), &path, reporter);
        if let ParentPlace::Database(database) = &parent.place {
            known.exists(Kind::TunnelDatabase, name, database, &format!("{path}.databaseRef.name"), reporter);
        }
        let field = format!("{path}.credentialsSecretRef.name");
        let Some((login, password)) = check_credentials(known, name, &parent.secret, &field, reporter) else {
            continue;
        };
        let Some((database, _)) = known.parent(name, &parent.place) else { continue };
        // Reported as a cycle.
        if kind == EntryType::TunnelDatabase && database == name {
            continue;
        }
        let Some((account_name, account)) = known.account_of(database, login) else {
            let what = match known.bad_account_of(database, login) {
                Some(account) => format!("TunnelAccount {account}, whose login this is, has a problem itself"),
                None => format!("login \"{login}\" has no TunnelAccount at TunnelDatabase {database}"),
            };
            reporter.report(&field, what);
            continue;
        };
        let granted = known.objects.secrets.get(&account_name.sibling(&account.secret));
        let granted = |key: &str| granted.and_then(|entry| entry.object.text(key));
        // While a password is changed, the one before is good as well.
        if granted(&account.key).is_some_and(|current| current != password)
            && granted(&account.previous_key) != Some(password)
        {
            reporter.report(&field, format_args!("the password is not that of TunnelAccount {account_name}"));
        }
        let table = Some(&account.allow.asns).filter(|asns| !asns.is_empty()).and_then(|_| known.table_of(database));
        for (field, what) in refused(account, table.as_ref(), kind, own, hierarchy) {
            reporter
                .report(format!("spec.{field}"), format_args!("TunnelAccount {account_name} does not allow {what}"));
        }
    }
}

/// What an account does not allow of what would be registered. `own` are the addresses that are named, each with its field.
///
/// `table` is the route table of the database; a file is not read, and may allow what it likes.
fn refused(
    account: &Account,
    table: Option<&RouteTable>,
    kind: EntryType,
    own: &[(String, IpAddr)],
    hierarchy: &Hierarchy,
) -> Vec<(String, String)> {
    let allow = &account.allow;
    let mut refused = Vec::new();
    if !allow.types.contains(&kind) {
        let word = match kind {
            EntryType::TunnelServer => "TS",
            EntryType::TunnelDatabase => "TDS",
        };
        refused.push(("hierarchy.parents".to_owned(), format!("type {word}")));
    }
    for (index, network) in hierarchy.networks.iter().enumerate() {
        let is_of_system = !allow.asns.is_empty() && table.is_none_or(|table| table.gives(*network, &allow.asns));
        if !is_of_system && !allow.networks.iter().any(|allowed| allowed.contains(network)) {
            refused.push((format!("hierarchy.networks[{index}]"), format!("network {network}")));
        }
    }
    if let Some(country) = hierarchy.country.filter(|country| !allow.countries.contains(country)) {
        refused.push(("hierarchy.country".to_owned(), format!("country {country}")));
    }
    for (field, address) in own {
        if !allow.sources.is_empty() && !allow.sources.iter().any(|prefix| prefix.contains(address)) {
            refused.push((field.clone(), format!("address {address}")));
        }
    }
    refused
}

/// The database that a relay asks exists, and what it takes its channels from is not, over others, itself.
fn check_upstream(known: &Known, name: &ObjectName, relay: &Server, upstream: &Upstream, reporter: &mut Reporter) {
    if let Some(database) = &upstream.database {
        known.exists(Kind::TunnelDatabase, name, database, "spec.upstream.databaseRef.name", reporter);
    }
    check_authority(known, name, upstream.ca.as_deref(), "spec.upstream", reporter);
    let Discovery::Static(StaticDiscovery { servers }) = &upstream.snapshot.discovery else { return };
    for (index, place) in servers.iter().enumerate() {
        let mut seen: Vec<&Server> = Vec::new();
        let mut open: Vec<_> = known.carrier_at(place, upstream.snapshot.protocol).into_iter().collect();
        while let Some(server) = open.pop() {
            if std::ptr::eq(server, relay) {
                let what = if seen.is_empty() { "is this relay itself" } else { "leads back to this relay" };
                reporter.report(format!("spec.upstream.servers[{index}]"), format_args!("{place} {what}"));
                break;
            }
            if !seen.iter().any(|other| std::ptr::eq(*other, server)) {
                seen.push(server);
                if let Feed::Upstream(above) = &server.feed
                    && let Discovery::Static(StaticDiscovery { servers }) = &above.snapshot.discovery
                {
                    let protocol = above.snapshot.protocol;
                    open.extend(servers.iter().filter_map(|place| known.carrier_at(place, protocol)));
                }
            }
        }
    }
}

/// A database that is, over its parents, above itself.
fn check_cycle(known: &Known, name: &ObjectName, database: &Database, reporter: &mut Reporter) {
    for (index, parent) in database.hierarchy.parents.iter().enumerate() {
        let mut seen: Vec<&ObjectName> = Vec::new();
        let mut open: Vec<_> = known.parent(name, &parent.place).into_iter().collect();
        while let Some((ancestor, database)) = open.pop() {
            if ancestor == name {
                let what = if seen.is_empty() { "is this database itself" } else { "leads back to this database" };
                let (field, place) = match &parent.place {
                    ParentPlace::Url(url) => ("url", url.to_string()),
                    ParentPlace::Database(database) => ("databaseRef.name", format!("\"{database}\"")),
                };
                reporter.report(format!("spec.hierarchy.parents[{index}].{field}"), format_args!("{place} {what}"));
                break;
            }
            if !seen.contains(&ancestor) {
                seen.push(ancestor);
                let above = &database.hierarchy.parents;
                open.extend(above.iter().filter_map(|parent| known.parent(ancestor, &parent.place)));
            }
        }
    }
}

/// The database and the password of every account exist; a login is there once per database.
fn check_accounts(known: &Known, problems: &mut Vec<Problem>) {
    let mut logins: BTreeMap<(ObjectName, &str), &ObjectName> = BTreeMap::new();
    for (name, Entry { file, object: account, pruned }) in &known.objects.accounts {
        let title = format!("{} {name}", Kind::TunnelAccount);
        let mut reporter = Reporter::new(file, &title, problems);
        let reporter = &mut reporter.pruned(pruned);
        known.exists(Kind::TunnelDatabase, name, &account.database, "spec.databaseRef.name", reporter);
        if known.exists(Kind::Secret, name, &account.secret, "spec.passwordSecretRef.name", reporter) {
            known.secret_text(name, &account.secret, &account.key, "spec.passwordSecretRef.key", reporter);
        }
        let database = name.sibling(&account.database);
        if let Some(first) = logins.insert((database.clone(), &account.login), name) {
            let what = format!("\"{}\" is the login of TunnelAccount {first} at {database} too", account.login);
            reporter.report("spec.login", what);
            logins.insert((database.clone(), &account.login), first);
        }
        let has_no_table = |entry: &Entry<Database>| entry.object.routes.is_none();
        if !account.allow.asns.is_empty() && known.objects.databases.get(&database).is_some_and(has_no_table) {
            let what = format!("need spec.routeTable of TunnelDatabase {database}, which says what their networks are");
            reporter.report("spec.allow.asns", what);
        }
    }
}

/// The databases and the servers of every policy exist, and its route table is one.
fn check_policies(known: &Known, problems: &mut Vec<Problem>) {
    for (name, Entry { file, object: policy, pruned }) in &known.objects.policies {
        let title = format!("{} {name}", Kind::TunnelAssignmentPolicy);
        let mut reporter = Reporter::new(file, &title, problems);
        let reporter = &mut reporter.pruned(pruned);
        for (index, database) in policy.databases.iter().enumerate() {
            known.exists(Kind::TunnelDatabase, name, database, &format!("spec.databaseRefs[{index}].name"), reporter);
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            let pools = rule.pools.iter().map(|pool| &pool.target).enumerate();
            let pools = pools.map(|(index, target)| (format!("assign.pools[{index}]"), target));
            let exclude = rule.exclude.iter().enumerate().map(|(index, target)| (format!("exclude[{index}]"), target));
            for (path, target) in pools.chain(exclude) {
                if let Target::Server(server) = target {
                    let field = format!("spec.rules[{index}].{path}.serverRef.name");
                    known.exists(Kind::TunnelServer, name, server, &field, reporter);
                }
            }
        }
        match &policy.routes {
            Some(source) => check_route_table(known, name, "spec.routeTable", source, reporter),
            None => check_borrowed_table(known, name, policy, reporter),
        }
    }
}

fn address_of(host: &str, port: u16) -> Option<SocketAddrV4> {
    Some(SocketAddrV4::new(host.parse().ok()?, port))
}
