//! Snapshots from the operator: one stream, opened again whenever it ends.
//!
//! ```text
//!   connect (token, CA read anew) ─▶ Hello ─▶ AgentSnapshot … ─▶ Link::document: the newest one
//!        ▲                                ◀─ Verdict, State ─── Link::{answer, tell}
//!        └── 0.5 .. 10 s ── stream ends
//! ```
//! Owns the connection. What a document says, and whether the agent can run like that, is the service's: nothing that happens
//! here touches a role.

use std::path::PathBuf;
use std::time::Duration;

use castgate_rpc::v1::agent_report::Report;
use castgate_rpc::v1::fleet_client::FleetClient;
use castgate_rpc::v1::{AgentReport, AgentSnapshot as Document, Hello, State, Verdict};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use crate::dial::{self, Backoff};

/// A snapshot of many thousand channels is a few megabytes; what is larger is not a snapshot.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Reports under way to an operator that does not read: older ones are of no use to it.
const REPORTS_MAX: usize = 4;
/// Time that the operator has to open the stream, and to read a report that must not be lost.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// A stream that lived so long was a good one: after it the first try comes soon.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// Where the operator is, and who calls.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// `https://HOST:PORT`; the operator's certificate names HOST.
    pub control: String,
    /// `namespace/ts-name@node`.
    pub agent: String,
    /// The node.
    pub node: String,
    /// File with what proves us; read at each connect, because it is replaced every hour.
    pub token: Option<PathBuf>,
    /// File with the certificates of those who may vouch for the operator.
    pub ca: Option<PathBuf>,
}

/// What the operator is told when a stream begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    /// Generation of the snapshot that is in force.
    pub generation: u64,
    /// Its digest; empty: there is none.
    pub digest: String,
}

/// The stream, seen from the agent: it never ends.
#[derive(Debug)]
pub struct Link {
    documents: watch::Receiver<Option<Document>>,
    in_force: watch::Sender<InForce>,
    verdicts: mpsc::UnboundedSender<Verdict>,
    states: watch::Sender<Option<State>>,
    task: JoinHandle<()>,
}

/// The other ends of a [`Link`].
struct Wire {
    documents: watch::Sender<Option<Document>>,
    in_force: watch::Receiver<InForce>,
    verdicts: mpsc::UnboundedReceiver<Verdict>,
    states: watch::Receiver<Option<State>>,
}

impl Link {
    /// Begins to connect.
    #[must_use]
    pub fn start(upstream: Upstream, in_force: InForce) -> Self {
        let (documents, received) = watch::channel(None);
        let (told, in_force) = watch::channel(in_force);
        // One verdict for each document that was taken out: as bounded as these.
        let (verdicts, judged) = mpsc::unbounded_channel();
        let (states, state) = watch::channel(None);
        let wire = Wire { documents, in_force, verdicts: judged, states: state };
        let task = tokio::spawn(keep_connected(upstream, wire));
        Self { documents: received, in_force: told, verdicts, states, task }
    }

    /// The next document; of several that came meanwhile the newest. Safe to drop half-way.
    pub async fn document(&mut self) -> Document {
        loop {
            if self.documents.changed().await.is_err() {
                // Its task panicked: what runs goes on, and the liveness of this process is not the stream's.
                std::future::pending::<()>().await;
            }
            if let Some(document) = self.documents.borrow_and_update().clone() {
                return document;
            }
        }
    }

    /// Says what became of a document, and what is in force since.
    pub fn answer(&self, generation: u64, in_force: InForce, refusal: Option<String>) {
        let digest = in_force.digest.clone();
        self.in_force.send_replace(in_force);
        let _ = self.verdicts.send(Verdict { generation, digest, refusal: refusal.unwrap_or_default() });
    }

    /// Says what the agent carries; replaces what was not sent yet.
    pub fn tell(&self, state: State) {
        self.states.send_replace(Some(state));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_connected(upstream: Upstream, mut wire: Wire) {
    let mut backoff = Backoff::default();
    let mut complaint = String::new();
    loop {
        let began = tokio::time::Instant::now();
        let Err(reason) = session(&upstream, &mut wire).await;
        if began.elapsed() >= GOOD_AFTER {
            backoff.succeeded();
            complaint.clear();
        }
        // Said once: an operator that is gone for a night would fill the log.
        if complaint == reason {
            tracing::debug!(%reason, "no stream from the operator");
        } else {
            tracing::warn!(%reason, "no stream from the operator, what runs goes on");
            complaint = reason;
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// One stream, from the connection to its end.
async fn session(upstream: &Upstream, wire: &mut Wire) -> Result<std::convert::Infallible, String> {
    let Upstream { control, agent, node, token, ca } = upstream;
    let channel = dial::connect(control, ca.as_deref()).await?;
    let (reports, outgoing) = mpsc::channel(REPORTS_MAX);
    // Verdicts about documents of a stream before this one concern nobody any more.
    while wire.verdicts.try_recv().is_ok() {}
    let InForce { generation, digest } = wire.in_force.borrow_and_update().clone();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let hello = Hello { agent: agent.clone(), node: node.clone(), version, generation, digest };
    send(&reports, Report::Hello(hello)).await?;
    let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
    if let Some(token) = token {
        let token = dial::bearer(&dial::read(token).await?).map_err(|error| format!("{}: {error}", token.display()))?;
        request.metadata_mut().insert("authorization", token);
    }
    let mut client = FleetClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let said = |status: &tonic::Status| format!("{control}: {}", dial::said(status));
    let opened = timeout(ANSWER_TIME, client.sync(request)).await;
    let opened = opened.map_err(|_| format!("{control}: no answer within {} s", ANSWER_TIME.as_secs()))?;
    let mut documents = opened.map_err(|status| said(&status))?.into_inner();
    tracing::info!(%control, "connected to the operator");
    // An operator that has just begun to listen knows nothing yet.
    wire.states.mark_changed();
    loop {
        tokio::select! {
            document = documents.message() => match document {
                Ok(Some(document)) => {
                    tracing::debug!(generation = document.generation, "snapshot received");
                    wire.documents.send_replace(Some(document));
                }
                Ok(None) => return Err(format!("{control}: ended the stream")),
                Err(status) => return Err(said(&status)),
            },
            Some(verdict) = wire.verdicts.recv() => send(&reports, Report::Verdict(verdict)).await?,
            Ok(()) = wire.states.changed() => {
                let state = wire.states.borrow_and_update().clone();
                if let Some(state) = state {
                    // An operator that does not read them gets a newer one later.
                    let _ = reports.try_send(AgentReport { report: Some(Report::State(state)) });
                }
            }
        }
    }
}

/// Hands a report to the connection; waits for an operator that does not read, but not for ever.
async fn send(reports: &mpsc::Sender<AgentReport>, report: Report) -> Result<(), String> {
    match timeout(ANSWER_TIME, reports.send(AgentReport { report: Some(report) })).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err("the operator takes no more reports".to_owned()),
    }
}
