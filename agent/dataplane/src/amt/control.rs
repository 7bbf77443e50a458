//! What arrives at the relay's sockets: for the control thread, all of it.

use super::listen;
use crate::DropReason;
use crate::table::Table;
use crate::worker::Context;
use castgate_udp::{Datagram, RecvBatch};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

/// Types of messages that gateways send, by RFC 7450 §5.1: Discovery, Request, Membership Update, Teardown.
const FROM_GATEWAYS: [u8; 4] = [1, 3, 5, 7];
/// The shortest of them.
const BYTES_MIN: usize = 8;

/// Takes in one batch from this worker's socket of a listener.
pub(crate) fn handle(context: &Context, table: &Table, listener: usize, received: &mut RecvBatch) {
    let Some(listener) = context.shared.amt.listeners.get(listener) else { return };
    match received.receive(&listener.sockets[context.index]) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
        Err(_refused) => return context.cells().drop_packets(DropReason::ReceiveFailed, 1),
    }
    if let Some(overflow) = received.overflow() {
        let before = listener.overflow[context.index].swap(overflow, Relaxed);
        context.cells().drop_packets(DropReason::ReceiveBufferFull, overflow.wrapping_sub(before).into());
    }
    for datagram in received.iter() {
        let is_message = datagram.payload.len() >= BYTES_MIN && FROM_GATEWAYS.contains(&datagram.payload[0]);
        if datagram.truncated || !is_message {
            context.cells().drop_packets(DropReason::Malformed, 1);
            continue;
        }
        let local = local_of(listener, &datagram);
        let known = table.endpoints.get(&datagram.source).map(|entry| &entry.leg.endpoint.share);
        let passed = context.shared.events.amt(local, datagram.source, datagram.payload, known);
        context.count_refusal(passed);
    }
}

/// The address of ours that the datagram was sent to.
fn local_of(listener: &listen::Listener, datagram: &Datagram<'_>) -> SocketAddr {
    let mut local = listener.address;
    if local.ip().is_unspecified()
        && let Some(destination) = datagram.destination
    {
        local.set_ip(destination);
    }
    local
}
