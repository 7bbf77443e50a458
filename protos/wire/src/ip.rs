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

    /// Headers and payload, without what follows the packet.
    pub fn octets(&self) -> &[u8] {
        match self {
            Self::V4(packet) => packet.octets(),
            Self::V6(packet) => packet.octets(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipv4::Fragment;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn v4(tos: u8) -> Vec<u8> {
        let repr = ipv4::Repr {
            tos,
            identification: 7,
            fragment: Fragment::default(),
            ttl: 9,
            protocol: 17,
            source: Ipv4Addr::new(192, 0, 2, 10),
            destination: Ipv4Addr::new(232, 1, 2, 3),
            options: &ipv4::ROUTER_ALERT,
            payload: b"payload",
        };
        let mut bytes = vec![0xff; repr.buffer_len()];
        repr.emit(&mut bytes);
        bytes
    }

    fn v6(traffic_class: u8) -> Vec<u8> {
        let repr = ipv6::Repr {
            traffic_class,
            flow_label: 0xf_ffff,
            next_header: 0,
            hop_limit: 9,
            source: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            destination: Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0x8000, 1),
            payload: b"\x11\0\x05\x02\0\0\x01\0payload",
        };
        let mut bytes = vec![0xff; repr.buffer_len()];
        repr.emit(&mut bytes);
        bytes
    }

    #[test]
    fn both_versions_answer_the_same_questions() {
        for (bytes, family, source, destination) in
            [(v4(0xb9), Family::V4, "192.0.2.10", "232.1.2.3"), (v6(0xb9), Family::V6, "2001:db8::1", "ff3e::8000:1")]
        {
            let packet = Packet::new_checked(&bytes).unwrap();
            assert_eq!((packet.family(), packet.total_len()), (family, bytes.len()));
            assert_eq!(
                (packet.source(), packet.destination()),
                (source.parse().unwrap(), destination.parse().unwrap())
            );
            assert_eq!((packet.protocol(), packet.payload(), packet.hop_limit()), (17, &b"payload"[..], 9));
            assert_eq!((packet.traffic_class(), packet.ecn()), (0xb9, Ecn::Ect1));
            assert!(packet.router_alert() && packet.verify_checksum() && !packet.fragment().is_part());
            assert_eq!((Family::of(packet.source()), packet.octets()), (family, &bytes[..]));
        }
    }

    #[test]
    fn other_versions_and_nothing_are_refused() {
        for version in (0..16).filter(|version| ![4, 6].contains(version)) {
            assert_eq!(Packet::new_checked([version << 4; 60]), Err(ParseError::Version(version)));
        }
        assert_eq!(Packet::new_checked([]), Err(ParseError::Empty));
        assert_eq!(Packet::new_checked([0x45]), Err(ParseError::V4(ipv4::ParseError::Truncated(1))));
        assert_eq!(Packet::new_checked([0x60]), Err(ParseError::V6(ipv6::ParseError::Truncated(1))));
    }

    #[test]
    fn setting_ecn_changes_nothing_but_the_field_and_the_checksum() {
        for from in 0..=255 {
            for ecn in Ecn::ALL {
                let to = from & 0xfc | ecn.bits();
                for (before, after) in [(v4(from), v4(to)), (v6(from), v6(to))] {
                    let mut packet = Packet::new_checked(before).unwrap();
                    packet.set_ecn(ecn);
                    assert_eq!(packet.ecn(), ecn);
                    assert_eq!(packet.into_inner(), after);
                }
            }
        }
    }

    #[test]
    fn a_wrong_checksum_stays_wrong_when_the_header_is_changed() {
        let mut bytes = v4(0);
        bytes[15] ^= 0x10;
        let mut packet = Packet::new_checked(bytes).unwrap();
        packet.set_ecn(Ecn::Ce);
        packet.set_hop_limit(200);
        assert!(!packet.verify_checksum());
        assert_eq!((packet.ecn(), packet.hop_limit()), (Ecn::Ce, 200));
    }

    proptest! {
        #[test]
        fn a_right_checksum_stays_right_when_the_header_is_changed(
            header: [u8; 20],
            hop_limit: u8,
            ecn in proptest::sample::select(Ecn::ALL.to_vec()),
        ) {
            let mut header = header;
            header[0] = 0x45;
            header[2..4].copy_from_slice(&[0, 20]);
            let mut packet = ipv4::Packet::new_checked(header).unwrap();
            packet.set_ttl(packet.ttl());
            let mut packet = Packet::V4(packet);
            packet.set_ecn(ecn);
            packet.set_hop_limit(hop_limit);
            prop_assert!(packet.verify_checksum());
        }
    }
}
