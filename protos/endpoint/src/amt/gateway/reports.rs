//! What is told to the relay: Updates, and Teardowns of tunnels that are no longer ours.

use super::handshake::Grant;
use super::{Event, Gateway, Output, Phase, Timer};
use castgate_wire::amt::Repr;
use castgate_wire::membership::{Family, Message, Record, RecordType, emit};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Time between Teardowns (RFC 7450 §5.2.3.7.2).
const FAREWELL_INTERVAL: Duration = Duration::from_secs(1);

/// Last words, which are said more than once.
#[derive(Debug)]
pub(super) struct Farewell {
    to: SocketAddr,
    datagrams: Vec<Vec<u8>>,
    times_left: u8,
    again_at: Instant,
}

impl Gateway {
    /// Sends what the host of a family has to say, as far as the relay lets us: without a Query a report waits for it, and what is
    /// then the state of things is told (RFC 7450 §5.2.3.6.1).
    pub(super) fn flush(&mut self, family: Family, now: Instant) {
        while let Some(message) = self.side_mut(family).host.poll_output() {
            self.report(family, &message);
        }
        match self.side(family).host.next_timeout() {
            Some(at) => self.timers.arm(Timer::Host(family), at.max(now)),
            None => self.timers.disarm(Timer::Host(family)),
        }
    }

    /// Membership Updates (RFC 7450 §5.2.3.6.2).
    fn report(&mut self, family: Family, message: &Message) {
        let relay = match (self.phase, self.side(family).grant) {
            (Phase::Known(relay), Some(grant)) => Some((relay, grant)),
            (Phase::Known(_) | Phase::Discovering { .. } | Phase::Closed, _) => None,
        };
        let Some((relay, grant)) = relay else { return };
        // Limits the relay to what it keeps anyway: with nothing to report there is nothing to say (RFC 7450 §5.2.3.5.1).
        if matches!(message, Message::Report(records) if records.is_empty()) {
            return;
        }
        for packet in emit(message, self.report_source(family)) {
            self.counters.updates += 1;
            self.transmit(relay, &Repr::Update { mac: grant.mac, nonce: grant.nonce, packet: &packet });
        }
        self.last_update = Some(grant);
        self.side_mut(family).is_reported = true;
    }

    fn report_source(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.config.report_source_v4.into(),
            Family::V6 => self.config.report_source_v6.into(),
        }
    }

    /// Whether the relay holds groups of ours.
    pub(super) fn is_in_use(&self) -> bool {
        [&self.v4, &self.v6].into_iter().any(|side| side.is_reported && side.host.groups().next().is_some())
    }

    /// Compares what the relay sees with what it saw (RFC 7450 §5.2.3.7.1).
    pub(super) fn notice_address(
        &mut self,
        now: Instant,
        relay: SocketAddr,
        family: Family,
        gateway: Option<SocketAddr>,
    ) {
        let Some(last) = self.last_update else { return };
        let (Some(from), Some(to)) = (last.gateway, gateway) else { return };
        if from == to {
            return;
        }
        self.last_update = None;
        if self.config.teardown && self.is_in_use() {
            self.tear_down(now, relay, last, from);
        }
        // The tunnel is another one: nothing is reported there, and no MAC of the old address counts.
        for side in [&mut self.v4, &mut self.v6] {
            side.is_reported = false;
            side.grant = None;
        }
        self.event(Event::AddressChanged { from, to });
        let other = match family {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        };
        if self.side(other).host.groups().next().is_some() && self.side(other).ask.is_none() {
            self.ask(other, now);
        }
    }

    /// Teardown (RFC 7450 §5.2.3.7.2), and its repeats as often as the relay's robustness says.
    fn tear_down(&mut self, now: Instant, relay: SocketAddr, grant: Grant, gateway: SocketAddr) {
        let Grant { mac, nonce, robustness, .. } = grant;
        let teardown = Repr::Teardown { mac, nonce, gateway }.to_vec();
        self.counters.teardowns += 1;
        self.say_farewell(now, relay, vec![teardown], robustness);
    }

    fn say_farewell(&mut self, now: Instant, to: SocketAddr, datagrams: Vec<Vec<u8>>, times_left: u8) {
        self.farewells.push(Farewell { to, datagrams, times_left, again_at: now });
        self.repeat_farewells(now);
    }

    pub(super) fn repeat_farewells(&mut self, now: Instant) {
        let mut due = Vec::new();
        for farewell in self.farewells.iter_mut().filter(|farewell| farewell.again_at <= now) {
            farewell.times_left = farewell.times_left.saturating_sub(1);
            farewell.again_at = now + FAREWELL_INTERVAL;
            due.extend(farewell.datagrams.iter().map(|datagram| (farewell.to, datagram.clone())));
        }
        self.farewells.retain(|farewell| farewell.times_left > 0);
        for (to, datagram) in due {
            self.send(to, datagram);
        }
        match self.farewells.iter().map(|farewell| farewell.again_at).min() {
            Some(at) => self.timers.arm(Timer::Farewell, at),
            None => self.timers.disarm(Timer::Farewell),
        }
    }

    /// Leaves everything (RFC 7450 §5.2.3.8): by Teardown where the relay tells our address, by Updates elsewhere. What is
    /// repeated comes by [`handle_timeout`](Self::handle_timeout) until [`is_finished`](Self::is_finished); a driver in a hurry may
    /// stop after the first outputs.
    pub fn shut_down(&mut self, now: Instant) {
        let Phase::Known(relay) = self.phase else {
            self.close();
            return;
        };
        let told = self.last_update.and_then(|last| Some((last, last.gateway?)));
        match told.filter(|_| self.config.teardown && self.is_in_use()) {
            Some((last, gateway)) => self.tear_down(now, relay, last, gateway),
            None => self.leave_all(now, relay),
        }
        self.close();
    }

    /// Says for every group that nothing of it is wanted any more.
    fn leave_all(&mut self, now: Instant, relay: SocketAddr) {
        let mut datagrams = Vec::new();
        let mut robustness = 1;
        for family in [Family::V4, Family::V6] {
            let side = self.side(family);
            let Some(grant) = side.grant.filter(|_| side.is_reported) else { continue };
            let leave = |group| Record { kind: RecordType::ChangeToInclude, group, sources: Vec::new() };
            let records: Vec<Record> = side.host.groups().map(|(group, _)| leave(group)).collect();
            if records.is_empty() {
                continue;
            }
            robustness = robustness.max(grant.robustness);
            for packet in emit(&Message::Report(records), self.report_source(family)) {
                datagrams.push(Repr::Update { mac: grant.mac, nonce: grant.nonce, packet: &packet }.to_vec());
            }
        }
        if !datagrams.is_empty() {
            self.counters.updates += datagrams.len() as u64;
            self.say_farewell(now, relay, datagrams, robustness);
        }
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.watches.clear();
        let farewell_at = self.farewells.iter().map(|farewell| farewell.again_at).min();
        self.timers = crate::deadlines::Deadlines::new();
        if let Some(at) = farewell_at {
            self.timers.arm(Timer::Farewell, at);
        }
        self.outputs.retain(|output| matches!(output, Output::Transmit { .. }));
    }

    /// Whether nothing is left to be said after [`shut_down`](Self::shut_down).
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Closed && self.farewells.is_empty()
    }
}
