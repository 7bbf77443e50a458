//! Native multicast for clients: one socket an interface, and the knowledge which multicast is our own.
//!
//! Loopback stays on, so that other programs of this host hear what clients send. Our own ingress hears it too, and knows by
//! source address and port that it went to the tunnels already.

use crate::counters::{Traffic, WorkerCells};
use crate::fanout::{Packet, count_failure};
use crate::settings::{Interface, StartError};
use castgate_udp::{MulticastOut, Options, SEGMENTS_MAX, SendBatch, UdpSocket};
use castgate_wire::umtp::Channel;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

/// The interfaces in use. Immutable: other interfaces are another value.
#[derive(Debug, Default)]
pub(crate) struct Egress {
    ways: Vec<Arc<Way>>,
}

/// One interface.
#[derive(Debug)]
struct Way {
    interface: Interface,
    socket: UdpSocket,
    local: SocketAddrV4,
}

/// Room for sending natively; one for each thread.
#[derive(Debug)]
pub(crate) struct EgressBatch(SendBatch);

impl Egress {
    /// Opens what is new among `interfaces` and keeps the sockets of what was there.
    pub(crate) fn open(
        interfaces: &[Interface],
        previous: &Self,
        send_buffer_bytes: usize,
    ) -> Result<Self, StartError> {
        let ways =
            interfaces.iter().map(|interface| match previous.ways.iter().find(|way| way.interface == *interface) {
                Some(way) => Ok(Arc::clone(way)),
                None => Way::open(interface, send_buffer_bytes).map(Arc::new),
            });
        Ok(Self { ways: ways.collect::<Result<_, _>>()? })
    }

    pub(crate) fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.ways.iter().map(|way| &way.interface)
    }

    /// Whether one of our sockets sent this.
    pub(crate) fn is_own(&self, source: SocketAddrV4) -> bool {
        self.ways.iter().any(|way| way.local == source)
    }

    /// Whether one of our sockets sent this that another one has sent too.
    pub(crate) fn is_again(&self, source: SocketAddrV4) -> bool {
        self.ways.iter().skip(1).any(|way| way.local == source)
    }

    /// Whether this is our address on one of the interfaces.
    pub(crate) fn is_own_address(&self, address: Ipv4Addr) -> bool {
        self.ways.iter().any(|way| way.interface.address == address)
    }

    /// Multicasts `packets`, at most a batch, on every interface, each with its own TTL.
    pub(crate) fn send(
        &self,
        batch: &mut EgressBatch,
        channel: &Channel,
        packets: &[Packet<'_>],
        cells: &WorkerCells,
    ) -> Traffic {
        let to = SocketAddrV4::new(channel.group, channel.port);
        let mut total = Traffic::default();
        for way in &self.ways {
            let mut filling = batch.0.fill();
            for (index, packet) in packets.iter().enumerate() {
                filling.message(to, Some(packet.ttl), index as u64);
                filling.datagram(packet.payload, None);
            }
            filling.send(&way.socket, |outcome| {
                let index = usize::try_from(outcome.tag).expect("made from a usize");
                if outcome.sent > 0 {
                    total.count(packets[index].payload.len());
                }
                count_failure(cells, outcome.failed, outcome.error);
            });
        }
        cells.flows.native_out.add(total);
        total
    }
}

impl Way {
    fn open(interface: &Interface, send_buffer_bytes: usize) -> Result<Self, StartError> {
        // TTL 0 for messages without one: a control message cannot say 0.
        let out = MulticastOut { interface: interface.index, ttl: 0, loopback: true };
        let options = Options {
            multicast_out: Some(out),
            send_buffer_bytes: Some(send_buffer_bytes),
            ..Options::new(SocketAddrV4::new(interface.address, 0))
        };
        let opened = UdpSocket::bind(&options).and_then(|socket| Ok((socket.local_address()?.port(), socket)));
        let (port, socket) = opened.map_err(|source| StartError::Interface {
            name: interface.name.clone(),
            address: interface.address,
            source,
        })?;
        Ok(Self { local: SocketAddrV4::new(interface.address, port), interface: interface.clone(), socket })
    }
}

impl EgressBatch {
    pub(crate) fn new() -> Self {
        Self(SendBatch::new(SEGMENTS_MAX, SEGMENTS_MAX))
    }
}
