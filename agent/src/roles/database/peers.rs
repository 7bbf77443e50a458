//! Region Transfer: what the peers of this database know, it knows before it answers (draft-liefooghe-castgate-02 §4.1.2).
//!
//! ```text
//!   start ─▶ peers? ─no──────────────────────────────────────▶ serving
//!              │ yes: QUERY 503                                 ▲   │ every 4 intervals; every one while entries are hearsay
//!              ▼                                                │   ▼
//!            ask one after the other, back off ──one gave all───┤ ask each
//!                                              ──time is up─────┘
//! ```
//! Peers are those of the snapshot and those that the registrar found. Owns when whom is asked; what is taken over decides
//! the state machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use castgate_control::PeersSnapshot;
use castgate_endpoint::hierarchy::address::{AddressError, DatabaseAddress, Place};
use castgate_endpoint::hierarchy::database::Adoption;
use castgate_wire::registry::{PATH, Transfer, TransferEntry};
use tokio::sync::watch;
use tokio::time::sleep;

use super::audit::Act;
use super::service::Service;
use crate::http::client;
use crate::roles::peering::Peering;

/// Entries taken over at once: while they are, nobody is answered.
const BATCH: usize = 256;
/// First wait after a round in which no peer gave anything; doubled each time.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Intervals between two transfers from the same peer: peers that were apart know the same again after that.
const TRANSFER_INTERVALS: u32 = 4;

/// The peers of the snapshot, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Settings {
    pub(super) members: Vec<DatabaseAddress>,
    pub(super) login: String,
    pub(super) password: String,
    wait: Duration,
}

impl Settings {
    /// Reads the addresses.
    pub(super) fn read(snapshot: &PeersSnapshot) -> Result<Self, AddressError> {
        let PeersSnapshot { members, login, password, serve: _, wait_seconds } = snapshot;
        Ok(Self {
            members: members.iter().map(|member| member.parse()).collect::<Result<_, _>>()?,
            login: login.clone(),
            password: password.clone(),
            wait: Duration::from_secs(wait_seconds.get().into()),
        })
    }
}

/// What the task works with.
pub(super) struct Peers {
    pub(super) service: Arc<Service>,
    /// Where we listen: a peer there is ourselves.
    pub(super) own: SocketAddr,
    pub(super) settings: watch::Receiver<Option<Settings>>,
    pub(super) found: watch::Receiver<Vec<SocketAddr>>,
    pub(super) board: Peering,
}

impl Peers {
    /// Who is asked at this moment. Found ones need the login of the snapshot as well.
    fn members(settings: Option<&Settings>, found: &[SocketAddr], own: SocketAddr) -> Vec<DatabaseAddress> {
        let Some(settings) = settings else { return Vec::new() };
        let found = found.iter().map(|peer| DatabaseAddress { place: Place::Socket(*peer), path: PATH.to_owned() });
        let mut members: Vec<DatabaseAddress> = Vec::new();
        for member in settings.members.iter().cloned().chain(found) {
            if member.place != Place::Socket(own) && !members.contains(&member) {
                members.push(member);
            }
        }
        members
    }

    /// Whether there is somebody to wait for before the first answer.
    pub(super) fn has_members(&self) -> bool {
        !Self::members(self.settings.borrow().as_ref(), &self.found.borrow(), self.own).is_empty()
    }

    /// Runs until `stop`.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        let mut is_first = true;
        loop {
            let settings = self.settings.borrow_and_update().clone();
            let found = self.found.borrow_and_update().clone();
            let members = Self::members(settings.as_ref(), &found, self.own);
            let (Some(settings), [_, ..]) = (settings, members.as_slice()) else {
                self.synchronised(true);
                self.changed().await;
                continue;
            };
            if is_first {
                self.synchronised(false);
                self.first(&settings, &members).await;
                is_first = false;
            } else {
                for member in &members {
                    if let Err(reason) = self.take_from(&settings, member).await {
                        tracing::warn!(peer = %member, reason, "no transfer from this peer");
                    }
                }
            }
            self.synchronised(true);
            let (interval, hearsay) = {
                let database = self.service.database();
                (database.update_interval(), database.hearsay())
            };
            // Owners that cannot reach us are with a peer: nobody but it can tell whether they still live.
            let intervals = if hearsay > 0 { 1 } else { TRANSFER_INTERVALS };
            tokio::select! {
                () = sleep(interval * intervals) => {}
                () = self.changed() => {}
            }
        }
    }

    /// Until one peer gave all it has, or the time is up: looked at between two rounds, so that no transfer is cut for it.
    async fn first(&self, settings: &Settings, members: &[DatabaseAddress]) {
        let start = Instant::now();
        let mut retry = RETRY_MIN;
        loop {
            for member in members {
                match self.take_from(settings, member).await {
                    Ok(()) => return,
                    Err(reason) => {
                        tracing::info!(peer = %member, reason, "no transfer from this peer");
                    }
                }
            }
            let left = settings.wait.saturating_sub(start.elapsed());
            if left.is_zero() {
                let waited_seconds = settings.wait.as_secs();
                tracing::warn!(waited_seconds, "no peer gives its entries; serving what the store holds");
                return;
            }
            sleep(retry.min(left)).await;
            retry = (retry * 2).min(RETRY_MAX);
        }
    }

    async fn take_from(&self, settings: &Settings, member: &DatabaseAddress) -> Result<(), String> {
        let mut intake = Intake { service: self.service.clone(), batch: Vec::new(), total: Adoption::default() };
        let name = member.to_string();
        let take = move |entry: Option<TransferEntry>| intake.take(entry);
        let outcome = client::transfer(member, &settings.login, &settings.password, &Transfer::default(), take).await;
        let (Adoption { taken, known, gone, refused }, unreadable) = outcome?;
        tracing::info!(peer = name, taken, known, gone, refused, unreadable, "entries transferred");
        Ok(())
    }

    fn synchronised(&self, synchronised: bool) {
        self.service.set_synchronised(synchronised);
        self.board.set_synchronised(synchronised);
    }

    async fn changed(&mut self) {
        tokio::select! {
            changed = self.settings.changed() => if changed.is_err() { std::future::pending().await },
            changed = self.found.changed() => if changed.is_err() { std::future::pending().await },
        }
    }
}

/// Takes entries over while they come.
struct Intake {
    service: Arc<Service>,
    batch: Vec<TransferEntry>,
    total: Adoption,
}

impl Intake {
    /// One more, or `None` after the last; the sum so far.
    fn take(&mut self, entry: Option<TransferEntry>) -> Adoption {
        let last = entry.is_none();
        self.batch.extend(entry);
        if self.batch.len() >= BATCH || (last && !self.batch.is_empty()) {
            let batch = std::mem::take(&mut self.batch);
            let act = Act { action: "adopt", login: None, source: None };
            let (now, wall) = (Instant::now(), SystemTime::now().into());
            // Written with the next commit: its owner and our peers have it as well.
            let (adoption, _) = self.service.change(act, |database| database.adopt(now, wall, batch));
            self.total += adoption;
        }
        self.total
    }
}
