//! The relay: any number of gateways, of which nothing is known until one has proven its address (RFC 7450 §5.3).
//!
//! ```text
//!   Relay Discovery ─▶ rate ─▶ Relay Advertisement
//!   Request ─────────▶ rate ─▶ Membership Query with a MAC over (gateway, nonce, secret)      nothing is kept
//!   Update ──▶ MAC ──▶ report ─▶ rules, limits ─▶ membership::Router of the endpoint ─▶ Filter ─▶ Merged ─▶ Upstream
//!   Teardown ▶ MAC ──▶ the endpoint that it names is gone
//! ```
//! What the RFC leaves open is decided as follows (all of it in `docs/conformance.md`):
//! * an address that has proven nothing gets one answer for each datagram, within a rate per source and one in total; a gateway with
//!   a tunnel has a rate of its own, so that a flood of strangers does not keep it from refreshing;
//! * every Update must carry a MAC, also one that changes nothing: checking costs less than finding out;
//! * an endpoint exists while it has a group. An Update without a group from nobody makes nobody;
//! * gateways that drop Queries with flags (the Linux driver) are found out and get Queries without flags;
//! * whether packets inside have a Router Alert option or which source is not looked at; checksums and lengths are;
//! * a relay without room tells so (L) and keeps whom it has.

mod config;
mod counters;
mod endpoints;
mod hints;
mod limiter;
mod output;
mod permissions;
mod screen;
mod secret;
mod timers;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use counters::{Counters, Reason};
pub use limiter::Rate;
pub use output::{DownReason, Endpoint, EndpointReport, Output};
pub use permissions::{Permissions, Permit, Sources};

use super::canonical;
use crate::deadlines::Deadlines;
use crate::membership::Filter;
use crate::membership::merge::Merged;
use castgate_wire::amt::{Nonce, QueryFlags, Repr, RequestFlags, ResponseMac};
use castgate_wire::membership::{Family, Message, Query, emit};
use endpoints::Member;
use hints::Hints;
use limiter::{Limited, Limiter};
use secret::{Binding, Secrets};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use timers::Timer;

/// A relay. See the [module](self) for what it decides and [`super`] for the contract with its driver.
#[derive(Debug)]
pub struct Relay {
    config: Config,
    permissions: Permissions,
    secrets: Secrets,
    limiter: Limiter,
    hints: Hints,
    /// The packets inside of Membership Queries, which are all alike.
    queries: Queries,
    members: BTreeMap<SocketAddr, Member>,
    merged: Merged<SocketAddr>,
    /// How many groups `merged` has.
    groups: usize,
    timers: Deadlines<Timer>,
    outputs: VecDeque<Output>,
    counters: Counters,
    is_draining: bool,
    is_limit_set: bool,
}

/// General queries as whole packets.
#[derive(Debug)]
struct Queries {
    igmp: Vec<u8>,
    mld: Vec<u8>,
}

impl Queries {
    fn new(config: &Config) -> Self {
        let packet = |family, source| {
            let mut packets = emit(&Message::Query(general_query(family, config)), source);
            packets.pop().expect("a general query is one packet")
        };
        Self {
            igmp: packet(Family::V4, config.query_source_v4.into()),
            mld: packet(Family::V6, config.query_source_v6.into()),
        }
    }
}

/// What a gateway is asked: everything, to be answered at once (RFC 7450 §5.3.3.3: a Maximum Response Code of 1).
fn general_query(family: Family, config: &Config) -> Query {
    Query {
        version: match family {
            Family::V4 => 3,
            Family::V6 => 2,
        },
        group: None,
        max_response: match family {
            Family::V4 => Duration::from_millis(100),
            Family::V6 => Duration::from_millis(1),
        },
        suppress: false,
        robustness: config.qrv().get(),
        interval: config.query_interval,
        sources: Vec::new(),
    }
}

impl Relay {
    /// A relay without endpoints and without permissions. `key` must be new and random at every start.
    #[must_use]
    pub fn new(config: Config, key: [u8; 16], now: Instant) -> Self {
        Self {
            secrets: Secrets::new(key, config.secret_life, now),
            limiter: Limiter::new(key, config.sources_remembered, now),
            hints: Hints::new(key, config.hints_remembered),
            queries: Queries::new(&config),
            config,
            permissions: Permissions::default(),
            members: BTreeMap::new(),
            merged: Merged::new(),
            groups: 0,
            timers: Deadlines::new(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            is_draining: false,
            is_limit_set: false,
        }
    }

    /// Replaces the configuration; no endpoint ends. Deadlines that run keep their time, limits hold for what comes, and what is
    /// fixed at start stays.
    pub fn set_config(&mut self, config: Config) {
        self.queries = Queries::new(&config);
        self.config = config;
    }

    /// Replaces the rules: takes back what is no longer permitted. What is permitted from now on comes with the next report of each
    /// gateway.
    pub fn set_permissions(&mut self, permissions: Permissions, now: Instant) {
        self.permissions = permissions;
        self.reconsider(now);
    }

    /// Takes no new endpoints from now on, and says so (L); whoever is there stays.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Takes no new endpoints while the flag is set, for a reason that the driver knows.
    pub fn set_limit_flag(&mut self, is_set: bool) {
        self.is_limit_set = is_set;
    }

    /// Whether new endpoints are refused: draining, told so, or full. A driver withdraws its anycast routes meanwhile (RFC 7450
    /// §5.3.3.8).
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.is_draining || self.is_limit_set || self.members.len() >= self.config.endpoints_max
    }

    /// Takes one control datagram that came from `from` to our address and port `local`.
    pub fn handle_datagram(&mut self, now: Instant, local: SocketAddr, from: SocketAddr, datagram: &[u8]) {
        self.counters.datagrams_in += 1;
        self.counters.bytes_in += datagram.len() as u64;
        if let Err(reason) = self.receive(now, canonical(local), canonical(from), datagram) {
            self.counters.drops.add(reason);
        }
    }

    fn receive(&mut self, now: Instant, local: SocketAddr, from: SocketAddr, datagram: &[u8]) -> Result<(), Reason> {
        let message = Repr::parse(datagram)?;
        if !is_answerable(from) {
            return Err(Reason::BadSender);
        }
        match message {
            Repr::Discovery { nonce } => self.advertise(now, local, from, nonce),
            Repr::Request { nonce, flags } => self.query(now, local, from, nonce, flags),
            Repr::Update { mac, nonce, packet } => self.update(now, local, from, (mac, nonce), packet),
            Repr::Teardown { mac, nonce, gateway } => self.teardown(now, local, from, (mac, nonce), gateway),
            Repr::Advertisement { .. } | Repr::Query { .. } | Repr::Data { .. } => Err(Reason::Unexpected),
        }
    }

    /// Relay Advertisement (RFC 7450 §5.3.3.2), of the family that was asked by.
    fn advertise(&mut self, now: Instant, local: SocketAddr, from: SocketAddr, nonce: Nonce) -> Result<(), Reason> {
        self.counters.discoveries += 1;
        let is_unicast = !local.ip().is_unspecified() && !self.config.anycast.contains(&local.ip());
        let configured = || self.config.unicast.iter().find(|address| address.is_ipv4() == local.is_ipv4()).copied();
        let relay = if is_unicast { Some(local.ip()) } else { configured() };
        let relay = relay.ok_or(Reason::NoAddress)?;
        self.admit(now, from)?;
        self.counters.advertisements += 1;
        self.transmit(local, from, &Repr::Advertisement { nonce, relay });
        Ok(())
    }

    /// Membership Query (RFC 7450 §5.3.3.3).
    fn query(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        nonce: Nonce,
        flags: RequestFlags,
    ) -> Result<(), Reason> {
        self.counters.requests += 1;
        self.admit(now, from)?;
        let mut is_plain = self.hints.request(now, self.config.hint_window, from, flags, nonce);
        if let Some(member) = self.members.get_mut(&from) {
            member.is_plain |= is_plain;
            is_plain = member.is_plain;
        }
        let mac = self.secrets.mac(now, &Binding { local, remote: from, nonce, ecn: flags.ecn() });
        let packet = if flags.mld() { &self.queries.mld } else { &self.queries.igmp };
        // RFC 7450 §5.3.3.3: a relay with teardown sets G in every Query, and a full one should set L. The Linux driver drops such
        // Queries, so a gateway that is found to be one gets neither.
        let flags = if self.is_limited() && !is_plain { QueryFlags::LIMIT } else { QueryFlags::NONE };
        let gateway = (self.config.teardown && !is_plain).then_some(from);
        let query = Repr::Query { mac, nonce, flags, gateway, packet }.to_vec();
        self.counters.queries += 1;
        self.counters.plain_queries += u64::from(is_plain);
        self.send(local, from, query);
        Ok(())
    }

    /// Whether `from` may be answered now. A gateway with a tunnel has a rate of its own.
    fn admit(&mut self, now: Instant, from: SocketAddr) -> Result<(), Reason> {
        let (per_source, total) = (self.config.answers_per_source, self.config.answers_total);
        if let Some(member) = self.members.get_mut(&from) {
            return if member.answers.admit(now, per_source) { Ok(()) } else { Err(Reason::SourceRate) };
        }
        self.limiter.admit(now, from.ip(), per_source, total).map_err(|limited| match limited {
            Limited::Source => Reason::SourceRate,
            Limited::Total => Reason::TotalRate,
        })
    }

    /// Teardown (RFC 7450 §5.3.3.5): the MAC is one of the endpoint that is to end, whoever sends it.
    fn teardown(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        (mac, nonce): (ResponseMac, Nonce),
        gateway: SocketAddr,
    ) -> Result<(), Reason> {
        if !self.config.teardown {
            return Err(Reason::Unexpected);
        }
        let mut remote = canonical(gateway);
        if let (SocketAddr::V6(remote), SocketAddr::V6(from)) = (&mut remote, from)
            && super::is_link_local(*remote.ip())
        {
            // The message has no room for the scope; both addresses are on the link that it came by.
            remote.set_scope_id(from.scope_id());
        }
        self.prove(now, Binding { local, remote, nonce, ecn: false }, mac)?;
        self.counters.teardowns += 1;
        self.take_down(remote, DownReason::Teardown);
        Ok(())
    }

    /// What the Request of a MAC had said, if we gave out this MAC.
    fn prove(&self, now: Instant, binding: Binding, mac: ResponseMac) -> Result<Binding, Reason> {
        self.secrets.check(now, self.config.secret_overlap(), mac, binding).ok_or(Reason::WrongMac)
    }

    fn transmit(&mut self, local: SocketAddr, to: SocketAddr, message: &Repr<'_>) {
        self.send(local, to, message.to_vec());
    }

    fn send(&mut self, local: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        self.counters.datagrams_out += 1;
        self.counters.bytes_out += datagram.len() as u64;
        self.outputs.push_back(Output::Transmit { local, to, datagram });
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

    /// All endpoints with what they have, ordered by address and port.
    #[must_use]
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = EndpointReport> + '_ {
        self.members.values().map(|member| EndpointReport {
            endpoint: member.endpoint,
            heard_at: member.heard_at,
            is_plain: member.is_plain,
            groups: self.merged.of(&member.endpoint.remote).map(|(group, filter)| (group, filter.clone())).collect(),
        })
    }

    /// What is taken in from the network: the filters of all endpoints together, by group.
    pub fn upstream(&self) -> impl Iterator<Item = (IpAddr, &Filter)> {
        self.merged.groups()
    }
}

/// Whether a datagram can be answered to where it says to come from.
fn is_answerable(from: SocketAddr) -> bool {
    let is_broadcast = matches!(from.ip(), IpAddr::V4(address) if address.is_broadcast());
    from.port() != 0 && !from.ip().is_unspecified() && !from.ip().is_multicast() && !is_broadcast
}
