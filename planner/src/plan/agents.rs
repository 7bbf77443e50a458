//! What an agent does for a server or a database, and one agent for each on one machine.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::time::Duration;

use castgate_control::{
    Account, AgentSnapshot, Channel, ChannelRule, DatabaseSnapshot, EntryType, Parent, PatternSource, Protocol,
    RegistrarSnapshot, Registration, ServerSnapshot,
};

use super::hints::{channel_of, url_of};
use super::{Machine, password};
use crate::document::Kind;
use crate::objects::{
    self, Bundle, BundleChannel, Database, Entry, Hierarchy, ObjectName, Objects, ParentPlace, Server,
};
use crate::problem::{Problem, Reporter};
use crate::url::DatabaseUrl;

/// Makes every snapshot: databases with those first that register nowhere, then servers.
pub(super) fn agents(objects: &Objects, machine: &Machine, problems: &mut Vec<Problem>) -> Vec<AgentSnapshot> {
    let (roots, others): (Vec<_>, Vec<_>) =
        objects.databases.iter().partition(|(_, entry)| entry.object.hierarchy.parents.is_empty());
    let mut agents = Vec::new();
    for (name, Entry { file, object, .. }) in roots.into_iter().chain(others) {
        let mut snapshot = empty("tdb", name);
        let title = format!("{} {name}", Kind::TunnelDatabase);
        let reporter = &mut Reporter::new(file, &title, problems);
        snapshot.database = Some(database(objects, name, object, object.listen));
        let entry = || database_entry(object, machine.outer(object.listen));
        snapshot.registrar = registrar(objects, name, &object.hierarchy, entry);
        agents.push(proven(snapshot, reporter));
    }
    let mut fed = BTreeSet::new();
    for (name, Entry { file, object, .. }) in &objects.servers {
        let mut snapshot = empty("ts", name);
        let title = format!("{} {name}", Kind::TunnelServer);
        let reporter = &mut Reporter::new(file, &title, problems);
        snapshot.server = Some(server(objects, name, object, object.listen));
        let entry = || server_entry(object, machine.outer(object.listen));
        snapshot.registrar = registrar(objects, name, &object.hierarchy, entry);
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

/// A database that listens here, with the accounts that name it.
pub(crate) fn database(
    objects: &Objects,
    name: &ObjectName,
    database: &Database,
    listen: SocketAddrV4,
) -> DatabaseSnapshot {
    let accounts = objects.accounts.iter().filter(|(account, entry)| account.sibling(&entry.object.database) == *name);
    let accounts = accounts.filter_map(|(account_name, Entry { object: account, .. })| {
        let password = text(objects, account_name, &account.secret, &account.key)?;
        Some(Account {
            login: account.login.clone(),
            password_hash: password::hash(name, &account.login, password),
            allow: account.allow.clone(),
        })
    });
    let mut snapshot = DatabaseSnapshot::new(SocketAddr::V4(listen));
    snapshot.accounts = accounts.collect();
    snapshot.update_interval_seconds = whole_seconds(database.update_interval);
    snapshot
}

/// A server that listens here, with the channels of its bundles.
pub(crate) fn server(objects: &Objects, name: &ObjectName, server: &Server, listen: SocketAddrV4) -> ServerSnapshot {
    let Server { interfaces, limits, timers, loop_check, workers, .. } = server;
    let rule = |bundle: &str, channel: &BundleChannel| ChannelRule {
        name: format!("{bundle}/{}", channel.name),
        group: channel.group,
        source: channel.source,
        ports: channel.ports,
        send: channel.send,
        ttl: channel.ttl.map_or(limits.ttl, |ttl| ttl.min(limits.ttl)),
    };
    ServerSnapshot {
        listen,
        workers: *workers,
        interfaces: interfaces.clone(),
        loop_check: *loop_check,
        timers: *timers,
        limits: *limits,
        channels: channels_of(objects, name, server).map(|(bundle, channel)| rule(bundle, channel)).collect(),
    }
}

/// The patterns of a server's bundles that no server before it feeds.
fn patterns(objects: &Objects, name: &ObjectName, server: &Server, fed: &mut BTreeSet<Channel>) -> Vec<PatternSource> {
    let channels = channels_of(objects, name, server).map(|(_, channel)| channel);
    let patterns = channels.filter_map(|channel| pattern(server, channel));
    patterns.filter(|pattern| fed.insert(pattern.channel)).collect()
}

/// What feeds a channel, when somebody shall.
pub(crate) fn pattern(server: &Server, channel: &BundleChannel) -> Option<PatternSource> {
    let interface = server.interfaces.first().expect("a server without interfaces is refused");
    let mut pattern = PatternSource::new(channel_of(channel), NonZeroU64::MIN, interface.clone());
    let bits = channel.pattern?.bits_per_second(pattern.payload_octets.get());
    pattern.rate_bits_per_second = NonZeroU64::new(bits).expect("no rate is zero");
    Some(pattern)
}

/// What parents are told of a server that clients reach here.
pub(crate) fn server_entry(server: &Server, at: SocketAddrV4) -> Registration {
    entry(EntryType::TunnelServer, Some(Protocol::Udp), at, &server.hierarchy)
}

/// What parents are told of a database that clients reach here.
pub(crate) fn database_entry(database: &Database, at: SocketAddrV4) -> Registration {
    entry(EntryType::TunnelDatabase, None, at, &database.hierarchy)
}

fn entry(entry_type: EntryType, protocol: Option<Protocol>, at: SocketAddrV4, hierarchy: &Hierarchy) -> Registration {
    Registration {
        entry_type,
        source: IpAddr::V4(*at.ip()),
        port: NonZeroU16::new(at.port()).expect("the schema starts at 1"),
        protocol,
        networks: hierarchy.networks.clone(),
        country: hierarchy.country,
    }
}

/// The registrar of what registers by itself; `None` where nothing is above.
fn registrar(
    objects: &Objects,
    name: &ObjectName,
    hierarchy: &Hierarchy,
    entry: impl Fn() -> Registration,
) -> Option<RegistrarSnapshot> {
    if hierarchy.parents.is_empty() {
        return None;
    }
    let url = |place: &ParentPlace| Some(url_of(objects, name, place));
    let mut snapshot = RegistrarSnapshot::new(vec![entry()], parents(objects, name, hierarchy, url));
    snapshot.interval_seconds = whole_seconds(hierarchy.update_interval);
    Some(snapshot)
}

/// The databases above, each with the login it gave us. `url` says where one answers.
pub(crate) fn parents(
    objects: &Objects,
    name: &ObjectName,
    hierarchy: &Hierarchy,
    url: impl Fn(&ParentPlace) -> Option<DatabaseUrl>,
) -> Vec<Parent> {
    let parent = |parent: &objects::Parent| {
        let url = url(&parent.place)?.to_string();
        let login = text(objects, name, &parent.secret, "login")?.to_owned();
        let password = text(objects, name, &parent.secret, "password")?.to_owned();
        Some(Parent { url, login, password })
    };
    hierarchy.parents.iter().filter_map(parent).collect()
}

/// The channels of a server, each with the name of its bundle. (What refers to nothing was reported; it carries nothing.)
pub(crate) fn channels_of<'a>(
    objects: &'a Objects,
    name: &'a ObjectName,
    server: &'a Server,
) -> impl Iterator<Item = (&'a str, &'a BundleChannel)> {
    let bundles = server.bundles.iter();
    let bundles = bundles.filter_map(|bundle| Some((bundle, &objects.bundles.get(&name.sibling(bundle))?.object)));
    bundles.flat_map(|(bundle, Bundle { channels })| channels.iter().map(move |channel| (bundle.as_str(), channel)))
}

/// A value of the Secret that an object names.
fn text<'a>(objects: &'a Objects, from: &ObjectName, secret: &str, key: &str) -> Option<&'a str> {
    objects.secrets.get(&from.sibling(secret))?.object.text(key)
}

/// An interval of the hierarchy as snapshots have it.
pub(crate) fn whole_seconds(span: Duration) -> NonZeroU32 {
    let seconds = u32::try_from(span.as_secs()).ok().and_then(NonZeroU32::new);
    seconds.expect("intervals are between a second and a day")
}

impl Machine {
    /// Where something that listens here is reached from elsewhere.
    fn outer(&self, listen: SocketAddrV4) -> SocketAddrV4 {
        if listen.ip().is_unspecified() {
            SocketAddrV4::new(self.address.unwrap_or(Ipv4Addr::LOCALHOST), listen.port())
        } else {
            listen
        }
    }
}
