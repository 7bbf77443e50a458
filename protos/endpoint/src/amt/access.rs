//! Channels through as many relays as it takes: [`Discovery`] finds them, a [`Gateway`] at each carries.
//!
//! ```text
//!   want ──▶ Discovery ── Try ────▶ Gateway, one a relay ── Advertised, Connected, Limited, Unanswered, Silent ──▶ Discovery
//!                      ── Use ────▶ the channel is joined there
//!                      ── Release ▶ it is left there
//!                      ── Cancel ─▶ the gateway says goodbye and ends
//! ```
//! Owns nothing of either protocol: it only carries what one says to the other, so that every driver does it alike. A driver has one
//! socket for each connection, opens and closes it when told, and looks up what it is asked.

use super::discovery::{self, AttemptId, Channel, Discovery, Method, NoRelay, Question, QuestionId};
use super::gateway::{self, Event as GatewayEvent, Gateway};
use super::random::Random;
use crate::membership::Filter;
use castgate_wire::ip;
use castgate_wire::membership::Family;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long a gateway that is not needed any more may go on saying goodbye.
const FAREWELL_MAX: Duration = Duration::from_secs(10);

/// One thing to do or to know. Order matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Look this up and call [`Access::handle_answer`].
    Resolve {
        /// To be given back with the answer.
        id: QuestionId,
        /// The question.
        question: Question,
    },
    /// A connection begins: open a socket of the family of `relay` for it.
    Open {
        /// Names the connection from now on.
        connection: AttemptId,
        /// Where it leads at first.
        relay: SocketAddr,
    },
    /// The relay of a connection, from which Multicast Data may come.
    Relay {
        /// The connection.
        connection: AttemptId,
        /// The relay.
        relay: SocketAddr,
    },
    /// What a connection is to bring of a group from now on; `None` for nothing.
    Filter {
        /// The connection.
        connection: AttemptId,
        /// The group.
        group: IpAddr,
        /// The sources.
        filter: Option<Filter>,
    },
    /// Send this datagram from the socket of the connection.
    Transmit {
        /// The connection.
        connection: AttemptId,
        /// To whom.
        to: SocketAddr,
        /// All octets of the UDP payload.
        datagram: Vec<u8>,
    },
    /// The connection is over: close its socket.
    Close {
        /// The connection.
        connection: AttemptId,
    },
    /// Something worth telling.
    Event(Event),
}

/// What became of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is joined at a relay.
    Using {
        /// The channel.
        channel: Channel,
        /// The relay.
        relay: SocketAddr,
        /// How it was found.
        method: Method,
    },
    /// Its first packet came.
    FirstData {
        /// Its source.
        source: IpAddr,
        /// Its group.
        group: IpAddr,
        /// The relay that sent it.
        relay: SocketAddr,
    },
    /// A relay that was used is given up.
    RelayLost {
        /// The relay.
        relay: SocketAddr,
        /// Why.
        reason: LostReason,
    },
    /// A relay that was tried takes no new gateways (L).
    RelayLimited {
        /// The relay.
        relay: SocketAddr,
    },
    /// No relay is to be had for a channel at this time.
    NoRelay {
        /// The channel.
        channel: Channel,
        /// Why.
        reason: NoRelay,
    },
}

/// Why a relay is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LostReason {
    /// It does not answer.
    Unanswered,
    /// It answers, but a channel that it should bring is silent.
    Silent,
    /// There is no way to it.
    Unreachable,
}

impl LostReason {
    /// The reason as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Unanswered => "unanswered",
            Self::Silent => "silent",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A connection as a report shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionReport {
    /// Its name.
    pub connection: AttemptId,
    /// The relay, or where it is being asked for.
    pub relay: SocketAddr,
    /// Whether a Membership Query has come from there.
    pub is_connected: bool,
    /// Channels that are joined there.
    pub channels: usize,
}

/// Gateways at all the relays that are needed. See the [module](self); the contract with its driver is that of [`super`].
#[derive(Debug)]
pub struct Access {
    gateway: gateway::Config,
    discovery: Discovery,
    random: Random,
    connections: BTreeMap<AttemptId, Connection>,
    /// What is wanted, as it was last said.
    wanted: BTreeMap<IpAddr, BTreeSet<Channel>>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Connection {
    gateway: Gateway,
    relay: SocketAddr,
    /// What is joined there.
    channels: BTreeSet<Channel>,
    /// When it ends, whether or not everything was said.
    ends_at: Option<Instant>,
}

impl Access {
    /// An access that wants nothing yet. `key` must be random.
    #[must_use]
    pub fn new(discovery: discovery::Config, gateway: gateway::Config, key: [u8; 16]) -> Self {
        Self {
            gateway,
            discovery: Discovery::new(discovery, key),
            random: Random::new(key.map(|octet| octet ^ 0xac)),
            connections: BTreeMap::new(),
            wanted: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Replaces what is wanted of a group; `None` for nothing. Each source of an INCLUDE list is a channel of its own, for which a
    /// relay is found. EXCLUDE asks for the group with any source: whoever takes the packets leaves out what he does not want, and
    /// an exclude list is seldom the same for all.
    pub fn want(&mut self, group: IpAddr, filter: Option<&Filter>, now: Instant) {
        let channels: BTreeSet<Channel> = match filter {
            None => BTreeSet::new(),
            Some(Filter::Exclude(_)) => BTreeSet::from([Channel { source: None, group }]),
            Some(Filter::Include(sources)) => {
                sources.iter().map(|source| Channel { source: Some(*source), group }).collect()
            }
        };
        let before = self.wanted.remove(&group).unwrap_or_default();
        for left in before.difference(&channels) {
            self.discovery.forget(*left);
        }
        for joined in channels.difference(&before) {
            self.discovery.find(*joined, now);
        }
        if !channels.is_empty() {
            self.wanted.insert(group, channels);
        }
        self.settle(now);
    }

    /// What came back for a question.
    pub fn handle_answer(&mut self, id: QuestionId, answer: discovery::Answer, now: Instant) {
        self.discovery.handle_answer(id, answer, now);
        self.settle(now);
    }

    /// Takes one datagram that came to the socket of a connection. A packet that is wanted comes back.
    pub fn handle_datagram<'a>(
        &mut self,
        connection: AttemptId,
        from: SocketAddr,
        datagram: &'a [u8],
        now: Instant,
    ) -> Option<ip::Packet<&'a [u8]>> {
        let known = self.connections.get_mut(&connection)?;
        let packet = known.gateway.handle_datagram(now, from, datagram);
        self.settle(now);
        packet
    }

    /// A packet of a connection was taken by somebody who asks nobody; telling it once a second is enough.
    pub fn handle_data(&mut self, connection: AttemptId, source: IpAddr, group: IpAddr, now: Instant) {
        if let Some(known) = self.connections.get_mut(&connection) {
            known.gateway.handle_data(now, source, group);
            self.settle(now);
        }
    }

    /// What a connection sent came back as ICMP Destination Unreachable, or its socket failed.
    pub fn handle_unreachable(&mut self, connection: AttemptId, now: Instant) {
        if let Some(known) = self.connections.get_mut(&connection) {
            known.gateway.handle_unreachable(now);
            self.settle(now);
        }
    }

    /// A connection has no socket: it could not be opened, there is no way to the relay, or it broke. The next relay gets its turn.
    pub fn handle_failed(&mut self, connection: AttemptId, now: Instant) {
        if let Some(relay) = self.connections.get(&connection).map(|known| known.relay) {
            self.lose(connection, relay, LostReason::Unreachable);
            self.discovery.handle_lost(connection, now);
            self.settle(now);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let gateways = self.connections.values().flat_map(|known| [known.gateway.next_timeout(), known.ends_at]);
        gateways.chain([self.discovery.next_timeout()]).flatten().min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.discovery.handle_timeout(now);
        for known in self.connections.values_mut() {
            known.gateway.handle_timeout(now);
        }
        self.settle(now);
    }

    /// Leaves everything. What is left to say is said until [`is_finished`](Self::is_finished); a driver in a hurry may stop after
    /// the first outputs.
    pub fn shut_down(&mut self, now: Instant) {
        for group in self.wanted.keys().copied().collect::<Vec<_>>() {
            self.want(group, None, now);
        }
    }

    /// Whether nothing is wanted and nothing is left to be said.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.wanted.is_empty() && self.connections.is_empty()
    }

    /// The next thing to do or to know, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The relay in use for a channel, and how it was found.
    #[must_use]
    pub fn relay(&self, channel: Channel) -> Option<(SocketAddr, Method)> {
        self.discovery.relay(channel)
    }

    /// All connections that are not over, in the order in which they began.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionReport> + '_ {
        let open = self.connections.iter().filter(|(_, known)| known.ends_at.is_none());
        open.map(|(connection, known)| ConnectionReport {
            connection: *connection,
            relay: known.relay,
            is_connected: [Family::V4, Family::V6].iter().any(|family| known.gateway.is_connected(*family)),
            channels: known.channels.len(),
        })
    }

    /// Carries what each side has to say to the other, until neither has.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.discovery.poll_output() {
                self.obey(output, now);
                continue;
            }
            let told = self.connections.iter_mut().find_map(|(id, known)| Some((*id, known.gateway.poll_output()?)));
            match told {
                Some((connection, output)) => self.hear(connection, output, now),
                None => break,
            }
        }
        let is_over = |known: &Connection| match known.ends_at {
            Some(at) => known.gateway.is_finished() || at <= now,
            None => false,
        };
        for (connection, _) in self.connections.extract_if(.., |_, known| is_over(known)) {
            self.outputs.push_back(Output::Close { connection });
        }
    }

    fn obey(&mut self, output: discovery::Output, now: Instant) {
        match output {
            discovery::Output::Resolve { id, question } => self.outputs.push_back(Output::Resolve { id, question }),
            discovery::Output::Try { attempt, channel, relay, discovery_first, method: _ } => {
                let mut gateway = Gateway::new(self.gateway.clone(), relay, discovery_first, self.random.key());
                self.outputs.push_back(Output::Open { connection: attempt, relay });
                if !discovery_first {
                    self.outputs.push_back(Output::Relay { connection: attempt, relay });
                }
                gateway.connect(Family::of(channel.group), now);
                let known = Connection { gateway, relay, channels: BTreeSet::new(), ends_at: None };
                self.connections.insert(attempt, known);
            }
            discovery::Output::Cancel { attempt } => {
                if let Some(known) = self.connections.get_mut(&attempt) {
                    known.gateway.shut_down(now);
                    known.ends_at = Some(now + FAREWELL_MAX);
                }
            }
            discovery::Output::Use { channel, attempt, relay, method } => {
                let silences = self.discovery.silences(channel);
                if let Some(known) = self.connections.get_mut(&attempt) {
                    known.channels.insert(channel);
                    self.join(attempt, channel.group, now);
                    if let Some(known) = self.connections.get_mut(&attempt).filter(|_| silences > 0) {
                        known.gateway.set_silences(channel.group, channel.source, silences, now);
                    }
                    self.event(Event::Using { channel, relay, method });
                }
            }
            discovery::Output::Release { channel, attempt } => {
                if let Some(known) = self.connections.get_mut(&attempt) {
                    known.channels.remove(&channel);
                    if known.channels.is_empty() {
                        // Discovery cancels it next, and its goodbye is said more than once; a leave before it would be the only one.
                        self.outputs.push_back(Output::Filter {
                            connection: attempt,
                            group: channel.group,
                            filter: None,
                        });
                    } else {
                        self.join(attempt, channel.group, now);
                    }
                }
            }
            discovery::Output::NoRelay { channel, reason, retry_at: _ } => {
                self.event(Event::NoRelay { channel, reason });
            }
        }
    }

    /// Has a gateway join of a group what is to be joined there.
    fn join(&mut self, connection: AttemptId, group: IpAddr, now: Instant) {
        let Some(known) = self.connections.get_mut(&connection) else { return };
        let mut filter = Filter::nothing();
        for channel in known.channels.iter().filter(|channel| channel.group == group) {
            match (channel.source, &mut filter) {
                (None, _) => filter = Filter::everything(),
                (Some(source), Filter::Include(sources)) => drop(sources.insert(source)),
                (Some(_), Filter::Exclude(_)) => {}
            }
        }
        // What could never cross a tunnel was refused by whoever wanted it, or brings nothing.
        if known.gateway.set_filter(group, filter.clone(), now).is_ok() {
            let filter = Some(filter).filter(|filter| !filter.is_nothing());
            self.outputs.push_back(Output::Filter { connection, group, filter });
        }
    }

    fn hear(&mut self, connection: AttemptId, output: gateway::Output, now: Instant) {
        let event = match output {
            gateway::Output::Transmit { to, datagram } => {
                return self.outputs.push_back(Output::Transmit { connection, to, datagram });
            }
            gateway::Output::Event(event) => event,
        };
        match event {
            GatewayEvent::Advertised { relay } => {
                if let Some(known) = self.connections.get_mut(&connection) {
                    known.relay = relay;
                }
                self.outputs.push_back(Output::Relay { connection, relay });
                self.discovery.handle_advertised(connection, relay, now);
            }
            GatewayEvent::Connected { .. } => self.discovery.handle_connected(connection, now),
            GatewayEvent::Limited { relay, in_use } => {
                if !in_use {
                    self.event(Event::RelayLimited { relay });
                }
                self.discovery.handle_limited(connection, now);
            }
            GatewayEvent::Unanswered { relay, .. } => {
                self.lose(connection, relay, LostReason::Unanswered);
                self.discovery.handle_lost(connection, now);
            }
            GatewayEvent::Silent { source, group, .. } => {
                if let Some(relay) = self.connections.get(&connection).map(|known| known.relay) {
                    self.lose(connection, relay, LostReason::Silent);
                }
                self.discovery.handle_silent(Channel { source, group }, now);
            }
            GatewayEvent::FirstData { source, group } => {
                for source in [Some(source), None] {
                    self.discovery.handle_traffic(Channel { source, group });
                }
                if let Some(relay) = self.connections.get(&connection).map(|known| known.relay) {
                    self.event(Event::FirstData { source, group, relay });
                }
            }
            // The gateway has put it right already.
            GatewayEvent::AddressChanged { .. } => {}
        }
    }

    /// Tells of a relay that carried something.
    fn lose(&mut self, connection: AttemptId, relay: SocketAddr, reason: LostReason) {
        if self.connections.get(&connection).is_some_and(|known| !known.channels.is_empty()) {
            self.event(Event::RelayLost { relay, reason });
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}
