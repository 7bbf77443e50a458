//! The service behind a front: one connection, made when it is needed and again when it broke.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use castgate_control::AdapterRef;
use castgate_rpc::v1::hierarchy_client::HierarchyClient;
use castgate_rpc::v1::{DiscoverRequest, LocateAnswer, LocateRequest, TransferEntry, TransferRequest};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use crate::dial;
use crate::http::words::Failure;

/// Time of one answer: the service behind may ask databases far away.
const ANSWER_TIME: Duration = Duration::from_secs(35);

/// Calls it.
#[derive(Debug)]
pub(super) struct Upstream {
    ca: Option<PathBuf>,
    line: Mutex<Line>,
}

#[derive(Debug)]
struct Line {
    adapter: AdapterRef,
    channel: Option<Channel>,
}

impl Upstream {
    pub(super) fn new(adapter: AdapterRef, ca: Option<PathBuf>) -> Self {
        Self { ca, line: Mutex::new(Line { adapter, channel: None }) }
    }

    /// Another service from now on, or another key.
    pub(super) fn set(&self, adapter: AdapterRef) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.adapter != adapter {
            *line = Line { adapter, channel: None };
        }
    }

    /// The service, and the key of this agent there.
    pub(super) fn adapter(&self) -> AdapterRef {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).adapter.clone()
    }

    /// Proves a key.
    pub(super) async fn prove(&self, agent: &str, key: &str) -> Result<(), Failure> {
        let request = Self::request(DiscoverRequest { agent: agent.to_owned(), entries: Vec::new() }, key)?;
        let mut client = self.client().await?;
        self.answer(client.discover(request)).await.map(drop)
    }

    /// Asks where servers are.
    pub(super) async fn locate(&self, question: LocateRequest) -> Result<LocateAnswer, Failure> {
        let request = Self::request(question, &self.adapter().key)?;
        let mut client = self.client().await?;
        self.answer(client.locate(request)).await
    }

    /// Asks for all entries.
    pub(super) async fn transfer(
        &self,
        wanted: TransferRequest,
        key: &str,
    ) -> Result<Streaming<TransferEntry>, Failure> {
        let request = Self::request(wanted, key)?;
        let mut client = self.client().await?;
        self.answer(client.transfer(request)).await
    }

    fn request<T>(message: T, key: &str) -> Result<Request<T>, Failure> {
        let mut request = Request::new(message);
        // A password that cannot be a key is a wrong one.
        let bearer = dial::bearer(key).map_err(|_| Failure::unauthorized())?;
        request.metadata_mut().insert("authorization", bearer);
        Ok(request)
    }

    async fn client(&self) -> Result<HierarchyClient<Channel>, Failure> {
        let (endpoint, channel) = {
            let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
            (line.adapter.endpoint.clone(), line.channel.clone())
        };
        if let Some(channel) = channel {
            return Ok(HierarchyClient::new(channel));
        }
        let channel = dial::connect(&endpoint, self.ca.as_deref()).await.map_err(|reason| busy(&reason))?;
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.adapter.endpoint == endpoint {
            line.channel = Some(channel.clone());
        }
        Ok(HierarchyClient::new(channel))
    }

    async fn answer<T>(&self, call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Failure> {
        let late = |_| Err(Status::deadline_exceeded(format!("no answer within {} s", ANSWER_TIME.as_secs())));
        match timeout(ANSWER_TIME, call).await.unwrap_or_else(late) {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => {
                if !matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument) {
                    // Perhaps the connection; certificates and addresses may be others by now.
                    self.line.lock().unwrap_or_else(PoisonError::into_inner).channel = None;
                }
                Err(failure(&status))
            }
        }
    }
}

/// How the service's refusal is told over HTTP.
fn failure(status: &Status) -> Failure {
    use hyper::StatusCode;
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => Failure::unauthorized(),
        Code::InvalidArgument => Failure::bad(one_line(status.message())),
        Code::NotFound | Code::FailedPrecondition => Failure::new(StatusCode::FORBIDDEN, one_line(status.message())),
        Code::ResourceExhausted => Failure::too_many(Duration::from_secs(1)),
        _ => busy(&dial::said(status)),
    }
}

fn busy(reason: &str) -> Failure {
    tracing::warn!(reason, "the service behind does not answer");
    Failure::busy(&format!("the service behind this front does not answer: {}", one_line(reason)))
}

/// Whatever a stranger says, an answer is one line.
fn one_line(text: &str) -> String {
    text.split(char::is_control).next().unwrap_or_default().chars().take(300).collect()
}
