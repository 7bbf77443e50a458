//! Batched UDP and multicast sockets: the only crate with unsafe code.
//!
//! ```text
//!   Options ──bind──▶ UdpSocket ──recvmmsg──▶ RecvBatch   what arrived: source, TTL, interface, octets
//!                        ▲   ▲
//!      memberships ──────┘   └───sendmmsg──── SendBatch   what leaves: destination, TTL, runs of equal datagrams (GSO)
//!
//!   PacketSocket ──recvmmsg──▶ PacketBatch    whole IP multicast packets of an interface, checksums and segments finished
//!   WholeSender, Tun                           whole IP packets out, with the source that they have
//!
//!   steer     the kernel's choice among the sockets of one port, and the same function in Rust
//!   ready     wait for many sockets, and be woken by another thread
//! ```
//! Everything here is Linux and never blocks unless it says so. UDP sockets work for an ordinary user; whole packets take
//! `CAP_NET_RAW`, interfaces of our own `CAP_NET_ADMIN`. What a datagram means
//! is for others to know.

pub mod bare;
mod control;
mod interface;
mod many;
mod multicast;
pub mod netns;
mod options;
pub mod packet;
mod raw;
pub mod ready;
mod recv;
mod send;
mod socket;
mod steer;
pub mod tap;
pub mod tun;
pub mod whole;

pub use interface::{Interface, interface_mtu, interfaces};
pub use options::{MulticastOut, Options, TooLong};
pub use recv::{Datagram, RecvBatch};
pub use send::{Filling, Gso, Head, Outcome, SEGMENTS_MAX, SendBatch, Tail};
pub use socket::{UdpSocket, address_towards, path_mtu};
pub use steer::shard_of;

/// An error number of the kernel, as the batches report it for each message.
pub use rustix::io::Errno;

/// Groups that one socket may join: the kernel's default of `net.ipv4.igmp_max_memberships`, which a pod cannot change.
pub const GROUPS_PER_SOCKET_MAX: usize = 20;
/// Sources that one socket may name for a group: the kernel's default of `net.ipv4.igmp_max_msf`.
pub const SOURCES_PER_GROUP_MAX: usize = 10;
/// The largest payload of a UDP datagram over IPv4; IPv6 has room for more, which nobody needs.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;
