//! Registrations: what each agent announces, and the adapter of its namespace that carries it to databases above.
//!
//! ```text
//!   server, database: registrar { entries, adapter: endpoint, key }      no credential of a parent
//!   adapter:          clients [{ agent, key, entries, parents with login and password }]
//! ```
//! The key of an agent is HMAC-SHA256 of its name under the secret of the namespace: agents cannot speak for each other, and
//! nothing has to be stored for each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use castgate_control::{
    AdapterClient, AdapterRef, AdapterSnapshot, AgentSnapshot, Parent, RegistrarDiscovery, RegistrarSnapshot,
    Registration,
};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::{Fleet, World, is_held, names};
use crate::objects::{Hierarchy, ObjectName, ParentPlace};
use crate::plan::agents;
use crate::url::DatabaseUrl;

/// One agent with something to announce.
pub(super) struct Client {
    namespace: String,
    agent: String,
    entries: Vec<Registration>,
    parents: Vec<Parent>,
    discovery: Option<RegistrarDiscovery>,
    interval: NonZeroU32,
}

impl Client {
    /// `None` where nothing is above.
    pub(super) fn new(
        world: World,
        name: &ObjectName,
        hierarchy: &Hierarchy,
        agent: &str,
        entries: impl Fn() -> Vec<Registration>,
    ) -> Option<Self> {
        let mut parents = agents::parents(world.objects, name, hierarchy, |place| urls(world, name, place));
        // A URL may be that of a database which is named by reference too: it is told once.
        let mut seen = BTreeSet::new();
        parents.retain(|parent| seen.insert(parent.url.clone()));
        let discovery = agents::discovery(world.objects, name, hierarchy);
        if parents.is_empty() && discovery.is_none() {
            return None;
        }
        Some(Self {
            namespace: name.namespace.clone(),
            agent: agent.to_owned(),
            entries: entries(),
            parents,
            discovery,
            interval: agents::whole_seconds(hierarchy.update_interval),
        })
    }
}

/// Where an adapter reaches a parent: one of ours in each of its replicas, because who registers with one member registers with
/// all. Pods that are not there yet are tried until they are; a list of those that are would change with every restart, and
/// whoever leaves it is told goodbye. Replicas with one etcd are one member: a goodbye to one of them would be one to all.
fn urls(world: World, from: &ObjectName, place: &ParentPlace) -> Vec<DatabaseUrl> {
    match place {
        ParentPlace::Url(url) => vec![url.clone()],
        ParentPlace::Database(database) => {
            let name = from.sibling(database);
            let Some(entry) = world.objects.databases.get(&name) else { return Vec::new() };
            if entry.object.store.etcd().is_some() {
                return service_url(world, &name).into_iter().collect();
            }
            let url = |number| {
                let (scheme, host) = (entry.object.scheme(), names::replica_host(&name, number));
                format!("{scheme}://{host}:{}", entry.object.listen.port()).parse().ok()
            };
            (0..entry.object.replicas).filter_map(url).collect()
        }
    }
}

/// Where agents of the cluster reach a database of ours.
pub(super) fn service_url(world: World, database: &ObjectName) -> Option<DatabaseUrl> {
    let entry = &world.objects.databases.get(database)?.object;
    let (scheme, port) = (entry.scheme(), entry.listen.port());
    format!("{scheme}://{}:{port}", names::database_host(database)).parse().ok()
}

/// Hands every client its registrar, and every adapter its clients.
pub(super) fn plan(world: World, fleet: &mut Fleet, clients: Vec<Client>) {
    let mut by_namespace: BTreeMap<String, Vec<Client>> = BTreeMap::new();
    for client in clients {
        by_namespace.entry(client.namespace.clone()).or_default().push(client);
    }
    for (namespace, facts) in &world.facts.adapters {
        let mut rows = Vec::new();
        for Client { namespace: _, agent, entries, parents, discovery, interval } in
            by_namespace.remove(namespace).unwrap_or_default()
        {
            let key = key(&facts.agents_key, &agent);
            if let Some(snapshot) = fleet.snapshots.get_mut(&agent) {
                snapshot.registrar = Some(registrar(namespace, key.clone(), entries.clone(), interval));
            }
            rows.push(AdapterClient {
                agent,
                key,
                entries,
                parents,
                discovery,
                peers: None,
                interval_seconds: interval,
            });
        }
        let Some(node) = world.facts.adapter_nodes.get(namespace) else { continue };
        let agent = names::adapter_agent(namespace, node);
        rows.extend(kept(world, fleet, namespace));
        rows.sort_by(|a, b| a.agent.cmp(&b.agent));
        let adapter = AdapterSnapshot {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, names::ADAPTER_PORT)),
            tls: facts.tls.clone(),
            clients: rows,
            grace_seconds: GRACE,
        };
        let snapshot = AgentSnapshot { agent: agent.clone(), adapter: Some(adapter), ..AgentSnapshot::default() };
        fleet.snapshots.insert(agent, snapshot);
    }
}

/// How long an agent may be gone before its entries are taken back: longer than a restart, shorter than a client's patience.
const GRACE: NonZeroU32 = NonZeroU32::new(15).expect("15 is not zero");

fn registrar(namespace: &str, key: String, entries: Vec<Registration>, interval: NonZeroU32) -> RegistrarSnapshot {
    let endpoint = format!("https://{}:{}", names::adapter_host(namespace), names::ADAPTER_PORT);
    let mut registrar = RegistrarSnapshot::new(entries, Vec::new());
    registrar.adapter = Some(AdapterRef { endpoint, key });
    registrar.interval_seconds = interval;
    registrar
}

/// What the adapter did for agents whose objects are held: it goes on with it.
fn kept(world: World, fleet: &Fleet, namespace: &str) -> Vec<AdapterClient> {
    let adapters = world
        .facts
        .previous
        .iter()
        .filter(|(agent, _)| agent.strip_prefix(namespace).is_some_and(|rest| rest.starts_with("/adapter@")));
    let clients = adapters.filter_map(|(_, snapshot)| snapshot.adapter.as_ref()).flat_map(|adapter| &adapter.clients);
    let mut seen = BTreeSet::new();
    clients.filter(|client| is_held(&fleet.held, &client.agent) && seen.insert(&client.agent)).cloned().collect()
}

/// What an agent shows to the adapter of its namespace.
fn key(secret: &[u8], agent: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(agent.as_bytes());
    mac.finalize().into_bytes().iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}
