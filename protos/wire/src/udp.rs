//! The UDP header over IPv4 and IPv6 (RFC 768, RFC 8200 §8.1), for packets that are carried whole.
//!
//! ```text
//!   0             2                  4        6          8
//!   | source port | destination port | length | checksum | payload |
//! ```

use crate::checksum::Checksum;
use crate::ipv4::protocol;
use std::net::IpAddr;

/// The header, in octets.
pub const HEADER_LEN: usize = 8;

/// Why octets are no UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// Fewer octets than the header or its length promise; holds the number found.
    #[error("{0} octets are too short for their UDP datagram")]
    Truncated(usize),
    /// A length below that of the header; holds it.
    #[error("a UDP length of {0} octets cannot be")]
    Length(usize),
    /// The checksum is wrong.
    #[error("the UDP checksum is wrong")]
    Checksum,
}

impl ParseError {
    /// The cause as a metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Truncated(_) => "udp_truncated",
            Self::Length(_) => "udp_length",
            Self::Checksum => "udp_checksum",
        }
    }
}

/// A datagram in place, whose length is known to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Checks the length, not the checksum. What follows the length is not looked at.
    ///
    /// # Errors
    /// [`ParseError`] with what is wrong.
    pub fn new_checked(buffer: T) -> Result<Self, ParseError> {
        let found = buffer.as_ref().len();
        if found < HEADER_LEN {
            return Err(ParseError::Truncated(found));
        }
        let packet = Self { buffer };
        match packet.len() {
            len if len < HEADER_LEN => Err(ParseError::Length(len)),
            len if len > found => Err(ParseError::Truncated(found)),
            _ => Ok(packet),
        }
    }

    /// The buffer, as it was given.
    pub fn into_inner(self) -> T {
        self.buffer
    }

    fn short(&self, at: usize) -> u16 {
        let octets = self.buffer.as_ref();
        u16::from_be_bytes([octets[at], octets[at + 1]])
    }

    /// The port it comes from.
    pub fn source_port(&self) -> u16 {
        self.short(0)
    }

    /// The port it goes to.
    pub fn destination_port(&self) -> u16 {
        self.short(2)
    }

    /// Octets of header and payload.
    #[expect(clippy::len_without_is_empty, reason = "a datagram is never empty: its header counts")]
    pub fn len(&self) -> usize {
        self.short(4).into()
    }

    /// The checksum as it was sent; 0 says that there is none.
    pub fn checksum(&self) -> u16 {
        self.short(6)
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..self.len()]
    }

    /// Whether the checksum is right for these addresses, or absent, which it may be over IPv4 only.
    ///
    /// RFC 6935 lets tunnels do without over IPv6 as well: that concerns the outer header, which the kernel has taken off.
    pub fn verify_checksum(&self, source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> bool {
        let source = source.into();
        if self.checksum() == 0 {
            return source.is_ipv4();
        }
        sum(source, destination.into(), &self.buffer.as_ref()[..self.len()]).finish() == 0
    }
}

/// The sum over pseudo header and datagram.
fn sum(source: IpAddr, destination: IpAddr, datagram: &[u8]) -> Checksum {
    Checksum::default().pseudo_header(source, destination, protocol::UDP, datagram.len()).add(datagram)
}

/// A datagram as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Repr<'a> {
    /// The port it comes from; 0 where nobody expects an answer.
    pub source_port: u16,
    /// The port it goes to.
    pub destination_port: u16,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl<'a> Repr<'a> {
    /// Reads a datagram between these addresses and verifies its checksum, unless it has none.
    ///
    /// # Errors
    /// [`ParseError`] with what is wrong. Never panics, whatever the bytes.
    pub fn parse(
        octets: &'a [u8],
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
    ) -> Result<Self, ParseError> {
        let packet = Packet::new_checked(octets)?;
        if !packet.verify_checksum(source, destination) {
            return Err(ParseError::Checksum);
        }
        Ok(Self {
            source_port: packet.source_port(),
            destination_port: packet.destination_port(),
            payload: &octets[HEADER_LEN..packet.len()],
        })
    }

    /// Octets that [`emit`](Self::emit) writes.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        HEADER_LEN + self.payload.len()
    }

    /// Writes header and payload with a checksum; every octet of `buffer` is overwritten.
    ///
    /// # Panics
    /// When `buffer` is not exactly [`buffer_len`](Self::buffer_len) octets long, or when that is more than 65535: both are
    /// the caller's to get right.
    pub fn emit(&self, buffer: &mut [u8], source: impl Into<IpAddr>, destination: impl Into<IpAddr>) {
        assert_eq!(buffer.len(), self.buffer_len(), "the caller sizes the buffer with buffer_len()");
        let len = u16::try_from(buffer.len()).expect("a UDP datagram has at most 65535 octets");
        buffer[0..2].copy_from_slice(&self.source_port.to_be_bytes());
        buffer[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
        buffer[4..6].copy_from_slice(&len.to_be_bytes());
        buffer[6..8].fill(0);
        buffer[HEADER_LEN..].copy_from_slice(self.payload);
        // RFC 768, RFC 8200 §8.1: a checksum that comes out as zero is sent as all ones, as zero means none.
        let checksum = match sum(source.into(), destination.into(), buffer).finish() {
            0 => 0xffff,
            checksum => checksum,
        };
        buffer[6..8].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
    const DESTINATION: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
    /// Computed by hand from RFC 768: 0xc0a8+0x0101+0xc0a8+0x0102+0x0011+0x000a + 0x1388+0x138c+0x000a + 0x6869.
    const GOLDEN: &[u8] = b"\x13\x88\x13\x8c\x00\x0a\xed\x08hi";

    fn emitted(repr: &Repr<'_>) -> Vec<u8> {
        let mut dirty = vec![0xff; repr.buffer_len()];
        repr.emit(&mut dirty, SOURCE, DESTINATION);
        dirty
    }

    fn golden() -> Repr<'static> {
        Repr { source_port: 5000, destination_port: 5004, payload: b"hi" }
    }

    #[test]
    fn the_golden_datagram_holds_in_both_directions() {
        assert_eq!(emitted(&golden()), GOLDEN);
        assert_eq!(Repr::parse(GOLDEN, SOURCE, DESTINATION), Ok(golden()));
    }

    #[test]
    fn a_datagram_without_checksum_is_accepted() {
        let mut bytes = GOLDEN.to_vec();
        bytes[6..8].fill(0);
        assert_eq!(Repr::parse(&bytes, SOURCE, DESTINATION), Ok(golden()));
    }

    #[test]
    fn a_checksum_that_comes_out_as_zero_is_sent_as_all_ones() {
        // The payload is the complement of the sum of all else.
        let bytes = emitted(&Repr { payload: b"\0\0", ..golden() });
        let zero = emitted(&Repr { payload: &bytes[6..8], ..golden() });
        assert_eq!(zero[6..8], [0xff, 0xff]);
        assert!(Packet::new_checked(&zero).unwrap().verify_checksum(SOURCE, DESTINATION));
    }

    #[test]
    fn a_change_of_any_bit_but_those_that_only_shorten_is_noticed() {
        for bit in 0..GOLDEN.len() * 8 {
            let mut bytes = GOLDEN.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Repr::parse(&bytes, SOURCE, DESTINATION).is_err(), "bit {bit}");
        }
        let elsewhere = Ipv4Addr::new(192, 168, 1, 3);
        assert_eq!(Repr::parse(GOLDEN, SOURCE, elsewhere), Err(ParseError::Checksum));
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let changed = |len: u8| {
            let mut bytes = GOLDEN.to_vec();
            bytes[5] = len;
            Packet::new_checked(bytes).map(|_| ())
        };
        assert_eq!(changed(0), Err(ParseError::Length(0)));
        assert_eq!(changed(7), Err(ParseError::Length(7)));
        assert_eq!(changed(8), Ok(()));
        assert_eq!(changed(11), Err(ParseError::Truncated(10)));
        for len in 0..HEADER_LEN {
            assert_eq!(Packet::new_checked(&GOLDEN[..len]), Err(ParseError::Truncated(len)));
        }
    }

    /// Computed by hand from RFC 8200 §8.1: 0x2001+0x0db8+0x0001 + 0xff3e+0x0001 + 0x000a+0x0011 + 0x1388+0x138c+0x000a
    /// + 0x6869.
    const GOLDEN_V6: &[u8] = b"\x13\x88\x13\x8c\x00\x0a\x43\x63hi";
    const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const DESTINATION_V6: Ipv6Addr = Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0, 1);

    #[test]
    fn the_golden_datagram_over_ipv6_holds_in_both_directions() {
        let mut dirty = [0xff; 10];
        golden().emit(&mut dirty, SOURCE_V6, DESTINATION_V6);
        assert_eq!(dirty, GOLDEN_V6);
        assert_eq!(Repr::parse(GOLDEN_V6, SOURCE_V6, DESTINATION_V6), Ok(golden()));
        assert_eq!(Repr::parse(GOLDEN_V6, SOURCE_V6, SOURCE_V6), Err(ParseError::Checksum));
    }

    #[test]
    fn over_ipv6_a_checksum_is_never_absent() {
        let mut bytes = GOLDEN_V6.to_vec();
        bytes[6..8].fill(0);
        assert_eq!(Repr::parse(&bytes, SOURCE_V6, DESTINATION_V6), Err(ParseError::Checksum));
    }

    proptest! {
        #[test]
        fn what_is_emitted_parses(
            source_port: u16,
            destination_port: u16,
            payload in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let repr = Repr { source_port, destination_port, payload: &payload };
            let bytes = emitted(&repr);
            prop_assert_eq!(Repr::parse(&bytes, SOURCE, DESTINATION), Ok(repr));
            let mut bytes = vec![0xff; repr.buffer_len()];
            repr.emit(&mut bytes, SOURCE_V6, DESTINATION_V6);
            prop_assert_eq!(Repr::parse(&bytes, SOURCE_V6, DESTINATION_V6), Ok(repr));
        }

        #[test]
        fn any_octets_are_a_datagram_or_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            if let Ok(packet) = Packet::new_checked(&bytes) {
                let _ = (packet.payload(), packet.verify_checksum(SOURCE, DESTINATION));
            }
        }
    }
}
