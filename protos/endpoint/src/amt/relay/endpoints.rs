//! Endpoints and what they have: from the first valid Update with a group to the last group.

use super::super::{Unfit, canonical, is_ssm};
use super::limiter::Bucket;
use super::screen::{any_source, cut, is_join, screen};
use super::secret::Binding;
use super::timers::Timer;
use super::{DownReason, Endpoint, Output, Reason, Relay};
use crate::membership::Filter;
use crate::membership::router::{self, LeaveMode, Refusal, Router};
use castgate_wire::amt::{Nonce, ResponseMac};
use castgate_wire::membership::{self, Message, Record, RecordType};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Instant;

/// One gateway that has proven its address and has a group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) endpoint: Endpoint,
    pub(super) heard_at: Instant,
    /// Its Queries carry no flags.
    pub(super) is_plain: bool,
    /// The rate of answers to its Requests.
    pub(super) answers: Bucket,
    /// It was said that it is up.
    is_up: bool,
    /// ICMP Destination Unreachable since the last Update.
    unreachables: u32,
    /// How many groups it has.
    groups: usize,
    router: Router,
}

impl Relay {
    /// Membership Update (RFC 7450 §5.3.3.4).
    pub(super) fn update(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        (mac, nonce): (ResponseMac, Nonce),
        packet: &[u8],
    ) -> Result<(), Reason> {
        let proof = self.prove(now, Binding { local, remote: from, nonce, ecn: false }, mac)?;
        let received = membership::parse(packet).map_err(|_| Reason::NotReport)?;
        self.counters.updates += 1;
        let is_plain = self.hints.update(now, from);
        let messages = self.screened(received.message)?;
        let endpoint = Endpoint { local, remote: from, ecn: proof.ecn && self.config.ecn };
        if !self.hear(now, endpoint) {
            if !messages.iter().any(asks) {
                return Ok(());
            }
            self.check_room(from)?;
            self.raise(now, endpoint, is_plain);
        }
        for message in messages {
            self.apply(now, from, &message);
        }
        self.settle(now, from, DownReason::Left);
        Ok(())
    }

    /// What the rules leave of a message, one record at a time: each is held against the limits as the one before has left
    /// them.
    fn screened(&mut self, message: Message) -> Result<Vec<Message>, Reason> {
        match message {
            Message::Report(records) => Ok(records.into_iter().filter_map(|record| self.screen(record)).collect()),
            // RFC 7450 §5.3.3.4 takes reports of IGMPv2, not of IGMPv1, whose hosts leave nothing.
            Message::Query(_) | Message::OldReport { version: 1, group: IpAddr::V4(_) } => Err(Reason::NotReport),
            Message::OldReport { group, .. } => {
                Unfit::check_group(group)?;
                any_source(group, &self.permissions)?;
                Ok(vec![message])
            }
            // RFC 4604 §3.7: nor does a leave of an older version.
            Message::OldLeave { group } if is_ssm(group) => Err(Reason::SsmWithoutSource),
            Message::OldLeave { .. } => Ok(vec![message]),
        }
    }

    /// What the rules leave of a record.
    fn screen(&mut self, record: Record) -> Option<Message> {
        let counters = &mut self.counters;
        let passed = screen(record, &self.permissions, |reason| counters.drops.add(reason))?;
        Some(Message::Report(vec![passed]))
    }

    /// A valid Update has come; false when nobody is known at that address.
    fn hear(&mut self, now: Instant, endpoint: Endpoint) -> bool {
        let Some(member) = self.members.get_mut(&endpoint.remote) else { return false };
        // What the last Query has said of times holds for what is reported now.
        member.router.set_times(self.config.qrv(), self.config.query_interval);
        member.heard_at = now;
        member.unreachables = 0;
        if member.endpoint != endpoint {
            member.endpoint = endpoint;
            self.outputs.push_back(Output::EndpointUp { endpoint });
        }
        self.timers.arm(Timer::Endpoint(endpoint.remote), now + self.config.endpoint_timeout());
        true
    }

    /// Whether there is room for another endpoint (RFC 7450 §5.3.3.8).
    fn check_room(&self, remote: SocketAddr) -> Result<(), Reason> {
        if self.members.len() >= self.config.endpoints_max {
            return Err(Reason::EndpointsMax);
        }
        if self.is_limited() {
            return Err(Reason::Limited);
        }
        let (first, last) = match remote.ip() {
            IpAddr::V4(address) => (SocketAddr::from((address, 0)), SocketAddr::from((address, u16::MAX))),
            IpAddr::V6(address) => (
                SocketAddrV6::new(address, 0, 0, 0).into(),
                SocketAddrV6::new(address, u16::MAX, u32::MAX, u32::MAX).into(),
            ),
        };
        if self.members.range(first..=last).count() >= self.config.endpoints_per_address_max {
            return Err(Reason::EndpointsPerAddressMax);
        }
        Ok(())
    }

    /// Remembers a gateway. Whether it is up shows when it has a group.
    fn raise(&mut self, now: Instant, endpoint: Endpoint, is_plain: bool) {
        let member = Member {
            endpoint,
            heard_at: now,
            is_plain,
            answers: Bucket::new(now),
            is_up: false,
            unreachables: 0,
            groups: 0,
            router: Router::new(self.router_config()),
        };
        self.members.insert(endpoint.remote, member);
        self.timers.arm(Timer::Endpoint(endpoint.remote), now + self.config.endpoint_timeout());
    }

    /// An endpoint is one host: it says itself what it leaves, and nobody else has to be asked.
    fn router_config(&self) -> router::Config {
        router::Config {
            robustness: self.config.qrv(),
            groups_max: self.config.groups_per_endpoint_max,
            sources_per_group_max: self.config.sources_per_group_max,
            query_interval: self.config.query_interval,
            query_response_interval: self.config.query_response_interval,
            leave_mode: LeaveMode::Immediate,
            ..router::Config::default()
        }
    }

    /// Gives a screened message to the router of an endpoint, as far as the limits permit.
    fn apply(&mut self, now: Instant, remote: SocketAddr, message: &Message) {
        if let Some(group) = joined_group(message)
            && self.merged.filter_of(&remote, group).is_none()
            && let Err(reason) = self.check_group_room(remote, group)
        {
            return self.counters.drops.add(reason);
        }
        if let Some(member) = self.members.get_mut(&remote) {
            let before = member.router.counters().refusals.of(Refusal::SourcesMax);
            member.router.handle_message(now, remote.ip(), message);
            let refused = member.router.counters().refusals.of(Refusal::SourcesMax) - before;
            self.counters.drops.add_many(Reason::SourcesPerGroupMax, refused);
        }
        self.carry_on(remote);
    }

    fn check_group_room(&self, remote: SocketAddr, group: IpAddr) -> Result<(), Reason> {
        let groups = self.members.get(&remote).map_or(0, |member| member.groups);
        if groups >= self.config.groups_per_endpoint_max {
            return Err(Reason::GroupsPerEndpointMax);
        }
        if self.groups >= self.config.groups_max && self.merged.filter(group).is_none() {
            return Err(Reason::GroupsMax);
        }
        Ok(())
    }

    /// Carries what the router of an endpoint says into the merged filters and to the driver.
    fn carry_on(&mut self, remote: SocketAddr) {
        while let Some(output) = self.members.get_mut(&remote).and_then(|member| member.router.poll_output()) {
            match output {
                router::Output::Changed { group, filter } => self.set_filter(remote, group, filter),
                // RFC 7450 §4.1.3.1: relays ask nothing unasked.
                router::Output::Query(_) => {}
            }
        }
    }

    fn set_filter(&mut self, remote: SocketAddr, group: IpAddr, filter: Option<Filter>) {
        let had = self.merged.filter_of(&remote, group).is_some();
        if let Some(member) = self.members.get_mut(&remote) {
            if filter.is_some() && !member.is_up {
                member.is_up = true;
                self.counters.endpoints_up += 1;
                self.outputs.push_back(Output::EndpointUp { endpoint: member.endpoint });
            }
            member.groups = member.groups - usize::from(had) + usize::from(filter.is_some());
        }
        let was_wanted = self.merged.filter(group).is_some();
        let change = self.merged.set(remote, group, filter.clone());
        self.outputs.push_back(Output::Filter { remote, group, filter });
        if let Some(change) = change {
            match (was_wanted, change.filter.is_some()) {
                (false, true) => self.groups += 1,
                (true, false) => self.groups -= 1,
                (true, true) | (false, false) => {}
            }
            self.outputs.push_back(Output::Upstream { group, filter: change.filter });
        }
    }

    /// After whatever has happened to an endpoint: it ends with its last group, and its router is woken in time.
    fn settle(&mut self, now: Instant, remote: SocketAddr, reason: DownReason) {
        let Some(member) = self.members.get(&remote) else { return };
        if self.merged.of(&remote).next().is_none() {
            return self.take_down(remote, reason);
        }
        match member.router.next_timeout() {
            Some(at) => self.timers.arm(Timer::Groups(remote), at.max(now)),
            None => self.timers.disarm(Timer::Groups(remote)),
        }
    }

    /// A timer of the router of an endpoint is due.
    pub(super) fn expire(&mut self, now: Instant, remote: SocketAddr) {
        if let Some(member) = self.members.get_mut(&remote) {
            member.router.handle_timeout(now);
        }
        self.carry_on(remote);
        self.settle(now, remote, DownReason::Expired);
    }

    /// Forgets everything about an endpoint.
    pub(super) fn take_down(&mut self, remote: SocketAddr, reason: DownReason) {
        let groups: Vec<IpAddr> = self.merged.of(&remote).map(|(group, _)| group).collect();
        for group in groups {
            self.set_filter(remote, group, None);
        }
        self.timers.disarm(Timer::Endpoint(remote));
        self.timers.disarm(Timer::Groups(remote));
        if self.members.remove(&remote).is_some_and(|member| member.is_up) {
            self.counters.expiries += u64::from(reason == DownReason::Expired);
            self.outputs.push_back(Output::EndpointDown { remote, reason });
        }
    }

    /// Ends one endpoint; AMT has no word to tell its gateway. An unknown endpoint is nothing to do.
    pub fn remove(&mut self, remote: SocketAddr) {
        self.take_down(canonical(remote), DownReason::Requested);
    }

    /// Ends all endpoints (RFC 7450 §5.3.4).
    pub fn remove_all(&mut self) {
        while let Some(remote) = self.members.keys().next().copied() {
            self.take_down(remote, DownReason::Requested);
        }
    }

    /// What went to `remote` came back as ICMP Destination Unreachable, other than for its size (RFC 7450 §5.3.3.6.4).
    pub fn handle_unreachable(&mut self, remote: SocketAddr) {
        let remote = canonical(remote);
        let Some(limit) = self.config.unreachables_max else { return };
        let Some(member) = self.members.get_mut(&remote) else { return };
        member.unreachables += 1;
        if member.unreachables >= limit.get() {
            self.take_down(remote, DownReason::Unreachable);
        }
    }

    /// Holds every filter against the rules again.
    pub(super) fn reconsider(&mut self, now: Instant) {
        let remotes: Vec<SocketAddr> = self.members.keys().copied().collect();
        for remote in remotes {
            let cuts: Vec<(IpAddr, Vec<IpAddr>)> = self
                .merged
                .of(&remote)
                .filter_map(|(group, filter)| Some((group, cut(group, filter, &self.permissions)?)))
                .collect();
            for (group, sources) in cuts {
                let record = Record { kind: RecordType::ChangeToInclude, group, sources };
                self.apply(now, remote, &Message::Report(vec![record]));
            }
            self.settle(now, remote, DownReason::NotPermitted);
        }
    }
}

/// Whether a message may bring a group.
fn asks(message: &Message) -> bool {
    joined_group(message).is_some()
}

/// The group that a screened message may bring.
fn joined_group(message: &Message) -> Option<IpAddr> {
    match message {
        Message::Report(records) => records.iter().find(|record| is_join(record)).map(|record| record.group),
        Message::OldReport { group, .. } => Some(*group),
        Message::OldLeave { .. } | Message::Query(_) => None,
    }
}
