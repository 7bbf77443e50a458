//! A packet that a relay above has sent, or that was injected: to everybody below, whatever the worker, once.
//!
//! ```text
//!   packets of one source and group ──┬──▶ AMT legs of every worker
//!                                     ├──▶ by UDP port: UMTP legs of (S,G,port) and (*,G,port) of every worker
//!                                     └──▶ native delivery
//! ```

use super::encap::Job;
use super::whole::Whole;
use crate::DropReason;
use crate::counters::Traffic;
use crate::fanout::{BATCH, Packet};
use crate::table::Table;
use crate::worker::{Context, Senders};
use castgate_wire::ip;
use castgate_wire::udp;
use castgate_wire::umtp::Channel;
use std::net::IpAddr;

const UDP: u8 = 17;

/// Sends packets of one source and group, at most a batch, to all who want them.
pub(crate) fn send(context: &Context, table: &Table, senders: &mut Senders, packets: &[Whole<'_>]) {
    let Some(first) = packets.first() else { return };
    let mut taken = Traffic::default();
    for packet in packets {
        taken.count(packet.packet().len());
    }
    context.cells().flows.tunnels_in.add(taken);
    let mut anybody = false;
    if let (Some(entry), Some(amt)) = (table.groups.get(&first.group), &context.shared.settings.amt) {
        anybody = true;
        entry.flows.tunnels_in.add(taken);
        for members in &entry.members {
            let legs = members.legs(first.source);
            senders.encap.send(Job { context, amt, entry, legs, packets });
        }
    }
    anybody |= send_umtp(context, table, senders, packets);
    let deliveries = context.shared.deliveries.load();
    if deliveries.admit(first.source, first.group) {
        anybody = true;
        let delivered = deliveries.send(&mut senders.delivery, packets, context.cells());
        if let Some(entry) = table.groups.get(&first.group) {
            entry.flows.native_out.add(delivered);
        }
    }
    if !anybody {
        context.cells().drop_packets(DropReason::NoMember, packets.len() as u64);
    }
}

/// To the tunnels of UMTP, whose channels have ports; whether there was a channel.
fn send_umtp(context: &Context, table: &Table, senders: &mut Senders, packets: &[Whole<'_>]) -> bool {
    let (Some(first), false) = (packets.first(), table.channels.is_empty()) else { return false };
    let (IpAddr::V4(group), IpAddr::V4(source)) = (first.group, first.source) else { return false };
    let mut of_port = [Packet::NONE; BATCH];
    let mut ports = [None; BATCH];
    for (place, packet) in ports.iter_mut().zip(packets) {
        *place = port_and_payload(packet).map_err(|reason| context.cells().drop_packets(reason, 1)).ok();
    }
    let mut anybody = false;
    for first in 0..packets.len() {
        let Some((port, _)) = ports[first] else { continue };
        if ports[..first].iter().flatten().any(|(before, _)| *before == port) {
            continue;
        }
        let mut count = 0;
        for (packet, place) in packets.iter().zip(&ports) {
            if let Some((_, payload)) =
                place.filter(|(of, payload)| *of == port && payload.len() <= context.shared.settings.payload_bytes_max)
            {
                of_port[count] = Packet { payload, ttl: packet.hop_limit };
                count += 1;
            }
        }
        for channel in [Channel::source_specific(source, group, port), Channel::any_source(group, port)] {
            let Some(entry) = table.channels.get(&channel) else { continue };
            anybody = true;
            let mut taken = Traffic::default();
            of_port[..count].iter().for_each(|packet| taken.count(packet.payload.len()));
            entry.flows.tunnels_in.add(taken);
            for members in &entry.members {
                let (socket, cells) = (context.socket(), context.cells());
                senders.fanout.send(socket, entry, &members.legs, None, &of_port[..count], cells);
            }
        }
    }
    anybody
}

/// What a UDP socket would have received of it.
fn port_and_payload<'a>(whole: &Whole<'a>) -> Result<(u16, &'a [u8]), DropReason> {
    let packet = ip::Packet::new_checked(whole.packet()).map_err(|_| DropReason::Malformed)?;
    let (ip::Packet::V4(packet), UDP) = (packet, packet.protocol()) else { return Err(DropReason::NoMember) };
    if packet.fragment().is_part() {
        return Err(DropReason::Fragment);
    }
    let datagram = &whole.packet()[packet.header_len()..packet.total_len()];
    let view = udp::Packet::new_checked(datagram).map_err(|_| DropReason::Malformed)?;
    if !view.verify_checksum(packet.source(), packet.destination()) {
        return Err(DropReason::Malformed);
    }
    Ok((view.destination_port(), &datagram[udp::HEADER_LEN..view.len()]))
}
