//! Entries in an etcd that several databases share: what one of them promised, all of them know and none of them can lose.
//!
//! ```text
//!   REGISTER ─▶ propose ─▶ as we know it? ─yes─▶ keep its lease alive ─────────────────────────────┐
//!                             └─no─▶ lease of its own ─▶ put, if nothing changed meanwhile ─▶ etcd ─┼─▶ answer
//!   BYE ─▶ what etcd has at that place ─▶ revoke the leases ────────────────────────────────▶ etcd ─┘
//!                                                         etcd ─▶ follow: list, watch ─▶ memory of every database
//! ```
//! Memory only changes by what etcd tells (`follow`): it is the same everywhere, and nothing that was not written is ever in it,
//! nor comes back from a queue. Every entry has a lease of its own of two intervals. A refresh that changes nothing keeps that lease
//! alive, which etcd's leader does in memory: no revision, no round of the members, nothing to compact.

mod follow;
mod names;
mod writer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use castgate_control::EtcdSnapshot;
use castgate_endpoint::hierarchy::database::{Change, Entry, Key, Proposal, Refusal};
use castgate_etcd::{Client, Config, EtcdError, Fate, Guard, Identity, KeyValue, Login, Write, range_end};
use castgate_wire::registry::Bye;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout;

pub(super) use follow::Follower;
use names::Names;
use writer::Writer;

/// Requests that are at etcd at one time; beyond that a caller comes again later.
const REQUESTS_MAX: usize = 1_024;
/// Times that an entry may turn out to be another than we thought before its caller is told to come again.
const TRIES: usize = 6;
/// How long an answer waits until our own memory has what etcd has. etcd has it: after that the answer goes out.
const REACH_TIME: Duration = Duration::from_secs(2);
/// Entries of one place that are looked at in one go.
const PLACE_PAGE: u32 = 64;

/// Why a REGISTER or BYE did not get to etcd.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It may not be.
    Refused(Refusal),
    /// Come again: one sentence.
    Busy(String),
}

impl From<EtcdError> for Trouble {
    fn from(error: EtcdError) -> Self {
        tracing::warn!(%error, "etcd did not take a change");
        Self::Busy("the store does not take the entry".to_owned())
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// How we stand to etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It was not read yet.
    Unread,
    /// We know what is in it.
    Following,
    /// It does not answer. What we know is from before.
    Lost,
}

/// The store.
#[derive(Debug)]
pub(super) struct Shared {
    client: Client,
    names: Names,
    writer: Writer,
    known: Mutex<HashMap<Key, Row>>,
    /// Turned whenever memory has caught up with something.
    caught_up: watch::Sender<u64>,
    state: watch::Sender<State>,
    /// Everything is to be read anew: what we may hold is decided by accounts that have changed.
    again: Notify,
    turns: Semaphore,
    /// etcd grants no less than so many seconds, however few are asked for.
    granted_min: AtomicI64,
}

/// What etcd has of an entry, beside what memory has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    revision: i64,
    lease: i64,
    /// The reading in which it was seen last.
    reading: u64,
}

/// What we take an entry of etcd to be.
#[derive(Debug, Clone, Copy)]
enum There {
    Nothing,
    /// It says what the REGISTER says.
    Same {
        revision: i64,
        lease: i64,
    },
    Other {
        revision: i64,
        lease: i64,
    },
}

impl Shared {
    /// Whether etcd does not answer, so that nothing can be registered.
    pub(super) fn is_lost(&self) -> bool {
        *self.state.borrow() == State::Lost
    }

    /// Connects to nobody yet.
    pub(super) fn new(snapshot: &EtcdSnapshot) -> Result<Self, EtcdError> {
        let EtcdSnapshot { endpoints, prefix, ca, identity, login, password } = snapshot.clone();
        let login = login.zip(password).map(|(name, password)| Login { name, password });
        let identity = identity.map(|identity| Identity { certificate: identity.certificate, key: identity.key });
        let client = Client::new(Config { ca, identity, login, ..Config::new(endpoints) })?;
        Ok(Self {
            writer: Writer::spawn(client.clone()),
            client,
            names: Names::below(&prefix),
            known: Mutex::default(),
            caught_up: watch::Sender::new(0),
            state: watch::Sender::new(State::Unread),
            again: Notify::new(),
            turns: Semaphore::new(REQUESTS_MAX),
            granted_min: AtomicI64::new(0),
        })
    }

    /// Brings a REGISTER to etcd: done when etcd has it.
    pub(super) async fn register(&self, proposal: &Proposal, lifetime: Duration) -> Result<(), Trouble> {
        let _turn = self.turn()?;
        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        let wanted = proposal.stored.to_entry().expect("it was made of an entry just now");
        let mut there = match self.known().get(&proposal.key).copied() {
            Some(Row { revision, lease, .. }) if proposal.is_known => There::Same { revision, lease },
            Some(Row { revision, lease, .. }) => There::Other { revision, lease },
            None => There::Nothing,
        };
        // Granted for this entry, and not used so far.
        let mut spare: Option<i64> = None;
        for _ in 0..TRIES {
            let guard = match there {
                There::Same { revision, lease } => {
                    match if lease == 0 { None } else { self.client.keep_alive(lease).await? } {
                        Some(granted) if self.fits(granted, seconds) => {
                            self.give_up(spare).await;
                            return Ok(());
                        }
                        // The interval is another one now.
                        Some(_) => there = There::Other { revision, lease },
                        None if lease == 0 => there = There::Other { revision, lease },
                        // It went, or said BYE elsewhere: this is a new beginning.
                        None => there = There::Nothing,
                    }
                    continue;
                }
                There::Nothing => Guard::Absent,
                There::Other { revision, .. } => Guard::Unchanged(revision),
            };
            let lease = match spare {
                Some(lease) => lease,
                None => self.grant(seconds).await?,
            };
            spare = Some(lease);
            let put = Some((names::write(&proposal.stored), lease));
            let fate = self.writer.write(Write { key: self.names.of(&proposal.key), put, guard }).await;
            let fate = fate.ok_or_else(|| Trouble::Busy("the database ends".to_owned()))??;
            let written = match fate {
                Fate::Done(revision) => Some(revision),
                // We wrote it, and heard nothing of it.
                Fate::Conflict(Some(KeyValue { lease: of, revision, .. })) if of == lease => Some(revision),
                Fate::Conflict(Some(other)) => {
                    there = look(&proposal.key, &wanted, &other)?;
                    None
                }
                Fate::Conflict(None) => {
                    there = There::Nothing;
                    None
                }
            };
            let Some(revision) = written else { continue };
            if let There::Other { lease, .. } = there {
                // Who has not heard of the change yet shall not keep alive what it replaced.
                self.give_up(Some(lease).filter(|lease| *lease != 0)).await;
            }
            self.reach(|row| row.is_some_and(|row| row.revision >= revision), &proposal.key).await;
            return Ok(());
        }
        self.give_up(spare).await;
        Err(Trouble::Busy("others change the same entry".to_owned()))
    }

    /// Carries out a BYE on what etcd has at that place, which `judge` decides about; what is gone.
    pub(super) async fn bye(
        &self,
        bye: &Bye,
        judge: impl Fn(&Entry) -> Result<bool, Refusal>,
    ) -> Result<Vec<Key>, Trouble> {
        let _turn = self.turn()?;
        let place = self.names.place(bye.source, bye.port);
        let (mut from, end) = (Some(place.clone()), range_end(&place));
        let (mut own, mut refusal) = (Vec::new(), None);
        while let Some(at) = from {
            let page = self.client.range(&at, &end, PLACE_PAGE, None).await?;
            from = page.next;
            for kv in page.kvs {
                let Some(key) = self.names.read(&kv.key) else { continue };
                let Ok(entry) = names::read(&key, &kv.value) else { continue };
                match judge(&entry) {
                    Ok(true) => own.push((key, kv)),
                    Ok(false) => {}
                    Err(error) => refusal = refusal.or(Some(error)),
                }
            }
        }
        match (own.as_slice(), refusal) {
            ([], Some(refusal)) => return Err(refusal.into()),
            ([], None) if bye.strict => return Err(Refusal::NoEntry.into()),
            _ => {}
        }
        for (key, KeyValue { key: name, revision, lease, .. }) in &own {
            if *lease == 0 {
                // Somebody wrote it by hand.
                let write = Write { key: name.clone(), put: None, guard: Guard::Unchanged(*revision) };
                self.client.write(&[write]).await?;
            } else {
                self.client.revoke(*lease).await?;
            }
            self.reach(|row| row.is_none_or(|row| row.revision > *revision), key).await;
        }
        Ok(own.into_iter().map(|(key, _)| key).collect())
    }

    /// Takes away what accounts may no longer claim. Whoever else has the new accounts does the same; what is not reached goes with
    /// its lease, which nobody refreshes any more.
    pub(super) fn follow<'a>(self: &Arc<Self>, changes: impl Iterator<Item = &'a Change>) {
        let leases: Vec<i64> = {
            let known = self.known();
            let deleted = changes.filter_map(|change| match change {
                Change::Delete(key) => known.get(key),
                Change::Put(..) | Change::Refresh(..) | Change::Expire(_) => None,
            });
            deleted.map(|row| row.lease).filter(|lease| *lease != 0).collect()
        };
        if leases.is_empty() {
            return;
        }
        let shared = self.clone();
        tokio::spawn(async move {
            for lease in leases {
                if let Err(error) = shared.client.revoke(lease).await {
                    tracing::warn!(%error, "entries that no account covers stay in etcd until their leases end");
                    return;
                }
            }
        });
    }

    /// Reads everything anew: other accounts cover other entries.
    pub(super) fn read_again(&self) {
        self.again.notify_one();
    }

    fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Trouble> {
        match *self.state.borrow() {
            State::Following => {}
            State::Unread => return Err(Trouble::Busy("this database has not read etcd yet".to_owned())),
            State::Lost => return Err(Trouble::Busy("this database has lost etcd".to_owned())),
        }
        self.turns.try_acquire().map_err(|_| Trouble::Busy("too many requests wait for etcd".to_owned()))
    }

    async fn grant(&self, seconds: u32) -> Result<i64, EtcdError> {
        let (lease, granted) = self.client.grant(seconds).await?;
        if granted > i64::from(seconds) {
            self.granted_min.fetch_max(granted, Ordering::Relaxed);
        }
        Ok(lease)
    }

    /// Whether a lease of so many seconds is as long as it would be if it were granted now.
    fn fits(&self, granted: i64, seconds: u32) -> bool {
        let wanted = i64::from(seconds);
        (wanted..=wanted.max(self.granted_min.load(Ordering::Relaxed))).contains(&granted)
    }

    /// Ends a lease that nothing goes with. If it does not work, it ends by itself.
    async fn give_up(&self, lease: Option<i64>) {
        if let Some(lease) = lease
            && let Err(error) = self.client.revoke(lease).await
        {
            tracing::debug!(%error, lease, "lease left to end by itself");
        }
    }

    /// Waits until memory has it, for a moment.
    async fn reach(&self, is_there: impl Fn(Option<&Row>) -> bool, key: &Key) {
        let mut caught_up = self.caught_up.subscribe();
        let reached = caught_up.wait_for(|_| is_there(self.known().get(key)));
        if timeout(REACH_TIME, reached).await.is_err() {
            tracing::debug!(%key, "etcd has it before we hear of it");
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, Row>> {
        // What is inside is whole between any two statements that can panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What etcd says of the entry, beside what it is to say.
fn look(key: &Key, wanted: &Entry, there: &KeyValue) -> Result<There, Refusal> {
    let KeyValue { revision, lease, .. } = *there;
    match names::read(key, &there.value) {
        Ok(entry) if entry.login != wanted.login => Err(Refusal::Foreign(key.clone())),
        Ok(entry) if entry == *wanted => Ok(There::Same { revision, lease }),
        Ok(_) => Ok(There::Other { revision, lease }),
        Err(error) => {
            tracing::warn!(%key, error, "entry of etcd replaced");
            Ok(There::Other { revision, lease })
        }
    }
}
