//! The IPv6 header and its extension headers (RFC 8200 §3, §4), for packets that are carried whole.
//!
//! ```text
//!   0                               4                6             7           8       24            40
//!   | 6 | traffic class | flow label | payload length | next header | hop limit | source | destination | extensions |
//! ```
//! Hop-by-hop options, routing, fragment and destination options are walked over; whatever else a next header names is the
//! upper layer. Jumbograms (RFC 2675) are refused: no UDP datagram could carry one.

use crate::ipv4::Fragment;
use std::net::Ipv6Addr;

/// The header without extension headers, in octets.
pub const HEADER_LEN: usize = 40;
/// A chain of extension headers longer than this is refused: RFC 8200 §4.1 names each kind once and destination options twice.
pub const EXTENSIONS_MAX: usize = 8;
const VERSION: u8 = 6;
/// Extension headers are counted in units of eight octets, not counting the first.
const EXTENSION_UNIT: usize = 8;
const MORE_FRAGMENTS: u16 = 0x0001;

/// Next header numbers we meet; others are as good.
pub mod protocol {
    /// Hop-by-hop options, only ever the first extension header.
    pub const HOP_BY_HOP: u8 = 0;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// Routing header.
    pub const ROUTING: u8 = 43;
    /// Fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Internet Control Message Protocol for IPv6; MLD is a part of it.
    pub const ICMPV6: u8 = 58;
    /// Nothing follows.
    pub const NONE: u8 = 59;
    /// Destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// Types of options inside hop-by-hop and destination options.
pub mod option {
    /// One octet of padding, without a length.
    pub const PAD1: u8 = 0x00;
    /// Padding with a length.
    pub const PADN: u8 = 0x01;
    /// Router alert (RFC 2711).
    pub const ROUTER_ALERT: u8 = 0x05;
    /// The length of a jumbogram (RFC 2675).
    pub const JUMBO: u8 = 0xc2;
}

/// Hop-by-hop options that tell routers of an MLD message in the packet: router alert with value 0, padded, before `ICMPv6`.
///
/// # Source
/// RFC 2711 §2.1, RFC 3810 §5.
pub const MLD_ROUTER_ALERT: [u8; 8] = [protocol::ICMPV6, 0, option::ROUTER_ALERT, 2, 0, 0, option::PADN, 0];

/// Why octets are no IPv6 packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// Fewer octets than the header or its payload length promise; holds the number found.
    #[error("{0} octets are too short for their IPv6 packet")]
    Truncated(usize),
    /// Another version.
    #[error("IP version {0} is not 6")]
    Version(u8),
    /// A jumbogram.
    #[error("an IPv6 jumbogram cannot be tunnelled")]
    Jumbo,
    /// An extension header that runs over the end of the packet; holds where it starts, in octets.
    #[error("the IPv6 extension header at octet {0} runs over the end of the packet")]
    Extension(usize),
    /// Hop-by-hop options that are not the first extension header; holds where they start, in octets.
    #[error("the IPv6 hop-by-hop options at octet {0} do not come first")]
    HopByHop(usize),
    /// More than [`EXTENSIONS_MAX`] extension headers.
    #[error("an IPv6 packet with more than {EXTENSIONS_MAX} extension headers is refused")]
    TooManyExtensions,
}

impl ParseError {
    /// The cause as a metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Truncated(_) => "ipv6_truncated",
            Self::Version(_) => "ipv6_version",
            Self::Jumbo => "ipv6_jumbo",
            Self::Extension(_) => "ipv6_extension",
            Self::HopByHop(_) => "ipv6_hop_by_hop",
            Self::TooManyExtensions => "ipv6_too_many_extensions",
        }
    }
}

/// What a walk over the extension headers found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Upper {
    protocol: u8,
    at: usize,
    fragment: Option<(Fragment, u32)>,
}

/// A packet in place, whose header, extension headers and lengths are known to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
    upper: Upper,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Checks version, lengths and the chain of extension headers. What follows the payload length, as padding of a frame, is
    /// not looked at; neither is what follows a fragment header that does not start its datagram.
    ///
    /// # Errors
    /// [`ParseError`] with what is wrong.
    pub fn new_checked(buffer: T) -> Result<Self, ParseError> {
        let octets = buffer.as_ref();
        let truncated = ParseError::Truncated(octets.len());
        let version = octets.first().ok_or(truncated)? >> 4;
        if version != VERSION {
            return Err(ParseError::Version(version));
        }
        let header = octets.first_chunk::<HEADER_LEN>().ok_or(truncated)?;
        let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if payload_len == 0 && header[6] == protocol::HOP_BY_HOP {
            return Err(ParseError::Jumbo);
        }
        let upper = walk(octets.get(..HEADER_LEN + payload_len).ok_or(truncated)?)?;
        Ok(Self { buffer, upper })
    }

    /// Headers and payload, without what follows the packet.
    pub fn octets(&self) -> &[u8] {
        &self.buffer.as_ref()[..self.total_len()]
    }

    /// The buffer, as it was given.
    pub fn into_inner(self) -> T {
        self.buffer
    }

    fn header(&self) -> &[u8; HEADER_LEN] {
        self.buffer.as_ref().first_chunk().expect("new_checked() saw a header")
    }

    fn address(&self, at: usize) -> Ipv6Addr {
        let octets: [u8; 16] = self.header()[at..at + 16].try_into().expect("sixteen octets");
        octets.into()
    }

    /// Octets of header and payload.
    pub fn total_len(&self) -> usize {
        let header = self.header();
        HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]))
    }

    /// Differentiated services and ECN.
    pub fn traffic_class(&self) -> u8 {
        let header = self.header();
        header[0] << 4 | header[1] >> 4
    }

    /// Which flow, 20 bits.
    pub fn flow_label(&self) -> u32 {
        let header = self.header();
        u32::from_be_bytes([0, header[1] & 0x0f, header[2], header[3]])
    }

    /// What follows the header: an extension header or the upper layer.
    pub fn next_header(&self) -> u8 {
        self.header()[6]
    }

    /// Hops that the packet may still travel.
    pub fn hop_limit(&self) -> u8 {
        self.header()[7]
    }

    /// Where it comes from.
    pub fn source(&self) -> Ipv6Addr {
        self.address(8)
    }

    /// Where it goes.
    pub fn destination(&self) -> Ipv6Addr {
        self.address(24)
    }

    /// What follows the header, extension headers first.
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..self.total_len()]
    }

    /// What follows the extension headers.
    pub fn upper_protocol(&self) -> u8 {
        self.upper.protocol
    }

    /// Octets of header and extension headers.
    pub fn upper_offset(&self) -> usize {
        self.upper.at
    }

    /// What follows the extension headers; of a later fragment, what follows its fragment header.
    pub fn upper_payload(&self) -> &[u8] {
        &self.buffer.as_ref()[self.upper.at..self.total_len()]
    }

    /// Which part of a datagram the packet carries; all of it without a fragment header. Nobody may cut an IPv6 packet.
    pub fn fragment(&self) -> Fragment {
        self.upper.fragment.map_or(Fragment { dont_fragment: true, ..Fragment::default() }, |(fragment, _)| fragment)
    }

    /// Which datagram the parts belong to; `None` without a fragment header.
    pub fn identification(&self) -> Option<u32> {
        self.upper.fragment.map(|(_, identification)| identification)
    }

    /// The value of a router alert among the hop-by-hop options (RFC 2711).
    pub fn router_alert(&self) -> Option<u16> {
        if self.next_header() != protocol::HOP_BY_HOP {
            return None;
        }
        let (_, options) = extension(self.payload())?.split_at_checked(2)?;
        Options { rest: options }.find_map(|(kind, value)| match (kind, value) {
            (option::ROUTER_ALERT, [v0, v1]) => Some(u16::from_be_bytes([*v0, *v1])),
            _ => None,
        })
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the hops; nothing else changes.
    pub fn set_hop_limit(&mut self, hop_limit: u8) {
        self.buffer.as_mut()[7] = hop_limit;
    }

    /// Sets differentiated services and ECN; nothing else changes.
    pub fn set_traffic_class(&mut self, traffic_class: u8) {
        let octets = self.buffer.as_mut();
        octets[0] = octets[0] & 0xf0 | traffic_class >> 4;
        octets[1] = octets[1] & 0x0f | traffic_class << 4;
    }
}

/// Walks from the header to the upper layer.
fn walk(packet: &[u8]) -> Result<Upper, ParseError> {
    let mut upper = Upper { protocol: packet[6], at: HEADER_LEN, fragment: None };
    for count in 0..=EXTENSIONS_MAX {
        let rest = &packet[upper.at..];
        let header = match upper.protocol {
            protocol::HOP_BY_HOP if count > 0 => return Err(ParseError::HopByHop(upper.at)),
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => extension(rest),
            protocol::FRAGMENT => rest.get(..EXTENSION_UNIT),
            _ => return Ok(upper),
        }
        .ok_or(ParseError::Extension(upper.at))?;
        if upper.protocol == protocol::HOP_BY_HOP {
            let mut options = Options { rest: &header[2..] };
            if options.any(|(kind, _)| kind == option::JUMBO) {
                return Err(ParseError::Jumbo);
            }
        }
        let later_part = upper.protocol == protocol::FRAGMENT && {
            let word = u16::from_be_bytes([header[2], header[3]]);
            let fragment = Fragment { dont_fragment: true, more: word & MORE_FRAGMENTS != 0, offset_units: word >> 3 };
            let identification = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            upper.fragment = Some((fragment, identification));
            fragment.offset_units != 0
        };
        upper.protocol = header[0];
        upper.at += header.len();
        if later_part {
            return Ok(upper);
        }
    }
    Err(ParseError::TooManyExtensions)
}

/// The extension header at the start of `octets`, when all of it is there.
fn extension(octets: &[u8]) -> Option<&[u8]> {
    octets.get(..(usize::from(*octets.get(1)?) + 1) * EXTENSION_UNIT)
}

/// The options of an extension header, without padding; ends at the first that runs over the end.
struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (kind, after) = self.rest.split_first()?;
            if *kind == option::PAD1 {
                self.rest = after;
                continue;
            }
            let (len, after) = after.split_first()?;
            let (value, after) = after.split_at_checked(usize::from(*len))?;
            self.rest = after;
            if *kind != option::PADN {
                return Some((*kind, value));
            }
        }
    }
}

/// A header as a value, with the payload that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Repr<'a> {
    /// Differentiated services and ECN.
    pub traffic_class: u8,
    /// Which flow; 20 bits go to the wire.
    pub flow_label: u32,
    /// What the payload starts with.
    pub next_header: u8,
    /// Hops that the packet may still travel.
    pub hop_limit: u8,
    /// Where it comes from.
    pub source: Ipv6Addr,
    /// Where it goes.
    pub destination: Ipv6Addr,
    /// What follows the header, extension headers first.
    pub payload: &'a [u8],
}

impl<'a> Repr<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    /// [`ParseError`] with what is wrong. Never panics, whatever the bytes.
    pub fn parse(octets: &'a [u8]) -> Result<Self, ParseError> {
        let packet = Packet::new_checked(octets)?;
        Ok(Self {
            traffic_class: packet.traffic_class(),
            flow_label: packet.flow_label(),
            next_header: packet.next_header(),
            hop_limit: packet.hop_limit(),
            source: packet.source(),
            destination: packet.destination(),
            payload: &octets[HEADER_LEN..packet.total_len()],
        })
    }

    /// Octets that [`emit`](Self::emit) writes.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        HEADER_LEN + self.payload.len()
    }

    /// Writes header and payload; every octet of `buffer` is overwritten.
    ///
    /// # Panics
    /// When `buffer` is not exactly [`buffer_len`](Self::buffer_len) octets long, or the payload longer than 65535: both are
    /// the caller's to get right.
    pub fn emit(&self, buffer: &mut [u8]) {
        let Self { traffic_class, flow_label, next_header, hop_limit, source, destination, payload } = self;
        assert_eq!(buffer.len(), self.buffer_len(), "the caller sizes the buffer with buffer_len()");
        let (header, rest) = buffer.split_at_mut(HEADER_LEN);
        rest.copy_from_slice(payload);
        let payload_len = u16::try_from(payload.len()).expect("an IPv6 payload has at most 65535 octets");
        let first = u32::from(VERSION) << 28 | u32::from(*traffic_class) << 20 | flow_label & 0x000f_ffff;
        header[0..4].copy_from_slice(&first.to_be_bytes());
        header[4..6].copy_from_slice(&payload_len.to_be_bytes());
        header[6] = *next_header;
        header[7] = *hop_limit;
        header[8..24].copy_from_slice(&source.octets());
        header[24..40].copy_from_slice(&destination.octets());
    }
}

#[cfg(test)]
mod tests;
