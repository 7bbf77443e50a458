//! Region Transfer: what the peers of this database know, it knows before it answers (draft-liefooghe-castgate-02 §4.1.2).
//!
//! ```text
//!   snapshot ──members──┐
//!   registrar ──found───┼─▶ endpoint::hierarchy::peers ──whom to ask──▶ TRANSFER ──▶ adopt, settle
//!   database ──doubt────┘              │ may it answer, may it be announced
//!                                      ▼
//! ```
//! Peers are those of the snapshot and those that the registrar found. When whom is asked decides that state machine; what is taken
//! over decides the database's. Owns the task that turns both, and the goodbyes: a peer that is taken out of the snapshot may be about to
//! end with entries that only it has, so it is asked until it is gone.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use castgate_client::Dns;
use castgate_control::PeersSnapshot;
use castgate_endpoint::hierarchy::address::{AddressError, DatabaseAddress, Place};
use castgate_endpoint::hierarchy::database::Adoption;
use castgate_endpoint::hierarchy::peers as endpoint;
use castgate_wire::registry::xml::ParseError;
use castgate_wire::registry::{Transfer, TransferEntry};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::audit::Act;
use super::service::Service;
use crate::http::client::{self, PeerAccount};
use crate::roles::peering::Peering;

/// Entries taken over at once: while they are, nobody is answered.
const BATCH: usize = 256;
/// How often a peer that was taken out is asked: it gives everything away while it ends, and is told to end a moment before or
/// after we are told to do without it.
const FAREWELLS: u32 = 5;
/// Between two of these.
const FAREWELL_INTERVAL: Duration = Duration::from_secs(3);

/// The peers of the snapshot, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Settings {
    pub(super) members: Vec<DatabaseAddress>,
    pub(super) login: String,
    pub(super) password: String,
    ca: Option<String>,
    wait: Duration,
    /// How long we wait for them when we end.
    pub(super) hand_over: Option<Duration>,
}

impl Settings {
    /// Reads the addresses.
    pub(super) fn read(snapshot: &PeersSnapshot) -> Result<Self, AddressError> {
        let PeersSnapshot { members, login, password, ca, serve: _, wait_seconds, hand_over_seconds } = snapshot;
        let seconds = |seconds: NonZeroU32| Duration::from_secs(seconds.get().into());
        Ok(Self {
            members: members.iter().map(|member| member.parse()).collect::<Result<_, _>>()?,
            login: login.clone(),
            password: password.clone(),
            ca: ca.clone(),
            wait: seconds(*wait_seconds),
            hand_over: hand_over_seconds.map(seconds),
        })
    }
}

/// What the task works with.
pub(super) struct Peers {
    pub(super) service: Arc<Service>,
    pub(super) dns: Dns,
    /// Where we listen: a peer there is ourselves.
    pub(super) own: SocketAddr,
    pub(super) settings: watch::Receiver<Option<Settings>>,
    pub(super) found: watch::Receiver<Vec<DatabaseAddress>>,
    pub(super) board: Peering,
}

impl Peers {
    /// Who is asked at this moment. Found ones need the login of the snapshot as well.
    fn members(settings: Option<&Settings>, found: &[DatabaseAddress], own: SocketAddr) -> Vec<DatabaseAddress> {
        let Some(settings) = settings else { return Vec::new() };
        let mut members: Vec<DatabaseAddress> = Vec::new();
        for member in settings.members.iter().chain(found).cloned() {
            if member.place != Place::Socket(own) && !members.contains(&member) {
                members.push(member);
            }
        }
        members
    }

    /// Whether there is, or may be, somebody to wait for before the first answer.
    pub(super) fn may_have_members(&self) -> bool {
        let settings = self.settings.borrow();
        let is_searching = settings.is_some() && *self.board.searching().borrow();
        is_searching || !Self::members(settings.as_ref(), &self.found.borrow(), self.own).is_empty()
    }

    /// Runs until `stop`.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        let mut machine: Option<endpoint::Peers> = None;
        let mut searching = self.board.searching();
        let mut doubt = self.service.doubt();
        let mut known: Option<Vec<DatabaseAddress>> = None;
        let mut named: Option<Settings> = None;
        // Ended with us.
        let mut farewells = JoinSet::new();
        loop {
            let settings = self.settings.borrow_and_update().clone();
            let found = self.found.borrow_and_update().clone();
            let is_searching = *searching.borrow_and_update() && settings.is_some();
            let members = Self::members(settings.as_ref(), &found, self.own);
            while farewells.try_join_next().is_some() {}
            let before = std::mem::replace(&mut named, settings.clone());
            for (before, member) in taken_out(before.as_ref(), &members) {
                farewells.spawn(farewell(self.service.clone(), self.dns.clone(), before, member));
            }
            let now = Instant::now();
            let wait = settings.as_ref().map(|settings| settings.wait).unwrap_or_default();
            let machine = machine.get_or_insert_with(|| {
                if is_searching { endpoint::Peers::searching(now, wait) } else { endpoint::Peers::new() }
            });
            if known.as_ref() != Some(&members) && !(is_searching && members.is_empty()) {
                if found.is_empty() && known.as_ref().is_some_and(Vec::is_empty) {
                    // They are added to a database that answers, and come to it.
                    machine.go_on_answering();
                }
                machine.set_members(now, members.clone(), wait);
                known = Some(members);
            }
            self.service.set_has_peers(machine.has_members());
            machine.handle_doubt(now, *doubt.borrow_and_update());
            machine.handle_timeout(now);
            self.tell(machine);
            if let (Some(settings), Some(member)) = (settings, machine.poll_transfer()) {
                let outcome = take_from(&self.service, &self.dns, &settings, &member).await;
                if let Err(reason) = &outcome {
                    tracing::warn!(peer = %member, %reason, "no transfer from this peer");
                }
                let (interval, hearsay) = {
                    let database = self.service.database();
                    (database.update_interval(), database.hearsay())
                };
                let transferred = endpoint::Transferred { is_whole: outcome.is_ok(), interval, hearsay };
                if machine.handle_transfer(Instant::now(), transferred) {
                    self.settle();
                }
                continue;
            }
            let next = machine.next_timeout();
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            // The others live as long as we do, or have no more to say.
            tokio::select! {
                () = due => {}
                Ok(()) = self.settings.changed() => {}
                Ok(()) = self.found.changed() => {}
                Ok(()) = searching.changed() => {}
                Ok(()) = doubt.changed() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Whether questions are answered, and whether this database may be announced.
    fn tell(&self, machine: &endpoint::Peers) {
        self.service.set_synchronised(machine.is_synchronised());
        if !machine.is_synchronised() {
            self.board.set_synchronised(false);
        } else if machine.is_settled() && !self.found.has_changed().unwrap_or(false) {
            self.board.set_synchronised(true);
        }
    }

    /// What nobody vouches for any more goes, some at a time.
    fn settle(&self) {
        let act = Act { action: "settle", login: None, source: None };
        let mut from = Some(0);
        while let Some(at) = from {
            (from, _) = self.service.change(act, |database| database.settle(Instant::now(), at));
        }
    }
}

/// Who was named before and is no member any more, each with the login of then.
fn taken_out(before: Option<&Settings>, members: &[DatabaseAddress]) -> Vec<(Settings, DatabaseAddress)> {
    let Some(before) = before else { return Vec::new() };
    let gone = before.members.iter().filter(|member| !members.contains(member));
    gone.map(|member| (before.clone(), member.clone())).collect()
}

/// Asks a peer that leaves, until it has left.
async fn farewell(service: Arc<Service>, dns: Dns, settings: Settings, member: DatabaseAddress) {
    let mut has_given = false;
    for _ in 0..FAREWELLS {
        match take_from(&service, &dns, &settings, &member).await {
            Ok(()) => has_given = true,
            Err(_) if has_given => return,
            Err(reason) => tracing::info!(peer = %member, reason, "no last transfer from this peer"),
        }
        tokio::time::sleep(FAREWELL_INTERVAL).await;
    }
}

async fn take_from(
    service: &Arc<Service>,
    dns: &Dns,
    settings: &Settings,
    member: &DatabaseAddress,
) -> Result<(), String> {
    let total = Arc::<Mutex<Taken>>::default();
    let mut intake = Intake { service: service.clone(), batch: Vec::new(), total: total.clone() };
    let each = move |entry| {
        intake.take(entry);
        ControlFlow::Continue(())
    };
    let Settings { login, password, ca, .. } = settings;
    let account = PeerAccount { login, password, ca: ca.as_deref() };
    client::transfer(dns, member, account, &Transfer::default(), each).await?;
    let Taken { adoption: Adoption { taken, known, gone, refused }, unreadable } = *lock(&total);
    tracing::info!(peer = %member, taken, known, gone, refused, unreadable, "entries transferred");
    Ok(())
}

/// What became of the entries of a peer.
#[derive(Debug, Default, Clone, Copy)]
struct Taken {
    adoption: Adoption,
    unreadable: usize,
}

/// Takes entries over while they come; dropped, the last of them: what came before a break is good.
struct Intake {
    service: Arc<Service>,
    batch: Vec<TransferEntry>,
    total: Arc<Mutex<Taken>>,
}

impl Intake {
    fn take(&mut self, entry: Result<TransferEntry, ParseError>) {
        match entry {
            Ok(entry) => self.batch.push(entry),
            Err(_) => lock(&self.total).unreadable += 1,
        }
        if self.batch.len() >= BATCH {
            self.adopt();
        }
    }

    fn adopt(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let act = Act { action: "adopt", login: None, source: None };
        let (now, wall) = (Instant::now(), SystemTime::now().into());
        // Written with the next commit: its owner and our peers have it as well.
        let (adoption, _) = self.service.change(act, |database| database.adopt(now, wall, batch));
        lock(&self.total).adoption += adoption;
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        if !self.batch.is_empty() {
            self.adopt();
        }
    }
}

fn lock(total: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    total.lock().unwrap_or_else(PoisonError::into_inner)
}
