//! A tunnel server by itself, and what a relay has in common with it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU8;

use castgate_control::{LoopCheck, ServerLimits, ServerTimers};
use castgate_crds::TunnelServerSpec;
use castgate_crds::tunnel_server as spec;
use castgate_crds::tunnels::{AddressType, Limits, Timers, Tunnels, Umtp};

use super::{amt, fields, hierarchy};
use crate::objects::{Feed, Server};
use crate::problem::Reporter;

pub(crate) fn server(spec: &TunnelServerSpec, reporter: &mut Reporter) -> Server {
    let TunnelServerSpec { tunnels: common, interfaces, loop_check } = spec;
    for (index, interface) in interfaces.iter().enumerate() {
        fields::interface(&interface.name, &format!("spec.interfaces[{index}].name"), reporter);
    }
    let feed = Feed::Native {
        interfaces: interfaces.iter().map(|interface| interface.name.clone()).collect(),
        loop_check: match loop_check {
            spec::LoopCheck::Disabled => LoopCheck::Off,
            spec::LoopCheck::Endpoint => LoopCheck::Endpoint,
            spec::LoopCheck::Address => LoopCheck::Address,
        },
    };
    tunnels(common, feed, reporter)
}

/// What servers and relays have in common.
pub(super) fn tunnels(spec: &Tunnels, feed: Feed, reporter: &mut Reporter) -> Server {
    let Tunnels { umtp, amt, bundles, hierarchy, limits, timers, workers, node_selector, tolerations, replicas } = spec;
    fields::node_selector(node_selector, "spec.nodeSelector", reporter);
    fields::tolerations(tolerations, "spec.tolerations", reporter);
    for (index, bundle) in bundles.iter().enumerate() {
        fields::label(&bundle.name, &format!("spec.bundles[{index}].name"), reporter);
    }
    let address = address(umtp, *replicas, reporter);
    Server {
        feed,
        listen: SocketAddrV4::new(address.unwrap_or(Ipv4Addr::UNSPECIFIED), umtp.port),
        address,
        address_type: umtp.address_type,
        port: umtp.port,
        amt: amt.as_ref().map(|amt| amt::amt(amt, umtp, *replicas, reporter)),
        bundles: bundles.iter().map(|bundle| bundle.name.clone()).collect(),
        hierarchy: hierarchy::hierarchy(hierarchy, reporter),
        limits: read_limits(limits),
        timers: read_timers(timers, reporter),
        workers: workers.and_then(NonZeroU8::new),
        node_selector: node_selector.clone(),
        tolerations: tolerations.clone(),
        replicas: *replicas,
        labels: BTreeMap::new(),
    }
}

/// The address that tunnels end at. That of one machine cannot be that of several.
fn address(umtp: &Umtp, replicas: Option<u32>, reporter: &mut Reporter) -> Option<Ipv4Addr> {
    let address = umtp.address.as_deref().and_then(|text| fields::host(text, "spec.umtp.address", reporter));
    if let (Some(address), Some(replicas @ 2..)) = (address, replicas) {
        reporter.report("spec.replicas", format_args!("{replicas} machines cannot all have the address {address}"));
    }
    if umtp.address.is_some() && umtp.address_type != AddressType::default() {
        reporter.report("spec.umtp.addressType", "is there beside address: name one of the two");
    }
    address
}

fn read_limits(limits: &Limits) -> ServerLimits {
    let Limits { tunnels, channels, channels_per_tunnel, ttl } = *limits;
    ServerLimits {
        tunnels: fields::number(tunnels),
        channels: fields::number(channels),
        channels_per_tunnel: fields::number(channels_per_tunnel),
        ttl: NonZeroU8::new(ttl).expect("the schema starts at 1"),
        ..ServerLimits::default()
    }
}

fn read_timers(timers: &Timers, reporter: &mut Reporter) -> ServerTimers {
    let Timers { join_timeout, idle_timeout, cookie_epoch, answer_interval } = timers;
    ServerTimers {
        join_timeout_ms: fields::millis(join_timeout, "spec.timers.joinTimeout", reporter),
        idle_timeout_ms: fields::millis(idle_timeout, "spec.timers.idleTimeout", reporter),
        cookie_epoch_ms: fields::millis(cookie_epoch, "spec.timers.cookieEpoch", reporter),
        answer_interval_ms: fields::millis(answer_interval, "spec.timers.answerInterval", reporter),
        ..ServerTimers::default()
    }
}
