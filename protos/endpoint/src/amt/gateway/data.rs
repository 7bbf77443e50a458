//! Multicast Data: whether it is ours (RFC 7450 §5.2.3.3, §6.2).

use super::{Gateway, Reason};
use castgate_wire::amt::{MessageType, Repr};
use castgate_wire::ip;
use castgate_wire::membership::Family;
use std::net::SocketAddr;

impl Gateway {
    /// The packet of a Multicast Data message if it comes from the relay, goes to a joined group and comes from a wanted source;
    /// otherwise why it is to be dropped. Its checksums and fragments are for whoever delivers it.
    ///
    /// # Errors
    /// [`Reason`], the first that applies.
    pub fn takes<'a>(&self, from: SocketAddr, datagram: &'a [u8]) -> Result<ip::Packet<&'a [u8]>, Reason> {
        if MessageType::of(datagram)? != MessageType::Data {
            return Err(Reason::Unexpected);
        }
        if self.relay() != Some(from) && self.relay() != Some(super::canonical(from)) {
            return Err(Reason::Stranger);
        }
        let Repr::Data { packet } = Repr::parse(datagram)? else { return Err(Reason::Unexpected) };
        let packet = ip::Packet::new_checked(packet).map_err(|_| Reason::NotPacket)?;
        let (source, group) = (packet.source(), packet.destination());
        if !group.is_multicast() {
            return Err(Reason::NotMulticast);
        }
        let filter = self.side(Family::of(group)).host.filter(group).ok_or(Reason::NotJoined)?;
        if !filter.admits(source) {
            return Err(Reason::WrongSource);
        }
        Ok(packet)
    }
}
