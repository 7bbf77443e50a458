//! Payloads that go upstream: of this host's applications, and of other hosts that the driver listens to.

use super::super::{LoopCheck, datagram};
use super::link::Phase;
use super::{Client, Joined, LostReason, SendError};
use castgate_wire::umtp::{Channel, Command, DATAGRAM_LEN_MAX, Trailer};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

impl Client {
    /// Sends a payload of this host to a joined channel (draft-finlayson-umtp-09, local event 3). `ttl` is that of the
    /// application's packet.
    ///
    /// # Errors
    /// [`SendError`] when nothing was sent.
    pub fn send(&mut self, channel: Channel, ttl: u8, payload: &[u8]) -> Result<(), SendError> {
        let ttl = ttl.checked_sub(1).ok_or(SendError::TtlZero)?;
        if !self.channels.contains_key(&channel) {
            return Err(SendError::NotJoined(channel));
        }
        let Phase::Up(link) = &self.phase else { return Err(SendError::NoServer) };
        let trailer = link.trailer(Command::Data, channel, ttl);
        if payload.len() + trailer.buffer_len() > DATAGRAM_LEN_MAX {
            return Err(SendError::TooLong(payload.len()));
        }
        let to = link.server;
        self.transmit(to, datagram(&trailer, payload));
        Ok(())
    }

    /// Sends a multicast packet of another host upstream (local event 4). `destination` is group and port, `ttl` the received
    /// TTL where the system tells it. What this client multicast itself must not be handed in.
    ///
    /// # Errors
    /// [`SendError`] when nothing was sent; [`SendError::Loop`] when the packet convicts the tunnel of a loop and ends it.
    pub fn handle_native(
        &mut self,
        now: Instant,
        destination: SocketAddrV4,
        source: Ipv4Addr,
        ttl: Option<u8>,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let any_source = Channel::any_source(*destination.ip(), destination.port());
        self.break_loop(now, any_source, source)?;
        let from_source = Channel { source: Some(source), ..any_source };
        let channel = [any_source, from_source].into_iter().find(|channel| self.channels.contains_key(channel));
        let channel = channel.ok_or(SendError::NotJoined(any_source))?;
        let default_ttl = match self.channels.get(&channel) {
            Some(Joined::Asked { options, .. }) => options.ttl,
            Some(Joined::Rtcp) | None => self.config.ttl,
        };
        self.send(channel, ttl.unwrap_or(default_ttl), payload)
    }

    fn break_loop(&mut self, now: Instant, channel: Channel, source: Ipv4Addr) -> Result<(), SendError> {
        let Phase::Up(link) = &self.phase else { return Ok(()) };
        if *link.server.ip() != source || self.config.own_addresses.contains(&source) {
            return Ok(());
        }
        let is_loop = match self.config.loop_check {
            LoopCheck::Off => false,
            LoopCheck::Endpoint => self.channels.keys().any(|joined| joined.group == channel.group),
            LoopCheck::Address => true,
        };
        if is_loop {
            let (to, trailer) = (link.server, Trailer::without_channel(Command::TearDown, link.local, link.remote));
            self.transmit(to, datagram(&trailer, &[]));
            self.lose(LostReason::Loop, now);
            self.set_wake();
            return Err(SendError::Loop(source));
        }
        Ok(())
    }
}
