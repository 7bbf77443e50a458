//! UMTP over HTTP: datagrams in a row, each behind its length (draft-liefooghe-castgate-02 §7.3).
//!
//! ```text
//!   | length (16) | datagram: length octets | length (16) | ...
//! ```
//! castgate UMTP notes: the length counts the datagram only; length 0 is a keep-alive; no datagram has fewer than 4 octets.

use super::FlowTrailer;

/// Octets of the length.
const HEADER_LEN: usize = 2;

/// Why a row of frames cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FrameError {
    /// A length that no datagram has.
    #[error("a frame of {0} octets is too short for a datagram")]
    TooShort(usize),
}

/// The first frame of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The datagram; empty for a keep-alive.
    pub datagram: &'a [u8],
    /// What follows it.
    pub rest: &'a [u8],
}

/// The first frame of `octets`; `None` when it is not there in full.
///
/// # Errors
/// [`FrameError`] when the peer counts otherwise than we: nothing after it can be trusted.
pub fn split_first(octets: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((len, rest)) = octets.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
    match usize::from(u16::from_be_bytes(*len)) {
        len @ 1..FlowTrailer::LEN => Err(FrameError::TooShort(len)),
        len => Ok(rest.split_at_checked(len).map(|(datagram, rest)| Frame { datagram, rest })),
    }
}

/// Appends a datagram behind its length.
///
/// # Panics
/// When the datagram is longer than 65535 octets: there is none.
pub fn append(datagram: &[u8], octets: &mut Vec<u8>) {
    let len = u16::try_from(datagram.len()).expect("a datagram has at most 65535 octets");
    octets.extend_from_slice(&len.to_be_bytes());
    octets.extend_from_slice(datagram);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keep_alive_is_an_empty_datagram() {
        assert_eq!(split_first(b"\0\0\0\x04abcd"), Ok(Some(Frame { datagram: b"", rest: b"\0\x04abcd" })));
    }

    #[test]
    fn a_frame_that_is_not_there_in_full_is_waited_for() {
        for octets in [&b""[..], b"\0", b"\0\x04", b"\0\x04abc"] {
            assert_eq!(split_first(octets), Ok(None));
        }
    }

    #[test]
    fn lengths_from_one_to_three_are_an_error_at_once() {
        for len in 1..=3_u8 {
            assert_eq!(split_first(&[0, len]), Err(FrameError::TooShort(len.into())));
        }
    }

    #[test]
    fn datagrams_come_out_in_the_order_they_went_in() {
        let mut octets = Vec::new();
        append(b"first", &mut octets);
        append(b"second", &mut octets);
        let first = split_first(&octets).unwrap().unwrap();
        assert_eq!(first.datagram, b"first");
        assert_eq!(split_first(first.rest), Ok(Some(Frame { datagram: b"second", rest: b"" })));
    }
}
