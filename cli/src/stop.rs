//! When a command that could go on for ever ends: a signal, or the span it was given.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// Waits for the end.
#[derive(Debug)]
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    at: Option<Instant>,
}

impl Stop {
    /// From now on a signal does not kill the process; the span, if any, begins now.
    pub(crate) fn after(span: Option<Duration>) -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let at = span.map(|span| Instant::now() + span);
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())?, at })
    }

    /// Returns when it is time. May be called again and again.
    pub(crate) async fn wait(&mut self) {
        let span = async {
            match self.at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = span => {}
        }
    }

    /// Returns when another signal comes: somebody does not want to wait for the good-byes.
    pub(crate) async fn wait_impatience(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
