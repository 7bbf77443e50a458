//! One agent for each server and each database.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::time::Duration;

use castgate_control::{
    Account, AgentSnapshot, Channel, ChannelRule, DatabaseSnapshot, EntryType, Parent, PatternSource, Protocol,
    RegistrarSnapshot, Registration, ServerSnapshot,
};

use super::hints::channel_of;
use super::password;
use crate::document::Kind;
use crate::objects::{Bundle, BundleChannel, Database, Entry, Hierarchy, ObjectName, Objects, Secret, Server};
use crate::problem::{Problem, Reporter};

/// Makes every snapshot: databases with those first that register nowhere, then servers.
pub(super) fn agents(objects: &Objects, problems: &mut Vec<Problem>) -> Vec<AgentSnapshot> {
    let (roots, others): (Vec<_>, Vec<_>) =
        objects.databases.iter().partition(|(_, entry)| entry.object.hierarchy.parents.is_empty());
    let mut agents = Vec::new();
    for (name, Entry { file, object, .. }) in roots.into_iter().chain(others) {
        let mut snapshot = empty("tdb", name);
        let title = format!("{} {name}", Kind::TunnelDatabase);
        let reporter = &mut Reporter::new(file, &title, problems);
        snapshot.database = Some(database(objects, name, object));
        snapshot.registrar = registrar(objects, name, Registrant::database(object), reporter);
        agents.push(proven(snapshot, reporter));
    }
    let mut fed = BTreeSet::new();
    for (name, Entry { file, object, .. }) in &objects.servers {
        let mut snapshot = empty("ts", name);
        let title = format!("{} {name}", Kind::TunnelServer);
        let reporter = &mut Reporter::new(file, &title, problems);
        snapshot.server = Some(server(objects, name, object));
        snapshot.registrar = registrar(objects, name, Registrant::server(object), reporter);
        snapshot.patterns = patterns(objects, name, object, &mut fed);
        agents.push(proven(snapshot, reporter));
    }
    agents
}

/// A server and a database may share a name; their agents may not.
fn empty(short_kind: &str, name: &ObjectName) -> AgentSnapshot {
    let agent = format!("{}/{short_kind}-{}", name.namespace, name.name);
    AgentSnapshot { generation: 1, agent, ..AgentSnapshot::default() }
}

/// Whatever the agent would refuse is refused here, where the object is known.
fn proven(snapshot: AgentSnapshot, reporter: &mut Reporter) -> AgentSnapshot {
    if let Err(error) = snapshot.check() {
        reporter.report("", error);
    }
    snapshot
}

fn database(objects: &Objects, name: &ObjectName, database: &Database) -> DatabaseSnapshot {
    let Database { listen, hierarchy: _, update_interval } = database;
    let accounts = objects.accounts.iter().filter(|(account, entry)| account.sibling(&entry.object.database) == *name);
    let accounts = accounts.map(|(account_name, Entry { object: account, .. })| {
        let password = text(objects, account_name, &account.secret, &account.key);
        Account {
            login: account.login.clone(),
            password_hash: password::hash(name, &account.login, password),
            allow: account.allow.clone(),
        }
    });
    let mut snapshot = DatabaseSnapshot::new(SocketAddr::V4(*listen));
    snapshot.accounts = accounts.collect();
    snapshot.update_interval_seconds = whole_seconds(*update_interval);
    snapshot
}

fn server(objects: &Objects, name: &ObjectName, server: &Server) -> ServerSnapshot {
    let Server { listen, interfaces, bundles, hierarchy: _, limits, timers, loop_check, workers } = server;
    let rule = |bundle: &str, channel: &BundleChannel| ChannelRule {
        name: format!("{bundle}/{}", channel.name),
        group: channel.group,
        source: channel.source,
        ports: channel.ports,
        send: channel.send,
        ttl: channel.ttl.map_or(limits.ttl, |ttl| ttl.min(limits.ttl)),
    };
    ServerSnapshot {
        listen: *listen,
        workers: *workers,
        interfaces: interfaces.clone(),
        loop_check: *loop_check,
        timers: *timers,
        limits: *limits,
        channels: bundles
            .iter()
            .flat_map(|bundle| bundle_of(objects, name, bundle).channels.iter().map(|channel| rule(bundle, channel)))
            .collect(),
    }
}

/// The patterns of a server's bundles that no server before it feeds.
fn patterns(objects: &Objects, name: &ObjectName, server: &Server, fed: &mut BTreeSet<Channel>) -> Vec<PatternSource> {
    let mut patterns = Vec::new();
    let interface = server.interfaces.first().expect("a server without interfaces is refused");
    for channel in server.bundles.iter().flat_map(|bundle| &bundle_of(objects, name, bundle).channels) {
        let Some(rate) = channel.pattern else { continue };
        if !fed.insert(channel_of(channel)) {
            continue;
        }
        let mut pattern = PatternSource::new(channel_of(channel), NonZeroU64::MIN, interface.clone());
        let bits = rate.bits_per_second(pattern.payload_octets.get());
        pattern.rate_bits_per_second = NonZeroU64::new(bits).expect("no rate is zero");
        patterns.push(pattern);
    }
    patterns
}

/// What registers: the side of a server or a database that parents see.
struct Registrant<'a> {
    entry_type: EntryType,
    protocol: Option<Protocol>,
    listen: SocketAddrV4,
    hierarchy: &'a Hierarchy,
    address_field: &'static str,
}

impl<'a> Registrant<'a> {
    fn server(server: &'a Server) -> Self {
        Self {
            entry_type: EntryType::TunnelServer,
            protocol: Some(Protocol::Udp),
            listen: server.listen,
            hierarchy: &server.hierarchy,
            address_field: "spec.umtp.address",
        }
    }

    fn database(database: &'a Database) -> Self {
        Self {
            entry_type: EntryType::TunnelDatabase,
            protocol: None,
            listen: database.listen,
            hierarchy: &database.hierarchy,
            address_field: "spec.http.address",
        }
    }
}

fn registrar(
    objects: &Objects,
    name: &ObjectName,
    registrant: Registrant,
    reporter: &mut Reporter,
) -> Option<RegistrarSnapshot> {
    let Registrant { entry_type, protocol, listen, hierarchy, address_field } = registrant;
    let Hierarchy { parents, networks, country, update_interval } = hierarchy;
    if parents.is_empty() {
        return None;
    }
    if listen.ip().is_unspecified() {
        reporter.report(address_field, "is missing: on one machine it is the address to register with");
        return None;
    }
    let entry = Registration {
        entry_type,
        source: IpAddr::V4(*listen.ip()),
        port: NonZeroU16::new(listen.port()).expect("the schema starts at 1"),
        protocol,
        networks: networks.clone(),
        country: *country,
    };
    let parents = parents.iter().map(|parent| Parent {
        url: parent.url.to_string(),
        login: text(objects, name, &parent.secret, "login").to_owned(),
        password: text(objects, name, &parent.secret, "password").to_owned(),
    });
    let mut snapshot = RegistrarSnapshot::new(vec![entry], parents.collect());
    snapshot.interval_seconds = whole_seconds(*update_interval);
    Some(snapshot)
}

/// The bundle that a server names: `load` has looked.
pub(super) fn bundle_of<'a>(objects: &'a Objects, server: &ObjectName, bundle: &str) -> &'a Bundle {
    &objects.bundles.get(&server.sibling(bundle)).expect("a dangling bundle is refused").object
}

/// A value of the Secret that an object names: `load` has looked.
fn text<'a>(objects: &'a Objects, from: &ObjectName, secret: &str, key: &str) -> &'a str {
    let secret: &Secret = &objects.secrets.get(&from.sibling(secret)).expect("a dangling Secret is refused").object;
    secret.text(key).expect("a Secret without the key is refused")
}

fn whole_seconds(span: Duration) -> NonZeroU32 {
    let seconds = u32::try_from(span.as_secs()).ok().and_then(NonZeroU32::new);
    seconds.expect("intervals are between a second and a day")
}
