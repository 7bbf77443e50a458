//! What arrives at the tunnel socket: DATA of attached tunnels is multicast and relayed here, everything else is left to the
//! control thread.
//!
//! ```text
//!   DATA, right cookie, attached, may send ──┬──▶ native multicast, TTL t (capped)
//!                                            └──▶ every other tunnel of the channel, TTL t-1, if t > 0
//!   right cookie, other command ────────────────▶ control thread, first queue
//!   anything else that parses ──────────────────▶ control thread, second queue
//! ```

use crate::counters::Traffic;
use crate::fanout::{BATCH, Packet};
use crate::table::{ChannelEntry, Grant, Table, Tunnel, TunnelEntry};
use crate::worker::{Context, Senders};
use crate::{DropReason, Event};
use castgate_udp::{Datagram, RecvBatch};
use castgate_wire::umtp::{Command, ParseError, Trailer};
use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Takes in one batch from this worker's tunnel socket.
pub(crate) fn handle(context: &Context, table: &Table, received: &mut RecvBatch, senders: &mut Senders) {
    match received.receive(context.socket()) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
        Err(_refused) => return context.cells().drop_packets(DropReason::ReceiveFailed, 1),
    }
    let lost = received.overflow().map_or(0, |overflow| {
        let before = context.tunnel_overflow.swap(overflow, Relaxed);
        overflow.wrapping_sub(before)
    });
    context.cells().drop_packets(DropReason::ReceiveBufferFull, u64::from(lost));

    let mut burst = Burst::default();
    for datagram in received.iter() {
        // Tunnels are IPv4's, and so is the socket.
        let Some(from) = datagram.source_v4() else { continue };
        match judge(context, table, from, &datagram) {
            Verdict::Relay(way, packet) => {
                if !burst.continues(&way) {
                    burst.relay(context, senders);
                    burst = Burst { way: Some(way), ..Burst::default() };
                }
                burst.push(packet);
            }
            Verdict::Control { known, first } => {
                let passed = context.shared.events.control(from, datagram.payload, known, first);
                context.count_refusal(passed);
            }
            Verdict::Drop(reason) => context.cells().drop_packets(reason, 1),
        }
    }
    burst.relay(context, senders);
}

enum Verdict<'a> {
    Relay(Way<'a>, Packet<'a>),
    Control { known: Option<&'a Arc<Tunnel>>, first: bool },
    Drop(DropReason),
}

/// From which tunnel into which channel.
#[derive(Clone, Copy)]
struct Way<'a> {
    tunnel: &'a Arc<Tunnel>,
    entry: &'a ChannelEntry,
}

fn judge<'a>(context: &Context, table: &'a Table, from: SocketAddrV4, datagram: &Datagram<'a>) -> Verdict<'a> {
    if datagram.truncated {
        return Verdict::Drop(DropReason::TooLarge);
    }
    let (payload, trailer) = match Trailer::parse(datagram.payload) {
        Ok(parsed) => parsed,
        // It has no cookie to check; whether we ever gave out a flow is for the control thread to know.
        Err(ParseError::FlowData) => return Verdict::Control { known: None, first: false },
        Err(ParseError::Truncated(_) | ParseError::Version(_) | ParseError::SourceNotAllowed(_)) => {
            return Verdict::Drop(DropReason::Malformed);
        }
    };
    let Some(TunnelEntry { tunnel, grants }) = table.proven(from, trailer.destination_cookie) else {
        return Verdict::Control { known: None, first: false };
    };
    if trailer.command != Command::Data {
        return Verdict::Control { known: Some(tunnel), first: true };
    }
    match (grants.get(&trailer.channel), table.channels.get(&trailer.channel)) {
        (Some(&Grant { may_send: true, ttl_max }), Some(entry)) => {
            if payload.len() > context.shared.settings.payload_bytes_max {
                return Verdict::Drop(DropReason::TooLarge);
            }
            Verdict::Relay(Way { tunnel, entry }, Packet { payload, ttl: trailer.ttl.min(ttl_max) })
        }
        // Perhaps attached a moment ago, perhaps never: the control thread knows. A client may send as much DATA as it
        // likes, so it does not go before anybody's JOIN.
        _ => Verdict::Control { known: Some(tunnel), first: false },
    }
}

/// DATA that follows one another from one tunnel into one channel.
struct Burst<'a> {
    way: Option<Way<'a>>,
    packets: [Packet<'a>; BATCH],
    count: usize,
}

impl Default for Burst<'_> {
    fn default() -> Self {
        Self { way: None, packets: [Packet::NONE; BATCH], count: 0 }
    }
}

impl<'a> Burst<'a> {
    fn continues(&self, next: &Way<'_>) -> bool {
        self.way.is_some_and(|way| Arc::ptr_eq(way.tunnel, next.tunnel) && way.entry.channel == next.entry.channel)
    }

    fn push(&mut self, packet: Packet<'a>) {
        self.packets[self.count] = packet;
        self.count += 1;
    }

    fn relay(&self, context: &Context, senders: &mut Senders) {
        let Some(Way { tunnel, entry }) = self.way else { return };
        let packets = &self.packets[..self.count];
        let mut taken = Traffic::default();
        for packet in packets {
            taken.count(packet.payload.len());
        }
        tunnel.received.add(taken);
        context.cells().flows.tunnels_in.add(taken);
        entry.flows.tunnels_in.add(taken);
        context.note_activity(tunnel);

        let multicast = context.egress.send(&mut senders.egress, &entry.channel, packets, context.cells());
        entry.flows.native_out.add(multicast);

        // draft-finlayson-umtp-09 §6: onward with one hop less, if there is one.
        let mut onward = [Packet::NONE; BATCH];
        let mut count = 0;
        for packet in packets {
            if let Some(ttl) = packet.ttl.checked_sub(1) {
                onward[count] = Packet { ttl, ..*packet };
                count += 1;
            }
        }
        if count == 0 {
            return;
        }
        for members in &entry.members {
            let except = Some(tunnel.address);
            senders.fanout.send(context.socket(), entry, &members.legs, except, &onward[..count], context.cells());
        }
    }
}

impl Context {
    /// Tells once a second that the tunnel's client lives.
    fn note_activity(&self, tunnel: &Tunnel) {
        let second = self.second().saturating_add(1);
        if tunnel.active_second.load(Relaxed) == second {
            return;
        }
        let passed = self.shared.events.notice(Event::Activity { tunnel: tunnel.address });
        if passed.is_ok() {
            tunnel.active_second.store(second, Relaxed);
        }
        self.count_refusal(passed);
    }
}
