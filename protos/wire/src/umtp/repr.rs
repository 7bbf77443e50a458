//! A whole datagram as a value.

use super::option::{self, Options};
use super::trailer::FlowTrailer;
use super::{Command, FlowId, ParseError, Trailer};

/// A datagram: a trailer and what stands before it.
///
/// ```
/// use castgate_wire::umtp::{Command, Cookie, Repr, Trailer};
///
/// let trailer = Trailer {
///     source_cookie: Cookie(1442),
///     destination_cookie: Cookie(914),
///     channel: "224.2.127.254:9875".parse()?,
///     ttl: 126,
///     command: Command::Data,
/// };
/// let data = Repr::Command { trailer, head: b"hi" };
/// let datagram = data.to_vec();
/// assert_eq!(datagram, b"hi\x05\xa2\x03\x92\xe0\x02\x7f\xfe\x26\x93\x7e\x01");
/// assert_eq!(Repr::parse(&datagram)?, data);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Repr<'a> {
    /// Every command but `FLOW_DATA`.
    Command {
        /// The last 12 or 16 octets.
        trailer: Trailer,
        /// The payload of DATA, the options of probes and joins; ignored with other commands.
        head: &'a [u8],
    },
    /// `FLOW_DATA`.
    Flow {
        /// Which channel, in the words of the receiver.
        flow: FlowId,
        /// Hops that the payload may still travel.
        ttl: u8,
        /// The original UDP payload.
        payload: &'a [u8],
    },
}

impl<'a> Repr<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    /// [`ParseError`] when it is too short for its trailer, of another version, or carries a source where none is allowed.
    /// Never panics, whatever the bytes.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        if let Some((payload, FlowTrailer { flow, ttl })) = FlowTrailer::parse(datagram)? {
            return Ok(Self::Flow { flow, ttl, payload });
        }
        let (head, trailer) = Trailer::parse(datagram)?;
        Ok(Self::Command { trailer, head })
    }

    /// What the datagram asks for.
    #[must_use]
    pub fn command(&self) -> Command {
        match self {
            Self::Command { trailer, .. } => trailer.command,
            Self::Flow { .. } => Command::FlowData,
        }
    }

    /// The options before the trailer; none for commands that carry none, whatever stands there.
    ///
    /// # Errors
    /// [`option::ParseError`] when an option runs into the trailer: the message is malformed.
    pub fn options(&self) -> Result<Options<'a>, option::ParseError> {
        match self {
            Self::Command { trailer, head } if trailer.command.may_carry_options() => Options::new_checked(head),
            Self::Command { .. } | Self::Flow { .. } => Options::new_checked(&[]),
        }
    }

    /// Octets that [`emit`](Self::emit) writes.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        match self {
            Self::Command { trailer, head } => head.len() + trailer.buffer_len(),
            Self::Flow { payload, .. } => payload.len() + FlowTrailer::LEN,
        }
    }

    /// Writes the datagram; every octet of `buffer` is overwritten.
    ///
    /// # Panics
    /// When `buffer` is not exactly [`buffer_len`](Self::buffer_len) octets long, or for `Command` with `FLOW_DATA` inside:
    /// both are the caller's to get right.
    pub fn emit(&self, buffer: &mut [u8]) {
        match self {
            Self::Command { trailer, head } => {
                let (front, back) = buffer.split_at_mut(head.len());
                front.copy_from_slice(head);
                trailer.emit(back);
            }
            Self::Flow { flow, ttl, payload } => {
                let (front, back) = buffer.split_at_mut(payload.len());
                front.copy_from_slice(payload);
                back.copy_from_slice(&FlowTrailer { flow: *flow, ttl: *ttl }.to_octets());
            }
        }
    }

    /// The datagram in a buffer of its own.
    ///
    /// # Panics
    /// As [`emit`](Self::emit).
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut datagram = vec![0; self.buffer_len()];
        self.emit(&mut datagram);
        datagram
    }
}
