//! Puts of many requests in one transaction: etcd's round, not the requests, sets the pace.
//!
//! ```text
//!   put, put, put … ─▶ queue ─▶ as many as came while the one before was written, each name once ─▶ Txn ─▶ fates
//! ```

use std::collections::HashSet;

use castgate_etcd::{Client, EtcdError, Fate, WRITES_MAX, Write};
use tokio::sync::{mpsc, oneshot};

/// Puts that wait for a transaction; then their requests wait before the queue.
const QUEUE_MAX: usize = 1_024;
/// Octets of values in one transaction. etcd takes requests of 1.5 MiB.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// Where puts go.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    write: Write,
    done: oneshot::Sender<Result<Fate, EtcdError>>,
}

impl Writer {
    /// Spawns the task, which ends with the last clone of the writer.
    pub(super) fn spawn(client: Client) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run(client, jobs));
        Self { queue }
    }

    /// Writes one key with the next transaction. `None`: the task is gone.
    pub(super) async fn write(&self, write: Write) -> Option<Result<Fate, EtcdError>> {
        let (done, fate) = oneshot::channel();
        self.queue.send(Job { write, done }).await.ok()?;
        fate.await.ok()
    }
}

async fn run(client: Client, mut jobs: mpsc::Receiver<Job>) {
    let mut left: Option<Job> = None;
    loop {
        let first = match left.take() {
            Some(job) => job,
            None => match jobs.recv().await {
                Some(job) => job,
                None => return,
            },
        };
        let mut batch = vec![first];
        let mut names = HashSet::from([batch[0].write.key.clone()]);
        let mut bytes = octets(&batch[0]);
        while batch.len() < WRITES_MAX
            && let Ok(job) = jobs.try_recv()
        {
            bytes += octets(&job);
            // etcd takes a name once in a transaction.
            if bytes > BATCH_BYTES_MAX || !names.insert(job.write.key.clone()) {
                left = Some(job);
                break;
            }
            batch.push(job);
        }
        // Who asked may be gone by now, but he may also be about to hear of it: what nobody waits for is not written.
        batch.retain(|job| !job.done.is_closed());
        if batch.is_empty() {
            continue;
        }
        let (writes, waiters): (Vec<_>, Vec<_>) = batch.into_iter().map(|Job { write, done }| (write, done)).unzip();
        match client.write(&writes).await {
            Ok(fates) => {
                for (waiter, fate) in waiters.into_iter().zip(fates) {
                    let _ = waiter.send(Ok(fate));
                }
            }
            Err(error) => {
                for waiter in waiters {
                    let _ = waiter.send(Err(error.clone()));
                }
            }
        }
    }
}

fn octets(job: &Job) -> usize {
    job.write.key.len() + job.write.put.as_ref().map_or(0, |(value, _)| value.len())
}
