//! What people and clients are told about a plan: where to ask, what to join.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use castgate_control::{Channel, Country, Ports};

use super::agents::{channels_of, own_ca};
use crate::objects::{BundleChannel, Database, ObjectName, Objects, ParentPlace, Server};
use crate::url::DatabaseUrl;

/// One channel that can be joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedChannel {
    /// The bundle, as `namespace/name`.
    pub bundle: String,
    /// What people call it.
    pub name: String,
    /// The channel on the first of its ports; `None` for one of version 6, which AMT alone carries.
    pub channel: Option<Channel>,
    /// Its group and its source, as a group name has them.
    addresses: String,
    /// All its ports.
    pub ports: Ports,
    /// Whether clients may send into it.
    pub send: bool,
    /// Whether an agent of this plan sends numbered datagrams into it.
    pub pattern: bool,
    /// What it carries, for people.
    pub description: Option<String>,
}

impl PlannedChannel {
    /// The name to give to `castgate receive`: `ham:ip:232.1.2.3@192.0.2.10:5004`.
    #[must_use]
    pub fn group_name(&self) -> String {
        format!("ham:ip:{}:{}", self.addresses, self.ports.first())
    }
}

/// With what a client of these manifests is started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHints {
    /// The database to ask first, as `HOST:PORT`, or as a URL where it speaks https; `None` when nothing is registered anywhere.
    pub tds: Option<String>,
    /// The certificates that vouch for that one, as PEM, where its Secret has them.
    pub tds_ca: Option<String>,
    /// The country to ask for.
    pub country: Option<Country>,
    /// The first channel with a pattern, else the first of all.
    pub channel: Option<Channel>,
    /// A server that carries that channel.
    pub server: Option<SocketAddrV4>,
}

pub(super) fn roots(objects: &Objects) -> Vec<String> {
    let databases = objects.databases.iter().map(|(name, entry)| (name, &entry.object));
    let own = databases.clone().filter(|(_, database)| !database.hierarchy.registers());
    let own: Vec<_> = own.map(|(_, database)| url_of_own(database).short()).collect();
    if !own.is_empty() {
        return own;
    }
    // Everything registers with strangers: those are where one asks.
    let servers = objects.carriers().map(|(_, name, entry)| (name, &entry.object.hierarchy));
    let registered: Vec<_> = databases.map(|(name, database)| (name, &database.hierarchy)).chain(servers).collect();
    let found = registered.iter().filter_map(|(_, hierarchy)| hierarchy.discovery.as_ref());
    let found = found.flat_map(|discovery| discovery.roots.iter().cloned());
    let parents =
        registered.iter().flat_map(|(name, hierarchy)| hierarchy.parents.iter().map(move |parent| (name, parent)));
    let urls = parents.map(|(name, parent)| url_of(objects, name, &parent.place));
    let named = urls.map(|url| url.short());
    let hosts: BTreeSet<_> = named.chain(found).collect();
    hosts.into_iter().collect()
}

pub(super) fn channels(objects: &Objects) -> Vec<PlannedChannel> {
    let served: BTreeSet<_> = objects
        .carriers()
        .flat_map(|(_, name, entry)| entry.object.bundles.iter().map(|bundle| name.sibling(bundle)))
        .collect();
    let bundles = objects.bundles.iter().filter(|(name, _)| served.contains(name));
    bundles
        .flat_map(|(name, entry)| {
            entry.object.channels.iter().map(|channel| PlannedChannel {
                bundle: name.to_string(),
                name: channel.name.clone(),
                channel: channel_of(channel),
                addresses: channel.name_of_addresses(),
                ports: channel.ports,
                send: channel.send,
                pattern: channel.pattern.is_some(),
                description: channel.description.clone(),
            })
        })
        .collect()
}

pub(super) fn client(objects: &Objects) -> ClientHints {
    let channels = channels(objects);
    let mut of_umtp = channels.iter().filter(|channel| channel.channel.is_some());
    let channel =
        of_umtp.clone().find(|channel| channel.pattern).or(of_umtp.next()).and_then(|channel| channel.channel);
    let carries = |name: &ObjectName, server: &Server| {
        channel.is_some() && channels_of(objects, name, server).any(|(_, row)| channel_of(row) == channel)
    };
    let servers = || objects.carriers().map(|(_, name, entry)| (name, &entry.object));
    let server = servers().find(|(name, server)| carries(name, server)).map(|(_, server)| server);
    let hierarchies = server
        .into_iter()
        .chain(servers().map(|(_, server)| server))
        .map(|server| &server.hierarchy)
        .chain(objects.databases.values().map(|entry| &entry.object.hierarchy));
    ClientHints {
        tds: roots(objects).into_iter().next(),
        tds_ca: first_root(objects).and_then(|root| own_ca(objects, root)).map(str::to_owned),
        country: first_country(hierarchies.map(|hierarchy| hierarchy.country)),
        channel,
        server: server.map(|server| reachable(server.listen)),
    }
}

fn first_country(mut countries: impl Iterator<Item = Option<Country>>) -> Option<Country> {
    countries.find_map(|country| country)
}

/// The channel on the first of its ports; `None` for one of version 6.
pub(crate) fn channel_of(channel: &BundleChannel) -> Option<Channel> {
    let (IpAddr::V4(group), None | Some(IpAddr::V4(_))) = (channel.group, channel.source) else { return None };
    let source = match channel.source {
        Some(IpAddr::V4(source)) => Some(source),
        Some(IpAddr::V6(_)) | None => None,
    };
    Some(Channel { group, source, port: channel.ports.first() })
}

/// Where a database above is on this machine: `load` has looked that one of ours is there.
pub(super) fn url_of(objects: &Objects, from: &ObjectName, place: &ParentPlace) -> DatabaseUrl {
    match place {
        ParentPlace::Url(url) => url.clone(),
        ParentPlace::Database(name) => {
            let database = objects.databases.get(&from.sibling(name)).expect("a dangling databaseRef is refused");
            url_of_own(&database.object)
        }
    }
}

/// Where a database of ours is on this machine.
fn url_of_own(database: &Database) -> DatabaseUrl {
    DatabaseUrl::from(reachable(database.listen)).over(database.scheme())
}

/// The database of ours that [`roots`] names first.
fn first_root(objects: &Objects) -> Option<&ObjectName> {
    objects.databases.iter().find(|(_, entry)| !entry.object.hierarchy.registers()).map(|(name, _)| name)
}

/// Where something that listens is reached from this machine.
fn reachable(listen: SocketAddrV4) -> SocketAddrV4 {
    if listen.ip().is_unspecified() { SocketAddrV4::new(Ipv4Addr::LOCALHOST, listen.port()) } else { listen }
}
