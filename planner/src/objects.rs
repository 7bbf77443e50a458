//! Manifests that were read and found good: addresses are addresses, spans are spans, every name leads somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU8;
use std::time::Duration;

use castgate_control::{Allow, Country, LoopCheck, Ports, ServerLimits, ServerTimers};
use castgate_crds::placement::Toleration;
use castgate_crds::tunnel_database::{Service, Storage};
use castgate_crds::tunnel_server::AddressType;
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
    pub(crate) databases: BTreeMap<ObjectName, Entry<Database>>,
    pub(crate) accounts: BTreeMap<ObjectName, Entry<Account>>,
    pub(crate) bundles: BTreeMap<ObjectName, Entry<Bundle>>,
    pub(crate) secrets: BTreeMap<ObjectName, Entry<Secret>>,
    pub(crate) not_served: BTreeSet<(&'static str, ObjectName)>,
}

impl Objects {
    /// Takes an object out.
    pub(crate) fn remove(&mut self, kind: Kind, name: &ObjectName) {
        match kind {
            Kind::ChannelBundle => drop(self.bundles.remove(name)),
            Kind::Secret => drop(self.secrets.remove(name)),
            Kind::TunnelAccount => drop(self.accounts.remove(name)),
            Kind::TunnelDatabase => drop(self.databases.remove(name)),
            Kind::TunnelServer => drop(self.servers.remove(name)),
            Kind::TunnelAssignmentPolicy | Kind::TunnelRelay => {
                self.not_served.remove(&(kind.name(), name.clone()));
            }
            Kind::Namespace => {}
        }
    }

    /// The tunnel servers.
    #[must_use]
    pub fn servers(&self) -> &BTreeMap<ObjectName, Entry<Server>> {
        &self.servers
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

    /// Objects that are good and that nothing serves yet, by kind.
    #[must_use]
    pub fn not_served(&self) -> &BTreeSet<(&'static str, ObjectName)> {
        &self.not_served
    }

    /// The Secrets.
    #[must_use]
    pub fn secrets(&self) -> &BTreeMap<ObjectName, Entry<Secret>> {
        &self.secrets
    }
}

/// A tunnel server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where tunnels end on one machine; 0.0.0.0 for every address.
    pub listen: SocketAddrV4,
    /// The address that tunnels end at, when it is named.
    pub address: Option<Ipv4Addr>,
    /// Which address of its node is meant when none is named.
    pub address_type: AddressType,
    /// The UDP port.
    pub port: u16,
    /// Interfaces with multicast.
    pub interfaces: Vec<String>,
    /// Names of its bundles, in its own namespace.
    pub bundles: Vec<String>,
    /// Where it registers.
    pub hierarchy: Hierarchy,
    /// What it carries at most.
    pub limits: ServerLimits,
    /// How long it waits.
    pub timers: ServerTimers,
    /// Which tunnels a native packet of a client's address ends.
    pub loop_check: LoopCheck,
    /// Threads that carry packets; `None`: one for each processor.
    pub workers: Option<NonZeroU8>,
    /// Labels of the nodes it may run on.
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that it may run on all the same.
    pub tolerations: Vec<Toleration>,
    /// How many nodes of the pool carry tunnels; `None`: all.
    pub replicas: Option<u32>,
}

/// A tunnel database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Where it answers; 0.0.0.0 for every address.
    pub listen: SocketAddrV4,
    /// Where it registers; no parents: a root.
    pub hierarchy: Hierarchy,
    /// How often those registered here refresh.
    pub update_interval: Duration,
    /// How clients reach it in a cluster.
    pub service: Service,
    /// The volume that its entries live on.
    pub storage: Storage,
    /// Labels of the nodes it may run on.
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that it may run on all the same.
    pub tolerations: Vec<Toleration>,
}

/// Where and for whom a server or a database registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// The databases above.
    pub parents: Vec<Parent>,
    /// Networks whose clients it is offered to.
    pub networks: Vec<IpNet>,
    /// Country whose clients it is offered to.
    pub country: Option<Country>,
    /// How often the registration is refreshed: whole seconds.
    pub update_interval: Duration,
}

/// A database above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Which database it is.
    pub place: ParentPlace,
    /// Name of the Secret with `login` and `password`.
    pub secret: String,
}

/// How a database above is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParentPlace {
    /// By where it answers.
    Url(DatabaseUrl),
    /// As a `TunnelDatabase` of the same namespace.
    Database(String),
}

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
    /// What may be registered.
    pub allow: Allow,
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
    pub group: Ipv4Addr,
    /// The only source; `None`: any.
    pub source: Option<Ipv4Addr>,
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
