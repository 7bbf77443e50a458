//! The socket: made from [`Options`], never blocking, closed when dropped.
//!
//! Owns the descriptor and the options. Memberships are in `multicast`, steering in `steer`, batches in `recv` and `send`.

use crate::raw::{int_option, level_of, set_option};
use crate::{MulticastOut, Options, TooLong, steer};
use socket2::{Domain, Protocol, Socket, Type};
use std::ffi::c_int;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};

/// `linux/udp.h`; the C library's bindings have no name for them.
const UDP_NO_CHECK6_TX: c_int = 101;
/// See [`UDP_NO_CHECK6_TX`].
const UDP_NO_CHECK6_RX: c_int = 102;

/// A UDP socket over IPv4 or over IPv6 alone that never blocks.
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
        let family = options.bind.ip();
        let socket = new_socket(family)?;
        socket.set_reuse_port(options.reuse_port)?;
        socket.set_reuse_address(options.reuse_address)?;
        if let Some(bytes) = options.receive_buffer_bytes {
            set_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, bytes)?;
        }
        if let Some(bytes) = options.send_buffer_bytes {
            set_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, bytes)?;
        }
        let names = Names::of(family);
        for (name, on) in [
            (names.multicast_all, options.multicast_all),
            (names.receive_ttl, options.receive_ttl),
            (names.receive_traffic_class, options.receive_traffic_class),
            (names.receive_packet_info, options.receive_packet_info),
        ] {
            set_option(&socket, level_of(family), name, &c_int::from(on))?;
        }
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &c_int::from(options.count_overflow))?;
        set_too_long(&socket, family, options.too_long)?;
        if options.zero_checksum {
            set_zero_checksum(&socket, family)?;
        }
        if options.take_zero_checksum && family.is_ipv6() {
            set_option(&socket, libc::SOL_UDP, UDP_NO_CHECK6_RX, &1_i32)?;
        }
        if let Some(out) = options.multicast_out {
            set_multicast_out(&socket, family, out)?;
        }
        socket.bind(&options.bind.into())?;
        Ok(Self { socket })
    }

    /// A socket that is bound to nothing and so receives nothing: it holds memberships for groups of the family of `group`.
    ///
    /// # Errors
    /// What the kernel says: descriptors are used up, or it has no such family.
    pub fn for_memberships(group: IpAddr) -> io::Result<Self> {
        Ok(Self { socket: new_socket(group)? })
    }

    /// The address the socket is bound to, with the port the kernel chose.
    ///
    /// # Errors
    /// What the kernel says; none is known for a bound socket.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()?.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
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
    pub fn send_to(&self, datagram: &[u8], to: impl Into<SocketAddr>) -> io::Result<()> {
        self.socket.send_to(datagram, &to.into().into()).map(drop)
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
pub(crate) fn set_buffer(socket: &Socket, force: c_int, plain: c_int, bytes: usize) -> io::Result<()> {
    let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    set_option(socket, libc::SOL_SOCKET, force, &bytes)
        .or_else(|_not_permitted| set_option(socket, libc::SOL_SOCKET, plain, &bytes))
}

fn new_socket(family: IpAddr) -> io::Result<Socket> {
    let domain = if family.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    if family.is_ipv6() {
        // Each family has sockets of its own: an IPv4 client in the clothes of IPv6 would be another client.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// What the same switches are called at the level of a family.
struct Names {
    multicast_all: c_int,
    receive_ttl: c_int,
    receive_traffic_class: c_int,
    receive_packet_info: c_int,
}

impl Names {
    const V4: Self = Self {
        multicast_all: libc::IP_MULTICAST_ALL,
        receive_ttl: libc::IP_RECVTTL,
        receive_traffic_class: libc::IP_RECVTOS,
        receive_packet_info: libc::IP_PKTINFO,
    };
    const V6: Self = Self {
        multicast_all: libc::IPV6_MULTICAST_ALL,
        receive_ttl: libc::IPV6_RECVHOPLIMIT,
        receive_traffic_class: libc::IPV6_RECVTCLASS,
        receive_packet_info: libc::IPV6_RECVPKTINFO,
    };

    const fn of(family: IpAddr) -> &'static Self {
        if family.is_ipv6() { &Self::V6 } else { &Self::V4 }
    }
}

fn set_too_long(socket: &Socket, family: IpAddr, too_long: TooLong) -> io::Result<()> {
    let mode = match too_long {
        TooLong::Fragmented => return Ok(()),
        // The numbers are the same for both families.
        TooLong::Refused => libc::IP_PMTUDISC_DO,
        TooLong::RefusedByInterface => libc::IP_PMTUDISC_PROBE,
    };
    if family.is_ipv6() {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &mode)?;
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, &1_i32)
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &mode)
    }
}

fn set_zero_checksum(socket: &Socket, family: IpAddr) -> io::Result<()> {
    if family.is_ipv6() {
        set_option(socket, libc::SOL_UDP, UDP_NO_CHECK6_TX, &1_i32)
    } else {
        set_option(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, &1_i32)
    }
}

pub(crate) fn set_multicast_out(socket: &Socket, family: IpAddr, out: MulticastOut) -> io::Result<()> {
    let MulticastOut { interface, ttl, loopback } = out;
    if family.is_ipv6() {
        socket.set_multicast_if_v6(interface)?;
        socket.set_multicast_hops_v6(u32::from(ttl))?;
        return socket.set_multicast_loop_v6(loopback);
    }
    let interface = c_int::try_from(interface).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let unspecified = libc::in_addr { s_addr: libc::INADDR_ANY };
    let request = libc::ip_mreqn { imr_multiaddr: unspecified, imr_address: unspecified, imr_ifindex: interface };
    set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &request)?;
    socket.set_multicast_ttl_v4(u32::from(ttl))?;
    socket.set_multicast_loop_v4(loopback)
}

/// Our address from which packets to `to` leave, as the routing table has it now.
///
/// # Errors
/// What the kernel says: there is no way to `to`.
pub fn address_towards(to: SocketAddr) -> io::Result<IpAddr> {
    let socket = new_socket(to.ip())?;
    // Port 0 is no destination; which other does not matter.
    socket.connect(&SocketAddr::new(to.ip(), to.port().max(1)).into())?;
    let local = socket.local_addr()?.as_socket();
    local.map(|local| local.ip()).ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
}

/// The longest IP packet that the path from `local` to `to` takes, as the kernel knows it now: the interface's limit, or less
/// when ICMP said so within the last minutes. In octets, headers included.
///
/// # Errors
/// What the kernel says: there is no way to `to`, or `local` is not ours.
pub fn path_mtu(local: IpAddr, to: SocketAddr) -> io::Result<usize> {
    // The kernel tells it for connected sockets alone.
    let socket = new_socket(local)?;
    socket.bind(&SocketAddr::new(local, 0).into())?;
    socket.connect(&to.into())?;
    let name = if local.is_ipv6() { libc::IPV6_MTU } else { libc::IP_MTU };
    int_option(&socket, level_of(local), name).map(|mtu| usize::try_from(mtu).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecvBatch;
    use crate::ready::wait_readable;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

    const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_port_of_ones_own_choice_is_told() {
        let socket = UdpSocket::bind(&Options::new(ANY_PORT)).unwrap();
        let address = socket.local_address().unwrap();
        assert_eq!(address.ip(), Ipv4Addr::LOCALHOST);
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
    fn both_families_carry_a_port_each_without_meeting() {
        let v4 = UdpSocket::bind(&Options::new(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))).unwrap();
        let port = v4.local_address().unwrap().port();
        let v6 = UdpSocket::bind(&Options::new(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0))).unwrap();
        v4.send_to(b"4", SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).unwrap();
        v6.send_to(b"6", SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0)).unwrap();
        for (socket, payload) in [(v4, b"4"), (v6, b"6")] {
            let mut batch = RecvBatch::new(4, 64);
            assert_eq!(batch.receive(&socket).unwrap(), 1);
            assert_eq!(batch.iter().next().unwrap().payload, payload);
        }
    }

    #[test]
    fn datagrams_without_a_checksum_pass_at_both_families() {
        for any_port in [ANY_PORT, SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0).into()] {
            let sender = UdpSocket::bind(&Options { zero_checksum: true, ..Options::new(any_port) }).unwrap();
            for take_zero_checksum in [false, true] {
                let options = Options { take_zero_checksum, ..Options::new(any_port) };
                let receiver = UdpSocket::bind(&options).unwrap();
                sender.send_to(b"x", receiver.local_address().unwrap()).unwrap();
                // RFC 8200 §8.1: by default, IPv6 wants one.
                let expected = usize::from(any_port.is_ipv4() || take_zero_checksum);
                assert_eq!(RecvBatch::new(4, 64).receive(&receiver).unwrap_or(0), expected);
            }
        }
    }

    #[test]
    fn the_loopback_s_limit_is_told_and_what_exceeds_it_is_refused() {
        for any_port in [ANY_PORT, SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0).into()] {
            let receiver = UdpSocket::bind(&Options::new(any_port)).unwrap();
            let to = receiver.local_address().unwrap();
            let mtu = path_mtu(any_port.ip(), to).unwrap();
            let headers = if to.is_ipv6() { 48 } else { 28 };
            // The default of 65536 is longer than IPv4 can say.
            let fits = vec![0; (mtu - headers).min(crate::DATAGRAM_BYTES_MAX)];
            for too_long in [TooLong::Refused, TooLong::RefusedByInterface] {
                let sender = UdpSocket::bind(&Options { too_long, ..Options::new(any_port) }).unwrap();
                sender.send_to(&fits, to).unwrap();
                let error = sender.send_to(&vec![0; 65_528], to).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
            }
        }
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
