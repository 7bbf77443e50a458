//! The service `Hierarchy`: who calls, and to which client's task he is brought. Answering questions is `questions`'.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use castgate_control::{AdapterClient, AdapterSnapshot};
use castgate_endpoint::hierarchy::address::DatabaseAddress;
use castgate_rpc::v1::hierarchy_server::Hierarchy;
use castgate_rpc::v1::{
    ByeAnswer, ByeRequest, DiscoverAnswer, DiscoverRequest, LocateAnswer, LocateRequest, RegisterRequest,
    RegisterState, TransferEntry, TransferRequest,
};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::client::{Answer, Client, Order, Settings};
use super::connections::Visitor;
use super::questions::{self, Questions};
use crate::report::ClientReport;

/// Time to say who one is once the stream is there, and to take an answer.
const STREAM_TIME: Duration = Duration::from_secs(10);

/// Everybody the adapter works for.
#[derive(Debug)]
pub(super) struct Desk {
    clients: Mutex<BTreeMap<String, Client>>,
    next_stream: AtomicU64,
    changed: Arc<Notify>,
    questions: Questions,
}

impl Desk {
    pub(super) fn new(changed: Arc<Notify>, questions: Questions) -> Self {
        Self { clients: Mutex::default(), next_stream: AtomicU64::new(1), changed, questions }
    }

    /// Works for these from now on. Who is no longer among them has his entries taken back.
    pub(super) fn set(&self, snapshot: &AdapterSnapshot) {
        let grace = Duration::from_secs(snapshot.grace_seconds.get().into());
        let mut clients = self.clients();
        // Those who are gone and have nothing to take back any more.
        clients.retain(|_, client| !client.is_done());
        let mut gone: Vec<String> = clients.keys().cloned().collect();
        for client in &snapshot.clients {
            gone.retain(|agent| *agent != client.agent);
            let settings = Settings { client: client.clone(), grace };
            match clients.get_mut(&client.agent) {
                Some(running) => running.set(settings),
                None => {
                    clients.insert(client.agent.clone(), Client::start(settings, self.changed.clone()));
                }
            }
        }
        for agent in gone {
            if let Some(client) = clients.get(&agent) {
                client.remove();
            }
        }
    }

    pub(super) fn report(&self) -> Vec<ClientReport> {
        let mut clients = self.clients();
        clients.retain(|_, client| !client.is_done());
        clients.values().map(Client::report).collect()
    }

    /// Ends every stream without a word to the databases.
    pub(super) fn leave(&self) {
        self.clients().clear();
    }

    fn clients(&self) -> MutexGuard<'_, BTreeMap<String, Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is the key of any agent: whoever shows none is not listened to.
    fn knows(&self, key: &str) -> bool {
        // Every key is compared: how long it takes tells nobody how close he was.
        self.clients()
            .values()
            .filter_map(Client::settings)
            .fold(false, |known, settings| known | same(settings.client.key.as_bytes(), key.as_bytes()))
    }

    /// What is known of a client, when the key is his.
    fn find(&self, agent: &str, key: &str) -> Result<Known, Status> {
        let clients = self.clients();
        let found = clients.get(agent).and_then(|client| Some((client, client.settings()?)));
        let Some((client, Settings { client: settings, .. })) = found else {
            return Err(Status::permission_denied(format!("{agent:?} is no agent that this adapter works for")));
        };
        if !same(settings.key.as_bytes(), key.as_bytes()) {
            return Err(Status::permission_denied(format!("the key that is shown is not that of {agent}")));
        }
        Ok(Known { orders: client.orders(), peers: client.peers(), questions: client.questions(), settings })
    }

    /// The key that a caller shows, when it is that of any agent.
    fn key<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let key = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let key = key.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
        if !self.knows(&key) {
            let peer = request.extensions().get::<Visitor>().map(Visitor::peer);
            tracing::warn!(?peer, "a call without an agent's key");
            return Err(Status::unauthenticated("no key of an agent that this adapter works for is shown"));
        }
        Ok(key)
    }

    /// Who asks one question; his connection may stay.
    fn admit<T>(&self, request: &Request<T>, agent: &str) -> Result<Known, Status> {
        let key = self.key(request)?;
        let known = self.find(agent, &key).inspect_err(|status| {
            tracing::warn!(agent, reason = status.message(), "a call is refused");
        })?;
        if let Some(visitor) = request.extensions().get::<Visitor>() {
            visitor.proven();
        }
        Ok(known)
    }
}

/// A client who has shown his key.
struct Known {
    orders: mpsc::Sender<Order>,
    peers: Vec<DatabaseAddress>,
    questions: Arc<Semaphore>,
    settings: AdapterClient,
}

#[tonic::async_trait]
impl Hierarchy for Desk {
    type RegisterStream = Pin<Box<dyn Stream<Item = Result<RegisterState, Status>> + Send>>;
    type TransferStream = Pin<Box<dyn Stream<Item = Result<TransferEntry, Status>> + Send>>;

    async fn register(
        &self,
        request: Request<Streaming<RegisterRequest>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        let key = self.key(&request)?;
        let visitor = request.extensions().get::<Visitor>().cloned();
        let mut requests = request.into_inner();
        let first = timeout(STREAM_TIME, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("nothing was asked for in time"))??;
        let first = first.ok_or_else(|| Status::invalid_argument("nothing was asked for"))?;
        let Known { orders, .. } = self.find(&first.agent, &key).inspect_err(|status| {
            tracing::warn!(agent = first.agent, reason = status.message(), "a stream is refused");
        })?;
        if let Some(visitor) = visitor {
            visitor.proven();
        }
        let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let (said, answers) = watch::channel(Answer::Nothing);
        let agent = first.agent.clone();
        let first = order(stream, first)?;
        orders.send(Order::Attach { stream, answers: said }).await.map_err(gone)?;
        orders.send(first).await.map_err(gone)?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(converse(Conversation { agent, stream, orders, answers }, requests, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn bye(&self, request: Request<ByeRequest>) -> Result<Response<ByeAnswer>, Status> {
        let Known { orders, .. } = self.admit(&request, &request.get_ref().agent)?;
        let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let (said, mut answers) = watch::channel(Answer::Nothing);
        orders.send(Order::Attach { stream, answers: said }).await.map_err(gone)?;
        orders.send(Order::Bye { stream }).await.map_err(gone)?;
        loop {
            answers.changed().await.map_err(|_| Status::unavailable("the adapter ends"))?;
            match &*answers.borrow_and_update() {
                Answer::Nothing | Answer::State(_) => {}
                Answer::End(status) => return Err(status.clone()),
                Answer::Gone(complete) => return Ok(Response::new(ByeAnswer { complete: *complete })),
            }
        }
    }

    async fn locate(&self, request: Request<LocateRequest>) -> Result<Response<LocateAnswer>, Status> {
        let Known { settings, questions, .. } = self.admit(&request, &request.get_ref().agent)?;
        let _own = questions::turn(&questions)?;
        self.questions.locate(&settings, request.get_ref()).await.map(Response::new)
    }

    async fn discover(&self, request: Request<DiscoverRequest>) -> Result<Response<DiscoverAnswer>, Status> {
        let Known { settings, questions, .. } = self.admit(&request, &request.get_ref().agent)?;
        let _own = questions::turn(&questions)?;
        self.questions.discover(&settings, request.get_ref()).await.map(Response::new)
    }

    async fn transfer(&self, request: Request<TransferRequest>) -> Result<Response<Self::TransferStream>, Status> {
        let Known { settings, peers, questions, .. } = self.admit(&request, &request.get_ref().agent)?;
        let own = questions::turn(&questions)?;
        let entries = self.questions.transfer(&settings, &peers, request.get_ref(), own)?;
        Ok(Response::new(Box::pin(ReceiverStream::new(entries))))
    }
}

fn gone<T>(_: T) -> Status {
    Status::unavailable("the adapter ends")
}

struct Conversation {
    agent: String,
    stream: u64,
    orders: mpsc::Sender<Order>,
    answers: watch::Receiver<Answer>,
}

/// Carries one stream until either side ends it.
async fn converse(
    conversation: Conversation,
    mut requests: Streaming<RegisterRequest>,
    sender: mpsc::Sender<Result<RegisterState, Status>>,
) {
    let Conversation { agent, stream, orders, mut answers } = conversation;
    loop {
        tokio::select! {
            request = requests.message() => match request {
                Ok(Some(request)) if request.agent != agent => {
                    let _ = sender.try_send(Err(Status::permission_denied("a stream is that of one agent")));
                    break;
                }
                Ok(Some(request)) => match order(stream, request) {
                    Ok(order) => {
                        if orders.send(order).await.is_err() {
                            break;
                        }
                    }
                    Err(status) => {
                        let _ = sender.try_send(Err(status));
                        break;
                    }
                },
                Ok(None) | Err(_) => break,
            },
            changed = answers.changed() => {
                // Its end is the end of the stream, and nothing went wrong.
                let answer = if changed.is_ok() { answers.borrow_and_update().clone() } else { return };
                let answer = match answer {
                    Answer::Nothing => continue,
                    Answer::State(state) => Ok(state),
                    Answer::End(status) => Err(status),
                    Answer::Gone(_) => return,
                };
                let last = answer.is_err();
                let sent = timeout(STREAM_TIME, sender.send(answer)).await;
                if last || !matches!(sent, Ok(Ok(()))) {
                    break;
                }
            }
            () = sender.closed() => break,
        }
    }
    let _ = orders.send(Order::Lost { stream }).await;
}

fn order(stream: u64, request: RegisterRequest) -> Result<Order, Status> {
    if request.bye {
        return Ok(Order::Bye { stream });
    }
    let fed_by = castgate_rpc::chain(&request.fed_by).map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(Order::Ask { stream, request, fed_by })
}

/// Compares without telling by its time where the first difference is.
fn same(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |sum, (one, other)| sum | std::hint::black_box(one ^ other));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_is_the_same() {
        assert!(same(b"abc", b"abc"));
        for other in [&b""[..], b"ab", b"abd", b"abcd", b"xbc"] {
            assert!(!same(b"abc", other));
        }
    }
}
