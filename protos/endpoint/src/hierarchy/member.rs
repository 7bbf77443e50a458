//! A database as a walk meets it: where to connect to, and how it is spoken to.
//!
//! Shared by those who walk down the hierarchy: the locator, and the discovery of the registrar.

use std::net::{IpAddr, SocketAddr};

use castgate_wire::registry::{self, Scheme, Server};
use serde::{Deserialize, Serialize};

use super::address::{DatabaseAddress, Place};
use super::locator::ServiceTarget;
use super::lot::Lot;

/// Members of one list that are kept: more would only be more ways to fail.
pub(super) const MEMBERS_MAX: usize = 64;

/// A database of one step.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// How it is spoken to. Absent in what an earlier version left.
    #[serde(default, skip_serializing_if = "Scheme::is_http", with = "super::scheme")]
    pub scheme: Scheme,
    /// Where to connect to.
    pub address: SocketAddr,
    /// The `Host` field of a request.
    pub authority: String,
    /// The path of a request.
    pub path: String,
}

impl Member {
    /// A database that is known by its address alone, over http.
    #[must_use]
    pub fn of_socket(address: SocketAddr) -> Self {
        Self { scheme: Scheme::Http, address, authority: address.to_string(), path: registry::PATH.to_owned() }
    }

    /// A database as another one names it.
    pub(super) fn of_server(server: &Server) -> Self {
        Self { scheme: server.scheme, ..Self::of_socket(SocketAddr::new(server.address, server.port)) }
    }
}

/// A database of which the name is known and not yet the address.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) scheme: Scheme,
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) path: String,
}

impl Named {
    /// The databases at the addresses of the name.
    pub(super) fn members(&self, addresses: Vec<IpAddr>) -> Vec<Member> {
        let Self { scheme, name, port, path } = self;
        let member = |address| Member {
            scheme: *scheme,
            address: SocketAddr::new(address, *port),
            authority: format!("{name}:{port}"),
            path: path.clone(),
        };
        addresses.into_iter().map(member).collect()
    }
}

impl From<Named> for DatabaseAddress {
    fn from(Named { scheme, name, port, path }: Named) -> Self {
        Self { scheme, place: Place::Name { name, port }, path }
    }
}

/// The databases behind SRV records (RFC 2782): by priority, and among equals drawn by weight. A single target "." says that the
/// service is decidedly not there: none.
pub(super) fn in_service_order(targets: Vec<ServiceTarget>, lot: &mut Lot) -> Vec<DatabaseAddress> {
    if targets.iter().any(|target| matches!(target.target.as_str(), "" | ".")) {
        return Vec::new();
    }
    let database = |target: ServiceTarget| {
        let name = target.target.trim_end_matches('.').to_owned();
        // A bare name says nothing of https; whoever means that writes a URL, which is no service.
        DatabaseAddress::at(Scheme::Http, Place::Name { name, port: target.port })
    };
    in_order(targets, lot).into_iter().map(database).collect()
}

fn in_order(mut targets: Vec<ServiceTarget>, lot: &mut Lot) -> Vec<ServiceTarget> {
    targets.truncate(MEMBERS_MAX);
    lot.shuffle(&mut targets);
    targets.sort_by_key(|target| target.priority);
    let mut order = Vec::with_capacity(targets.len());
    while let Some(first) = targets.first() {
        let priority = first.priority;
        let equals = targets.iter().take_while(|target| target.priority == priority);
        // One more than its weight, so that a weight of 0 is drawn seldom and not never.
        let sum: u64 = equals.map(|target| u64::from(target.weight) + 1).sum();
        let mut drawn = lot.below(sum);
        let chosen = targets.iter().position(|target| {
            let share = u64::from(target.weight) + 1;
            let here = drawn < share;
            drawn = drawn.saturating_sub(share);
            here
        });
        order.push(targets.remove(chosen.unwrap_or_default()));
    }
    order
}
