//! What the operator decides about a relay: times, limits, addresses.

use super::limiter::Rate;
use castgate_wire::amt::{ANYCAST_V4, ANYCAST_V6};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

/// The highest robustness variable that a query can tell (RFC 3376 §4.1.6: three bits).
const ROBUSTNESS_MAX: NonZeroU8 = NonZeroU8::new(7).expect("seven is not zero");

/// Times, limits and addresses of a relay. [`Config::default`] holds the documented values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// When gateways ask again, as the query's QQIC says. Default 125 s (RFC 3376 §8.2). The field of the query is a floating
    /// point number above 127 s and rounds down.
    pub query_interval: Duration,
    /// How often a gateway says what has changed, as the query's QRV says; more than 7 means 7. Default 2.
    pub robustness: NonZeroU8,
    /// What is added to the life of a membership for round trips and loss. Default 10 s, and not less (RFC 7450 §5.3.3.7).
    pub query_response_interval: Duration,
    /// How long one secret makes Response MACs. Default 3600 s; RFC 7450 §5.3.6 wants at most 2 h. The one before is accepted for
    /// two query intervals more. Fixed at start.
    pub secret_life: Duration,
    /// Whether gateways are told their address (G) and may tear a tunnel down that is no longer theirs. Default true.
    pub teardown: bool,
    /// Whether the E flag of Requests (RFC 9601) is heeded. Default true; without it no gateway counts as one that decapsulates ECN.
    pub ecn: bool,
    /// Addresses of this relay that are anycast. Default 192.52.193.1 and `2001:3::1`.
    pub anycast: Vec<IpAddr>,
    /// The unicast addresses that a Relay Discovery to an anycast address is answered with, the first of its family. Default none:
    /// such a Relay Discovery gets no answer then.
    pub unicast: Vec<IpAddr>,
    /// The source of `IGMPv3` queries inside. Default 0.0.0.0, as the Linux relay has it.
    pub query_source_v4: Ipv4Addr,
    /// The source of `MLDv2` queries inside. Default `fe80::1`: a Linux host takes no MLD query whose source is not link-local.
    pub query_source_v6: Ipv6Addr,
    /// Answers to one IPv4 address, or one /64 of IPv6, outside of tunnels. Default 32 a second, 128 at once.
    pub answers_per_source: Rate,
    /// Answers to everybody outside of tunnels. Default 20 000 a second, 5 000 at once.
    pub answers_total: Rate,
    /// Sources whose rate is remembered. Default 16 384. Fixed at start.
    pub sources_remembered: usize,
    /// Gateways of which is remembered whether they take flags. Default 16 384. Fixed at start.
    pub hints_remembered: usize,
    /// A gateway that takes a new nonce within this time, without an Update, is taken for one that drops queries with flags.
    /// Default 10 s.
    pub hint_window: Duration,
    /// Tunnel endpoints at one time. Default 100 000.
    pub endpoints_max: usize,
    /// Tunnel endpoints of one address at one time. Default 1024.
    pub endpoints_per_address_max: usize,
    /// Groups of one endpoint at one time. Default 1000.
    pub groups_per_endpoint_max: usize,
    /// Sources of one group of one endpoint. Default 128.
    pub sources_per_group_max: usize,
    /// Groups of all endpoints together. Default 10 000.
    pub groups_max: usize,
    /// ICMP Destination Unreachable in a row, without an Update in between, that end a tunnel; `None` means that none does.
    /// Default 10 (RFC 7450 §5.3.3.6.4).
    pub unreachables_max: Option<NonZeroU32>,
}

const fn rate(per_second: u32, burst: u32) -> Rate {
    match (NonZeroU32::new(per_second), NonZeroU32::new(burst)) {
        (Some(per_second), Some(burst)) => Rate { per_second, burst },
        _ => panic!("a rate of nothing"),
    }
}

const ANSWERS_PER_SOURCE: Rate = rate(32, 128);
const ANSWERS_TOTAL: Rate = rate(20_000, 5_000);
const ROBUSTNESS: NonZeroU8 = NonZeroU8::new(2).expect("two is not zero");

impl Default for Config {
    fn default() -> Self {
        Self {
            query_interval: Duration::from_secs(125),
            robustness: ROBUSTNESS,
            query_response_interval: Duration::from_secs(10),
            secret_life: Duration::from_hours(1),
            teardown: true,
            ecn: true,
            anycast: vec![ANYCAST_V4.into(), ANYCAST_V6.into()],
            unicast: Vec::new(),
            query_source_v4: Ipv4Addr::UNSPECIFIED,
            query_source_v6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
            answers_per_source: ANSWERS_PER_SOURCE,
            answers_total: ANSWERS_TOTAL,
            sources_remembered: 16_384,
            hints_remembered: 16_384,
            hint_window: Duration::from_secs(10),
            endpoints_max: 100_000,
            endpoints_per_address_max: 1024,
            groups_per_endpoint_max: 1000,
            sources_per_group_max: 128,
            groups_max: 10_000,
            unreachables_max: NonZeroU32::new(10),
        }
    }
}

impl Config {
    /// The robustness variable as a query can tell it.
    #[must_use]
    pub fn qrv(&self) -> NonZeroU8 {
        self.robustness.min(ROBUSTNESS_MAX)
    }

    /// How long an endpoint lives without an Update: robustness times query interval plus response interval, 260 s by default
    /// (RFC 7450 §5.3.3.7).
    #[must_use]
    pub fn endpoint_timeout(&self) -> Duration {
        self.query_interval * u32::from(self.qrv().get()) + self.query_response_interval
    }

    /// For how long MACs of the secret before are accepted.
    pub(super) fn secret_overlap(&self) -> Duration {
        self.query_interval * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_lives_for_260_seconds_by_default() {
        assert_eq!(Config::default().endpoint_timeout(), Duration::from_secs(260));
    }

    #[test]
    fn a_robustness_that_no_query_can_tell_is_the_highest_that_one_can() {
        let config = Config { robustness: NonZeroU8::MAX, ..Config::default() };
        assert_eq!(config.qrv().get(), 7);
    }
}
