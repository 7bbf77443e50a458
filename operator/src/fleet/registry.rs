//! What each agent shall do and what each says: the meeting point of planner, streams, writer and reconciler.
//!
//! A snapshot is sent when its digest differs from what the agent has, never for its generation alone: replicas plan the same
//! from the same objects, so an agent that moves from one to another hears nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use castgate_control::AgentSnapshot;
use castgate_crds::tunnel_endpoint::EndpointRole;
use castgate_rpc::v1::{self, Hello, State, Verdict};
use jiff::Timestamp;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::identity::{Identity, Refusal};
use crate::observe::{Carried, Metrics};

/// Longest sentence that we keep of an agent.
const SENTENCE_MAX: usize = 1024;

/// The fleet as one replica sees it. Shared by everybody who plans for it, serves it or tells of it.
#[derive(Debug)]
pub struct Fleet {
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
    dirty: Notify,
    metrics: Arc<Metrics>,
    streams_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    planned: BTreeMap<String, Arc<Planned>>,
    agents: BTreeMap<String, Agent>,
    /// Agents about which something is new since the writer looked last.
    dirty: BTreeSet<String>,
    streams: u64,
}

/// A snapshot, ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) digest: String,
    pub(super) generation: u64,
    pub(super) document: String,
    since: Instant,
    snapshot: AgentSnapshot,
}

#[derive(Debug)]
struct Agent {
    identity: Identity,
    /// Number of its stream, or of the last one.
    stream: u64,
    /// Ends the stream when it is dropped; `None`: there is no stream.
    end: Option<oneshot::Sender<()>>,
    since: Instant,
    lost_at: Option<Timestamp>,
    version: String,
    generation: u64,
    digest: String,
    refusal: Option<String>,
    state: Option<Arc<State>>,
    snapshots: watch::Sender<Option<Arc<Planned>>>,
}

/// What is known of one agent.
#[derive(Debug, Clone)]
pub struct AgentView {
    /// Its name, `isp/ts-edge@node-1`.
    pub agent: String,
    /// Who it has proven to be.
    pub identity: Identity,
    /// Number of its stream here, or of the last one.
    pub stream: u64,
    /// Whether this replica holds its stream now.
    pub connected: bool,
    /// Since when the stream lives, or lived.
    pub since: Instant,
    /// When the stream was lost.
    pub lost_at: Option<Timestamp>,
    /// Its version.
    pub version: String,
    /// Generation of the snapshot in force.
    pub generation: u64,
    /// Digest of the snapshot in force; empty: none.
    pub digest: String,
    /// Why it does not do what is published; `None` while it does, or has not said yet.
    pub refusal: Option<String>,
    /// What it reported last on this stream.
    pub state: Option<Arc<State>>,
    /// What is published for it.
    pub published: Option<Published>,
}

impl AgentView {
    /// Whether what is published for it is in force; true when nothing is.
    #[must_use]
    pub fn has_taken(&self) -> bool {
        self.published.as_ref().is_none_or(|published| published.digest == self.digest)
    }
}

/// What is published for an agent, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its generation.
    pub generation: u64,
    /// Its digest.
    pub digest: String,
    /// Since when.
    pub since: Instant,
    /// Whether it asks for a tunnel server or a database; one that does neither stands by.
    pub listens: bool,
}

impl Fleet {
    /// A fleet of nobody, for this many agents at most.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, streams_max: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            changes: watch::Sender::new(0),
            dirty: Notify::new(),
            metrics,
            streams_max,
        })
    }

    /// What every agent shall do, by its name. Agents that are not named any more keep what they have.
    pub fn publish(&self, snapshots: BTreeMap<String, AgentSnapshot>) {
        // To write a large fleet as text takes its time: streams are not to wait for it, so it is done without the lock.
        let before = self.lock().planned.clone();
        let names: BTreeSet<String> = snapshots.keys().cloned().collect();
        let next: Vec<_> = snapshots
            .into_iter()
            .filter_map(|(agent, snapshot)| {
                let planned = Planned::after(before.get(&agent).map(Arc::as_ref), snapshot)?;
                Some((agent, planned))
            })
            .collect();
        let changed = next.len();
        {
            let mut inner = self.lock();
            let Inner { planned, agents, dirty, streams: _ } = &mut *inner;
            let gone: Vec<_> = planned.keys().filter(|agent| !names.contains(*agent)).cloned().collect();
            for agent in gone {
                planned.remove(&agent);
                dirty.insert(agent);
            }
            for (agent, mut next) in next {
                let known = agents.get(&agent);
                let in_force = known.map_or(0, |known| known.generation);
                let before = planned.get(&agent).map_or(0, |before| before.generation);
                // From a replica whose clock is ahead, or planned anew for one meanwhile.
                if next.generation <= in_force.max(before) {
                    next = Planned::new(next.snapshot, next.digest, in_force.max(before) + 1);
                }
                let next = Arc::new(next);
                if let Some(known) = known {
                    known.snapshots.send_replace(Some(Arc::clone(&next)));
                }
                planned.insert(agent.clone(), next);
                dirty.insert(agent);
            }
            agents.retain(|agent, known| known.end.is_some() || planned.contains_key(agent) || dirty.contains(agent));
        }
        if changed > 0 {
            self.metrics.snapshots_published(u64::try_from(changed).unwrap_or(u64::MAX));
        }
        self.dirty.notify_one();
    }

    /// Grows with everything that a reconciler may want to look at: an agent that comes or goes, a verdict, an address or a
    /// registration. Not with mere counters.
    #[must_use]
    pub fn subscribe_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All agents that have a stream here, or had one and are still planned.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentView> {
        let inner = self.lock();
        inner.agents.iter().map(|(name, agent)| agent.view(name, inner.planned.get(name))).collect()
    }

    /// One agent.
    #[must_use]
    pub fn agent(&self, agent: &str) -> Option<AgentView> {
        let inner = self.lock();
        inner.agents.get(agent).map(|known| known.view(agent, inner.planned.get(agent)))
    }

    /// Agents about which something is new since the last call; waits until there is one.
    pub(super) async fn dirty(&self) -> BTreeSet<String> {
        loop {
            let dirty = std::mem::take(&mut self.lock().dirty);
            if !dirty.is_empty() {
                return dirty;
            }
            self.dirty.notified().await;
        }
    }

    /// Begins the stream of an agent, and ends the one before it.
    ///
    /// # Errors
    /// There are too many streams.
    pub(super) fn open(self: &Arc<Self>, identity: Identity, hello: &Hello) -> Result<Stream, Refusal> {
        let name = identity.agent();
        let role = identity.role_word();
        let (end, ended) = oneshot::channel();
        let mut inner = self.lock();
        let replaces = inner.agents.get(&name).is_some_and(|agent| agent.end.is_some());
        let live = inner.agents.values().filter(|agent| agent.end.is_some()).count();
        if !replaces && live >= self.streams_max {
            return Err(Refusal::Full(live));
        }
        inner.streams += 1;
        let stream = inner.streams;
        // A generation never falls for an agent, even when it comes from a replica whose clock is ahead.
        if let Some(planned) = inner.planned.get(&name)
            && planned.digest != hello.digest
            && planned.generation <= hello.generation
        {
            let Planned { digest, snapshot, .. } = &**planned;
            let later = Planned::new(snapshot.clone(), digest.clone(), hello.generation.saturating_add(1));
            inner.planned.insert(name.clone(), Arc::new(later));
        }
        let planned = inner.planned.get(&name).cloned();
        let snapshots = watch::Sender::new(planned);
        let receiver = snapshots.subscribe();
        let agent = Agent {
            identity,
            stream,
            end: Some(end),
            since: Instant::now(),
            lost_at: None,
            version: short(&hello.version),
            generation: hello.generation,
            digest: short(&hello.digest),
            refusal: None,
            state: None,
            snapshots,
        };
        inner.agents.insert(name.clone(), agent);
        inner.dirty.insert(name.clone());
        drop(inner);
        if replaces {
            self.metrics.agent_disconnected(role);
        }
        self.metrics.agent_connected(role);
        self.changed();
        Ok(Stream { fleet: Arc::clone(self), agent: name, number: stream, snapshots: receiver, ended })
    }

    fn verdict(&self, name: &str, stream: u64, verdict: &Verdict) {
        let Verdict { generation, digest, refusal } = verdict;
        self.update(name, stream, |agent| {
            agent.digest = short(digest);
            agent.refusal = (!refusal.is_empty()).then(|| short(refusal));
            if refusal.is_empty() {
                agent.generation = *generation;
            }
            true
        });
    }

    fn state(&self, name: &str, stream: u64, state: State) {
        let mut carried = None;
        self.update(name, stream, |agent| {
            let before = agent.state.as_deref();
            let matters = before.is_none_or(|before| {
                before.listen != state.listen
                    || before.registrations != state.registrations
                    || before.clients != state.clients
                    || before.amt.as_ref().map(|amt| &amt.listen) != state.amt.as_ref().map(|amt| &amt.listen)
                    || !before.upstreams.iter().map(place_and_state).eq(state.upstreams.iter().map(place_and_state))
            });
            if matches!(agent.identity.role, EndpointRole::Server | EndpointRole::Relay) {
                let channels = state.channels.iter().filter(|channel| channel.tunnels > 0).count();
                let numbers = Carried {
                    tunnels: state.tunnels,
                    channels: u64::try_from(channels).unwrap_or(u64::MAX),
                    drops: state.drops.clone(),
                };
                carried = Some((agent.identity.clone(), numbers));
            }
            agent.generation = state.generation;
            agent.state = Some(Arc::new(state));
            matters
        });
        if let Some((identity, numbers)) = carried {
            self.metrics.carried(name, &identity.namespace, &identity.owner, numbers);
        }
    }

    /// Changes what is known of an agent, if this is still its stream.
    fn update(&self, name: &str, stream: u64, change: impl FnOnce(&mut Agent) -> bool) {
        let mut inner = self.lock();
        let Some(agent) = inner.agents.get_mut(name).filter(|agent| agent.stream == stream) else { return };
        let matters = change(agent);
        inner.dirty.insert(name.to_owned());
        drop(inner);
        self.dirty.notify_one();
        if matters {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    fn close(&self, name: &str, stream: u64) {
        let mut role = None;
        self.update(name, stream, |agent| {
            agent.end = None;
            agent.lost_at = Some(Timestamp::now());
            role = Some(agent.identity.role_word());
            true
        });
        if let Some(role) = role {
            self.metrics.agent_disconnected(role);
            self.metrics.carried_no_more(name);
        }
    }

    fn changed(&self) {
        self.dirty.notify_one();
        self.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nobody panics while holding it; if somebody does, the state is still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Planned {
    fn new(mut snapshot: AgentSnapshot, digest: String, least: u64) -> Self {
        let millis = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        let generation = least.max(millis);
        snapshot.generation = generation;
        Self { digest, generation, document: snapshot.to_yaml(), since: Instant::now(), snapshot }
    }

    /// What comes after `before`; `None` when it asks for the same.
    fn after(before: Option<&Self>, mut snapshot: AgentSnapshot) -> Option<Self> {
        let Some(before) = before else {
            let digest = snapshot.digest();
            return Some(Self::new(snapshot, digest, 1));
        };
        // Cheaper than a digest, and nearly always the answer.
        snapshot.generation = before.generation;
        if snapshot == before.snapshot {
            return None;
        }
        let digest = snapshot.digest();
        (digest != before.digest).then(|| Self::new(snapshot, digest, before.generation + 1))
    }

    /// As it goes over the wire.
    pub(super) fn message(&self) -> v1::AgentSnapshot {
        v1::AgentSnapshot { generation: self.generation, document: self.document.clone() }
    }
}

impl Agent {
    fn view(&self, name: &str, planned: Option<&Arc<Planned>>) -> AgentView {
        let published = planned.map(|planned| Published {
            generation: planned.generation,
            digest: planned.digest.clone(),
            since: planned.since,
            listens: planned.snapshot.server.is_some() || planned.snapshot.database.is_some(),
        });
        // What was refused may have been taken back: then there is nothing to complain about.
        let in_force = published.as_ref().is_some_and(|published| published.digest == self.digest);
        AgentView {
            agent: name.to_owned(),
            identity: self.identity.clone(),
            stream: self.stream,
            connected: self.end.is_some(),
            since: self.since,
            lost_at: self.lost_at,
            version: self.version.clone(),
            generation: self.generation,
            digest: self.digest.clone(),
            refusal: self.refusal.clone().filter(|_| !in_force),
            state: self.state.clone(),
            published,
        }
    }
}

/// The stream of an agent, for as long as it lives: dropping it says that it is lost.
#[derive(Debug)]
pub(super) struct Stream {
    fleet: Arc<Fleet>,
    agent: String,
    number: u64,
    /// What is published for the agent.
    pub(super) snapshots: watch::Receiver<Option<Arc<Planned>>>,
    /// Resolves when another stream of the same agent takes over.
    pub(super) ended: oneshot::Receiver<()>,
}

impl Stream {
    /// The agent says what became of a snapshot.
    pub(super) fn verdict(&self, verdict: &Verdict) {
        self.fleet.verdict(&self.agent, self.number, verdict);
    }

    /// The agent says what it carries.
    pub(super) fn state(&self, state: State) {
        self.fleet.state(&self.agent, self.number, state);
    }

    /// Whose stream it is.
    pub(super) fn agent(&self) -> &str {
        &self.agent
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.fleet.close(&self.agent, self.number);
    }
}

/// What has been said to an agent on one stream, and what must still be said.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Digest that the agent named last.
    named: String,
    /// Sent and not answered yet.
    pending: Option<(u64, String)>,
    /// Digest that the agent refused last: to repeat it would change nothing.
    refused: Option<String>,
}

impl Outbox {
    pub(super) fn new(hello: &Hello) -> Self {
        Self { named: hello.digest.clone(), ..Self::default() }
    }

    /// Whether this is to be sent now.
    pub(super) fn is_due(&self, planned: &Planned) -> bool {
        match &self.pending {
            // What is on its way will be in force soon, or refused; until then it is what the agent has.
            Some((_, digest)) => *digest != planned.digest,
            None => self.named != planned.digest && self.refused.as_ref() != Some(&planned.digest),
        }
    }

    pub(super) fn sent(&mut self, planned: &Planned) {
        self.pending = Some((planned.generation, planned.digest.clone()));
        self.refused = None;
    }

    pub(super) fn verdict(&mut self, verdict: &Verdict) {
        self.named.clone_from(&verdict.digest);
        if let Some((generation, digest)) = &self.pending
            && *generation == verdict.generation
        {
            self.refused = (!verdict.refusal.is_empty()).then(|| digest.clone());
            self.pending = None;
        }
    }
}

/// What of a server above is worth a look at once; its numbers are not.
fn place_and_state(upstream: &v1::Upstream) -> (&str, &str) {
    (&upstream.server, &upstream.state)
}

/// An agent's text, short enough to be kept.
fn short(text: &str) -> String {
    text.chars().take(SENTENCE_MAX).collect()
}

#[cfg(test)]
mod tests;
