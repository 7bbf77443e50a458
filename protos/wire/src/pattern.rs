//! The payload of a pattern channel: numbered, time-stamped, and verifiable to the last octet.
//!
//! Who receives it can tell lost from late from duplicated, measure the delay, and prove that no octet changed.
//!
//! ```text
//!   0       4       8        16         24     32
//!   | magic | check | stream | sequence | sent | filler ... to the end |     all big-endian
//! ```
//! The check covers the header and the length of the payload; the filler follows from stream and sequence. The magic is
//! neither RTP version 2 nor an MPEG-TS synchronisation octet.

const MAGIC: [u8; 4] = *b"CGp1";
/// The shortest payload that holds a pattern: no filler at all.
pub const HEADER_LEN: usize = 32;

/// What one datagram of a pattern says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Repr {
    /// Chosen once for each start of a sender, so that two of them are not taken for one.
    pub stream: u64,
    /// Counts the datagrams of the stream from 0.
    pub sequence: u64,
    /// When it was sent.
    ///
    /// # Units
    /// Nanoseconds since the UNIX epoch.
    pub sent_nanos: u64,
}

impl Repr {
    /// Reads a payload; `None` when it is no pattern, or one that was cut or changed on its way.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (header, filler) = payload.split_first_chunk::<HEADER_LEN>()?;
        let (magic, header) = header.split_first_chunk::<4>()?;
        let (check, header) = header.split_first_chunk::<4>()?;
        let (stream, header) = header.split_first_chunk::<8>()?;
        let (sequence, header) = header.split_first_chunk::<8>()?;
        let (sent, _) = header.split_first_chunk::<8>()?;
        let repr = Self {
            stream: u64::from_be_bytes(*stream),
            sequence: u64::from_be_bytes(*sequence),
            sent_nanos: u64::from_be_bytes(*sent),
        };
        let genuine = *magic == MAGIC && *check == repr.check(payload.len()) && repr.filler().verify(filler);
        genuine.then_some(repr)
    }

    /// Whether a payload claims to be a pattern; [`parse`](Self::parse) says whether it is an intact one.
    #[must_use]
    pub fn is_claimed_by(payload: &[u8]) -> bool {
        payload.len() >= HEADER_LEN && payload.starts_with(&MAGIC)
    }

    /// Fills `payload`; every octet is overwritten.
    ///
    /// # Panics
    /// When `payload` is shorter than [`HEADER_LEN`]: the caller sized it.
    pub fn emit(&self, payload: &mut [u8]) {
        let len = payload.len();
        assert!(len >= HEADER_LEN, "a pattern needs {HEADER_LEN} octets");
        payload[0..4].copy_from_slice(&MAGIC);
        payload[4..8].copy_from_slice(&self.check(len));
        payload[8..16].copy_from_slice(&self.stream.to_be_bytes());
        payload[16..24].copy_from_slice(&self.sequence.to_be_bytes());
        payload[24..32].copy_from_slice(&self.sent_nanos.to_be_bytes());
        self.filler().fill(&mut payload[HEADER_LEN..]);
    }

    fn check(&self, payload_len: usize) -> [u8; 4] {
        let words = [self.stream, self.sequence, self.sent_nanos, payload_len as u64];
        let mixed = words.into_iter().fold(0, |mixed, word| mix(mixed ^ word));
        let [check @ .., _, _, _, _] = mixed.to_be_bytes();
        check
    }

    fn filler(&self) -> Filler {
        Filler { state: mix(self.stream ^ mix(self.sequence)) }
    }
}

/// An endless row of octets, eight at a time: splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators, 2014).
struct Filler {
    state: u64,
}

impl Filler {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    fn next(&mut self) -> [u8; 8] {
        self.state = self.state.wrapping_add(Self::STEP);
        mix(self.state).to_be_bytes()
    }

    fn fill(mut self, octets: &mut [u8]) {
        for chunk in octets.chunks_mut(8) {
            chunk.copy_from_slice(&self.next()[..chunk.len()]);
        }
    }

    fn verify(mut self, octets: &[u8]) -> bool {
        octets.chunks(8).all(|chunk| *chunk == self.next()[..chunk.len()])
    }
}

/// The finalizer of splitmix64: every bit of the input changes about half of the output.
const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REPR: Repr = Repr { stream: 0x0102_0304_0506_0708, sequence: 42, sent_nanos: 1_700_000_000_000_000_000 };

    fn payload(repr: Repr, len: usize) -> Vec<u8> {
        let mut dirty = vec![0xff; len];
        repr.emit(&mut dirty);
        dirty
    }

    /// Our own vector: sender and receiver may be of different versions.
    #[test]
    fn the_octets_of_a_pattern_stay_what_they_are() {
        let bytes = payload(REPR, HEADER_LEN + 10);
        assert_eq!(bytes[..8], *b"CGp1\x01\x9f\x75\x58");
        assert_eq!(bytes[8..16], *b"\x01\x02\x03\x04\x05\x06\x07\x08");
        assert_eq!(bytes[16..24], *b"\x00\x00\x00\x00\x00\x00\x00\x2a");
        assert_eq!(bytes[24..32], *b"\x17\x97\x9c\xfe\x36\x2a\x00\x00");
        assert_eq!(bytes[32..], *b"\x7f\x9f\x23\x7a\xa5\x61\x9f\x5b\x79\xf0");
        assert_eq!(Repr::parse(&bytes), Some(REPR));
    }

    #[test]
    fn a_change_of_any_bit_is_noticed() {
        let bytes = payload(REPR, HEADER_LEN + 13);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Repr::parse(&changed), None, "bit {bit}");
        }
    }

    #[test]
    fn a_payload_that_was_cut_or_lengthened_is_noticed() {
        let bytes = payload(REPR, HEADER_LEN + 13);
        for len in 0..bytes.len() {
            assert_eq!(Repr::parse(&bytes[..len]), None, "{len} octets");
        }
        let mut longer = payload(REPR, HEADER_LEN + 8);
        longer.extend_from_slice(&bytes[HEADER_LEN + 8..]);
        assert_eq!(Repr::parse(&longer), None);
        assert!(Repr::is_claimed_by(&longer));
    }

    #[test]
    fn consecutive_datagrams_share_no_filler() {
        let next = Repr { sequence: REPR.sequence + 1, ..REPR };
        assert_ne!(payload(REPR, 100)[HEADER_LEN..], payload(next, 100)[HEADER_LEN..]);
    }

    #[test]
    fn a_pattern_is_not_taken_for_rtp_or_mpeg_ts() {
        let bytes = payload(REPR, 188);
        assert_eq!(crate::rtp::Repr::parse(&bytes), None);
        assert_ne!(bytes[0], 0x47);
    }

    proptest! {
        #[test]
        fn what_is_emitted_parses(stream: u64, sequence: u64, sent_nanos: u64, len in HEADER_LEN..1500) {
            let repr = Repr { stream, sequence, sent_nanos };
            prop_assert_eq!(Repr::parse(&payload(repr, len)), Some(repr));
        }

        #[test]
        fn what_parses_emits_the_same_octets(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some(repr) = Repr::parse(&bytes) {
                prop_assert_eq!(payload(repr, bytes.len()), bytes);
            }
        }
    }
}
