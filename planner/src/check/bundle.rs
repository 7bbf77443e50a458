//! A bundle by itself: groups, sources, ports, and channels that are in each other's way.

use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU16};

use castgate_control::Ports;
use castgate_crds::ChannelBundleSpec;
use castgate_crds::channel_bundle as spec;

use super::fields;
use crate::objects::{Bundle, BundleChannel};
use crate::problem::Reporter;

pub(crate) fn bundle(spec: &ChannelBundleSpec, reporter: &mut Reporter) -> Bundle {
    let mut channels: Vec<BundleChannel> = Vec::new();
    for (index, row) in spec.channels.iter().enumerate() {
        let path = format!("spec.channels[{index}]");
        let Some(channel) = read_channel(row, &path, reporter) else { continue };
        match channels.iter().find_map(|other| overlap(other, &channel).map(|ports| (other, ports))) {
            Some((other, ports)) => {
                let field = if row.ports.is_some() { "ports" } else { "port" };
                let what = format!("{} is in channel \"{}\" already", place(&channel, ports), other.name);
                reporter.report(format!("{path}.{field}"), what);
            }
            None => channels.push(channel),
        }
    }
    Bundle { channels }
}

/// The ports that two channels have in common, when group and source are the same too.
///
/// A channel from any source and one from a given source are different channels, as they are to a kernel (RFC 3376 §3.2).
pub(super) fn overlap(a: &BundleChannel, b: &BundleChannel) -> Option<Ports> {
    if (a.group, a.source) != (b.group, b.source) {
        return None;
    }
    let first = NonZeroU16::new(a.ports.first().max(b.ports.first()))?;
    let last = NonZeroU16::new(a.ports.last().min(b.ports.last()))?;
    Ports::new(first, last).ok()
}

/// How an overlap is named: `239.1.2.3:5004-5006`.
pub(super) fn place(channel: &BundleChannel, ports: Ports) -> String {
    format!("{}:{ports}", channel.name_of_addresses())
}

fn read_channel(row: &spec::Channel, path: &str, reporter: &mut Reporter) -> Option<BundleChannel> {
    let spec::Channel { name, group, source, port, ports, send, ttl, pattern, description } = row;
    fields::label(name, &format!("{path}.name"), reporter);
    let group = fields::group(group, &format!("{path}.group"), reporter);
    if let (Some(group), None) = (group, source)
        && let Some(range) = source_specific(group)
    {
        reporter.report(
            format!("{path}.source"),
            format_args!("is missing: {group} is in {range}, for channels of one source (RFC 4607)"),
        );
    }
    // The outer `None`: there is one, and it is wrong.
    let source = match source {
        Some(text) => fields::any_host(text, &format!("{path}.source"), reporter).map(Some),
        None => Some(None),
    };
    if let (Some(group), Some(Some(source))) = (group, source)
        && group.is_ipv4() != source.is_ipv4()
    {
        reporter.report(format!("{path}.source"), format_args!("{source} is not of the version of {group}"));
    }
    if let Some(group) = group.filter(IpAddr::is_ipv6) {
        for (field, there) in [("send", *send), ("pattern", pattern.is_some())] {
            if there {
                let what = format!("is for channels of version 4, which UMTP carries; {group} is of version 6");
                reporter.report(format!("{path}.{field}"), what);
            }
        }
    }
    let ports = read_ports(*port, *ports, path, reporter);
    let rate = pattern
        .as_ref()
        .and_then(|text| text.parse().map_err(|error| reporter.report(format!("{path}.pattern"), error)).ok());
    if pattern.is_some() && row.ports.is_some() && row.port.is_none() {
        reporter.report(format!("{path}.pattern"), "is sent to one port: name port instead of ports");
    }
    Some(BundleChannel {
        name: name.clone(),
        group: group?,
        source: source?,
        ports: ports?,
        send: *send,
        ttl: ttl.and_then(NonZeroU8::new),
        pattern: rate,
        description: description.clone(),
    })
}

/// The range of groups for channels of one source that a group is in.
fn source_specific(group: IpAddr) -> Option<&'static str> {
    match group {
        IpAddr::V4(group) => (group.octets()[0] == 232).then_some("232.0.0.0/8"),
        IpAddr::V6(group) => matches!(group.segments(), [0xff30..=0xff3f, 0, ..]).then_some("ff3x::/32"),
    }
}

fn read_ports(port: Option<u16>, ports: Option<spec::Ports>, path: &str, reporter: &mut Reporter) -> Option<Ports> {
    let number = |port| NonZeroU16::new(port).expect("the schema starts at 1");
    match (port, ports) {
        (Some(port), None) => Some(Ports::single(number(port))),
        (None, Some(spec::Ports { first, last })) => {
            let range = Ports::new(number(first), number(last)).ok();
            if range.is_none() {
                reporter.report(format!("{path}.ports.last"), format_args!("{last} is below first, {first}"));
            }
            range
        }
        (None, None) => {
            reporter.report(format!("{path}.port"), "is missing: name a port, or ports with first and last");
            None
        }
        (Some(_), Some(_)) => {
            reporter.report(format!("{path}.ports"), "is there beside port: name one of the two");
            None
        }
    }
}
