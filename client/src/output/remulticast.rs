//! Payloads go out again as multicast on a local network, octet for octet, one datagram for one datagram.

use std::io;

use castgate_udp::{MulticastOut, Options, UdpSocket};
use std::net::{Ipv4Addr, SocketAddrV4};

use super::OutputError;
use super::spec::{OutputSpec, UdpTarget};
use crate::interface::find_interface;

/// TTL when none is written: the local network and nothing behind it.
const TTL: u8 = 1;
/// Wanted send buffer: a burst of a hundred video packets passes a slow interface without loss.
const SEND_BUFFER_BYTES: usize = 1 << 20;
/// `ENOBUFS`, which `std` has no kind for.
const DEVICE_QUEUE_FULL: i32 = castgate_udp::Errno::NOBUFS.raw_os_error();

#[derive(Debug)]
pub(super) struct Remulticast {
    socket: UdpSocket,
    to: SocketAddrV4,
}

impl Remulticast {
    pub(super) fn open(target: &UdpTarget) -> Result<Self, OutputError> {
        let failed = |error| OutputError::Send { target: target.address.to_string(), error };
        let ttl = target.ttl.unwrap_or(TTL);
        let (source, interface) = if let Some(name) = &target.interface {
            let spec = || OutputSpec::Udp(target.clone()).to_string();
            let interface = find_interface(name).map_err(|error| OutputError::Interface { spec: spec(), error })?;
            // An address says which interface, and also which of its addresses the packets come from.
            let address = name.parse().ok().or_else(|| interface.addresses.first().copied());
            (address.unwrap_or(Ipv4Addr::UNSPECIFIED), interface.index)
        } else {
            check_route(target.address).map_err(|error| OutputError::NoRoute { target: target.address, error })?;
            (Ipv4Addr::UNSPECIFIED, 0)
        };
        let options = Options {
            multicast_out: Some(MulticastOut { interface, ttl, loopback: true }),
            send_buffer_bytes: Some(SEND_BUFFER_BYTES),
            ..Options::new(SocketAddrV4::new(source, 0))
        };
        let socket = UdpSocket::bind(&options).map_err(failed)?;
        Ok(Self { socket, to: target.address })
    }

    pub(super) fn write(&mut self, payload: &[u8]) -> Result<(), OutputError> {
        match self.socket.send_to(payload, self.to) {
            Ok(()) => Ok(()),
            // A full buffer, a host that refuses, an interface that is down for a moment: this packet is lost, the next
            // one may pass.
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(OutputError::Send { target: self.to.to_string(), error }),
        }
    }
}

/// Whether the kernel would know an interface. Asked at the start: later a missing route is taken for a passing one, and
/// somebody who forgot the interface would wait for ever.
fn check_route(to: SocketAddrV4) -> io::Result<()> {
    std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.connect(to)
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::Interrupted
    ) || error.raw_os_error() == Some(DEVICE_QUEUE_FULL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use castgate_udp::RecvBatch;

    #[test]
    fn a_listener_on_the_interface_gets_the_same_octets_with_the_ttl_asked_for() {
        let group = Ipv4Addr::new(239, 88, 1, 1);
        let lo = find_interface("lo").unwrap().index;
        let options = Options { receive_ttl: true, ..Options::new(SocketAddrV4::new(group, 0)) };
        let listener = UdpSocket::bind(&options).unwrap();
        listener.join(group.into(), None, lo).unwrap();
        let port = listener.local_address().unwrap().port();
        let target = UdpTarget::parse(&format!("{group}:{port}?iface=lo&ttl=3")).unwrap();
        let payload: Vec<u8> = (0..=255).cycle().take(1316).collect();
        Remulticast::open(&target).unwrap().write(&payload).unwrap();
        let mut batch = RecvBatch::new(2, 2_048);
        batch.receive(&listener).unwrap();
        let datagrams: Vec<_> = batch.iter().collect();
        assert_eq!((datagrams.len(), datagrams[0].payload, datagrams[0].ttl), (1, &payload[..], Some(3)));
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let error = Remulticast::open(&UdpTarget::parse("239.88.1.2:5004?iface=lo77").unwrap()).unwrap_err();
        assert!(error.to_string().contains("lo77"), "{error}");
    }
}
