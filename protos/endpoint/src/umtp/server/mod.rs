//! The tunnel server: slave of any number of clients (draft-finlayson-umtp-09 §6).
//!
//! ```text
//!   datagram ─▶ trailer ─▶ address ignored? ─▶ our cookie? ──yes──▶ command: JOIN, LEAVE, DATA, PROBE, TEAR_DOWN
//!                 │              │                 │ no
//!                 ▼ counted      ▼ counted         └─▶ PROBE_ACK, once a second per address and port; nothing is kept
//! ```
//! Nothing is remembered of an address that has not returned our cookie: the cookie is a keyed hash of address, port and
//! epoch. A tunnel exists from its first permitted join on. A join with the right cookie needs no PROBE before it, so a client
//! that still has the cookie is back with one datagram.
//!
//! What the draft leaves open is decided as follows (all of it in `docs/conformance.md`):
//! * joins end per client and channel, 60 s after the last JOIN; a LEAVE concerns its sender only; LEAVE may be repeated;
//! * a JOIN that no rule permits is counted and gets no answer: base UMTP has none that would fit;
//! * `PROBE_NACK` is sent only by a server that has no room for another tunnel, to a PROBE of an address without one;
//! * `PROBE_ACK` and `PROBE_NACK` are never answered, so that two servers cannot be set on each other;
//! * a PROBE is not counted as a guess of a cookie: it gains nothing but the answer that anyone gets.
//!
//! `DATA` is handled completely here. A driver with a forwarding table of its own keeps the `DATA` of attached tunnels to itself and
//! reports it by [`Server::handle_activity`].

mod config;
mod counters;
mod data;
mod output;
mod timers;
mod tunnels;

#[cfg(test)]
mod tests;

pub use super::LoopCheck;
pub use config::{Config, Grant, Permissions, Permit, Sources};
pub use counters::{Counters, Reason};
pub use output::{ChannelReport, Cookies, DownReason, Output, TunnelReport};

use super::cookie::{CookieJar, Key, LocalCookies};
use super::datagram;
use super::limiter::{Guard, GuardRule, Limiter};
use crate::deadlines::Deadlines;
use castgate_wire::umtp::{Channel, Command, ParseError, Trailer};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Instant;
use timers::Timer;
use tunnels::{Members, Tunnel};

/// A tunnel server. See the [module](self) for what it decides and [`super`] for the contract with its driver.
#[derive(Debug)]
pub struct Server {
    config: Config,
    permissions: Permissions,
    jar: CookieJar,
    answers: Limiter,
    loops: Limiter,
    guard: Guard,
    tunnels: BTreeMap<SocketAddrV4, Tunnel>,
    channels: BTreeMap<Channel, Members>,
    timers: Deadlines<Timer>,
    outputs: VecDeque<Output>,
    counters: Counters,
}

/// Addresses of which the last tear-down for a loop is remembered.
const LOOPS_REMEMBERED: usize = 1024;

impl Server {
    /// A server without tunnels. `key` must be new and random at every start.
    #[must_use]
    pub fn new(config: Config, permissions: Permissions, key: [u8; 16], now: Instant) -> Self {
        let key = Key(key);
        Self {
            jar: CookieJar::new(key, config.cookie_epoch, now),
            answers: Limiter::new(key, config.answers_remembered),
            loops: Limiter::new(key, LOOPS_REMEMBERED),
            guard: Guard::new(key, config.guessers_remembered),
            config,
            permissions,
            tunnels: BTreeMap::new(),
            channels: BTreeMap::new(),
            timers: Deadlines::new(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Replaces the configuration; no tunnel ends. Deadlines that run keep their time, limits hold for what comes, and what is
    /// fixed at start stays.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
        self.reconsider();
    }

    /// Replaces the rules: withdraws channels that are no longer permitted and adjusts the others.
    pub fn set_permissions(&mut self, permissions: Permissions) {
        self.permissions = permissions;
        self.reconsider();
    }

    /// Takes one datagram that arrived at the server's address and port.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddrV4, datagram: &[u8]) {
        self.counters.datagrams_in += 1;
        self.counters.bytes_in += datagram.len() as u64;
        if let Err(reason) = self.receive(now, from, datagram) {
            self.counters.drops.add(reason);
        }
    }

    fn receive(&mut self, now: Instant, from: SocketAddrV4, datagram: &[u8]) -> Result<(), Reason> {
        let (head, trailer) = Trailer::parse(datagram).map_err(|error| match error {
            ParseError::Truncated(_) | ParseError::SourceNotAllowed(_) => Reason::Malformed,
            ParseError::Version(_) => Reason::Version,
            ParseError::FlowData => Reason::UnknownCommand,
        })?;
        let is_known = self.tunnels.contains_key(&from);
        let is_proven = is_known || self.has_tunnel_at(*from.ip());
        let command = trailer.command;
        match command {
            Command::Data
            | Command::JoinGroup
            | Command::LeaveGroup
            | Command::TearDown
            | Command::Probe
            | Command::JoinRtpGroup
            | Command::LeaveRtpGroup => {}
            Command::ProbeAck | Command::ProbeNack => return Err(Reason::Unsolicited),
            Command::JoinAck | Command::JoinNack | Command::FlowData | Command::Proxy | Command::Unknown(_) => {
                return Err(Reason::UnknownCommand);
            }
        }
        let local = self.local_cookies(from, now);
        let is_right = local.accepts(trailer.destination_cookie);
        if !is_proven
            && self.guard.ignores(*from.ip(), now)
            && !self.guard.last_try(from, trailer.destination_cookie, is_right)
        {
            return Err(Reason::Ignored);
        }
        if !is_right && command != Command::Probe {
            if !is_proven && self.guard.wrong_cookie(from, trailer.destination_cookie, self.guard_rule(), now) {
                return Err(Reason::Ignored);
            }
            self.challenge(now, from, &trailer, local);
            return Err(Reason::WrongCookie);
        }
        if is_right && is_known {
            self.hear(now, from, trailer.source_cookie);
        }
        match command {
            Command::Probe if !is_known && self.tunnels.len() >= self.config.tunnels_max => {
                self.refuse(now, from, &trailer);
                Err(Reason::TunnelsMax)
            }
            // Whoever has the cookie has proven his address: he gets his answer every time.
            Command::Probe if is_right => {
                self.acknowledge(from, &trailer, local);
                Ok(())
            }
            Command::Probe => {
                self.challenge(now, from, &trailer, local);
                Ok(())
            }
            Command::JoinGroup => self.join(now, from, &trailer, trailer.channel),
            Command::LeaveGroup => {
                self.leave(from, trailer.channel);
                Ok(())
            }
            Command::JoinRtpGroup => self.join_rtp(now, from, &trailer),
            Command::LeaveRtpGroup => self.leave_rtp(from, trailer.channel),
            Command::TearDown => {
                self.take_down(from, DownReason::Peer);
                Ok(())
            }
            Command::Data if is_known => self.relay_upstream(from, &trailer, head),
            Command::Data => {
                // Its sender believes in a tunnel that we have forgotten; the answer makes it join again.
                self.challenge(now, from, &trailer, local);
                Err(Reason::NoTunnel)
            }
            Command::ProbeAck
            | Command::ProbeNack
            | Command::JoinAck
            | Command::JoinNack
            | Command::FlowData
            | Command::Proxy
            | Command::Unknown(_) => unreachable!("sorted out above"),
        }
    }

    /// The cookies of `from`: those of its tunnel, changed first when their epoch is over, or those a new one would get.
    fn local_cookies(&mut self, from: SocketAddrV4, now: Instant) -> LocalCookies {
        match self.tunnels.get(&from) {
            Some(tunnel) if now < tunnel.local.until => tunnel.local,
            Some(_) => self.rotate(from, now),
            None => self.jar.cookies(from, now),
        }
    }

    fn guard_rule(&self) -> GuardRule {
        GuardRule {
            guesses_max: self.config.wrong_cookies_max,
            window: self.config.wrong_cookie_window,
            ignore_for: self.config.ignore_for,
        }
    }

    /// Tells `from` our cookie, unless it was told within the last second.
    fn challenge(&mut self, now: Instant, from: SocketAddrV4, question: &Trailer, local: LocalCookies) {
        if self.answers.admit(from, self.config.answer_interval, now) {
            self.acknowledge(from, question, local);
        } else {
            self.counters.drops.add(Reason::AnswerSuppressed);
        }
    }

    /// `PROBE_ACK`: twelve octets, never more than the question.
    fn acknowledge(&mut self, to: SocketAddrV4, question: &Trailer, local: LocalCookies) {
        self.counters.probe_acks += 1;
        let answer = Trailer {
            source_cookie: local.current,
            destination_cookie: question.source_cookie,
            command: Command::ProbeAck,
            ..*question
        };
        self.transmit(to, datagram(&answer, &[]));
    }

    /// `PROBE_NACK`: the question with its cookies swapped, and without whatever stood before its trailer.
    fn refuse(&mut self, now: Instant, to: SocketAddrV4, question: &Trailer) {
        if !self.answers.admit(to, self.config.answer_interval, now) {
            return self.counters.drops.add(Reason::AnswerSuppressed);
        }
        self.counters.probe_nacks += 1;
        let answer = Trailer {
            source_cookie: question.destination_cookie,
            destination_cookie: question.source_cookie,
            command: Command::ProbeNack,
            ..*question
        };
        self.transmit(to, datagram(&answer, &[]));
    }

    fn transmit(&mut self, to: SocketAddrV4, datagram: Vec<u8>) {
        self.counters.datagrams_out += 1;
        self.counters.bytes_out += datagram.len() as u64;
        self.outputs.push_back(Output::Transmit { to, datagram });
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// All tunnels, ordered by address and port.
    #[must_use]
    pub fn tunnels(&self) -> impl ExactSizeIterator<Item = TunnelReport> + '_ {
        self.tunnels.iter().map(|(tunnel, state)| TunnelReport {
            tunnel: *tunnel,
            cookies: state.cookies(),
            channels: state.joined.keys().copied().collect(),
            heard_at: state.heard_at,
        })
    }

    /// All channels that somebody has joined, in order.
    #[must_use]
    pub fn channels(&self) -> impl ExactSizeIterator<Item = ChannelReport> + '_ {
        self.channels.iter().map(|(channel, members)| ChannelReport { channel: *channel, tunnels: members.len() })
    }
}
