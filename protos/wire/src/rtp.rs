//! Recognition of RTP in a payload (RFC 3550 §5.1), to report loss of channels that number their packets.
//!
//! ```text
//!   0        1         2          4           8      12
//!   | VVPXCC | M  type | sequence | timestamp | SSRC | CSRC * CC | [extension] | payload | [padding n] |
//! ```
//! Nothing in a payload says for certain that it is RTP: version, lengths and padding have to agree with each other.

/// The fixed part of the header, in octets.
pub const HEADER_LEN: usize = 12;
const VERSION: u8 = 2;
const PADDING_FLAG: u8 = 0x20;
const EXTENSION_FLAG: u8 = 0x10;
const CSRC_COUNT_MASK: u8 = 0x0f;
const MARKER_FLAG: u8 = 0x80;
const CSRC_LEN: usize = 4;
const EXTENSION_HEADER_LEN: usize = 4;

/// The fixed header of a packet that looks like RTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Repr {
    /// The marker bit.
    pub marker: bool,
    /// The payload type, seven bits.
    pub payload_type: u8,
    /// Counts packets, and wraps.
    pub sequence: u16,
    /// In units of the payload type.
    pub timestamp: u32,
    /// Which sender.
    pub ssrc: u32,
}

impl Repr {
    /// Reads a payload; `None` when it does not look like RTP version 2.
    ///
    /// # Source
    /// RFC 3550 §5.1 and appendix A.1; payload types 64 to 95 are left to RTCP (RFC 5761 §4).
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (header, rest) = payload.split_first_chunk::<HEADER_LEN>()?;
        let [first, second, n0, n1, t0, t1, t2, t3, s0, s1, s2, s3] = *header;
        let payload_type = second & !MARKER_FLAG;
        if first >> 6 != VERSION || (64..96).contains(&payload_type) {
            return None;
        }
        body(first, rest)?;
        Some(Self {
            marker: second & MARKER_FLAG != 0,
            payload_type,
            sequence: u16::from_be_bytes([n0, n1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
        })
    }
}

/// What a packet that looks like RTP carries: the payload without header, contributing sources, extension and padding.
/// `None` when it does not look like RTP.
#[must_use]
pub fn media(payload: &[u8]) -> Option<&[u8]> {
    Repr::parse(payload)?;
    let (header, rest) = payload.split_first_chunk::<HEADER_LEN>()?;
    body(header[0], rest)
}

/// Walks over what the first octet announces behind the fixed header.
fn body(first: u8, rest: &[u8]) -> Option<&[u8]> {
    let mut body = rest.get(usize::from(first & CSRC_COUNT_MASK) * CSRC_LEN..)?;
    if first & EXTENSION_FLAG != 0 {
        let ([_, _, l0, l1], after) = body.split_first_chunk::<EXTENSION_HEADER_LEN>()?;
        body = after.get(usize::from(u16::from_be_bytes([*l0, *l1])) * 4..)?;
    }
    if first & PADDING_FLAG != 0 {
        // The count includes itself.
        let padding = usize::from(*body.last()?);
        if padding == 0 {
            return None;
        }
        body = body.get(..body.len().checked_sub(padding)?)?;
    }
    Some(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// MPEG-TS over RTP (payload type 33), as ffmpeg sends it.
    const PLAIN: &[u8] = b"\x80\x21\x12\x34\x00\x01\x02\x03\xde\xad\xbe\xef\x47";

    fn with_first(first: u8, rest: &[u8]) -> Vec<u8> {
        [&[first], &PLAIN[1..HEADER_LEN], rest].concat()
    }

    #[test]
    fn the_fields_of_the_fixed_header_are_read() {
        let repr =
            Repr { marker: false, payload_type: 33, sequence: 0x1234, timestamp: 0x0001_0203, ssrc: 0xdead_beef };
        assert_eq!(Repr::parse(PLAIN), Some(repr));
        let marked = [&PLAIN[..1], &[0xa1], &PLAIN[2..]].concat();
        assert_eq!(Repr::parse(&marked), Some(Repr { marker: true, ..repr }));
    }

    #[test]
    fn only_version_two_is_rtp() {
        for first in 0..=255_u8 {
            // Long enough for any list and any extension, and with padding of one octet.
            let long = with_first(first, &[1; 1200]);
            assert_eq!(Repr::parse(&long).is_some(), first >> 6 == 2, "{first:#04x}");
        }
    }

    #[test]
    fn rtcp_is_not_rtp() {
        for second in 0..=255_u8 {
            let bytes = [&PLAIN[..1], &[second], &PLAIN[2..]].concat();
            assert_eq!(Repr::parse(&bytes).is_none(), (64..96).contains(&(second & 0x7f)), "{second:#04x}");
        }
    }

    #[test]
    fn lists_extensions_and_padding_have_to_fit() {
        assert!(Repr::parse(&PLAIN[..11]).is_none());
        assert!(Repr::parse(&with_first(0x80, b"")).is_some());
        assert!(Repr::parse(&with_first(0x81, b"abc")).is_none());
        assert!(Repr::parse(&with_first(0x81, b"abcd")).is_some());
        assert!(Repr::parse(&with_first(0x90, b"\0\0\0")).is_none());
        assert!(Repr::parse(&with_first(0x90, b"\0\0\0\x01abc")).is_none());
        assert!(Repr::parse(&with_first(0x90, b"\0\0\0\x01abcd")).is_some());
        assert!(Repr::parse(&with_first(0xa0, b"")).is_none());
        assert!(Repr::parse(&with_first(0xa0, b"a\0")).is_none());
        assert!(Repr::parse(&with_first(0xa0, b"a\x03")).is_none());
        assert!(Repr::parse(&with_first(0xa0, b"a\x02")).is_some());
    }

    #[test]
    fn the_media_is_what_lies_between_header_and_padding() {
        assert_eq!(media(PLAIN), Some(&b"\x47"[..]));
        // Two contributing sources, an extension of one word, three octets of padding.
        let rest = [&[1; 8][..], b"\xbe\xde\x00\x01\x09\x09\x09\x09", b"media", b"\x00\x00\x03"].concat();
        assert_eq!(media(&with_first(0xb2, &rest)), Some(&b"media"[..]));
        assert_eq!(media(&[0x47; 188]), None);
    }

    proptest! {
        #[test]
        fn any_octets_are_rtp_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Repr::parse(&bytes);
        }
    }
}
