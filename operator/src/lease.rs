//! The Lease: which replica writes.
//!
//! A replica that had the Lease and lost it ends: whatever it was about to write belongs to another one now, and a fresh
//! process knows that for sure.

use anyhow::{Context as _, anyhow};
use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long others wait after the last renewal.
const DURATION_SECONDS: u64 = 10;
/// How long before that it is renewed.
const GRACE_SECONDS: u64 = 4;

/// The standing of this replica.
pub struct Leadership {
    /// Whether it holds the Lease.
    pub leads: watch::Receiver<bool>,
    task: JoinHandle<kube_lease_manager::Result<LeaseManager>>,
}

/// Begins to stand for the Lease.
///
/// # Errors
/// When the Lease can be neither read nor made.
pub async fn stand(client: Client, namespace: &str, name: &str, pod: &str) -> anyhow::Result<Leadership> {
    let manager = LeaseManagerBuilder::new(client, name)
        .with_namespace(namespace)
        .with_identity(pod)
        .with_duration(DURATION_SECONDS)
        .with_grace(GRACE_SECONDS)
        .with_field_manager(format!("castgate-lease-{pod}"))
        .build()
        .await
        .with_context(|| format!("Lease {namespace}/{name}"))?;
    let (leads, task) = manager.watch().await;
    Ok(Leadership { leads, task })
}

impl Leadership {
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
        let Self { leads, task } = self;
        // The manager ends with its last listener.
        drop(leads);
        let released = tokio::time::timeout(std::time::Duration::from_secs(3), async {
            if let Ok(Ok(manager)) = task.await
                && let Err(error) = manager.release().await
            {
                tracing::debug!(%error, "the Lease is not given back");
            }
        });
        if released.await.is_err() {
            tracing::debug!("the Lease runs out by itself");
        }
    }
}
