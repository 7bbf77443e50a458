//! What agents say, written to their `TunnelEndpoint` objects by the replica that holds their stream.
//!
//! ```text
//!   registry ── dirty agents ──▶ plan (pure: what changed, when is it due) ──▶ token bucket ──▶ write (fenced) ──▶ API server
//! ```
//! Two replicas may both believe that they serve an agent: one of them before the other. So every new stream takes the next
//! epoch in the object, every write carries the resource version that it has seen, and whoever then meets an epoch above its
//! own stops.

mod former;
mod plan;
mod status;
mod store;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use castgate_crds::tunnel_endpoint::{EndpointRole, StreamHolder};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use self::plan::{Bucket, Claim, Memory, is_settling, plan_write};
use self::write::{Outcome, Task};
use super::registry::Fleet;
use crate::observe::Metrics;

pub use self::plan::Pace;
pub use self::store::{KubeStore, Store, StoreError};

/// What the API server shows of endpoints and of the objects that agents work for.
pub trait Objects: Send + Sync + 'static {
    /// The owners of an agent's endpoint: its `TunnelServer`, `TunnelRelay` or `TunnelDatabase`; for an adapter, whose name is its
    /// namespace, all objects that register through it. Empty: not known yet.
    fn owners(&self, role: EndpointRole, namespace: &str, name: &str) -> Vec<OwnerReference>;
    /// The newest epoch in an endpoint; `None`: there is no such endpoint. May be a moment old.
    fn epoch(&self, namespace: &str, name: &str) -> Option<i64>;
    /// Namespace and name of every endpoint that says that this replica holds the stream.
    fn held(&self, replica: &str) -> Vec<(String, String)>;
}

/// Writes under way at once.
const WRITES_AT_ONCE: usize = 8;
/// Holds are compared with what the API server shows this often. An agent with nothing new to say, such as an adapter, gives no
/// other reason to look, and its endpoint would stay as somebody else has written it.
const HOLDS_LOOK: Duration = Duration::from_secs(5);
/// A fenced agent whose stream still lives here is looked at again: the other replica may have lost it since.
const FENCED_LOOK: Duration = Duration::from_secs(15);
/// After a failure: the API server is away, or the owner not known yet.
const RETRY: Duration = Duration::from_secs(5);
/// After a failure that a person has to mend, as a rule: an API server that has just started also forbids for a moment.
const RETRY_LATE: Duration = Duration::from_secs(10);

/// Writes the endpoints of the agents connected here.
///
/// Stop it before the streams are ended at shutdown: streams that end because we go are not lost agents.
pub struct Writer<S, O> {
    fleet: Arc<Fleet>,
    store: Arc<S>,
    objects: Arc<O>,
    metrics: Arc<Metrics>,
    pace: Pace,
    replica: String,
}

/// What the writer keeps between two rounds.
struct Desk {
    memories: BTreeMap<String, Memory>,
    due: BTreeMap<String, Instant>,
    /// Agents with a write under way.
    busy: BTreeSet<String>,
    bucket: Bucket,
}

impl<S: Store, O: Objects> Writer<S, O> {
    /// A writer in the name of this replica.
    #[must_use]
    pub fn new(
        fleet: Arc<Fleet>,
        store: Arc<S>,
        objects: Arc<O>,
        metrics: Arc<Metrics>,
        pace: Pace,
        replica: String,
    ) -> Self {
        Self { fleet, store, objects, metrics, pace, replica }
    }

    /// Writes until it is dropped.
    pub async fn run(self) {
        let mut desk = Desk {
            memories: BTreeMap::new(),
            due: BTreeMap::new(),
            busy: BTreeSet::new(),
            bucket: Bucket::full(Instant::now(), &self.pace),
        };
        let mut writes: FuturesUnordered<BoxFuture<'static, (String, Outcome)>> = FuturesUnordered::new();
        let mut holds = tokio::time::interval(HOLDS_LOOK);
        let mut former = pin!(self.settle_former().fuse());
        loop {
            while writes.len() < WRITES_AT_ONCE
                && let Some(agent) = desk.next_due(Instant::now())
            {
                if let Some(task) = self.begin(&mut desk, &agent) {
                    writes.push(Box::pin(async move { (agent, task.run().await) }));
                }
            }
            let wake = if writes.len() < WRITES_AT_ONCE { desk.next_wake() } else { None };
            tokio::select! {
                dirty = self.fleet.dirty() => {
                    for agent in dirty {
                        self.look(&mut desk, &agent);
                    }
                }
                Some((agent, outcome)) = writes.next(), if !writes.is_empty() => {
                    desk.busy.remove(&agent);
                    self.conclude(&mut desk, &agent, outcome);
                    self.look(&mut desk, &agent);
                }
                () = &mut former => {}
                _ = holds.tick() => self.look_at_holds(&mut desk),
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Doubts every hold that the API server shows otherwise: written over by another replica, or gone with its object.
    fn look_at_holds(&self, desk: &mut Desk) {
        let is_shown = |claim: &Claim| {
            let metadata = &claim.object.metadata;
            let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) else { return true };
            self.objects.epoch(namespace, name).is_some_and(|epoch| epoch <= claim.epoch)
        };
        let mut doubted = Vec::new();
        for (agent, memory) in &mut desk.memories {
            if let Some(claim) = memory.claim.as_mut().filter(|claim| !is_shown(claim)) {
                claim.doubt();
                doubted.push(agent.clone());
            }
        }
        for agent in doubted {
            self.look(desk, &agent);
        }
    }

    /// Decides when an agent's endpoint is written next.
    fn look(&self, desk: &mut Desk, agent: &str) {
        let Some(view) = self.fleet.agent(agent) else {
            desk.memories.remove(agent);
            desk.due.remove(agent);
            return;
        };
        let memory = desk.memories.entry(agent.to_owned()).or_default();
        memory.follow(&view);
        match plan_write(memory, Instant::now(), &view, &self.pace) {
            // Who waits already keeps its place in the queue, however much more it has to say by now.
            Some(due) => {
                desk.due.entry(agent.to_owned()).and_modify(|since| *since = due.min(*since)).or_insert(due);
            }
            None => drop(desk.due.remove(agent)),
        }
    }

    fn begin(&self, desk: &mut Desk, agent: &str) -> Option<Task<S>> {
        desk.due.remove(agent);
        let view = self.fleet.agent(agent)?;
        let memory = desk.memories.get_mut(agent)?;
        // It may have changed since it was looked at, and what was due may be so no more.
        memory.follow(&view);
        let due = plan_write(memory, Instant::now(), &view, &self.pace)?;
        if due > Instant::now() {
            desk.due.insert(agent.to_owned(), due);
            return None;
        }
        desk.bucket.take(Instant::now(), &self.pace);
        desk.busy.insert(agent.to_owned());
        let owners = self.objects.owners(view.identity.role, &view.identity.namespace, &view.identity.owner);
        Some(Task {
            store: Arc::clone(&self.store),
            owners,
            replica: self.replica.clone(),
            claim: memory.claim.clone(),
            fenced: memory.fenced,
            settling: is_settling(&view, Instant::now(), &self.pace),
            view,
        })
    }

    fn conclude(&self, desk: &mut Desk, agent: &str, outcome: Outcome) {
        let Some(memory) = desk.memories.get_mut(agent) else { return };
        let now = Instant::now();
        memory.retry_at = None;
        match outcome {
            Outcome::Written { stream, claim, connected } => {
                self.metrics.endpoint_written();
                memory.wrote(stream, claim, connected, now);
            }
            Outcome::Unchanged { stream, claim, connected } => memory.saw(stream, claim, connected),
            Outcome::Fenced { stream, holder: StreamHolder { replica, epoch } } => {
                if !memory.fenced {
                    self.metrics.endpoint_fenced();
                    info!(agent, %replica, epoch, "another replica holds a newer stream of the agent");
                }
                memory.fence(stream, now + FENCED_LOOK);
            }
            Outcome::Gone { stream } => memory.finish(stream),
            Outcome::NoOwner => {
                debug!(agent, "the owner of the agent's endpoint is not known yet");
                memory.retry_at = Some(now + RETRY);
            }
            Outcome::Taken => {
                warn!(agent, "the name of the agent's endpoint is taken by that of another agent");
                memory.retry_at = Some(now + RETRY_LATE);
            }
            Outcome::Failed(error) => {
                debug!(agent, %error, "the agent's endpoint cannot be written");
                memory.retry_at = Some(now + RETRY);
            }
        }
    }
}

impl Desk {
    /// The agent that waits longest, if its time has come and the bucket allows for a write.
    fn next_due(&mut self, now: Instant) -> Option<String> {
        if self.bucket.ready_at(now) > now {
            return None;
        }
        let (agent, due) = self.waiting().min_by_key(|(_, due)| *due)?;
        (due <= now).then(|| agent.clone())
    }

    /// When there is something to do if nothing happens.
    fn next_wake(&self) -> Option<Instant> {
        let due = self.waiting().map(|(_, due)| due).min()?;
        Some(due.max(self.bucket.ready_at(due)))
    }

    fn waiting(&self) -> impl Iterator<Item = (&String, Instant)> {
        self.due.iter().filter(|(agent, _)| !self.busy.contains(*agent)).map(|(agent, due)| (agent, *due))
    }
}

/// Sleeps for ever without a time.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The time that a condition shows.
fn wall_clock() -> Timestamp {
    // Conditions carry seconds.
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests;
