//! One channel through AMT (RFC 7450) under Tokio: sockets, clock and names for `endpoint::amt`.
//!
//! ```text
//!   socket ──batch──▶ endpoint::amt::access ──packet──▶ delivery: checksums, fragments, port ──▶ the caller's closure
//!          ◀─Transmit─┘       │       ▲
//!   (one a connection)     Resolve  handle_answer
//!                             ▼       │
//!                          lookups: DNS and the hierarchy, as tasks
//! ```
//! Which relay, and when to leave it for another, is decided by [`Access`]. Needs no privileges: packets are delivered to
//! this program, not to the network.

mod delivery;
mod lookup;
mod reassembly;
mod settings;
mod story;

pub use lookup::{Answered, Lookups};
pub(crate) use settings::Found;
pub use settings::{AmtSettings, Anycast, PlaceError, parse_place};

/// What settings are made of, in the words of the protocol.
pub use castgate_endpoint::amt::{
    Unfit, access,
    discovery::{self, Mapping, Method, Place},
    gateway,
};

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Poll;
use std::time::{Duration, Instant};

use castgate_endpoint::amt::access::{Access, Event as AccessEvent, Output};
use castgate_endpoint::amt::discovery::AttemptId;
use castgate_endpoint::amt::is_ssm;
use castgate_endpoint::membership::Filter;
use castgate_udp::Options;
use tokio::time::sleep_until;
use tracing::debug;

use crate::event::{Datagram, Event};
use crate::name::GroupName;
use crate::socket::Socket;
use delivery::Delivery;
use story::Story;

/// Longest time that leaving may take. The goodbye leaves at once and again after the second that RFC 7450 §5.2.3.7.2 puts
/// in between; then whoever still waits for us has to notice by himself.
const SHUT_DOWN_MAX: Duration = Duration::from_millis(1_100);

/// A channel through AMT, from one relay at a time.
#[derive(Debug)]
pub(crate) struct AmtTunnel {
    name: GroupName,
    local: Option<IpAddr>,
    access: Access,
    connections: BTreeMap<AttemptId, Socket>,
    lookups: Lookups,
    delivery: Delivery,
    /// The relay in use.
    relay: Option<SocketAddr>,
    /// The relay that was used last, also when it was lost.
    last: Option<SocketAddr>,
    /// Something came from the relay in use.
    is_heard: bool,
    story: Story,
    /// The end of the last search, while no other has begun.
    no_relay: Option<String>,
    events: VecDeque<Event>,
}

impl AmtTunnel {
    /// Starts to look for a relay of the channel.
    ///
    /// # Errors
    /// [`Unfit`] when the channel can never cross a tunnel.
    pub(crate) fn open(name: &GroupName, settings: &AmtSettings) -> Result<Self, Unfit> {
        let (group, source) = (Unfit::check_group(name.group())?, name.source());
        let filter = match source {
            Some(source) => Filter::include([Unfit::check_source(group, source)?]),
            None if is_ssm(group) => return Err(Unfit::SsmWithoutSource(group)),
            None => Filter::everything(),
        };
        let mut access =
            Access::new(settings.discovery_config(), settings.gateway_config(), crate::tunnel::random_key());
        access.want(group, Some(&filter), Instant::now());
        Ok(Self {
            name: *name,
            local: settings.local,
            access,
            connections: BTreeMap::new(),
            lookups: Lookups::new(
                settings.dns.clone(),
                settings.locator.clone().map(|locator| locator.from_address(settings.local)),
            ),
            delivery: Delivery::new(name.port()),
            relay: None,
            last: None,
            is_heard: false,
            story: Story::default(),
            no_relay: None,
            events: VecDeque::new(),
        })
    }

    /// The relay in use.
    pub(crate) fn relay(&self) -> Option<SocketAddr> {
        self.relay
    }

    /// Why nothing has come so far.
    pub(crate) fn silence_reason(&self) -> String {
        let Some(relay) = self.relay else {
            return self.no_relay.clone().unwrap_or_else(|| self.story.so_far());
        };
        let refused = self.delivery.refused;
        if refused.damaged > 0 {
            format!("the AMT relay {relay} sends damaged packets, {} so far", refused.damaged)
        } else if refused.other > 0 {
            format!("the AMT relay {relay} brings packets of the group, but none to port {}", self.name.port())
        } else if refused.fragments > 0 {
            format!("the AMT relay {relay} brings fragments, {} so far, that make no whole packet", refused.fragments)
        } else {
            format!("the AMT relay {relay} answers but sends nothing: the channel is silent or not to be had there")
        }
    }

    /// Waits until something has happened; gives datagrams to `sink`. Cancelling loses nothing.
    ///
    /// # Errors
    /// What Tokio says when it cannot watch sockets any more.
    pub(crate) async fn receive(&mut self, mut sink: impl FnMut(Datagram<'_>)) -> io::Result<Option<Event>> {
        loop {
            self.carry_out();
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let now = Instant::now();
            if self.access.next_timeout().is_some_and(|at| at <= now) {
                self.access.handle_timeout(now);
                continue;
            }
            let (taken, delivered) = self.take(now, &mut sink);
            if delivered {
                self.carry_out();
                self.note_first();
                return Ok(self.events.pop_front());
            }
            if taken == 0 {
                self.wait().await?;
            }
        }
    }

    /// Takes what has arrived: how many datagrams, and whether any was a payload.
    fn take(&mut self, now: Instant, sink: &mut impl FnMut(Datagram<'_>)) -> (usize, bool) {
        let Self { access, connections, delivery, .. } = self;
        let (mut taken, mut delivered) = (0, false);
        let mut broken = Vec::new();
        for (connection, socket) in connections.iter_mut() {
            let outcome = socket.take(|datagram| {
                let packet = access.handle_datagram(*connection, datagram.source, datagram.payload, now);
                if let Some(packet) = packet {
                    delivered |= delivery.take(now, &packet, &mut *sink);
                }
            });
            match outcome {
                Ok(count) => taken += count,
                Err(error) => broken.push((*connection, error)),
            }
        }
        for (connection, error) in broken {
            self.fail(connection, &error);
        }
        (taken, delivered)
    }

    fn note_first(&mut self) {
        if let Some(server) = self.relay.filter(|_| !self.is_heard) {
            self.is_heard = true;
            self.events.push_back(Event::FirstData { name: self.name, server });
        }
    }

    /// Waits for a datagram, the next deadline, or an answer.
    async fn wait(&mut self) -> io::Result<()> {
        let Self { access, connections, lookups, .. } = self;
        let deadline = access.next_timeout();
        let deadline = async {
            match deadline {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let watched: Vec<_> = connections.values().map(Socket::watched).collect();
        let readable = poll_fn(|context| {
            let ready = watched.iter().map(|socket| socket.poll_recv_ready(context)).find(Poll::is_ready);
            ready.unwrap_or(Poll::Pending)
        });
        tokio::select! {
            readable = readable => readable?,
            () = deadline => {}
            answered = lookups.answer() => {
                if let Some(trouble) = &answered.trouble {
                    debug!(%trouble, "asked in vain");
                }
                self.story.answered(answered.id, answered.trouble);
                self.access.handle_answer(answered.id, answered.answer, Instant::now());
            }
        }
        Ok(())
    }

    /// Does what the access wants done and keeps what it wants told.
    fn carry_out(&mut self) {
        while let Some(output) = self.access.poll_output() {
            match output {
                Output::Resolve { id, question } => {
                    self.story.asks(id, lookup::unanswered(&question));
                    self.lookups.ask(id, question);
                }
                Output::Open { connection, relay } => self.connect(connection, relay),
                Output::Transmit { connection, to, datagram } => {
                    let Some(socket) = self.connections.get(&connection) else { continue };
                    // AMT repeats whatever matters, so a datagram that the kernel has no room for is one that the network lost.
                    // Without a way to the relay, the next one gets its turn.
                    if let Err(error) = socket.send_to(&datagram, to) {
                        debug!(%to, %error, "not sent");
                        if is_unreachable(&error) {
                            self.fail(connection, &error);
                        }
                    }
                }
                Output::Close { connection } => drop(self.connections.remove(&connection)),
                Output::Event(event) => self.tell(&event),
                // The gateway drops what is not from its relay or was not joined.
                Output::Relay { .. } | Output::Filter { .. } => {}
            }
        }
    }

    fn connect(&mut self, connection: AttemptId, relay: SocketAddr) {
        self.no_relay = None;
        self.story.tried(connection, relay);
        let any = match relay {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        // Multicast Data may come without a checksum over IPv6 too (RFC 7450 §5.1.6.3); the packet inside has its own.
        let options =
            Options { take_zero_checksum: true, ..Options::new(SocketAddr::new(self.local.unwrap_or(any), 0)) };
        match Socket::bind(&options) {
            Ok(socket) => drop(self.connections.insert(connection, socket)),
            Err(error) => self.fail(connection, &error),
        }
    }

    fn fail(&mut self, connection: AttemptId, error: &io::Error) {
        self.story.failed(connection, format!("cannot be reached: {error}"));
        self.connections.remove(&connection);
        self.access.handle_failed(connection, Instant::now());
    }

    fn tell(&mut self, event: &AccessEvent) {
        match *event {
            AccessEvent::Using { channel: _, relay, method } => {
                self.story.found();
                self.no_relay = None;
                self.is_heard = false;
                self.relay = Some(relay);
                self.events.push_back(Event::RelayFound { relay, method });
                if let Some(from) = self.last.replace(relay).filter(|last| *last != relay) {
                    self.events.push_back(Event::HandOver { from, to: relay });
                }
            }
            AccessEvent::RelayLost { relay, reason } => {
                self.relay = None;
                self.events.push_back(Event::RelayLost { relay, reason });
            }
            AccessEvent::RelayLimited { relay } => self.story.failed_relay(relay, "takes no new gateways"),
            AccessEvent::NoRelay { channel, reason } => {
                let sentence = self.story.end(channel, reason);
                self.no_relay = Some(sentence.clone());
                self.events.push_back(Event::NoRelay(sentence));
            }
            // Told when the payload itself was delivered, which a gateway that watches no silence does not see.
            AccessEvent::FirstData { .. } => {}
        }
    }

    /// Leaves the channel and the relay.
    pub(crate) async fn shut_down(mut self) {
        let end = Instant::now() + SHUT_DOWN_MAX;
        self.access.shut_down(Instant::now());
        self.carry_out();
        while let Some(at) = self.access.next_timeout().filter(|at| *at < end && !self.access.is_finished()) {
            sleep_until(at.into()).await;
            self.access.handle_timeout(Instant::now());
            self.carry_out();
        }
    }
}

/// Whether there is no way at all, now.
fn is_unreachable(error: &io::Error) -> bool {
    use io::ErrorKind;
    // EINVAL: from a loopback address to the world.
    matches!(
        error.kind(),
        ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::AddrNotAvailable
            | ErrorKind::InvalidInput
            | ErrorKind::PermissionDenied
            | ErrorKind::NetworkDown
    )
}
