//! AMT: automatic multicast tunnelling over unicast UDP (RFC 7450 §5.1), with the ECN flag of RFC 9601.
//!
//! Owns the bytes of a tunnel datagram and nothing else; the packets inside are read by [`membership`](crate::membership) and
//! [`ip`](crate::ip). Who may send what, and what follows, is decided by relay and gateway.
//!
//! ```text
//!   0            1          2                8       12                                    (octets)
//!   | 0 | Type=1 | reserved (3)     | nonce          |                                     Relay Discovery
//!   | 0 | Type=2 | reserved (3)     | nonce          | address: 4 or 16 |                  Relay Advertisement
//!   | 0 | Type=3 | .... ..EP | reserved (2) | nonce  |                                     Request
//!   | 0 | Type=4 | .... ..LG | response MAC | nonce  | packet ... [| port | address: 16 |] Membership Query
//!   | 0 | Type=5 | reserved  | response MAC | nonce  | packet ...                          Membership Update
//!   | 0 | Type=6 | reserved  | packet ...                                                  Multicast Data
//!   | 0 | Type=7 | reserved  | response MAC | nonce  | port | address: 16 |                Teardown
//! ```
//! The Linux kernel counts the bits of the second octet from the other end: P is 0x80 there, L 0x40 and G 0x80. Both orders
//! are understood; flag octets are kept as they came, so that an endpoint can answer a peer in the peer's own order.

mod address;
mod flags;
mod repr;

pub use flags::{QueryFlags, RequestFlags};
pub use repr::{
    ADVERTISEMENT_V4_LEN, ADVERTISEMENT_V6_LEN, DATA_HEADER, DISCOVERY_LEN, GATEWAY_ADDRESS_LEN, MessageType,
    QUERY_HEADER_LEN, REQUEST_LEN, Repr, TEARDOWN_LEN, UPDATE_HEADER_LEN,
};

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The UDP port of relays (RFC 7450 §7.2).
pub const PORT: u16 = 2268;
/// Where any relay may be discovered over IPv4: 192.52.193.0/24 with its last octet set to 1 (RFC 7450 §7.1.1).
pub const ANYCAST_V4: Ipv4Addr = Ipv4Addr::new(192, 52, 193, 1);
/// Where any relay may be discovered over IPv6: `2001:3::/32` with its last octet set to 1 (RFC 7450 §7.1.2).
pub const ANYCAST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 3, 0, 0, 0, 0, 0, 1);

/// A 32-bit random value that ties an answer to its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub u32);

/// 48 bits by which a relay knows again whom it sent a Membership Query (RFC 7450 §5.3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResponseMac(pub [u8; 6]);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Display for ResponseMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// Why a datagram is not AMT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// Shorter than its type and flags promise; holds the length found, in octets.
    #[error("a datagram of {0} octets is too short for its AMT message")]
    Truncated(usize),
    /// A version other than 0, which is to be ignored.
    #[error("AMT version {0} is not known")]
    Version(u8),
    /// A type other than those of RFC 7450; holds it.
    #[error("AMT message type {0} is not known")]
    UnknownType(u8),
    /// A Relay Advertisement whose length tells no address family; holds the length found, in octets.
    #[error("a Relay Advertisement of {0} octets holds neither an IPv4 nor an IPv6 address")]
    AdvertisementLength(usize),
}

impl ParseError {
    /// The cause as a metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Truncated(_) => "amt_truncated",
            Self::Version(_) => "amt_version",
            Self::UnknownType(_) => "amt_type",
            Self::AdvertisementLength(_) => "amt_advertisement_length",
        }
    }
}
