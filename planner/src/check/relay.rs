//! A relay by itself. Nothing serves it yet, so nothing of it is kept.

use castgate_crds::TunnelRelaySpec;
use castgate_crds::tunnel_relay::Upstream;

use super::{fields, hierarchy, server};
use crate::problem::Reporter;
use crate::url::is_host;

pub(crate) fn relay(spec: &TunnelRelaySpec, reporter: &mut Reporter) {
    let TunnelRelaySpec {
        upstream,
        umtp,
        bundles,
        hierarchy: registers,
        // The schema bounds them.
        limits: _,
        timers,
        workers: _,
        node_selector,
        tolerations,
        replicas,
    } = spec;
    // Which of its fields go together is CEL alone.
    let Upstream { protocol: _, discovery: _, tds, servers } = upstream;
    for (index, place) in tds.iter().enumerate() {
        check_place(place, false, &format!("spec.upstream.tds[{index}]"), reporter);
    }
    for (index, place) in servers.iter().enumerate() {
        check_place(place, true, &format!("spec.upstream.servers[{index}]"), reporter);
    }
    server::address(umtp, *replicas, reporter);
    for (index, bundle) in bundles.iter().enumerate() {
        fields::label(&bundle.name, &format!("spec.bundles[{index}].name"), reporter);
    }
    hierarchy::hierarchy(registers, reporter);
    server::read_timers(timers, reporter);
    fields::node_selector(node_selector, "spec.nodeSelector", reporter);
    fields::tolerations(tolerations, "spec.tolerations", reporter);
}

/// A host and, where `needs_port` says so or the text has one, a port.
fn check_place(text: &str, needs_port: bool, path: &str, reporter: &mut Reporter) {
    let (host, port) = text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    if port.is_none() && needs_port {
        reporter.report(path, format_args!("\"{text}\" has no port, as in 192.0.2.1:10100"));
    } else if !is_host(host) {
        reporter.report(path, format_args!("\"{host}\" is no name and no IPv4 address of a host"));
    } else if let Some(port) = port.filter(|port| !port.parse::<u16>().is_ok_and(|port| port != 0)) {
        reporter.report(path, format_args!("\"{port}\" is no port"));
    }
}
