//! The gateway: one relay, groups of both families (RFC 7450 §5.2).
//!
//! ```text
//!   Relay Discovery ─▶ Relay Advertisement ─┐ (only where it is wanted)
//!                                           ▼
//!   for each family:  Request ─▶ Membership Query ─▶ Host answers at once ─▶ Updates with its MAC
//!                        ▲              │ QQIC                 ▲
//!                        └──────────────┘                      └── set_filter: joins and leaves in between
//! ```
//! * Both families are asked in one cycle with one nonce, as the Linux driver does: its relay keeps one MAC for each gateway.
//! * A Request is repeated with the same nonce after 1 s, and then after random times up to 2 min. Each repeat tries the next set of
//!   flags: with E (RFC 9601), as in RFC 7450, with the bits of the Linux driver; what was answered is kept.
//! * Reports wait for a Query. The first one brings everything as a change, which is repeated against loss; later ones bring
//!   the current state.
//! * A relay that sees us at another address is told to tear the old tunnel down, and everything is reported anew.
//! * Of what comes, only packets of the relay for a joined group and a wanted source are taken: some relays forward by group only.
//! * A channel that is silent makes the gateway ask its relay once more, and then tell its driver.

mod config;
mod data;
mod handshake;
mod output;
mod reports;
mod watch;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use output::{Counters, Event, Output, Reason, Refusal};

use super::random::Random;
use super::{Unfit, canonical, is_ssm};
use crate::deadlines::Deadlines;
use crate::membership::Filter;
use crate::membership::host::{self, Host};
use castgate_wire::amt::{Repr, RequestFlags};
use castgate_wire::membership::Family;
use handshake::{Ask, Grant};
use reports::Farewell;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;
use watch::Watch;

/// A gateway at one relay. See the [module](self) for what it does and [`super`] for the contract with its driver.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    random: Random,
    phase: Phase,
    v4: Side,
    v6: Side,
    /// What the last Update was sent with: a Teardown needs it (RFC 7450 §5.2.3.7.2).
    last_update: Option<Grant>,
    farewells: Vec<Farewell>,
    watches: BTreeMap<(IpAddr, Option<IpAddr>), Watch>,
    timers: Deadlines<Timer>,
    outputs: VecDeque<Output>,
    counters: Counters,
}

/// Where the gateway stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A relay is asked for at this address.
    Discovering { at: SocketAddr, ask: Option<Ask> },
    /// The relay.
    Known(SocketAddr),
    /// Shut down.
    Closed,
}

/// What is the same for IGMP and MLD, once for each.
#[derive(Debug)]
struct Side {
    host: Host,
    /// The Request that is not answered yet.
    ask: Option<Ask>,
    /// The last valid Membership Query.
    grant: Option<Grant>,
    /// Which flags were answered last, by place in [`Gateway::flags`].
    manner: usize,
    /// The driver wants the relay asked even with nothing joined.
    is_wanted: bool,
    /// Something was reported to the relay, at the address that it knows us by.
    is_reported: bool,
    /// The relay was said to be usable.
    is_connected: bool,
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// No Relay Advertisement yet (RFC 7450 §5.2.3.4.3).
    Discovery,
    /// No Membership Query yet (§5.2.3.5.3).
    Request(Family),
    /// The query timer (§5.2.3.5.5).
    Refresh(Family),
    /// Reports that the host repeats (RFC 3376 §5.1).
    Host(Family),
    /// A Teardown that is repeated (RFC 7450 §5.2.3.7.2).
    Farewell,
    /// A channel of which nothing has come (RFC 8777 §3.3.4.1).
    Watch(IpAddr, Option<IpAddr>),
}

impl Gateway {
    /// A gateway that has joined nothing and asked nobody. `place` is the relay, or with `discovery_first` the address where it
    /// is asked for. `key` must be random.
    #[must_use]
    pub fn new(config: Config, place: SocketAddr, discovery_first: bool, key: [u8; 16]) -> Self {
        let place = canonical(place);
        let side = |family, salt: u8| {
            let limits = host::Config {
                groups_max: config.groups_max,
                sources_max: config.sources_max,
                ..host::Config::tunnel()
            };
            Side {
                host: Host::new(limits, family, key.map(|octet| octet ^ salt)),
                ask: None,
                grant: None,
                manner: 0,
                is_wanted: false,
                is_reported: false,
                is_connected: false,
            }
        };
        Self {
            random: Random::new(key),
            phase: if discovery_first { Phase::Discovering { at: place, ask: None } } else { Phase::Known(place) },
            v4: side(Family::V4, 0x04),
            v6: side(Family::V6, 0x06),
            config,
            last_update: None,
            farewells: Vec::new(),
            watches: BTreeMap::new(),
            timers: Deadlines::new(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Asks the relay for a family with nothing joined: an attempt at a connection, of which nothing is reported.
    pub fn connect(&mut self, family: Family, now: Instant) {
        self.side_mut(family).is_wanted = true;
        self.want(family, now);
    }

    /// Replaces what is wanted of a group; [`Filter::nothing`] leaves it.
    ///
    /// # Errors
    /// [`Refusal`]: nothing is changed then.
    pub fn set_filter(&mut self, group: IpAddr, filter: Filter, now: Instant) -> Result<(), Refusal> {
        if self.phase == Phase::Closed {
            return Ok(());
        }
        Unfit::check_group(group)?;
        for source in filter.sources() {
            Unfit::check_source(group, *source)?;
        }
        if filter.is_exclude() && is_ssm(group) {
            return Err(Unfit::SsmWithoutSource(group).into());
        }
        let family = Family::of(group);
        let joins = !filter.is_nothing();
        self.side_mut(family).host.set(now, group, filter)?;
        self.rewatch(group, now);
        self.flush(family, now);
        if joins {
            self.want(family, now);
        }
        Ok(())
    }

    /// Takes one datagram. A packet that is wanted comes back, without what follows it in the datagram.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &'a [u8],
    ) -> Option<castgate_wire::ip::Packet<&'a [u8]>> {
        self.counters.datagrams_in += 1;
        self.counters.bytes_in += datagram.len() as u64;
        let from = canonical(from);
        match self.receive(now, from, datagram) {
            Ok(packet) => packet,
            Err(reason) => {
                self.counters.drops.add(reason);
                None
            }
        }
    }

    fn receive<'a>(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &'a [u8],
    ) -> Result<Option<castgate_wire::ip::Packet<&'a [u8]>>, Reason> {
        match Repr::parse(datagram)? {
            Repr::Data { .. } => {
                let packet = self.takes(from, datagram)?;
                self.handle_data(now, packet.source(), packet.destination());
                return Ok(Some(packet));
            }
            Repr::Advertisement { nonce, relay } => self.advertised(now, from, nonce, relay)?,
            Repr::Query { mac, nonce, flags, gateway, packet } => {
                self.queried(now, from, Grant { mac, nonce, gateway, robustness: 1 }, flags, packet)?;
            }
            Repr::Discovery { .. } | Repr::Request { .. } | Repr::Update { .. } | Repr::Teardown { .. } => {
                return Err(Reason::Unexpected);
            }
        }
        Ok(None)
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Discovery => self.discover_again(now),
                Timer::Request(family) => self.ask_again(family, now),
                Timer::Refresh(family) => self.refresh(family, now),
                Timer::Host(family) => {
                    self.side_mut(family).host.handle_timeout(now);
                    self.flush(family, now);
                }
                Timer::Farewell => self.repeat_farewells(now),
                Timer::Watch(group, source) => self.look_at(group, source, now),
            }
        }
    }

    /// The next thing to do or to know, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The relay, once it is known.
    #[must_use]
    pub fn relay(&self) -> Option<SocketAddr> {
        match self.phase {
            Phase::Known(relay) => Some(relay),
            Phase::Discovering { .. } | Phase::Closed => None,
        }
    }

    /// Whether the relay has answered for a family and may be reported to.
    #[must_use]
    pub fn is_connected(&self, family: Family) -> bool {
        self.side(family).grant.is_some()
    }

    /// Our address and port as the relay last told them; `None` from relays that do not.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        [&self.v4, &self.v6].into_iter().find_map(|side| side.grant.as_ref()?.gateway)
    }

    /// What is joined, in order.
    pub fn groups(&self) -> impl Iterator<Item = (IpAddr, &Filter)> {
        self.v4.host.groups().chain(self.v6.host.groups())
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn side(&self, family: Family) -> &Side {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn side_mut(&mut self, family: Family) -> &mut Side {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// The sets of flags of a Request, in the order in which they are tried.
    fn flags(&self, family: Family) -> &'static [RequestFlags] {
        const IGMP: &[RequestFlags] = &[RequestFlags::ECN, RequestFlags::IGMP];
        const MLD: &[RequestFlags] =
            &[RequestFlags::MLD.with(RequestFlags::ECN), RequestFlags::MLD, RequestFlags::LINUX_MLD];
        let flags = match family {
            Family::V4 => IGMP,
            Family::V6 => MLD,
        };
        if self.config.ecn { flags } else { &flags[1..] }
    }

    fn transmit(&mut self, to: SocketAddr, message: &Repr<'_>) {
        self.send(to, message.to_vec());
    }

    fn send(&mut self, to: SocketAddr, datagram: Vec<u8>) {
        self.counters.datagrams_out += 1;
        self.counters.bytes_out += datagram.len() as u64;
        self.outputs.push_back(Output::Transmit { to, datagram });
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}
