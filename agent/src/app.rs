//! Wires the roles of one snapshot together and carries the agent from one snapshot to the next.
//!
//! ```text
//!   AgentSnapshot ──▶ check ──▶ diff ──▶ patterns, database, server, adapter, front, registrar ──▶ in force
//!                       │                   each one whole or not at all
//!                       └── refused         └── refused: those before it go back, in reverse order
//! ```
//! Each role knows its own part of the snapshot and no other role.

use std::path::Path;

use castgate_control::{AgentSnapshot, Registration, SnapshotError};
use castgate_wire::registry::EntryType;

use crate::config::diff::{self, Changes};
use crate::report::Report;
use crate::roles::adapter::{Adapter, AdapterError};
use crate::roles::database::{Database, DatabaseError};
use crate::roles::front::{Front, FrontError};
use crate::roles::pattern::{Pattern, PatternError};
use crate::roles::registrar::{Registrar, RegistrarError};
use crate::roles::server::{ServerError, ServerRole};
use crate::roles::{Role, change};
use crate::surroundings::Surroundings;

/// Why a snapshot is not put in force: one sentence that names the field, the address or the interface.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A field breaks a rule.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A pattern source cannot run like this.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The tunnel database cannot run like this.
    #[error("database.{0}")]
    Database(#[from] DatabaseError),
    /// The tunnel server cannot run like this.
    #[error("server.{0}")]
    Server(#[from] ServerError),
    /// The adapter cannot run like this.
    #[error("adapter.{0}")]
    Adapter(#[from] AdapterError),
    /// The front cannot run like this.
    #[error("front.{0}")]
    Front(#[from] FrontError),
    /// The registrar cannot run like this.
    #[error("registrar.{0}")]
    Registrar(#[from] RegistrarError),
}

/// Why a running agent did not take a snapshot. It goes on with the one before.
pub type Refusal = StartError;

/// A running agent. Dropped without [`stop`](Self::stop) it ends without a goodbye to the databases above.
#[derive(Debug)]
pub struct Agent {
    snapshot: AgentSnapshot,
    around: Surroundings,
    patterns: Vec<Pattern>,
    database: Option<Database>,
    server: Option<ServerRole>,
    adapter: Option<Adapter>,
    front: Option<Front>,
    registrar: Option<Registrar>,
}

/// The roles that may refuse, in the order in which they begin: nobody is announced before he serves.
const ORDER: [Step; 5] = [Step::Database, Step::Server, Step::Adapter, Step::Front, Step::Registrar];

#[derive(Debug, Clone, Copy)]
enum Step {
    Database,
    Server,
    Adapter,
    Front,
    Registrar,
}

impl Agent {
    /// Starts every role of the snapshot, or none. What has to outlive the process is kept below `state_dir`.
    ///
    /// # Errors
    /// One sentence that names the field, the address or the interface.
    pub async fn start(snapshot: AgentSnapshot, state_dir: &Path) -> Result<Self, StartError> {
        let mut agent = Self::idle(Surroundings::new(state_dir));
        agent.apply(snapshot).await?;
        Ok(agent)
    }

    /// An agent without a snapshot: it does nothing until the first [`apply`](Self::apply).
    #[must_use]
    pub fn idle(around: Surroundings) -> Self {
        Self {
            snapshot: AgentSnapshot::default(),
            around,
            patterns: Vec::new(),
            database: None,
            server: None,
            adapter: None,
            front: None,
            registrar: None,
        }
    }

    /// Whether a snapshot is in force and every role of it runs.
    ///
    /// # Errors
    /// One sentence that says what is missing.
    pub fn ready(&self) -> Result<(), String> {
        let AgentSnapshot { generation: _, agent, server, database, registrar, adapter, front, patterns: _ } =
            &self.snapshot;
        if agent.is_empty() {
            return Err("has no snapshot yet".to_owned());
        }
        // A role is missing when it had to end for a successor that could not begin, and then did not come back itself.
        let roles = [
            ("tunnel server", server.is_some(), self.server.is_some()),
            ("tunnel database", database.is_some(), self.database.is_some()),
            ("adapter", adapter.is_some(), self.adapter.as_ref().is_some_and(Adapter::serves)),
            ("front", front.is_some(), self.front.is_some()),
            ("registrar", registrar.is_some(), self.registrar.is_some()),
        ];
        match roles.into_iter().find(|(_, wanted, runs)| *wanted && !runs) {
            Some((role, ..)) => Err(format!("the {role} does not run")),
            None if self.database.as_ref().is_some_and(|database| !database.is_synchronised()) => {
                Err("the tunnel database does not know yet what its peers know".to_owned())
            }
            None => Ok(()),
        }
    }

    /// The snapshot that is in force.
    #[must_use]
    pub fn snapshot(&self) -> &AgentSnapshot {
        &self.snapshot
    }

    /// Goes over to another snapshot. Only what changed is touched: a tunnel that may stay stays.
    ///
    /// # Errors
    /// One sentence that names the field, the address or the interface; the agent then runs as before.
    pub async fn apply(&mut self, new: AgentSnapshot) -> Result<(), Refusal> {
        new.check()?;
        let (database, front) = (new.database.as_ref(), new.front.as_ref());
        let named = [
            ("database.accountsFile", database.is_some_and(|database| database.accounts_file.is_some())),
            ("database.tlsFiles", database.is_some_and(|database| database.tls_files.is_some())),
            ("front.tlsFiles", front.is_some_and(|front| front.tls_files.is_some())),
        ];
        if let Some((field, _)) = named.into_iter().find(|(_, is_named)| *is_named) {
            return Err(SnapshotError::new(field, "is for an agent whose snapshot is a file").into());
        }
        let old = self.snapshot.clone();
        let changes = diff::between(&old, &new);
        self.around.agent.clone_from(&new.agent);
        // Sockets of new patterns are opened before anything is changed; they send when everything else is done.
        let fresh = changes.patterns_started.iter().map(|source| Pattern::prepare((*source).clone()));
        let fresh = fresh.collect::<Result<Vec<_>, _>>()?;
        if old.registrar.is_none() && finds_peers(&new) {
            self.around.peering.search();
        }
        for (done, step) in ORDER.into_iter().enumerate() {
            if let Err(refusal) = self.take(step, &changes, &old, &new).await {
                self.go_back(&ORDER[..done], &old, &new).await;
                return Err(refusal);
            }
        }
        self.patterns.retain(|pattern| !changes.patterns_stopped.contains(&pattern.source()));
        fresh.iter().for_each(Pattern::begin);
        self.patterns.extend(fresh);
        self.snapshot = new;
        Ok(())
    }

    /// What the agent carries at this moment. Asks the control thread of the server, which answers within a millisecond as a
    /// rule; the caller waits for it.
    #[must_use]
    pub fn report(&self) -> Report {
        let AgentSnapshot { generation, agent, .. } = &self.snapshot;
        let mut report = Report { generation: *generation, agent: agent.clone(), ..Report::default() };
        if let Some(server) = &self.server {
            server.report(&mut report);
        }
        report.database = self.database.as_ref().map(Database::report);
        report.adapter = self.adapter.as_ref().map(Adapter::local_address);
        report.front = self.front.as_ref().map(Front::local_address);
        report.clients = self.adapter.as_ref().map(Adapter::report).unwrap_or_default();
        report.registrations = self.registrar.as_ref().map(Registrar::report).unwrap_or_default();
        report.patterns = self.patterns.iter().map(Pattern::report).collect();
        report
    }

    /// Ends every role: `BYE` to the databases above first, so that nobody is sent here any more, then `TEAR_DOWN` to every
    /// client.
    pub async fn stop(self) {
        let Self { snapshot: _, around: _, patterns, database, server, adapter, front, registrar } = self;
        end(registrar).await;
        end(front).await;
        end(adapter).await;
        end(server).await;
        drop(patterns);
        end(database).await;
    }

    /// Takes one role from its part of `old` to that of `new`; on error it is as it was.
    async fn take(
        &mut self,
        step: Step,
        changes: &Changes<'_>,
        old: &AgentSnapshot,
        new: &AgentSnapshot,
    ) -> Result<(), Refusal> {
        let around = &self.around;
        match step {
            Step::Database => {
                let parts = (old.database.as_ref(), new.database.as_ref());
                change(&mut self.database, changes.database, parts, around).await?;
            }
            Step::Server => {
                let parts = (old.server.as_ref(), new.server.as_ref());
                change(&mut self.server, changes.server, parts, around).await?;
            }
            Step::Adapter => {
                let parts = (old.adapter.as_ref(), new.adapter.as_ref());
                change(&mut self.adapter, changes.adapter, parts, around).await?;
            }
            Step::Front => {
                let parts = (old.front.as_ref(), new.front.as_ref());
                change(&mut self.front, changes.front, parts, around).await?;
            }
            Step::Registrar => {
                let parts = (old.registrar.as_ref(), new.registrar.as_ref());
                change(&mut self.registrar, changes.registrar, parts, around).await?;
            }
        }
        Ok(())
    }

    /// A later role refused: those before it do what they did before.
    async fn go_back(&mut self, done: &[Step], old: &AgentSnapshot, new: &AgentSnapshot) {
        let back = diff::between(new, old);
        for step in done.iter().rev() {
            if let Err(error) = self.take(*step, &back, new, old).await {
                tracing::error!(%error, "does not go back");
            }
        }
    }
}

/// Whether the registrar will tell the database who its peers are.
fn finds_peers(snapshot: &AgentSnapshot) -> bool {
    let is_database = |entry: &Registration| entry.entry_type == EntryType::TunnelDatabase;
    snapshot.registrar.as_ref().is_some_and(|part| part.discovery.is_some() && part.entries.iter().any(is_database))
}

async fn end<R: Role>(role: Option<R>) {
    if let Some(role) = role {
        role.stop().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `castgate up` runs many agents as tasks.
    #[test]
    fn an_agent_can_move_between_threads_while_it_starts_changes_and_stops() {
        fn is_send<T: Send>(_: T) {}
        is_send(Agent::start(AgentSnapshot::default(), Path::new("nowhere")));
        let _ = |mut agent: Agent| {
            is_send(agent.apply(AgentSnapshot::default()));
            is_send(agent.stop());
        };
    }

    #[tokio::test]
    async fn a_later_role_that_refuses_takes_those_before_it_back() {
        let state = tempfile::tempdir().unwrap();
        let mut snapshot =
            AgentSnapshot::from_yaml("agent: test/back\ndatabase: { listen: 127.71.4.1:5632 }\n").unwrap();
        let mut agent = Agent::start(snapshot.clone(), state.path()).await.unwrap();
        let before = snapshot.clone();
        snapshot.database.as_mut().unwrap().listen.set_port(5633);
        snapshot.server = Some(castgate_control::ServerSnapshot::new(
            "127.71.2.1:10100".parse().unwrap(),
            vec!["nosuch0".to_owned()],
        ));
        let refusal = agent.apply(snapshot).await.unwrap_err().to_string();
        assert_eq!(refusal, "server.interfaces: interface \"nosuch0\" does not exist");
        assert_eq!(agent.snapshot(), &before);
        let database = agent.report().database.expect("it runs again");
        assert_eq!(database.listen, before.database.unwrap().listen);
        agent.stop().await;
    }
}
