//! The agent as a program: a file that may change, signals, and an end.
//!
//! ```text
//!   file changed ─┐
//!   SIGHUP ───────┴─▶ load ─▶ Agent::apply ─▶ kept as last good
//!                       └──────────┴─▶ refused: one WARN, the agent goes on as before
//!   SIGTERM, SIGINT ─▶ Agent::stop: BYE, TEAR_DOWN ─▶ exit status 0
//! ```

use std::path::{Path, PathBuf};

use castgate_control::AgentSnapshot;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{Agent, StartError};
use crate::config::file::{self, FileError};
use crate::config::last_good::LastGood;
use crate::config::watch::Watch;

/// Why the program ends without having been asked to: one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The file gives no snapshot, and there is no last good one.
    #[error(transparent)]
    File(#[from] FileError),
    /// The snapshot of the file cannot be started, and there is no last good one.
    #[error("{}: {source}", path.display())]
    Start {
        /// The file.
        path: PathBuf,
        /// The field, address or interface.
        source: StartError,
    },
    /// The kernel gives no signals.
    #[error("signals: {0}")]
    Signals(std::io::Error),
}

/// Runs the agent of `config` until a signal ends it.
///
/// # Errors
/// One sentence that names the file and the field, when there is nothing to start with.
pub async fn run(config: &Path, state_dir: &Path) -> Result<(), ServiceError> {
    // Signals first: one that comes while the agent starts waits, instead of ending the process half-way.
    let mut signals = Signals::new().map_err(ServiceError::Signals)?;
    // Watching before reading: a change in between is noticed.
    let watch = Watch::new(config)
        .inspect_err(|error| tracing::warn!(file = %config.display(), %error, "changes will be seen at SIGHUP only"))
        .ok();
    let mut service = Service::start(config, state_dir).await?;
    loop {
        tokio::select! {
            () = changed(watch.as_ref()) => service.reload().await,
            wish = signals.next() => match wish {
                Wish::Reload => {
                    // Who asks wants to hear the answer again.
                    service.complaint = None;
                    service.reload().await;
                }
                Wish::Stop => break,
            },
        }
    }
    tracing::info!("stopping");
    service.agent.stop().await;
    Ok(())
}

/// Waits for a change of the file; for ever when the kernel does not tell.
async fn changed(watch: Option<&Watch>) {
    match watch {
        Some(watch) => {
            if let Err(error) = watch.changed().await {
                tracing::error!(%error, "changes of the file are no longer seen");
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}

struct Service {
    config: PathBuf,
    last_good: LastGood,
    agent: Agent,
    /// What was last said about the file: other files of its directory may change a thousand times meanwhile.
    complaint: Option<String>,
}

impl Service {
    /// Starts from the file, or from the last good snapshot when the file is bad or missing.
    async fn start(config: &Path, state_dir: &Path) -> Result<Self, ServiceError> {
        let last_good = LastGood::new(state_dir);
        let from_file = match file::load(config) {
            Ok(snapshot) => Agent::start(snapshot, state_dir)
                .await
                .map_err(|source| ServiceError::Start { path: config.to_owned(), source }),
            Err(error) => Err(error.into()),
        };
        let (agent, complaint) = match from_file {
            Ok(agent) => {
                keep(&last_good, agent.snapshot());
                tracing::info!(generation = agent.snapshot().generation, "snapshot in force");
                (agent, None)
            }
            Err(refused) => match resume(&last_good, state_dir).await {
                Some(agent) => {
                    let last_good = last_good.path();
                    tracing::warn!(reason = %refused, file = %last_good.display(), "started with the last good snapshot");
                    (agent, Some(refused.to_string()))
                }
                None => return Err(refused),
            },
        };
        Ok(Self { config: config.to_owned(), last_good, agent, complaint })
    }

    async fn reload(&mut self) {
        match file::load(&self.config) {
            Ok(snapshot) if snapshot == *self.agent.snapshot() => {
                tracing::debug!(file = %self.config.display(), "nothing changed");
                self.complaint = None;
            }
            Ok(snapshot) => match self.agent.apply(snapshot).await {
                Ok(()) => {
                    tracing::info!(generation = self.agent.snapshot().generation, "snapshot in force");
                    keep(&self.last_good, self.agent.snapshot());
                    self.complaint = None;
                }
                Err(refusal) => self.complain(format!("{}: {refusal}", self.config.display())),
            },
            Err(error) => self.complain(error.to_string()),
        }
    }

    fn complain(&mut self, complaint: String) {
        if self.complaint.as_ref() != Some(&complaint) {
            tracing::warn!(reason = %complaint, "snapshot refused, the one before stays in force");
            self.complaint = Some(complaint);
        }
    }
}

/// Starts what was in force when the agent last ran, if there is such a thing and it still can be started.
async fn resume(last_good: &LastGood, state_dir: &Path) -> Option<Agent> {
    let complain = |reason: String| tracing::warn!(reason, "the last good snapshot is of no use");
    let snapshot = last_good.load().unwrap_or_else(|error| {
        complain(error.to_string());
        None
    })?;
    match Agent::start(snapshot, state_dir).await {
        Ok(agent) => Some(agent),
        Err(error) => {
            complain(format!("{}: {error}", last_good.path().display()));
            None
        }
    }
}

/// An agent that cannot write its state carries channels all the same.
fn keep(last_good: &LastGood, snapshot: &AgentSnapshot) {
    if let Err(error) = last_good.store(snapshot) {
        tracing::warn!(file = %last_good.path().display(), %error, "the last good snapshot is not kept");
    }
}

enum Wish {
    Reload,
    Stop,
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.hangup.recv() => Wish::Reload,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.terminate.recv() => Wish::Stop,
        }
    }
}
