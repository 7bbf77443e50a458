//! The service `Hierarchy`: who calls, and to which client's task he is brought.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use castgate_control::{AdapterClient, AdapterSnapshot};
use castgate_rpc::v1::hierarchy_server::Hierarchy;
use castgate_rpc::v1::{RegisterRequest, RegisterState};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::client::{Answer, Client, Order, Settings};
use super::connections::Visitor;
use crate::report::ClientReport;

/// Time to say who one is once the stream is there, and to take an answer.
const STREAM_TIME: Duration = Duration::from_secs(10);

/// Everybody the adapter works for.
#[derive(Debug)]
pub(super) struct Desk {
    clients: Mutex<BTreeMap<String, Client>>,
    next_stream: AtomicU64,
    changed: Arc<Notify>,
}

impl Desk {
    pub(super) fn new(changed: Arc<Notify>) -> Self {
        Self { clients: Mutex::default(), next_stream: AtomicU64::new(1), changed }
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

    /// The client's task, when the key is his.
    fn find(&self, agent: &str, key: &str) -> Result<mpsc::Sender<Order>, Status> {
        let clients = self.clients();
        let found = clients.get(agent).and_then(|client| Some((client, client.settings()?)));
        let Some((client, Settings { client: AdapterClient { key: wanted, .. }, .. })) = found else {
            return Err(Status::permission_denied(format!("{agent:?} is no agent that this adapter works for")));
        };
        if !same(wanted.as_bytes(), key.as_bytes()) {
            return Err(Status::permission_denied(format!("the key that is shown is not that of {agent}")));
        }
        Ok(client.orders())
    }
}

#[tonic::async_trait]
impl Hierarchy for Desk {
    type RegisterStream = Pin<Box<dyn Stream<Item = Result<RegisterState, Status>> + Send>>;

    async fn register(
        &self,
        request: Request<Streaming<RegisterRequest>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        let key = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let key = key.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
        let visitor = request.extensions().get::<Visitor>().cloned();
        if !self.knows(&key) {
            let peer = visitor.map(|visitor| visitor.peer());
            tracing::warn!(?peer, "a stream without an agent's key");
            return Err(Status::unauthenticated("no key of an agent that this adapter works for is shown"));
        }
        let mut requests = request.into_inner();
        let first = timeout(STREAM_TIME, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("nothing was asked for in time"))??;
        let first = first.ok_or_else(|| Status::invalid_argument("nothing was asked for"))?;
        let orders = self.find(&first.agent, &key).inspect_err(|status| {
            tracing::warn!(agent = first.agent, reason = status.message(), "a stream is refused");
        })?;
        if let Some(visitor) = visitor {
            visitor.proven();
        }
        let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let (said, answers) = watch::channel(Answer::Nothing);
        let agent = first.agent.clone();
        let gone = |_| Status::unavailable("the adapter ends");
        orders.send(Order::Attach { stream, answers: said }).await.map_err(gone)?;
        orders.send(order(stream, first)).await.map_err(gone)?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(converse(Conversation { agent, stream, orders, answers }, requests, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
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
                Ok(Some(request)) => {
                    if orders.send(order(stream, request)).await.is_err() {
                        break;
                    }
                }
                Ok(None) | Err(_) => break,
            },
            changed = answers.changed() => {
                // Its end is the end of the stream, and nothing went wrong.
                let answer = if changed.is_ok() { answers.borrow_and_update().clone() } else { return };
                let answer = match answer {
                    Answer::Nothing => continue,
                    Answer::State(state) => Ok(state),
                    Answer::End(status) => Err(status),
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

fn order(stream: u64, request: RegisterRequest) -> Order {
    let RegisterRequest { agent: _, entries, bye } = request;
    if bye { Order::Bye { stream } } else { Order::Ask { stream, entries } }
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
