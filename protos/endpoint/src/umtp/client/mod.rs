//! The tunnel client: master of many channels at one server of an ordered list (draft-finlayson-umtp-09 §5).
//!
//! ```text
//!              join            PROBE_ACK               silence, PROBE × 3; TEAR_DOWN
//!    Idle ───────────▶ Contact ─────────▶ Up (joins, refreshes) ───────────────────┐
//!                       ▲   │ no answer, PROBE_NACK                                │
//!                       │   ▼                                                      │
//!                       next server of the list ◀──────────────────────────────────┘
//!                           │ all of them have failed: Event::NeedServers
//!                           ▼
//!                       Searching: PROBE to every server of the list until one answers, or set_servers brings another list
//! ```
//! * Only datagrams from the server in use (or being asked) with our cookie are taken. Our cookie is a keyed hash of the server's
//!   address: unpredictable, and known to that server alone.
//! * An unsolicited `PROBE_ACK` from the server means that it did not know us: it was restarted, or a NAT gave us another address. Its
//!   cookie is learned and all joins are sent again at once, at most once a second, so that two peers cannot keep each other busy.
//! * A packet is delivered only while its channel is joined. UMTP has no sequence numbers: duplicates of the network are delivered.
//! * [`Client::set_servers`] never ends a tunnel that works.

mod channel;
mod config;
mod farewell;
mod link;
mod output;
mod receive;
mod send;

#[cfg(test)]
mod tests;

pub use config::{Config, JoinOptions};
pub use output::{Counters, Event, LostReason, Output, Reason, Received, Refusal, SendError};

use super::cookie::Key;
use super::{Unfit, datagram};
use castgate_wire::umtp::{Channel, Command, Trailer};
use channel::Schedule;
use farewell::{Farewells, Subject};
use link::{Link, Phase};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Instant;

/// A tunnel client. See the [module](self) for what it does and [`super`] for the contract with its driver.
#[derive(Debug)]
pub struct Client {
    config: Config,
    key: Key,
    servers: Vec<SocketAddrV4>,
    phase: Phase,
    /// The server that was in use last, until another takes its place and it can be left.
    last_link: Option<Link>,
    last_server: Option<SocketAddrV4>,
    /// When each server was last asked; only servers of the current attempt.
    asked: BTreeMap<SocketAddrV4, Instant>,
    /// How often in a row a server has sent us away soon after it had taken us.
    dismissals: u32,
    stranger_answered_at: Option<Instant>,
    channels: BTreeMap<Channel, Joined>,
    farewells: Farewells,
    outputs: VecDeque<Output>,
    counters: Counters,
    wake_at: Option<Instant>,
}

/// A joined channel.
#[derive(Debug)]
enum Joined {
    /// Asked for by commands of its own.
    Asked { schedule: Schedule, options: JoinOptions },
    /// The second port of the pair that starts one port lower.
    Rtcp,
}

impl Client {
    /// A client that has joined nothing. The first server is asked when the first channel is joined. `key` must be random.
    #[must_use]
    pub fn new(config: Config, servers: Vec<SocketAddrV4>, key: [u8; 16], now: Instant) -> Self {
        let mut client = Self {
            config,
            key: Key(key),
            servers: Vec::new(),
            phase: Phase::Idle,
            last_link: None,
            last_server: None,
            asked: BTreeMap::new(),
            dismissals: 0,
            stranger_answered_at: None,
            channels: BTreeMap::new(),
            farewells: Farewells::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            wake_at: None,
        };
        client.set_servers(servers, now);
        client
    }

    /// Replaces the list. A server in use stays in use, listed or not, until it fails.
    pub fn set_servers(&mut self, servers: Vec<SocketAddrV4>, now: Instant) {
        let mut list: Vec<SocketAddrV4> = Vec::with_capacity(servers.len().min(self.config.servers_max));
        for server in servers {
            if list.len() < self.config.servers_max && !list.contains(&server) {
                list.push(server);
            }
        }
        if list != self.servers {
            self.servers = list;
            match self.phase {
                Phase::Contact { .. } | Phase::Searching { .. } => self.contact_first(now),
                Phase::Idle | Phase::Up(_) | Phase::Closed => {}
            }
        }
        self.set_wake();
    }

    /// Joins a channel; one that is joined stays as it is. A channel that no tunnel can carry brings [`Event::Refused`].
    pub fn join(&mut self, channel: Channel, now: Instant) {
        self.join_with(channel, JoinOptions::new(&self.config), now);
    }

    /// Joins a channel in a manner of its own.
    pub fn join_with(&mut self, channel: Channel, options: JoinOptions, now: Instant) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        if let Err(reason) = self.try_join(channel, options, now) {
            self.event(Event::Refused { channel, reason });
        }
        self.set_wake();
    }

    fn try_join(&mut self, channel: Channel, options: JoinOptions, now: Instant) -> Result<(), Refusal> {
        Unfit::check(channel)?;
        let rtcp = options.rtp.then(|| Unfit::check_rtcp(channel)).transpose()?;
        let is_same = match self.channels.get(&channel) {
            Some(Joined::Asked { options: before, .. }) => *before == options,
            Some(Joined::Rtcp) => !options.rtp,
            None => false,
        };
        if is_same {
            return Ok(());
        }
        let added = [Some(channel), rtcp].into_iter().flatten().filter(|new| !self.channels.contains_key(new)).count();
        if self.channels.len() + added > self.config.channels_max {
            return Err(Refusal::ChannelsMax(self.config.channels_max));
        }
        self.channels.insert(channel, Joined::Asked { schedule: Schedule::new(options, now), options });
        self.farewells.cancel_channel(channel);
        if let Some(rtcp) = rtcp {
            self.channels.insert(rtcp, Joined::Rtcp);
            self.farewells.cancel_channel(rtcp);
        }
        match self.phase {
            Phase::Idle => self.contact_first(now),
            Phase::Up(_) => self.start_join(channel, now),
            Phase::Contact { .. } | Phase::Searching { .. } | Phase::Closed => {}
        }
        Ok(())
    }

    /// Leaves a channel; from this moment on nothing of it is delivered. A pair is left as a whole by its first port, and loses its
    /// second port by the second.
    pub fn leave(&mut self, channel: Channel, now: Instant) {
        let Some(joined) = self.channels.remove(&channel) else { return };
        let command = match joined {
            Joined::Asked { options: JoinOptions { rtp: true, .. }, .. } => {
                if let Some(rtcp) = channel.rtcp() {
                    self.channels.remove(&rtcp);
                }
                Command::LeaveRtpGroup
            }
            Joined::Asked { .. } => Command::LeaveGroup,
            Joined::Rtcp => {
                let first = Channel { port: channel.port - 1, ..channel };
                if let Some(Joined::Asked { options, .. }) = self.channels.get_mut(&first) {
                    options.rtp = false;
                }
                Command::LeaveGroup
            }
        };
        if let Phase::Up(link) = &self.phase {
            let (to, leave) = (link.server, datagram(&link.trailer(command, channel, 0), &[]));
            self.transmit(to, leave.clone());
            self.farewells.repeat(to, Subject::Channel(channel), vec![leave], &self.config, now);
        } else if self.channels.is_empty() && !matches!(self.phase, Phase::Closed) {
            // Nothing to look for a server for.
            self.phase = Phase::Idle;
            self.asked.clear();
        }
        self.set_wake();
    }

    /// Leaves everything and tears the tunnel down. What is repeated comes by [`handle_timeout`](Self::handle_timeout) until
    /// [`is_finished`](Self::is_finished); a driver in a hurry may stop after the first outputs.
    pub fn shut_down(&mut self, now: Instant) {
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Up(link) => self.part_from(&link, now),
            Phase::Idle | Phase::Contact { .. } | Phase::Searching { .. } | Phase::Closed => {}
        }
        self.channels.clear();
        self.asked.clear();
        self.set_wake();
    }

    /// Whether nothing is left to be said after [`shut_down`](Self::shut_down).
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Closed) && self.farewells.is_empty()
    }

    /// LEAVE for every channel, for peers that keep them beyond `TEAR_DOWN`, then `TEAR_DOWN`.
    fn part_from(&mut self, link: &Link, now: Instant) {
        let mut datagrams: Vec<Vec<u8>> = self
            .channels
            .iter()
            .filter_map(|(channel, joined)| match joined {
                Joined::Asked { options: JoinOptions { rtp: true, .. }, .. } => {
                    Some((Command::LeaveRtpGroup, *channel))
                }
                Joined::Asked { .. } => Some((Command::LeaveGroup, *channel)),
                Joined::Rtcp => None,
            })
            .map(|(command, channel)| datagram(&link.trailer(command, channel, 0), &[]))
            .collect();
        datagrams.push(datagram(&Trailer::without_channel(Command::TearDown, link.local, link.remote), &[]));
        for datagram in &datagrams {
            self.transmit(link.server, datagram.clone());
        }
        self.farewells.cancel_server(link.server);
        self.farewells.repeat(link.server, Subject::Server, datagrams, &self.config, now);
    }

    /// The next thing to do or to know, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.wake_at
    }

    /// The server in use.
    #[must_use]
    pub fn server(&self) -> Option<SocketAddrV4> {
        match &self.phase {
            Phase::Up(link) => Some(link.server),
            Phase::Idle | Phase::Contact { .. } | Phase::Searching { .. } | Phase::Closed => None,
        }
    }

    /// What is joined, in order; of a pair both ports.
    #[must_use]
    pub fn channels(&self) -> impl ExactSizeIterator<Item = Channel> + '_ {
        self.channels.keys().copied()
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn transmit(&mut self, to: SocketAddrV4, datagram: Vec<u8>) {
        self.counters.datagrams_out += 1;
        self.counters.bytes_out += datagram.len() as u64;
        self.outputs.push_back(Output::Transmit { to, datagram });
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Finds the earliest deadline. Packets only ever postpone one, so that they need not come here.
    fn set_wake(&mut self) {
        let schedules = self.channels.values().filter_map(|joined| match joined {
            Joined::Asked { schedule, .. } => schedule.next_timeout(),
            Joined::Rtcp => None,
        });
        let phase = self.phase.next_timeout(&self.config);
        self.wake_at = schedules.chain(phase).chain(self.farewells.next_timeout()).min();
    }
}
