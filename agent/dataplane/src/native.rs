//! Native datagrams on their way into tunnels: what one ingress socket has, sorted by channel, weeded, fanned out.

use crate::counters::Traffic;
use crate::fanout::{BATCH, Packet};
use crate::ingress::IngressSocket;
use crate::table::{ChannelEntry, Table};
use crate::worker::{Context, Senders};
use crate::{DropReason, Event};
use castgate_udp::{Datagram, RecvBatch};
use std::io;
use std::net::Ipv4Addr;

/// Takes in one batch from `member` and sends it to this worker's tunnels.
pub(crate) fn forward(
    context: &Context,
    table: &Table,
    member: &mut IngressSocket,
    received: &mut RecvBatch,
    senders: &mut Senders,
) {
    let count = match received.receive(&member.socket) {
        Ok(count) => count,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
        Err(_refused) => return context.cells().drop_packets(DropReason::ReceiveFailed, 1),
    };
    let lost = member.lost_since(received.overflow());
    context.cells().drop_packets(DropReason::ReceiveBufferFull, u64::from(lost));
    if !member.is_source_specific() {
        return forward_channel(context, table, member, senders, received.iter());
    }
    // A source-specific socket holds up to ten channels, told apart by the source. Each keeps its order.
    let mut sources = [Ipv4Addr::UNSPECIFIED; BATCH];
    for (place, datagram) in sources.iter_mut().zip(received.iter()) {
        *place = address_of(&datagram);
    }
    for first in 0..count {
        let source = sources[first];
        if !sources[..first].contains(&source) {
            let of_source = received.iter().filter(|datagram| address_of(datagram) == source);
            forward_channel(context, table, member, senders, of_source);
        }
    }
}

/// The same for datagrams of one channel.
fn forward_channel<'a>(
    context: &Context,
    table: &Table,
    member: &IngressSocket,
    senders: &mut Senders,
    datagrams: impl Iterator<Item = Datagram<'a>>,
) {
    let mut datagrams = datagrams.peekable();
    let Some(first) = datagrams.peek() else { return };
    let channel = member.channel_of(address_of(first));
    let Some(entry) = table.channels.get(&channel) else {
        return context.cells().drop_packets(DropReason::NoMember, datagrams.count() as u64);
    };
    let mut gate = Gate { context, table, entry, verdict: None };
    let mut packets = [Packet::NONE; BATCH];
    let mut count = 0;
    let mut taken = Traffic::default();
    for datagram in datagrams {
        taken.count(datagram.payload.len());
        match gate.pass(&datagram) {
            Ok(packet) => {
                packets[count] = packet;
                count += 1;
            }
            Err(reason) => context.cells().drop_packets(reason, 1),
        }
    }
    // Every worker with a member has its own copy; one of them counts.
    if entry.counting_worker() == Some(context.index) {
        context.cells().flows.native_in.add(taken);
        entry.flows.native_in.add(taken);
    }
    let legs = &entry.members[context.index].legs;
    senders.fanout.send(context.socket(), entry, legs, None, &packets[..count], context.cells());
}

/// Ingress sockets are IPv4's.
fn address_of(datagram: &Datagram<'_>) -> Ipv4Addr {
    datagram.source_v4().map_or(Ipv4Addr::UNSPECIFIED, |source| *source.ip())
}

/// Decides which native datagrams of a channel go on.
struct Gate<'a> {
    context: &'a Context,
    table: &'a Table,
    entry: &'a ChannelEntry,
    /// Whether the last source was a client. Neighbours in a batch mostly share their source.
    verdict: Option<(Ipv4Addr, bool)>,
}

impl Gate<'_> {
    fn pass<'a>(&mut self, datagram: &Datagram<'a>) -> Result<Packet<'a>, DropReason> {
        let context = self.context;
        if datagram.source_v4().is_some_and(|source| context.egress.is_own(source)) {
            return Err(DropReason::Own);
        }
        if datagram.truncated || datagram.payload.len() > context.shared.settings.payload_bytes_max {
            return Err(DropReason::TooLarge);
        }
        // draft-finlayson-umtp-09 §7: the received TTL less one. The kernel always tells it; were it not to, the datagram
        // would be one that reached us and goes no further than the client.
        let ttl = datagram.ttl.unwrap_or(1).checked_sub(1).ok_or(DropReason::TimeToLive)?;
        if self.is_loop(address_of(datagram)) {
            return Err(DropReason::Loop);
        }
        Ok(Packet { payload: datagram.payload, ttl })
    }

    /// draft-finlayson-umtp-09 §10, rule 2: multicast from the address of a tunnel's client. castgate UMTP notes: only if
    /// that tunnel has the channel, and never for an address of this host. Told once a batch and source.
    fn is_loop(&mut self, source: Ipv4Addr) -> bool {
        match self.verdict {
            Some((of, verdict)) if of == source => verdict,
            _ => {
                let verdict = self.table.loop_check
                    && !self.context.is_own_address(source)
                    && self.table.is_client(self.entry, source);
                self.verdict = Some((source, verdict));
                if verdict {
                    self.context.lossy(Event::Loop { channel: self.entry.channel, source });
                }
                verdict
            }
        }
    }
}
