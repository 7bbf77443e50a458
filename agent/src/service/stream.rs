//! An agent whose snapshots come from the operator.
//!
//! ```text
//!   last good ─▶ in force at once
//!   document ─▶ read ─▶ apply ─▶ in force ─▶ Verdict(digest)
//!                 │        └─▶ refused ──▶ Verdict(refusal); tried again: an address may become free
//!                 └─▶ refused ───────────▶ Verdict(refusal)
//!   every few seconds, and soon after something changed ─▶ State
//! ```

use std::time::Duration;

use castgate_control::AgentSnapshot;
use castgate_rpc::v1::AgentSnapshot as Document;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{Core, Signals, Wish};
use crate::admin::Admin;
use crate::app::Agent;
use crate::config::stream::{InForce, Link, Upstream};
use crate::dial::Backoff;
use crate::surroundings::Surroundings;

/// What changes together is told together.
const SETTLE: Duration = Duration::from_millis(200);

/// Runs until a signal wants the end.
pub(super) async fn run(
    upstream: Upstream,
    surroundings: Surroundings,
    report_interval: Duration,
    mut signals: Signals,
    mut admin: Admin,
) -> Agent {
    let changed = surroundings.changed.clone();
    let mut fleet = Fleet::start(&upstream.agent, surroundings).await;
    let mut link = Link::start(upstream, fleet.in_force());
    let mut ticks = interval(report_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told_at = Instant::now();
    let mut to_tell: Option<Instant> = None;
    loop {
        tokio::select! {
            document = link.document() => {
                let generation = document.generation;
                let refusal = fleet.receive(document).await;
                link.answer(generation, fleet.in_force(), refusal);
                to_tell.get_or_insert(Instant::now() + SETTLE);
            }
            () = due(fleet.again_at) => {
                let refused = fleet.try_again().await;
                if let Some((generation, refusal)) = refused {
                    link.answer(generation, fleet.in_force(), refusal);
                    to_tell.get_or_insert(Instant::now() + SETTLE);
                }
            }
            () = changed.notified() => {
                to_tell.get_or_insert((told_at + SETTLE).max(Instant::now() + SETTLE));
            }
            () = due(to_tell) => {
                to_tell = None;
                told_at = Instant::now();
                link.tell(fleet.core.agent.report().to_state());
            }
            _ = ticks.tick() => {
                told_at = Instant::now();
                link.tell(fleet.core.agent.report().to_state());
            }
            question = admin.next() => fleet.core.answer(question),
            wish = signals.next() => match wish {
                // There is no file to read again.
                Wish::Reload => {}
                Wish::Stop => return fleet.core.agent,
            },
        }
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The agent as the operator sees it.
struct Fleet {
    core: Core,
    name: String,
    /// What could be read but not be put in force, and when it is tried again.
    pending: Option<AgentSnapshot>,
    again_at: Option<Instant>,
    backoff: Backoff,
}

impl Fleet {
    /// Starts with the last good snapshot: operator and API server may be gone.
    async fn start(name: &str, surroundings: Surroundings) -> Self {
        let core = Core::new(surroundings);
        let mut fleet =
            Self { core, name: name.to_owned(), pending: None, again_at: None, backoff: Backoff::default() };
        if fleet.core.resume(Some(name)).await {
            let generation = fleet.core.agent.snapshot().generation;
            tracing::info!(generation, "started with the last good snapshot");
        } else if let Ok(Some(snapshot)) = fleet.core.last_good.load()
            && snapshot.agent == name
        {
            fleet.wait(snapshot);
        }
        fleet
    }

    fn in_force(&self) -> InForce {
        match self.core.agent.snapshot() {
            snapshot if snapshot.agent.is_empty() => InForce::default(),
            snapshot => InForce { generation: snapshot.generation, digest: snapshot.digest() },
        }
    }

    /// Takes a document; the reason when it is refused.
    async fn receive(&mut self, Document { generation, document }: Document) -> Option<String> {
        // Whatever was waiting is of the past.
        self.pending = None;
        self.again_at = None;
        self.backoff.succeeded();
        let snapshot = match AgentSnapshot::from_yaml(&document) {
            Ok(snapshot) if snapshot.agent != self.name => {
                Err(format!("agent: is {}, and this is {}", snapshot.agent, self.name))
            }
            Ok(snapshot) => Ok(AgentSnapshot { generation, ..snapshot }),
            Err(error) => Err(error.to_string()),
        };
        match snapshot {
            Ok(snapshot) => self.put_in_force(snapshot).await,
            Err(refusal) => {
                self.core.complain(refusal.clone());
                Some(refusal)
            }
        }
    }

    /// Tries what could not be put in force before; its generation and what came of it.
    async fn try_again(&mut self) -> Option<(u64, Option<String>)> {
        self.again_at = None;
        let snapshot = self.pending.take()?;
        let generation = snapshot.generation;
        Some((generation, self.put_in_force(snapshot).await))
    }

    async fn put_in_force(&mut self, snapshot: AgentSnapshot) -> Option<String> {
        match self.core.take(snapshot.clone()).await {
            Ok(()) => None,
            Err(refusal) => {
                let refusal = refusal.to_string();
                self.core.complain(refusal.clone());
                self.wait(snapshot);
                Some(refusal)
            }
        }
    }

    /// An address that is taken may be free in a moment: the agent before us is still on its way out.
    fn wait(&mut self, snapshot: AgentSnapshot) {
        self.pending = Some(snapshot);
        self.again_at = Some(Instant::now() + self.backoff.next());
    }
}
