//! Questions and answers: where is the relay, and what does it let us report with.

use super::{Event, Gateway, Phase, Reason, Timer};
use castgate_wire::amt::{Nonce, QueryFlags, Repr, ResponseMac};
use castgate_wire::membership::{self, Family, Message, Query};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A query interval of nothing would be a busy loop (RFC 3376 §4.1.7: it says nothing then).
const REFRESH_MIN: Duration = Duration::from_secs(1);
const REFRESH_DEFAULT: Duration = Duration::from_secs(125);

/// A question that is not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    nonce: Nonce,
    /// Tries without an answer so far.
    tries: u32,
    /// The flags of the first try, by their place; a Relay Discovery has none.
    manner: usize,
}

/// What a Membership Query allows: to report with its MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) mac: ResponseMac,
    pub(super) nonce: Nonce,
    /// Us, as the relay sees us.
    pub(super) gateway: Option<SocketAddr>,
    /// How often to say what may be lost.
    pub(super) robustness: u8,
}

impl Gateway {
    /// Asks for a relay, or the relay, unless that was done already.
    pub(super) fn want(&mut self, family: Family, now: Instant) {
        match self.phase {
            Phase::Discovering { ask: None, .. } => self.discover(now),
            Phase::Known(_) if self.side(family).grant.is_none() && self.side(family).ask.is_none() => {
                self.ask(family, now);
            }
            Phase::Discovering { .. } | Phase::Known(_) | Phase::Closed => {}
        }
    }

    /// Relay Discovery with a new nonce (RFC 7450 §5.2.3.4.2).
    fn discover(&mut self, now: Instant) {
        let ask = Ask { nonce: Nonce(self.random.nonce()), tries: 0, manner: 0 };
        self.send_discovery(ask, now);
    }

    fn send_discovery(&mut self, ask: Ask, now: Instant) {
        let Phase::Discovering { at, .. } = self.phase else { return };
        self.phase = Phase::Discovering { at, ask: Some(ask) };
        self.counters.discoveries += 1;
        self.transmit(at, &Repr::Discovery { nonce: ask.nonce });
        let wait = self.wait(ask.tries);
        self.timers.arm(Timer::Discovery, now + wait);
    }

    /// The same nonce again (RFC 7450 §5.2.3.4.5).
    pub(super) fn discover_again(&mut self, now: Instant) {
        let Phase::Discovering { at, ask: Some(ask) } = self.phase else { return };
        let tries = ask.tries.saturating_add(1);
        self.unanswered(at, tries);
        self.send_discovery(Ask { tries, ..ask }, now);
    }

    fn wait(&mut self, tries: u32) -> Duration {
        self.random.back_off(self.config.timeout_initial, self.config.timeout_max, tries)
    }

    fn unanswered(&mut self, relay: SocketAddr, tries: u32) {
        if tries.is_multiple_of(self.config.tries_max.get()) {
            self.event(Event::Unanswered { relay, tries });
        }
    }

    /// Relay Advertisement (RFC 7450 §5.2.3.4.4).
    pub(super) fn advertised(
        &mut self,
        now: Instant,
        from: SocketAddr,
        nonce: Nonce,
        relay: IpAddr,
    ) -> Result<(), Reason> {
        let Phase::Discovering { at, ask: Some(ask) } = self.phase else { return Err(Reason::Unasked) };
        if from != at {
            return Err(Reason::Stranger);
        }
        if nonce != ask.nonce {
            return Err(Reason::WrongNonce);
        }
        let is_broadcast = matches!(relay, IpAddr::V4(address) if address.is_broadcast());
        if relay.is_ipv4() != at.is_ipv4() || relay.is_multicast() || relay.is_unspecified() || is_broadcast {
            return Err(Reason::BadRelay);
        }
        let mut known = at;
        known.set_ip(relay);
        self.phase = Phase::Known(known);
        self.timers.disarm(Timer::Discovery);
        self.event(Event::Advertised { relay: known });
        for family in [Family::V4, Family::V6] {
            let side = self.side(family);
            if side.is_wanted || side.host.groups().next().is_some() {
                self.want(family, now);
            }
        }
        Ok(())
    }

    /// Starts the membership query procedure (RFC 7450 §5.2.3.5.2), for both families if both have something to report.
    ///
    /// They share a nonce: the Linux relay keeps one MAC for each gateway, that of the last Request, and would take no Update
    /// with the one before.
    pub(super) fn ask(&mut self, family: Family, now: Instant) {
        let other = match family {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        };
        let running = self.side(other).ask.map(|ask| ask.nonce);
        let nonce = running.unwrap_or_else(|| Nonce(self.random.nonce()));
        let has_more = self.side(other).grant.is_some() && self.side(other).host.groups().next().is_some();
        let families = [Some(family), (running.is_none() && has_more).then_some(other)];
        for family in families.into_iter().flatten() {
            let manner = self.first_manner(family);
            self.send_request(family, Ask { nonce, tries: 0, manner }, now);
        }
    }

    /// The flags of a first try: what one family has shown about E holds for the other.
    fn first_manner(&self, family: Family) -> usize {
        let sides = [&self.v4, &self.v6];
        let takes_ecn = sides.into_iter().any(|side| side.is_connected && side.manner == 0);
        let drops_ecn = sides.into_iter().any(|side| side.manner > 0);
        match (self.config.ecn, takes_ecn, drops_ecn) {
            (true, true, _) => 0,
            (true, false, true) => self.side(family).manner.max(1),
            (true, false, false) | (false, ..) => self.side(family).manner,
        }
    }

    /// The same nonce again (RFC 7450 §5.2.3.5.6), perhaps with other flags.
    pub(super) fn ask_again(&mut self, family: Family, now: Instant) {
        let (Phase::Known(relay), Some(ask)) = (self.phase, self.side(family).ask) else { return };
        let tries = ask.tries.saturating_add(1);
        self.unanswered(relay, tries);
        self.send_request(family, Ask { tries, ..ask }, now);
    }

    fn send_request(&mut self, family: Family, ask: Ask, now: Instant) {
        let Phase::Known(relay) = self.phase else { return };
        let flags = self.flags(family)[self.manner_of(family, ask)];
        self.side_mut(family).ask = Some(ask);
        self.timers.disarm(Timer::Refresh(family));
        self.counters.requests += 1;
        self.transmit(relay, &Repr::Request { nonce: ask.nonce, flags });
        let wait = self.wait(ask.tries);
        self.timers.arm(Timer::Request(family), now + wait);
    }

    /// Which flags a try goes out with: from those that were answered last on, round and round.
    fn manner_of(&self, family: Family, ask: Ask) -> usize {
        let rounds = usize::try_from(ask.tries / self.config.tries_per_flags).unwrap_or_default();
        (ask.manner + rounds) % self.flags(family).len()
    }

    /// Membership Query (RFC 7450 §5.2.3.5.4).
    pub(super) fn queried(
        &mut self,
        now: Instant,
        from: SocketAddr,
        grant: Grant,
        flags: QueryFlags,
        packet: &[u8],
    ) -> Result<(), Reason> {
        let Phase::Known(relay) = self.phase else { return Err(Reason::Unasked) };
        if from != relay {
            return Err(Reason::Stranger);
        }
        let asked = [Family::V4, Family::V6].map(|family| self.side(family).ask);
        if asked.into_iter().flatten().next().is_none() {
            return Err(Reason::Unasked);
        }
        if !asked.into_iter().flatten().any(|ask| ask.nonce == grant.nonce) {
            return Err(Reason::WrongNonce);
        }
        let received = membership::parse(packet).map_err(|_| Reason::NotQuery)?;
        let Message::Query(query) = received.message else { return Err(Reason::NotQuery) };
        let family = Family::of(received.destination);
        let ask = self.side(family).ask.filter(|ask| ask.nonce == grant.nonce).ok_or(Reason::NotQuery)?;
        let version = match family {
            Family::V4 => 3,
            Family::V6 => 2,
        };
        if query.version != version || query.group.is_some() || !query.sources.is_empty() {
            return Err(Reason::NotQuery);
        }
        self.counters.queries += 1;
        let manner = self.manner_of(family, ask);
        let side = self.side_mut(family);
        side.ask = None;
        side.manner = manner;
        self.timers.disarm(Timer::Request(family));
        let grant = Grant { robustness: query.robustness.max(1), ..grant };
        let gateway = grant.gateway.map(super::canonical);
        self.granted(now, relay, family, Grant { gateway, ..grant }, flags, (received.source, &query));
        Ok(())
    }

    fn granted(
        &mut self,
        now: Instant,
        relay: SocketAddr,
        family: Family,
        grant: Grant,
        flags: QueryFlags,
        (source, query): (IpAddr, &Query),
    ) {
        self.notice_address(now, relay, family, grant.gateway);
        if flags.limit() {
            let in_use = self.is_in_use();
            self.event(Event::Limited { relay, in_use });
            if !in_use {
                // RFC 7450 §5.2.3.5.4: no more Requests to this relay; whoever finds relays finds another.
                self.side_mut(family).grant = None;
                return;
            }
        }
        let side = self.side_mut(family);
        side.grant = Some(grant);
        let is_first = !std::mem::replace(&mut side.is_connected, true);
        if is_first && !flags.limit() {
            self.event(Event::Connected { relay, family });
        }
        let side = self.side_mut(family);
        let was_reported = side.is_reported;
        side.host.handle_message(now, source, &Message::Query(query.clone()));
        if !was_reported {
            // A change is repeated against loss, the answer to a query is not: what the relay does not know yet is told as a change.
            while side.host.poll_output().is_some() {}
            side.host.announce(now);
        }
        self.flush(family, now);
        self.rewatch_all(family, now);
        self.timers.arm(Timer::Refresh(family), now + self.refresh_interval(query.interval));
    }

    fn refresh_interval(&self, told: Duration) -> Duration {
        let told = if told.is_zero() { REFRESH_DEFAULT } else { told.max(REFRESH_MIN) };
        self.config.refresh_max.map_or(told, |longest| told.min(longest.max(REFRESH_MIN)))
    }

    /// The query timer: the next cycle, if there is anything to report. Otherwise the MAC is given up, for it grows old.
    pub(super) fn refresh(&mut self, family: Family, now: Instant) {
        let side = self.side_mut(family);
        if side.host.groups().next().is_some() {
            self.ask(family, now);
        } else {
            side.grant = None;
            side.is_reported = false;
        }
    }

    /// What we sent came back as ICMP Destination Unreachable (RFC 7450 §5.2.3.9): questions are repeated anyway, and where an
    /// Update may have been lost a new cycle begins.
    pub fn handle_unreachable(&mut self, now: Instant) {
        for family in [Family::V4, Family::V6] {
            let side = self.side(family);
            if side.is_reported && side.ask.is_none() && side.host.groups().next().is_some() {
                self.ask(family, now);
            }
        }
    }
}
