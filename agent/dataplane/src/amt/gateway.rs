//! Gateways: sockets at which relays above send us packets, for everybody below.
//!
//! A gateway belongs to one worker, which serves the tunnels of all workers from it: whatever their number, one copy comes down
//! from the relay. What it takes is checked against [`Rules`], which the control thread swaps.

use super::filter::SourceFilter;
use super::onward;
use super::whole::{self, DATA, Whole};
use crate::fanout::BATCH;
use crate::table::Table;
use crate::worker::{Context, Senders};
use crate::{DropReason, Event};
use arc_swap::ArcSwap;
use castgate_udp::{Datagram, Options, RecvBatch, UdpSocket};
use castgate_wire::ecn::{Ecn, decapsulate};
use castgate_wire::ip;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Types of messages that relays send beside data, by RFC 7450 §5.1: Advertisement, Membership Query.
const FROM_RELAYS: [u8; 2] = [2, 4];
/// The shortest of them.
const BYTES_MIN: usize = 12;
/// Channels of which a worker remembers that it told of them. Then it forgets them all and tells some twice.
const TOLD_MAX: usize = 1 << 16;

/// A gateway of this dataplane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(pub(crate) u64);

#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) id: GatewayId,
    pub(crate) socket: UdpSocket,
    pub(crate) address: SocketAddr,
    pub(crate) worker: usize,
    pub(crate) rules: ArcSwap<Rules>,
    overflow: AtomicU32,
}

/// What a gateway takes. Immutable: other rules are another value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// The only one who may send data.
    pub(crate) relay: Option<SocketAddr>,
    pub(crate) filters: HashMap<IpAddr, SourceFilter>,
}

/// Channels of which data has come, and the second in which that was told.
#[derive(Debug, Default)]
pub(crate) struct Told(HashMap<(GatewayId, IpAddr, IpAddr), u32>);

impl Gateway {
    pub(crate) fn open(
        id: GatewayId,
        bind: SocketAddr,
        worker: usize,
        (receive_buffer_bytes, send_buffer_bytes): (usize, usize),
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind(&Options {
            receive_buffer_bytes: Some(receive_buffer_bytes),
            send_buffer_bytes: Some(send_buffer_bytes),
            receive_traffic_class: true,
            take_zero_checksum: true,
            count_overflow: true,
            ..Options::new(bind)
        })?;
        let address = socket.local_address()?;
        Ok(Self { id, socket, address, worker, rules: ArcSwap::default(), overflow: AtomicU32::new(0) })
    }

    /// Other rules from now on.
    pub(crate) fn edit(&self, edit: impl FnOnce(&mut Rules)) {
        let mut rules = Rules::clone(&self.rules.load());
        edit(&mut rules);
        self.rules.store(rules.into());
    }
}

impl Rules {
    /// RFC 7450 §5.2.3.3, and RFC 6040 §4.2 for what congestion did outside. Changes the packet in place: ECN and one hop less.
    fn admit(&self, from: SocketAddr, traffic_class: Option<u8>, octets: &mut [u8]) -> Result<(), DropReason> {
        if self.relay != Some(from) {
            return Err(DropReason::WrongRelay);
        }
        let (source, group) = {
            let whole = Whole::parse(octets)?;
            (whole.source, whole.group)
        };
        if !self.filters.get(&group).is_some_and(|filter| filter.admits(source)) {
            return Err(DropReason::NotWanted);
        }
        // Of any value, and zero in what we send.
        octets[..DATA.len()].copy_from_slice(&DATA);
        let mut packet = ip::Packet::new_checked(&mut octets[DATA.len()..]).map_err(|_| DropReason::Malformed)?;
        let inner = packet.ecn();
        let ecn =
            decapsulate(inner, Ecn::of_traffic_class(traffic_class.unwrap_or(0))).ok_or(DropReason::Congestion)?;
        if ecn != inner {
            packet.set_ecn(ecn);
        }
        one_hop_less(&mut packet)
    }
}

/// What a router does; the end of a packet that goes in a circle of relays.
pub(crate) fn one_hop_less(packet: &mut ip::Packet<&mut [u8]>) -> Result<(), DropReason> {
    match packet.hop_limit() {
        0 | 1 => Err(DropReason::TimeToLive),
        hops => {
            packet.set_hop_limit(hops - 1);
            Ok(())
        }
    }
}

/// Takes in one batch from a gateway's socket.
pub(crate) fn handle(
    context: &Context,
    table: &Table,
    gateway: &Gateway,
    received: &mut RecvBatch,
    senders: &mut Senders,
    told: &mut Told,
) {
    let count = match received.receive(&gateway.socket) {
        Ok(count) => count,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
        Err(_refused) => return context.cells().drop_packets(DropReason::ReceiveFailed, 1),
    };
    if let Some(overflow) = received.overflow() {
        let lost = overflow.wrapping_sub(gateway.overflow.swap(overflow, Relaxed));
        context.cells().drop_packets(DropReason::ReceiveBufferFull, lost.into());
    }
    let rules = gateway.rules.load();
    let mut admitted = [false; BATCH];
    for (number, place) in admitted.iter_mut().enumerate().take(count) {
        let Datagram { source, traffic_class, truncated, payload, .. } = received.datagram(number);
        let verdict = match payload.first() {
            Some(6) if !truncated => rules.admit(source, traffic_class, received.payload_mut(number)),
            Some(kind) if FROM_RELAYS.contains(kind) && payload.len() >= BYTES_MIN && !truncated => {
                let passed = context.shared.events.gateway(gateway.id, source, payload, rules.relay == Some(source));
                context.count_refusal(passed);
                continue;
            }
            _ => Err(DropReason::Malformed),
        };
        match verdict {
            Ok(()) => *place = true,
            Err(reason) => context.cells().drop_packets(reason, 1),
        }
    }
    let mut packets = [Whole::NONE; BATCH];
    let mut count = 0;
    for (datagram, _) in received.iter().zip(admitted).filter(|(_, admitted)| *admitted) {
        if let Ok(packet) = Whole::parse(datagram.payload) {
            packets[count] = packet;
            count += 1;
        }
    }
    whole::by_channel(&packets[..count], |of_channel| {
        told.tell(context, gateway.id, &of_channel[0]);
        onward::send(context, table, senders, of_channel);
    });
}

impl Told {
    /// Tells once a second that a channel lives.
    fn tell(&mut self, context: &Context, gateway: GatewayId, packet: &Whole<'_>) {
        let second = context.second();
        let key = (gateway, packet.source, packet.group);
        if self.0.get(&key) == Some(&second) {
            return;
        }
        if self.0.len() >= TOLD_MAX {
            self.0.clear();
        }
        let event = Event::GatewayData { gateway, source: packet.source, group: packet.group };
        let passed = context.shared.events.notice(event);
        if passed.is_ok() {
            self.0.insert(key, second);
        }
        context.count_refusal(passed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castgate_wire::ipv4;
    use std::net::Ipv4Addr;

    #[test]
    fn data_is_taken_from_the_relay_in_wanted_channels_and_from_nobody_else() {
        let group = IpAddr::from([232, 1, 2, 3]);
        let relay = SocketAddr::from(([192, 0, 2, 1], 2268));
        let filters = HashMap::from([(group, SourceFilter::include([[10, 0, 0, 7].into()]))]);
        let rules = Rules { relay: Some(relay), filters };
        let admit = |from, source: [u8; 4], group: [u8; 4], ttl| {
            let mut octets = data(source, group, ttl, 0);
            octets[1] = 0xff;
            rules.admit(from, Some(0), &mut octets).map(|()| octets)
        };
        let octets = admit(relay, [10, 0, 0, 7], [232, 1, 2, 3], 9).unwrap();
        let whole = Whole::parse(&octets).unwrap();
        assert_eq!((whole.hop_limit, &whole.octets[..2]), (8, &[6, 0][..]));
        let other_port = SocketAddr::new(relay.ip(), 2269);
        assert_eq!(admit(other_port, [10, 0, 0, 7], [232, 1, 2, 3], 9), Err(DropReason::WrongRelay));
        assert_eq!(admit(relay, [10, 0, 0, 8], [232, 1, 2, 3], 9), Err(DropReason::NotWanted));
        assert_eq!(admit(relay, [10, 0, 0, 7], [232, 1, 2, 4], 9), Err(DropReason::NotWanted));
        assert_eq!(admit(relay, [10, 0, 0, 7], [10, 1, 2, 3], 9), Err(DropReason::NotMulticast));
        assert_eq!(admit(relay, [10, 0, 0, 7], [232, 1, 2, 3], 1), Err(DropReason::TimeToLive));
        assert_eq!(
            Rules::default().admit(relay, None, &mut data([10, 0, 0, 7], [232, 1, 2, 3], 9, 0)),
            Err(DropReason::WrongRelay)
        );
    }

    /// RFC 6040 §4.2, figure 4: rows are the inner field, columns the outer; 4 stands for a drop.
    #[test]
    fn congestion_outside_reaches_the_packet_as_the_table_says() {
        const NOT: u8 = 0;
        const ECT1: u8 = 1;
        const ECT0: u8 = 2;
        const CE: u8 = 3;
        const DROP: u8 = 4;
        let outer = [NOT, ECT0, ECT1, CE];
        let group = IpAddr::from([232, 1, 2, 3]);
        let relay = SocketAddr::from(([192, 0, 2, 1], 2268));
        let filters = HashMap::from([(group, SourceFilter::exclude([]))]);
        let rules = Rules { relay: Some(relay), filters };
        for (inner, row) in [
            (NOT, [NOT, NOT, NOT, DROP]),
            (ECT0, [ECT0, ECT0, ECT1, CE]),
            (ECT1, [ECT1, ECT1, ECT1, CE]),
            (CE, [CE, CE, CE, CE]),
        ] {
            for (outer, expected) in outer.into_iter().zip(row) {
                let mut octets = data([10, 0, 0, 7], [232, 1, 2, 3], 9, 0xb8 | inner);
                let admitted = rules.admit(relay, Some(0x20 | outer), &mut octets);
                if expected == DROP {
                    assert_eq!(admitted, Err(DropReason::Congestion));
                } else {
                    admitted.unwrap();
                    let whole = Whole::parse(&octets).expect("its checksum follows");
                    assert_eq!(whole.traffic_class, 0xb8 | expected, "{inner} in {outer}");
                }
            }
        }
    }

    fn data(source: [u8; 4], group: [u8; 4], ttl: u8, tos: u8) -> Vec<u8> {
        let repr = ipv4::Repr {
            tos,
            identification: 7,
            fragment: ipv4::Fragment::default(),
            ttl,
            protocol: 17,
            source: Ipv4Addr::from(source),
            destination: Ipv4Addr::from(group),
            options: &[],
            payload: b"hello",
        };
        let mut octets = vec![0; 2 + repr.buffer_len()];
        octets[..2].copy_from_slice(&DATA);
        repr.emit(&mut octets[2..]);
        octets
    }
}
