//! Tunnels and what they have joined: the sets E, G and `E_g` of the draft.

use super::super::cookie::LocalCookies;
use super::super::{Unfit, datagram};
use super::timers::Timer;
use super::{Cookies, DownReason, Grant, Output, Reason, Server};
use castgate_wire::umtp::{Channel, Command, Cookie, Trailer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

/// One client that has proven its address and has, or lately had, a channel.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) local: LocalCookies,
    pub(super) remote: Cookie,
    pub(super) heard_at: Instant,
    pub(super) joined: BTreeMap<Channel, Membership>,
}

/// One channel of one tunnel; its deadline is [`Timer::Join`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Membership {
    /// What the JOIN asked for, before any limit.
    asked_ttl: u8,
    /// `T_g` of the draft: stands in for the TTL of a native packet that has none.
    pub(super) ttl: u8,
    pub(super) grant: Grant,
}

impl Membership {
    fn new(asked_ttl: u8, grant: Grant) -> Self {
        Self { asked_ttl, ttl: asked_ttl.min(grant.ttl_max), grant }
    }

    fn attach(self, tunnel: SocketAddrV4, channel: Channel) -> Output {
        let Self { asked_ttl: _, ttl, grant: Grant { send, ttl_max } } = self;
        Output::Attach { tunnel, channel, ttl, ttl_max, may_send: send }
    }
}

/// `E_g`: the tunnels that have one channel joined.
pub(super) type Members = BTreeSet<SocketAddrV4>;

impl Tunnel {
    pub(super) fn cookies(&self) -> Cookies {
        Cookies { local: self.local.current, local_previous: self.local.previous, remote: self.remote }
    }
}

impl Server {
    /// Ends one tunnel, with a `TEAR_DOWN` to its client. An unknown tunnel is nothing to do.
    pub fn tear_down(&mut self, tunnel: SocketAddrV4) {
        self.dismiss(tunnel, DownReason::Requested);
    }

    /// Ends all tunnels, with a `TEAR_DOWN` to each client.
    pub fn tear_down_all(&mut self) {
        while let Some(tunnel) = self.tunnels.keys().next().copied() {
            self.dismiss(tunnel, DownReason::Requested);
        }
    }

    /// `TEAR_DOWN` to the client, and everything about it forgotten.
    pub(super) fn dismiss(&mut self, tunnel: SocketAddrV4, reason: DownReason) {
        let Some(state) = self.tunnels.get(&tunnel) else { return };
        let trailer = Trailer::without_channel(Command::TearDown, state.local.current, state.remote);
        self.counters.tear_downs += 1;
        self.transmit(tunnel, datagram(&trailer, &[]));
        self.take_down(tunnel, reason);
    }

    /// Forgets everything about a tunnel.
    pub(super) fn take_down(&mut self, tunnel: SocketAddrV4, reason: DownReason) {
        let Some(state) = self.tunnels.remove(&tunnel) else { return };
        for channel in state.joined.into_keys() {
            self.timers.disarm(Timer::Join { tunnel, channel });
            self.detach(tunnel, channel);
        }
        self.timers.disarm(Timer::Idle { tunnel });
        self.timers.disarm(Timer::Epoch { tunnel });
        self.outputs.push_back(Output::TunnelDown { tunnel, reason });
    }

    /// Takes a tunnel out of `E_g`, and the channel out of G with its last tunnel.
    fn detach(&mut self, tunnel: SocketAddrV4, channel: Channel) {
        self.outputs.push_back(Output::Detach { tunnel, channel });
        if let Some(members) = self.channels.get_mut(&channel) {
            members.remove(&tunnel);
            if members.is_empty() {
                self.channels.remove(&channel);
                self.outputs.push_back(Output::LeaveNative(channel));
            }
        }
    }

    /// Whether any tunnel ends at this address, whatever its port.
    pub(super) fn has_tunnel_at(&self, address: Ipv4Addr) -> bool {
        self.tunnels_at(address).next().is_some()
    }

    pub(super) fn tunnels_at(&self, address: Ipv4Addr) -> impl Iterator<Item = (&SocketAddrV4, &Tunnel)> {
        self.tunnels.range(SocketAddrV4::new(address, 0)..=SocketAddrV4::new(address, u16::MAX))
    }

    /// A datagram with the right cookie has come through this tunnel.
    pub(super) fn hear(&mut self, now: Instant, from: SocketAddrV4, remote: Cookie) {
        let Some(tunnel) = self.tunnels.get_mut(&from) else { return };
        tunnel.heard_at = now;
        if tunnel.remote != remote {
            tunnel.remote = remote;
            let cookies = tunnel.cookies();
            self.outputs.push_back(Output::Cookies { tunnel: from, cookies });
        }
        self.arm_idle(from);
    }

    /// The driver has forwarded `DATA` of this tunnel itself.
    pub fn handle_activity(&mut self, now: Instant, tunnel: SocketAddrV4) {
        if let Some(state) = self.tunnels.get_mut(&tunnel) {
            state.heard_at = now;
            self.arm_idle(tunnel);
        }
    }

    /// A tunnel is idle only while it has nothing joined.
    fn arm_idle(&mut self, tunnel: SocketAddrV4) {
        let Some(state) = self.tunnels.get(&tunnel) else { return };
        if state.joined.is_empty() {
            self.timers.arm(Timer::Idle { tunnel }, state.heard_at + self.config.idle_timeout);
        } else {
            self.timers.disarm(Timer::Idle { tunnel });
        }
    }

    /// The next cookie of this tunnel.
    pub(super) fn rotate(&mut self, tunnel: SocketAddrV4, now: Instant) -> LocalCookies {
        let local = self.jar.cookies(tunnel, now);
        if let Some(state) = self.tunnels.get_mut(&tunnel) {
            state.local = local;
            let cookies = state.cookies();
            self.timers.arm(Timer::Epoch { tunnel }, local.until);
            self.outputs.push_back(Output::Cookies { tunnel, cookies });
        }
        local
    }

    /// `JOIN_GROUP`: begins a join or prolongs it.
    pub(super) fn join(
        &mut self,
        now: Instant,
        from: SocketAddrV4,
        trailer: &Trailer,
        channel: Channel,
    ) -> Result<(), Reason> {
        let channel = Unfit::check(channel)?;
        let deadline = now + self.config.join_timeout;
        let tunnel = self.tunnels.get(&from);
        if tunnel.is_some_and(|tunnel| tunnel.joined.contains_key(&channel)) {
            self.counters.refreshes += 1;
            self.timers.arm(Timer::Join { tunnel: from, channel }, deadline);
            return Ok(());
        }
        let grant = self.grant(channel).ok_or(Reason::NotPermitted)?;
        match tunnel {
            None if self.tunnels.len() >= self.config.tunnels_max => return Err(Reason::TunnelsMax),
            Some(tunnel) if tunnel.joined.len() >= self.config.channels_per_tunnel_max => {
                return Err(Reason::ChannelsPerTunnelMax);
            }
            None if self.config.channels_per_tunnel_max == 0 => return Err(Reason::ChannelsPerTunnelMax),
            Some(_) | None => {}
        }
        if self.channels.len() >= self.config.channels_max && !self.channels.contains_key(&channel) {
            return Err(Reason::ChannelsMax);
        }
        self.raise(now, from, trailer.source_cookie);
        let members = self.channels.entry(channel).or_default();
        if members.is_empty() {
            self.outputs.push_back(Output::JoinNative(channel));
        }
        members.insert(from);
        let membership = Membership::new(trailer.ttl, grant);
        if let Some(tunnel) = self.tunnels.get_mut(&from) {
            tunnel.joined.insert(channel, membership);
        }
        self.counters.joins += 1;
        self.outputs.push_back(membership.attach(from, channel));
        self.timers.arm(Timer::Join { tunnel: from, channel }, deadline);
        self.timers.disarm(Timer::Idle { tunnel: from });
        Ok(())
    }

    /// Remembers a client from its first join on.
    fn raise(&mut self, now: Instant, from: SocketAddrV4, remote: Cookie) {
        if self.tunnels.contains_key(&from) {
            return;
        }
        let local = self.jar.cookies(from, now);
        let tunnel = Tunnel { local, remote, heard_at: now, joined: BTreeMap::new() };
        self.outputs.push_back(Output::TunnelUp { tunnel: from, cookies: tunnel.cookies() });
        self.timers.arm(Timer::Epoch { tunnel: from }, local.until);
        self.tunnels.insert(from, tunnel);
    }

    /// `JOIN_RTP_GROUP`: two joins that know nothing of each other, so that each can be left, or refused, alone.
    pub(super) fn join_rtp(&mut self, now: Instant, from: SocketAddrV4, trailer: &Trailer) -> Result<(), Reason> {
        let first = Unfit::check(trailer.channel)?;
        let second = Unfit::check_rtcp(first)?;
        let joined = self.join(now, from, trailer, first);
        self.join(now, from, trailer, second).and(joined)
    }

    /// `LEAVE_GROUP`. One that is repeated finds nothing to leave, and that is well.
    pub(super) fn leave(&mut self, from: SocketAddrV4, channel: Channel) {
        if self.unjoin(from, channel) {
            self.counters.leaves += 1;
        }
    }

    pub(super) fn leave_rtp(&mut self, from: SocketAddrV4, first: Channel) -> Result<(), Reason> {
        let second = Unfit::check_rtcp(first)?;
        self.leave(from, first);
        self.leave(from, second);
        Ok(())
    }

    /// Ends one join; false when there is none.
    pub(super) fn unjoin(&mut self, from: SocketAddrV4, channel: Channel) -> bool {
        let was_joined = self.tunnels.get_mut(&from).is_some_and(|tunnel| tunnel.joined.remove(&channel).is_some());
        if was_joined {
            self.timers.disarm(Timer::Join { tunnel: from, channel });
            self.detach(from, channel);
            self.arm_idle(from);
        }
        was_joined
    }

    /// What the rules and the limits of the server grant.
    fn grant(&self, channel: Channel) -> Option<Grant> {
        let Grant { send, ttl_max } = self.permissions.grant(channel)?;
        Some(Grant { send, ttl_max: ttl_max.min(self.config.ttl_max) })
    }

    /// Holds every join against the rules again.
    pub(super) fn reconsider(&mut self) {
        let grants: BTreeMap<Channel, Option<Grant>> =
            self.channels.keys().map(|channel| (*channel, self.grant(*channel))).collect();
        for (channel, grant) in grants {
            let members = self.channels.get(&channel).cloned().unwrap_or_default();
            for tunnel in members {
                match grant {
                    None => {
                        self.unjoin(tunnel, channel);
                    }
                    Some(grant) => self.adjust(tunnel, channel, grant),
                }
            }
        }
    }

    fn adjust(&mut self, tunnel: SocketAddrV4, channel: Channel, grant: Grant) {
        let membership = self.tunnels.get_mut(&tunnel).and_then(|state| state.joined.get_mut(&channel));
        if let Some(membership) = membership {
            let adjusted = Membership::new(membership.asked_ttl, grant);
            if *membership != adjusted {
                *membership = adjusted;
                self.outputs.push_back(adjusted.attach(tunnel, channel));
            }
        }
    }
}
