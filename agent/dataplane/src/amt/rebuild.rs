//! Whole packets for an ordinary user: UDP sockets at the ports of the channels, and headers written anew around what they
//! receive.
//!
//! What is lost: options and extension headers, the flow label, whether DF was set (it counts as off), the identification, and
//! fragments, which arrive as the datagram that they were. Ports that nobody named are not heard at all.

use super::sniff;
use super::whole::{self, DATA, Whole};
use crate::DropReason;
use crate::egress::Egress;
use crate::fanout::BATCH;
use crate::table::Table;
use crate::worker::{Context, Senders};
use castgate_udp::ready::Poller;
use castgate_udp::{DATAGRAM_BYTES_MAX, Datagram, Options, RecvBatch, UdpSocket};
use castgate_wire::{ipv4, ipv6, udp};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Octets of what stands before the payload.
const HEADERS_BYTES_MAX: usize = DATA.len() + ipv6::HEADER_LEN + udp::HEADER_LEN;

/// The sockets of one worker. The poller knows each by its place plus `first_token`.
#[derive(Debug)]
pub(crate) struct Rebuilder {
    first_token: u64,
    receive_buffer_bytes: usize,
    ports: Vec<u16>,
    ears: Vec<Ear>,
    datagram: Vec<u8>,
    packets: Vec<u8>,
    identification: u16,
}

#[derive(Debug)]
struct Ear {
    socket: UdpSocket,
    port: u16,
    overflow: u32,
}

impl Rebuilder {
    pub(crate) fn new(first_token: u64, receive_buffer_bytes: usize, ports: &[u16]) -> Self {
        let room = if ports.is_empty() { 0 } else { BATCH * (DATAGRAM_BYTES_MAX + HEADERS_BYTES_MAX) };
        Self {
            first_token,
            receive_buffer_bytes,
            ports: ports.to_vec(),
            ears: Vec::new(),
            datagram: Vec::new(),
            packets: Vec::with_capacity(room),
            identification: 0,
        }
    }

    /// Listens at all ports of both families, or with `wanted` off nowhere.
    pub(crate) fn set(&mut self, poller: &Poller, wanted: bool) -> io::Result<()> {
        if !wanted {
            // Closing takes them out of the poller too.
            self.ears.clear();
        }
        if !wanted || !self.ears.is_empty() {
            return Ok(());
        }
        for port in self.ports.clone() {
            for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
                let options = Options {
                    // Players of this host may listen at the same port.
                    reuse_address: true,
                    reuse_port: true,
                    // Memberships are held elsewhere.
                    multicast_all: true,
                    receive_ttl: true,
                    receive_traffic_class: true,
                    receive_packet_info: true,
                    receive_buffer_bytes: Some(self.receive_buffer_bytes),
                    count_overflow: true,
                    ..Options::new(SocketAddr::new(any, port))
                };
                let socket = UdpSocket::bind(&options)?;
                poller.add(&socket, self.first_token + self.ears.len() as u64)?;
                self.ears.push(Ear { socket, port, overflow: 0 });
            }
        }
        Ok(())
    }

    /// Takes in one batch from the socket of this token, if there still is one, and sends it to this worker's endpoints.
    pub(crate) fn forward(
        &mut self,
        token: u64,
        context: &Context,
        table: &Table,
        received: &mut RecvBatch,
        senders: &mut Senders,
    ) {
        let Self { first_token, ears, datagram, packets, identification, .. } = self;
        let place = usize::try_from(token - *first_token).expect("a place in a list");
        let Some(ear) = ears.get_mut(place) else { return };
        match received.receive(&ear.socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_refused) => return context.cells().drop_packets(DropReason::ReceiveFailed, 1),
        }
        let overflow = received.overflow().unwrap_or(ear.overflow);
        let lost = overflow.wrapping_sub(std::mem::replace(&mut ear.overflow, overflow));
        context.cells().drop_packets(DropReason::ReceiveBufferFull, lost.into());
        packets.clear();
        let mut ends = [0; BATCH];
        let mut count = 0;
        for received in received.iter() {
            *identification = identification.wrapping_add(1);
            match rebuild(&context.egress, &received, ear.port, *identification, datagram, packets) {
                Ok(()) => {
                    ends[count] = packets.len();
                    count += 1;
                }
                Err(reason) => context.cells().drop_packets(reason, 1),
            }
        }
        let mut wholes = [Whole::NONE; BATCH];
        let mut starts = [0; BATCH];
        starts[1..].copy_from_slice(&ends[..BATCH - 1]);
        let mut parsed = 0;
        for (start, end) in starts.into_iter().zip(ends).take(count) {
            match Whole::parse(&packets[start..end]) {
                Ok(whole) => {
                    wholes[parsed] = whole;
                    parsed += 1;
                }
                Err(reason) => context.cells().drop_packets(reason, 1),
            }
        }
        whole::by_channel(&wholes[..parsed], |of_channel| sniff::native(context, table, senders, of_channel));
    }
}

/// Writes the packet that a datagram may have come in.
fn rebuild(
    egress: &Egress,
    received: &Datagram<'_>,
    port: u16,
    identification: u16,
    datagram: &mut Vec<u8>,
    packets: &mut Vec<u8>,
) -> Result<(), DropReason> {
    let Datagram { source, ttl, traffic_class, interface, destination, truncated, payload } = *received;
    let Some(group) = destination.filter(|group| whole::leaves_its_link(*group)) else {
        return Err(DropReason::NotMulticast);
    };
    if truncated || payload.len() + HEADERS_BYTES_MAX > usize::from(u16::MAX) {
        return Err(DropReason::TooLarge);
    }
    if !egress.interfaces().any(|ours| Some(ours.index) == interface) {
        return Err(DropReason::NoMember);
    }
    if received.source_v4().is_some_and(|source| egress.is_again(source)) {
        return Err(DropReason::Own);
    }
    let repr = udp::Repr { source_port: source.port(), destination_port: port, payload };
    datagram.resize(repr.buffer_len(), 0);
    repr.emit(datagram, source.ip(), group);
    let (ttl, traffic_class) = (ttl.unwrap_or(1), traffic_class.unwrap_or(0));
    packets.extend_from_slice(&DATA);
    let start = packets.len();
    match (source.ip(), group) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let repr = ipv4::Repr {
                tos: traffic_class,
                identification,
                fragment: ipv4::Fragment::default(),
                ttl,
                protocol: ipv4::protocol::UDP,
                source,
                destination,
                options: &[],
                payload: datagram,
            };
            packets.resize(start + repr.buffer_len(), 0);
            repr.emit(&mut packets[start..]);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let repr = ipv6::Repr {
                traffic_class,
                flow_label: 0,
                next_header: ipv4::protocol::UDP,
                hop_limit: ttl,
                source,
                destination,
                payload: datagram,
            };
            packets.resize(start + repr.buffer_len(), 0);
            repr.emit(&mut packets[start..]);
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            packets.truncate(start - DATA.len());
            return Err(DropReason::Malformed);
        }
    }
    Ok(())
}
