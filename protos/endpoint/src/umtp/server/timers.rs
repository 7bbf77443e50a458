//! The timers of a server.

use super::{DownReason, Server};
use castgate_wire::umtp::Channel;
use std::net::SocketAddrV4;
use std::time::Instant;

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A join that nobody repeated (draft-finlayson-umtp-09: JOIN timeout, 60 s), kept per client and channel.
    Join { tunnel: SocketAddrV4, channel: Channel },
    /// A tunnel with nothing joined from which nothing came (castgate UMTP notes: 120 s).
    Idle { tunnel: SocketAddrV4 },
    /// The local cookie of a tunnel has served its epoch (castgate UMTP notes: 3600 s).
    Epoch { tunnel: SocketAddrV4 },
}

impl Server {
    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Join { tunnel, channel } => {
                    if self.unjoin(tunnel, channel) {
                        self.counters.expiries += 1;
                    }
                }
                Timer::Idle { tunnel } => self.take_down(tunnel, DownReason::Idle),
                Timer::Epoch { tunnel } => {
                    self.rotate(tunnel, now);
                }
            }
        }
    }
}
