//! Snapshots of the agents of databases, and under which address each is registered.

use std::net::{Ipv4Addr, SocketAddrV4};

use castgate_control::AgentSnapshot;
use castgate_crds::tunnel_database::ServiceType;

use super::adapters::Client;
use super::{DatabasePlan, Fleet, Refusal, World, names, servers};
use crate::objects::{Database, ObjectName};
use crate::plan::agents;

/// Longest name of a database: pods of the `StatefulSet` `tdb-NAME` carry a label `tdb-NAME-` with ten more letters, and a label
/// holds 63.
const NAME_LENGTH_MAX: usize = 48;

pub(super) fn plan(world: World, fleet: &mut Fleet, clients: &mut Vec<Client>) {
    for (name, database) in world.living(names::DATABASE, &world.objects.databases) {
        let mut plan = DatabasePlan { node: world.facts.database_nodes.get(name).cloned(), ..DatabasePlan::default() };
        if name.name.len() > NAME_LENGTH_MAX {
            let message = format!(
                "metadata.name: has {} letters: on a cluster a TunnelDatabase has at most {NAME_LENGTH_MAX}",
                name.name.len()
            );
            plan.refused = Some(Refusal { reason: "Invalid", message });
        } else if let Some(node) = plan.node.clone() {
            // Without a node there is no agent yet.
            plan.problem = serve(world, name, database, &node, fleet, clients);
        }
        fleet.databases.insert(name.clone(), plan);
    }
}

/// Plans the agent of a database; says what it cannot do.
fn serve(
    world: World,
    name: &ObjectName,
    database: &Database,
    node: &str,
    fleet: &mut Fleet,
    clients: &mut Vec<Client>,
) -> Option<String> {
    let listen = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, database.listen.port());
    let agent = names::database_agent(name, node);
    let snapshot = AgentSnapshot {
        agent: agent.clone(),
        database: Some(agents::database(world.objects, name, database, listen, &|name, server| {
            servers::pool_servers(world, fleet, name, server)
        })),
        ..AgentSnapshot::default()
    };
    if let Err(error) = snapshot.check() {
        return Some(error.to_string());
    }
    fleet.snapshots.insert(agent.clone(), snapshot);
    if !database.hierarchy.registers() {
        return None;
    }
    match outer(world, name, database, node) {
        Ok(at) => {
            let entries = || vec![agents::database_entry(database, at)];
            clients.extend(Client::new(world, name, &database.hierarchy, &agent, entries));
            None
        }
        Err(problem) => Some(problem),
    }
}

/// Where clients reach a database; why not, where they do not yet.
fn outer(world: World, name: &ObjectName, database: &Database, node: &str) -> Result<SocketAddrV4, String> {
    let named = Some(*database.listen.ip()).filter(|address| !address.is_unspecified());
    let inner_port = database.listen.port();
    let (address, port) = match database.service.service_type {
        ServiceType::NodePort => {
            let port = database.service.node_port.or_else(|| world.facts.node_ports.get(name).copied());
            let port =
                port.ok_or_else(|| format!("Service {} has no node port yet", names::database_workload(name)))?;
            (named.or_else(|| world.facts.nodes.get(node)?.internal_ip), port)
        }
        ServiceType::LoadBalancer => (named.or_else(|| world.facts.load_balancers.get(name).copied()), inner_port),
        ServiceType::ClusterIp => (named, inner_port),
    };
    let address = address.ok_or_else(|| match database.service.service_type {
        ServiceType::NodePort => {
            format!("node {node} has no InternalIP of version 4 to register with: name spec.http.address")
        }
        ServiceType::LoadBalancer => format!(
            "the load balancer of Service {} has no address of version 4 yet: without spec.http.address it is what is \
             registered",
            names::database_workload(name)
        ),
        ServiceType::ClusterIp => {
            "no client outside reaches a Service of type ClusterIP, so there is no address to register with parents: choose \
             spec.service.type NodePort or LoadBalancer, or name spec.http.address"
                .to_owned()
        }
    })?;
    Ok(SocketAddrV4::new(address, port))
}
