//! The networks of Autonomous Systems that servers and databases register for, where the manifests hold the route table.

use castgate_control::{RouteTable, networks_of_systems};

use crate::document::Kind;
use crate::objects::{Hierarchy, ObjectName, Objects, RouteSource};
use crate::plan::policies;
use crate::problem::{Problem, Reporter};

/// Puts the networks of their Autonomous Systems among those that objects register for. A table that is missing or wrong is told with
/// the other references; a file is read by the agent.
pub(crate) fn resolve(objects: &mut Objects, problems: &mut Vec<Problem>) {
    let hierarchies = objects.hierarchies().map(|(kind, name, file, hierarchy)| {
        let networks = table(objects, name, hierarchy)
            .map(|table| networks_of_systems(&table, &hierarchy.asns, hierarchy.discovery.is_some()));
        (kind, name.clone(), file.to_owned(), networks)
    });
    let resolved: Vec<_> = hierarchies.collect();
    for (kind, name, file, networks) in resolved {
        match networks {
            None => {}
            Some(Ok(networks)) => {
                if let Some(hierarchy) = objects.hierarchy_mut(kind, &name) {
                    let more = networks.into_iter().filter(|network| !hierarchy.networks.contains(network));
                    let more: Vec<_> = more.collect();
                    hierarchy.networks.extend(more);
                }
            }
            Some(Err(reason)) => {
                Reporter::new(&file, &format!("{kind} {name}"), problems).report("spec.hierarchy.asns", reason);
            }
        }
    }
}

fn table(objects: &Objects, name: &ObjectName, hierarchy: &Hierarchy) -> Option<RouteTable> {
    let source = hierarchy.routes.as_ref().filter(|_| !hierarchy.asns.is_empty())?;
    Some(RouteTable::of_rows(policies::rows(objects, name, source)?.ok()?))
}

/// The route tables of hierarchies, with where they are named.
pub(crate) fn sources(objects: &Objects) -> impl Iterator<Item = (Kind, &ObjectName, &str, &RouteSource)> {
    let hierarchies = objects.hierarchies();
    hierarchies.filter_map(|(kind, name, file, hierarchy)| Some((kind, name, file, hierarchy.routes.as_ref()?)))
}
