//! Manifests that were read and found good: addresses are addresses, spans are spans, every name leads somewhere.

mod carrier;
mod content;
mod database;
mod policy;

use std::collections::BTreeMap;
use std::fmt;

use crate::document::Kind;
use crate::problem::Pruned;

pub(crate) use self::carrier::Place;
pub use self::carrier::{Amt, Feed, Server, Upstream};
pub use self::content::{Bundle, BundleChannel, ConfigMap, Secret};
pub use self::database::{Account, Database, Etcd, FromTheRoots, Hierarchy, Parent, ParentPlace, Peers, Store};
pub(crate) use self::database::{CA, TLS_CERTIFICATE, TLS_KEY};
pub use self::policy::{Policy, PolicyPool, PolicyRule, RouteSource, Target};

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
