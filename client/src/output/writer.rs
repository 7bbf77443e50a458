//! A stream of octets: payloads one after the other, written by a thread of its own, since a file or a pipe can block.
//!
//! ```text
//!   write() ──try──▶ [ QUEUE datagrams ] ──▶ thread ──▶ file or standard output
//!               └─ full: dropped, counted, told at the end
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread;

use tokio::sync::oneshot;

use super::OutputError;

/// Datagrams between the receiver and the thread: 10 MB of video packets, some seconds of a slow disk.
const QUEUE: usize = 8_192;

#[derive(Debug)]
pub(super) struct Writer {
    target: String,
    queue: Option<SyncSender<Vec<u8>>>,
    outcome: oneshot::Receiver<io::Result<()>>,
    dropped: u64,
}

impl Writer {
    pub(super) fn stdout() -> Self {
        Self::start("standard output".to_owned(), io::stdout())
    }

    pub(super) fn file(path: &Path) -> Result<Self, OutputError> {
        let shown = path.display().to_string();
        let file = File::create(path).map_err(|error| OutputError::Open { path: shown.clone(), error })?;
        Ok(Self::start(format!("the file {shown}"), file))
    }

    fn start(target: String, sink: impl Write + Send + 'static) -> Self {
        let (queue, payloads) = sync_channel(QUEUE);
        let (done, outcome) = oneshot::channel();
        thread::spawn(move || {
            // Nobody listens only when the whole program is going.
            let _ = done.send(copy(&payloads, sink));
        });
        Self { target, queue: Some(queue), outcome, dropped: 0 }
    }

    pub(super) fn write(&mut self, payload: &[u8]) -> Result<(), OutputError> {
        let Some(queue) = &self.queue else { return Ok(()) };
        match queue.try_send(payload.to_vec()) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => {
                self.dropped += 1;
                Ok(())
            }
            Err(TrySendError::Disconnected(_)) => {
                self.queue = None;
                let error = match self.outcome.try_recv() {
                    Ok(Err(error)) => error,
                    Ok(Ok(())) | Err(_) => io::ErrorKind::BrokenPipe.into(),
                };
                Err(OutputError::Write { target: self.target.clone(), error })
            }
        }
    }

    pub(super) async fn finish(mut self) -> Result<(), OutputError> {
        if self.queue.take().is_none() {
            // The error was told when the queue broke.
            return Ok(());
        }
        match self.outcome.await {
            Ok(Err(error)) => Err(OutputError::Write { target: self.target, error }),
            _ if self.dropped > 0 => Err(OutputError::Slow { target: self.target, dropped: self.dropped }),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

/// Writes until the queue is closed; flushes whenever it is empty, so that a player on the pipe never waits for a buffer.
fn copy(payloads: &Receiver<Vec<u8>>, sink: impl Write) -> io::Result<()> {
    let mut sink = io::BufWriter::new(sink);
    loop {
        let payload = match payloads.try_recv() {
            Ok(payload) => payload,
            Err(TryRecvError::Empty) => {
                sink.flush()?;
                match payloads.recv() {
                    Ok(payload) => payload,
                    Err(_closed) => return sink.flush(),
                }
            }
            Err(TryRecvError::Disconnected) => return sink.flush(),
        };
        sink.write_all(&payload)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_file_holds_every_octet_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.ts");
        let mut writer = Writer::file(&path).unwrap();
        for octet in 0..100_u8 {
            writer.write(&[octet; 13]).unwrap();
        }
        writer.finish().await.unwrap();
        let expected: Vec<u8> = (0..100_u8).flat_map(|octet| [octet; 13]).collect();
        assert_eq!(std::fs::read(path).unwrap(), expected);
    }

    #[tokio::test]
    async fn a_sink_that_blocks_costs_packets_and_says_so() {
        let (release, blocked) = mpsc::channel();
        let mut writer = Writer::start("the pipe".to_owned(), Blocking(blocked));
        // More than the queue and every buffer behind it hold while nothing is released.
        for _ in 0..QUEUE + 100 {
            writer.write(&[0; 1316]).unwrap();
        }
        drop(release);
        let error = writer.finish().await.unwrap_err();
        assert!(matches!(&error, OutputError::Slow { dropped, .. } if (1..=100).contains(dropped)), "{error}");
    }

    #[tokio::test]
    async fn a_closed_pipe_ends_the_output() {
        let mut writer = Writer::start("the pipe".to_owned(), Closed);
        let error = loop {
            if let Err(error) = writer.write(&[0; 9_000]) {
                break error;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(error.label(), "write");
        writer.finish().await.unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_made_is_named() {
        let error = Writer::file(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }

    struct Blocking(mpsc::Receiver<()>);

    impl Write for Blocking {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let _released = self.0.recv();
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
