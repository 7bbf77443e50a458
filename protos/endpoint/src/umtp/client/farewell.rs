//! What is said more than once on leaving, because nobody confirms it.

use super::config::Config;
use castgate_wire::umtp::Channel;
use std::net::SocketAddrV4;
use std::time::Instant;

/// What is being left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// One channel, or the pair that starts with it.
    Channel(Channel),
    /// The whole server.
    Server,
}

/// LEAVEs, or LEAVEs and a `TEAR_DOWN`, that are repeated a few times.
#[derive(Debug)]
struct Farewell {
    to: SocketAddrV4,
    subject: Subject,
    datagrams: Vec<Vec<u8>>,
    times_left: u8,
    again_at: Instant,
}

/// All farewells that are not finished. Each ends after [`Config::leave_times`].
#[derive(Debug, Default)]
pub(super) struct Farewells(Vec<Farewell>);

impl Farewells {
    /// Keeps what the caller has just sent once.
    pub(super) fn repeat(
        &mut self,
        to: SocketAddrV4,
        subject: Subject,
        datagrams: Vec<Vec<u8>>,
        config: &Config,
        now: Instant,
    ) {
        let times_left = config.leave_times.saturating_sub(1);
        if times_left > 0 {
            self.0.push(Farewell { to, subject, datagrams, times_left, again_at: now + config.leave_interval });
        }
    }

    /// The channel is joined again: what still says otherwise must not be sent.
    pub(super) fn cancel_channel(&mut self, channel: Channel) {
        self.0.retain(|farewell| farewell.subject != Subject::Channel(channel));
    }

    /// The server is used again, or left as a whole.
    pub(super) fn cancel_server(&mut self, server: SocketAddrV4) {
        self.0.retain(|farewell| farewell.to != server);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.0.iter().map(|farewell| farewell.again_at).min()
    }

    /// What is to be said again at `now`.
    pub(super) fn take_due(&mut self, config: &Config, now: Instant) -> Vec<(SocketAddrV4, Vec<u8>)> {
        let mut due = Vec::new();
        for farewell in self.0.iter_mut().filter(|farewell| farewell.again_at <= now) {
            farewell.times_left -= 1;
            farewell.again_at = now + config.leave_interval;
            due.extend(farewell.datagrams.iter().map(|datagram| (farewell.to, datagram.clone())));
        }
        self.0.retain(|farewell| farewell.times_left > 0);
        due
    }
}
