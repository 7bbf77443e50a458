//! The policies of a database as its snapshot has them: servers by where they serve, Autonomous Systems by their prefixes. So are
//! those of its accounts.

use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV4};

use castgate_control::routes::{self, Row};
use castgate_control::{
    Account, ExclusionSnapshot, PolicySnapshot, PoolServerSnapshot, PoolSnapshot, Registration, RouteTableError,
    RoutesSnapshot, RuleSnapshot, ServerPlaceSnapshot,
};

use crate::objects::{
    Database, ObjectName, Objects, ParentPlace, Policy, PolicyPool, PolicyRule, RouteSource, Server, Target,
};

/// The agents of a server: where each serves and how it is. Whether it registers with the database is found out here.
pub(crate) type Agents<'a> = dyn Fn(&ObjectName, &Server) -> Vec<PoolServerSnapshot> + 'a;

/// The policies that name a database, by name.
pub(crate) fn policies(objects: &Objects, database: &ObjectName, agents: &Agents) -> Vec<PolicySnapshot> {
    let of_database = |(name, policy): &(&ObjectName, &Policy)| {
        policy.databases.iter().any(|wanted| name.sibling(wanted) == *database)
    };
    let all = objects.policies.iter().map(|(name, entry)| (name, &entry.object));
    all.filter(of_database).map(|(name, policy)| snapshot(objects, database, name, policy, agents)).collect()
}

fn snapshot(
    objects: &Objects,
    database: &ObjectName,
    name: &ObjectName,
    policy: &Policy,
    agents: &Agents,
) -> PolicySnapshot {
    let servers = |target: &Target| -> Vec<PoolServerSnapshot> {
        let siblings = objects.servers.iter().filter(|(server, _)| server.namespace == name.namespace);
        let meant = siblings.filter(|(server, entry)| target.means(server, &entry.object));
        meant
            .flat_map(|(server, entry)| {
                let registers = registers(objects, server, &entry.object, database);
                agents(server, &entry.object).into_iter().map(move |agent| PoolServerSnapshot { registers, ..agent })
            })
            .collect()
    };
    let pool = |PolicyPool { target, weight, load_percent_max }: &PolicyPool| PoolSnapshot {
        name: target.to_string(),
        weight: *weight,
        load_percent_max: *load_percent_max,
        servers: servers(target),
    };
    let exclusion = |target: &Target| ExclusionSnapshot {
        name: target.to_string(),
        places: servers(target).into_iter().flat_map(|server| server.places).map(|place| place.address).collect(),
    };
    let rule = |PolicyRule { name, matches, pools, exclude }: &PolicyRule| RuleSnapshot {
        name: name.clone(),
        matches: matches.clone(),
        pools: pools.iter().map(pool).collect(),
        exclude: exclude.iter().map(exclusion).collect(),
    };
    let asns: BTreeSet<u32> = policy.rules.iter().flat_map(|rule| rule.matches.asns.iter().copied()).collect();
    // Policies and the databases that they name are of one namespace.
    let of_database = || objects.databases.get(database).and_then(|entry| entry.object.routes.as_ref());
    let source = policy.routes.as_ref().or_else(|| of_database().filter(|_| !asns.is_empty()));
    let routes = source.map(|source| table(objects, name, source, asns));
    PolicySnapshot { name: name.name.clone(), rules: policy.rules.iter().map(rule).collect(), routes }
}

/// The table of the accounts of a database that are for Autonomous Systems; `None`: there is no such account.
pub(crate) fn routes_of_accounts(objects: &Objects, name: &ObjectName, accounts: &[Account]) -> Option<RoutesSnapshot> {
    let asns: BTreeSet<u32> = accounts.iter().flat_map(|account| account.allow.asns.iter().copied()).collect();
    let source = objects.databases.get(name)?.object.routes.as_ref().filter(|_| !asns.is_empty())?;
    Some(table(objects, name, source, asns))
}

/// A table with what it says about some Autonomous Systems. A file may say more.
fn table(objects: &Objects, from: &ObjectName, source: &RouteSource, asns: BTreeSet<u32>) -> RoutesSnapshot {
    match source {
        RouteSource::File(file) => RoutesSnapshot { file: Some(file.clone()), rows: Vec::new() },
        RouteSource::ConfigMap { .. } => {
            // What is wrong with it was reported, and then there is no such object.
            let rows = rows(objects, from, source).and_then(Result::ok).unwrap_or_default();
            let asns: Vec<u32> = asns.into_iter().collect();
            let rows = routes::rows_about(&rows, &asns).iter().map(Row::to_string).collect();
            RoutesSnapshot { file: None, rows }
        }
    }
}

/// The rows of a `ConfigMap` that an object names; `None`: there is no such key, or the table is a file.
pub(crate) fn rows(
    objects: &Objects,
    from: &ObjectName,
    source: &RouteSource,
) -> Option<Result<Vec<Row>, RouteTableError>> {
    let RouteSource::ConfigMap { name, key } = source else { return None };
    let text = objects.configs.get(&from.sibling(name))?.object.values.get(key)?;
    Some(routes::rows_of(text))
}

/// Whether a server tells this database about itself, and not only one below it.
fn registers(objects: &Objects, name: &ObjectName, server: &Server, database: &ObjectName) -> bool {
    let listen = objects.databases.get(database).map(|entry: &crate::Entry<Database>| entry.object.listen);
    server.hierarchy.parents.iter().any(|parent| match &parent.place {
        ParentPlace::Database(parent) => name.sibling(parent) == *database,
        ParentPlace::Url(url) => {
            let host = url.host().parse().ok();
            host.map(|host| SocketAddrV4::new(host, url.port())).is_some_and(|at| listen == Some(at))
        }
    })
}

/// Where an agent serves, from what it would register.
pub(crate) fn places(entries: Vec<Registration>) -> Vec<ServerPlaceSnapshot> {
    let place = |entry: Registration| {
        let protocol = entry.protocol?;
        Some(ServerPlaceSnapshot { address: SocketAddr::new(entry.source, entry.port.get()), protocol })
    };
    entries.into_iter().filter_map(place).collect()
}
