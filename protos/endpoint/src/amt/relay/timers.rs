//! The timers of a relay.

use super::{DownReason, Relay};
use std::net::SocketAddr;
use std::time::Instant;

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// An endpoint from which no Update came (RFC 7450 §5.3.3.7: 260 s).
    Endpoint(SocketAddr),
    /// A group or a source of an endpoint that was not reported again (RFC 3376 §6.5), as its router says.
    Groups(SocketAddr),
}

impl Relay {
    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Endpoint(remote) => self.take_down(remote, DownReason::Expired),
                Timer::Groups(remote) => self.expire(now, remote),
            }
        }
    }
}
