//! What a server has counted: traffic, and every refusal by its reason.

/// Why something that arrived was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Too short for its trailer, or a source where none is allowed.
    Malformed,
    /// A UMTP version other than 0.
    Version,
    /// A command that base UMTP does not have, code 0 included.
    UnknownCommand,
    /// The destination cookie was not ours; answered by `PROBE_ACK` when the rate permits.
    WrongCookie,
    /// The address has guessed too many cookies.
    Ignored,
    /// A challenge that was due was not sent, for its rate.
    AnswerSuppressed,
    /// `DATA` with the right cookie from an address without a tunnel.
    NoTunnel,
    /// The group is no multicast address.
    NotMulticast,
    /// The group is in 224.0.0.0/24.
    LinkLocal,
    /// Port 0: raw tunnelling.
    RawPort,
    /// An RTP pair that starts at port 65535.
    NoRtcpPort,
    /// The source of a source-specific channel is not the address of a host.
    BadSource,
    /// No rule permits the channel.
    NotPermitted,
    /// The server has as many tunnels as it may have.
    TunnelsMax,
    /// The server has as many channels as it may have.
    ChannelsMax,
    /// The tunnel has as many channels as it may have.
    ChannelsPerTunnelMax,
    /// `DATA` for a channel that its sender has not joined.
    NotJoined,
    /// `DATA` for a channel to which clients may not send.
    MayNotSend,
    /// `PROBE_ACK` or `PROBE_NACK`: we never ask.
    Unsolicited,
    /// A native packet that came from the address of a tunnel.
    Loop,
}

impl Reason {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 20] = [
        Self::Malformed,
        Self::Version,
        Self::UnknownCommand,
        Self::WrongCookie,
        Self::Ignored,
        Self::AnswerSuppressed,
        Self::NoTunnel,
        Self::NotMulticast,
        Self::LinkLocal,
        Self::RawPort,
        Self::NoRtcpPort,
        Self::BadSource,
        Self::NotPermitted,
        Self::TunnelsMax,
        Self::ChannelsMax,
        Self::ChannelsPerTunnelMax,
        Self::NotJoined,
        Self::MayNotSend,
        Self::Unsolicited,
        Self::Loop,
    ];

    /// The reason as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::UnknownCommand => "unknown_command",
            Self::WrongCookie => "wrong_cookie",
            Self::Ignored => "ignored",
            Self::AnswerSuppressed => "answer_suppressed",
            Self::NoTunnel => "no_tunnel",
            Self::NotMulticast => "not_multicast",
            Self::LinkLocal => "link_local",
            Self::RawPort => "raw_port",
            Self::NoRtcpPort => "no_rtcp_port",
            Self::BadSource => "bad_source",
            Self::NotPermitted => "not_permitted",
            Self::TunnelsMax => "tunnels_max",
            Self::ChannelsMax => "channels_max",
            Self::ChannelsPerTunnelMax => "channels_per_tunnel_max",
            Self::NotJoined => "not_joined",
            Self::MayNotSend => "may_not_send",
            Self::Unsolicited => "unsolicited",
            Self::Loop => "loop",
        }
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

    pub(super) fn drop(&mut self, reason: Reason) {
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
