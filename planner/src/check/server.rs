//! A tunnel server by itself.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::{NonZeroU8, NonZeroU32};

use castgate_control::{LoopCheck, ServerLimits, ServerTimers};
use castgate_crds::TunnelServerSpec;
use castgate_crds::tunnel_server::{self as spec, AddressType, Limits, Timers, Umtp};
use castgate_crds::units::TimeSpan;

use super::{fields, hierarchy};
use crate::objects::Server;
use crate::problem::Reporter;

/// Longest name of an interface: the kernel's IFNAMSIZ without its terminating zero.
const INTERFACE_LENGTH_MAX: usize = 15;

pub(crate) fn server(spec: &TunnelServerSpec, reporter: &mut Reporter) -> Server {
    let TunnelServerSpec {
        umtp,
        interfaces,
        bundles,
        hierarchy,
        limits,
        timers,
        loop_check,
        workers,
        node_selector,
        tolerations,
        replicas,
    } = spec;
    fields::node_selector(node_selector, "spec.nodeSelector", reporter);
    fields::tolerations(tolerations, "spec.tolerations", reporter);
    for (index, interface) in interfaces.iter().enumerate() {
        check_interface(&interface.name, &format!("spec.interfaces[{index}].name"), reporter);
    }
    for (index, bundle) in bundles.iter().enumerate() {
        fields::label(&bundle.name, &format!("spec.bundles[{index}].name"), reporter);
    }
    let address = address(umtp, *replicas, reporter);
    Server {
        listen: SocketAddrV4::new(address.unwrap_or(Ipv4Addr::UNSPECIFIED), umtp.port),
        address,
        address_type: umtp.address_type,
        port: umtp.port,
        interfaces: interfaces.iter().map(|interface| interface.name.clone()).collect(),
        bundles: bundles.iter().map(|bundle| bundle.name.clone()).collect(),
        hierarchy: hierarchy::hierarchy(hierarchy, reporter),
        limits: read_limits(limits),
        timers: read_timers(timers, reporter),
        loop_check: match loop_check {
            spec::LoopCheck::Disabled => LoopCheck::Off,
            spec::LoopCheck::Endpoint => LoopCheck::Endpoint,
            spec::LoopCheck::Address => LoopCheck::Address,
        },
        workers: workers.and_then(NonZeroU8::new),
        node_selector: node_selector.clone(),
        tolerations: tolerations.clone(),
        replicas: *replicas,
    }
}

/// The address that tunnels end at. That of one machine cannot be that of several.
pub(super) fn address(umtp: &Umtp, replicas: Option<u32>, reporter: &mut Reporter) -> Option<Ipv4Addr> {
    let address = umtp.address.as_deref().and_then(|text| fields::host(text, "spec.umtp.address", reporter));
    if let (Some(address), Some(replicas @ 2..)) = (address, replicas) {
        reporter.report("spec.replicas", format_args!("{replicas} machines cannot all have the address {address}"));
    }
    if umtp.address.is_some() && umtp.address_type != AddressType::default() {
        reporter.report("spec.umtp.addressType", "is there beside address: name one of the two");
    }
    address
}

fn check_interface(name: &str, path: &str, reporter: &mut Reporter) {
    let possible = (1..=INTERFACE_LENGTH_MAX).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':'));
    if !possible {
        reporter.report(path, format_args!("\"{name}\" cannot be the name of an interface"));
    }
}

fn read_limits(limits: &Limits) -> ServerLimits {
    let Limits { tunnels, channels, channels_per_tunnel, ttl } = *limits;
    let number = |value| NonZeroU32::new(value).expect("the schema starts at 1");
    ServerLimits {
        tunnels: number(tunnels),
        channels: number(channels),
        channels_per_tunnel: number(channels_per_tunnel),
        ttl: NonZeroU8::new(ttl).expect("the schema starts at 1"),
        ..ServerLimits::default()
    }
}

pub(super) fn read_timers(timers: &Timers, reporter: &mut Reporter) -> ServerTimers {
    let Timers { join_timeout, idle_timeout, cookie_epoch, answer_interval } = timers;
    let mut read = |span: &TimeSpan, field: &str| {
        let span = fields::span(span, &format!("spec.timers.{field}"), reporter).map(|span| span.as_millis());
        let millis = span.and_then(|millis| u32::try_from(millis).ok()).and_then(NonZeroU32::new);
        millis.unwrap_or(NonZeroU32::MIN)
    };
    ServerTimers {
        join_timeout_ms: read(join_timeout, "joinTimeout"),
        idle_timeout_ms: read(idle_timeout, "idleTimeout"),
        cookie_epoch_ms: read(cookie_epoch, "cookieEpoch"),
        answer_interval_ms: read(answer_interval, "answerInterval"),
        ..ServerTimers::default()
    }
}
