//! Batched UDP and multicast sockets: the only crate with unsafe code.
//!
//! ```text
//!   Options ──bind──▶ UdpSocket ──recvmmsg──▶ RecvBatch   what arrived: source, TTL, interface, octets
//!                        ▲   ▲
//!      memberships ──────┘   └───sendmmsg──── SendBatch   what leaves: destination, TTL, runs of equal datagrams (GSO)
//!
//!   steer     the kernel's choice among the sockets of one port, and the same function in Rust
//!   ready     wait for many sockets, and be woken by another thread
//! ```
//! Everything here is Linux and IPv4, works for an ordinary user, and never blocks unless it says so. What a datagram means
//! is for others to know.

pub mod bare;
mod control;
mod interface;
mod many;
mod multicast;
mod options;
mod raw;
pub mod ready;
mod recv;
mod send;
mod socket;
mod steer;
pub mod tap;

pub use interface::{Interface, interfaces};
pub use options::{MulticastOut, Options};
pub use recv::{Datagram, RecvBatch};
pub use send::{Filling, Gso, Outcome, SEGMENTS_MAX, SendBatch, Tail};
pub use socket::UdpSocket;
pub use steer::shard_of;

/// An error number of the kernel, as the batches report it for each message.
pub use rustix::io::Errno;

/// Groups that one socket may join: the kernel's default of `net.ipv4.igmp_max_memberships`, which a pod cannot change.
pub const GROUPS_PER_SOCKET_MAX: usize = 20;
/// Sources that one socket may name for a group: the kernel's default of `net.ipv4.igmp_max_msf`.
pub const SOURCES_PER_GROUP_MAX: usize = 10;
/// The largest payload of a UDP datagram over IPv4.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;
