//! The agent as a program: a snapshot that may change, signals, questions, and an end.
//!
//! ```text
//!   file, SIGHUP ──── file ───┐
//!                             ├─▶ Core ─▶ Agent::apply ─▶ kept as last good
//!   operator ─────── stream ──┘     └──────────┴─▶ refused: one WARN, the agent goes on as before
//!   admin socket ─▶ questions ─▶ Core
//!   SIGTERM, SIGINT ─▶ Agent::stop: BYE, TEAR_DOWN ─▶ exit status 0
//! ```
//! Owns what is the same wherever snapshots come from; where from is `file`'s and `stream`'s.

mod file;
mod stream;

use std::path::PathBuf;
use std::time::Duration;

use castgate_control::AgentSnapshot;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::admin::{Admin, Question, Topic};
use crate::app::{Agent, StartError};
use crate::config::file::FileError;
use crate::config::last_good::LastGood;
use crate::config::stream::Upstream;
use crate::surroundings::Surroundings;

/// Goodbyes have times of their own; whatever hangs beyond them is cut, well before a kubelet's patience of 30 s ends.
const STOP_TIME: Duration = Duration::from_secs(15);

/// Where snapshots come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file, read again whenever it changes.
    File(PathBuf),
    /// The operator.
    Operator(Upstream),
}

/// How the program runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where snapshots come from.
    pub source: Source,
    /// What the roles find around them.
    pub surroundings: Surroundings,
    /// Where questions are answered; absent: nowhere.
    pub socket: Option<PathBuf>,
    /// How often the operator is told what the agent carries.
    pub report_interval: Duration,
}

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
    /// The admin socket cannot be there.
    #[error("{}: {source}", path.display())]
    Socket {
        /// Where it was to be.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Runs the agent until a signal ends it.
///
/// # Errors
/// One sentence that names the file and the field, when there is nothing to start with.
pub async fn run(settings: Settings) -> Result<(), ServiceError> {
    let Settings { source, surroundings, socket, report_interval } = settings;
    // Signals first: one that comes while the agent starts waits, instead of ending the process half-way.
    let signals = Signals::new().map_err(ServiceError::Signals)?;
    let admin = Admin::start(socket.as_deref())
        .map_err(|source| ServiceError::Socket { path: socket.unwrap_or_default(), source })?;
    let agent = match source {
        // Boxed: whoever starts an agent beside other work would carry their room with it.
        Source::File(config) => Box::pin(file::run(&config, surroundings, signals, admin)).await?,
        Source::Operator(upstream) => {
            Box::pin(stream::run(upstream, surroundings, report_interval, signals, admin)).await
        }
    };
    tracing::info!("stopping");
    if timeout(STOP_TIME, agent.stop()).await.is_err() {
        tracing::warn!("not every role ended in time");
    }
    Ok(())
}

/// The agent, and what is kept of it.
struct Core {
    agent: Agent,
    last_good: LastGood,
    /// What was last said about a snapshot: a file's directory may change a thousand times meanwhile.
    complaint: Option<String>,
}

impl Core {
    fn new(surroundings: Surroundings) -> Self {
        let last_good = LastGood::new(&surroundings.state_dir);
        Self { agent: Agent::idle(surroundings), last_good, complaint: None }
    }

    /// Goes over to a snapshot and keeps it.
    async fn take(&mut self, snapshot: AgentSnapshot) -> Result<(), StartError> {
        self.agent.apply(snapshot).await?;
        // An agent that cannot write its state carries channels all the same.
        if let Err(error) = self.last_good.store(self.agent.snapshot()) {
            tracing::warn!(file = %self.last_good.path().display(), %error, "the last good snapshot is not kept");
        }
        // Said last: whoever reads it may kill us, and what is kept is there.
        tracing::info!(generation = self.agent.snapshot().generation, "snapshot in force");
        self.complaint = None;
        Ok(())
    }

    /// Starts what was in force when the agent last ran, if there is such a thing, it is good for `name` and it still can be
    /// started.
    async fn resume(&mut self, name: Option<&str>) -> bool {
        let place = self.last_good.path();
        let useless = |reason: String| tracing::warn!(reason, "the last good snapshot is of no use");
        let snapshot = match self.last_good.load() {
            Ok(None) => return false,
            Ok(Some(snapshot)) => snapshot,
            Err(error) => {
                useless(error.to_string());
                return false;
            }
        };
        if let Some(name) = name.filter(|name| *name != snapshot.agent) {
            useless(format!("{}: is that of {}, not of {name}", place.display(), snapshot.agent));
            return false;
        }
        match self.agent.apply(snapshot).await {
            Ok(()) => true,
            Err(error) => {
                useless(format!("{}: {error}", place.display()));
                false
            }
        }
    }

    /// Says once why a snapshot is not taken.
    fn complain(&mut self, complaint: String) {
        if self.complaint.as_ref() != Some(&complaint) {
            tracing::warn!(reason = %complaint, "snapshot refused, the one before stays in force");
            self.complaint = Some(complaint);
        }
    }

    fn answer(&self, Question { topic, reply }: Question) {
        let said = match topic {
            Topic::Live => Ok("works".to_owned()),
            Topic::Ready => self.agent.ready().map(|()| {
                let snapshot = self.agent.snapshot();
                format!("runs as generation {} says", snapshot.generation)
            }),
            Topic::Report => serde_json::to_string(&self.agent.report()).map_err(|error| error.to_string()),
            Topic::Digest => match self.agent.snapshot() {
                snapshot if snapshot.agent.is_empty() => Err("has no snapshot yet".to_owned()),
                snapshot => Ok(snapshot.digest()),
            },
        };
        // Who asked may have lost his patience.
        let _ = reply.send(said);
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
