//! Cutting a packet into fragments (RFC 791 §2.3, §3.2), without copying its payload.
//!
//! Called by a tunnel ingress whose tunnel is narrower than the packet: AMT cuts the inner packet, never the outer one.

use super::{HEADER_LEN, MORE_FRAGMENTS, OPTIONS_LEN_MAX, Packet, ParseError};
use super::{fill_checksum, options};

/// The longest header, in octets.
const HEADER_LEN_MAX: usize = HEADER_LEN + OPTIONS_LEN_MAX;
/// Fragments but the last carry whole units of so many octets.
const UNIT_LEN: usize = 8;
/// The longest datagram that fragments can be put together to, in octets.
const DATAGRAM_LEN_MAX: usize = 65_535;

/// Why a packet cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FragmentError {
    /// It is no packet.
    #[error(transparent)]
    Packet(#[from] ParseError),
    /// It is too long and nobody may cut it; holds its length in octets.
    #[error("a packet of {0} octets is too long and may not be fragmented")]
    DontFragment(usize),
    /// No fragment of it is that short; holds the limit in octets.
    #[error("no fragment fits into {0} octets")]
    Mtu(usize),
    /// It is a fragment that ends behind the longest datagram.
    #[error("a fragment lies outside of every datagram")]
    Offset,
}

impl FragmentError {
    /// The cause as a metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Packet(error) => error.label(),
            Self::DontFragment(_) => "ipv4_dont_fragment",
            Self::Mtu(_) => "ipv4_mtu",
            Self::Offset => "ipv4_fragment_offset",
        }
    }
}

/// The fragments of a packet, each of at most `mtu` octets; the packet as it is when it fits.
///
/// The first carries all options, the others those whose type says so. A fragment may be cut again. Nothing is allocated.
///
/// # Errors
/// [`FragmentError`] with what is wrong; a wrong checksum too, as new headers would hide it.
///
/// ```
/// use castgate_wire::ipv4;
///
/// let packet = [&b"\x45\x00\x00\x24\x00\x07\x00\x00\x40\x11\xce\xbc\xc0\x00\x02\x01\xe8\x01\x02\x03"[..], &[7; 16]].concat();
/// let lens: Vec<_> = ipv4::fragment(&packet, 28)?.map(|part| (part.header().len(), part.payload().len())).collect();
/// assert_eq!(lens, [(20, 8), (20, 8)]);
/// # Ok::<(), ipv4::FragmentError>(())
/// ```
pub fn fragment(packet: &[u8], mtu: usize) -> Result<Fragments<'_>, FragmentError> {
    let view = Packet::new_checked(packet)?;
    if !view.verify_checksum() {
        return Err(ParseError::Checksum.into());
    }
    let (header, payload) = packet[..view.total_len()].split_at(view.header_len());
    let place = view.fragment();
    if view.total_len() > mtu {
        if place.dont_fragment {
            return Err(FragmentError::DontFragment(view.total_len()));
        }
        if mtu < header.len() + UNIT_LEN {
            return Err(FragmentError::Mtu(mtu));
        }
    }
    if place.offset_bytes() + payload.len() > DATAGRAM_LEN_MAX {
        return Err(FragmentError::Offset);
    }
    Ok(Fragments { next: Header::new(header), later: Header::later(header), payload: Some(payload), mtu })
}

/// The fragments of a packet, in order.
#[derive(Debug, Clone)]
pub struct Fragments<'a> {
    next: Header,
    later: Header,
    /// What is left; `None` after the last.
    payload: Option<&'a [u8]>,
    mtu: usize,
}

impl<'a> Iterator for Fragments<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let payload = self.payload.take()?;
        let mut header = self.next;
        let room = self.mtu - header.len;
        let (payload, rest) = if payload.len() <= room {
            (payload, None)
        } else {
            let (payload, rest) = payload.split_at(room - room % UNIT_LEN);
            (payload, Some(rest))
        };
        // The word at 6 holds flags and offset; the last part of a fragment has its "more".
        let place = u16::from_be_bytes([header.octets[6], header.octets[7]]);
        if let Some(rest) = rest {
            let units = u16::try_from(payload.len() / UNIT_LEN).expect("a payload has at most 65515 octets");
            // No carry into the flags: fragment() saw that all of it lies in a datagram.
            self.next = self.later.at(place + units);
            self.payload = Some(rest);
            header = header.at(place | MORE_FRAGMENTS);
        }
        Some(Part { header: header.finished(payload.len()), payload })
    }
}

/// One fragment: a header of its own before a part of the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    header: Header,
    payload: &'a [u8],
}

impl<'a> Part<'a> {
    /// The header with its options.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.header.octets[..self.header.len]
    }

    /// A part of the packet's payload, in its place.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Octets that [`emit`](Self::emit) writes.
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        self.header.len + self.payload.len()
    }

    /// Writes header and payload; every octet of `buffer` is overwritten.
    ///
    /// # Panics
    /// When `buffer` is not exactly [`buffer_len`](Self::buffer_len) octets long: that is the caller's to get right.
    pub fn emit(&self, buffer: &mut [u8]) {
        assert_eq!(buffer.len(), self.buffer_len(), "the caller sizes the buffer with buffer_len()");
        let (header, payload) = buffer.split_at_mut(self.header.len);
        header.copy_from_slice(self.header());
        payload.copy_from_slice(self.payload);
    }
}

/// A header held in place; lengths and checksum are those of the packet until it is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    octets: [u8; HEADER_LEN_MAX],
    len: usize,
}

impl Header {
    fn new(header: &[u8]) -> Self {
        let mut octets = [0; HEADER_LEN_MAX];
        octets[..header.len()].copy_from_slice(header);
        Self { octets, len: header.len() }
    }

    /// The header of all fragments but the first: of the options those with the copied bit, padded to whole words.
    fn later(header: &[u8]) -> Self {
        let mut later = Self::new(&header[..HEADER_LEN]);
        for option in options::iter(&header[HEADER_LEN..]).filter(|option| option[0] & options::COPIED != 0) {
            later.octets[later.len..later.len + option.len()].copy_from_slice(option);
            later.len += option.len();
        }
        later.len = later.len.next_multiple_of(4);
        later
    }

    fn at(mut self, place: u16) -> Self {
        self.octets[6..8].copy_from_slice(&place.to_be_bytes());
        self
    }

    fn finished(mut self, payload_len: usize) -> Self {
        let total_len = u16::try_from(self.len + payload_len).expect("no longer than the packet");
        let words = u8::try_from(self.len / 4).expect("at most fifteen words");
        self.octets[0] = self.octets[0] & 0xf0 | words;
        self.octets[2..4].copy_from_slice(&total_len.to_be_bytes());
        fill_checksum(&mut self.octets[..self.len]);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fragment, OFFSET_MASK, Repr};
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn repr<'a>(options: &'a [u8], payload: &'a [u8]) -> Repr<'a> {
        Repr {
            tos: 0xb8,
            identification: 0x1234,
            fragment: Fragment::default(),
            ttl: 9,
            protocol: 17,
            source: Ipv4Addr::new(192, 0, 2, 10),
            destination: Ipv4Addr::new(232, 1, 2, 3),
            options,
            payload,
        }
    }

    fn emitted(repr: &Repr<'_>) -> Vec<u8> {
        let mut dirty = vec![0xff; repr.buffer_len()];
        repr.emit(&mut dirty);
        dirty
    }

    fn cut(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        let parts = fragment(packet, mtu).expect("may be cut").map(|part| {
            let mut dirty = vec![0xff; part.buffer_len()];
            part.emit(&mut dirty);
            dirty
        });
        parts.collect()
    }

    /// Where each part stands, whether more follow, and its payload's length.
    fn places(parts: &[Vec<u8>]) -> Vec<(usize, bool, usize)> {
        let place = |part: &Vec<u8>| {
            let part = Repr::parse(part).expect("a packet with its checksum");
            (part.fragment.offset_bytes(), part.fragment.more, part.payload.len())
        };
        parts.iter().map(place).collect()
    }

    #[test]
    fn a_full_ethernet_packet_is_cut_in_two_for_a_tunnel() {
        let payload: Vec<u8> = (0..=255).cycle().take(1480).collect();
        let parts = cut(&emitted(&repr(b"", &payload)), 1400 - 30);
        assert_eq!(places(&parts), [(0, true, 1344), (1344, false, 136)]);
        for part in &parts {
            let part = Repr::parse(part).unwrap();
            let at = part.fragment.offset_bytes();
            assert_eq!(part.payload, &payload[at..at + part.payload.len()]);
            let expected = Repr { fragment: part.fragment, payload: part.payload, ..repr(b"", b"") };
            assert_eq!(part, expected);
        }
    }

    #[test]
    fn what_fits_stays_octet_for_octet_even_when_it_may_not_be_cut() {
        let whole = emitted(&Repr {
            fragment: Fragment { dont_fragment: true, ..Fragment::default() },
            ..repr(b"\x94\x04\0\0", b"payload")
        });
        assert_eq!(cut(&whole, whole.len()), std::slice::from_ref(&whole));
        assert_eq!(fragment(&whole, whole.len() - 1).unwrap_err(), FragmentError::DontFragment(31));
    }

    /// RFC 791 §3.1: the router alert (148) and the loose source route (131) have the copied bit, the record route (7) and
    /// the time stamp (68) have not.
    #[test]
    fn only_options_that_say_so_are_copied_into_later_fragments() {
        let options = b"\x07\x07\x04\0\0\0\0\x01\x94\x04\0\0\x44\x08\x05\0\0\0\0\0\x83\x03\x04\0";
        let parts = cut(&emitted(&repr(options, &[1; 40])), 44 + 16);
        assert_eq!(places(&parts), [(0, true, 16), (16, false, 24)]);
        assert_eq!(Repr::parse(&parts[0]).unwrap().options, options);
        assert_eq!(Repr::parse(&parts[1]).unwrap().options, b"\x94\x04\0\0\x83\x03\x04\0");
    }

    #[test]
    fn an_option_that_runs_over_the_end_is_not_copied() {
        let parts = cut(&emitted(&repr(b"\x94\x04\0\0\x83\x08\x04\0", &[1; 40])), 28 + 32);
        assert_eq!(Repr::parse(&parts[1]).unwrap().options, b"\x94\x04\0\0");
        let endless = cut(&emitted(&repr(b"\x83\x00\x83\x01", &[1; 40])), 24 + 32);
        assert_eq!(Repr::parse(&endless[1]).unwrap().options, b"");
    }

    #[test]
    fn a_fragment_is_cut_again_and_only_the_last_of_all_says_that_none_follows() {
        let place = Fragment { dont_fragment: false, more: true, offset_units: 100 };
        let middle = emitted(&Repr { fragment: place, ..repr(b"", &[1; 24]) });
        assert_eq!(places(&cut(&middle, 36)), [(800, true, 16), (816, true, 8)]);
        let last = emitted(&Repr { fragment: Fragment { more: false, ..place }, ..repr(b"", &[1; 24]) });
        assert_eq!(places(&cut(&last, 36)), [(800, true, 16), (816, false, 8)]);
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        let packet = emitted(&repr(b"\x94\x04\0\0", &[1; 40]));
        assert_eq!(fragment(&packet, 31).unwrap_err(), FragmentError::Mtu(31));
        assert_eq!(places(&cut(&packet, 32)).len(), 5);
        let mut wrong = packet.clone();
        wrong[8] ^= 1;
        assert_eq!(fragment(&wrong, 32).unwrap_err(), FragmentError::Packet(ParseError::Checksum));
        assert_eq!(fragment(&packet[..30], 32).unwrap_err(), FragmentError::Packet(ParseError::Truncated(30)));
        let place = Fragment { offset_units: OFFSET_MASK, ..Fragment::default() };
        let outside = emitted(&Repr { fragment: place, ..repr(b"", &[1; 40]) });
        assert_eq!(fragment(&outside, 32).unwrap_err(), FragmentError::Offset);
    }

    proptest! {
        #[test]
        fn fragments_put_together_are_the_packet(
            payload in proptest::collection::vec(any::<u8>(), 0..3000),
            options in proptest::collection::vec(any::<u8>(), 0..=10).prop_map(|words| words.repeat(4)),
            mtu in 68_usize..1600,
            more: bool,
            offset_units in 0_u16..7000,
        ) {
            let place = Fragment { dont_fragment: false, more, offset_units };
            let packet = emitted(&Repr { fragment: place, ..repr(&options, &payload) });
            let parts = cut(&packet, mtu);
            let mut together = Vec::new();
            for (index, part) in parts.iter().enumerate() {
                prop_assert!(part.len() <= mtu);
                let part = Repr::parse(part).expect("a packet with its checksum");
                let last = index + 1 == parts.len();
                prop_assert_eq!(part.fragment.offset_bytes(), place.offset_bytes() + together.len());
                prop_assert_eq!(part.fragment.more, !last || more);
                prop_assert!(last || part.payload.len().is_multiple_of(8) && !part.payload.is_empty());
                together.extend_from_slice(part.payload);
            }
            prop_assert_eq!(together, payload);
        }
    }
}
