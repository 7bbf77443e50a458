//! The Lease: which replica writes.
//!
//! ```text
//!   follows ──free, given back, or unchanged for its whole duration──▶ leads ──not renewed in time, or another's──▶ ends
//! ```
//! Every write carries the resource version that it has seen: of two that reach for a Lease one gets it, and nobody takes one
//! that was renewed meanwhile. How old a renewal is, each replica measures on its own clock, from the moment it saw the
//! renewal: clocks of nodes may differ. A replica that cannot renew stops leading before another one may begin, even while its
//! request still hangs. One that led and leads no more ends: whatever it was about to write belongs to another one now, and a
//! fresh process knows that for sure.

mod store;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::store::{KubeLeases, Leases};
use crate::fleet::StoreError;

/// How long others wait after the last renewal that they have seen.
const DURATION: Duration = Duration::from_secs(10);
/// How long after its last renewal a replica still leads. The rest of [`DURATION`] is for what it has under way.
const RENEW_DEADLINE: Duration = Duration::from_secs(7);
/// Between two looks, and between two renewals.
const RETRY: Duration = Duration::from_secs(2);
/// How long giving it back may take.
const RELEASE: Duration = Duration::from_secs(3);

/// The standing of this replica.
pub struct Leadership {
    /// Whether it holds the Lease.
    pub leads: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Begins to stand for the Lease.
///
/// # Errors
/// When the Lease can be neither read nor made.
pub async fn stand(client: Client, namespace: &str, name: &str, pod: &str) -> anyhow::Result<Leadership> {
    let leases = KubeLeases::new(client, namespace, name);
    leases.read().await.with_context(|| format!("Lease {namespace}/{name}"))?;
    Ok(Leadership::begin(Arc::new(leases), pod))
}

impl Leadership {
    fn begin<L: Leases>(leases: Arc<L>, identity: &str) -> Self {
        let (says, leads) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let candidate = Candidate { leases, identity: identity.to_owned(), sight: None, renewed: None };
        Self { leads, stop, task: tokio::spawn(candidate.run(says, stopped)) }
    }

    /// Ends when this replica had the Lease and has it no more.
    pub async fn lost(&self) -> anyhow::Error {
        let mut leads = self.leads.clone();
        if leads.wait_for(|leads| *leads).await.is_err() {
            return anyhow!("the Lease is no longer looked after");
        }
        tracing::info!("leads");
        match leads.wait_for(|leads| !leads).await {
            Ok(_) => anyhow!("the Lease is lost"),
            Err(_) => anyhow!("the Lease is no longer looked after"),
        }
    }

    /// Gives the Lease back, so that another replica need not wait until it runs out.
    pub async fn release(self) {
        self.stop.send_replace(true);
        if timeout(RELEASE, self.task).await.is_err() {
            tracing::debug!("the Lease runs out by itself");
        }
    }
}

/// What a replica saw of the Lease, and when it was new.
struct Sight {
    lease: Lease,
    since: Instant,
}

/// One who stands for the Lease.
struct Candidate<L> {
    leases: Arc<L>,
    identity: String,
    sight: Option<Sight>,
    /// When we asked for what became our last renewal; `Some` while we lead.
    renewed: Option<Instant>,
}

impl<L: Leases> Candidate<L> {
    async fn run(mut self, says: watch::Sender<bool>, mut stopped: watch::Receiver<bool>) {
        loop {
            let led = self.renewed;
            let deadline = led.map_or_else(|| Instant::now() + RENEW_DEADLINE, |renewed| renewed + RENEW_DEADLINE);
            let outcome = tokio::select! {
                outcome = timeout_at(deadline, self.step()) => outcome,
                _ = stopped.wait_for(|stopped| *stopped) => break,
            };
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the Lease cannot be read or written, will be tried again"),
                Err(_) => tracing::warn!("the API server does not answer about the Lease"),
            }
            let late = led.is_some_and(|renewed| self.renewed == Some(renewed) && renewed.elapsed() >= RENEW_DEADLINE);
            if late {
                self.renewed = None;
            }
            says.send_if_modified(|leads| std::mem::replace(leads, self.renewed.is_some()) != self.renewed.is_some());
            if led.is_some() && self.renewed.is_none() {
                // The process ends; nothing is to be given back.
                return;
            }
            let pause =
                led.map_or(RETRY, |renewed| RETRY.min((renewed + RENEW_DEADLINE).duration_since(Instant::now())));
            tokio::select! {
                () = sleep(pause) => {}
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
        }
        self.give_back().await;
    }

    /// Looks at the Lease, and takes or renews it where that is ours to do.
    async fn step(&mut self) -> Result<(), StoreError> {
        let asked = Instant::now();
        if self.renewed.is_none() {
            self.look().await?;
        }
        let is_anothers = self.holder().is_some_and(|holder| holder != self.identity);
        if is_anothers && !self.sight.as_ref().is_some_and(has_run_out) {
            return Ok(());
        }
        match self.write(Some(&self.identity)).await {
            Ok(lease) => {
                self.sight = Some(Sight { lease, since: asked });
                self.renewed = Some(asked);
                Ok(())
            }
            // Somebody else wrote: whether it was about us, the next look tells.
            Err(StoreError::Conflict | StoreError::NotFound) => {
                self.look().await?;
                if self.holder() != Some(&self.identity) {
                    self.renewed = None;
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Who had it when we looked.
    fn holder(&self) -> Option<&str> {
        holder(&self.sight.as_ref()?.lease)
    }

    /// Reads it; what has not changed since is as old as before.
    async fn look(&mut self) -> Result<(), StoreError> {
        let Some(lease) = self.leases.read().await? else {
            self.sight = None;
            return Ok(());
        };
        let is_known = self.sight.as_ref().is_some_and(|sight| sight.lease.spec == lease.spec);
        let since = self.sight.as_ref().filter(|_| is_known).map_or_else(Instant::now, |sight| sight.since);
        self.sight = Some(Sight { lease, since });
        Ok(())
    }

    /// Writes the Lease that was seen, in the name of `holder` or of nobody.
    async fn write(&self, holder: Option<&str>) -> Result<Lease, StoreError> {
        let now = MicroTime(Timestamp::now());
        let seen = self.sight.as_ref().map(|sight| sight.lease.clone());
        let before = seen.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let is_same = before.holder_identity.as_deref() == holder;
        let transitions = before.lease_transitions.unwrap_or_default() + i32::from(holder.is_some() && !is_same);
        let spec = LeaseSpec {
            // Not absent: a field of another manager would stay.
            holder_identity: Some(holder.unwrap_or_default().to_owned()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if is_same { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        match seen {
            Some(lease) => self.leases.replace(Lease { spec: Some(spec), ..lease }).await,
            None => self.leases.create(spec).await,
        }
    }

    async fn give_back(&self) {
        if self.renewed.is_some()
            && let Err(error) = self.write(None).await
        {
            tracing::debug!(%error, "the Lease is not given back");
        }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// Whether nothing was heard of its holder for as long as it asked for.
fn has_run_out(sight: &Sight) -> bool {
    let asked = sight.lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    let duration = asked.and_then(|seconds| u64::try_from(seconds).ok()).map_or(DURATION, Duration::from_secs);
    sight.since.elapsed() >= duration
}

#[cfg(test)]
mod tests;
