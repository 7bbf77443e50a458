//! Keeps memory as etcd is: reads all entries, then follows what changes, for as long as the database runs.
//!
//! ```text
//!   Unread ─▶ list, page by page, at one revision ─▶ Following: watch from there ──history gone, accounts changed──▶ list again
//!                ▲ 503 until here                     │   ▲
//!                                                     ▼   │ a member answers
//!                                                    Lost: queries from memory, REGISTER and BYE 503
//! ```
//! While etcd is lost no entry goes: nobody could refresh it. Its leases do the same, they begin anew with each new leader.

use std::sync::Arc;
use std::time::{Duration, Instant};

use castgate_endpoint::hierarchy::database::{Entry, Key, Learned};
use castgate_etcd::{EtcdError, Event, KeyValue, range_end};
use tokio::sync::watch;
use tokio::time::sleep;

use super::super::audit::Act;
use super::super::service::Service;
use super::{Row, Shared, State, names};
use crate::roles::peering::Peering;

/// Entries asked for at once, as long as they are not too large.
const PAGE: u32 = 256;
/// First wait after a round in which no member answered; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long no member may answer before etcd counts as lost: the election of a leader takes less.
const LOST_AFTER: Duration = Duration::from_secs(4);
/// What etcd tells, in the audit log: who did it stands in that of the database where he was.
const ACT: Act<'static> = Act { action: "follow", login: None, source: None };

/// The task.
pub(in super::super) struct Follower {
    pub(in super::super) shared: Arc<Shared>,
    pub(in super::super) service: Arc<Service>,
    pub(in super::super) board: Peering,
    /// Counts the readings.
    reading: u64,
    failing_since: Option<Instant>,
    pause: Duration,
}

/// What entries of one reading or one piece of news are to memory.
enum Piece {
    There { key: Key, row: Row, entry: Result<Entry, String> },
    Gone(Key),
}

impl Follower {
    pub(in super::super) fn new(shared: Arc<Shared>, service: Arc<Service>, board: Peering) -> Self {
        Self { shared, service, board, reading: 0, failing_since: None, pause: PAUSE_MIN }
    }

    /// Runs until `stop`.
    pub(in super::super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.keep() => {}
        }
        // A database that ends holds up nobody's registrar.
        self.board.set_ready(true);
    }

    async fn keep(&mut self) {
        loop {
            let revision = match self.read().await {
                Ok(revision) => revision,
                Err(error) => {
                    self.failed(&error).await;
                    continue;
                }
            };
            self.answered();
            self.watch(revision + 1).await;
        }
    }

    /// Follows until everything has to be read anew.
    async fn watch(&mut self, from: i64) {
        let shared = self.shared.clone();
        let mut found = self.board.peers();
        let mut watch = shared.client.watch(shared.names.all(), from);
        loop {
            tokio::select! {
                news = watch.next() => match news {
                    Ok(news) => {
                        self.answered();
                        let pieces = news.events.into_iter().filter_map(|event| self.piece(event)).collect();
                        self.take(pieces, true);
                    }
                    Err(EtcdError::Compacted(_)) => {
                        tracing::info!("etcd has forgotten what happened meanwhile, everything is read anew");
                        // A member that lags behind is asked again in a moment.
                        sleep(PAUSE_MIN).await;
                        return;
                    }
                    Err(error) => self.failed(&error).await,
                },
                () = shared.again.notified() => return,
                // The registrar waits for us whenever it finds others; what they know, we know already.
                changed = found.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    self.board.set_synchronised(true);
                }
            }
        }
    }

    /// Reads all entries as they were at one moment; returns its revision.
    async fn read(&mut self) -> Result<i64, EtcdError> {
        self.reading += 1;
        let is_first = self.reading == 1 || *self.shared.state.borrow() == State::Unread;
        let end = range_end(self.shared.names.all());
        let (mut from, mut limit, mut revision) = (self.shared.names.all().to_vec(), PAGE, None);
        loop {
            let page = match self.shared.client.range(&from, &end, limit, revision).await {
                Ok(page) => page,
                Err(EtcdError::TooLarge) if limit > 1 => {
                    limit = (limit / 4).max(1);
                    continue;
                }
                Err(error) => return Err(error),
            };
            revision = Some(page.revision);
            let pieces = page.kvs.into_iter().filter_map(|kv| self.piece(Event::Put(kv))).collect();
            self.take(pieces, !is_first);
            // Who asks has his turn in between.
            tokio::task::yield_now().await;
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        let gone: Vec<Key> = {
            let known = self.shared.known();
            known.iter().filter(|(_, row)| row.reading != self.reading).map(|(key, _)| key.clone()).collect()
        };
        self.take(gone.into_iter().map(Piece::Gone).collect(), true);
        Ok(revision.unwrap_or(0))
    }

    fn piece(&self, event: Event) -> Option<Piece> {
        let name = match &event {
            Event::Put(KeyValue { key, .. }) | Event::Delete { key, .. } => key,
        };
        let Some(key) = self.shared.names.read(name) else {
            tracing::warn!(name = %String::from_utf8_lossy(name), "this name in etcd is none of an entry");
            return None;
        };
        Some(match event {
            Event::Put(KeyValue { value, revision, lease, .. }) => {
                let entry = names::read(&key, &value);
                Piece::There { key, row: Row { revision, lease, reading: self.reading }, entry }
            }
            Event::Delete { .. } => Piece::Gone(key),
        })
    }

    /// Takes over into memory, in order, and lets those know who wait for it.
    fn take(&self, pieces: Vec<Piece>, write_down: bool) {
        if pieces.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut lines: Vec<(&str, String)> = Vec::new();
        let (mut refused, mut full) = (0, 0);
        let take = |database: &mut castgate_endpoint::hierarchy::database::Database| {
            let mut known = self.shared.known();
            for piece in pieces {
                match piece {
                    Piece::There { key, row, entry } => {
                        known.insert(key.clone(), row);
                        let learned = match entry {
                            Ok(entry) => database.learn(now, entry),
                            Err(error) => {
                                tracing::warn!(%key, error, "entry of etcd dropped");
                                database.forget(&key);
                                continue;
                            }
                        };
                        match learned {
                            Learned::New | Learned::Changed => lines.push(("put", key.to_string())),
                            Learned::Same => {}
                            Learned::Refused => refused += 1,
                            Learned::Full => full += 1,
                        }
                    }
                    Piece::Gone(key) => {
                        known.remove(&key);
                        if database.forget(&key) {
                            lines.push(("gone", key.to_string()));
                        }
                    }
                }
            }
        };
        drop(self.service.change(ACT, take));
        if refused > 0 {
            tracing::info!(entries = refused, "entries of etcd that no account of this database covers are left out");
        }
        if full > 0 {
            tracing::warn!(entries = full, "this database is full, entries of etcd are left out");
        }
        if write_down {
            for (outcome, about) in &lines {
                self.service.audit().write(ACT, outcome, about);
            }
        }
        self.shared.caught_up.send_modify(|turn| *turn = turn.wrapping_add(1));
    }

    /// A member answered.
    fn answered(&mut self) {
        (self.failing_since, self.pause) = (None, PAUSE_MIN);
        let before = self.shared.state.send_replace(State::Following);
        if before != State::Following {
            tracing::info!(entries = self.service.database().len(), "following etcd");
            self.service.set_synchronised(true);
            self.board.set_synchronised(true);
            self.board.set_ready(true);
        }
    }

    /// No member answered: waits a little.
    async fn failed(&mut self, error: &EtcdError) {
        let is_first = self.failing_since.is_none();
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if is_first && *self.shared.state.borrow() == State::Unread {
            tracing::warn!(%error, "etcd cannot be read, nobody is answered until it can");
        } else if since.elapsed() >= LOST_AFTER && *self.shared.state.borrow() == State::Following {
            tracing::warn!(%error, "etcd is lost; queries are answered from memory, nobody can register");
            self.shared.state.send_replace(State::Lost);
        } else {
            tracing::debug!(%error, "etcd does not answer");
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        sleep(pause).await;
    }
}
