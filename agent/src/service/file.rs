//! An agent whose snapshots come from a file.

use std::path::Path;

use castgate_control::AgentSnapshot;

use super::{Core, ServiceError, Signals, Wish};
use crate::admin::Admin;
use crate::app::Agent;
use crate::config::file::{self, FileError, Loaded};
use crate::config::watch::{Watch, changed};
use crate::surroundings::Surroundings;

/// Runs until a signal wants the end.
pub(super) async fn run(
    config: &Path,
    surroundings: Surroundings,
    mut signals: Signals,
    mut admin: Admin,
) -> Result<Agent, ServiceError> {
    // Watching before reading: a change in between is noticed.
    let mut watch = Watch::new(config)
        .inspect_err(|error| tracing::warn!(file = %config.display(), %error, "changes will be seen at SIGHUP only"))
        .ok();
    let mut core = Core::new(surroundings);
    start(&mut core, config, watch.as_mut()).await?;
    loop {
        tokio::select! {
            () = changed(watch.as_ref(), "the file") => reload(&mut core, config, watch.as_mut()).await,
            question = admin.next() => core.answer(question),
            wish = signals.next() => match wish {
                Wish::Reload => {
                    // Who asks wants to hear the answer again.
                    core.complaint = None;
                    reload(&mut core, config, watch.as_mut()).await;
                }
                Wish::Stop => return Ok(core.agent),
            },
        }
    }
}

/// Reads the file, and goes on watching what it names. While it cannot be read, that is what it named last.
fn load(config: &Path, watch: Option<&mut Watch>) -> Result<AgentSnapshot, FileError> {
    let Loaded { snapshot, also } = file::load(config);
    if let Some(watch) = watch
        && (snapshot.is_ok() || !also.is_empty())
    {
        watch.also(also);
    }
    snapshot
}

/// Starts from the file, or from the last good snapshot when the file is bad or missing.
async fn start(core: &mut Core, config: &Path, watch: Option<&mut Watch>) -> Result<(), ServiceError> {
    let from_file = match load(config, watch) {
        Ok(snapshot) => {
            core.take(snapshot).await.map_err(|source| ServiceError::Start { path: config.to_owned(), source })
        }
        Err(error) => Err(error.into()),
    };
    if let Err(refused) = from_file {
        if !core.resume(None).await {
            return Err(refused);
        }
        let last_good = core.last_good.path();
        tracing::warn!(reason = %refused, file = %last_good.display(), "started with the last good snapshot");
        core.complaint = Some(refused.to_string());
    }
    Ok(())
}

async fn reload(core: &mut Core, config: &Path, watch: Option<&mut Watch>) {
    match load(config, watch) {
        Ok(snapshot) if snapshot == *core.agent.snapshot() => {
            tracing::debug!(file = %config.display(), "nothing changed");
            core.complaint = None;
        }
        Ok(snapshot) => {
            if let Err(refusal) = core.take(snapshot).await {
                core.complain(format!("{}: {refusal}", config.display()));
            }
        }
        Err(error) => core.complain(error.to_string()),
    }
}
