//! What a client tells its driver, and what it counts.

use super::super::Unfit;
use crate::reasons::{Tally, reasons};
use castgate_wire::umtp::Channel;
use std::net::{Ipv4Addr, SocketAddrV4};

/// One thing to do or to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram from the client's socket.
    Transmit {
        /// To whom.
        to: SocketAddrV4,
        /// All octets of the UDP payload.
        datagram: Vec<u8>,
    },
    /// Something worth telling.
    Event(Event),
}

/// What became of servers and channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A server has answered; the joins are on their way.
    TunnelUp {
        /// The server.
        server: SocketAddrV4,
    },
    /// The first packet since the channel was (again) joined.
    FirstData {
        /// The channel.
        channel: Channel,
        /// The server it came from.
        server: SocketAddrV4,
    },
    /// A server was given up.
    ServerLost {
        /// The server.
        server: SocketAddrV4,
        /// Why.
        reason: LostReason,
    },
    /// The channels have moved to another server; the old one is being left.
    HandOver {
        /// The server of before.
        from: SocketAddrV4,
        /// The server of now.
        to: SocketAddrV4,
    },
    /// Every server of the list has failed: ask the database again and call [`super::Client::set_servers`]. Repeated while it is
    /// so; meanwhile all servers that are known are asked again and again.
    NeedServers,
    /// The channel was not joined.
    Refused {
        /// The channel.
        channel: Channel,
        /// Why.
        reason: Refusal,
    },
}

/// Why a server was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LostReason {
    /// It never answered.
    Unanswered,
    /// It was silent and did not answer when asked.
    Silent,
    /// It sent `TEAR_DOWN`.
    TornDown,
    /// It answered with `PROBE_NACK`.
    Refused,
    /// A native packet came from its address: it was torn down by us.
    Loop,
}

impl LostReason {
    /// The reason as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Unanswered => "unanswered",
            Self::Silent => "silent",
            Self::TornDown => "torn_down",
            Self::Refused => "refused",
            Self::Loop => "loop",
        }
    }
}

/// Why a channel was not joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// No tunnel can carry it.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The client has as many channels as it may have; holds that number.
    #[error("{0} channels are joined already, which is the limit")]
    ChannelsMax(usize),
}

/// Why a payload was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SendError {
    /// The channel is not joined (draft-finlayson-umtp-09, local event 3: ignored).
    #[error("channel {0} is not joined")]
    NotJoined(Channel),
    /// A packet with TTL 0 stays on its host (local event 3: ignored).
    #[error("a packet with TTL 0 does not leave its host")]
    TtlZero,
    /// There is no server at this moment.
    #[error("no server is in use at this moment")]
    NoServer,
    /// The native packet came from the server itself; the tunnel is torn down.
    #[error("the packet came from the server at {0}: a loop")]
    Loop(Ipv4Addr),
    /// Payload and trailer do not fit into one datagram; holds the octets of the payload.
    #[error("{0} octets and a trailer do not fit into a datagram")]
    TooLong(usize),
}

/// A payload that came through the tunnel. It borrows from the datagram: nothing is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// The joined channel; its source is the original one, the sender of the datagram is the server.
    pub channel: Channel,
    /// Hops that the payload may still travel: the TTL for a multicast of it.
    pub ttl: u8,
    /// The payload.
    pub payload: &'a [u8],
}

reasons! {
    /// Why a datagram was dropped.
    pub enum Reason {
        /// Not UMTP, or of another version.
        Malformed = "malformed",
        /// From an address that is none of our servers.
        Stranger = "stranger",
        /// From the server, without our cookie.
        WrongCookie = "wrong_cookie",
        /// A command that only servers take, that base UMTP does not have, or an answer to nothing.
        Unexpected = "unexpected",
        /// `DATA` for a channel that is not joined.
        NotJoined = "not_joined",
    }
}

/// Counts since the client was made; they only grow.
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
    /// Payloads delivered.
    pub data: u64,
    /// JOINs sent.
    pub joins: u64,
    /// PROBEs sent.
    pub probes: u64,
    /// Times that the channels moved to another server.
    pub hand_overs: u64,
    /// What was dropped, by its reason.
    pub drops: Tally<Reason, { Reason::ALL.len() }>,
}
