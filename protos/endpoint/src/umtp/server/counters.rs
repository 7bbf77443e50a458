//! What a server has counted: traffic, and every refusal by its reason.

use crate::reasons::{Tally, reasons};

reasons! {
    /// Why something that arrived was not done.
    pub enum Reason {
        /// Too short for its trailer, or a source where none is allowed.
        Malformed = "malformed",
        /// A UMTP version other than 0.
        Version = "version",
        /// A command that base UMTP does not have, code 0 included.
        UnknownCommand = "unknown_command",
        /// The destination cookie was not ours; answered by `PROBE_ACK` when the rate permits.
        WrongCookie = "wrong_cookie",
        /// The address has guessed too many cookies.
        Ignored = "ignored",
        /// A challenge that was due was not sent, for its rate.
        AnswerSuppressed = "answer_suppressed",
        /// `DATA` with the right cookie from an address without a tunnel.
        NoTunnel = "no_tunnel",
        /// The group is no multicast address.
        NotMulticast = "not_multicast",
        /// The group is in 224.0.0.0/24.
        LinkLocal = "link_local",
        /// Port 0: raw tunnelling.
        RawPort = "raw_port",
        /// An RTP pair that starts at port 65535.
        NoRtcpPort = "no_rtcp_port",
        /// The source of a source-specific channel is not the address of a host.
        BadSource = "bad_source",
        /// No rule permits the channel.
        NotPermitted = "not_permitted",
        /// The server has as many tunnels as it may have.
        TunnelsMax = "tunnels_max",
        /// The server has as many channels as it may have.
        ChannelsMax = "channels_max",
        /// The tunnel has as many channels as it may have.
        ChannelsPerTunnelMax = "channels_per_tunnel_max",
        /// `DATA` for a channel that its sender has not joined.
        NotJoined = "not_joined",
        /// `DATA` for a channel to which clients may not send.
        MayNotSend = "may_not_send",
        /// `PROBE_ACK` or `PROBE_NACK`: we never ask.
        Unsolicited = "unsolicited",
        /// A native packet that came from the address of a tunnel.
        Loop = "loop",
    }
}

impl From<crate::umtp::Unfit> for Reason {
    fn from(unfit: crate::umtp::Unfit) -> Self {
        use crate::umtp::Unfit;
        match unfit {
            Unfit::NotMulticast(_) => Self::NotMulticast,
            Unfit::LinkLocal(_) => Self::LinkLocal,
            Unfit::RawPort => Self::RawPort,
            Unfit::NoRtcpPort => Self::NoRtcpPort,
            Unfit::BadSource(_) => Self::BadSource,
        }
    }
}

/// Counts since the server was made; they only grow.
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
    /// Joins that began.
    pub joins: u64,
    /// Joins that were repeated in time.
    pub refreshes: u64,
    /// Joins that ended by `LEAVE`.
    pub leaves: u64,
    /// Joins that ended because nobody repeated them.
    pub expiries: u64,
    /// `PROBE_ACK` sent, as answer or as challenge.
    pub probe_acks: u64,
    /// `PROBE_NACK` sent.
    pub probe_nacks: u64,
    /// `TEAR_DOWN` sent.
    pub tear_downs: u64,
    /// `DATA` of clients that was accepted.
    pub data: u64,
    /// What was not done, by its reason.
    pub drops: Tally<Reason, { Reason::ALL.len() }>,
}
