//! What a socket shall be before it is bound.

use std::net::SocketAddr;

/// Settings of a [`UdpSocket`](crate::UdpSocket); `Options::new(address)` and then the fields that differ.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the kernel's, and any combination makes sense")]
pub struct Options {
    /// Local address; a group address takes only what was sent to that group, port 0 asks for any port.
    pub bind: SocketAddr,
    /// Several sockets of one user share the address; for unicast the kernel picks one of them for each datagram, or the
    /// [steering](crate::UdpSocket::steer_by_source) does. Default: off.
    pub reuse_port: bool,
    /// Several programs share the address, each taking every multicast datagram. Default: off.
    pub reuse_address: bool,
    /// Wanted receive buffer, in octets; the kernel may give less. Default: the kernel's.
    pub receive_buffer_bytes: Option<usize>,
    /// Wanted send buffer, in octets; the kernel may give less. Default: the kernel's.
    pub send_buffer_bytes: Option<usize>,
    /// Also take groups that other sockets of this host joined. Default: off, the opposite of the kernel's.
    pub multicast_all: bool,
    /// Report the TTL or hop limit with which each datagram arrived. Default: off.
    pub receive_ttl: bool,
    /// Report the TOS or traffic class with which each datagram arrived. Default: off.
    pub receive_traffic_class: bool,
    /// Report the interface and the destination address of each datagram. Default: off.
    pub receive_packet_info: bool,
    /// Report how many datagrams did not fit into the receive buffer. Default: off.
    pub count_overflow: bool,
    /// What becomes of a datagram that is longer than its path takes. Default: the kernel's settings decide.
    pub too_long: TooLong,
    /// Send no UDP checksum. The kernel then cuts no messages. Default: off.
    pub zero_checksum: bool,
    /// Take datagrams without a UDP checksum at IPv6 too (RFC 6936); at IPv4 they are always taken. Default: off.
    pub take_zero_checksum: bool,
    /// How multicast leaves. Default: as the routing table says, TTL 1, heard on this host.
    pub multicast_out: Option<MulticastOut>,
}

/// What becomes of a datagram that is longer than its path takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TooLong {
    /// The kernel's settings decide; usually it cuts the datagram into fragments.
    #[default]
    Fragmented,
    /// It is refused with `EMSGSIZE`, and what is sent cannot be fragmented on its way (DF at IPv4). The kernel learns the
    /// path's limit from ICMP: see [`path_mtu`](crate::path_mtu).
    Refused,
    /// The same, but only the first interface's limit counts, whatever ICMP says.
    RefusedByInterface,
}

/// How multicast datagrams leave through a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MulticastOut {
    /// Index of the interface.
    pub interface: u32,
    /// TTL of messages that name none; 0 never leaves the host.
    pub ttl: u8,
    /// Whether other sockets of this host hear them too.
    pub loopback: bool,
}

impl Options {
    /// The defaults, bound to `bind`.
    #[must_use]
    pub fn new(bind: impl Into<SocketAddr>) -> Self {
        Self {
            bind: bind.into(),
            reuse_port: false,
            reuse_address: false,
            receive_buffer_bytes: None,
            send_buffer_bytes: None,
            multicast_all: false,
            receive_ttl: false,
            receive_traffic_class: false,
            receive_packet_info: false,
            count_overflow: false,
            too_long: TooLong::Fragmented,
            zero_checksum: false,
            take_zero_checksum: false,
            multicast_out: None,
        }
    }
}
