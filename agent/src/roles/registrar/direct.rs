//! Announces entries at the databases above by speaking to them: for an agent that has accounts of its own, and for each
//! agent that an adapter works for.
//!
//! ```text
//!   apply, stop ─▶ task: endpoint::hierarchy::registrar ─▶ calls ─────▶ http::client ─▶ parents
//!                    │                                ◀─ outcomes ────┘
//!                    │                                ─▶ questions ─▶ lookups ─▶ DNS, databases on the way to parents
//!                    │                                ◀─ replies ─────┘
//!                    └─ peers ─▶ peering ─▶ the database of this agent
//!                     ◀─ synchronised ─┘
//! ```
//! Owns the task and its life; when and what to announce, and whom to ask for that, is the state machine's.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use castgate_client::{Dns, Trust};
use castgate_control::{DatabaseRole, RegistrarDiscovery, RegistrarSnapshot, Registration};
use castgate_endpoint::hierarchy::address::DatabaseAddress;
use castgate_endpoint::hierarchy::discovery::Role;
use castgate_endpoint::hierarchy::registrar::{
    self as endpoint, CallId, Config, Discovery, Outcome, Parent, QuestionId, Reply, Standing, Status,
};
use castgate_wire::registry::Register;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::complaints::Complaints;
use super::{RegistrarError, entry_name, lookups};
use crate::http::client::{self, trust_of};
use crate::news::tell;
use crate::report::RegistrationReport;
use crate::roles::feeding::Feeding;
use crate::roles::peering::Peering;
use crate::surroundings::Surroundings;

/// Time that the goodbyes get. What does not come through goes by itself after two intervals.
const GOODBYE_TIME: Duration = Duration::from_secs(3);
/// Requests at one time: each is a connection.
const CALLS_MAX: usize = 16;

/// Announces entries at parents for as long as it lives.
#[derive(Debug)]
pub struct Direct {
    /// Whether a database among the entries says when it holds what its peers hold.
    waits_for_peers: bool,
    orders: mpsc::UnboundedSender<Order>,
    /// Orders sent, and orders carried out.
    ordered: u64,
    carried_out: watch::Receiver<u64>,
    statuses: watch::Receiver<Vec<RegistrationReport>>,
    task: JoinHandle<()>,
}

/// Orders are few: one for each snapshot.
#[derive(Debug)]
enum Order {
    Set(Settings),
    Stop,
}

#[derive(Debug)]
struct Settings {
    config: Config,
    entries: Vec<Register>,
    above: Above,
    /// Whose certificates are believed on the way from the roots.
    trust: Trust,
}

/// Where entries are announced.
#[derive(Debug)]
enum Above {
    Named(Vec<Parent>),
    Found(Discovery),
}

impl Direct {
    /// Announces everything at once and goes on refreshing it; `changed` is told whenever an entry stands otherwise. The entries
    /// are those of somebody else: a database among them is announced without waiting for its peers.
    ///
    /// # Errors
    /// [`RegistrarError`]; nothing runs then.
    pub fn start(snapshot: RegistrarSnapshot, changed: &Arc<Notify>) -> Result<Self, RegistrarError> {
        // Boards that nobody else reads: what they say does not matter to entries of others.
        Self::start_for(snapshot, changed, (Peering::default(), &Feeding::default()), false)
    }

    /// The same for somebody else who hears of his peers and says who feeds him, over these boards; whether his database is
    /// announced only when it holds what its peers hold.
    ///
    /// # Errors
    /// [`RegistrarError`]; nothing runs then.
    pub(crate) fn start_for(
        snapshot: RegistrarSnapshot,
        changed: &Arc<Notify>,
        (peering, feeding): (Peering, &Feeding),
        waits_for_peers: bool,
    ) -> Result<Self, RegistrarError> {
        Self::start_with(snapshot, changed, Board { peering, told: None }, feeding, waits_for_peers)
    }

    /// The same for what this agent itself serves. Its database hears of its peers, and is announced when it holds what they
    /// hold; its relays are announced with the chain that feeds them, whenever that changes.
    ///
    /// # Errors
    /// [`RegistrarError`]; nothing runs then.
    pub fn start_beside(snapshot: RegistrarSnapshot, around: &Surroundings) -> Result<Self, RegistrarError> {
        let board = Board { peering: around.peering.clone(), told: None };
        Self::start_with(snapshot, &around.changed, board, &around.feeding, true)
    }

    fn start_with(
        snapshot: RegistrarSnapshot,
        changed: &Arc<Notify>,
        board: Board,
        feeding: &Feeding,
        waits_for_peers: bool,
    ) -> Result<Self, RegistrarError> {
        let Settings { config, entries, above, trust } = settings(snapshot, waits_for_peers)?;
        let dns = Dns::from_environment().map_err(|error| RegistrarError::Resolver(error.to_string()))?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| RegistrarError::Random(error.to_string()))?;
        let seed = u64::from_le_bytes(seed);
        let (orders, received) = mpsc::unbounded_channel();
        let (publisher, statuses) = watch::channel(Vec::new());
        let (progress, carried_out) = watch::channel(0);
        let mut machine = match above {
            Above::Named(parents) => endpoint::Registrar::new(config, &entries, &parents, seed, Instant::now()),
            Above::Found(discovery) => {
                endpoint::Registrar::discovering(config, &entries, discovery, seed, Instant::now())
            }
        };
        let mut chain = feeding.chain();
        machine.set_fed_by(&chain.borrow_and_update(), Instant::now());
        let mut publisher = Publisher {
            complaints: Complaints::default(),
            statuses: publisher,
            carried_out: progress,
            changed: changed.clone(),
        };
        publisher.publish(&machine, 0);
        let sides = Sides { board, chain, dns, trust };
        let task = tokio::spawn(run(machine, received, publisher, sides));
        Ok(Self { waits_for_peers, orders, ordered: 0, carried_out, statuses, task })
    }

    /// Proves a snapshot without running it.
    ///
    /// # Errors
    /// [`RegistrarError`], as [`start`](Self::start) would give it.
    pub fn check(snapshot: RegistrarSnapshot) -> Result<(), RegistrarError> {
        settings(snapshot, false).map(|_| ())
    }

    /// Announces what is new or changed, takes back what is gone, leaves the rest in peace.
    ///
    /// # Errors
    /// [`RegistrarError`]; the role goes on as before.
    pub fn apply(&mut self, snapshot: RegistrarSnapshot) -> Result<(), RegistrarError> {
        let settings = settings(snapshot, self.waits_for_peers)?;
        // The task ends with this handle only.
        let _ = self.orders.send(Order::Set(settings));
        self.ordered += 1;
        Ok(())
    }

    /// Whether databases are announced only when they hold what their peers hold, from the next [`apply`](Self::apply) on.
    pub(crate) fn wait_for_peers(&mut self, waits: bool) {
        self.waits_for_peers = waits;
    }

    /// Whether the last order was carried out: what [`report`](Self::report) says follows from it.
    #[must_use]
    pub(crate) fn has_carried_out(&self) -> bool {
        *self.carried_out.borrow() == self.ordered
    }

    /// Whether the last order was carried out and nothing is announced or being taken back any more.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        *self.carried_out.borrow() == self.ordered && self.statuses.borrow().is_empty()
    }

    /// Waits until something stands otherwise or an order was carried out. Safe to drop half-way.
    pub async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.statuses.changed() => changed,
            changed = self.carried_out.changed() => changed,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// How every entry stands at every parent.
    #[must_use]
    pub fn report(&self) -> Vec<RegistrationReport> {
        self.statuses.borrow().clone()
    }

    /// The same, whenever it changes.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<Vec<RegistrationReport>> {
        self.statuses.clone()
    }

    /// Says BYE everywhere and ends; a parent that does not answer is given 3 seconds.
    pub async fn stop(mut self) {
        let _ = self.orders.send(Order::Stop);
        if timeout(GOODBYE_TIME, &mut self.task).await.is_err() {
            tracing::warn!("not every database above took the goodbye");
        }
    }
}

impl Drop for Direct {
    /// Dropped without [`stop`](Self::stop): nothing is said, and nothing goes on running in the background.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What registrar and database of this agent tell each other.
struct Board {
    peering: Peering,
    /// The peers that it was told; `None`: they are not known yet.
    told: Option<Vec<DatabaseAddress>>,
}

impl Board {
    /// Tells the database who its peers are, and the machine whether it has their entries.
    fn tell(&mut self, machine: &mut endpoint::Registrar) {
        let peers = machine.peers();
        // Those of one network are told before those of the others are known, but that there are none is told at the end.
        let is_news = self.told.as_deref().unwrap_or_default() != peers;
        if is_news || (self.told.is_none() && machine.knows_peers()) {
            tracing::info!(?peers, "other databases of our networks");
            self.told = Some(peers.to_vec());
            self.peering.set_peers(peers.to_vec());
            machine.set_synchronised(Instant::now(), *self.peering.synchronised().borrow());
        }
    }
}

/// What a registrar looks at besides its orders.
struct Sides {
    board: Board,
    /// What feeds this agent's relays.
    chain: watch::Receiver<Vec<IpAddr>>,
    dns: Dns,
    trust: Trust,
}

async fn run(
    mut machine: endpoint::Registrar,
    mut orders: mpsc::UnboundedReceiver<Order>,
    mut publisher: Publisher,
    sides: Sides,
) {
    let Sides { mut board, mut chain, dns, mut trust } = sides;
    let mut synchronised = board.peering.synchronised();
    machine.set_synchronised(Instant::now(), *synchronised.borrow_and_update());
    let mut questions: JoinSet<(QuestionId, Reply)> = JoinSet::new();
    let mut carried_out = 0;
    let lines = Arc::new(Semaphore::new(CALLS_MAX));
    let mut calls: JoinSet<(CallId, Outcome)> = JoinSet::new();
    let mut stopping = false;
    let mut ready = board.peering.ready();
    let mut was_ready = false;
    loop {
        board.tell(&mut machine);
        let is_ready = *ready.borrow_and_update();
        was_ready |= is_ready;
        // A database that knows nothing yet is not announced; what was announced is taken back all the same.
        let may_talk = is_ready || (stopping && was_ready);
        while may_talk && let Some(question) = machine.poll_question() {
            let (lines, dns, trust) = (lines.clone(), dns.clone(), trust.clone());
            questions.spawn(async move {
                let _line = lines.acquire().await.expect("nobody closes the semaphore");
                (question.id, lookups::find_out(&dns, &trust, question.lookup).await)
            });
        }
        while may_talk && let Some(call) = machine.poll_call() {
            let (lines, dns) = (lines.clone(), dns.clone());
            calls.spawn(async move {
                let _line = lines.acquire().await.expect("nobody closes the semaphore");
                tracing::trace!(parent = %call.parent.address, "call");
                let outcome = client::carry_out(&dns, &call).await;
                tracing::debug!(parent = %call.parent.address, ?outcome, "answered");
                (call.id, outcome)
            });
        }
        publisher.publish(&machine, carried_out);
        if stopping && (machine.is_finished() || !was_ready) {
            return;
        }
        let next = machine.next_timeout();
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            order = orders.recv(), if !stopping => match order {
                Some(Order::Set(Settings { config, entries, above, trust: other })) => {
                    trust = other;
                    match above {
                        Above::Named(parents) => machine.set(config, &entries, &parents, Instant::now()),
                        Above::Found(discovery) => {
                            machine.set_discovering(config, &entries, discovery, Instant::now());
                        }
                    }
                    carried_out += 1;
                }
                Some(Order::Stop) | None => {
                    stopping = true;
                    machine.shut_down(Instant::now());
                }
            },
            // The board may be gone before us; then the chain stays as it is.
            Ok(()) = chain.changed(), if !stopping => {
                let fed_by = chain.borrow_and_update().clone();
                machine.set_fed_by(&fed_by, Instant::now());
            }
            Some(done) = calls.join_next() => match done {
                Ok((id, outcome)) => machine.handle_outcome(Instant::now(), id, outcome),
                // Its pair would wait for ever; the panic itself was printed where it happened.
                Err(error) => {
                    tracing::error!(%error, "a call to a database above was lost");
                    return;
                }
            },
            Some(done) = questions.join_next() => match done {
                Ok((id, reply)) => machine.handle_reply(Instant::now(), id, reply),
                // Its walk would wait for ever.
                Err(error) => {
                    tracing::error!(%error, "a question to a database above was lost");
                    return;
                }
            },
            Ok(()) = ready.changed() => {}
            Ok(()) = synchronised.changed() => {
                machine.set_synchronised(Instant::now(), *synchronised.borrow_and_update());
            }
            () = due => machine.handle_timeout(Instant::now()),
        }
    }
}

struct Publisher {
    complaints: Complaints,
    statuses: watch::Sender<Vec<RegistrationReport>>,
    carried_out: watch::Sender<u64>,
    changed: Arc<Notify>,
}

impl Publisher {
    /// Statuses first: who sees that an order was carried out sees what came of it.
    fn publish(&mut self, machine: &endpoint::Registrar, carried_out: u64) {
        self.complaints.log(machine.statuses(), machine.is_discovering());
        let reports: Vec<RegistrationReport> = machine.statuses().map(|status| report(&status)).collect();
        if tell(&self.statuses, reports) {
            self.changed.notify_one();
        }
        tell(&self.carried_out, carried_out);
    }
}

fn report(status: &Status<'_>) -> RegistrationReport {
    let Register { entry_type, source, port, protocol, .. } = status.entry;
    RegistrationReport {
        parent: status.parent.to_string(),
        entry: entry_name(*entry_type, *source, *port, protocol.as_ref()),
        state: match status.standing {
            Standing::Trying => "trying",
            Standing::Registered => "registered",
            Standing::Refused => "refused",
            Standing::Leaving => "leaving",
        }
        .to_owned(),
        last_refusal: status.error.map(ToOwned::to_owned),
    }
}

fn settings(snapshot: RegistrarSnapshot, waits_for_peers: bool) -> Result<Settings, RegistrarError> {
    let RegistrarSnapshot { entries, parents, adapter: _, discovery, systems: _, interval_seconds, retry_seconds } =
        snapshot;
    let config = Config {
        interval: Duration::from_secs(interval_seconds.get().into()),
        retry: Duration::from_secs(retry_seconds.get().into()),
    };
    let parent = |(index, castgate_control::Parent { url, login, password, ca })| {
        let url: String = url;
        let address = url.parse().map_err(|error| RegistrarError::Parent(index, error))?;
        trust_of(ca.as_deref()).map_err(|error| RegistrarError::ParentCa(index, error))?;
        Ok(Parent { address, login, password, ca })
    };
    let ca = discovery.as_ref().and_then(|discovery| discovery.ca.as_deref());
    let trust = trust_of(ca).map_err(RegistrarError::DiscoveryCa)?;
    let above = match discovery {
        Some(discovery) => Above::Found(from_the_roots(discovery, waits_for_peers)?),
        None => Above::Named(parents.into_iter().enumerate().map(parent).collect::<Result<_, RegistrarError>>()?),
    };
    Ok(Settings { config, entries: entries.into_iter().map(register_of).collect(), above, trust })
}

/// An entry as it is announced, by whoever is not fed by anybody.
pub(crate) fn register_of(registration: Registration) -> Register {
    let Registration { entry_type, source, port, protocol, networks, country, scheme } = registration;
    Register { source, port: port.get(), entry_type, protocol, networks, country, fed_by: Vec::new(), scheme }
}

fn from_the_roots(discovery: RegistrarDiscovery, waits_for_peers: bool) -> Result<Discovery, RegistrarError> {
    let RegistrarDiscovery { roots, login, password, ca, role } = discovery;
    let root = |(index, root): (usize, String)| root.parse().map_err(|error| RegistrarError::Root(index, error));
    Ok(Discovery {
        roots: roots.into_iter().enumerate().map(root).collect::<Result<_, _>>()?,
        login,
        password,
        ca,
        role: match role {
            DatabaseRole::Peer => Role::Peer,
            DatabaseRole::Customer => Role::Customer,
        },
        waits_for_peers,
    })
}
