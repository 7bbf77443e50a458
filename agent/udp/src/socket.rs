//! The socket: made from [`Options`], never blocking, closed when dropped.
//!
//! Owns the descriptor and the options. Memberships are in `multicast`, steering in `steer`, batches in `recv` and `send`.

use crate::raw::{int_option, set_option};
use crate::{MulticastOut, Options, steer};
use socket2::{Domain, Protocol, Socket, Type};
use std::ffi::c_int;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};

/// A UDP socket over IPv4 that never blocks.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
}

impl UdpSocket {
    /// Makes a socket and binds it.
    ///
    /// # Errors
    /// What the kernel says: the address is taken or not ours, descriptors are used up, an interface does not exist.
    /// A buffer that the kernel does not grant is no error; see [`receive_buffer_bytes`](Self::receive_buffer_bytes).
    pub fn bind(options: &Options) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
        socket.set_reuse_port(options.reuse_port)?;
        socket.set_reuse_address(options.reuse_address)?;
        socket.set_multicast_all_v4(options.multicast_all)?;
        if let Some(bytes) = options.receive_buffer_bytes {
            set_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, bytes)?;
        }
        if let Some(bytes) = options.send_buffer_bytes {
            set_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, bytes)?;
        }
        set_option(&socket, libc::IPPROTO_IP, libc::IP_RECVTTL, &c_int::from(options.receive_ttl))?;
        set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, &c_int::from(options.receive_packet_info))?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &c_int::from(options.count_overflow))?;
        if let Some(out) = options.multicast_out {
            set_multicast_out(&socket, out)?;
        }
        socket.bind(&SocketAddr::V4(options.bind).into())?;
        Ok(Self { socket })
    }

    /// The address the socket is bound to, with the port the kernel chose.
    ///
    /// # Errors
    /// What the kernel says; none is known for a bound socket.
    pub fn local_address(&self) -> io::Result<SocketAddrV4> {
        let address = self.socket.local_addr()?;
        address.as_socket_ipv4().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
    }

    /// Octets of the receive buffer that the kernel granted, its own bookkeeping included.
    ///
    /// # Errors
    /// What the kernel says; none is known.
    pub fn receive_buffer_bytes(&self) -> io::Result<usize> {
        self.socket.recv_buffer_size()
    }

    /// Octets of the send buffer that the kernel granted, its own bookkeeping included.
    ///
    /// # Errors
    /// What the kernel says; none is known.
    pub fn send_buffer_bytes(&self) -> io::Result<usize> {
        self.socket.send_buffer_size()
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// What the kernel says; [`io::ErrorKind::WouldBlock`] when the send buffer is full.
    pub fn send_to(&self, datagram: &[u8], to: SocketAddrV4) -> io::Result<()> {
        self.socket.send_to(datagram, &SocketAddr::V4(to).into()).map(drop)
    }

    /// Has the kernel pick, among the first `sockets` sockets bound to this address with `reuse_port`, the one whose place
    /// in the order of binding is [`shard_of`](crate::shard_of) of the datagram's source address.
    ///
    /// # Errors
    /// What the kernel says; `InvalidInput` when this socket shares its port with none.
    pub fn steer_by_source(&self, sockets: NonZeroUsize) -> io::Result<()> {
        steer::attach(self, sockets)
    }

    /// Lets the kernel hand over several datagrams of one sender as one, for sinks that count nothing.
    ///
    /// # Errors
    /// What the kernel says: kernels before 5.0 do not know it.
    pub fn set_receive_offload(&self, on: bool) -> io::Result<()> {
        set_option(self, libc::SOL_UDP, libc::UDP_GRO, &c_int::from(on))
    }

    /// Has the kernel throw away whatever arrives from now on: a destination that costs its sender as little as can be.
    ///
    /// # Errors
    /// What the kernel says; none is known.
    pub fn discard_input(&self) -> io::Result<()> {
        const RETURN_NOTHING: socket2::SockFilter = socket2::SockFilter::new(0x06, 0, 0, 0);
        self.socket.attach_filter(&[RETURN_NOTHING])
    }

    /// Whether the kernel knows UDP GSO at all; a device may still refuse it.
    pub(crate) fn knows_segmentation(&self) -> bool {
        int_option(self, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok()
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks for a buffer beyond the administrator's limit first (which takes `CAP_NET_ADMIN`), then within it.
fn set_buffer(socket: &Socket, force: c_int, plain: c_int, bytes: usize) -> io::Result<()> {
    let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    set_option(socket, libc::SOL_SOCKET, force, &bytes)
        .or_else(|_not_permitted| set_option(socket, libc::SOL_SOCKET, plain, &bytes))
}

fn set_multicast_out(socket: &Socket, out: MulticastOut) -> io::Result<()> {
    let MulticastOut { interface, ttl, loopback } = out;
    let interface = c_int::try_from(interface).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let unspecified = libc::in_addr { s_addr: libc::INADDR_ANY };
    let request = libc::ip_mreqn { imr_multiaddr: unspecified, imr_address: unspecified, imr_ifindex: interface };
    set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &request)?;
    socket.set_multicast_ttl_v4(u32::from(ttl))?;
    socket.set_multicast_loop_v4(loopback)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecvBatch;
    use crate::ready::wait_readable;
    use std::net::Ipv4Addr;

    const ANY_PORT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);

    #[test]
    fn a_port_of_ones_own_choice_is_told() {
        let socket = UdpSocket::bind(&Options::new(ANY_PORT)).unwrap();
        let address = socket.local_address().unwrap();
        assert_eq!(*address.ip(), Ipv4Addr::LOCALHOST);
        assert_ne!(address.port(), 0);
    }

    #[test]
    fn an_address_in_use_is_refused_unless_both_share_it() {
        let shared = |bind, reuse_port| UdpSocket::bind(&Options { reuse_port, ..Options::new(bind) });
        let first = shared(ANY_PORT, true).unwrap();
        let address = first.local_address().unwrap();
        assert_eq!(shared(address, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        shared(address, true).unwrap();
    }

    #[test]
    fn buffers_grow_to_what_was_asked_for_or_to_the_limit() {
        let plain = UdpSocket::bind(&Options::new(ANY_PORT)).unwrap();
        let bytes = 64 * 1024;
        let options =
            Options { receive_buffer_bytes: Some(bytes), send_buffer_bytes: Some(bytes), ..Options::new(ANY_PORT) };
        let socket = UdpSocket::bind(&options).unwrap();
        // The kernel doubles what it grants, for its own bookkeeping.
        assert_eq!(socket.receive_buffer_bytes().unwrap(), 2 * bytes);
        assert_eq!(socket.send_buffer_bytes().unwrap(), 2 * bytes);
        assert_ne!(plain.receive_buffer_bytes().unwrap(), 2 * bytes);
    }

    #[test]
    fn what_is_sent_arrives_with_its_source() {
        let receiver = UdpSocket::bind(&Options::new(ANY_PORT)).unwrap();
        let sender = UdpSocket::bind(&Options::new(ANY_PORT)).unwrap();
        sender.send_to(b"hello", receiver.local_address().unwrap()).unwrap();

        let mut batch = RecvBatch::new(4, 64);
        wait_readable(&receiver, None).unwrap();
        assert_eq!(batch.receive(&receiver).unwrap(), 1);
        let datagram = batch.iter().next().unwrap();
        assert_eq!(datagram.source, sender.local_address().unwrap());
        assert_eq!(datagram.payload, b"hello");
    }

    #[test]
    fn a_discarding_socket_never_becomes_readable() {
        let receiver = UdpSocket::bind(&Options::new(ANY_PORT)).unwrap();
        let sender = UdpSocket::bind(&Options::new(ANY_PORT)).unwrap();
        receiver.discard_input().unwrap();
        // Loopback delivers within the call that sends.
        sender.send_to(b"hello", receiver.local_address().unwrap()).unwrap();
        let error = RecvBatch::new(1, 64).receive(&receiver).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
