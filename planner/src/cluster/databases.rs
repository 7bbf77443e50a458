//! Snapshots of the agents of databases, who its peers are, and under which address each is registered.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU32;

use castgate_control::{AgentSnapshot, PeersSnapshot};
use castgate_crds::tunnel_database::ServiceType;

use super::adapters::Client;
use super::{DatabasePlan, Fleet, Refusal, World, names, servers};
use crate::objects::{Database, ObjectName};
use crate::plan::agents;

/// Longest name of a database: pods of the `StatefulSet` `tdb-NAME` carry a label `tdb-NAME-` with ten more letters, and a label
/// holds 63.
const NAME_LENGTH_MAX: usize = 48;

/// How long a replica that goes waits until the others have taken what only it has: a part of the time that a pod has to end.
const HAND_OVER: NonZeroU32 = NonZeroU32::new(10).expect("10 is not zero");

pub(super) fn plan(world: World, fleet: &mut Fleet, clients: &mut Vec<Client>) {
    for (name, database) in world.living(names::DATABASE, &world.objects.databases) {
        let nodes = world.facts.database_nodes.get(name).cloned().unwrap_or_default();
        let mut plan = DatabasePlan { nodes, wanted: database.replicas, ..DatabasePlan::default() };
        if name.name.len() > NAME_LENGTH_MAX {
            let message = format!(
                "metadata.name: has {} letters: on a cluster a TunnelDatabase has at most {NAME_LENGTH_MAX}",
                name.name.len()
            );
            plan.refused = Some(Refusal { reason: "Invalid", message });
        } else {
            // Without a node there is no agent yet.
            let replica = |number| Replica { world, name, database, nodes: &plan.nodes, number };
            let problems: Vec<_> =
                plan.nodes.keys().filter_map(|number| replica(*number).serve(fleet, clients)).collect();
            plan.problem = problems.into_iter().next();
        }
        fleet.databases.insert(name.clone(), plan);
    }
}

/// One pod of a database that has a node.
struct Replica<'a> {
    world: World<'a>,
    name: &'a ObjectName,
    database: &'a Database,
    /// The nodes of all its pods.
    nodes: &'a BTreeMap<u32, String>,
    number: u32,
}

impl Replica<'_> {
    /// Plans its agent; says what it cannot do.
    fn serve(self, fleet: &mut Fleet, clients: &mut Vec<Client>) -> Option<String> {
        let Self { world, name, database, nodes, number } = self;
        let node = &nodes[&number];
        let listen = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, database.listen.port());
        let agent = names::database_agent(name, node);
        let mut snapshot = agents::database(world.objects, name, database, listen, &|name, server| {
            servers::pool_servers(world, fleet, name, server)
        });
        match self.peers(snapshot.peers.take()) {
            Ok(peers) => snapshot.peers = peers,
            Err(problem) => {
                // One that began without what its peers know would answer for them all the same.
                let before = world.facts.previous.get(&agent);
                fleet.snapshots.extend(before.map(|before| (agent, before.clone())));
                return Some(problem);
            }
        }
        let snapshot = AgentSnapshot { agent: agent.clone(), database: Some(snapshot), ..AgentSnapshot::default() };
        if let Err(error) = snapshot.check() {
            return Some(error.to_string());
        }
        fleet.snapshots.insert(agent.clone(), snapshot);
        if !database.hierarchy.registers() {
            return None;
        }
        match outer(world, name, database, node) {
            // Under an address that all of them share one registers for all: the first that is there.
            Ok(At::Shared(_)) if nodes.keys().any(|other| *other < number) => None,
            Ok(At::Shared(at) | At::Node(at)) => {
                let entries = || vec![agents::database_entry(database, at)];
                clients.extend(Client::new(world, name, &database.hierarchy, &agent, entries));
                None
            }
            Err(problem) => Some(problem),
        }
    }

    /// The other replicas that are there, and the databases of others; `foreign` is what the manifest says of these.
    fn peers(&self, foreign: Option<PeersSnapshot>) -> Result<Option<PeersSnapshot>, String> {
        let Self { world, name, database, nodes, number } = self;
        // Those with one etcd have one view, and nothing to give to each other.
        if database.store.etcd().is_some() {
            return Ok(None);
        }
        // Those that are going still have something to hand over.
        if database.replicas <= 1 && nodes.len() <= 1 {
            return Ok(foreign);
        }
        let mut peers = if let Some(foreign) = foreign {
            foreign
        } else {
            let secret = name.sibling(&names::peers_secret(name));
            let values = world.objects.secrets.get(&secret).map(|entry| &entry.object);
            let text = |key| values.and_then(|values| values.text(key)).map(str::to_owned);
            let (Some(login), Some(password)) = (text("login"), text("password")) else {
                return Err(format!("Secret {secret} with the login of its replicas is not there yet"));
            };
            PeersSnapshot::new(Vec::new(), login, password)
        };
        let port = database.listen.port();
        let others = nodes.keys().filter(|other| *other != number);
        let scheme = if database.tls.is_some() { "https://" } else { "" };
        let others = others.map(|other| format!("{scheme}{}:{port}", names::replica_host(name, *other)));
        // Those of others are vouched for by theirs.
        let authorities = [agents::own_ca(world.objects, name).map(str::to_owned), peers.ca.take()];
        peers.ca = authorities.into_iter().flatten().reduce(|own, theirs| format!("{}\n{theirs}", own.trim_end()));
        peers.members = others.chain(std::mem::take(&mut peers.members)).collect();
        peers.hand_over_seconds = Some(HAND_OVER);
        Ok(Some(peers))
    }
}

/// Where clients reach a replica.
enum At {
    /// Under an address of its own, that of its node.
    Node(SocketAddrV4),
    /// Under one that it has in common with the others.
    Shared(SocketAddrV4),
}

/// Where clients reach a replica; why not, where they do not yet.
fn outer(world: World, name: &ObjectName, database: &Database, node: &str) -> Result<At, String> {
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
    let at = SocketAddrV4::new(address, port);
    let is_of_node = named.is_none() && database.service.service_type == ServiceType::NodePort;
    Ok(if is_of_node { At::Node(at) } else { At::Shared(at) })
}
