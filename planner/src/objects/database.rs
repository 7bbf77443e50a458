//! Tunnel databases, where and with whom they and others register, and the accounts there.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Duration;

use castgate_control::{Allow, Country, DatabaseRole, Scheme};
use castgate_crds::placement::Toleration;
use castgate_crds::tunnel_database::{Service, Storage};
use ipnet::IpNet;

use super::RouteSource;
use crate::url::DatabaseUrl;

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
