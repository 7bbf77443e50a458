//! Times and limits of a host (RFC 3376 §8, RFC 3810 §9).

use super::super::Compatibility;
use std::num::NonZeroU8;
use std::time::Duration;

/// When a query is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Answer {
    /// After a random part of the time that the querier grants, so that not all hosts of a link speak at once.
    #[default]
    Delayed,
    /// At once: through a tunnel nobody else answers (RFC 7450 §5.2.1).
    AtOnce,
}

/// Times and limits. [`Config::default`] holds the values of the RFC for a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How often a change is reported, unless the querier says how often (§8.1). Default 2.
    pub robustness: NonZeroU8,
    /// A change is reported again within this time (§8.11). Default 1 s.
    pub unsolicited_report_interval: Duration,
    /// The time between general queries, until the querier says it (§8.2). Default 125 s.
    pub query_interval: Duration,
    /// The time that queriers grant for answers; here only a part of how long an older querier counts as present (§8.12).
    /// Default 10 s.
    pub query_response_interval: Duration,
    /// When queries are answered. Default [`Answer::Delayed`].
    pub answer: Answer,
    /// Takes MLD queries whatever their source address is (RFC 7450 §5.2.1), and not only link-local ones. Default false.
    pub any_querier: bool,
    /// Whether queries of older versions are heard (RFC 3810 §10.1: a forged one switches off source filters for a while).
    /// Default true, as RFC 3376 §7.2.1 demands.
    pub older_queriers: bool,
    /// The newest version that is spoken. Default the current one.
    pub version: Compatibility,
    /// Groups at one time. Default 1024.
    pub groups_max: usize,
    /// Sources of one filter; not less than 64 (RFC 3376 §2). Default 1024.
    pub sources_max: usize,
    /// Sources that queries about one group can ask for until they are answered. Default 1024.
    pub queried_sources_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            robustness: NonZeroU8::new(2).expect("two is not zero"),
            unsolicited_report_interval: Duration::from_secs(1),
            query_interval: Duration::from_secs(125),
            query_response_interval: Duration::from_secs(10),
            answer: Answer::default(),
            any_querier: false,
            older_queriers: true,
            version: Compatibility::default(),
            groups_max: 1024,
            sources_max: 1024,
            queried_sources_max: 1024,
        }
    }
}

impl Config {
    /// The pseudo-interface of an AMT gateway (RFC 7450 §5.2.1).
    #[must_use]
    pub fn tunnel() -> Self {
        Self { answer: Answer::AtOnce, any_querier: true, ..Self::default() }
    }
}
