//! Keys and values: pages of a range, and many guarded changes in one transaction.

use tonic::Status;

use crate::call::{ANSWER_BYTES_MAX, Client};
use crate::error::EtcdError;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::kv_client::KvClient;
use crate::proto::etcdserverpb::request_op::Request as Op;
use crate::proto::etcdserverpb::response_op::Response as Outcome;

/// Changes in one transaction: half of what etcd takes by default, because those around and those within count together.
pub const WRITES_MAX: usize = 63;

/// A key as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// Revision of its last change.
    pub revision: i64,
    /// The lease it goes with; 0: none.
    pub lease: i64,
}

/// A part of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order of their keys.
    pub kvs: Vec<KeyValue>,
    /// Where the next part begins; `None` after the last.
    pub next: Option<Vec<u8>>,
    /// The revision that this is true for; of a part asked for at a revision: that one.
    pub revision: i64,
}

/// What a key must be like for its change to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// It is not there.
    Absent,
    /// Its last change was this one.
    Unchanged(i64),
}

/// A guarded change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Vec<u8>,
    /// What it is to be, and its lease; `None`: gone.
    pub put: Option<(Vec<u8>, i64)>,
    /// Only then.
    pub guard: Guard,
}

/// What became of a guarded change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Carried out, at this revision.
    Done(i64),
    /// Not: the key is like this, or not there.
    Conflict(Option<KeyValue>),
}

impl Client {
    /// The keys from `from` on, below `end`, at most `limit` of them; at a revision, or as they are now, which asks a majority of
    /// members.
    ///
    /// # Errors
    /// [`EtcdError`]; [`EtcdError::TooLarge`]: come again with a lower limit.
    pub async fn range(&self, from: &[u8], end: &[u8], limit: u32, revision: Option<i64>) -> Result<Page, EtcdError> {
        let (key, range_end) = (from.to_vec(), end.to_vec());
        let request = pb::RangeRequest { key, range_end, limit: limit.into(), revision: revision.unwrap_or(0) };
        let (answer, member) = self
            .call(request, async |channel, request| {
                KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX).range(request).await
            })
            .await?;
        let header = answer.header.ok_or(EtcdError::Nonsense(member))?;
        let kvs: Vec<KeyValue> = answer.kvs.into_iter().map(KeyValue::from).collect();
        let next = kvs.last().filter(|_| answer.more).map(|last| {
            let mut next = last.key.clone();
            next.push(0);
            next
        });
        Ok(Page { kvs, next, revision: revision.unwrap_or(header.revision) })
    }

    /// Carries out up to [`WRITES_MAX`] changes of different keys in one transaction, each by itself: a guard that does not hold
    /// stops its own change and no other. What becomes of them stands in the same order.
    ///
    /// # Errors
    /// [`EtcdError`]: whether they were carried out is not known.
    pub async fn write(&self, writes: &[Write]) -> Result<Vec<Fate>, EtcdError> {
        let success = writes.iter().map(guarded).collect();
        let request = pb::TxnRequest { compare: Vec::new(), success, failure: Vec::new() };
        let (answer, member) = self
            .call(request, async |channel, request| {
                KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX).txn(request).await
            })
            .await?;
        let revision = answer.header.map(|header| header.revision);
        let fates: Option<Vec<Fate>> = answer.responses.into_iter().map(|response| fate(response, revision?)).collect();
        fates.filter(|fates| fates.len() == writes.len()).ok_or(EtcdError::Nonsense(member))
    }
}

/// A transaction of its own within the large one.
fn guarded(Write { key, put, guard }: &Write) -> pb::RequestOp {
    let (target, target_union) = match *guard {
        Guard::Absent => (CompareTarget::Version, TargetUnion::Version(0)),
        Guard::Unchanged(revision) => (CompareTarget::Mod, TargetUnion::ModRevision(revision)),
    };
    let compare = pb::Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.clone(),
        target_union: Some(target_union),
    };
    let change = match put {
        Some((value, lease)) => {
            Op::RequestPut(pb::PutRequest { key: key.clone(), value: value.clone(), lease: *lease })
        }
        None => Op::RequestDeleteRange(pb::DeleteRangeRequest { key: key.clone(), range_end: Vec::new() }),
    };
    let look = Op::RequestRange(pb::RangeRequest { key: key.clone(), ..pb::RangeRequest::default() });
    let op = |request| vec![pb::RequestOp { request: Some(request) }];
    let txn = pb::TxnRequest { compare: vec![compare], success: op(change), failure: op(look) };
    pb::RequestOp { request: Some(Op::RequestTxn(txn)) }
}

fn fate(response: pb::ResponseOp, revision: i64) -> Option<Fate> {
    let Some(Outcome::ResponseTxn(txn)) = response.response else { return None };
    if txn.succeeded {
        return Some(Fate::Done(revision));
    }
    match txn.responses.into_iter().next()?.response? {
        Outcome::ResponseRange(range) => Some(Fate::Conflict(range.kvs.into_iter().next().map(KeyValue::from))),
        _ => None,
    }
}

/// The first key after all that begin with `prefix`.
#[must_use]
pub fn range_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // etcd's word for "all that follow".
    vec![0]
}

impl From<crate::proto::mvccpb::KeyValue> for KeyValue {
    fn from(kv: crate::proto::mvccpb::KeyValue) -> Self {
        Self { key: kv.key, value: kv.value, revision: kv.mod_revision, lease: kv.lease }
    }
}

/// For callers that look at one answer of a stream only.
pub(crate) fn nothing_came() -> Status {
    Status::unavailable("the member ended the stream without an answer")
}
