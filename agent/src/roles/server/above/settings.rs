//! An upstream of the snapshot in the words of those who carry it out.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use castgate_client::{CacheFolder, Dns, Locator, Trust};
use castgate_control::{
    AnycastDiscovery, Discovery, DriadDiscovery, GatewaySnapshot, HierarchyDiscovery, MapDiscovery, MapRow, Place,
    StaticDiscovery, UpstreamSnapshot,
};
use castgate_endpoint::amt::discovery::{self, Mapping, Method};
use castgate_endpoint::amt::gateway;
use castgate_wire::amt;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::super::settings::millis;

/// Which channels a relay may ask for at one time: what all its clients may want together.
const CHANNELS_MAX: usize = 100_000;

/// Who is asked for names.
pub(super) fn dns(snapshot: &UpstreamSnapshot) -> Dns {
    Dns::of(snapshot.resolvers.clone())
}

/// The walk down the hierarchy, where servers are found by it.
pub(super) fn locator(snapshot: &UpstreamSnapshot) -> Option<Locator> {
    let Discovery::Hierarchy(HierarchyDiscovery { tds, ca, country }) = &snapshot.discovery else { return None };
    let locator = Locator::new(tds.clone(), *country, dns(snapshot), CacheFolder::none());
    // What cannot be read vouches for nobody: the walk says so of every database over https.
    let trust = ca.as_deref().map_or_else(Trust::system, |ca| Trust::only(ca).unwrap_or_else(Trust::nobody));
    let locator = locator.trusting(trust);
    // What is to be avoided is where this relay and its like are reached themselves.
    Some(locator.for_relay_at(snapshot.avoid.clone()))
}

/// How an AMT relay is found.
pub(super) fn discovery(snapshot: &UpstreamSnapshot) -> discovery::Config {
    let GatewaySnapshot { ipv6, hold_down_ms, full_hold_down_ms, .. } = snapshot.gateway;
    let hold_down = millis(hold_down_ms);
    let base = discovery::Config {
        ipv6,
        silent_hold_down_min: hold_down,
        silent_hold_down_max: hold_down,
        limit_hold_down: millis(full_hold_down_ms),
        channels_max: CHANNELS_MAX,
        ..discovery::Config::default()
    };
    match &snapshot.discovery {
        Discovery::Hierarchy(_) => discovery::Config { methods: vec![Method::Hierarchy], ..base },
        Discovery::Static(StaticDiscovery { servers }) => {
            discovery::Config { methods: vec![Method::Explicit], relays: servers.iter().map(relay).collect(), ..base }
        }
        Discovery::Anycast(AnycastDiscovery { relays }) => {
            let given: Vec<_> = relays.iter().map(relay).collect();
            let anycast = if given.is_empty() { base.anycast.clone() } else { given };
            discovery::Config { methods: vec![Method::Anycast], anycast, ..base }
        }
        Discovery::Driad(DriadDiscovery { dns_sd, anycast }) => {
            let methods = [(Method::DnsSd, !dns_sd.is_empty()), (Method::Anycast, *anycast), (Method::Driad, true)];
            discovery::Config {
                methods: methods.into_iter().filter_map(|(method, is_wanted)| is_wanted.then_some(method)).collect(),
                domains: dns_sd.clone(),
                ..base
            }
        }
        Discovery::Map(MapDiscovery { rows }) => {
            discovery::Config { methods: vec![Method::Map], map: rows.iter().filter_map(mappings).collect(), ..base }
        }
    }
}

/// A row without a group stands for the groups of its sources' family.
fn mappings(row: &MapRow) -> Option<Mapping> {
    let MapRow { group, source, relays } = row;
    let groups = match (group, source) {
        (Some(group), _) => *group,
        (None, Some(IpNet::V4(_))) => IpNet::V4(Ipv4Net::new_assert([224, 0, 0, 0].into(), 4)),
        (None, Some(IpNet::V6(_))) => IpNet::V6(Ipv6Net::new_assert([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8)),
        // The snapshot's own check has refused it.
        (None, None) => return None,
    };
    Some(Mapping { groups, sources: *source, relays: relays.iter().map(relay).collect(), discovery_first: false })
}

fn relay(place: &Place) -> discovery::Place {
    let port = place.port().map_or(amt::PORT, NonZeroU16::get);
    match place.address() {
        Some(address) => discovery::Place::Address(SocketAddr::new(address, port)),
        None => discovery::Place::Name(place.host().to_owned(), port),
    }
}

/// How each gateway behaves.
pub(super) fn gateway(snapshot: &UpstreamSnapshot) -> gateway::Config {
    let GatewaySnapshot { ipv6: _, ecn, initial_timeout_ms, maximum_timeout_ms, silence_ms, .. } = snapshot.gateway;
    gateway::Config {
        ecn,
        timeout_initial: millis(initial_timeout_ms),
        timeout_max: millis(maximum_timeout_ms),
        silence_initial: Some(millis(silence_ms)),
        groups_max: CHANNELS_MAX,
        ..gateway::Config::default()
    }
}

/// Whether the upstream never takes this server.
pub(super) fn is_avoided(avoid: &[SocketAddr], server: SocketAddr) -> bool {
    let canonical = |address: IpAddr| address.to_canonical();
    avoid.iter().any(|one| canonical(one.ip()) == canonical(server.ip()) && one.port() == server.port())
}
