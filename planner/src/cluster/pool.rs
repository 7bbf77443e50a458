//! Which nodes a server may run on, and which of them carry tunnels.
//!
//! ```text
//!   nodes ──selector, taints──▶ pool ──an address, a free port──▶ candidates ──rank, replicas──▶ active
//!                                │                                                     rest ──▶ stand by
//!                                └── without an address, with a taken port ──▶ a problem of that node, stands by
//! ```
//! A node that carries tunnels keeps them as long as it is ready. One that is not is replaced when another one can take its
//! place, and not before: the cluster may be wrong about it, and its clients know better whether it still serves them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use castgate_crds::placement::{TaintEffect, Toleration, TolerationOperator};
use castgate_crds::tunnels::AddressType;

use super::facts::{Facts, NodeFacts, Taint};
use super::names;
use crate::objects::{ObjectName, Place, Server};

/// Taints by which the cluster says how a node is. The controller of `DaemonSets` tolerates them for its pods; that a node is not
/// ready is weighed here by its condition.
const CONDITIONS: [&str; 7] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/network-unavailable",
];

/// A server or a relay: its kind and its name.
pub(super) type Carrier<'a> = (&'static str, &'a ObjectName);

/// Who listens on a socket of a node.
type Taken<'a> = BTreeMap<(String, SocketAddr), Carrier<'a>>;

/// Where one server runs.
#[derive(Debug, Default)]
pub(super) struct Seats {
    /// Nodes that its pods run on.
    pub(super) pool: Vec<String>,
    /// Nodes that carry tunnels, and where they listen.
    pub(super) active: BTreeMap<String, Place>,
    /// How many nodes should carry tunnels.
    pub(super) wanted: usize,
    /// Why a node of the pool cannot carry tunnels that it should carry.
    pub(super) problems: BTreeMap<String, String>,
}

/// In which order nodes are asked to carry tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    /// It is ready, and the plan before had it carry them: one that was replaced and comes back must not push it out.
    Planned,
    /// It is ready, and carries them.
    Carries,
    /// It is ready.
    Ready,
    /// It does, or was to; that it is not ready may pass.
    CarriedLast,
    /// It will be ready some day: only where every node is wanted.
    NotReady,
}

/// Seats all servers at once: two of them may want the same port of the same node.
pub(super) fn seat<'a>(servers: &[(Carrier<'a>, &'a Server)], facts: &Facts) -> BTreeMap<Carrier<'a>, Seats> {
    let mut seats: BTreeMap<_, _> = servers
        .iter()
        .map(|(carrier, server)| {
            let pool = pool(*carrier, server, facts);
            let wanted = server.replicas.map_or(pool.len(), |replicas| pool.len().min(replicas as usize));
            (*carrier, Seats { pool, wanted, ..Seats::default() })
        })
        .collect();
    let mut taken = Taken::new();
    for rank in [Rank::Planned, Rank::Carries, Rank::Ready, Rank::CarriedLast, Rank::NotReady] {
        for (carrier, server) in servers {
            let seats = seats.get_mut(carrier).expect("every server has its seats");
            take(*carrier, server, facts, rank, seats, &mut taken);
        }
    }
    for (carrier, server) in servers {
        let seats = seats.get_mut(carrier).expect("every server has its seats");
        explain(server, facts, seats, &taken);
    }
    seats
}

/// Gives a server the nodes of one rank, as far as they are needed and free.
fn take<'a>(
    whose @ (kind, name): Carrier<'a>,
    server: &Server,
    facts: &Facts,
    rank: Rank,
    seats: &mut Seats,
    taken: &mut Taken<'a>,
) {
    let carrying = facts.active.get(&(kind, name.clone()));
    let Seats { pool, active, wanted, .. } = seats;
    let of_rank = |node: &&String| {
        let agent = names::server_agent(kind, name, node);
        let planned = facts.previous.get(&agent).is_some_and(|snapshot| snapshot.server.is_some());
        let carries = carrying.is_some_and(|nodes| nodes.contains(*node));
        rank_of(planned, carries, facts.nodes.get(*node).is_some_and(|node| node.ready)) == rank
    };
    // The one who has the fixed address is asked first.
    let (holders, others): (Vec<_>, Vec<_>) =
        pool.iter().filter(of_rank).partition(|node| holds(server, facts.nodes.get(*node)));
    for node in holders.into_iter().chain(others) {
        let enough = active.len() >= *wanted
            || (rank == Rank::NotReady && server.replicas.is_some())
            // A fixed address is in one place.
            || (server.named().next().is_some() && !active.is_empty());
        if enough {
            return;
        }
        let Some(place) = facts.nodes.get(node).and_then(|facts| place(server, facts)) else { continue };
        if place.sockets().all(|socket| !taken.contains_key(&(node.clone(), socket))) {
            taken.extend(place.sockets().map(|socket| ((node.clone(), socket), whose)));
            active.insert(node.clone(), place);
        }
    }
}

fn rank_of(planned: bool, carries: bool, ready: bool) -> Rank {
    match (planned, carries, ready) {
        (true, _, true) => Rank::Planned,
        (false, true, true) => Rank::Carries,
        (false, false, true) => Rank::Ready,
        (true, _, false) | (_, true, false) => Rank::CarriedLast,
        (false, false, false) => Rank::NotReady,
    }
}

/// Says of every node why it stays empty, where a server got fewer than it wants.
fn explain(server: &Server, facts: &Facts, seats: &mut Seats, taken: &Taken) {
    let Seats { pool, active, wanted, problems } = seats;
    if active.len() >= *wanted {
        return;
    }
    for node in pool.iter().filter(|node| !active.contains_key(*node)) {
        let Some(place) = facts.nodes.get(node).and_then(|facts| place(server, facts)) else {
            let (wanted, other) = match server.address_type {
                AddressType::InternalIp => ("InternalIP", "name spec.umtp.address"),
                AddressType::ExternalIp => {
                    ("ExternalIP", "name spec.umtp.address, or choose spec.umtp.addressType: InternalIP")
                }
            };
            problems.insert(node.clone(), format!("node {node} has no {wanted} of version 4 to listen on: {other}"));
            continue;
        };
        let occupied = place.sockets().find_map(|socket| Some((socket, taken.get(&(node.clone(), socket))?)));
        if let Some((socket, (kind, other))) = occupied {
            let sentence = format!("UDP {socket} of node {node} is taken: {kind} {other} listens there");
            problems.insert(node.clone(), sentence);
        } else if let (Some(address), Some(holder)) = (server.named().next(), active.keys().next()) {
            let field = if server.address.is_some() { "spec.umtp.address" } else { "spec.amt.addresses" };
            let sentence = format!(
                "{field} {address} is on node {holder}, and can be on one node only: \
                 leave it out, so that every node uses its own, or set spec.replicas to 1"
            );
            problems.insert(node.clone(), sentence);
        }
        // Otherwise it is not ready, which its own status says.
    }
}

/// Nodes on which the pods of a server run, by name.
fn pool((kind, name): Carrier, server: &Server, facts: &Facts) -> Vec<String> {
    let carrying = facts.active.get(&(kind, name.clone()));
    let belongs = |(node, facts): &(&String, &NodeFacts)| {
        let selected = server.node_selector.iter().all(|(key, value)| facts.labels.get(key) == Some(value));
        let carries = carrying.is_some_and(|nodes| nodes.contains(*node));
        selected && facts.taints.iter().all(|taint| admits(&server.tolerations, taint, carries))
    };
    facts.nodes.iter().filter(belongs).map(|(node, _)| node.clone()).collect()
}

/// Whether a taint lets the pod of a server stay (`carries`) or begin.
fn admits(tolerations: &[Toleration], taint: &Taint, carries: bool) -> bool {
    let indifferent = match taint.effect {
        TaintEffect::PreferNoSchedule => true,
        // It keeps pods from beginning; what runs goes on.
        TaintEffect::NoSchedule => carries,
        TaintEffect::NoExecute => false,
    };
    indifferent || CONDITIONS.contains(&taint.key.as_str()) || tolerations.iter().any(|one| tolerates(one, taint))
}

/// The rules of Kubernetes for one toleration and one taint.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let Toleration { key, operator, value, effect } = toleration;
    let exists = *operator == TolerationOperator::Exists;
    effect.is_none_or(|effect| effect == taint.effect)
        && key.as_ref().map_or(exists, |key| *key == taint.key)
        && (exists || value.as_deref().unwrap_or_default() == taint.value)
}

/// Where a server listens on a node, and what it registers with.
pub(super) fn place(server: &Server, node: &NodeFacts) -> Option<Place> {
    let (four, six) = match server.address_type {
        AddressType::InternalIp => (node.internal_ip, node.internal_ip6),
        AddressType::ExternalIp => (node.external_ip, node.external_ip6),
    };
    Some(server.place(server.address.or(four)?, six))
}

/// Whether a node is known to have a fixed address of a server.
fn holds(server: &Server, node: Option<&NodeFacts>) -> bool {
    node.is_some_and(|node| server.named().any(|address| node.holds(address)))
}

impl NodeFacts {
    /// Whether an address is known to be one of this node.
    pub(super) fn has(&self, address: Ipv4Addr) -> bool {
        self.holds(IpAddr::V4(address))
    }

    fn holds(&self, address: IpAddr) -> bool {
        let own = match address {
            IpAddr::V4(address) => [self.internal_ip, self.external_ip].contains(&Some(address)),
            IpAddr::V6(address) => [self.internal_ip6, self.external_ip6].contains(&Some(address)),
        };
        own || address.is_loopback()
    }
}

/// Whether a namespace lets pods use the network of their node; why not, if it does not.
pub(super) fn forbids_host_network(kind: &str, namespace: &str, facts: &Facts) -> Option<String> {
    let level = facts.namespaces.get(namespace)?.enforce.as_deref()?;
    matches!(level, "baseline" | "restricted").then(|| {
        format!(
            "namespace {namespace} enforces Pod Security \"{level}\", which forbids the network of the node (hostNetwork): \
             label it pod-security.kubernetes.io/enforce=privileged, or put the {kind} into another namespace"
        )
    })
}
