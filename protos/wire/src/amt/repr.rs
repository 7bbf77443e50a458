//! A whole datagram as a value.

use super::{Nonce, ParseError, QueryFlags, RequestFlags, ResponseMac, address};
use std::net::{IpAddr, SocketAddr};

/// Octets of a Relay Discovery.
pub const DISCOVERY_LEN: usize = 8;
/// Octets of a Relay Advertisement with an IPv4 address.
pub const ADVERTISEMENT_V4_LEN: usize = 12;
/// Octets of a Relay Advertisement with an IPv6 address.
pub const ADVERTISEMENT_V6_LEN: usize = 24;
/// Octets of a Request; more are ignored.
pub const REQUEST_LEN: usize = 8;
/// Octets before the packet in a Membership Query.
pub const QUERY_HEADER_LEN: usize = 12;
/// Octets of port and address behind the packet of a Membership Query with G.
pub const GATEWAY_ADDRESS_LEN: usize = address::LEN;
/// Octets before the packet in a Membership Update.
pub const UPDATE_HEADER_LEN: usize = 12;
/// Octets of a Teardown; more are ignored.
pub const TEARDOWN_LEN: usize = UPDATE_HEADER_LEN + address::LEN;
/// What stands before the packet in Multicast Data.
pub const DATA_HEADER: [u8; 2] = [MessageType::Data.code(), 0];
/// The low half of the first octet.
const TYPE_MASK: u8 = 0x0f;

/// What a datagram is (RFC 7450 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageType {
    /// Gateway to relay: who serves me?
    Discovery,
    /// Relay to gateway: this address does.
    Advertisement,
    /// Gateway to relay: ask me what I want.
    Request,
    /// Relay to gateway: what do you want?
    Query,
    /// Gateway to relay: I want this.
    Update,
    /// Relay to gateway: a packet.
    Data,
    /// Gateway to relay: send no more to that address.
    Teardown,
}

impl MessageType {
    /// All types, by code.
    pub const ALL: [Self; 7] =
        [Self::Discovery, Self::Advertisement, Self::Request, Self::Query, Self::Update, Self::Data, Self::Teardown];

    /// The type of a datagram, by its first octet alone.
    ///
    /// # Errors
    /// [`ParseError`] for nothing at all, for another version and for an unknown type.
    pub fn of(datagram: &[u8]) -> Result<Self, ParseError> {
        let first = *datagram.first().ok_or(ParseError::Truncated(0))?;
        match first >> 4 {
            0 => Self::from_code(first & TYPE_MASK).ok_or(ParseError::UnknownType(first & TYPE_MASK)),
            version => Err(ParseError::Version(version)),
        }
    }

    /// The type of a code; `None` when RFC 7450 gives it no meaning.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Discovery,
            2 => Self::Advertisement,
            3 => Self::Request,
            4 => Self::Query,
            5 => Self::Update,
            6 => Self::Data,
            7 => Self::Teardown,
            _ => return None,
        })
    }

    /// The code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Discovery => 1,
            Self::Advertisement => 2,
            Self::Request => 3,
            Self::Query => 4,
            Self::Update => 5,
            Self::Data => 6,
            Self::Teardown => 7,
        }
    }

    /// The type as a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::Advertisement => "advertisement",
            Self::Request => "request",
            Self::Query => "query",
            Self::Update => "update",
            Self::Data => "data",
            Self::Teardown => "teardown",
        }
    }
}

/// A datagram. It borrows and never allocates, so that it is its own view on the way of the data.
///
/// ```
/// use castgate_wire::amt::{Nonce, Repr, RequestFlags};
///
/// let request = Repr::Request { nonce: Nonce(0xcafe_babe), flags: RequestFlags::MLD };
/// let datagram = request.to_vec();
/// assert_eq!(datagram, b"\x03\x01\x00\x00\xca\xfe\xba\xbe");
/// assert_eq!(Repr::parse(&datagram)?, request);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Repr<'a> {
    /// Relay Discovery.
    Discovery {
        /// To be found again in the answer.
        nonce: Nonce,
    },
    /// Relay Advertisement.
    Advertisement {
        /// That of the Relay Discovery.
        nonce: Nonce,
        /// Where Requests go.
        relay: IpAddr,
    },
    /// Request.
    Request {
        /// To be found again in the answer.
        nonce: Nonce,
        /// The second octet as it came.
        flags: RequestFlags,
    },
    /// Membership Query.
    Query {
        /// To be sent back in Membership Updates and Teardowns.
        mac: ResponseMac,
        /// That of the Request.
        nonce: Nonce,
        /// The second octet as it came.
        flags: QueryFlags,
        /// The gateway as the relay sees it; there exactly when G is set.
        gateway: Option<SocketAddr>,
        /// An IP packet with a General Query; more octets may follow it.
        packet: &'a [u8],
    },
    /// Membership Update.
    Update {
        /// That of the Membership Query.
        mac: ResponseMac,
        /// That of the Request.
        nonce: Nonce,
        /// An IP packet with a report, leave or done; more octets may follow it.
        packet: &'a [u8],
    },
    /// Multicast Data.
    Data {
        /// An IP packet, or a fragment of one; more octets may follow it.
        packet: &'a [u8],
    },
    /// Teardown.
    Teardown {
        /// That of the last Membership Query to `gateway`.
        mac: ResponseMac,
        /// That of the Request.
        nonce: Nonce,
        /// The tunnel endpoint to be forgotten.
        gateway: SocketAddr,
    },
}

impl<'a> Repr<'a> {
    /// Reads a datagram. Reserved bits are not looked at, and what follows a message of known length is not either; the
    /// length of a Relay Advertisement tells its address family and has to be right.
    ///
    /// # Errors
    /// [`ParseError`] with what is wrong. Never panics, whatever the bytes.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let truncated = ParseError::Truncated(datagram.len());
        Ok(match MessageType::of(datagram)? {
            MessageType::Discovery => Self::Discovery { nonce: short_header(datagram)?.1 },
            MessageType::Advertisement => {
                let nonce = short_header(datagram)?.1;
                let relay =
                    relay_address(&datagram[DISCOVERY_LEN..]).ok_or(ParseError::AdvertisementLength(datagram.len()))?;
                Self::Advertisement { nonce, relay }
            }
            MessageType::Request => {
                let (flags, nonce) = short_header(datagram)?;
                Self::Request { nonce, flags: RequestFlags(flags) }
            }
            MessageType::Query => {
                let (flags, mac, nonce, rest) = long_header(datagram)?;
                let flags = QueryFlags(flags);
                if flags.gateway_address() {
                    let (packet, gateway) = rest.split_last_chunk().ok_or(truncated)?;
                    Self::Query { mac, nonce, flags, gateway: Some(address::parse(gateway)), packet }
                } else {
                    Self::Query { mac, nonce, flags, gateway: None, packet: rest }
                }
            }
            MessageType::Update => {
                let (_, mac, nonce, packet) = long_header(datagram)?;
                Self::Update { mac, nonce, packet }
            }
            MessageType::Data => Self::Data { packet: datagram.get(DATA_HEADER.len()..).ok_or(truncated)? },
            MessageType::Teardown => {
                let (_, mac, nonce, rest) = long_header(datagram)?;
                let gateway = address::parse(rest.first_chunk().ok_or(truncated)?);
                Self::Teardown { mac, nonce, gateway }
            }
        })
    }

    /// What the datagram is.
    #[must_use]
    pub fn message_type(&self) -> MessageType {
        match self {
            Self::Discovery { .. } => MessageType::Discovery,
            Self::Advertisement { .. } => MessageType::Advertisement,
            Self::Request { .. } => MessageType::Request,
            Self::Query { .. } => MessageType::Query,
            Self::Update { .. } => MessageType::Update,
            Self::Data { .. } => MessageType::Data,
            Self::Teardown { .. } => MessageType::Teardown,
        }
    }

    /// Octets that [`emit`](Self::emit) writes.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        match self {
            Self::Discovery { .. } => DISCOVERY_LEN,
            Self::Advertisement { relay: IpAddr::V4(_), .. } => ADVERTISEMENT_V4_LEN,
            Self::Advertisement { relay: IpAddr::V6(_), .. } => ADVERTISEMENT_V6_LEN,
            Self::Request { .. } => REQUEST_LEN,
            Self::Query { gateway, packet, .. } => {
                QUERY_HEADER_LEN + packet.len() + gateway.map_or(0, |_| GATEWAY_ADDRESS_LEN)
            }
            Self::Update { packet, .. } => UPDATE_HEADER_LEN + packet.len(),
            Self::Data { packet } => DATA_HEADER.len() + packet.len(),
            Self::Teardown { .. } => TEARDOWN_LEN,
        }
    }

    /// Writes the datagram; every octet of `buffer` is overwritten. Flags go out as they are, but for G of a Membership
    /// Query, which always says whether there is an address; reserved octets are zero.
    ///
    /// # Panics
    /// When `buffer` is not exactly [`buffer_len`](Self::buffer_len) octets long: that is the caller's to get right.
    pub fn emit(&self, buffer: &mut [u8]) {
        assert_eq!(buffer.len(), self.buffer_len(), "the caller sizes the buffer with buffer_len()");
        buffer[0] = self.message_type().code();
        match self {
            Self::Discovery { nonce } => emit_short_header(buffer, 0, *nonce),
            Self::Advertisement { nonce, relay } => {
                emit_short_header(buffer, 0, *nonce);
                match relay {
                    IpAddr::V4(relay) => buffer[DISCOVERY_LEN..].copy_from_slice(&relay.octets()),
                    IpAddr::V6(relay) => buffer[DISCOVERY_LEN..].copy_from_slice(&relay.octets()),
                }
            }
            Self::Request { nonce, flags } => emit_short_header(buffer, flags.0, *nonce),
            Self::Query { mac, nonce, flags, gateway, packet } => {
                emit_long_header(buffer, flags.told(gateway.is_some()).0, *mac, *nonce);
                let (inner, rest) = buffer[QUERY_HEADER_LEN..].split_at_mut(packet.len());
                inner.copy_from_slice(packet);
                if let Some(gateway) = gateway {
                    address::emit(*gateway, rest);
                }
            }
            Self::Update { mac, nonce, packet } => {
                emit_long_header(buffer, 0, *mac, *nonce);
                buffer[UPDATE_HEADER_LEN..].copy_from_slice(packet);
            }
            Self::Data { packet } => {
                let (header, inner) = buffer.split_at_mut(DATA_HEADER.len());
                header.copy_from_slice(&DATA_HEADER);
                inner.copy_from_slice(packet);
            }
            Self::Teardown { mac, nonce, gateway } => {
                emit_long_header(buffer, 0, *mac, *nonce);
                address::emit(*gateway, &mut buffer[UPDATE_HEADER_LEN..]);
            }
        }
    }

    /// The datagram in a buffer of its own.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut datagram = vec![0; self.buffer_len()];
        self.emit(&mut datagram);
        datagram
    }
}

/// Second octet and nonce of the messages that have three octets before it.
fn short_header(datagram: &[u8]) -> Result<(u8, Nonce), ParseError> {
    let header = datagram.first_chunk::<DISCOVERY_LEN>().ok_or(ParseError::Truncated(datagram.len()))?;
    let [_, flags, _, _, nonce @ ..] = *header;
    Ok((flags, Nonce(u32::from_be_bytes(nonce))))
}

fn emit_short_header(buffer: &mut [u8], flags: u8, nonce: Nonce) {
    buffer[1..4].copy_from_slice(&[flags, 0, 0]);
    buffer[4..DISCOVERY_LEN].copy_from_slice(&nonce.0.to_be_bytes());
}

/// Second octet, response MAC and nonce of the messages that have them, and what follows.
fn long_header(datagram: &[u8]) -> Result<(u8, ResponseMac, Nonce, &[u8]), ParseError> {
    let (header, rest) =
        datagram.split_first_chunk::<UPDATE_HEADER_LEN>().ok_or(ParseError::Truncated(datagram.len()))?;
    let [_, flags, m0, m1, m2, m3, m4, m5, nonce @ ..] = *header;
    Ok((flags, ResponseMac([m0, m1, m2, m3, m4, m5]), Nonce(u32::from_be_bytes(nonce)), rest))
}

fn emit_long_header(buffer: &mut [u8], flags: u8, mac: ResponseMac, nonce: Nonce) {
    buffer[1] = flags;
    buffer[2..8].copy_from_slice(&mac.0);
    buffer[8..UPDATE_HEADER_LEN].copy_from_slice(&nonce.0.to_be_bytes());
}

/// The address family follows from the length alone (RFC 7450 §5.1.2.5).
fn relay_address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(octets).ok().map(IpAddr::from))
}

#[cfg(test)]
mod tests;
