//! A policy by itself.

use std::collections::BTreeMap;

use castgate_control::{MatchSnapshot, TimeWindowSnapshot};
use castgate_crds::TunnelAssignmentPolicySpec;
use castgate_crds::tunnel_assignment_policy::{self as spec, ConfigMapRef, RouteTable, ServerRef};

use super::fields;
use crate::objects::{Policy, PolicyPool, PolicyRule, RouteSource, Target};
use crate::problem::Reporter;

pub(crate) fn policy(spec: &TunnelAssignmentPolicySpec, reporter: &mut Reporter) -> Policy {
    let TunnelAssignmentPolicySpec { database_refs, rules, route_table } = spec;
    for (index, database) in database_refs.iter().enumerate() {
        fields::label(&database.name, &format!("spec.databaseRefs[{index}].name"), reporter);
    }
    let rules =
        rules.iter().enumerate().map(|(index, rule)| read_rule(rule, &format!("spec.rules[{index}]"), reporter));
    Policy {
        databases: database_refs.iter().map(|database| database.name.clone()).collect(),
        rules: rules.collect(),
        routes: route_table.as_ref().and_then(|table| read_routes(table, "spec.routeTable", reporter)),
    }
}

/// That there is one of the two and not both is CEL alone.
pub(super) fn read_routes(table: &RouteTable, path: &str, reporter: &mut Reporter) -> Option<RouteSource> {
    let RouteTable { config_map_ref, file } = table;
    if let Some(ConfigMapRef { name, key }) = config_map_ref {
        fields::label(name, &format!("{path}.configMapRef.name"), reporter);
        if key.is_empty() || !key.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._".contains(&octet)) {
            let what = format!("\"{key}\" cannot be a key of a ConfigMap");
            reporter.report(format!("{path}.configMapRef.key"), what);
        }
        return Some(RouteSource::ConfigMap { name: name.clone(), key: key.clone() });
    }
    let file = file.as_ref()?;
    if !file.starts_with('/') || file.contains(|letter: char| letter.is_ascii_control()) {
        reporter.report(format!("{path}.file"), format_args!("\"{file}\" is not the whole path of a file"));
    }
    Some(RouteSource::File(file.into()))
}

fn read_rule(rule: &spec::Rule, path: &str, reporter: &mut Reporter) -> PolicyRule {
    let spec::Rule { name, matches, assign, exclude } = rule;
    fields::label(name, &format!("{path}.name"), reporter);
    let matches = read_match(matches, &format!("{path}.match"), reporter);
    let mut pools: Vec<PolicyPool> = Vec::new();
    for (index, pool) in assign.iter().flat_map(|assign| &assign.pools).enumerate() {
        let path = format!("{path}.assign.pools[{index}]");
        let spec::Pool { server_ref, selector, weight, max_load_percent } = pool;
        let target = read_target(server_ref.as_ref(), selector.as_ref(), &path, reporter);
        if pools.iter().any(|other| other.target == target) {
            reporter.report(path, format_args!("{target} is a pool of this rule already"));
            continue;
        }
        pools.push(PolicyPool { target, weight: *weight, load_percent_max: *max_load_percent });
    }
    let exclude = exclude.iter().enumerate().map(|(index, spec::Target { server_ref, selector })| {
        read_target(server_ref.as_ref(), selector.as_ref(), &format!("{path}.exclude[{index}]"), reporter)
    });
    let exclude = exclude.collect();
    PolicyRule { name: name.clone(), matches, pools, exclude }
}

fn read_match(matches: &spec::Match, path: &str, reporter: &mut Reporter) -> MatchSnapshot {
    let spec::Match { networks, countries, asns, time_window } = matches;
    let time_window = time_window.as_ref().map(|spec::TimeWindow { from, to, zone }| {
        let window = TimeWindowSnapshot { from: from.clone(), to: to.clone(), zone: zone.clone() };
        // As the database reads it: which zones there are is known here as well.
        if let Err(error) = window.compile() {
            reporter.report(format!("{path}.timeWindow.{}", error.field), error.reason);
        }
        window
    });
    MatchSnapshot {
        networks: fields::prefixes(networks, &format!("{path}.networks"), reporter),
        countries: fields::countries(countries, &format!("{path}.countries"), reporter),
        asns: asns.clone(),
        time_window,
    }
}

fn read_target(
    server: Option<&ServerRef>,
    selector: Option<&BTreeMap<String, String>>,
    path: &str,
    reporter: &mut Reporter,
) -> Target {
    if let Some(server) = server {
        fields::label(&server.name, &format!("{path}.serverRef.name"), reporter);
        return Target::Server(server.name.clone());
    }
    let labels = selector.cloned().unwrap_or_default();
    fields::node_selector(&labels, &format!("{path}.selector"), reporter);
    Target::Labels(labels)
}
