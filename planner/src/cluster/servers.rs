//! Snapshots of the agents of tunnel servers, one for each node of a pool.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;

use castgate_control::{AgentSnapshot, PatternSource};

use super::adapters::Client;
use super::pool::{self, Seats};
use super::{Fleet, Refusal, ServerPlan, World, names};
use crate::objects::{ObjectName, Server};
use crate::plan::agents;

/// Patterns by the node and the server that send them.
type Patterns<'a> = BTreeMap<(&'a ObjectName, String), Vec<PatternSource>>;

pub(super) fn plan(world: World, fleet: &mut Fleet, clients: &mut Vec<Client>) {
    let mut accepted = Vec::new();
    for (name, server) in world.living(names::SERVER, &world.objects.servers) {
        match pool::forbids_host_network(&name.namespace, world.facts) {
            Some(message) => {
                let refused = Some(Refusal { reason: "HostNetworkForbidden", message });
                fleet.servers.insert(name.clone(), ServerPlan { refused, ..ServerPlan::default() });
            }
            None => accepted.push((name, server)),
        }
    }
    let mut seats = pool::seat(accepted.iter().copied(), world.facts);
    let mut patterns = patterns(world, &accepted, &mut seats);
    for (name, server) in accepted {
        let mut seats = seats.remove(name).unwrap_or_default();
        for node in &seats.pool {
            let agent = names::server_agent(name, node);
            let mut snapshot = AgentSnapshot { agent, ..AgentSnapshot::default() };
            if let Some(listen) = seats.active.get(node) {
                let patterns = patterns.remove(&(name, node.clone())).unwrap_or_default();
                carry(world, name, server, *listen, patterns, &mut snapshot);
                if let Err(error) = snapshot.check() {
                    seats.problems.insert(node.clone(), error.to_string());
                    snapshot = AgentSnapshot { agent: snapshot.agent, ..AgentSnapshot::default() };
                } else {
                    clients.extend(Client::new(world, name, &server.hierarchy, &snapshot.agent, || {
                        agents::server_entry(server, *listen)
                    }));
                }
            }
            fleet.snapshots.insert(snapshot.agent.clone(), snapshot);
        }
        let Seats { pool, active, wanted, problems } = seats;
        let active = active.into_keys().filter(|node| !is_idle(fleet, name, node)).collect();
        fleet.servers.insert(name.clone(), ServerPlan { pool, active, wanted, refused: None, problems });
    }
}

/// Whether the agent that should carry tunnels was given nothing to do.
fn is_idle(fleet: &Fleet, name: &ObjectName, node: &str) -> bool {
    fleet.snapshots.get(&names::server_agent(name, node)).is_none_or(|snapshot| snapshot.server.is_none())
}

/// Makes the snapshot one of an agent that carries tunnels.
fn carry(
    world: World,
    name: &ObjectName,
    server: &Server,
    listen: SocketAddrV4,
    patterns: Vec<PatternSource>,
    snapshot: &mut AgentSnapshot,
) {
    snapshot.server = Some(agents::server(world.objects, name, server, listen));
    snapshot.patterns = patterns;
}

/// Decides who feeds each pattern: the first node of the first server that carries it and can send it. Where the channel names
/// a source that is the first node that has the address; an agent would refuse everything else along with it.
fn patterns<'a>(
    world: World,
    servers: &[(&'a ObjectName, &'a Server)],
    seats: &mut BTreeMap<&'a ObjectName, Seats>,
) -> Patterns<'a> {
    let mut patterns = Patterns::new();
    let mut fed = BTreeSet::new();
    let mut homeless = BTreeMap::new();
    for (name, server) in servers {
        let Some(seats) = seats.get(name) else { continue };
        for (bundle, channel) in agents::channels_of(world.objects, name, server) {
            let Some(pattern) = agents::pattern(server, channel) else { continue };
            if fed.contains(&pattern.channel) {
                continue;
            }
            let can_send = |(node, listen): &(&String, &SocketAddrV4)| {
                channel.source.is_none_or(|source| {
                    source == *listen.ip() || world.facts.nodes.get(*node).is_some_and(|facts| facts.has(source))
                })
            };
            if let Some((node, _)) = seats.active.iter().find(can_send) {
                fed.insert(pattern.channel);
                patterns.entry((*name, node.clone())).or_default().push(pattern);
            } else if let Some(node) = seats.active.keys().next() {
                let title = format!("{bundle}/{}", channel.name);
                homeless.entry(pattern.channel).or_insert_with(|| (*name, node.clone(), title));
            }
        }
    }
    for (channel, (name, node, title)) in homeless {
        if let (false, Some(seats)) = (fed.contains(&channel), seats.get_mut(name)) {
            let source = channel.source.map(|source| source.to_string()).unwrap_or_default();
            let sentence = format!(
                "the pattern of channel {title} is not sent: no active node is known to have its source {source}"
            );
            seats.problems.entry(node).or_insert(sentence);
        }
    }
    patterns
}
