//! Single values: text to what it stands for, or a sentence why not.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use castgate_control::{Country, DatabaseAddress, Place, PlaceError, is_host_address};
use castgate_crds::placement::{Toleration, TolerationOperator};
use castgate_crds::units::TimeSpan;
use ipnet::IpNet;

use crate::document::{is_label, not_a_label};
use crate::problem::Reporter;

/// Refreshing more often than this helps nobody.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Longest name of an interface: the kernel's IFNAMSIZ without its terminating zero.
const INTERFACE_LENGTH_MAX: usize = 15;

/// The address of a host, as a source or an own address.
pub(super) fn host(text: &str, path: &str, reporter: &mut Reporter) -> Option<Ipv4Addr> {
    match text.parse::<Ipv4Addr>() {
        Ok(address) if address.is_multicast() || address.is_broadcast() || address.octets()[0] == 0 => {
            reporter.report(path, format_args!("{address} is not the address of a host"));
        }
        Ok(address) => return Some(address),
        Err(_) => reporter.report(path, format_args!("\"{text}\" is not an IPv4 address")),
    }
    None
}

/// The same for an address of either version.
pub(super) fn any_host(text: &str, path: &str, reporter: &mut Reporter) -> Option<IpAddr> {
    match text.parse::<IpAddr>() {
        Ok(address) if is_host_address(address) => return Some(address),
        Ok(address) => reporter.report(path, format_args!("{address} is not the address of a host")),
        Err(_) => reporter.report(path, format_args!("\"{text}\" is not an IP address")),
    }
    None
}

/// The group of a channel.
pub(super) fn group(text: &str, path: &str, reporter: &mut Reporter) -> Option<IpAddr> {
    match text.parse::<IpAddr>() {
        Ok(group) if !group.is_multicast() => {
            reporter.report(path, format_args!("{group} is not a multicast group: those are 224.0.0.0/4 and ff00::/8"));
        }
        Ok(IpAddr::V4(group)) if matches!(group.octets(), [224, 0, 0, _]) => {
            reporter.report(path, format_args!("{group} is in 224.0.0.0/24, which never leaves its link"));
        }
        // RFC 4291 §2.7: scopes 0 to 2 are reserved, of an interface, of a link.
        Ok(IpAddr::V6(group)) if group.octets()[1] & 0x0f <= 2 => {
            reporter.report(path, format_args!("{group} has a scope that never leaves its link"));
        }
        Ok(group) => return Some(group),
        Err(_) => reporter.report(path, format_args!("\"{text}\" is not an IP address")),
    }
    None
}

pub(super) fn prefix(text: &str, path: &str, reporter: &mut Reporter) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(prefix) if prefix.trunc() == prefix => return Some(prefix),
        Ok(prefix) => {
            reporter.report(path, format_args!("{text} has host bits: {} is meant", prefix.trunc()));
        }
        Err(_) => reporter.report(path, format_args!("\"{text}\" is not a prefix such as 192.0.2.0/24")),
    }
    None
}

pub(super) fn prefixes(texts: &[String], path: &str, reporter: &mut Reporter) -> Vec<IpNet> {
    let row = |(index, text): (usize, &String)| prefix(text, &format!("{path}[{index}]"), reporter);
    texts.iter().enumerate().filter_map(row).collect()
}

pub(super) fn country(text: &str, path: &str, reporter: &mut Reporter) -> Option<Country> {
    let upper = text.to_ascii_uppercase();
    match text.parse::<Country>() {
        Ok(country) if country.as_str() == text => return Some(country),
        Ok(country) if upper != text => {
            reporter.report(path, format_args!("\"{text}\" is not in capitals: \"{country}\" is meant"));
        }
        // Words in common use that are not the code, such as UK.
        Ok(country) => {
            reporter.report(path, format_args!("\"{text}\" is not the ISO 3166 code: that is \"{country}\""));
        }
        Err(_) => reporter.report(path, format_args!("\"{text}\" is not a country of two letters (ISO 3166)")),
    }
    None
}

pub(super) fn countries(texts: &[String], path: &str, reporter: &mut Reporter) -> Vec<Country> {
    let row = |(index, text): (usize, &String)| country(text, &format!("{path}[{index}]"), reporter);
    texts.iter().enumerate().filter_map(row).collect()
}

/// Numbers of Autonomous Systems. (That none is 0 the schema says.)
pub(super) fn asns(asns: &[u32], path: &str, reporter: &mut Reporter) -> Vec<u32> {
    // RFC 7300: the last number is reserved.
    if let Some(index) = asns.iter().position(|asn| *asn == u32::MAX) {
        reporter
            .report(format!("{path}[{index}]"), format_args!("{} is not the number of an Autonomous System", u32::MAX));
    }
    asns.to_vec()
}

pub(super) fn span(span: &TimeSpan, path: &str, reporter: &mut Reporter) -> Option<Duration> {
    span.parse().map_err(|error| reporter.report(path, error)).ok()
}

/// How often something is refreshed: registrations count in whole seconds.
pub(super) fn interval(text: &TimeSpan, path: &str, reporter: &mut Reporter) -> Duration {
    match span(text, path, reporter) {
        Some(interval) if interval < INTERVAL_MIN || interval.subsec_nanos() != 0 => {
            reporter.report(path, format_args!("{} is not a whole number of seconds", text.as_str()));
            INTERVAL_MIN
        }
        Some(interval) => interval,
        None => INTERVAL_MIN,
    }
}

/// A span as snapshots have it; one millisecond where there is none.
pub(super) fn millis(text: &TimeSpan, path: &str, reporter: &mut Reporter) -> NonZeroU32 {
    let millis = span(text, path, reporter).map(|span| span.as_millis());
    millis.and_then(|millis| u32::try_from(millis).ok()).and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
}

/// A number that the schema keeps above zero.
pub(super) fn number(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("the schema starts at 1")
}

/// The name of an interface, as far as the name alone tells.
pub(super) fn interface(name: &str, path: &str, reporter: &mut Reporter) {
    let possible = (1..=INTERFACE_LENGTH_MAX).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':'));
    if !possible {
        reporter.report(path, format_args!("\"{name}\" cannot be the name of an interface"));
    }
}

/// A host, perhaps with a port.
pub(super) fn place(text: &str, path: &str, reporter: &mut Reporter) -> Option<Place> {
    text.parse().map_err(|error: PlaceError| reporter.report(path, error)).ok()
}

pub(super) fn places(texts: &[String], path: &str, reporter: &mut Reporter) -> Vec<Place> {
    let row = |(index, text): (usize, &String)| place(text, &format!("{path}[{index}]"), reporter);
    texts.iter().enumerate().filter_map(row).collect()
}

/// Databases, each as a place or, where it is over https, as a URL.
pub(super) fn databases(texts: &[String], path: &str, reporter: &mut Reporter) -> Vec<DatabaseAddress> {
    let row = |(index, text): (usize, &String)| {
        let path = format!("{path}[{index}]");
        let Some((_, rest)) = text.split_once("://") else {
            // The same notation, and stricter about addresses that no host has.
            let place = place(text, &path, reporter)?;
            return place.to_string().parse().ok();
        };
        let address = text.parse::<DatabaseAddress>().inspect_err(|error| reporter.report(&path, error)).ok()?;
        let host = rest.split('/').next().unwrap_or_default();
        place(host, &path, reporter).map(|_| address)
    };
    texts.iter().enumerate().filter_map(row).collect()
}

pub(super) fn label(text: &str, path: &str, reporter: &mut Reporter) {
    if !is_label(text) {
        reporter.report(path, not_a_label(text));
    }
}

/// Labels that a node must have.
pub(super) fn node_selector(labels: &BTreeMap<String, String>, path: &str, reporter: &mut Reporter) {
    for (key, value) in labels {
        let path = format!("{path}[{key}]");
        if !is_label_key(key) {
            reporter.report(&path, format_args!("\"{key}\" cannot be the key of a label"));
        }
        if !is_label_value(value) {
            reporter.report(&path, format_args!("\"{value}\" cannot be the value of a label"));
        }
    }
}

/// Taints that are tolerated.
pub(super) fn tolerations(rows: &[Toleration], path: &str, reporter: &mut Reporter) {
    for (index, Toleration { key, operator, value, effect: _ }) in rows.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if let Some(key) = key.as_ref().filter(|key| !is_label_key(key)) {
            reporter.report(format!("{path}.key"), format_args!("\"{key}\" cannot be the key of a taint"));
        }
        if key.is_none() && *operator == TolerationOperator::Equal {
            reporter.report(format!("{path}.key"), "is missing: only operator Exists does without");
        }
        match value {
            Some(_) if *operator == TolerationOperator::Exists => {
                reporter.report(format!("{path}.value"), "is there beside operator Exists, which takes any value");
            }
            Some(value) if !is_label_value(value) => {
                reporter.report(format!("{path}.value"), format_args!("\"{value}\" cannot be the value of a taint"));
            }
            Some(_) | None => {}
        }
    }
}

/// Whether a text may be the key of a label or of a taint: a name, perhaps after a domain and a slash.
fn is_label_key(text: &str) -> bool {
    let (domain, name) = text.rsplit_once('/').map_or((None, text), |(domain, name)| (Some(domain), name));
    !name.is_empty() && is_label_value(name) && domain.is_none_or(is_object_name)
}

/// Whether a text may be the value of a label or of a taint.
fn is_label_value(text: &str) -> bool {
    let outer = |octet: Option<u8>| octet.is_none_or(|octet| octet.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._".contains(&octet))
        && outer(text.bytes().next())
        && outer(text.bytes().last())
}

/// Whether a text may name an object that is none of ours: small letters, digits, inner hyphens and dots.
pub(super) fn is_object_name(text: &str) -> bool {
    let inner = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || b"-.".contains(&octet);
    let outer = |octet: Option<u8>| octet.is_some_and(|octet| octet.is_ascii_alphanumeric());
    text.len() <= 253 && text.bytes().all(inner) && outer(text.bytes().next()) && outer(text.bytes().last())
}
