//! What makes a server a relay: the tunnel that its channels come through, how its other end is found, and where they go beside
//! the tunnels of the server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

use castgate_endpoint::hierarchy::address::DatabaseAddress;
use castgate_wire::registry::Country;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::server::check_interface;
use crate::tls::check_ca;
use crate::{Place, SnapshotError, integer, words};

/// Most places, rows or resolvers that one list of an upstream names.
const LIST_MAX: usize = 256;
/// Most servers to stay away from: the relays of a large fleet.
const AVOID_MAX: usize = 10_000;

/// Where a relay takes its channels from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpstreamSnapshot {
    /// What the tunnel to the server above is.
    pub protocol: UpstreamProtocol,
    /// How the server above is found.
    pub discovery: Discovery,
    /// Name servers to ask. Default: those of the system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<SocketAddr>,
    /// Servers that are never taken, whoever offers them: this relay itself, and others that take their channels from the same
    /// place. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<SocketAddr>,
    /// How the AMT gateway behaves; nothing to UMTP.
    #[serde(default)]
    pub gateway: GatewaySnapshot,
    /// Where channels go beside the tunnels of this server. Default: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySnapshot>,
}

/// What a tunnel to a server above is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UpstreamProtocol {
    /// Automatic Multicast Tunneling (RFC 7450): this relay is its gateway.
    Amt,
    /// The UDP Multicast Tunneling Protocol: this relay is its client.
    Umtp,
}

/// How the server above is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Discovery {
    /// Databases are asked, as clients do.
    Hierarchy(HierarchyDiscovery),
    /// `AMTRELAY` records of a channel's source are looked up (RFC 8777).
    Driad(DriadDiscovery),
    /// Servers are named.
    Static(StaticDiscovery),
    /// Relays are found under an address that several have, or a name of such an address.
    Anycast(AnycastDiscovery),
    /// Each channel has its relays (RFC 8313 §3.4 d).
    Map(MapDiscovery),
}

/// Databases are asked, as clients do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HierarchyDiscovery {
    /// Where the walk begins: a database without a port answers at 5632, a bare name is first tried as a service, and one over
    /// https is written as a URL.
    pub tds: Vec<DatabaseAddress>,
    /// The certificates that vouch for databases, as PEM; for https. Default: those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Country to ask for. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "words::optional")]
    pub country: Option<Country>,
}

/// `AMTRELAY` records are looked up, and before them what RFC 8777 §2.3 puts before them, as far as it is wanted here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DriadDiscovery {
    /// Domains whose service `_amt._udp` is asked first. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_sd: Vec<String>,
    /// Whether the anycast addresses of RFC 7450 §7.1 are tried before the records. Default: no.
    pub anycast: bool,
}

/// Servers are named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StaticDiscovery {
    /// The servers, best first. Without a port: 2268 for AMT, 10100 for UMTP.
    pub servers: Vec<Place>,
}

/// Relays are found under an address that several have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AnycastDiscovery {
    /// Anycast addresses or names of such, best first. Without a port: 2268. Default: 192.52.193.1 and `2001:3::1` (RFC 7450
    /// §7.1).
    pub relays: Vec<Place>,
}

/// Each channel has its relays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MapDiscovery {
    /// The first row that covers a channel says where it comes from; what none covers comes from nowhere.
    pub rows: Vec<MapRow>,
}

/// Some channels and the relays that have them. It covers a channel whose group and source lie within both prefixes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MapRow {
    /// Groups. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<IpNet>,
    /// Sources; a channel of any source is in no such row. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpNet>,
    /// The relays, best first. Without a port: 2268.
    pub relays: Vec<Place>,
}

/// How the AMT gateway of a relay behaves. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GatewaySnapshot {
    /// Whether relays with an address of version 6 are used. Default: yes.
    pub ipv6: bool,
    /// Whether it tells relays that it understands ECN (RFC 9601). Default: yes.
    pub ecn: bool,
    /// First wait for an answer to a Discovery or a Request; doubled each time. Default: 1 000 (RFC 7450 §5.2.3.4.3).
    #[serde(deserialize_with = "integer::read")]
    pub initial_timeout_ms: NonZeroU32,
    /// Longest such wait. Default: 120 000.
    #[serde(deserialize_with = "integer::read")]
    pub maximum_timeout_ms: NonZeroU32,
    /// A channel that is silent for so long, up to twice as long by chance, has lost its relay. Default: 4 000 (RFC 8777 §2.5.3).
    #[serde(deserialize_with = "integer::read")]
    pub silence_ms: NonZeroU32,
    /// How long a relay without traffic is not asked again. Default: 180 000 (RFC 8777 §2.5.3: 3 to 10 minutes).
    #[serde(deserialize_with = "integer::read")]
    pub hold_down_ms: NonZeroU32,
    /// How long a relay that takes no more gateways (L flag) is not asked again. Default: 600 000 (RFC 8777 §2.5.4).
    #[serde(deserialize_with = "integer::read")]
    pub full_hold_down_ms: NonZeroU32,
}

/// Where the channels of a relay go beside its tunnels, with their own source addresses. What hosts there ask for with IGMP or MLD
/// is taken from the server above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliverySnapshot {
    /// Network interfaces with receivers. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// Name of a TUN interface that is made for receivers of this machine. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tun: Option<String>,
}

impl UpstreamSnapshot {
    /// An upstream with the defaults of everything that has one.
    #[must_use]
    pub fn new(protocol: UpstreamProtocol, discovery: Discovery) -> Self {
        Self {
            protocol,
            discovery,
            resolvers: Vec::new(),
            avoid: Vec::new(),
            gateway: GatewaySnapshot::default(),
            delivery: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), SnapshotError> {
        let Self { protocol, discovery, resolvers, avoid, gateway, delivery } = self;
        discovery.check(*protocol).map_err(|error| error.within("discovery"))?;
        bounded("resolvers", resolvers)?;
        for (index, resolver) in resolvers.iter().enumerate() {
            if resolver.port() == 0 || resolver.ip().is_unspecified() || resolver.ip().is_multicast() {
                let field = format!("resolvers[{index}]");
                return Err(SnapshotError::new(field, format_args!("{resolver} is not the place of a name server")));
            }
        }
        if avoid.len() > AVOID_MAX {
            return Err(SnapshotError::new("avoid", format_args!("lists more than {AVOID_MAX} servers")));
        }
        gateway.check().map_err(|error| error.within("gateway"))?;
        delivery.as_ref().map_or(Ok(()), |delivery| delivery.check().map_err(|error| error.within("delivery")))
    }
}

impl Discovery {
    /// Its word in a snapshot.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Hierarchy(_) => "hierarchy",
            Self::Driad(_) => "driad",
            Self::Static(_) => "static",
            Self::Anycast(_) => "anycast",
            Self::Map(_) => "map",
        }
    }

    fn check(&self, protocol: UpstreamProtocol) -> Result<(), SnapshotError> {
        let word = self.word();
        match self {
            Self::Hierarchy(_) | Self::Static(_) => {}
            Self::Driad(_) | Self::Anycast(_) | Self::Map(_) if protocol == UpstreamProtocol::Amt => {}
            Self::Driad(_) | Self::Anycast(_) | Self::Map(_) => {
                return Err(SnapshotError::new(word, "finds AMT relays only, and protocol is umtp"));
            }
        }
        let checked = match self {
            Self::Hierarchy(HierarchyDiscovery { tds, ca, country: _ }) => {
                check_ca(ca.as_ref()).and_then(|()| some("tds", tds))
            }
            Self::Static(StaticDiscovery { servers }) => some("servers", servers),
            Self::Anycast(AnycastDiscovery { relays }) => some("relays", relays),
            Self::Driad(DriadDiscovery { dns_sd, anycast: _ }) => check_domains(dns_sd),
            Self::Map(MapDiscovery { rows }) => check_rows(rows),
        };
        checked.map_err(|error| error.within(word))
    }
}

fn check_domains(domains: &[String]) -> Result<(), SnapshotError> {
    bounded("dnsSd", domains)?;
    for (index, domain) in domains.iter().enumerate() {
        let is_name = domain.parse::<Place>().is_ok_and(|place| place.port().is_none() && place.address().is_none());
        if !is_name {
            return Err(SnapshotError::new(format!("dnsSd[{index}]"), format_args!("{domain:?} is not a domain")));
        }
    }
    Ok(())
}

fn check_rows(rows: &[MapRow]) -> Result<(), SnapshotError> {
    some("rows", rows)?;
    for (index, row) in rows.iter().enumerate() {
        row.check().map_err(|error| error.within(&format!("rows[{index}]")))?;
    }
    Ok(())
}

impl MapRow {
    /// Whether the row says where a channel comes from.
    #[must_use]
    pub fn covers(&self, group: IpAddr, source: Option<IpAddr>) -> bool {
        let within = |prefix: &IpNet, address: Option<IpAddr>| address.is_some_and(|address| prefix.contains(&address));
        self.group.as_ref().is_none_or(|prefix| within(prefix, Some(group)))
            && self.source.as_ref().is_none_or(|prefix| within(prefix, source))
    }

    fn check(&self) -> Result<(), SnapshotError> {
        let Self { group, source, relays } = self;
        match (group, source) {
            (None, None) => return Err(SnapshotError::new("group", "is missing, and source too: name one of the two")),
            (Some(group), Some(source))
                if matches!((group, source), (IpNet::V4(_), IpNet::V6(_)) | (IpNet::V6(_), IpNet::V4(_))) =>
            {
                return Err(SnapshotError::new("source", format_args!("{source} is not of the family of {group}")));
            }
            _ => {}
        }
        if let Some(group) = group.filter(|group| !groups_of(group).contains(group)) {
            return Err(SnapshotError::new("group", format_args!("{group} does not lie within {}", groups_of(&group))));
        }
        if let Some(source) = source.filter(|source| groups_of(source).contains(source)) {
            return Err(SnapshotError::new("source", format_args!("{source} holds groups, not sources")));
        }
        some("relays", relays)
    }
}

/// All groups of a family.
fn groups_of(family: &IpNet) -> IpNet {
    let (address, length) = match family {
        IpNet::V4(_) => (Ipv4Addr::new(224, 0, 0, 0).into(), 4),
        IpNet::V6(_) => (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8),
    };
    IpNet::new(address, length).expect("4 and 8 are lengths of prefixes")
}

impl GatewaySnapshot {
    fn check(&self) -> Result<(), SnapshotError> {
        let Self {
            ipv6: _,
            ecn: _,
            initial_timeout_ms,
            maximum_timeout_ms,
            silence_ms: _,
            hold_down_ms: _,
            full_hold_down_ms: _,
        } = self;
        if initial_timeout_ms > maximum_timeout_ms {
            let what = format!("{maximum_timeout_ms} is below initialTimeoutMs, {initial_timeout_ms}");
            return Err(SnapshotError::new("maximumTimeoutMs", what));
        }
        Ok(())
    }
}

impl DeliverySnapshot {
    fn check(&self) -> Result<(), SnapshotError> {
        let Self { interfaces, tun } = self;
        if interfaces.is_empty() && tun.is_none() {
            return Err(SnapshotError::new("interfaces", "names no interface, and there is no tun"));
        }
        for (index, name) in interfaces.iter().enumerate() {
            let field = format!("interfaces[{index}]");
            check_interface(name).map_err(|reason| SnapshotError::new(&field, reason))?;
            if interfaces[..index].contains(name) {
                return Err(SnapshotError::new(field, format_args!("{name:?} is named twice")));
            }
        }
        if let Some(tun) = tun {
            check_interface(tun).map_err(|reason| SnapshotError::new("tun", reason))?;
            if interfaces.contains(tun) {
                return Err(SnapshotError::new("tun", format_args!("{tun:?} is one of interfaces too")));
            }
        }
        Ok(())
    }
}

impl Default for AnycastDiscovery {
    fn default() -> Self {
        let relays = ["192.52.193.1", "2001:3::1"];
        Self { relays: relays.map(|address| address.parse().expect("these are addresses of hosts")).to_vec() }
    }
}

impl Default for GatewaySnapshot {
    fn default() -> Self {
        Self {
            ipv6: true,
            ecn: true,
            initial_timeout_ms: non_zero(1_000),
            maximum_timeout_ms: non_zero(120_000),
            silence_ms: non_zero(4_000),
            hold_down_ms: non_zero(180_000),
            full_hold_down_ms: non_zero(600_000),
        }
    }
}

const fn non_zero(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("the constants of this file are not zero")
}

fn some<T>(field: &str, list: &[T]) -> Result<(), SnapshotError> {
    if list.is_empty() { Err(SnapshotError::new(field, "lists nothing")) } else { bounded(field, list) }
}

fn bounded<T>(field: &str, list: &[T]) -> Result<(), SnapshotError> {
    if list.len() <= LIST_MAX {
        return Ok(());
    }
    Err(SnapshotError::new(field, format_args!("lists {}, more than {LIST_MAX}", list.len())))
}
