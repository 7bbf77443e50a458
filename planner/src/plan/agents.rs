//! What an agent does for a server, a relay or a database, and one agent for each on one machine.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::time::Duration;

use castgate_control::{
    Account, AgentSnapshot, AmtSnapshot, Channel, ChannelRule, DatabaseSnapshot, Discovery, EntryType, EtcdSnapshot,
    LoopCheck, Parent, PatternSource, PeersSnapshot, PoolServerSnapshot, Protocol, RegistrarDiscovery,
    RegistrarSnapshot, Registration, RoutesSnapshot, Scheme, ServerSnapshot, StoreSnapshot, SystemsSnapshot,
    TlsIdentity, UpstreamSnapshot,
};

use super::hints::{channel_of, url_of};
use super::{Machine, password, policies};
use crate::document::Kind;
use crate::objects::{
    self, Amt, Bundle, BundleChannel, CA, Database, Entry, Etcd, Feed, FromTheRoots, Hierarchy, ObjectName, Objects,
    ParentPlace, Peers, Place, Server, TLS_CERTIFICATE, TLS_KEY, Upstream,
};
use crate::problem::{Problem, Reporter};
use crate::url::DatabaseUrl;

/// Makes every snapshot: databases with those first that register nowhere, then servers, then relays.
pub(super) fn agents(objects: &Objects, machine: &Machine, problems: &mut Vec<Problem>) -> Vec<AgentSnapshot> {
    let (roots, others): (Vec<_>, Vec<_>) =
        objects.databases.iter().partition(|(_, entry)| !entry.object.hierarchy.registers());
    let mut agents = Vec::new();
    for (name, Entry { file, object, .. }) in roots.into_iter().chain(others) {
        let mut snapshot = empty("tdb", name);
        let title = format!("{} {name}", Kind::TunnelDatabase);
        let reporter = &mut Reporter::new(file, &title, problems);
        let here = |name: &ObjectName, server: &Server| {
            let (_, outer) = machine.places(server);
            let places = policies::places(server_entries(server, &outer));
            vec![PoolServerSnapshot {
                name: name.name.clone(),
                places,
                registers: false,
                down: false,
                load_percent: None,
            }]
        };
        snapshot.database = Some(database(objects, name, object, object.listen, &here));
        let entries = || vec![database_entry(object, machine.outer(object.listen))];
        snapshot.registrar = registrar(objects, name, &object.hierarchy, entries);
        agents.push(proven(snapshot, reporter));
    }
    let mut fed = BTreeSet::new();
    for (kind, name, Entry { file, object, .. }) in objects.carriers() {
        let mut snapshot = empty(if kind == Kind::TunnelRelay { "tr" } else { "ts" }, name);
        let title = format!("{kind} {name}");
        let reporter = &mut Reporter::new(file, &title, problems);
        let (listen, outer) = machine.places(object);
        let around = Around {
            advertise: &outer,
            avoid: std::slice::from_ref(&outer),
            database: &|database| Some(url_of(objects, name, &ParentPlace::Database(database.to_owned()))),
        };
        snapshot.server = Some(server(objects, name, object, &listen, &around));
        snapshot.registrar = registrar(objects, name, &object.hierarchy, || server_entries(object, &outer));
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
    agents: &policies::Agents,
) -> DatabaseSnapshot {
    let accounts = objects.accounts.iter().filter(|(account, entry)| account.sibling(&entry.object.database) == *name);
    let accounts = accounts.filter_map(|(account_name, Entry { object: account, .. })| {
        let hash = |password: &str| password::hash(name, &account.login, password);
        let password = text(objects, account_name, &account.secret, &account.key)?;
        let previous = text(objects, account_name, &account.secret, &account.previous_key);
        let previous = previous.filter(|previous| !previous.is_empty() && *previous != password);
        Some(Account {
            login: account.login.clone(),
            password_hash: hash(password),
            previous_password_hash: previous.map(hash),
            allow: account.allow.clone(),
        })
    });
    let mut snapshot = DatabaseSnapshot::new(SocketAddr::V4(listen));
    snapshot.tls = identity(objects, name, database.tls.as_deref());
    snapshot.accounts = accounts.collect();
    snapshot.routes = policies::routes_of_accounts(objects, name, &snapshot.accounts);
    snapshot.strict_source = database.strict_source;
    snapshot.regions = database.regions.clone();
    snapshot.policies = policies::policies(objects, name, agents);
    snapshot.update_interval_seconds = whole_seconds(database.update_interval);
    snapshot.peers = peers(objects, name, database);
    if let Some(etcd) = database.store.etcd() {
        snapshot.store = StoreSnapshot::Etcd(Box::new(self::etcd(objects, name, etcd)));
    }
    snapshot
}

/// The etcd that all replicas share. A prefix of its own, because databases that have one in common are one.
fn etcd(objects: &Objects, name: &ObjectName, etcd: &Etcd) -> EtcdSnapshot {
    let Etcd { endpoints, prefix, credentials, tls } = etcd;
    let value = |secret: &Option<String>, key| text(objects, name, secret.as_deref()?, key).map(str::to_owned);
    EtcdSnapshot {
        endpoints: endpoints.clone(),
        prefix: prefix.clone().unwrap_or_else(|| format!("/castgate/{}/{}/", name.namespace, name.name)),
        ca: value(tls, CA),
        identity: identity(objects, name, tls.as_deref()),
        login: value(credentials, "login"),
        password: value(credentials, "password"),
    }
}

/// Certificate and key of a Secret that has both.
fn identity(objects: &Objects, name: &ObjectName, secret: Option<&str>) -> Option<TlsIdentity> {
    let text = |key| text(objects, name, secret?, key).map(str::to_owned);
    Some(TlsIdentity { certificate: text(TLS_CERTIFICATE)?, key: text(TLS_KEY)? })
}

/// The certificates that vouch for a database of ours, where its Secret has them.
pub(crate) fn own_ca<'a>(objects: &'a Objects, database: &ObjectName) -> Option<&'a str> {
    let secret = objects.databases.get(database)?.object.tls.as_deref()?;
    text(objects, database, secret, CA).filter(|ca| !ca.is_empty())
}

/// The databases of others that hold the same entries.
fn peers(objects: &Objects, name: &ObjectName, database: &Database) -> Option<PeersSnapshot> {
    let Peers { addresses, secret, ca, serve } = database.peers.as_ref()?;
    let ca = ca.as_deref().and_then(|ca| text(objects, name, ca, CA)).map(str::to_owned);
    let login = text(objects, name, secret, "login")?.to_owned();
    let password = text(objects, name, secret, "password")?.to_owned();
    Some(PeersSnapshot { ca, serve: *serve, ..PeersSnapshot::new(addresses.clone(), login, password) })
}

/// What an agent has to know of its surroundings.
pub(crate) struct Around<'a> {
    /// Where it is reached from elsewhere.
    pub(crate) advertise: &'a Place,
    /// Where those are reached that take their channels from the same place; a relay stays away from them.
    pub(crate) avoid: &'a [Place],
    /// Where a database of its namespace answers.
    pub(crate) database: &'a dyn Fn(&str) -> Option<DatabaseUrl>,
}

/// A server or a relay that listens here, with the channels of its bundles.
pub(crate) fn server(
    objects: &Objects,
    name: &ObjectName,
    server: &Server,
    listen: &Place,
    around: &Around,
) -> ServerSnapshot {
    let Server { feed, amt, limits, timers, workers, .. } = server;
    let rule = |bundle: &str, channel: &BundleChannel| ChannelRule {
        name: format!("{bundle}/{}", channel.name),
        group: channel.group,
        source: channel.source,
        ports: channel.ports,
        send: channel.send,
        ttl: channel.ttl.map_or(limits.ttl, |ttl| ttl.min(limits.ttl)),
    };
    let channels = channels_of(objects, name, server).map(|(bundle, channel)| rule(bundle, channel)).collect();
    let (loop_check, upstream) = match feed {
        Feed::Native { interfaces: _, loop_check } => (*loop_check, None),
        Feed::Upstream(upstream) => (LoopCheck::default(), Some(self::upstream(objects, name, upstream, around))),
    };
    ServerSnapshot {
        listen: listen.umtp,
        workers: *workers,
        interfaces: server.interfaces().to_vec(),
        loop_check,
        timers: *timers,
        limits: *limits,
        channels,
        amt: amt.as_ref().map(|amt| amt_relay(amt, listen, around.advertise)),
        upstream,
    }
}

/// An AMT relay that listens here.
fn amt_relay(amt: &Amt, listen: &Place, outer: &Place) -> AmtSnapshot {
    // What is asked under an address that means any, or that others have too, has to say which one is ours.
    let is_vague = listen.amt.iter().any(|place| place.ip().is_unspecified());
    let advertise =
        outer.amt.iter().filter(|_| is_vague || amt.snapshot.anycast.is_some()).map(SocketAddr::ip).collect();
    AmtSnapshot { listen: listen.amt.clone(), advertise, ..amt.snapshot.clone() }
}

/// The tunnel to a server above.
fn upstream(objects: &Objects, name: &ObjectName, upstream: &Upstream, around: &Around) -> UpstreamSnapshot {
    let mut snapshot = upstream.snapshot.clone();
    if let Discovery::Hierarchy(hierarchy) = &mut snapshot.discovery {
        let database = upstream.database.as_deref().and_then(around.database);
        // A URL of ours has a host, and a port that is not zero.
        hierarchy.tds.extend(database.and_then(|url| url.to_string().parse().ok()));
        let own = upstream.database.as_deref().and_then(|database| own_ca(objects, &name.sibling(database)));
        let named = upstream.ca.as_deref().and_then(|ca| text(objects, name, ca, CA));
        hierarchy.ca = named.or(own).map(str::to_owned);
        snapshot.avoid = around.avoid.iter().flat_map(Place::sockets).collect();
    }
    snapshot
}

/// The patterns of a server's bundles that no server before it feeds.
fn patterns(objects: &Objects, name: &ObjectName, server: &Server, fed: &mut BTreeSet<Channel>) -> Vec<PatternSource> {
    let channels = channels_of(objects, name, server).map(|(_, channel)| channel);
    let patterns = channels.filter_map(|channel| pattern(server, channel));
    patterns.filter(|pattern| fed.insert(pattern.channel)).collect()
}

/// What feeds a channel, when somebody shall. A relay feeds none: it is fed.
pub(crate) fn pattern(server: &Server, channel: &BundleChannel) -> Option<PatternSource> {
    let interface = server.interfaces().first()?;
    let mut pattern = PatternSource::new(channel_of(channel)?, NonZeroU64::MIN, interface.clone());
    let bits = channel.pattern?.bits_per_second(pattern.payload_octets.get());
    pattern.rate_bits_per_second = NonZeroU64::new(bits).expect("no rate is zero");
    Some(pattern)
}

/// What parents are told of a server that clients reach here: one entry for UMTP, and one for each address of its AMT relay.
pub(crate) fn server_entries(server: &Server, at: &Place) -> Vec<Registration> {
    let entry = |protocol, at| entry(EntryType::TunnelServer, Some(protocol), at, &server.hierarchy);
    let amt = at.amt.iter().map(|at| entry(Protocol::Amt, *at));
    std::iter::once(entry(Protocol::Udp, SocketAddr::V4(at.umtp))).chain(amt).collect()
}

/// What parents are told of a database that clients reach here.
pub(crate) fn database_entry(database: &Database, at: SocketAddrV4) -> Registration {
    let entry = entry(EntryType::TunnelDatabase, None, SocketAddr::V4(at), &database.hierarchy);
    Registration { scheme: database.scheme(), ..entry }
}

fn entry(entry_type: EntryType, protocol: Option<Protocol>, at: SocketAddr, hierarchy: &Hierarchy) -> Registration {
    Registration {
        entry_type,
        source: at.ip(),
        port: NonZeroU16::new(at.port()).expect("the schema starts at 1"),
        protocol,
        networks: hierarchy.networks.clone(),
        country: hierarchy.country,
        scheme: Scheme::Http,
    }
}

/// The registrar of what registers by itself; `None` where nothing is above.
fn registrar(
    objects: &Objects,
    name: &ObjectName,
    hierarchy: &Hierarchy,
    entries: impl Fn() -> Vec<Registration>,
) -> Option<RegistrarSnapshot> {
    if !hierarchy.registers() {
        return None;
    }
    let urls = |place: &ParentPlace| vec![url_of(objects, name, place)];
    let mut snapshot = RegistrarSnapshot::new(entries(), parents(objects, name, hierarchy, urls));
    snapshot.discovery = discovery(objects, name, hierarchy);
    snapshot.systems = hierarchy.routes_file().map(|file| SystemsSnapshot {
        asns: hierarchy.asns.clone(),
        routes: RoutesSnapshot { file: Some(file.clone()), rows: Vec::new() },
    });
    snapshot.interval_seconds = whole_seconds(hierarchy.update_interval);
    Some(snapshot)
}

/// The databases above, each with the login it gave us. `urls` says where one answers: in several places, if it has copies.
pub(crate) fn parents(
    objects: &Objects,
    name: &ObjectName,
    hierarchy: &Hierarchy,
    urls: impl Fn(&ParentPlace) -> Vec<DatabaseUrl>,
) -> Vec<Parent> {
    let places = |parent: &objects::Parent| {
        let login = text(objects, name, &parent.secret, "login")?.to_owned();
        let password = text(objects, name, &parent.secret, "password")?.to_owned();
        let own = match &parent.place {
            ParentPlace::Database(database) => own_ca(objects, &name.sibling(database)),
            ParentPlace::Url(_) => None,
        };
        let named = parent.ca.as_deref().and_then(|ca| text(objects, name, ca, CA));
        let ca = named.or(own).map(str::to_owned);
        let told = move |url: DatabaseUrl| Parent {
            // A database of ours may have gone back to http.
            ca: ca.clone().filter(|_| url.scheme() == Scheme::Https),
            url: url.to_string(),
            login: login.clone(),
            password: password.clone(),
        };
        Some(urls(&parent.place).into_iter().map(told))
    };
    hierarchy.parents.iter().filter_map(places).flatten().collect()
}

/// How the databases above are found, with the login that they gave us.
pub(crate) fn discovery(objects: &Objects, name: &ObjectName, hierarchy: &Hierarchy) -> Option<RegistrarDiscovery> {
    let FromTheRoots { roots, secret, ca, role } = hierarchy.discovery.as_ref()?;
    let ca = ca.as_deref().and_then(|ca| text(objects, name, ca, CA)).map(str::to_owned);
    let login = text(objects, name, secret, "login")?.to_owned();
    let password = text(objects, name, secret, "password")?.to_owned();
    Some(RegistrarDiscovery { roots: roots.clone(), login, password, ca, role: *role })
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
        if listen.ip().is_unspecified() { SocketAddrV4::new(self.own(), listen.port()) } else { listen }
    }

    fn own(&self) -> Ipv4Addr {
        self.address.unwrap_or(Ipv4Addr::LOCALHOST)
    }

    /// Where something that carries tunnels listens here, and where it is reached from elsewhere.
    fn places(&self, server: &Server) -> (Place, Place) {
        let any = self.address6.map(|_| Ipv6Addr::UNSPECIFIED);
        let listen = server.place(*server.listen.ip(), any);
        (listen, server.place(server.address.unwrap_or_else(|| self.own()), self.address6))
    }
}
