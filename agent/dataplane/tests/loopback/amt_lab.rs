//! An AMT relay in a network namespace of its own, with gateways made by hand and sources around it.
//!
//! Packet sockets take `CAP_NET_RAW` and IPv6 multicast on a loopback interface a route: every test here runs as root in a
//! namespace of its own thread, or says that it cannot.

use crate::lab::{LOOPBACK, Lab, PATIENCE, wait_until};
use castgate_dataplane::{AmtSettings, Settings, SourceFilter};
use castgate_udp::ready::wait_readable;
use castgate_udp::{Head, MulticastOut, Options, RecvBatch, SendBatch, UdpSocket, netns};
use castgate_wire::{ip, ipv4, udp};
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

pub const GROUP_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(232, 60, 1, 1));
pub const RELAY: Ipv4Addr = Ipv4Addr::new(127, 60, 0, 1);
pub const PORT: u16 = 5004;
/// An address of this host that is no loopback one: errors are told to it.
pub const SOURCE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

pub fn group_v6() -> IpAddr {
    "ff3e::8000:1".parse().unwrap()
}

pub fn source_v6() -> IpAddr {
    "2001:db8::7".parse().unwrap()
}

/// A gateway made by hand: a socket that an endpoint is.
pub struct Gateway {
    pub socket: UdpSocket,
    pub address: SocketAddr,
    batch: RefCell<RecvBatch>,
}

/// A Multicast Data message as a gateway gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    pub from: SocketAddr,
    pub outer_class: Option<u8>,
    /// The whole IP packet.
    pub packet: Vec<u8>,
}

/// Runs a test in a namespace with addresses of both families on its loopback interface.
pub fn in_namespace(test: impl FnOnce() + Send) {
    netns::isolated_test(|| {
        netns::ip("addr add 198.51.100.7/32 dev lo");
        netns::ip("addr add 2001:db8::7/128 dev lo nodad");
        netns::ip("-6 route add local ff00::/8 dev lo table local");
        test();
    });
}

/// A relay of both families at ports of the kernel's choice.
pub fn relay(workers: usize, change: impl FnOnce(&mut Settings)) -> Lab {
    Lab::with(RELAY, workers, |settings| {
        settings.amt = Some(AmtSettings::new(vec![SocketAddr::new(RELAY.into(), 0), "[::1]:0".parse().unwrap()]));
        change(settings);
    })
}

/// Changes what only the settings of the relay say.
pub fn amt(change: impl FnOnce(&mut AmtSettings)) -> impl FnOnce(&mut Settings) {
    |settings| change(settings.amt.as_mut().unwrap())
}

impl Lab {
    /// Our address of the family of `remote`.
    pub fn local_for(&self, remote: SocketAddr) -> SocketAddr {
        *self.dataplane.amt_listen().iter().find(|local| local.is_ipv4() == remote.is_ipv4()).unwrap()
    }

    /// An endpoint that is up, with one filter.
    pub fn endpoint(&mut self, address: impl Into<IpAddr>, group: IpAddr, filter: SourceFilter) -> Gateway {
        let gateway = Gateway::new(SocketAddr::new(address.into(), 0));
        self.table.endpoint_up(gateway.address, self.local_for(gateway.address), false);
        self.table.filter(gateway.address, group, Some(filter));
        gateway
    }

    /// Publishes the table, and waits until what `source` sends to `group` arrives at all of `gateways`. What came is thrown
    /// away.
    pub fn publish_amt(&self, source: &Source, group: IpAddr, gateways: &[&Gateway]) {
        self.dataplane.publish(self.table.build());
        for gateway in gateways {
            wait_until("the first packet", || {
                source.send(group, b"probe");
                wait_readable(&gateway.socket, Some(Duration::from_millis(10))).unwrap()
            });
        }
        // Loopback delivers within the call, but a worker may still be at it: the last probe says when it is done.
        source.send(group, b"done");
        for gateway in gateways {
            wait_until("the last probe", || gateway.receive_some().iter().any(|data| data.packet.ends_with(b"done")));
        }
    }
}

impl Gateway {
    pub fn new(address: SocketAddr) -> Self {
        let options =
            Options { receive_buffer_bytes: Some(4 << 20), receive_traffic_class: true, ..Options::new(address) };
        let socket = UdpSocket::bind(&options).unwrap();
        let address = socket.local_address().unwrap();
        Self { socket, address, batch: RefCell::new(RecvBatch::new(64, 65_535)) }
    }

    /// The next `count` messages and no more.
    pub fn receive(&self, count: usize) -> Vec<Data> {
        let mut all = Vec::new();
        while all.len() < count {
            assert!(wait_readable(&self.socket, Some(PATIENCE)).unwrap(), "{} of {count} came", all.len());
            all.extend(self.receive_some());
        }
        assert_eq!(all.len(), count, "no more than expected");
        all
    }

    /// The payloads of the next `count` messages, whose packets are sound UDP.
    pub fn payloads(&self, count: usize) -> Vec<Vec<u8>> {
        self.receive(count).iter().map(|data| payload_of(&data.packet)).collect()
    }

    pub fn receive_some(&self) -> Vec<Data> {
        let mut batch = self.batch.borrow_mut();
        if batch.receive(&self.socket).is_err() {
            return Vec::new();
        }
        let data = batch.iter().map(|datagram| {
            assert_eq!(datagram.payload[..2], [6, 0]);
            Data { from: datagram.source, outer_class: datagram.traffic_class, packet: datagram.payload[2..].to_vec() }
        });
        data.collect()
    }

    pub fn has_nothing(&self) -> bool {
        !wait_readable(&self.socket, Some(Duration::ZERO)).unwrap()
    }
}

/// A source on the same host.
pub struct Source {
    pub address: SocketAddr,
    socket: UdpSocket,
}

impl Source {
    pub fn new(address: IpAddr) -> Self {
        Self::on(LOOPBACK, address)
    }

    pub fn on(interface: u32, address: IpAddr) -> Self {
        let out = MulticastOut { interface, ttl: 32, loopback: true };
        let options = Options { multicast_out: Some(out), ..Options::new(SocketAddr::new(address, 0)) };
        let socket = UdpSocket::bind(&options).unwrap();
        Self { address: socket.local_address().unwrap(), socket }
    }

    pub fn send(&self, group: IpAddr, payload: &[u8]) {
        self.socket.send_to(payload, SocketAddr::new(group, PORT)).unwrap();
    }

    /// With a TOS or traffic class.
    pub fn send_with(&self, group: IpAddr, traffic_class: u8, payload: &[u8]) {
        let mut batch = SendBatch::new(1, 64);
        let mut filling = batch.fill();
        let head = Head::to(SocketAddr::new(group, PORT));
        filling.message_with(Head { traffic_class: Some(traffic_class), ..head }, 0);
        filling.datagram(payload, None);
        filling.send(&self.socket, |outcome| assert_eq!(outcome.sent, 1));
    }

    /// As one run of segments.
    pub fn send_run(&self, group: IpAddr, octets: &[u8], segment_bytes: u16) {
        let mut batch = SendBatch::new(1, 64);
        let mut filling = batch.fill();
        filling.message(SocketAddr::new(group, PORT), None, 0);
        filling.block(octets, segment_bytes);
        filling.send(&self.socket, |outcome| assert!(!outcome.segmentation_refused && outcome.error.is_none()));
    }
}

/// The payload of a UDP datagram in a whole packet, whose lengths and checksums are right.
pub fn payload_of(packet: &[u8]) -> Vec<u8> {
    let view = ip::Packet::new_checked(packet).unwrap();
    assert!(view.verify_checksum() && view.total_len() == packet.len());
    assert_eq!(view.protocol(), 17);
    let datagram = udp::Packet::new_checked(view.payload()).unwrap();
    assert_eq!(datagram.len(), view.payload().len());
    let sum = |octets: &[u8]| -> u64 {
        octets.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
    };
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    let pseudo = sum(addresses) + 17 + view.payload().len() as u64;
    assert!(datagram.checksum() != 0 && (pseudo + sum(view.payload())).is_multiple_of(0xffff), "the UDP checksum");
    datagram.payload().to_vec()
}

/// A whole UDP packet of IPv4, as somebody far away would have sent it.
pub fn packet(source: Ipv4Addr, group: Ipv4Addr, port: u16, fragment: ipv4::Fragment, payload: &[u8]) -> Vec<u8> {
    let datagram = udp::Repr { source_port: 40_000, destination_port: port, payload };
    let mut octets = vec![0; datagram.buffer_len()];
    datagram.emit(&mut octets, source, group);
    let repr = ipv4::Repr {
        tos: 0,
        identification: 77,
        fragment,
        ttl: 9,
        protocol: 17,
        source,
        destination: group,
        options: &[],
        payload: &octets,
    };
    let mut packet = vec![0; repr.buffer_len()];
    repr.emit(&mut packet);
    packet
}
