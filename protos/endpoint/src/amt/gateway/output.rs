//! What a gateway tells its driver, and what it counts.

use super::super::Unfit;
use crate::membership::host::SetError;
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

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Too short for what it says to be.
    Malformed,
    /// An AMT version other than 0.
    Version,
    /// A type that RFC 7450 does not have.
    UnknownType,
    /// From another address or port than that of the relay.
    Stranger,
    /// A message that only relays take.
    Unexpected,
    /// An answer to nothing that was asked.
    Unasked,
    /// The nonce is not that of the question.
    WrongNonce,
    /// An advertised address that can be no relay's.
    BadRelay,
    /// The packet inside a Membership Query is no general query of the version and family that was asked for.
    NotQuery,
    /// The packet inside Multicast Data is no IP packet.
    NotPacket,
    /// The packet inside Multicast Data is for no group.
    NotMulticast,
    /// Its group is not joined.
    NotJoined,
    /// Its source is not wanted.
    WrongSource,
}

impl Reason {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 13] = [
        Self::Malformed,
        Self::Version,
        Self::UnknownType,
        Self::Stranger,
        Self::Unexpected,
        Self::Unasked,
        Self::WrongNonce,
        Self::BadRelay,
        Self::NotQuery,
        Self::NotPacket,
        Self::NotMulticast,
        Self::NotJoined,
        Self::WrongSource,
    ];

    /// The reason as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::UnknownType => "unknown_type",
            Self::Stranger => "stranger",
            Self::Unexpected => "unexpected",
            Self::Unasked => "unasked",
            Self::WrongNonce => "wrong_nonce",
            Self::BadRelay => "bad_relay",
            Self::NotQuery => "not_query",
            Self::NotPacket => "not_packet",
            Self::NotMulticast => "not_multicast",
            Self::NotJoined => "not_joined",
            Self::WrongSource => "wrong_source",
        }
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
    dropped: [u64; Reason::ALL.len()],
}

impl Counters {
    /// How often this happened.
    #[must_use]
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.dropped[reason as usize]
    }

    /// All reasons with their counts.
    pub fn drops(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().zip(self.dropped)
    }

    /// Counts a datagram that [`super::Gateway::takes`] has refused.
    pub fn drop(&mut self, reason: Reason) {
        self.dropped[reason as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place_and_label() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
        let labels: std::collections::BTreeSet<_> = Reason::ALL.map(Reason::label).into();
        assert_eq!(labels.len(), Reason::ALL.len());
    }
}
