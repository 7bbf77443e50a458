//! The options before the trailer of probes, joins and their answers (draft-liefooghe-castgate-02 §5.4).
//!
//! ```text
//!   | code (16) | length (16) | value: length octets |   repeated; code 0 ends the list
//! ```
//! Nothing is padded or aligned. castgate UMTP notes: no octets are no options; a list may also end exactly at the
//! trailer; an option that runs into the trailer makes the message malformed; what follows the end is ignored; of a known
//! code the first counts; what we do not know is kept.

use super::FlowId;
use std::fmt;

/// Octets of code and length.
const HEADER_LEN: usize = 4;
/// The value of [`OptionRepr::Magic`] that says: I speak enhanced UMTP.
pub const MAGIC: u16 = 0x1169;
/// Octets of a CHAP challenge.
pub const CHAP_CHALLENGE_LEN: usize = 16;

/// The codes, by the names of draft-liefooghe-castgate-02 §5.4.
#[expect(missing_docs, reason = "the names are the draft's")]
pub mod code {
    pub const END: u16 = 0;
    pub const MAGIC: u16 = 1;
    pub const FLOWID: u16 = 2;
    pub const FLOWID_0: u16 = 3;
    pub const FLOWID_1: u16 = 4;
    pub const FRIENDLY: u16 = 5;
    pub const AUTH: u16 = 6;
    pub const PAP: u16 = 7;
    pub const CHAP: u16 = 8;
    pub const LOGIN: u16 = 9;
    pub const PAP_PASSW: u16 = 10;
    pub const CHAP_PASSW: u16 = 11;
    pub const CHAP_CHALL: u16 = 12;
    pub const CHAP_ID: u16 = 13;
    pub const OVERLOADED: u16 = 14;
    pub const SHUTTINGDOWN: u16 = 15;
    pub const BANNED: u16 = 16;
    pub const OVERLIMIT: u16 = 17;
    pub const NOTSUBSCRIBED: u16 = 18;
    pub const RECEIVEONLY: u16 = 19;
}
/// The highest code that has a meaning.
const CODE_KNOWN_MAX: u16 = code::RECEIVEONLY;

/// One option.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum OptionRepr<'a> {
    /// The end of the list.
    End,
    /// I speak enhanced UMTP, if the value is [`MAGIC`].
    Magic(u16),
    /// I can receive `FLOW_DATA`.
    FlowId,
    /// The flow of the channel, or of the first channel of an RTP pair.
    FlowId0(FlowId),
    /// The flow of the second channel of an RTP pair.
    FlowId1(FlowId),
    /// TCP-friendly tunnelling protocols, a bit each; none is defined.
    Friendly(u8),
    /// This resource needs a login.
    Auth,
    /// PAP is supported.
    Pap,
    /// CHAP is supported.
    Chap,
    /// The login name for PAP or CHAP.
    Login(&'a [u8]),
    /// The password of PAP, in clear.
    PapPassword(&'a [u8]),
    /// The response of CHAP: 16 octets with MD5.
    ChapPassword(&'a [u8]),
    /// The challenge of CHAP.
    ChapChallenge(&'a [u8; CHAP_CHALLENGE_LEN]),
    /// The identifier of CHAP.
    ChapId(u8),
    /// Too much to do; the request was not processed.
    Overloaded,
    /// The server is going down; go elsewhere.
    ShuttingDown,
    /// The user or the address is banned.
    Banned,
    /// More than this client may receive.
    OverLimit,
    /// No subscription for this channel.
    NotSubscribed,
    /// You may receive but not send.
    ReceiveOnly,
    /// A code without a meaning, or one whose value has the wrong length.
    Unknown {
        /// The code as received.
        code: u16,
        /// The value as received.
        value: &'a [u8],
    },
}

impl<'a> OptionRepr<'a> {
    /// The option of a code and a value.
    ///
    /// castgate UMTP notes: a known code whose value has the wrong length is kept as unknown and so means nothing.
    #[must_use]
    pub fn from_parts(code: u16, value: &'a [u8]) -> Self {
        let short = || value.try_into().ok().map(u16::from_be_bytes);
        let octet = || value.try_into().ok().map(u8::from_be_bytes);
        let flag = |option: Self| value.is_empty().then_some(option);
        let option = match code {
            code::END => flag(Self::End),
            code::MAGIC => short().map(Self::Magic),
            code::FLOWID => flag(Self::FlowId),
            code::FLOWID_0 => short().map(|id| Self::FlowId0(FlowId(id))),
            code::FLOWID_1 => short().map(|id| Self::FlowId1(FlowId(id))),
            code::FRIENDLY => octet().map(Self::Friendly),
            code::AUTH => flag(Self::Auth),
            code::PAP => flag(Self::Pap),
            code::CHAP => flag(Self::Chap),
            code::LOGIN => Some(Self::Login(value)),
            code::PAP_PASSW => Some(Self::PapPassword(value)),
            code::CHAP_PASSW => Some(Self::ChapPassword(value)),
            code::CHAP_CHALL => value.try_into().ok().map(Self::ChapChallenge),
            code::CHAP_ID => octet().map(Self::ChapId),
            code::OVERLOADED => flag(Self::Overloaded),
            code::SHUTTINGDOWN => flag(Self::ShuttingDown),
            code::BANNED => flag(Self::Banned),
            code::OVERLIMIT => flag(Self::OverLimit),
            code::NOTSUBSCRIBED => flag(Self::NotSubscribed),
            code::RECEIVEONLY => flag(Self::ReceiveOnly),
            _ => None,
        };
        option.unwrap_or(Self::Unknown { code, value })
    }

    /// The code.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::End => code::END,
            Self::Magic(_) => code::MAGIC,
            Self::FlowId => code::FLOWID,
            Self::FlowId0(_) => code::FLOWID_0,
            Self::FlowId1(_) => code::FLOWID_1,
            Self::Friendly(_) => code::FRIENDLY,
            Self::Auth => code::AUTH,
            Self::Pap => code::PAP,
            Self::Chap => code::CHAP,
            Self::Login(_) => code::LOGIN,
            Self::PapPassword(_) => code::PAP_PASSW,
            Self::ChapPassword(_) => code::CHAP_PASSW,
            Self::ChapChallenge(_) => code::CHAP_CHALL,
            Self::ChapId(_) => code::CHAP_ID,
            Self::Overloaded => code::OVERLOADED,
            Self::ShuttingDown => code::SHUTTINGDOWN,
            Self::Banned => code::BANNED,
            Self::OverLimit => code::OVERLIMIT,
            Self::NotSubscribed => code::NOTSUBSCRIBED,
            Self::ReceiveOnly => code::RECEIVEONLY,
            Self::Unknown { code, .. } => *code,
        }
    }

    /// Appends code, length and value.
    ///
    /// # Panics
    /// When a value is longer than 65535 octets: no datagram could hold it.
    pub fn append_to(&self, buffer: &mut Vec<u8>) {
        let mut put = |value: &[u8]| {
            let len = u16::try_from(value.len()).expect("an option fits a datagram");
            buffer.extend_from_slice(&self.code().to_be_bytes());
            buffer.extend_from_slice(&len.to_be_bytes());
            buffer.extend_from_slice(value);
        };
        match *self {
            Self::Magic(value) => put(&value.to_be_bytes()),
            Self::FlowId0(FlowId(id)) | Self::FlowId1(FlowId(id)) => put(&id.to_be_bytes()),
            Self::Friendly(octet) | Self::ChapId(octet) => put(&[octet]),
            Self::Login(value) | Self::PapPassword(value) | Self::ChapPassword(value) | Self::Unknown { value, .. } => {
                put(value);
            }
            Self::ChapChallenge(value) => put(value),
            Self::End
            | Self::FlowId
            | Self::Auth
            | Self::Pap
            | Self::Chap
            | Self::Overloaded
            | Self::ShuttingDown
            | Self::Banned
            | Self::OverLimit
            | Self::NotSubscribed
            | Self::ReceiveOnly => put(&[]),
        }
    }
}

/// Credentials are not for logs.
impl fmt::Debug for OptionRepr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("End"),
            Self::Magic(value) => write!(f, "Magic({value:#06x})"),
            Self::FlowId => f.write_str("FlowId"),
            Self::FlowId0(id) => write!(f, "FlowId0({id})"),
            Self::FlowId1(id) => write!(f, "FlowId1({id})"),
            Self::Friendly(mask) => write!(f, "Friendly({mask:#04x})"),
            Self::Auth => f.write_str("Auth"),
            Self::Pap => f.write_str("Pap"),
            Self::Chap => f.write_str("Chap"),
            Self::Login(name) => write!(f, "Login(\"{}\")", name.escape_ascii()),
            Self::PapPassword(_) => f.write_str("PapPassword(hidden)"),
            Self::ChapPassword(_) => f.write_str("ChapPassword(hidden)"),
            Self::ChapChallenge(_) => f.write_str("ChapChallenge(hidden)"),
            Self::ChapId(id) => write!(f, "ChapId({id:#04x})"),
            Self::Overloaded => f.write_str("Overloaded"),
            Self::ShuttingDown => f.write_str("ShuttingDown"),
            Self::Banned => f.write_str("Banned"),
            Self::OverLimit => f.write_str("OverLimit"),
            Self::NotSubscribed => f.write_str("NotSubscribed"),
            Self::ReceiveOnly => f.write_str("ReceiveOnly"),
            Self::Unknown { code, value } => write!(f, "Unknown({code}, {} octets)", value.len()),
        }
    }
}

/// Why what stands before a trailer is not a list of options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// An option runs into the trailer; holds the offset of the option, in octets.
    #[error("the option at octet {0} runs into the trailer")]
    Overrun(usize),
}

impl ParseError {
    /// The cause as a metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Overrun(_) => "option_overrun",
        }
    }
}

/// A list of options in place; known to be well-formed up to its end.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Options<'a> {
    /// Whole options only: the end and what follows it is cut off.
    octets: &'a [u8],
}

impl<'a> Options<'a> {
    /// Checks that `head`, what stands before a trailer, is a list of options.
    ///
    /// # Errors
    /// [`ParseError`] when an option runs into the trailer.
    pub fn new_checked(head: &'a [u8]) -> Result<Self, ParseError> {
        let mut rest = head;
        while !rest.is_empty() {
            let offset = head.len() - rest.len();
            let (code, _, after) = split_first(rest).ok_or(ParseError::Overrun(offset))?;
            if code == code::END {
                return Ok(Self { octets: &head[..offset] });
            }
            rest = after;
        }
        Ok(Self { octets: head })
    }

    /// The options in order, without the end; of a known code only the first.
    pub fn iter(&self) -> impl Iterator<Item = OptionRepr<'a>> + use<'a> {
        let mut rest = self.octets;
        let mut seen = 0_u32;
        std::iter::from_fn(move || {
            loop {
                let (code, value, after) = split_first(rest)?;
                rest = after;
                if code <= CODE_KNOWN_MAX {
                    let bit = 1 << code;
                    if seen & bit != 0 {
                        continue;
                    }
                    seen |= bit;
                }
                return Some(OptionRepr::from_parts(code, value));
            }
        })
    }

    /// The option of this code, if there is one.
    #[must_use]
    pub fn find(&self, code: u16) -> Option<OptionRepr<'a>> {
        self.iter().find(|option| option.code() == code)
    }

    /// Whether the sender says that it speaks enhanced UMTP.
    #[must_use]
    pub fn has_magic(&self) -> bool {
        self.find(code::MAGIC) == Some(OptionRepr::Magic(MAGIC))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Code, value, and what follows the first option; `None` when it is not there in full.
fn split_first(octets: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let ([c0, c1, l0, l1], rest) = octets.split_first_chunk::<HEADER_LEN>()?;
    let len = usize::from(u16::from_be_bytes([*l0, *l1]));
    let (value, after) = rest.split_at_checked(len)?;
    Some((u16::from_be_bytes([*c0, *c1]), value, after))
}

/// Appends `options` and the end of the list; nothing for no options. Stops at an [`OptionRepr::End`] among them.
///
/// # Panics
/// When a value is longer than 65535 octets: no datagram could hold it.
pub fn emit_list(options: &[OptionRepr<'_>], buffer: &mut Vec<u8>) {
    for option in options.iter().take_while(|option| **option != OptionRepr::End) {
        option.append_to(buffer);
    }
    if !options.is_empty() {
        OptionRepr::End.append_to(buffer);
    }
}
