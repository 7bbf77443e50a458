//! The agents of one plan as tasks of this process: all of them, or none.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use castgate_agent::Agent;
use castgate_agent::report::Report;
use castgate_control::AgentSnapshot;
use tempfile::TempDir;

/// Running agents.
#[derive(Debug)]
pub(super) struct Fleet {
    agents: Vec<Agent>,
    folder: PathBuf,
    /// Removed with everything in it when the fleet is gone; `None` when the user named a folder.
    _temporary: Option<TempDir>,
}

impl Fleet {
    /// Starts one agent after the other, those first that others register with. When one does not start, those that did
    /// are stopped again.
    pub(super) async fn start(mut snapshots: Vec<AgentSnapshot>, state: Option<PathBuf>) -> Result<Self> {
        let (folder, temporary) = if let Some(folder) = state {
            (folder, None)
        } else {
            let temporary = tempfile::tempdir().context("cannot make a folder for the agents")?;
            (temporary.path().to_owned(), Some(temporary))
        };
        snapshots.sort_by_key(|snapshot| (snapshot.server.is_some(), snapshot.registrar.is_some()));
        let mut fleet = Self { agents: Vec::new(), folder, _temporary: temporary };
        for snapshot in snapshots {
            let name = snapshot.agent.clone();
            // A name is `namespace/name`: a folder in a folder.
            let folder = fleet.folder.join(&name);
            let started = match fs::create_dir_all(&folder) {
                Ok(()) => {
                    Agent::start(snapshot, &folder).await.with_context(|| format!("the agent {name} did not start"))
                }
                Err(error) => Err(error).with_context(|| format!("cannot make the folder {}", folder.display())),
            };
            match started {
                Ok(agent) => fleet.agents.push(agent),
                Err(error) => {
                    fleet.stop().await;
                    return Err(error);
                }
            }
        }
        Ok(fleet)
    }

    /// Puts a file beside the folders of the agents, and says where.
    pub(super) fn put(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::create_dir_all(&self.folder)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// What every agent says about itself now.
    pub(super) fn reports(&self) -> Vec<Report> {
        self.agents.iter().map(Agent::report).collect()
    }

    /// Stops them in reverse order, so that everybody can still say good-bye to whom he registered with.
    pub(super) async fn stop(mut self) {
        while let Some(agent) = self.agents.pop() {
            agent.stop().await;
        }
    }
}
