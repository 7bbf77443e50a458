//! What a gateway tells its driver, and what it counts.

use super::super::Unfit;
use crate::membership::host::SetError;
use crate::reasons::{Tally, reasons};
use castgate_wire::membership::Family;
use std::net::{IpAddr, SocketAddr};

/// One thing to do or to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram from the gateway's socket.
    Transmit {
        /// To whom.
        to: SocketAddr,
        /// All octets of the UDP payload.
        datagram: Vec<u8>,
    },
    /// Something worth telling.
    Event(Event),
}

/// What became of the relay and the channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A Relay Advertisement has named the relay.
    Advertised {
        /// Where Requests go from now on.
        relay: SocketAddr,
    },
    /// A valid Membership Query without L, the first of its family: this relay can be used (RFC 8777 §3.2.3).
    Connected {
        /// The relay.
        relay: SocketAddr,
        /// Which family was asked for.
        family: Family,
    },
    /// A Membership Query with L. With nothing reported there yet, the gateway stops asking this relay: another is to be used. A
    /// gateway with groups there goes on.
    Limited {
        /// The relay.
        relay: SocketAddr,
        /// Whether groups are reported there, so that it may stay.
        in_use: bool,
    },
    /// The relay does not answer. It is asked again and again, ever more seldom.
    Unanswered {
        /// The relay, or where it was to be discovered.
        relay: SocketAddr,
        /// Tries so far.
        tries: u32,
    },
    /// The relay sees us at another address than before: the old tunnel is torn down, everything is reported anew.
    AddressChanged {
        /// Before.
        from: SocketAddr,
        /// Now.
        to: SocketAddr,
    },
    /// The first packet of a channel since it was joined or silent.
    FirstData {
        /// Its source.
        source: IpAddr,
        /// Its group.
        group: IpAddr,
    },
    /// Nothing of a joined channel comes, though the relay was asked again meanwhile (RFC 8777 §3.3.4.1).
    Silent {
        /// The source; `None` for a group that is joined with any source.
        source: Option<IpAddr>,
        /// The group.
        group: IpAddr,
        /// Silences in a row, this one included.
        silences: u32,
    },
}

/// Why a filter was not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// It can never cross a tunnel.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// It does not fit the limits.
    #[error(transparent)]
    Limit(#[from] SetError),
}

reasons! {
    /// Why a datagram was dropped.
    pub enum Reason {
        /// Too short for what it says to be.
        Malformed = "malformed",
        /// An AMT version other than 0.
        Version = "version",
        /// A type that RFC 7450 does not have.
        UnknownType = "unknown_type",
        /// From another address or port than that of the relay.
        Stranger = "stranger",
        /// A message that only relays take.
        Unexpected = "unexpected",
        /// An answer to nothing that was asked.
        Unasked = "unasked",
        /// The nonce is not that of the question.
        WrongNonce = "wrong_nonce",
        /// An advertised address that can be no relay's.
        BadRelay = "bad_relay",
        /// The packet inside a Membership Query is no general query of the version and family that was asked for.
        NotQuery = "not_query",
        /// The packet inside Multicast Data is no IP packet.
        NotPacket = "not_packet",
        /// The packet inside Multicast Data is for no group.
        NotMulticast = "not_multicast",
        /// Its group is not joined.
        NotJoined = "not_joined",
        /// Its source is not wanted.
        WrongSource = "wrong_source",
    }
}

impl From<castgate_wire::amt::ParseError> for Reason {
    fn from(error: castgate_wire::amt::ParseError) -> Self {
        use castgate_wire::amt::ParseError;
        match error {
            ParseError::Truncated(_) | ParseError::AdvertisementLength(_) => Self::Malformed,
            ParseError::Version(_) => Self::Version,
            ParseError::UnknownType(_) => Self::UnknownType,
        }
    }
}

/// Counts since the gateway was made; they only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Datagrams that arrived.
    pub datagrams_in: u64,
    /// Octets of those datagrams.
    pub bytes_in: u64,
    /// Datagrams handed out to be sent.
    pub datagrams_out: u64,
    /// Octets of those datagrams.
    pub bytes_out: u64,
    /// Packets delivered.
    pub data: u64,
    /// Relay Discovery sent.
    pub discoveries: u64,
    /// Requests sent.
    pub requests: u64,
    /// Valid Membership Queries.
    pub queries: u64,
    /// Membership Updates sent.
    pub updates: u64,
    /// Teardowns sent.
    pub teardowns: u64,
    /// Silences told.
    pub silences: u64,
    /// What was dropped, by its reason.
    pub drops: Tally<Reason, { Reason::ALL.len() }>,
}
