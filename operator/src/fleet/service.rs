//! `Fleet.Sync`: one stream for each agent, from its Hello to its end.

use std::sync::Arc;
use std::time::Duration;

use castgate_rpc::v1::agent_report::Report;
use castgate_rpc::v1::fleet_server;
use castgate_rpc::v1::{AgentReport, AgentSnapshot, Hello};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use super::identity::{self, Identity, Pods, Refusal};
use super::registry::{Fleet, Outbox, Stream};
use super::token::{AUDIENCE, ReviewError, TokenReviewer};
use crate::observe::Metrics;

/// From the call to its Hello.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Snapshots on their way to one agent: the next one replaces what is not sent yet, so one is enough.
const SNAPSHOTS_QUEUED: usize = 1;
/// Warnings about refusals: so many in a minute, then only counted.
const WARNINGS_PER_MINUTE: u32 = 30;

/// The service. Clones share everything.
pub struct FleetService<R, P> {
    shared: Arc<Shared<R, P>>,
}

struct Shared<R, P> {
    fleet: Arc<Fleet>,
    reviewer: R,
    pods: Arc<P>,
    metrics: Arc<Metrics>,
    warnings: std::sync::Mutex<(Option<tokio::time::Instant>, u32)>,
}

impl<R, P> Clone for FleetService<R, P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<R: TokenReviewer, P: Pods> FleetService<R, P> {
    /// Serves this fleet to agents whose tokens pass this reviewer and whose pods are known here.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>, reviewer: R, pods: Arc<P>, metrics: Arc<Metrics>) -> Self {
        let shared = Shared { fleet, reviewer, pods, metrics, warnings: std::sync::Mutex::default() };
        Self { shared: Arc::new(shared) }
    }
}

#[tonic::async_trait]
impl<R: TokenReviewer, P: Pods> fleet_server::Fleet for FleetService<R, P> {
    type SyncStream = ReceiverStream<Result<AgentSnapshot, Status>>;

    async fn sync(&self, request: Request<Streaming<AgentReport>>) -> Result<Response<Self::SyncStream>, Status> {
        let peer = request.remote_addr();
        let (metadata, _, mut reports) = request.into_parts();
        let begun = self.shared.begin(&metadata, &mut reports).await;
        let (stream, hello) = begun.map_err(|refusal| self.shared.refuse(&refusal, peer))?;
        info!(agent = stream.agent(), version = %hello.version, generation = hello.generation, "an agent is here");
        let (snapshots, receiver) = mpsc::channel(SNAPSHOTS_QUEUED);
        tokio::spawn(carry(stream, Outbox::new(&hello), reports, snapshots));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl<R: TokenReviewer, P: Pods> Shared<R, P> {
    async fn begin(
        &self,
        metadata: &MetadataMap,
        reports: &mut Streaming<AgentReport>,
    ) -> Result<(Stream, Hello), Refusal> {
        let token = bearer(metadata)?;
        // A stranger is sent away before anything that it sends is read.
        let reviewed = self.reviewer.review(token, AUDIENCE).await.map_err(|error| match error {
            ReviewError::Rejected(reason) => Refusal::Token(reason),
            ReviewError::Unavailable(reason) => Refusal::Review(reason),
        })?;
        let (namespace, pod) = identity::pod_of(&reviewed)?;
        let first = tokio::time::timeout(HELLO_TIME, reports.message()).await;
        let Ok(Ok(Some(AgentReport { report: Some(Report::Hello(hello)) }))) = first else {
            return Err(Refusal::NoHello);
        };
        let facts = self.pods.pod(namespace, pod);
        let identity: Identity = identity::identify(&reviewed, facts.as_ref(), &hello)?;
        Ok((self.fleet.open(identity, &hello)?, hello))
    }

    /// Counts a refusal, tells the log, and words it for the caller.
    fn refuse(&self, refusal: &Refusal, peer: Option<std::net::SocketAddr>) -> Status {
        self.metrics.agent_refused(refusal.label());
        let peer = peer.map(tracing::field::display);
        if refusal.is_passing() {
            debug!(peer, %refusal, "an agent must try again");
        } else if self.may_warn() {
            warn!(peer, reason = refusal.label(), %refusal, "an agent is refused");
        }
        refusal.status()
    }

    fn may_warn(&self) -> bool {
        let now = tokio::time::Instant::now();
        let mut warnings = self.warnings.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (since, count) = &mut *warnings;
        if since.is_none_or(|since| now.duration_since(since) >= Duration::from_mins(1)) {
            (*since, *count) = (Some(now), 0);
        }
        *count += 1;
        *count <= WARNINGS_PER_MINUTE
    }
}

/// Carries reports in and snapshots out until either side ends.
async fn carry(
    mut stream: Stream,
    mut outbox: Outbox,
    mut reports: Streaming<AgentReport>,
    snapshots: mpsc::Sender<Result<AgentSnapshot, Status>>,
) {
    let agent = stream.agent().to_owned();
    let reason = loop {
        let due = stream.snapshots.borrow_and_update().clone().filter(|planned| outbox.is_due(planned));
        tokio::select! {
            // The queue has room: the newest is sent, whatever came between.
            permit = snapshots.reserve(), if due.is_some() => {
                let (Ok(permit), Some(planned)) = (permit, due) else { break "the agent is gone" };
                permit.send(Ok(planned.message()));
                outbox.sent(&planned);
                debug!(%agent, generation = planned.generation, "a snapshot is sent");
            }
            changed = stream.snapshots.changed() => {
                if changed.is_err() { break "another stream has taken over" }
            }
            _ = &mut stream.ended => break "another stream has taken over",
            () = snapshots.closed() => break "the agent is gone",
            report = reports.message() => match report {
                Ok(Some(AgentReport { report: Some(Report::Verdict(verdict)) })) => {
                    if !verdict.refusal.is_empty() {
                        warn!(%agent, refusal = %verdict.refusal, "an agent refuses its snapshot");
                    }
                    outbox.verdict(&verdict);
                    stream.verdict(&verdict);
                }
                Ok(Some(AgentReport { report: Some(Report::State(state)) })) => stream.state(state),
                // A report of a later version.
                Ok(Some(AgentReport { report: None })) => {}
                Ok(Some(AgentReport { report: Some(Report::Hello(_)) })) => break "the agent says hello twice",
                Ok(None) => break "the agent ended its stream",
                Err(status) => {
                    debug!(%agent, %status, "the stream broke");
                    break "the stream broke";
                }
            },
        }
    };
    info!(%agent, reason, "an agent's stream ends");
    // The one who is replaced learns why; nobody else is there to listen.
    let _ = snapshots.try_send(Err(Status::aborted(reason)));
}

/// The token of a call.
fn bearer(metadata: &MetadataMap) -> Result<&str, Refusal> {
    metadata
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(str::trim)
        .filter(|token| !token.is_empty())
        .ok_or(Refusal::NoToken)
}
