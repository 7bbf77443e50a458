//! Manifests that were read and found good: addresses are addresses, spans are spans, every name leads somewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::time::Duration;

use castgate_control::{
    Allow, AmtSnapshot, Country, DatabaseRole, LoopCheck, MatchSnapshot, Ports, Scheme, ServerLimits, ServerTimers,
    UpstreamSnapshot,
};
use castgate_crds::placement::Toleration;
use castgate_crds::tunnel_database::{Service, Storage};
use castgate_crds::tunnels::AddressType;
use castgate_crds::units::Rate;
use ipnet::IpNet;

use crate::document::Kind;
use crate::problem::Pruned;
use crate::url::DatabaseUrl;

/// Which object of a kind: `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectName {
    /// Another object of the same namespace: references never leave it.
    #[must_use]
    pub fn sibling(&self, name: &str) -> Self {
        Self { namespace: self.namespace.clone(), name: name.to_owned() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// One object and the file it came from, which problems found later name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    /// The file, as the caller named it.
    pub file: String,
    /// The object.
    pub object: T,
    /// What it lost on the way; nothing, unless there is a problem with it.
    pub(crate) pruned: Pruned,
}

/// A set of objects without a known problem, sorted by namespace and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects {
    pub(crate) servers: BTreeMap<ObjectName, Entry<Server>>,
    pub(crate) relays: BTreeMap<ObjectName, Entry<Server>>,
    pub(crate) databases: BTreeMap<ObjectName, Entry<Database>>,
    pub(crate) accounts: BTreeMap<ObjectName, Entry<Account>>,
    pub(crate) bundles: BTreeMap<ObjectName, Entry<Bundle>>,
    pub(crate) secrets: BTreeMap<ObjectName, Entry<Secret>>,
    pub(crate) policies: BTreeMap<ObjectName, Entry<Policy>>,
    pub(crate) configs: BTreeMap<ObjectName, Entry<ConfigMap>>,
}

impl Objects {
    /// Takes an object out.
    pub(crate) fn remove(&mut self, kind: Kind, name: &ObjectName) {
        match kind {
            Kind::ChannelBundle => drop(self.bundles.remove(name)),
            Kind::Secret => drop(self.secrets.remove(name)),
            Kind::TunnelAccount => drop(self.accounts.remove(name)),
            Kind::TunnelDatabase => drop(self.databases.remove(name)),
            Kind::TunnelRelay => drop(self.relays.remove(name)),
            Kind::TunnelServer => drop(self.servers.remove(name)),
            Kind::TunnelAssignmentPolicy => drop(self.policies.remove(name)),
            Kind::ConfigMap => drop(self.configs.remove(name)),
            Kind::Namespace => {}
        }
    }

    /// The tunnel servers.
    #[must_use]
    pub fn servers(&self) -> &BTreeMap<ObjectName, Entry<Server>> {
        &self.servers
    }

    /// The tunnel relays.
    #[must_use]
    pub fn relays(&self) -> &BTreeMap<ObjectName, Entry<Server>> {
        &self.relays
    }

    /// Everything that carries tunnels: servers, then relays.
    pub(crate) fn carriers(&self) -> impl Iterator<Item = (Kind, &ObjectName, &Entry<Server>)> {
        let servers = self.servers.iter().map(|(name, entry)| (Kind::TunnelServer, name, entry));
        servers.chain(self.relays.iter().map(|(name, entry)| (Kind::TunnelRelay, name, entry)))
    }

    /// Where each server, relay and database registers, with the file that says so.
    pub(crate) fn hierarchies(&self) -> impl Iterator<Item = (Kind, &ObjectName, &str, &Hierarchy)> {
        let carriers = self.carriers().map(|(kind, name, entry)| (kind, name, &*entry.file, &entry.object.hierarchy));
        let databases = self.databases.iter();
        carriers
            .chain(databases.map(|(name, entry)| (Kind::TunnelDatabase, name, &*entry.file, &entry.object.hierarchy)))
    }

    /// Where one of them registers.
    pub(crate) fn hierarchy_mut(&mut self, kind: Kind, name: &ObjectName) -> Option<&mut Hierarchy> {
        match kind {
            Kind::TunnelDatabase => self.databases.get_mut(name).map(|entry| &mut entry.object.hierarchy),
            Kind::TunnelRelay => self.relays.get_mut(name).map(|entry| &mut entry.object.hierarchy),
            _ => self.servers.get_mut(name).map(|entry| &mut entry.object.hierarchy),
        }
    }

    /// The databases.
    #[must_use]
    pub fn databases(&self) -> &BTreeMap<ObjectName, Entry<Database>> {
        &self.databases
    }

    /// The accounts at our databases.
    #[must_use]
    pub fn accounts(&self) -> &BTreeMap<ObjectName, Entry<Account>> {
        &self.accounts
    }

    /// The channel bundles.
    #[must_use]
    pub fn bundles(&self) -> &BTreeMap<ObjectName, Entry<Bundle>> {
        &self.bundles
    }

    /// The policies of our databases.
    #[must_use]
    pub fn policies(&self) -> &BTreeMap<ObjectName, Entry<Policy>> {
        &self.policies
    }

    /// The Secrets.
    #[must_use]
    pub fn secrets(&self) -> &BTreeMap<ObjectName, Entry<Secret>> {
        &self.secrets
    }
}

/// A tunnel server or a tunnel relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where its channels come from.
    pub feed: Feed,
    /// Where tunnels end on one machine; 0.0.0.0 for every address.
    pub listen: SocketAddrV4,
    /// The address that tunnels end at, when it is named.
    pub address: Option<Ipv4Addr>,
    /// Which address of its node is meant when none is named.
    pub address_type: AddressType,
    /// The UDP port.
    pub port: u16,
    /// Its AMT relay; `None`: it has none.
    pub amt: Option<Amt>,
    /// Names of its bundles, in its own namespace.
    pub bundles: Vec<String>,
    /// Where it registers.
    pub hierarchy: Hierarchy,
    /// What it carries at most.
    pub limits: ServerLimits,
    /// How long it waits.
    pub timers: ServerTimers,
    /// Threads that carry packets; `None`: one for each processor.
    pub workers: Option<NonZeroU8>,
    /// Labels of the nodes it may run on.
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that it may run on all the same.
    pub tolerations: Vec<Toleration>,
    /// How many nodes of the pool carry tunnels; `None`: all.
    pub replicas: Option<u32>,
    /// Its own labels, by which policies choose.
    pub labels: BTreeMap<String, String>,
}

/// Where channels come from: the difference between a server and a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feed {
    /// From networks that have multicast.
    Native {
        /// Interfaces with multicast.
        interfaces: Vec<String>,
        /// Which tunnels a native packet of a client's address ends.
        loop_check: LoopCheck,
    },
    /// Through a tunnel.
    Upstream(Box<Upstream>),
}

/// The tunnel to a server above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// All of it, but for what depends on where it runs: where `database` answers, and whom to stay away from.
    pub snapshot: UpstreamSnapshot,
    /// Name of the database of its namespace that is asked.
    pub database: Option<String>,
    /// Name of the Secret with `ca.crt`.
    pub ca: Option<String>,
}

/// An AMT relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amt {
    /// The UDP port.
    pub port: u16,
    /// Its addresses, when they are named.
    pub addresses: Vec<IpAddr>,
    /// Whether an address of version 6 that is not named is used too.
    pub ipv6: bool,
    /// All of it, but for where it listens.
    pub snapshot: AmtSnapshot,
}

/// Where one agent is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// For UMTP.
    pub(crate) umtp: SocketAddrV4,
    /// For AMT, if there is any.
    pub(crate) amt: Vec<SocketAddr>,
}

impl Place {
    /// Every UDP socket of it.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = SocketAddr> {
        std::iter::once(SocketAddr::V4(self.umtp)).chain(self.amt.iter().copied())
    }
}

impl Server {
    /// Where it listens, given the address for UMTP and, where its machine has one, the address of version 6.
    ///
    /// Addresses that are named are taken as they are. One that is named for UMTP alone is that of AMT too, and then there is no
    /// other: whoever names an address means it.
    pub(crate) fn place(&self, umtp: Ipv4Addr, six: Option<Ipv6Addr>) -> Place {
        let amt = self.amt.iter().flat_map(|amt| {
            let own = match (amt.addresses.as_slice(), self.address) {
                ([], Some(address)) => vec![IpAddr::V4(address)],
                ([], None) => {
                    let six = six.filter(|_| amt.ipv6).map(IpAddr::V6);
                    std::iter::once(IpAddr::V4(umtp)).chain(six).collect()
                }
                (named, _) => named.to_vec(),
            };
            own.into_iter().map(|address| SocketAddr::new(address, amt.port))
        });
        Place { umtp: SocketAddrV4::new(umtp, self.port), amt: amt.collect() }
    }

    /// Addresses that it is given by name: those of one machine.
    pub(crate) fn named(&self) -> impl Iterator<Item = IpAddr> {
        self.address.map(IpAddr::V4).into_iter().chain(self.amt.iter().flat_map(|amt| amt.addresses.iter().copied()))
    }

    /// Interfaces with multicast; none for a relay.
    #[must_use]
    pub fn interfaces(&self) -> &[String] {
        match &self.feed {
            Feed::Native { interfaces, .. } => interfaces,
            Feed::Upstream(_) => &[],
        }
    }
}

/// A tunnel database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Where it answers; 0.0.0.0 for every address.
    pub listen: SocketAddrV4,
    /// Name of the Secret with `tls.crt` and `tls.key`; `None`: it speaks http.
    pub tls: Option<String>,
    /// Where it registers; no parents: a root.
    pub hierarchy: Hierarchy,
    /// How often those registered here refresh.
    pub update_interval: Duration,
    /// How many copies of it a cluster runs.
    pub replicas: u32,
    /// Databases of others that hold the same entries.
    pub peers: Option<Peers>,
    /// Which Autonomous System a network belongs to.
    pub routes: Option<RouteSource>,
    /// Whether every account is a strict one.
    pub strict_source: bool,
    /// Countries of regions that are not those of UN M49.
    pub regions: BTreeMap<String, Vec<Country>>,
    /// How clients reach it in a cluster.
    pub service: Service,
    /// Where its entries are kept.
    pub store: Store,
    /// Labels of the nodes it may run on.
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that it may run on all the same.
    pub tolerations: Vec<Toleration>,
}

/// Where the entries of a database are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// By each replica, on a volume of this kind.
    Embedded(Storage),
    /// In an etcd, for all replicas.
    Etcd(Etcd),
}

/// An etcd, and the place of a database in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// Where its members answer: all of them over http, or all over https.
    pub endpoints: Vec<String>,
    /// What the keys of the database begin with, when that is named.
    pub prefix: Option<String>,
    /// Name of the Secret with `login` and `password`.
    pub credentials: Option<String>,
    /// Name of the Secret with `ca.crt` and perhaps `tls.crt` and `tls.key`.
    pub tls: Option<String>,
}

impl Store {
    /// The etcd that all replicas share, if there is one.
    #[must_use]
    pub fn etcd(&self) -> Option<&Etcd> {
        match self {
            Self::Embedded(_) => None,
            Self::Etcd(etcd) => Some(etcd),
        }
    }
}

/// Databases of others that hold the same entries as one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peers {
    /// Where they answer, as it was written.
    pub addresses: Vec<String>,
    /// Name of the Secret with `login` and `password`.
    pub secret: String,
    /// Name of the Secret with `ca.crt`.
    pub ca: Option<String>,
    /// Whether they get our entries.
    pub serve: bool,
}

/// Where and for whom a server or a database registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// The databases above, where they are named.
    pub parents: Vec<Parent>,
    /// How they are found, where they are not.
    pub discovery: Option<FromTheRoots>,
    /// Networks whose clients it is offered to.
    pub networks: Vec<IpNet>,
    /// Autonomous Systems whose networks it is offered to as well. Those of a `ConfigMap` are among the networks.
    pub asns: Vec<u32>,
    /// Which networks are theirs.
    pub routes: Option<RouteSource>,
    /// Country whose clients it is offered to.
    pub country: Option<Country>,
    /// How often the registration is refreshed: whole seconds.
    pub update_interval: Duration,
}

impl Database {
    /// How it is spoken to.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::Https } else { Scheme::Http }
    }
}

impl Hierarchy {
    /// The file that says what the networks of its Autonomous Systems are, where it is one.
    pub(crate) fn routes_file(&self) -> Option<&PathBuf> {
        match &self.routes {
            Some(RouteSource::File(file)) if !self.asns.is_empty() => Some(file),
            Some(_) | None => None,
        }
    }

    /// Whether something is above.
    #[must_use]
    pub fn registers(&self) -> bool {
        !self.parents.is_empty() || self.discovery.is_some()
    }
}

/// The way to the databases above begins here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromTheRoots {
    /// Databases at the top, as they were named: a bare name is a service.
    pub roots: Vec<String>,
    /// Name of the Secret with `login` and `password`.
    pub secret: String,
    /// Name of the Secret with `ca.crt`.
    pub ca: Option<String>,
    /// What a database is to one with exactly its network.
    pub role: DatabaseRole,
}

/// A database above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Which database it is.
    pub place: ParentPlace,
    /// Name of the Secret with `login` and `password`.
    pub secret: String,
    /// Name of the Secret with `ca.crt`.
    pub ca: Option<String>,
}

/// How a database above is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParentPlace {
    /// By where it answers.
    Url(DatabaseUrl),
    /// As a `TunnelDatabase` of the same namespace.
    Database(String),
}

/// Keys of Secrets of type `kubernetes.io/tls`, and the key beside them that others put what vouches for the first under.
pub(crate) const TLS_CERTIFICATE: &str = "tls.crt";
pub(crate) const TLS_KEY: &str = "tls.key";
pub(crate) const CA: &str = "ca.crt";

/// The right to register with one of our databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Name of the database.
    pub database: String,
    /// The name to log in with.
    pub login: String,
    /// Name of the Secret with the password.
    pub secret: String,
    /// Key of the password in that Secret.
    pub key: String,
    /// Key of the password before, which need not be there.
    pub previous_key: String,
    /// What may be registered.
    pub allow: Allow,
}

/// Rules of some databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Names of the databases that keep to it.
    pub databases: Vec<String>,
    /// The rules, the first one first.
    pub rules: Vec<PolicyRule>,
    /// Which Autonomous System an address belongs to; `None`: as its database has it.
    pub routes: Option<RouteSource>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// Its name.
    pub name: String,
    /// Whom it is for.
    pub matches: MatchSnapshot,
    /// Where they are sent.
    pub pools: Vec<PolicyPool>,
    /// Where they are never sent.
    pub exclude: Vec<Target>,
}

/// Servers that share clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyPool {
    /// The servers.
    pub target: Target,
    /// Their share.
    pub weight: u32,
    /// A server with this part of its tunnels, in percent, gets no more clients.
    pub load_percent_max: u8,
}

/// Which servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One, by its name.
    Server(String),
    /// Those with all of these labels.
    Labels(BTreeMap<String, String>),
}

impl Target {
    /// Whether a server is meant.
    pub(crate) fn means(&self, name: &ObjectName, server: &Server) -> bool {
        match self {
            Self::Server(wanted) => *wanted == name.name,
            Self::Labels(wanted) => wanted.iter().all(|(key, value)| server.labels.get(key) == Some(value)),
        }
    }
}

/// As `brussels`, or as `site=brussels,line=fast`.
impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Server(name) => formatter.write_str(name),
            Self::Labels(labels) if labels.is_empty() => formatter.write_str("every server"),
            Self::Labels(labels) => {
                let rows: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                formatter.write_str(&rows.join(","))
            }
        }
    }
}

/// Where a route table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteSource {
    /// A file of the machine of the database.
    File(PathBuf),
    /// A key of a `ConfigMap`.
    ConfigMap {
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
}

/// Texts by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMap {
    pub(crate) values: BTreeMap<String, String>,
}

/// Channels under names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The channels in the order of the manifest.
    pub channels: Vec<BundleChannel>,
}

/// One channel, or the same on a range of ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleChannel {
    /// What people call it.
    pub name: String,
    /// The group.
    pub group: IpAddr,
    /// The only source; `None`: any.
    pub source: Option<IpAddr>,
    /// The ports.
    pub ports: Ports,
    /// Whether clients may send into it.
    pub send: bool,
    /// Highest TTL of what clients send; `None`: the limit of the server.
    pub ttl: Option<NonZeroU8>,
    /// Rate of the pattern that is sent into it; `None`: somebody else sends.
    pub pattern: Option<Rate>,
    /// What it carries, for people.
    pub description: Option<String>,
}

impl BundleChannel {
    /// `232.1.2.3@192.0.2.10`, `[ff3e::8000:1]@[2001:db8::1]`, or the group alone.
    pub(crate) fn name_of_addresses(&self) -> String {
        let text = |address: IpAddr| if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        match self.source {
            Some(source) => format!("{}@{}", text(self.group), text(source)),
            None => text(self.group),
        }
    }
}

/// A Secret of Kubernetes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    pub(crate) values: BTreeMap<String, Vec<u8>>,
}

impl Secret {
    /// The value of a key as text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.values.get(key)?).ok()
    }
}

/// Without the values: objects end up in logs.
impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_struct("Secret").field("keys", &self.values.keys()).finish_non_exhaustive()
    }
}
