//! The AMT relay of a server or a relay by itself.

use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU16};

use castgate_control::{AmtLimits, AmtSnapshot, AmtTimers, AnycastSnapshot};
use castgate_crds::amt as spec;
use castgate_crds::tunnels::Umtp;

use super::fields;
use crate::objects::Amt;
use crate::problem::Reporter;

pub(super) fn amt(spec: &spec::Amt, umtp: &Umtp, replicas: Option<u32>, reporter: &mut Reporter) -> Amt {
    let spec::Amt { port, addresses, ipv6, anycast, teardown, mtu, zero_checksum, limits, timers } = spec;
    if *port == umtp.port {
        reporter.report("spec.amt.port", format_args!("UDP port {port} is that of umtp too"));
    }
    let own = own_addresses(addresses, replicas, reporter);
    let anycast = anycast.as_ref().map(|anycast| {
        let families = Families { own: &own, named: !addresses.is_empty(), six: *ipv6 && umtp.address.is_none() };
        read_anycast(anycast, &families, reporter)
    });
    let snapshot = AmtSnapshot {
        teardown: *teardown,
        mtu: mtu.and_then(NonZeroU16::new),
        zero_checksum: *zero_checksum,
        anycast,
        timers: read_timers(timers, reporter),
        limits: read_limits(limits),
        ..AmtSnapshot::new(Vec::new())
    };
    Amt { port: *port, addresses: own, ipv6: *ipv6, snapshot }
}

fn own_addresses(texts: &[String], replicas: Option<u32>, reporter: &mut Reporter) -> Vec<IpAddr> {
    let mut own: Vec<IpAddr> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let path = format!("spec.amt.addresses[{index}]");
        let Some(address) = fields::any_host(text, &path, reporter) else { continue };
        match own.iter().find(|other| other.is_ipv4() == address.is_ipv4()) {
            Some(other) => {
                let version = if address.is_ipv4() { 4 } else { 6 };
                reporter
                    .report(path, format_args!("{address} is of version {version}, as {other}: one of each is enough"));
            }
            None => own.push(address),
        }
    }
    if let (Some(address), Some(replicas @ 2..)) = (own.first(), replicas) {
        reporter.report("spec.replicas", format_args!("{replicas} machines cannot all have the address {address}"));
    }
    own
}

/// Of which versions a relay has addresses of its own.
struct Families<'a> {
    own: &'a [IpAddr],
    /// Whether its addresses are named, good or not.
    named: bool,
    /// Whether that of its node may be of version 6, where none is named.
    six: bool,
}

impl Families<'_> {
    fn hold(&self, address: IpAddr) -> bool {
        if self.named {
            self.own.iter().any(|own| own.is_ipv4() == address.is_ipv4())
        } else {
            self.six || address.is_ipv4()
        }
    }
}

fn read_anycast(spec: &spec::Anycast, families: &Families, reporter: &mut Reporter) -> AnycastSnapshot {
    let spec::Anycast { addresses, table } = spec;
    let mut read = Vec::new();
    for (index, text) in addresses.iter().enumerate() {
        let path = format!("spec.amt.anycast.addresses[{index}]");
        let Some(address) = fields::any_host(text, &path, reporter) else { continue };
        if address.is_loopback() {
            reporter.report(path, format_args!("{address} is an address that nobody else can route to"));
        } else if families.own.contains(&address) {
            reporter
                .report(path, format_args!("{address} is one of spec.amt.addresses: those are of this relay alone"));
        } else if read.contains(&address) {
            reporter.report(path, format_args!("{address} is listed twice"));
        } else if !families.hold(address) {
            let what =
                format!("{address} needs an address of its version that gateways can be sent to: name it in addresses");
            reporter.report(path, what);
        } else {
            read.push(address);
        }
    }
    if (253..=255).contains(table) {
        reporter.report("spec.amt.anycast.table", format_args!("{table} is a table of the kernel itself"));
    }
    AnycastSnapshot { addresses: read, table: fields::number(*table) }
}

fn read_limits(limits: &spec::AmtLimits) -> AmtLimits {
    let spec::AmtLimits { endpoints, groups_per_endpoint, sources_per_group } = *limits;
    AmtLimits {
        endpoints: fields::number(endpoints),
        groups_per_endpoint: fields::number(groups_per_endpoint),
        sources_per_group: fields::number(sources_per_group),
    }
}

/// That the intervals go together is CEL alone.
fn read_timers(timers: &spec::AmtTimers, reporter: &mut Reporter) -> AmtTimers {
    let spec::AmtTimers { query_interval, query_response_interval, robustness } = timers;
    AmtTimers {
        query_interval_ms: fields::millis(query_interval, "spec.amt.timers.queryInterval", reporter),
        query_response_interval_ms: fields::millis(
            query_response_interval,
            "spec.amt.timers.queryResponseInterval",
            reporter,
        ),
        robustness: NonZeroU8::new(*robustness).expect("the schema starts at 1"),
        ..AmtTimers::default()
    }
}
