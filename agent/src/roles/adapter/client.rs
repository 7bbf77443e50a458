//! One agent that the adapter works for: a task that outlives the agent's streams.
//!
//! ```text
//!                      Ask                       Lost                     grace time
//!   nothing announced ─────▶ announced, stream ───────▶ announced, waiting ─────────▶ taken back
//!                               │  ▲ ▲                       │
//!                     Bye ──────┘  │ └────────── Attach ─────┘
//!                     removed      └ another stream of the same agent ends the one before
//! ```
//! Owns what is asked for, what is permitted of it, and when it is taken back. Speaking to databases is the registrar's.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use castgate_control::{AdapterClient, RegistrarSnapshot, Registration};
use castgate_endpoint::hierarchy::address::DatabaseAddress;
use castgate_rpc::v1::{self, RegisterRequest, RegisterState};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::news::tell;
use crate::report::ClientReport;
use crate::roles::feeding::Feeding;
use crate::roles::peering::Peering;
use crate::roles::registrar::{Direct, RegistrarError, entry_name};

/// Orders that wait: a stream sends one at a time.
const ORDERS_MAX: usize = 16;
/// Questions of one agent at one time: others have their turns as well.
const QUESTIONS_MAX: usize = 32;
/// How long a stream that said goodbye is kept for the answer of the databases; an agent waits no longer.
const GOODBYE_TIME: Duration = Duration::from_secs(3);

/// What the snapshot says about one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) client: AdapterClient,
    /// How long its entries stay when its stream is lost.
    pub(super) grace: Duration,
}

/// What a stream wants.
#[derive(Debug)]
pub(super) enum Order {
    /// It begins.
    Attach { stream: u64, answers: watch::Sender<Answer> },
    /// The entries of this request, and no others; with the chain that feeds them.
    Ask { stream: u64, request: RegisterRequest, fed_by: Vec<IpAddr> },
    /// Everything shall be taken back.
    Bye { stream: u64 },
    /// It is gone without a goodbye.
    Lost { stream: u64 },
}

/// What a stream is told; the newest is what counts. Without its sender the stream ends well.
#[derive(Debug, Clone, Default)]
pub(super) enum Answer {
    #[default]
    Nothing,
    State(RegisterState),
    End(Status),
    /// The goodbye was said; whether every database heard it.
    Gone(bool),
}

/// The handle of the task. Dropped, nothing is said to anybody.
#[derive(Debug)]
pub(super) struct Client {
    settings: watch::Sender<Option<Settings>>,
    orders: mpsc::Sender<Order>,
    report: watch::Receiver<ClientReport>,
    /// The peers of its database.
    peers: watch::Receiver<Vec<DatabaseAddress>>,
    questions: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Client {
    pub(super) fn start(settings: Settings, changed: Arc<Notify>) -> Self {
        let agent = settings.client.agent.clone();
        let (sender, settings) = watch::channel(Some(settings));
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let (publisher, report) =
            watch::channel(ClientReport { agent: agent.clone(), connected: false, registrations: Vec::new() });
        let peering = Peering::default();
        let desk = Task {
            agent,
            settings,
            publisher,
            changed,
            registrar: None,
            peers: peering.peers(),
            peering,
            feeding: Feeding::default(),
            hears_peers: false,
            asked_number: 0,
            answered_number: 0,
            asked: Vec::new(),
            refused: Vec::new(),
            stream: None,
            take_back_at: None,
            leaving_until: None,
        };
        let peers = desk.peering.peers();
        let task = tokio::spawn(desk.run(received));
        Self { settings: sender, orders, report, peers, questions: Arc::new(Semaphore::new(QUESTIONS_MAX)), task }
    }

    pub(super) fn set(&self, settings: Settings) {
        tell(&self.settings, Some(settings));
    }

    /// Has everything taken back.
    pub(super) fn remove(&self) {
        self.settings.send_if_modified(|before| before.take().is_some());
    }

    /// `None`: it is on its way out.
    pub(super) fn settings(&self) -> Option<Settings> {
        self.settings.borrow().clone()
    }

    pub(super) fn orders(&self) -> mpsc::Sender<Order> {
        self.orders.clone()
    }

    pub(super) fn report(&self) -> ClientReport {
        self.report.borrow().clone()
    }

    /// The other databases of the networks of its database, as far as they were found.
    pub(super) fn peers(&self) -> Vec<DatabaseAddress> {
        self.peers.borrow().clone()
    }

    /// Its turns for questions.
    pub(super) fn questions(&self) -> Arc<Semaphore> {
        self.questions.clone()
    }

    /// Whether it is removed and everything is taken back.
    pub(super) fn is_done(&self) -> bool {
        self.settings.borrow().is_none() && {
            let report = self.report.borrow();
            !report.connected && report.registrations.is_empty()
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Proves that what a client may announce can be announced.
pub(super) fn check(client: &AdapterClient) -> Result<(), RegistrarError> {
    Direct::check(snapshot(client, Vec::new()))
}

struct Task {
    agent: String,
    settings: watch::Receiver<Option<Settings>>,
    publisher: watch::Sender<ClientReport>,
    changed: Arc<Notify>,
    registrar: Option<Direct>,
    /// What the registrar and the agent's database tell each other through us.
    peering: Peering,
    peers: watch::Receiver<Vec<DatabaseAddress>>,
    /// What feeds the agent's relays.
    feeding: Feeding,
    /// Whether the agent tells us when its database holds what its peers hold.
    hears_peers: bool,
    /// The last request, and the one that the registrar has carried out.
    asked_number: u64,
    answered_number: u64,
    /// What the agent wants: its text when it is an entry, and the entry.
    asked: Vec<v1::Entry>,
    /// What of it is not announced, with the reason.
    refused: Vec<String>,
    stream: Option<(u64, watch::Sender<Answer>)>,
    /// When the grace time is over.
    take_back_at: Option<Instant>,
    /// Until when a stream that said goodbye waits for the databases.
    leaving_until: Option<Instant>,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            tokio::select! {
                changed = self.settings.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.reconfigure();
                }
                order = orders.recv() => match order {
                    Some(order) => self.handle(order),
                    None => return,
                },
                () = due(self.take_back_at) => {
                    tracing::info!(agent = self.agent, "is gone, its entries are taken back");
                    self.take_back();
                }
                () = due(self.leaving_until) => {
                    tracing::warn!(agent = self.agent, "not every database above took the goodbye in time");
                    self.end_stream(false);
                }
                () = changed(self.registrar.as_mut()) => {}
                // Ours is one of the senders.
                Ok(()) = self.peers.changed() => {}
            }
            if self.leaving_until.is_some() && self.registrar.as_ref().is_none_or(Direct::is_finished) {
                self.end_stream(true);
            }
            self.publish();
        }
    }

    fn handle(&mut self, order: Order) {
        let current = self.stream.as_ref().map(|(stream, _)| *stream);
        match order {
            Order::Attach { stream, answers } => {
                if let Some((_, before)) = self.stream.replace((stream, answers)) {
                    before.send_replace(Answer::End(Status::aborted("another stream of this agent took over")));
                }
                self.take_back_at = None;
                self.leaving_until = None;
                tracing::info!(agent = self.agent, "connected");
            }
            // An order of a stream that was replaced comes too late.
            Order::Ask { stream, .. } | Order::Bye { stream } | Order::Lost { stream } if Some(stream) != current => {}
            Order::Ask { request, fed_by, .. } => self.take(request, fed_by),
            Order::Bye { .. } => {
                tracing::info!(agent = self.agent, "says goodbye");
                self.take_back();
                self.leaving_until = Some(Instant::now() + GOODBYE_TIME);
            }
            Order::Lost { .. } => {
                self.stream = None;
                self.leaving_until = None;
                let grace = self.settings.borrow().as_ref().map(|settings| settings.grace);
                if let Some(grace) = grace.filter(|_| !self.asked.is_empty()) {
                    tracing::info!(agent = self.agent, ?grace, "its stream is lost");
                    self.take_back_at = Some(Instant::now() + grace);
                }
            }
        }
    }

    fn take(&mut self, request: RegisterRequest, fed_by: Vec<IpAddr>) {
        let RegisterRequest { agent: _, entries, bye: _, fed_by: _, hears_peers, synchronised_with, number } = request;
        self.asked = entries;
        self.leaving_until = None;
        self.asked_number = number;
        self.hears_peers = hears_peers;
        self.feeding.set(fed_by);
        // Of peers that it has not heard of yet it has said nothing.
        let told: Vec<String> = self.peers.borrow().iter().map(ToString::to_string).collect();
        self.peering.set_synchronised(synchronised_with == told);
        self.announce();
    }

    fn reconfigure(&mut self) {
        if self.settings.borrow_and_update().is_some() {
            self.announce();
            return;
        }
        tracing::info!(agent = self.agent, "is no client any more, its entries are taken back");
        self.take_back();
        if let Some((_, answers)) = self.stream.take() {
            let sentence = format!("{} is no agent that this adapter works for any more", self.agent);
            answers.send_replace(Answer::End(Status::permission_denied(sentence)));
        }
    }

    fn take_back(&mut self) {
        self.take_back_at = None;
        self.asked.clear();
        self.announce();
    }

    fn end_stream(&mut self, complete: bool) {
        self.leaving_until = None;
        if let Some((_, answers)) = self.stream.take() {
            answers.send_replace(Answer::Gone(complete));
        }
    }

    /// Announces what is both asked for and permitted.
    fn announce(&mut self) {
        let settings = self.settings.borrow().clone();
        let (permitted, client) = match &settings {
            Some(settings) => (&settings.client.entries[..], Some(&settings.client)),
            None => (&[][..], None),
        };
        self.refused.clear();
        let mut entries: Vec<Registration> = Vec::new();
        for entry in &self.asked {
            match Registration::try_from(entry) {
                Ok(registration) if !permitted.contains(&registration) => self.refused.push(format!(
                    "{}: is not among the entries that {} may announce",
                    name(&registration),
                    self.agent
                )),
                Ok(registration) if entries.contains(&registration) => {}
                Ok(registration) => entries.push(registration),
                Err(error) => self.refused.push(format!("{} {}: {error}", entry.r#type, entry.source)),
            }
        }
        let applied = match (&mut self.registrar, client) {
            (Some(registrar), Some(client)) => {
                registrar.wait_for_peers(self.hears_peers);
                registrar.apply(snapshot(client, entries))
            }
            // Whom it has told it knows itself.
            (Some(registrar), None) => registrar.apply(RegistrarSnapshot::new(Vec::new(), Vec::new())),
            (None, Some(client)) if !entries.is_empty() => {
                let boards = (self.peering.clone(), &self.feeding);
                Direct::start_for(snapshot(client, entries), &self.changed, boards, self.hears_peers)
                    .map(|registrar| self.registrar = Some(registrar))
            }
            (None, _) => Ok(()),
        };
        if let Err(error) = applied {
            // The parents were proven before; what is left is a system without random numbers.
            tracing::error!(agent = self.agent, %error, "its entries are not announced");
        }
    }

    fn publish(&mut self) {
        if self.registrar.as_ref().is_some_and(|registrar| self.asked.is_empty() && registrar.is_finished()) {
            self.registrar = None;
            // The next one finds its own.
            self.peering.set_peers(Vec::new());
        }
        if self.registrar.as_ref().is_none_or(Direct::has_carried_out) {
            self.answered_number = self.asked_number;
        }
        let registrations = self.registrar.as_ref().map(Direct::report).unwrap_or_default();
        if let Some((_, answers)) = &self.stream {
            let state = RegisterState {
                registrations: registrations.iter().map(crate::report::RegistrationReport::to_message).collect(),
                refused: self.refused.clone(),
                peers: self.peers.borrow_and_update().iter().map(ToString::to_string).collect(),
                number: self.answered_number,
            };
            answers.send_if_modified(|before| {
                let news = !matches!(before, Answer::State(before) if *before == state);
                *before = Answer::State(state);
                news
            });
        }
        // While the registrar still has to carry out an order, what it says may be empty and yet not be the end.
        let registrations = match &self.registrar {
            Some(registrar) if registrations.is_empty() && !registrar.is_finished() => return,
            _ => registrations,
        };
        let report = ClientReport { agent: self.agent.clone(), connected: self.stream.is_some(), registrations };
        if tell(&self.publisher, report) {
            self.changed.notify_one();
        }
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn changed(registrar: Option<&mut Direct>) {
    match registrar {
        Some(registrar) => registrar.changed().await,
        None => std::future::pending().await,
    }
}

fn name(entry: &Registration) -> String {
    entry_name(entry.entry_type, entry.source, entry.port, entry.protocol.as_ref())
}

fn snapshot(client: &AdapterClient, entries: Vec<Registration>) -> RegistrarSnapshot {
    let AdapterClient { agent: _, key: _, entries: _, parents, discovery, peers: _, interval_seconds } = client;
    RegistrarSnapshot {
        discovery: discovery.clone(),
        interval_seconds: *interval_seconds,
        ..RegistrarSnapshot::new(entries, parents.clone())
    }
}
