//! The four-bit command, and which commands have a form with a source address.

use std::fmt;

/// The low four bits of the last octet.
pub(super) const COMMAND_MASK: u8 = 0x0f;

/// What a datagram asks for.
///
/// Codes 1 to 9 are draft-finlayson-umtp-09 §3. `JoinAck` and `JoinNack` are draft-liefooghe-castgate-02 §5.3; that draft
/// leaves the codes of `FlowData` and `Proxy` open, 12 and 13 are the castgate UMTP notes'. Codes we do not know are kept,
/// so that they can be counted and shown; 0 is one of them, and nobody may send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Command {
    /// The original UDP payload stands before the trailer.
    Data,
    /// A master asks for a channel, and repeats that.
    JoinGroup,
    /// A master wants a channel no longer.
    LeaveGroup,
    /// The tunnel ends.
    TearDown,
    /// Is anybody there, and with which cookie?
    Probe,
    /// The answer, and the challenge to a wrong cookie.
    ProbeAck,
    /// The refusal of a `PROBE`.
    ProbeNack,
    /// `JOIN_GROUP` for a port and the next one.
    JoinRtpGroup,
    /// `LEAVE_GROUP` for a port and the next one.
    LeaveRtpGroup,
    /// A join was accepted.
    JoinAck,
    /// A join was refused, or is withdrawn.
    JoinNack,
    /// A payload under a flow id instead of cookies and channel.
    FlowData,
    /// Relay me to the tunnel server in the channel fields.
    Proxy,
    /// A code without a meaning; only its low four bits exist.
    Unknown(u8),
}

impl Command {
    /// The command of a four-bit code; higher bits of `code` are not looked at.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code & COMMAND_MASK {
            1 => Self::Data,
            2 => Self::JoinGroup,
            3 => Self::LeaveGroup,
            4 => Self::TearDown,
            5 => Self::Probe,
            6 => Self::ProbeAck,
            7 => Self::ProbeNack,
            8 => Self::JoinRtpGroup,
            9 => Self::LeaveRtpGroup,
            10 => Self::JoinAck,
            11 => Self::JoinNack,
            12 => Self::FlowData,
            13 => Self::Proxy,
            other => Self::Unknown(other),
        }
    }

    /// The four-bit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::JoinGroup => 2,
            Self::LeaveGroup => 3,
            Self::TearDown => 4,
            Self::Probe => 5,
            Self::ProbeAck => 6,
            Self::ProbeNack => 7,
            Self::JoinRtpGroup => 8,
            Self::LeaveRtpGroup => 9,
            Self::JoinAck => 10,
            Self::JoinNack => 11,
            Self::FlowData => 12,
            Self::Proxy => 13,
            Self::Unknown(code) => code & COMMAND_MASK,
        }
    }

    /// Whether the command has a 16-octet form with a source address (S=1).
    ///
    /// # Source
    /// draft-finlayson-umtp-09 §3; `JOIN_ACK` and `JOIN_NACK` echo the join they answer (draft-liefooghe-castgate-02 §5.3).
    #[must_use]
    pub const fn may_carry_source(self) -> bool {
        match self {
            Self::Data
            | Self::JoinGroup
            | Self::LeaveGroup
            | Self::JoinRtpGroup
            | Self::LeaveRtpGroup
            | Self::JoinAck
            | Self::JoinNack => true,
            Self::TearDown
            | Self::Probe
            | Self::ProbeAck
            | Self::ProbeNack
            | Self::FlowData
            | Self::Proxy
            | Self::Unknown(_) => false,
        }
    }

    /// Whether options may stand before the trailer (draft-liefooghe-castgate-02 §5.4); other commands' are ignored.
    #[must_use]
    pub const fn may_carry_options(self) -> bool {
        match self {
            Self::Probe
            | Self::ProbeAck
            | Self::ProbeNack
            | Self::JoinGroup
            | Self::JoinRtpGroup
            | Self::JoinAck
            | Self::JoinNack => true,
            Self::Data
            | Self::LeaveGroup
            | Self::LeaveRtpGroup
            | Self::TearDown
            | Self::FlowData
            | Self::Proxy
            | Self::Unknown(_) => false,
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "DATA",
            Self::JoinGroup => "JOIN_GROUP",
            Self::LeaveGroup => "LEAVE_GROUP",
            Self::TearDown => "TEAR_DOWN",
            Self::Probe => "PROBE",
            Self::ProbeAck => "PROBE_ACK",
            Self::ProbeNack => "PROBE_NACK",
            Self::JoinRtpGroup => "JOIN_RTP_GROUP",
            Self::LeaveRtpGroup => "LEAVE_RTP_GROUP",
            Self::JoinAck => "JOIN_ACK",
            Self::JoinNack => "JOIN_NACK",
            Self::FlowData => "FLOW_DATA",
            Self::Proxy => "PROXY",
            Self::Unknown(code) => return write!(f, "UNKNOWN_{code}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_four_bit_code_comes_back_as_itself() {
        for code in 0..16 {
            assert_eq!(Command::from_code(code).code(), code);
        }
    }

    #[test]
    fn only_the_codes_without_a_meaning_are_unknown() {
        let unknown: Vec<u8> =
            (0..16).filter(|code| matches!(Command::from_code(*code), Command::Unknown(_))).collect();
        assert_eq!(unknown, [0, 14, 15]);
    }

    #[test]
    fn a_source_is_legal_on_data_joins_leaves_and_their_answers_only() {
        let legal: Vec<u8> = (0..16).filter(|code| Command::from_code(*code).may_carry_source()).collect();
        assert_eq!(legal, [1, 2, 3, 8, 9, 10, 11]);
    }

    #[test]
    fn options_stand_before_probes_joins_and_their_answers_only() {
        let legal: Vec<u8> = (0..16).filter(|code| Command::from_code(*code).may_carry_options()).collect();
        assert_eq!(legal, [2, 5, 6, 7, 8, 10, 11]);
    }

    #[test]
    fn commands_are_shown_under_the_names_of_the_drafts() {
        assert_eq!(Command::JoinRtpGroup.to_string(), "JOIN_RTP_GROUP");
        assert_eq!(Command::Unknown(14).to_string(), "UNKNOWN_14");
    }
}
