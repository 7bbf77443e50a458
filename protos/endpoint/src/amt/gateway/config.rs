//! Times and limits of a gateway.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

/// Times and limits. [`Config::default`] holds the documented values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The first wait for an answer to a Relay Discovery or a Request. Default 1 s (RFC 7450 §5.2.3.4.3, §5.2.3.5.3).
    pub timeout_initial: Duration,
    /// The longest. Default 120 s.
    pub timeout_max: Duration,
    /// After so many tries without an answer, [`super::Event::Unanswered`] is told, and again after as many more. Default 4.
    pub tries_max: NonZeroU32,
    /// Whether Requests say that ECN is decapsulated by RFC 6040 (RFC 9601). Default true; a driver that does not do so sets false.
    pub ecn: bool,
    /// So many tries go out with one set of flags before the next is tried: with E, as in RFC 7450, as the Linux driver has it.
    /// Default 1.
    pub tries_per_flags: NonZeroU32,
    /// A Request is sent at least this often, so that a NAT keeps its mapping. Default 110 s; `None` for as the relay says.
    pub refresh_max: Option<Duration>,
    /// How long a joined channel may be silent at first; `None` for channels that are often silent. Default 4 s (RFC 8777
    /// §3.3.4.1).
    pub silence_initial: Option<Duration>,
    /// That time doubles with each silence in a row, up to this. Default 120 s.
    pub silence_max: Duration,
    /// Whether a tunnel that is no longer ours is torn down when the relay tells another address. Default true.
    pub teardown: bool,
    /// The source address of IGMP reports inside. Default 0.0.0.0.
    pub report_source_v4: Ipv4Addr,
    /// The source address of MLD reports inside. Default `fe80::2`.
    pub report_source_v6: Ipv6Addr,
    /// Groups of each family at one time. Default 4096.
    pub groups_max: usize,
    /// Sources of one filter. Default 1024.
    pub sources_max: usize,
}

const fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not zero")
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout_initial: Duration::from_secs(1),
            timeout_max: Duration::from_mins(2),
            tries_max: number(4),
            ecn: true,
            tries_per_flags: number(1),
            refresh_max: Some(Duration::from_secs(110)),
            silence_initial: Some(Duration::from_secs(4)),
            silence_max: Duration::from_mins(2),
            teardown: true,
            report_source_v4: Ipv4Addr::UNSPECIFIED,
            report_source_v6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2),
            groups_max: 4096,
            sources_max: 1024,
        }
    }
}
