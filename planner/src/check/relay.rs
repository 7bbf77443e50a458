//! A tunnel relay by itself: where its channels come from, and where they go beside its tunnels.

use std::net::{IpAddr, SocketAddr};

use castgate_control::{
    AnycastDiscovery, DeliverySnapshot, Discovery, DriadDiscovery, GatewaySnapshot, HierarchyDiscovery, MapDiscovery,
    MapRow, StaticDiscovery, UpstreamProtocol, UpstreamSnapshot,
};
use castgate_crds::TunnelRelaySpec;
use castgate_crds::tunnel_relay as spec;

use super::hierarchy::authority;
use super::{fields, server};
use crate::objects::{Feed, Server, Upstream};
use crate::problem::Reporter;

/// Port of a name server.
const DNS_PORT: u16 = 53;

pub(crate) fn relay(spec: &TunnelRelaySpec, reporter: &mut Reporter) -> Server {
    let TunnelRelaySpec { tunnels, upstream, delivery } = spec;
    let mut upstream = read_upstream(upstream, reporter);
    upstream.snapshot.delivery = delivery.as_ref().map(|delivery| read_delivery(delivery, reporter));
    let mut relay = server::tunnels(tunnels, Feed::Upstream(Box::new(upstream)), reporter);
    let own = relay.hierarchy.country;
    if let Feed::Upstream(upstream) = &mut relay.feed
        && let Discovery::Hierarchy(HierarchyDiscovery { country, .. }) = &mut upstream.snapshot.discovery
    {
        *country = country.or(own);
    }
    relay
}

/// Which of its fields go together is CEL alone.
fn read_upstream(spec: &spec::Upstream, reporter: &mut Reporter) -> Upstream {
    let spec::Upstream {
        protocol,
        discovery,
        tds,
        database_ref,
        ca_secret_ref,
        country,
        servers,
        driad,
        relays,
        map,
        resolvers,
        gateway,
    } = spec;
    let tds = fields::databases(tds, "spec.upstream.tds", reporter);
    let country = country.as_ref().and_then(|text| fields::country(text, "spec.upstream.country", reporter));
    let servers = fields::places(servers, "spec.upstream.servers", reporter);
    let relays = fields::places(relays, "spec.upstream.relays", reporter);
    let rows = map.iter().enumerate();
    let rows =
        rows.filter_map(|(index, row)| read_row(row, &format!("spec.upstream.map[{index}]"), reporter)).collect();
    if let Some(database) = database_ref {
        fields::label(&database.name, "spec.upstream.databaseRef.name", reporter);
    }
    let discovery = match discovery {
        spec::Discovery::Hierarchy => Discovery::Hierarchy(HierarchyDiscovery { tds, ca: None, country }),
        spec::Discovery::Driad => Discovery::Driad(read_driad(driad.as_ref(), reporter)),
        spec::Discovery::Static => Discovery::Static(StaticDiscovery { servers }),
        spec::Discovery::Anycast if relays.is_empty() => Discovery::Anycast(AnycastDiscovery::default()),
        spec::Discovery::Anycast => Discovery::Anycast(AnycastDiscovery { relays }),
        spec::Discovery::Map => Discovery::Map(MapDiscovery { rows }),
    };
    let protocol = match protocol {
        spec::UpstreamProtocol::Amt => UpstreamProtocol::Amt,
        spec::UpstreamProtocol::Umtp => UpstreamProtocol::Umtp,
    };
    let snapshot = UpstreamSnapshot {
        resolvers: read_resolvers(resolvers, reporter),
        gateway: gateway.as_ref().map(|gateway| read_gateway(gateway, reporter)).unwrap_or_default(),
        ..UpstreamSnapshot::new(protocol, discovery)
    };
    let ca = authority(ca_secret_ref.as_ref(), "spec.upstream", reporter);
    Upstream { snapshot, database: database_ref.as_ref().map(|database| database.name.clone()), ca }
}

fn read_driad(driad: Option<&spec::Driad>, reporter: &mut Reporter) -> DriadDiscovery {
    let Some(spec::Driad { dns_sd, anycast }) = driad else { return DriadDiscovery::default() };
    for (index, domain) in dns_sd.iter().enumerate() {
        let path = format!("spec.upstream.driad.dnsSd[{index}]");
        if let Some(place) = fields::place(domain, &path, reporter)
            && (place.address().is_some() || place.port().is_some())
        {
            reporter.report(path, format_args!("\"{domain}\" is not a domain"));
        }
    }
    DriadDiscovery { dns_sd: dns_sd.clone(), anycast: *anycast }
}

fn read_row(row: &spec::MapRow, path: &str, reporter: &mut Reporter) -> Option<MapRow> {
    let spec::MapRow { group, source, relays } = row;
    let mut prefix = |text: &Option<String>, field: &str| {
        text.as_ref().map(|text| fields::prefix(text, &format!("{path}.{field}"), reporter))
    };
    let (group, source) = (prefix(group, "group"), prefix(source, "source"));
    let relays = fields::places(relays, &format!("{path}.relays"), reporter);
    // What is there and wrong was reported.
    if matches!(group, Some(None)) || matches!(source, Some(None)) || relays.is_empty() {
        return None;
    }
    let row = MapRow { group: group.flatten(), source: source.flatten(), relays };
    let length_of_groups = |address: IpAddr| if address.is_ipv4() { 4 } else { 8 };
    if let Some(group) = row.group
        && !(group.addr().is_multicast() && group.prefix_len() >= length_of_groups(group.addr()))
    {
        reporter.report(format!("{path}.group"), format_args!("{group} does not lie within 224.0.0.0/4 or ff00::/8"));
    }
    if let Some(source) = row.source.filter(|source| source.addr().is_multicast()) {
        reporter.report(format!("{path}.source"), format_args!("{source} holds groups, not sources"));
    }
    Some(row)
}

fn read_resolvers(texts: &[String], reporter: &mut Reporter) -> Vec<SocketAddr> {
    let row = |(index, text): (usize, &String)| {
        let path = format!("spec.upstream.resolvers[{index}]");
        let place = fields::place(text, &path, reporter)?;
        let address = place.address();
        if address.is_none() {
            reporter.report(path, format_args!("\"{text}\" is not an IP address"));
        }
        Some(SocketAddr::new(address?, place.port().map_or(DNS_PORT, std::num::NonZeroU16::get)))
    };
    texts.iter().enumerate().filter_map(row).collect()
}

fn read_gateway(spec: &spec::Gateway, reporter: &mut Reporter) -> GatewaySnapshot {
    let spec::Gateway { ipv6, ecn, timers } = spec;
    let spec::GatewayTimers { initial_timeout, maximum_timeout, silence, hold_down, full_hold_down } = timers;
    let mut read = |text, field| fields::millis(text, &format!("spec.upstream.gateway.timers.{field}"), reporter);
    GatewaySnapshot {
        ipv6: *ipv6,
        ecn: *ecn,
        initial_timeout_ms: read(initial_timeout, "initialTimeout"),
        maximum_timeout_ms: read(maximum_timeout, "maximumTimeout"),
        silence_ms: read(silence, "silence"),
        hold_down_ms: read(hold_down, "holdDown"),
        full_hold_down_ms: read(full_hold_down, "fullHoldDown"),
    }
}

fn read_delivery(spec: &spec::Delivery, reporter: &mut Reporter) -> DeliverySnapshot {
    let spec::Delivery { interfaces, tun } = spec;
    for (index, interface) in interfaces.iter().enumerate() {
        fields::interface(&interface.name, &format!("spec.delivery.interfaces[{index}].name"), reporter);
    }
    if let Some(tun) = tun {
        fields::interface(tun, "spec.delivery.tun", reporter);
    }
    DeliverySnapshot {
        interfaces: interfaces.iter().map(|interface| interface.name.clone()).collect(),
        tun: tun.clone(),
    }
}
