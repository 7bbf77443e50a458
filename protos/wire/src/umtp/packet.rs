//! A checked view of a datagram in place, for code that looks at a few fields and copies nothing.

use super::option::{self, Options};
use super::repr::Repr;
use super::trailer::{FlowTrailer, LastOctet};
use super::{Channel, Command, Cookie, FlowId, ParseError, Trailer};

/// A datagram that is known to hold a whole trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
    last: LastOctet,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Checks that `buffer` ends in a whole trailer that we understand.
    ///
    /// # Errors
    /// [`ParseError`] as [`Repr::parse`].
    pub fn new_checked(buffer: T) -> Result<Self, ParseError> {
        let datagram = buffer.as_ref();
        let last = LastOctet::parse(datagram)?;
        if datagram.len() < last.trailer_len() {
            return Err(ParseError::Truncated(datagram.len()));
        }
        Ok(Self { buffer, last })
    }

    /// The buffer, as it was given.
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// What the datagram asks for.
    pub fn command(&self) -> Command {
        self.last.command
    }

    /// The whole trailer; `None` for `FLOW_DATA`.
    pub fn trailer(&self) -> Option<Trailer> {
        // After new_checked() nothing else than FLOW_DATA is refused.
        Trailer::parse(self.buffer.as_ref()).ok().map(|(_, trailer)| trailer)
    }

    /// The sender's own cookie; `None` for `FLOW_DATA`.
    pub fn source_cookie(&self) -> Option<Cookie> {
        self.trailer().map(|trailer| trailer.source_cookie)
    }

    /// What the sender believes is our cookie; `None` for `FLOW_DATA`.
    pub fn destination_cookie(&self) -> Option<Cookie> {
        self.trailer().map(|trailer| trailer.destination_cookie)
    }

    /// The channel as the trailer has it; `None` for `FLOW_DATA`.
    pub fn channel(&self) -> Option<Channel> {
        self.trailer().map(|trailer| trailer.channel)
    }

    /// The flow of `FLOW_DATA`; `None` for every other command.
    pub fn flow_id(&self) -> Option<FlowId> {
        FlowTrailer::parse(self.buffer.as_ref()).ok().flatten().map(|(_, trailer)| trailer.flow)
    }

    /// Hops that the payload may still travel.
    pub fn ttl(&self) -> u8 {
        let datagram = self.buffer.as_ref();
        datagram[datagram.len() - 2]
    }

    /// What stands before the trailer: a payload, options, or what nobody looks at.
    pub fn head(&self) -> &[u8] {
        let datagram = self.buffer.as_ref();
        &datagram[..datagram.len() - self.last.trailer_len()]
    }

    /// The options before the trailer; none for commands that carry none, whatever stands there.
    ///
    /// # Errors
    /// [`option::ParseError`] when an option runs into the trailer: the message is malformed.
    pub fn options(&self) -> Result<Options<'_>, option::ParseError> {
        let head = if self.command().may_carry_options() { self.head() } else { &[] };
        Options::new_checked(head)
    }

    /// The datagram as a value.
    #[expect(clippy::missing_panics_doc, reason = "a datagram that is known to hold a whole trailer has a value")]
    pub fn repr(&self) -> Repr<'_> {
        Repr::parse(self.buffer.as_ref()).expect("new_checked() has parsed this trailer")
    }
}
