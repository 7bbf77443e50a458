//! What changes below a prefix, without a gap: after a lost member it goes on at the next one, from where it was.
//!
//! ```text
//!   next ─▶ no stream? ─▶ member, create from revision ─▶ created ─▶ events ─▶ News
//!             ▲                                  compacted ─▶ Compacted: read everything anew
//!             └── lost, silent, no leader, cancelled ── after a round of members: Unreachable, and `next` may be called again
//! ```

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::call::{ANSWER_BYTES_MAX, Client, Member};
use crate::error::{EtcdError, Verdict, said};
use crate::kv::{KeyValue, nothing_came, range_end};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::watch_client::WatchClient;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::mvccpb::event::EventType;

/// Events that may wait for the rest of their revision; beyond that it is read anew.
const PARTS_BYTES_MAX: usize = 4 * ANSWER_BYTES_MAX;
/// Signs of life that are asked for before a watch counts as silent.
const PINGS: u32 = 3;

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is like this.
    Put(KeyValue),
    /// It is gone.
    Delete {
        /// The key.
        key: Vec<u8>,
        /// Revision of the deletion.
        revision: i64,
    },
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// In order. Empty: a sign of life.
    pub events: Vec<Event>,
}

/// A watch of a prefix.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    prefix: Vec<u8>,
    /// The first revision that was not seen whole.
    next: i64,
    open: Option<Open>,
    /// Members that failed since something came.
    failures: usize,
}

/// The stream while there is one.
#[derive(Debug)]
struct Open {
    index: usize,
    member: Member,
    requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
    /// Events of a response whose rest has not come.
    parts: Vec<Event>,
    parts_bytes: usize,
    heard: Instant,
    ping_at: Instant,
}

/// What one member said.
enum Heard {
    News(News),
    /// A part; more follows.
    Nothing,
}

/// Why one stream ended.
enum End {
    Lost(String),
    Final(EtcdError),
}

impl Client {
    /// What changes below `prefix` from this revision on. Connects with the first [`Watch::next`].
    #[must_use]
    pub fn watch(&self, prefix: &[u8], from: i64) -> Watch {
        Watch { client: self.clone(), prefix: prefix.to_vec(), next: from, open: None, failures: 0 }
    }
}

impl Watch {
    /// Waits for what is next. May be dropped while it waits; nothing is lost then. The first call returns as soon as a member
    /// watches, with no events.
    ///
    /// # Errors
    /// [`EtcdError::Unreachable`] after each round of members that all failed: wait, and call again. [`EtcdError::Compacted`]: what is
    /// next is not known any more, the range has to be read anew. Others are refusals.
    pub async fn next(&mut self) -> Result<News, EtcdError> {
        loop {
            let Some(open) = &mut self.open else {
                let (index, member) = self.client.current();
                match self.connect(index, member.clone()).await {
                    Ok(open) => {
                        self.open = Some(open);
                        return Ok(News { events: Vec::new() });
                    }
                    Err(End::Final(error)) => return Err(error),
                    Err(End::Lost(reason)) => self.lost(index, member, reason)?,
                }
                continue;
            };
            match open.hear(self.client.config().silence).await {
                Ok(Heard::Nothing) => {}
                Ok(Heard::News(news)) => {
                    self.failures = 0;
                    if let Some(Event::Put(KeyValue { revision, .. }) | Event::Delete { revision, .. }) =
                        news.events.last()
                    {
                        self.next = self.next.max(revision + 1);
                    }
                    return Ok(news);
                }
                Err(end) => {
                    let (index, member) = (open.index, open.member.clone());
                    self.open = None;
                    match end {
                        End::Final(error) => return Err(error),
                        End::Lost(reason) => self.lost(index, member, reason)?,
                    }
                }
            }
        }
    }

    fn lost(&mut self, index: usize, member: Member, reason: String) -> Result<(), EtcdError> {
        tracing::debug!(member = member.name, reason, "watch lost");
        self.client.pass_over(index);
        self.failures += 1;
        if self.failures.is_multiple_of(self.client.members()) {
            return Err(EtcdError::Unreachable { member: member.name, reason });
        }
        Ok(())
    }

    async fn connect(&self, index: usize, member: Member) -> Result<Open, End> {
        let time = self.client.config().request_time;
        let opened = timeout(time, self.create(index, member)).await;
        opened.unwrap_or_else(|_| Err(End::Lost(format!("no watch within {} ms", time.as_millis()))))
    }

    async fn create(&self, index: usize, member: Member) -> Result<Open, End> {
        // One to create it, and a ping; a second ping waits for the first to be taken.
        let (requests, taken) = mpsc::channel(2);
        let create = pb::WatchCreateRequest {
            key: self.prefix.clone(),
            range_end: range_end(&self.prefix),
            start_revision: self.next,
            progress_notify: true,
            fragment: true,
        };
        let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.try_send(create).expect("the channel is empty");
        let refused = |status: Status| match Verdict::of(&status) {
            Verdict::Final => End::Final(EtcdError::refused(&member.name, &status)),
            Verdict::NewToken => {
                self.client.forget_token();
                End::Lost(said(&status))
            }
            Verdict::NextMember => End::Lost(said(&status)),
        };
        let request = self.client.request(&member, ReceiverStream::new(taken)).await.map_err(refused)?;
        let mut client = WatchClient::new(member.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let mut answers = client.watch(request).await.map_err(refused)?.into_inner();
        let first = answers.message().await.and_then(|first| first.ok_or_else(nothing_came)).map_err(refused)?;
        if first.canceled {
            return Err(self.cancelled(&member, &first));
        }
        // Another history than the one that we know: restored from a backup. A member that lags behind looks alike for a moment.
        let is_behind = first.header.is_some_and(|header| header.revision < self.next - 1);
        if is_behind {
            return Err(End::Final(EtcdError::Compacted(self.next)));
        }
        let now = Instant::now();
        let ping_at = now + self.client.config().silence / PINGS;
        Ok(Open { index, member, requests, answers, parts: Vec::new(), parts_bytes: 0, heard: now, ping_at })
    }

    fn cancelled(&self, member: &Member, answer: &pb::WatchResponse) -> End {
        let end = cancelled(member, answer);
        if answer.cancel_reason.contains("auth token") {
            self.client.forget_token();
        }
        end
    }
}

impl Open {
    /// The next message, or the end.
    async fn hear(&mut self, silence: Duration) -> Result<Heard, End> {
        let answer = loop {
            tokio::select! {
                answer = self.answers.message() => break answer,
                () = sleep_until(self.ping_at) => {
                    if self.heard.elapsed() >= silence {
                        return Err(End::Lost(format!("nothing came for {} ms", silence.as_millis())));
                    }
                    self.ping_at = Instant::now() + silence / PINGS;
                    let ping = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                    // No room: the one before is still there, and the silence goes on.
                    let _ = self.requests.try_send(pb::WatchRequest { request_union: Some(ping) });
                }
            }
        };
        let answer = match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(End::Lost("the member ended the watch".to_owned())),
            Err(status) => return Err(End::Lost(said(&status))),
        };
        self.heard = Instant::now();
        if answer.canceled {
            return Err(cancelled(&self.member, &answer));
        }
        let more = answer.fragment;
        for event in answer.events {
            let is_delete = event.r#type() == EventType::Delete;
            let Some(kv) = event.kv else { continue };
            self.parts_bytes += kv.key.len() + kv.value.len();
            self.parts.push(if is_delete {
                Event::Delete { key: kv.key, revision: kv.mod_revision }
            } else {
                Event::Put(kv.into())
            });
        }
        if self.parts_bytes > PARTS_BYTES_MAX {
            return Err(End::Final(EtcdError::Compacted(0)));
        }
        if more {
            return Ok(Heard::Nothing);
        }
        self.parts_bytes = 0;
        Ok(Heard::News(News { events: std::mem::take(&mut self.parts) }))
    }
}

fn cancelled(member: &Member, answer: &pb::WatchResponse) -> End {
    if answer.compact_revision > 0 {
        return End::Final(EtcdError::Compacted(answer.compact_revision));
    }
    let reason = answer.cancel_reason.clone();
    if reason.contains("permission denied") {
        return End::Final(EtcdError::Refused { member: member.name.clone(), reason });
    }
    End::Lost(reason)
}
