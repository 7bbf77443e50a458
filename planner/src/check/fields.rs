//! Single values: text to what it stands for, or a sentence why not.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use castgate_control::Country;
use castgate_crds::placement::{Toleration, TolerationOperator};
use castgate_crds::units::TimeSpan;
use ipnet::IpNet;

use crate::document::{is_label, not_a_label};
use crate::problem::Reporter;

/// Refreshing more often than this helps nobody.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

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

/// The group of a channel.
pub(super) fn group(text: &str, path: &str, reporter: &mut Reporter) -> Option<Ipv4Addr> {
    match text.parse::<Ipv4Addr>() {
        Ok(group) if !group.is_multicast() => {
            reporter.report(path, format_args!("{group} is not a multicast group: those are 224.0.0.0/4"));
        }
        Ok(group) if matches!(group.octets(), [224, 0, 0, _]) => {
            reporter.report(path, format_args!("{group} is in 224.0.0.0/24, which never leaves its link"));
        }
        Ok(group) => return Some(group),
        Err(_) => reporter.report(path, format_args!("\"{text}\" is not an IPv4 address")),
    }
    None
}

pub(super) fn prefixes(texts: &[String], path: &str, reporter: &mut Reporter) -> Vec<IpNet> {
    let prefix = |(index, text): (usize, &String)| {
        let path = format!("{path}[{index}]");
        match text.parse::<IpNet>() {
            Ok(prefix) if prefix.trunc() == prefix => return Some(prefix),
            Ok(prefix) => {
                reporter.report(path, format_args!("{text} has host bits: {} is meant", prefix.trunc()));
            }
            Err(_) => reporter.report(path, format_args!("\"{text}\" is not a prefix such as 192.0.2.0/24")),
        }
        None
    };
    texts.iter().enumerate().filter_map(prefix).collect()
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
