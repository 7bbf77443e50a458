//! The trailer: the last 12 or 16 octets of a datagram, or the last 4 of `FLOW_DATA`.
//!
//! ```text
//!        -4            0     2     4        8    10    11
//!   [ source IPv4 ] | src | dst | group  | port | TTL | S vvv cccc |     draft-finlayson-umtp-09 §2
//!     only if S=1     cookies                              last octet of the datagram
//!
//!                               0         2     3
//!                             | flow id | TTL | S vvv cccc |            draft-liefooghe-castgate-02 §5.1
//! ```

use super::command::COMMAND_MASK;
use super::{Channel, Command, Cookie, FlowId, ParseError};
use std::net::Ipv4Addr;
use std::ops::Deref;

/// Octets of a trailer without a source address.
pub const SHORT_TRAILER_LEN: usize = 12;
/// Octets of a trailer with a source address.
pub const LONG_TRAILER_LEN: usize = 16;
const SOURCE_LEN: usize = LONG_TRAILER_LEN - SHORT_TRAILER_LEN;

const SOURCE_FLAG: u8 = 0x80;
const VERSION_MASK: u8 = 0x70;

/// What the last octet of a datagram says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastOctet {
    pub(super) command: Command,
    pub(super) has_source: bool,
}

impl LastOctet {
    /// Reads the last octet of `datagram`; lengths are for the caller to check.
    pub(super) fn parse(datagram: &[u8]) -> Result<Self, ParseError> {
        let last = *datagram.last().ok_or(ParseError::Truncated(0))?;
        if last & VERSION_MASK != 0 {
            return Err(ParseError::Version((last & VERSION_MASK) >> 4));
        }
        let command = Command::from_code(last & COMMAND_MASK);
        // castgate UMTP notes: in FLOW_DATA the flag means nothing and does not lengthen the trailer.
        let has_source = last & SOURCE_FLAG != 0 && command != Command::FlowData;
        if has_source && !command.may_carry_source() {
            return Err(ParseError::SourceNotAllowed(command));
        }
        Ok(Self { command, has_source })
    }

    /// Octets of the trailer that this octet ends.
    pub(super) const fn trailer_len(self) -> usize {
        match (self.command, self.has_source) {
            (Command::FlowData, _) => FlowTrailer::LEN,
            (_, true) => LONG_TRAILER_LEN,
            (_, false) => SHORT_TRAILER_LEN,
        }
    }
}

/// A trailer as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Trailer {
    /// The sender's own cookie for this tunnel.
    pub source_cookie: Cookie,
    /// What the sender believes is the receiver's cookie.
    pub destination_cookie: Cookie,
    /// The channel; [`Channel::UNSPECIFIED`] where the command has no use for it.
    ///
    /// Its source is written only with commands that may carry one: the `PROBE_ACK` that answers a source-specific join
    /// keeps the join's channel, and loses the source on the wire.
    pub channel: Channel,
    /// Hops that the payload may still travel.
    pub ttl: u8,
    /// What the datagram asks for.
    pub command: Command,
}

impl Trailer {
    /// A trailer that concerns no channel: a probe, its answers, a tear-down.
    #[must_use]
    pub const fn without_channel(command: Command, source_cookie: Cookie, destination_cookie: Cookie) -> Self {
        Self { source_cookie, destination_cookie, channel: Channel::UNSPECIFIED, ttl: 0, command }
    }

    /// Splits a datagram into what stands before the trailer (the payload of DATA, the options of others) and the trailer.
    ///
    /// # Errors
    /// [`ParseError`] when the datagram is too short for its trailer, of another version, carries a source where none is
    /// allowed, or is `FLOW_DATA`. Never panics, whatever the bytes.
    ///
    /// # Source
    /// draft-finlayson-umtp-09 §2.
    pub fn parse(datagram: &[u8]) -> Result<(&[u8], Self), ParseError> {
        let truncated = ParseError::Truncated(datagram.len());
        let LastOctet { command, has_source } = LastOctet::parse(datagram)?;
        if command == Command::FlowData {
            return Err(ParseError::FlowData);
        }
        let (front, short) = datagram.split_last_chunk::<SHORT_TRAILER_LEN>().ok_or(truncated)?;
        let [s0, s1, d0, d1, g0, g1, g2, g3, p0, p1, ttl, _] = *short;
        let (head, source) = if has_source {
            let (head, source) = front.split_last_chunk::<SOURCE_LEN>().ok_or(truncated)?;
            (head, Some(Ipv4Addr::from(*source)))
        } else {
            (front, None)
        };
        let trailer = Self {
            source_cookie: Cookie(u16::from_be_bytes([s0, s1])),
            destination_cookie: Cookie(u16::from_be_bytes([d0, d1])),
            channel: Channel { group: Ipv4Addr::new(g0, g1, g2, g3), source, port: u16::from_be_bytes([p0, p1]) },
            ttl,
            command,
        };
        Ok((head, trailer))
    }

    /// The source that goes to the wire.
    fn source(&self) -> Option<Ipv4Addr> {
        self.channel.source.filter(|_| self.command.may_carry_source())
    }

    /// Octets that [`emit`](Self::emit) writes: 12, or 16 with a source.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        if self.source().is_some() { LONG_TRAILER_LEN } else { SHORT_TRAILER_LEN }
    }

    /// Writes the trailer; every octet of `buffer` is overwritten.
    ///
    /// # Panics
    /// When `buffer` is not exactly [`buffer_len`](Self::buffer_len) octets long, or for `FLOW_DATA`, which has a
    /// [trailer of its own](FlowTrailer): both are the caller's to get right.
    pub fn emit(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.to_octets());
    }

    /// Appends the trailer, so that what `datagram` holds becomes its payload or options.
    ///
    /// # Panics
    /// For `FLOW_DATA`, as [`emit`](Self::emit).
    pub fn append_to(&self, datagram: &mut Vec<u8>) {
        datagram.extend_from_slice(&self.to_octets());
    }

    /// The octets of the trailer, without allocating.
    ///
    /// # Panics
    /// For `FLOW_DATA`, as [`emit`](Self::emit).
    #[must_use]
    pub fn to_octets(&self) -> TrailerOctets {
        assert!(self.command != Command::FlowData, "FLOW_DATA has a trailer of its own");
        let source = self.source();
        let flag = if source.is_some() { SOURCE_FLAG } else { 0 };
        let [s0, s1, s2, s3] = source.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
        let [c0, c1] = self.source_cookie.0.to_be_bytes();
        let [d0, d1] = self.destination_cookie.0.to_be_bytes();
        let [g0, g1, g2, g3] = self.channel.group.octets();
        let [p0, p1] = self.channel.port.to_be_bytes();
        let last = flag | self.command.code();
        let octets = [s0, s1, s2, s3, c0, c1, d0, d1, g0, g1, g2, g3, p0, p1, self.ttl, last];
        TrailerOctets { octets, has_source: source.is_some() }
    }
}

/// The 12 or 16 octets of a trailer, held in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrailerOctets {
    octets: [u8; LONG_TRAILER_LEN],
    has_source: bool,
}

impl Deref for TrailerOctets {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.has_source { &self.octets } else { &self.octets[SOURCE_LEN..] }
    }
}

impl AsRef<[u8]> for TrailerOctets {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// The trailer of `FLOW_DATA`: no cookies, no channel, the receiver knows both by the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowTrailer {
    /// The name the receiver gave the channel.
    pub flow: FlowId,
    /// Hops that the payload may still travel.
    pub ttl: u8,
}

impl FlowTrailer {
    /// Octets of the trailer.
    pub const LEN: usize = 4;

    /// Splits a `FLOW_DATA` datagram into payload and trailer; `Ok(None)` for every other command.
    ///
    /// # Errors
    /// [`ParseError`] as [`Trailer::parse`].
    pub fn parse(datagram: &[u8]) -> Result<Option<(&[u8], Self)>, ParseError> {
        if LastOctet::parse(datagram)?.command != Command::FlowData {
            return Ok(None);
        }
        let (payload, trailer) =
            datagram.split_last_chunk::<{ Self::LEN }>().ok_or(ParseError::Truncated(datagram.len()))?;
        let [f0, f1, ttl, _] = *trailer;
        Ok(Some((payload, Self { flow: FlowId(u16::from_be_bytes([f0, f1])), ttl })))
    }

    /// The octets of the trailer. The S flag is sent as 0.
    #[must_use]
    pub const fn to_octets(self) -> [u8; Self::LEN] {
        let [f0, f1] = self.flow.0.to_be_bytes();
        [f0, f1, self.ttl, Command::FlowData.code()]
    }
}
