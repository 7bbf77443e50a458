//! The IPv4 header (RFC 791 §3.1), for packets that are carried whole.
//!
//! ```text
//!   0      1     2        4        6            8    9          10        12       16            20
//!   | 4|IHL | TOS | length | ident  | flags|off  | TTL | protocol | checksum | source | destination | options |
//! ```

mod cut;
mod options;

pub use cut::{FragmentError, Fragments, Part, fragment};

use crate::checksum::{self, Checksum};
use std::net::Ipv4Addr;

/// The header without options, in octets.
pub const HEADER_LEN: usize = 20;
/// The longest options, in octets: the header length counts to 15 words.
pub const OPTIONS_LEN_MAX: usize = 40;
const VERSION: u8 = 4;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// Protocol numbers we meet; others are as good.
pub mod protocol {
    /// Internet Control Message Protocol.
    pub const ICMP: u8 = 1;
    /// Internet Group Management Protocol.
    pub const IGMP: u8 = 2;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
}

/// The option that asks every router to look at the packet (RFC 2113), with value 0.
pub const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];

/// Why octets are no IPv4 packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// Fewer octets than the header or its length fields promise; holds the number found.
    #[error("{0} octets are too short for their IPv4 packet")]
    Truncated(usize),
    /// Another version.
    #[error("IP version {0} is not 4")]
    Version(u8),
    /// A header length below 20 octets, or above the total length; holds the header length in octets.
    #[error("an IPv4 header of {0} octets cannot be")]
    HeaderLength(usize),
    /// The header's checksum is wrong.
    #[error("the IPv4 header checksum is wrong")]
    Checksum,
}

impl ParseError {
    /// The cause as a metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Truncated(_) => "ipv4_truncated",
            Self::Version(_) => "ipv4_version",
            Self::HeaderLength(_) => "ipv4_header_length",
            Self::Checksum => "ipv4_checksum",
        }
    }
}

/// Which part of a datagram a packet carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// Nobody may cut this packet.
    pub dont_fragment: bool,
    /// Other parts follow.
    pub more: bool,
    /// Where this part stands, in units of 8 octets; 13 bits go to the wire.
    pub offset_units: u16,
}

impl Fragment {
    /// Whether the packet is only a part of its datagram.
    #[must_use]
    pub const fn is_part(&self) -> bool {
        self.more || self.offset_units != 0
    }

    /// Where this part stands, in octets.
    #[must_use]
    pub const fn offset_bytes(&self) -> usize {
        self.offset_units as usize * 8
    }
}

/// A packet in place, whose header and lengths are known to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Checks version and lengths, not the checksum. What follows the total length, as padding of a frame, is not looked at.
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
        if octets.len() < HEADER_LEN {
            return Err(truncated);
        }
        let packet = Self { buffer };
        let (header_len, total_len) = (packet.header_len(), packet.total_len());
        if header_len < HEADER_LEN || header_len > total_len {
            return Err(ParseError::HeaderLength(header_len));
        }
        if total_len > packet.buffer.as_ref().len() {
            return Err(truncated);
        }
        Ok(packet)
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

    fn short(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.header()[at], self.header()[at + 1]])
    }

    fn address(&self, at: usize) -> Ipv4Addr {
        let header = self.header();
        Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3])
    }

    /// Octets of the header with its options.
    pub fn header_len(&self) -> usize {
        usize::from(self.header()[0] & 0x0f) * 4
    }

    /// Octets of header and payload.
    pub fn total_len(&self) -> usize {
        self.short(2).into()
    }

    /// Type of service, or what became of it.
    pub fn tos(&self) -> u8 {
        self.header()[1]
    }

    /// Which datagram the parts belong to.
    pub fn identification(&self) -> u16 {
        self.short(4)
    }

    /// Which part this is.
    pub fn fragment(&self) -> Fragment {
        let word = self.short(6);
        Fragment {
            dont_fragment: word & DONT_FRAGMENT != 0,
            more: word & MORE_FRAGMENTS != 0,
            offset_units: word & OFFSET_MASK,
        }
    }

    /// Hops that the packet may still travel.
    pub fn ttl(&self) -> u8 {
        self.header()[8]
    }

    /// What the payload is, one of [`protocol`] or another.
    pub fn protocol(&self) -> u8 {
        self.header()[9]
    }

    /// Where it comes from.
    pub fn source(&self) -> Ipv4Addr {
        self.address(12)
    }

    /// Where it goes.
    pub fn destination(&self) -> Ipv4Addr {
        self.address(16)
    }

    /// The options as they are.
    pub fn options(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..self.header_len()]
    }

    /// The value of a router alert among the options (RFC 2113).
    pub fn router_alert(&self) -> Option<u16> {
        options::iter(self.options()).find_map(|option| match option {
            [0x94, 4, v0, v1] => Some(u16::from_be_bytes([*v0, *v1])),
            _ => None,
        })
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[self.header_len()..self.total_len()]
    }

    /// Whether the header's checksum is right.
    pub fn verify_checksum(&self) -> bool {
        Checksum::default().add(&self.buffer.as_ref()[..self.header_len()]).finish() == 0
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the hops and makes the checksum right again; nothing else changes.
    pub fn set_ttl(&mut self, ttl: u8) {
        let len = self.header_len();
        let header = &mut self.buffer.as_mut()[..len];
        header[8] = ttl;
        fill_checksum(header);
    }

    /// Sets the hops; the checksum follows by the difference alone (RFC 1624), so that a wrong one stays wrong.
    pub fn adjust_ttl(&mut self, ttl: u8) {
        self.adjust(8, ttl);
    }

    /// Sets the type of service; the checksum follows by the difference alone (RFC 1624), so that a wrong one stays wrong.
    pub fn set_tos(&mut self, tos: u8) {
        self.adjust(1, tos);
    }

    /// Changes one octet of the header and takes the difference into the checksum.
    fn adjust(&mut self, at: usize, octet: u8) {
        let header = self.buffer.as_mut();
        let word = at & !1;
        let old = [header[word], header[word + 1]];
        header[at] = octet;
        let checksum = u16::from_be_bytes([header[10], header[11]]);
        let adjusted = checksum::adjusted(checksum, old, [header[word], header[word + 1]]);
        header[10..12].copy_from_slice(&adjusted.to_be_bytes());
    }
}

fn fill_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let checksum = Checksum::default().add(header).finish();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// A header as a value, with the payload that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Repr<'a> {
    /// Type of service, or what became of it.
    pub tos: u8,
    /// Which datagram the parts belong to.
    pub identification: u16,
    /// Which part this is.
    pub fragment: Fragment,
    /// Hops that the packet may still travel.
    pub ttl: u8,
    /// What the payload is, one of [`protocol`] or another.
    pub protocol: u8,
    /// Where it comes from.
    pub source: Ipv4Addr,
    /// Where it goes.
    pub destination: Ipv4Addr,
    /// The options as they are; whole words.
    pub options: &'a [u8],
    /// What follows the header.
    pub payload: &'a [u8],
}

impl<'a> Repr<'a> {
    /// Reads a packet and verifies its checksum. The reserved flag is not kept.
    ///
    /// # Errors
    /// [`ParseError`] with what is wrong. Never panics, whatever the bytes.
    pub fn parse(octets: &'a [u8]) -> Result<Self, ParseError> {
        let packet = Packet::new_checked(octets)?;
        if !packet.verify_checksum() {
            return Err(ParseError::Checksum);
        }
        Ok(Self {
            tos: packet.tos(),
            identification: packet.identification(),
            fragment: packet.fragment(),
            ttl: packet.ttl(),
            protocol: packet.protocol(),
            source: packet.source(),
            destination: packet.destination(),
            options: &octets[HEADER_LEN..packet.header_len()],
            payload: &octets[packet.header_len()..packet.total_len()],
        })
    }

    /// Octets that [`emit`](Self::emit) writes.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        HEADER_LEN + self.options.len() + self.payload.len()
    }

    /// Writes header, options and payload; every octet of `buffer` is overwritten.
    ///
    /// # Panics
    /// When `buffer` is not exactly [`buffer_len`](Self::buffer_len) octets long, when that is more than 65535, or when the
    /// options are no whole words or longer than [`OPTIONS_LEN_MAX`]: all are the caller's to get right.
    pub fn emit(&self, buffer: &mut [u8]) {
        let Self { tos, identification, fragment, ttl, protocol, source, destination, options, payload } = self;
        assert_eq!(buffer.len(), self.buffer_len(), "the caller sizes the buffer with buffer_len()");
        assert!(options.len() <= OPTIONS_LEN_MAX && options.len() % 4 == 0, "options are up to ten whole words");
        let total_len = u16::try_from(buffer.len()).expect("an IPv4 packet has at most 65535 octets");
        let (header, rest) = buffer.split_at_mut(HEADER_LEN + options.len());
        rest.copy_from_slice(payload);
        let words = u8::try_from(header.len() / 4).expect("at most fifteen words");
        let flags =
            if fragment.dont_fragment { DONT_FRAGMENT } else { 0 } | if fragment.more { MORE_FRAGMENTS } else { 0 };
        header[0] = VERSION << 4 | words;
        header[1] = *tos;
        header[2..4].copy_from_slice(&total_len.to_be_bytes());
        header[4..6].copy_from_slice(&identification.to_be_bytes());
        header[6..8].copy_from_slice(&(flags | fragment.offset_units & OFFSET_MASK).to_be_bytes());
        header[8] = *ttl;
        header[9] = *protocol;
        header[12..16].copy_from_slice(&source.octets());
        header[16..20].copy_from_slice(&destination.octets());
        header[20..].copy_from_slice(options);
        fill_checksum(header);
    }
}

#[cfg(test)]
mod tests;
