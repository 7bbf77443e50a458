//! Payloads: from a client upstream, from the network downstream, and the loop between the two.

use super::super::{Unfit, datagram};
use super::{DownReason, LoopCheck, Output, Reason, Server};
use castgate_wire::umtp::{Channel, Command, Trailer};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

impl Server {
    /// `DATA` with the right cookie from a tunnel: to the network and to the other tunnels of the channel.
    ///
    /// The draft multicasts whatever comes, to whatever address: a reflector for anybody with a cookie. Here the sender must have
    /// joined the channel and the rules must let clients send to it.
    pub(super) fn relay_upstream(
        &mut self,
        from: SocketAddrV4,
        trailer: &Trailer,
        payload: &[u8],
    ) -> Result<(), Reason> {
        let channel = Unfit::check(trailer.channel)?;
        let membership =
            self.tunnels.get(&from).and_then(|tunnel| tunnel.joined.get(&channel)).ok_or(Reason::NotJoined)?;
        if !membership.grant.send {
            return Err(Reason::MayNotSend);
        }
        let ttl = trailer.ttl.min(membership.grant.ttl_max);
        self.counters.data += 1;
        self.outputs.push_back(Output::Multicast { channel, ttl, payload: payload.to_vec() });
        self.relay(channel, Some(from), Some(ttl), payload);
        Ok(())
    }

    /// A multicast packet that another host sent natively (draft-finlayson-umtp-09, local event 4).
    ///
    /// `destination` is group and port, `ttl` the received TTL where the system tells it. Packets that this server sent
    /// itself must not be handed in: by its own port, not by its address, the driver knows them.
    pub fn handle_native(
        &mut self,
        now: Instant,
        destination: SocketAddrV4,
        source: Ipv4Addr,
        ttl: Option<u8>,
        payload: &[u8],
    ) {
        let any_source = Channel::any_source(*destination.ip(), destination.port());
        if self.break_loop(now, any_source, source) {
            return self.counters.drops.add(Reason::Loop);
        }
        let from_source = Channel::source_specific(source, *destination.ip(), destination.port());
        for channel in [any_source, from_source] {
            self.relay(channel, None, ttl, payload);
        }
    }

    /// The driver saw a native packet of `channel` whose source is the address of a tunnel.
    pub fn handle_loop(&mut self, now: Instant, channel: Channel, source: Ipv4Addr) {
        if self.break_loop(now, channel, source) {
            self.counters.drops.add(Reason::Loop);
        }
    }

    /// `DATA` to every tunnel of the channel but one. Each hop costs a TTL; nothing goes on with TTL 0.
    fn relay(&mut self, channel: Channel, except: Option<SocketAddrV4>, ttl: Option<u8>, payload: &[u8]) {
        let Some(members) = self.channels.get(&channel) else { return };
        for to in members.iter().filter(|member| Some(**member) != except) {
            let Some(tunnel) = self.tunnels.get(to) else { continue };
            let Some(membership) = tunnel.joined.get(&channel) else { continue };
            let Some(ttl) = ttl.unwrap_or(membership.ttl).checked_sub(1) else { continue };
            let trailer = Trailer {
                source_cookie: tunnel.local.current,
                destination_cookie: tunnel.remote,
                channel,
                ttl,
                command: Command::Data,
            };
            let octets = datagram(&trailer, payload);
            self.counters.datagrams_out += 1;
            self.counters.bytes_out += octets.len() as u64;
            self.outputs.push_back(Output::Transmit { to: *to, datagram: octets });
        }
    }

    /// Tears down the tunnels that a packet from `source` convicts of a loop; false when there are none.
    ///
    /// A client that comes back and loops again is torn down at most once per interval; its packets are not relayed meanwhile.
    fn break_loop(&mut self, now: Instant, channel: Channel, source: Ipv4Addr) -> bool {
        if self.config.loop_check == LoopCheck::Off || self.config.own_addresses.contains(&source) {
            return false;
        }
        let convicted: Vec<SocketAddrV4> = self
            .tunnels_at(source)
            .filter(|(_, tunnel)| match self.config.loop_check {
                LoopCheck::Off => false,
                LoopCheck::Endpoint => tunnel.joined.keys().any(|joined| joined.group == channel.group),
                LoopCheck::Address => true,
            })
            .map(|(tunnel, _)| *tunnel)
            .collect();
        let found = !convicted.is_empty();
        if found && self.loops.admit(SocketAddrV4::new(source, 0), self.config.loop_interval, now) {
            for tunnel in convicted {
                self.dismiss(tunnel, DownReason::Loop);
            }
        }
        found
    }
}
