//! UMTP: multicast in unicast UDP datagrams (draft-finlayson-umtp-09), with the commands and options of enhanced UMTP
//! (draft-liefooghe-castgate-02 §5).
//!
//! Owns the bytes of a tunnel datagram and nothing else. Who may send what, and what follows, is decided by the endpoint.
//!
//! ```text
//!   DATA        [ payload ........ ][ (source) cookies group port TTL S|vers|command ]   12 or 16 octets at the end
//!   PROBE, JOIN [ options ........ ][ the same trailer                               ]
//!   FLOW_DATA   [ payload .......................... ][ flow id  TTL  S|vers|command ]    4 octets at the end
//! ```
//! The very last octet of a datagram says which of these it is.

mod channel;
mod command;
pub mod frame;
pub mod option;
mod packet;
mod repr;
mod trailer;

pub use channel::{Channel, ChannelError};
pub use command::Command;
pub use packet::Packet;
pub use repr::Repr;
pub use trailer::{FlowTrailer, LONG_TRAILER_LEN, SHORT_TRAILER_LEN, Trailer, TrailerOctets};

use std::fmt;

/// The largest payload of a UDP datagram over IPv4: 65535 less 20 octets of IPv4 header and 8 of UDP header.
pub const DATAGRAM_LEN_MAX: usize = 65_507;

/// A 16-bit value that proves that its sender has heard us before; unpredictable, never an authentication by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub u16);

/// A 16-bit name for one channel inside one tunnel, given out in `JOIN_ACK` (draft-liefooghe-castgate-02 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u16);

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.0)
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.0)
    }
}

/// Why a datagram is not UMTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// Shorter than its last octet promises; holds the length found, in octets.
    #[error("a datagram of {0} octets is too short for its UMTP trailer")]
    Truncated(usize),
    /// A version other than 0.
    #[error("UMTP version {0} is not known")]
    Version(u8),
    /// The S flag on a command that has no 16-octet form.
    #[error("command {0} cannot carry a source address")]
    SourceNotAllowed(Command),
    /// `FLOW_DATA` where a 12- or 16-octet trailer was asked for; [`Repr::parse`] takes both.
    #[error("FLOW_DATA has a trailer of its own")]
    FlowData,
}

impl ParseError {
    /// The cause as a metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Truncated(_) => "truncated",
            Self::Version(_) => "version",
            Self::SourceNotAllowed(_) => "source_not_allowed",
            Self::FlowData => "flow_data",
        }
    }
}
