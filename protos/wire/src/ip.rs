//! A packet of either version of IP, for packets that are carried whole.
//!
//! Owns the choice between [`ipv4`] and [`ipv6`] and nothing else. Called wherever a tunnel carries both: by the fan-out, and
//! by [`membership`](crate::membership).

use crate::ecn::Ecn;
use crate::{ipv4, ipv6};
use std::fmt;
use std::net::IpAddr;

/// Which version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Octets of an address.
    #[must_use]
    pub const fn address_len(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Why octets are no IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// No octet at all.
    #[error("an IP packet has at least one octet")]
    Empty,
    /// Neither version 4 nor 6.
    #[error("IP version {0} is neither 4 nor 6")]
    Version(u8),
    /// An IPv4 packet with a mistake.
    #[error(transparent)]
    V4(#[from] ipv4::ParseError),
    /// An IPv6 packet with a mistake.
    #[error(transparent)]
    V6(#[from] ipv6::ParseError),
}

impl ParseError {
    /// The cause as a metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Empty => "ip_empty",
            Self::Version(_) => "ip_version",
            Self::V4(error) => error.label(),
            Self::V6(error) => error.label(),
        }
    }
}

/// A packet in place, whose headers and lengths are known to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<T: AsRef<[u8]>> {
    /// Of version 4.
    V4(ipv4::Packet<T>),
    /// Of version 6.
    V6(ipv6::Packet<T>),
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Checks version, lengths and extension headers, not the checksum of an IPv4 header. What follows the packet is not
    /// looked at.
    ///
    /// # Errors
    /// [`ParseError`] with what is wrong.
    pub fn new_checked(buffer: T) -> Result<Self, ParseError> {
        match buffer.as_ref().first().ok_or(ParseError::Empty)? >> 4 {
            4 => Ok(Self::V4(ipv4::Packet::new_checked(buffer)?)),
            6 => Ok(Self::V6(ipv6::Packet::new_checked(buffer)?)),
            version => Err(ParseError::Version(version)),
        }
    }

    /// The buffer, as it was given.
    pub fn into_inner(self) -> T {
        match self {
            Self::V4(packet) => packet.into_inner(),
            Self::V6(packet) => packet.into_inner(),
        }
    }

    /// Which version.
    pub fn family(&self) -> Family {
        match self {
            Self::V4(_) => Family::V4,
            Self::V6(_) => Family::V6,
        }
    }

    /// Octets of headers and payload.
    pub fn total_len(&self) -> usize {
        match self {
            Self::V4(packet) => packet.total_len(),
            Self::V6(packet) => packet.total_len(),
        }
    }

    /// Where it comes from.
    pub fn source(&self) -> IpAddr {
        match self {
            Self::V4(packet) => packet.source().into(),
            Self::V6(packet) => packet.source().into(),
        }
    }

    /// Where it goes.
    pub fn destination(&self) -> IpAddr {
        match self {
            Self::V4(packet) => packet.destination().into(),
            Self::V6(packet) => packet.destination().into(),
        }
    }

    /// What the upper layer is, behind all extension headers.
    pub fn protocol(&self) -> u8 {
        match self {
            Self::V4(packet) => packet.protocol(),
            Self::V6(packet) => packet.upper_protocol(),
        }
    }

    /// What follows all headers; of a later fragment, its part of the datagram.
    pub fn payload(&self) -> &[u8] {
        match self {
            Self::V4(packet) => packet.payload(),
            Self::V6(packet) => packet.upper_payload(),
        }
    }

    /// Hops that the packet may still travel.
    pub fn hop_limit(&self) -> u8 {
        match self {
            Self::V4(packet) => packet.ttl(),
            Self::V6(packet) => packet.hop_limit(),
        }
    }

    /// Type of service or traffic class: differentiated services and ECN.
    pub fn traffic_class(&self) -> u8 {
        match self {
            Self::V4(packet) => packet.tos(),
            Self::V6(packet) => packet.traffic_class(),
        }
    }

    /// The ECN field.
    pub fn ecn(&self) -> Ecn {
        Ecn::of_traffic_class(self.traffic_class())
    }

    /// Which part of a datagram it carries.
    pub fn fragment(&self) -> ipv4::Fragment {
        match self {
            Self::V4(packet) => packet.fragment(),
            Self::V6(packet) => packet.fragment(),
        }
    }

    /// Whether a router alert asks every router to look at it.
    pub fn router_alert(&self) -> bool {
        match self {
            Self::V4(packet) => packet.router_alert().is_some(),
            Self::V6(packet) => packet.router_alert().is_some(),
        }
    }

    /// Whether the checksum of the header is right; IPv6 has none.
    pub fn verify_checksum(&self) -> bool {
        match self {
            Self::V4(packet) => packet.verify_checksum(),
            Self::V6(_) => true,
        }
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the ECN field. The checksum of an IPv4 header follows by the difference alone, so that a wrong one stays wrong.
    pub fn set_ecn(&mut self, ecn: Ecn) {
        let traffic_class = ecn.applied_to(self.traffic_class());
        match self {
            Self::V4(packet) => packet.set_tos(traffic_class),
            Self::V6(packet) => packet.set_traffic_class(traffic_class),
        }
    }

    /// Sets the hops. The checksum of an IPv4 header follows by the difference alone, so that a wrong one stays wrong.
    pub fn set_hop_limit(&mut self, hop_limit: u8) {
        match self {
            Self::V4(packet) => packet.adjust_ttl(hop_limit),
            Self::V6(packet) => packet.set_hop_limit(hop_limit),
        }
    }
}
