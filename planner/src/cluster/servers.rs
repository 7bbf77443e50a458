//! Snapshots of the agents of tunnel servers and tunnel relays, one for each node of a pool.

use std::collections::{BTreeMap, BTreeSet};

use castgate_control::{AgentSnapshot, PatternSource, PoolServerSnapshot};

use super::adapters::{Client, service_url};
use super::pool::{self, Carrier, Seats};
use super::{Fleet, Refusal, ServerPlan, World, names};
use crate::objects::{ObjectName, Place, Server};
use crate::plan::agents::{self, Around};
use crate::plan::policies;

/// Patterns by the node and the server that send them.
type Patterns<'a> = BTreeMap<(Carrier<'a>, String), Vec<PatternSource>>;

pub(super) fn plan(world: World, fleet: &mut Fleet, clients: &mut Vec<Client>) {
    let mut accepted = Vec::new();
    for (kind, name, server) in world.carriers() {
        match pool::forbids_host_network(kind, &name.namespace, world.facts) {
            Some(message) => {
                let refused = Some(Refusal { reason: "HostNetworkForbidden", message });
                fleet.servers.insert((kind, name.clone()), ServerPlan { refused, ..ServerPlan::default() });
            }
            None => accepted.push(((kind, name), server)),
        }
    }
    let mut seats = pool::seat(&accepted, world.facts);
    let mut patterns = patterns(world, &accepted, &mut seats);
    for (carrier @ (kind, name), server) in accepted {
        let mut seats = seats.remove(&carrier).unwrap_or_default();
        let places: Vec<Place> = seats.active.values().cloned().collect();
        for node in &seats.pool {
            let agent = names::server_agent(kind, name, node);
            let mut snapshot = AgentSnapshot { agent, ..AgentSnapshot::default() };
            if let Some(place) = seats.active.get(node) {
                let database = |database: &str| service_url(world, &name.sibling(database));
                let around = Around { advertise: place, avoid: &places, database: &database };
                snapshot.server = Some(agents::server(world.objects, name, server, place, &around));
                snapshot.patterns = patterns.remove(&(carrier, node.clone())).unwrap_or_default();
                if let Err(error) = snapshot.check() {
                    seats.problems.insert(node.clone(), error.to_string());
                    snapshot = AgentSnapshot { agent: snapshot.agent, ..AgentSnapshot::default() };
                } else {
                    clients.extend(Client::new(world, name, &server.hierarchy, &snapshot.agent, || {
                        agents::server_entries(server, place)
                    }));
                }
            }
            fleet.snapshots.insert(snapshot.agent.clone(), snapshot);
        }
        let Seats { pool, active, wanted, problems } = seats;
        let active = active.into_keys().filter(|node| !is_idle(fleet, carrier, node)).collect();
        fleet.servers.insert((kind, name.clone()), ServerPlan { pool, active, wanted, refused: None, problems });
    }
}

/// The agents of a server that carry tunnels, as pools of policies have them. (Servers are planned before databases.)
pub(super) fn pool_servers(world: World, fleet: &Fleet, name: &ObjectName, server: &Server) -> Vec<PoolServerSnapshot> {
    let owner = (names::SERVER, name.clone());
    let active = fleet.servers.get(&owner).map(|plan| plan.active.as_slice()).unwrap_or_default();
    let agent = |node: &String| {
        let facts = world.facts.nodes.get(node)?;
        let place = pool::place(server, facts)?;
        let tunnels = world.facts.tunnels.get(&owner).and_then(|nodes| nodes.get(node));
        Some(PoolServerSnapshot {
            name: format!("{}@{node}", name.name),
            places: policies::places(agents::server_entries(server, &place)),
            registers: false,
            // An agent that has only lost the operator goes on; one whose node is gone does not.
            down: !facts.ready,
            load_percent: tunnels.map(|tunnels| load_percent(*tunnels, server.limits.tunnels.get())),
        })
    };
    active.iter().filter_map(agent).collect()
}

/// Loads are told in steps of this many percent: databases need not hear of every tunnel.
const LOAD_STEP_PERCENT: u64 = 5;

fn load_percent(tunnels: u64, tunnels_max: u32) -> u8 {
    let percent = tunnels.saturating_mul(100) / u64::from(tunnels_max);
    u8::try_from(percent.min(100) / LOAD_STEP_PERCENT * LOAD_STEP_PERCENT).expect("at most 100")
}

/// Whether the agent that should carry tunnels was given nothing to do.
fn is_idle(fleet: &Fleet, (kind, name): Carrier, node: &str) -> bool {
    fleet.snapshots.get(&names::server_agent(kind, name, node)).is_none_or(|snapshot| snapshot.server.is_none())
}

/// Decides who feeds each pattern: the first node of the first server that carries it and can send it. Where the channel names
/// a source that is the first node that has the address; an agent would refuse everything else along with it.
fn patterns<'a>(
    world: World,
    servers: &[(Carrier<'a>, &'a Server)],
    seats: &mut BTreeMap<Carrier<'a>, Seats>,
) -> Patterns<'a> {
    let mut patterns = Patterns::new();
    let mut fed = BTreeSet::new();
    let mut homeless = BTreeMap::new();
    for (carrier, server) in servers {
        let Some(seats) = seats.get(carrier) else { continue };
        for (bundle, channel) in agents::channels_of(world.objects, carrier.1, server) {
            let Some(pattern) = agents::pattern(server, channel) else { continue };
            if fed.contains(&pattern.channel) {
                continue;
            }
            let can_send = |(node, place): &(&String, &Place)| {
                pattern.channel.source.is_none_or(|source| {
                    source == *place.umtp.ip() || world.facts.nodes.get(*node).is_some_and(|facts| facts.has(source))
                })
            };
            if let Some((node, _)) = seats.active.iter().find(can_send) {
                fed.insert(pattern.channel);
                patterns.entry((*carrier, node.clone())).or_default().push(pattern);
            } else if let Some(node) = seats.active.keys().next() {
                let title = format!("{bundle}/{}", channel.name);
                homeless.entry(pattern.channel).or_insert_with(|| (*carrier, node.clone(), title));
            }
        }
    }
    for (channel, (carrier, node, title)) in homeless {
        if let (false, Some(seats)) = (fed.contains(&channel), seats.get_mut(&carrier)) {
            let source = channel.source.map(|source| source.to_string()).unwrap_or_default();
            let sentence = format!(
                "the pattern of channel {title} is not sent: no active node is known to have its source {source}"
            );
            seats.problems.entry(node).or_insert(sentence);
        }
    }
    patterns
}
