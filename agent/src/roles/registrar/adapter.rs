//! Announces entries through the adapter of our namespace: it has the accounts, so that no credential is on this node.
//!
//! ```text
//!   apply ─▶ task ─▶ Hierarchy.Register: entries ─▶ adapter ─▶ databases above
//!   stop ──▶            bye, wait for the end        │
//!                    ◀─ how each entry stands ◀──────┘
//! ```
//! Owns the stream and its life. While there is none, the adapter keeps our entries for its grace time, and we try to come
//! back. What a registrar that speaks to databases itself would tell the other roles of this agent, the adapter tells us: who
//! the peers of our database are; and we tell it when that holds their entries, and who feeds our relays.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use castgate_control::{AdapterRef, EntryType, Registration};
use castgate_endpoint::hierarchy::address::DatabaseAddress;
use castgate_rpc::v1::hierarchy_client::HierarchyClient;
use castgate_rpc::v1::{Entry, RegisterRequest, RegisterState};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::entry_name;
use crate::dial::{self, Backoff};
use crate::news::tell;
use crate::report::RegistrationReport;
use crate::roles::feeding::Feeding;
use crate::roles::peering::Peering;
use crate::surroundings::Surroundings;

/// Time that the goodbye gets. Without it the adapter says it after its grace time.
const GOODBYE_TIME: Duration = Duration::from_secs(3);
/// Time that the adapter has to open the stream.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Requests under way: one for each snapshot.
const REQUESTS_MAX: usize = 4;

/// Announces entries through an adapter for as long as it lives.
#[derive(Debug)]
pub struct Through {
    wishes: watch::Sender<Wish>,
    statuses: watch::Receiver<Vec<RegistrationReport>>,
    /// The last wish that the statuses follow from.
    answered: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct Wish {
    adapter: AdapterRef,
    entries: Vec<Registration>,
    bye: bool,
    /// Counts them.
    number: u64,
}

impl Through {
    /// Connects and announces everything.
    #[must_use]
    pub fn start(adapter: AdapterRef, entries: Vec<Registration>, around: &Surroundings) -> Self {
        Self::start_with(adapter, entries, around, true)
    }

    /// The same for entries that others serve: a database among them has nothing to wait for here.
    #[must_use]
    pub(crate) fn start_for(adapter: AdapterRef, entries: Vec<Registration>, around: &Surroundings) -> Self {
        Self::start_with(adapter, entries, around, false)
    }

    fn start_with(adapter: AdapterRef, entries: Vec<Registration>, around: &Surroundings, is_beside: bool) -> Self {
        let wish = Wish { adapter, entries, bye: false, number: 1 };
        let (publisher, statuses) = watch::channel(waiting(&wish, None));
        let (wishes, wish) = watch::channel(wish);
        let (numbers, answered) = watch::channel(0);
        let Surroundings { agent, state_dir: _, ca, changed, peering, feeding } = around.clone();
        let client = Client { agent, ca, wish, statuses: publisher, numbers, changed, peering, feeding, is_beside };
        Self { wishes, statuses, answered, task: tokio::spawn(client.run()) }
    }

    /// Announces these entries instead, there or elsewhere. Returns the number that `answered` reaches when
    /// the adapter has taken it.
    pub fn apply(&mut self, adapter: AdapterRef, entries: Vec<Registration>) -> u64 {
        let number = self.wishes.borrow().number + 1;
        self.wishes.send_replace(Wish { adapter, entries, bye: false, number });
        number
    }

    /// The number of the last wish that [`reports`](Self::reports) follow from; the first is 1.
    #[must_use]
    pub(crate) fn answered(&self) -> watch::Receiver<u64> {
        self.answered.clone()
    }

    /// How every entry stands at every parent of the adapter's.
    #[must_use]
    pub fn report(&self) -> Vec<RegistrationReport> {
        self.statuses.borrow().clone()
    }

    /// The same, whenever it changes.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<Vec<RegistrationReport>> {
        self.statuses.clone()
    }

    /// Has everything taken back and ends; an adapter that does not answer is given 3 seconds.
    pub async fn stop(mut self) {
        self.wishes.send_modify(|wish| wish.bye = true);
        if timeout(GOODBYE_TIME, &mut self.task).await.is_err() {
            tracing::warn!("the adapter did not take the goodbye in time");
        }
    }
}

impl Drop for Through {
    /// Dropped without [`stop`](Self::stop): nothing is said, the adapter's grace time runs.
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Client {
    agent: String,
    ca: Option<PathBuf>,
    wish: watch::Receiver<Wish>,
    statuses: watch::Sender<Vec<RegistrationReport>>,
    numbers: watch::Sender<u64>,
    changed: Arc<Notify>,
    peering: Peering,
    feeding: Feeding,
    is_beside: bool,
}

/// Why a stream ended.
enum End {
    /// The goodbye is said.
    Bye,
    /// Another adapter, or another key, is wanted.
    Moved,
    /// It broke.
    Lost(String),
}

impl Client {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut complaint = String::new();
        let mut ready = self.peering.ready();
        loop {
            let wish = self.wish.borrow_and_update().clone();
            if wish.bye {
                // Without a stream there is nobody to say it to; the adapter's grace time takes the entries back.
                return;
            }
            if self.is_beside && !*ready.borrow_and_update() {
                // Our database knows nothing yet: it is not announced.
                tokio::select! {
                    Ok(()) = ready.changed() => {}
                    changed = self.wish.changed() => if changed.is_err() { return },
                }
                continue;
            }
            let reason = match self.session(&wish, &mut backoff).await {
                Ok(End::Bye) => return,
                Ok(End::Moved) => continue,
                Ok(End::Lost(reason)) | Err(reason) => reason,
            };
            if complaint == reason {
                tracing::debug!(%reason, "the adapter does not answer");
            } else {
                tracing::warn!(%reason, "the adapter does not answer");
                complaint.clone_from(&reason);
            }
            let wish = self.wish.borrow().clone();
            self.publish(waiting(&wish, Some(&reason)));
            tokio::select! {
                () = sleep(backoff.next()) => {}
                changed = self.wish.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn session(&mut self, wish: &Wish, backoff: &mut Backoff) -> Result<End, String> {
        let Wish { adapter: AdapterRef { endpoint, key }, .. } = wish;
        let channel = dial::connect(endpoint, self.ca.as_deref()).await?;
        let (requests, outgoing) = mpsc::channel(REQUESTS_MAX);
        let gone = |_| format!("{endpoint}: takes no more requests");
        let (mut synchronised, mut chain) = (self.peering.synchronised(), self.feeding.chain());
        // What the adapter has told on this stream.
        let mut peers: Vec<DatabaseAddress> = Vec::new();
        let mut current = wish.clone();
        requests.send(self.request(&current, &peers)).await.map_err(gone)?;
        let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
        request.metadata_mut().insert("authorization", dial::bearer(key)?);
        let mut client = HierarchyClient::new(channel);
        let said = |status: &tonic::Status| format!("{endpoint}: {}", dial::said(status));
        let opened = timeout(ANSWER_TIME, client.register(request)).await;
        let opened = opened.map_err(|_| format!("{endpoint}: no answer within {} s", ANSWER_TIME.as_secs()))?;
        let mut answers = opened.map_err(|status| said(&status))?.into_inner();
        tracing::info!(%endpoint, "connected to the adapter");
        loop {
            let is_news = tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(state)) => {
                        backoff.succeeded();
                        let is_news = self.take_peers(&current, &state, &mut peers);
                        let number = state.number;
                        self.publish(reports(endpoint, state));
                        tell(&self.numbers, number);
                        is_news
                    }
                    Ok(None) if current.bye => return Ok(End::Bye),
                    Ok(None) => return Ok(End::Lost(format!("{endpoint}: ended the stream"))),
                    Err(status) => return Ok(End::Lost(said(&status))),
                },
                Ok(()) = self.wish.changed(), if !current.bye => {
                    current = self.wish.borrow_and_update().clone();
                    if !current.bye && current.adapter != wish.adapter {
                        return Ok(End::Moved);
                    }
                    true
                }
                Ok(()) = synchronised.changed(), if !current.bye => true,
                Ok(()) = chain.changed(), if !current.bye => true,
            };
            if is_news {
                synchronised.mark_unchanged();
                chain.mark_unchanged();
                requests.send(self.request(&current, &peers)).await.map_err(gone)?;
            }
        }
    }

    /// Tells our database who its peers are. Returns whether that is news.
    fn take_peers(&self, wish: &Wish, state: &RegisterState, peers: &mut Vec<DatabaseAddress>) -> bool {
        let parsed: Vec<DatabaseAddress> = state.peers.iter().filter_map(|peer| peer.parse().ok()).collect();
        // An adapter that has just begun knows nobody yet: where somebody is registered the walk is done.
        let is_done = !parsed.is_empty() || state.registrations.iter().any(|one| one.state == "registered");
        let is_known = parsed == *peers && !(peers.is_empty() && self.has_peers());
        if !self.hears_peers(wish) || !is_done || is_known {
            return false;
        }
        tracing::info!(peers = ?parsed, "other databases of our networks");
        peers.clone_from(&parsed);
        self.peering.set_peers(parsed);
        true
    }

    /// Whether a database is among the entries, and is that of this agent, which looks at the board.
    fn hears_peers(&self, wish: &Wish) -> bool {
        self.is_beside && wish.entries.iter().any(|entry| entry.entry_type == EntryType::TunnelDatabase)
    }

    fn has_peers(&self) -> bool {
        !self.peering.peers().borrow().is_empty()
    }

    fn request(&self, wish: &Wish, peers: &[DatabaseAddress]) -> RegisterRequest {
        let Wish { adapter: _, entries, bye, number } = wish;
        let synchronised_with = if *self.peering.synchronised().borrow() { peers } else { &[] };
        RegisterRequest {
            agent: self.agent.clone(),
            entries: entries.iter().filter(|_| !bye).map(Entry::from).collect(),
            bye: *bye,
            fed_by: self.feeding.chain().borrow().iter().map(ToString::to_string).collect(),
            hears_peers: self.hears_peers(wish),
            synchronised_with: synchronised_with.iter().map(ToString::to_string).collect(),
            number: *number,
        }
    }

    fn publish(&self, reports: Vec<RegistrationReport>) {
        if tell(&self.statuses, reports) {
            self.changed.notify_one();
        }
    }
}

/// Without a stream nothing is known of any entry.
fn waiting(wish: &Wish, reason: Option<&str>) -> Vec<RegistrationReport> {
    let report = |entry: &Registration| RegistrationReport {
        parent: wish.adapter.endpoint.clone(),
        entry: entry_name(entry.entry_type, entry.source, entry.port, entry.protocol.as_ref()),
        state: "trying".to_owned(),
        last_refusal: reason.map(|reason| format!("the adapter does not answer: {reason}")),
    };
    wish.entries.iter().map(report).collect()
}

/// What the databases say, then what the adapter itself does not announce: `ENTRY: REASON`.
fn reports(endpoint: &str, state: RegisterState) -> Vec<RegistrationReport> {
    let RegisterState { registrations, refused, peers: _, number: _ } = state;
    let refusal = |refusal: String| {
        let (entry, reason) = refusal.split_once(": ").unwrap_or((&refusal, "is refused"));
        RegistrationReport {
            parent: endpoint.to_owned(),
            entry: entry.to_owned(),
            state: "refused".to_owned(),
            last_refusal: Some(reason.to_owned()),
        }
    };
    registrations.into_iter().map(Into::into).chain(refused.into_iter().map(refusal)).collect()
}
