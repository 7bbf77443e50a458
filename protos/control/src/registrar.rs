//! The registrar role: what this agent announces, and to whom.

use std::fmt;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use castgate_endpoint::hierarchy::policy::RouteTable;
use castgate_wire::registry::{Country, EntryType, Protocol, Scheme};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::adapter::AdapterRef;
use crate::tls::check_ca;
use crate::{RoutesSnapshot, SnapshotError, integer, words};

/// Entries that are announced to every parent, refreshed, and taken back at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistrarSnapshot {
    /// What is announced.
    pub entries: Vec<Registration>,
    /// The databases that are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Parent>,
    /// Instead of parents: who tells them for us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterRef>,
    /// Instead of parents: where the walks to them begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<RegistrarDiscovery>,
    /// Autonomous Systems whose networks every entry is for as well. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systems: Option<SystemsSnapshot>,
    /// How often, in seconds; a parent that answers with another interval is followed. Default: 300.
    #[serde(default = "default_interval", deserialize_with = "integer::read")]
    pub interval_seconds: NonZeroU32,
    /// First wait after a parent that did not answer, in seconds; doubled each time up to the interval. Default: 2.
    #[serde(default = "default_retry", deserialize_with = "integer::read")]
    pub retry_seconds: NonZeroU32,
}

/// Autonomous Systems, and what their networks are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SystemsSnapshot {
    /// Their numbers.
    pub asns: Vec<u32>,
    /// Which networks are theirs.
    pub routes: RoutesSnapshot,
}

/// One entry as a parent will hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Registration {
    /// `TS` or `TDS`.
    #[serde(rename = "type", with = "words::one")]
    pub entry_type: EntryType,
    /// The address under which clients reach it.
    pub source: IpAddr,
    /// The port under which clients reach it.
    #[serde(deserialize_with = "integer::read")]
    pub port: NonZeroU16,
    /// What a tunnel server speaks there; absent for a database.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "words::optional")]
    pub protocol: Option<Protocol>,
    /// Networks whose clients it is for. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<IpNet>,
    /// Country whose clients it is for. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "words::optional")]
    pub country: Option<Country>,
    /// How the HTTP of a database is carried: `http` or `https`. Default: `http`.
    #[serde(default, skip_serializing_if = "Scheme::is_http", with = "words::one")]
    pub scheme: Scheme,
}

/// A database above us and the login that it gave us.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parent {
    /// `http://HOST[:PORT]` or `https://HOST[:PORT]`; port 5632 when absent.
    pub url: String,
    /// User name at that database.
    pub login: String,
    /// Password at that database.
    pub password: String,
    /// The certificates that vouch for it, as PEM; for https. Default: those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// Without the password: a snapshot may end up in a log.
impl fmt::Debug for Parent {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let Self { url, login, password: _, ca: _ } = self;
        formatter.debug_struct("Parent").field("url", url).field("login", login).finish_non_exhaustive()
    }
}

/// How the databases to register with are found (draft-liefooghe-castgate-02 §4.1.2, §4.1.3). The own addresses of a database are the
/// sources of the entries.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistrarDiscovery {
    /// Databases at the top: `http://HOST[:PORT]`, `https://HOST[:PORT]`, `HOST[:PORT]`, or a bare name, which is tried as a service first.
    pub roots: Vec<String>,
    /// User name at every database that is found.
    pub login: String,
    /// Password at every database that is found.
    pub password: String,
    /// The certificates that vouch for databases, as PEM; for https. Default: those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// What a database is to one with exactly its network. Default: peer.
    #[serde(default)]
    pub role: DatabaseRole,
}

/// What a database is to another one with exactly the same network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DatabaseRole {
    /// Another copy of it.
    #[default]
    Peer,
    /// That of a customer inside the network: a child.
    Customer,
}

/// Without the password: a snapshot may end up in a log.
impl fmt::Debug for RegistrarDiscovery {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let Self { roots, login, password: _, ca: _, role } = self;
        formatter
            .debug_struct("RegistrarDiscovery")
            .field("roots", roots)
            .field("login", login)
            .field("role", role)
            .finish_non_exhaustive()
    }
}

/// Roots of one registrar: each is looked up in every walk.
const ROOTS_MAX: usize = 16;
/// Networks of the entries of one registrar that finds its parents: each is looked for by a walk of its own.
const NETWORKS_MAX: usize = 256;
/// Networks of Autonomous Systems that are announced to parents which are named: half of what a database takes of one entry.
const SYSTEM_NETWORKS_MAX: usize = 4_096;

/// The networks of Autonomous Systems as a registrar announces them: as few prefixes as say the same. Fewer are possible for one that
/// finds its parents.
///
/// # Errors
/// One sentence: there are none, or too many.
pub fn networks_of_systems(table: &RouteTable, asns: &[u32], finds_parents: bool) -> Result<Vec<IpNet>, String> {
    let max = if finds_parents { NETWORKS_MAX } else { SYSTEM_NETWORKS_MAX };
    match table.networks_of(asns, max) {
        Ok(networks) if networks.is_empty() => Err("have no network in the route table".to_owned()),
        Ok(networks) => Ok(networks),
        Err(error) => Err(error.to_string()),
    }
}

impl RegistrarSnapshot {
    /// A registrar with the default intervals.
    #[must_use]
    pub fn new(entries: Vec<Registration>, parents: Vec<Parent>) -> Self {
        Self {
            entries,
            parents,
            adapter: None,
            discovery: None,
            systems: None,
            interval_seconds: default_interval(),
            retry_seconds: default_retry(),
        }
    }

    /// The same with the networks of `systems` in every entry, and without `systems`. `table` is the file of their routes, which the
    /// caller has read.
    ///
    /// # Errors
    /// One sentence that names the field: there are no such networks, or too many.
    pub fn resolve(mut self, table: Option<Arc<RouteTable>>) -> Result<Self, SnapshotError> {
        let Some(SystemsSnapshot { asns, routes }) = self.systems.take() else { return Ok(self) };
        let rows = routes.compile().map_err(|error| error.within("systems.routes"))?;
        let table = table.or(rows).unwrap_or_default();
        let networks = networks_of_systems(&table, &asns, self.discovery.is_some())
            .map_err(|reason| SnapshotError::new("systems.asns", reason))?;
        for entry in &mut self.entries {
            entry.networks.extend(&networks);
            entry.networks.sort_unstable();
            entry.networks.dedup();
        }
        self.check()?;
        Ok(self)
    }

    pub(crate) fn check(&self) -> Result<(), SnapshotError> {
        check_entries(&self.entries)?;
        check_parents(&self.parents)?;
        match &self.adapter {
            Some(_) if !self.parents.is_empty() => {
                return Err(SnapshotError::new("parents", "are there beside an adapter: one of the two announces"));
            }
            Some(_) if self.discovery.is_some() => {
                return Err(SnapshotError::new("discovery", "is there beside an adapter: one of the two announces"));
            }
            Some(adapter) => adapter.check().map_err(|error| error.within("adapter"))?,
            None if self.parents.is_empty() && self.discovery.is_none() && !self.entries.is_empty() => {
                let what = "is empty: name the databases that are told, an adapter that tells them, or discovery";
                return Err(SnapshotError::new("parents", what));
            }
            None => {}
        }
        if let Some(SystemsSnapshot { asns, routes }) = &self.systems {
            if self.adapter.is_some() {
                return Err(SnapshotError::new("systems", "are there beside an adapter, which knows its entries"));
            }
            if asns.is_empty() {
                return Err(SnapshotError::new("systems.asns", "is empty"));
            }
            routes.compile().map_err(|error| error.within("systems.routes"))?;
        }
        check_discovery(self.discovery.as_ref(), &self.parents, &self.entries)
    }
}

/// Parents are named or found, and found from somewhere.
pub(crate) fn check_discovery(
    discovery: Option<&RegistrarDiscovery>,
    parents: &[Parent],
    entries: &[Registration],
) -> Result<(), SnapshotError> {
    let Some(discovery) = discovery else { return Ok(()) };
    if !parents.is_empty() {
        return Err(SnapshotError::new("parents", "are there beside discovery: they are either named or found"));
    }
    discovery.check().map_err(|error| error.within("discovery"))?;
    let mut networks: Vec<&IpNet> = entries.iter().flat_map(|entry| &entry.networks).collect();
    networks.sort_unstable();
    networks.dedup();
    if networks.len() > NETWORKS_MAX {
        let what = format_args!("have {} networks; discovery looks for {NETWORKS_MAX} at most", networks.len());
        return Err(SnapshotError::new("entries", what));
    }
    Ok(())
}

/// Every entry is one, and none is there twice.
pub(crate) fn check_entries(entries: &[Registration]) -> Result<(), SnapshotError> {
    for (index, entry) in entries.iter().enumerate() {
        let field = format!("entries[{index}]");
        entry.check().map_err(|error| error.within(&field))?;
        if entries[..index].iter().any(|other| other.key() == entry.key()) {
            return Err(SnapshotError::new(field, "is there twice (same type, source, port and protocol)"));
        }
    }
    Ok(())
}

/// Every parent is one, and none is there twice.
pub(crate) fn check_parents(parents: &[Parent]) -> Result<(), SnapshotError> {
    for (index, parent) in parents.iter().enumerate() {
        let field = format!("parents[{index}]");
        parent.check().map_err(|error| error.within(&field))?;
        if parents[..index].iter().any(|other| other.url == parent.url) {
            return Err(SnapshotError::new(format!("{field}.url"), format_args!("{} is there twice", parent.url)));
        }
    }
    Ok(())
}

impl Registration {
    fn key(&self) -> (EntryType, IpAddr, NonZeroU16, Option<&Protocol>) {
        (self.entry_type, self.source, self.port, self.protocol.as_ref())
    }

    fn check(&self) -> Result<(), SnapshotError> {
        if self.source.is_unspecified() || self.source.is_multicast() {
            return Err(SnapshotError::new("source", format_args!("{} is not the address of a host", self.source)));
        }
        match (self.entry_type, &self.protocol) {
            (EntryType::TunnelServer, None) => {
                Err(SnapshotError::new("protocol", "is missing: a tunnel server names it"))
            }
            (EntryType::TunnelDatabase, Some(_)) => Err(SnapshotError::new("protocol", "is not for a database")),
            (EntryType::TunnelServer, Some(_)) if self.scheme == Scheme::Https => {
                Err(SnapshotError::new("scheme", "is not for a tunnel server"))
            }
            (EntryType::TunnelServer, Some(_)) | (EntryType::TunnelDatabase, None) => Ok(()),
        }
    }
}

impl Parent {
    fn check(&self) -> Result<(), SnapshotError> {
        let secure = self.url.strip_prefix("https://");
        let authority = secure.or_else(|| self.url.strip_prefix("http://"));
        let authority = authority.map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        let good = authority.is_some_and(|authority| {
            !authority.is_empty()
                && !authority.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@' | '?' | '#'))
        });
        if !good {
            return Err(SnapshotError::new(
                "url",
                format_args!("{:?} is not http://HOST[:PORT] or https://HOST[:PORT]", self.url),
            ));
        }
        if self.ca.is_some() && secure.is_none() {
            return Err(SnapshotError::new("ca", "is for https, and the url is one of http"));
        }
        check_ca(self.ca.as_ref())?;
        check_login(&self.login)
    }
}

impl RegistrarDiscovery {
    fn check(&self) -> Result<(), SnapshotError> {
        check_ca(self.ca.as_ref())?;
        if self.roots.is_empty() {
            return Err(SnapshotError::new("roots", "is empty: every way begins at a root"));
        }
        if self.roots.len() > ROOTS_MAX {
            return Err(SnapshotError::new("roots", format_args!("lists more than {ROOTS_MAX} databases")));
        }
        for (index, root) in self.roots.iter().enumerate() {
            let field = format!("roots[{index}]");
            // Whether it is the address of a database the agent says in more words.
            if root.is_empty() || root.contains(|c: char| c.is_whitespace() || matches!(c, '@' | '?' | '#')) {
                return Err(SnapshotError::new(
                    field,
                    format_args!("{root:?} is not http://HOST[:PORT], https://HOST[:PORT] or HOST[:PORT]"),
                ));
            }
            if self.roots[..index].contains(root) {
                return Err(SnapshotError::new(field, format_args!("{root} is there twice")));
            }
        }
        check_login(&self.login)
    }
}

fn check_login(login: &str) -> Result<(), SnapshotError> {
    if login.is_empty() || login.contains(|c: char| c == ':' || c.is_control()) {
        return Err(SnapshotError::new("login", format_args!("{login:?} cannot be a login")));
    }
    Ok(())
}

pub(crate) const fn default_interval() -> NonZeroU32 {
    NonZeroU32::new(300).expect("300 is not zero")
}

const fn default_retry() -> NonZeroU32 {
    NonZeroU32::new(2).expect("2 is not zero")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_networks_of_autonomous_systems_are_in_every_entry_and_too_many_or_none_are_refused() {
        let text = "
entries:
  - {type: TS, source: 192.0.2.1, port: 10100, protocol: UDP, networks: [192.0.2.0/24]}
  - {type: TS, source: 192.0.2.1, port: 2268, protocol: AMT}
discovery: {roots: [192.0.2.9], login: me, password: s3cret}
systems: {asns: [64500], routes: {rows: ['10.0.0.0/24,64500', '10.0.1.0/24,64500', '192.0.2.0/24,64500']}}
";
        let snapshot: RegistrarSnapshot = serde_saphyr::from_str(text).unwrap();
        snapshot.check().unwrap();
        let resolved = snapshot.clone().resolve(None).unwrap();
        let networks = |entry: &Registration| entry.networks.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(networks(&resolved.entries[0]), ["10.0.0.0/23", "192.0.2.0/24"]);
        assert_eq!(networks(&resolved.entries[1]), ["10.0.0.0/23", "192.0.2.0/24"]);
        assert_eq!(resolved.systems, None);
        let with = |rows: Vec<String>| {
            let routes = RoutesSnapshot { file: None, rows };
            let systems = Some(SystemsSnapshot { asns: vec![64_500], routes });
            RegistrarSnapshot { systems, ..snapshot.clone() }.resolve(None).unwrap_err().to_string()
        };
        assert_eq!(with(vec!["10.0.0.0/24,64501".to_owned()]), "systems.asns: have no network in the route table");
        let many = (0..257).map(|n| format!("10.{}.{}.0/24,64500", n / 128, n % 128 * 2)).collect();
        assert_eq!(with(many), "systems.asns: have 257 networks, and no more than 256 are registered");
    }
}
