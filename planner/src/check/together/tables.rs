//! The route tables that a field names: they exist, and can be read where they are used.

use super::Known;
use crate::check::systems::sources;
use crate::document::Kind;
use crate::objects::{ObjectName, Objects, Policy, RouteSource};
use crate::plan::policies;
use crate::problem::{Problem, Reporter};

/// The `ConfigMap` of a route table is there, and holds one.
pub(super) fn check_route_table(
    known: &Known,
    name: &ObjectName,
    path: &str,
    source: &RouteSource,
    reporter: &mut Reporter,
) {
    let RouteSource::ConfigMap { name: config, key } = source else { return };
    if !known.exists(Kind::ConfigMap, name, config, &format!("{path}.configMapRef.name"), reporter) {
        return;
    }
    let place = format!("ConfigMap {}", name.sibling(config));
    let what = match policies::rows(known.objects, name, source) {
        Some(Ok(_)) => return,
        Some(Err(error)) => format!("{place}, key \"{key}\": {error}"),
        None => format!("{place} has no key \"{key}\""),
    };
    reporter.report(format!("{path}.configMapRef.key"), what);
}

/// Every database that a policy about Autonomous Systems names has a table, where the policy itself has none.
pub(super) fn check_borrowed_table(known: &Known, name: &ObjectName, policy: &Policy, reporter: &mut Reporter) {
    let Some(rule) = policy.rules.iter().position(|rule| !rule.matches.asns.is_empty()) else { return };
    let databases = policy.databases.iter().map(|database| name.sibling(database));
    let databases = databases.filter_map(|name| known.objects.databases.get_key_value(&name));
    for (database, _) in databases.filter(|(_, entry)| entry.object.routes.is_none()) {
        let what = format!("needs a spec.routeTable, here or in TunnelDatabase {database}");
        reporter.report(format!("spec.rules[{rule}].match.asns"), what);
    }
}

/// A pod sees no file of its node.
pub(super) fn check_route_files(objects: &Objects, problems: &mut Vec<Problem>) {
    let policies = objects
        .policies
        .iter()
        .map(|(name, entry)| (Kind::TunnelAssignmentPolicy, name, &entry.file, entry.object.routes.as_ref()));
    let databases = objects
        .databases
        .iter()
        .map(|(name, entry)| (Kind::TunnelDatabase, name, &entry.file, entry.object.routes.as_ref()));
    for (kind, name, file, routes) in policies.chain(databases) {
        if let Some(RouteSource::File(path)) = routes {
            let title = format!("{kind} {name}");
            let what = format!("a database on a cluster cannot read {}: use configMapRef", path.display());
            Reporter::new(file, &title, problems).report("spec.routeTable.file", what);
        }
    }
    for (kind, name, file, source) in sources(objects) {
        if let RouteSource::File(path) = source {
            let title = format!("{kind} {name}");
            let what = format!("an agent on a cluster cannot read {}: use configMapRef", path.display());
            Reporter::new(file, &title, problems).report("spec.hierarchy.routeTable.file", what);
        }
    }
}
