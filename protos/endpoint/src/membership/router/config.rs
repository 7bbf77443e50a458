//! Times and limits of a router (RFC 3376 §8, RFC 3810 §9).

use super::super::Compatibility;
use std::num::NonZeroU8;
use std::time::Duration;

/// What it means that a host no longer wants something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LeaveMode {
    /// It is over at once, and nothing is ever asked: the link has one host, as an AMT endpoint has (RFC 7450 §5.3.1).
    /// Messages are then taken whatever their source address is.
    Immediate,
    /// Others on the link may want it still. The querier asks, and waits for the last member query time.
    #[default]
    Queried,
}

/// Times and limits. [`Config::default`] holds the values of the RFC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Losses in a row that do no harm, plus one (§8.1). Default 2.
    pub robustness: NonZeroU8,
    /// Time between general queries (§8.2). Default 125 s.
    pub query_interval: Duration,
    /// Time within which a general query is answered (§8.3). Default 10 s.
    pub query_response_interval: Duration,
    /// Time within which a specific query is answered, and after which it is repeated (§8.8). Default 1 s.
    pub last_member_query_interval: Duration,
    /// How often a specific query is sent (§8.9). Default: the robustness variable, for `None`.
    pub last_member_query_count: Option<NonZeroU8>,
    /// Whether a leave is believed or asked about. Default [`LeaveMode::Queried`].
    pub leave_mode: LeaveMode,
    /// Whether hosts of `IGMPv1`, `IGMPv2` and `MLDv1` are heard (§9.2: a forged report of theirs switches off source filters
    /// for a while). Default true, as §7.3.2 demands.
    pub older_hosts: bool,
    /// The version of the queries of this link, set by hand when an older router is on it (§7.3.1). Reports are then heard as if
    /// every group had hosts of that version. Default the current one.
    pub version: Compatibility,
    /// Groups at one time. Default 1024.
    pub groups_max: usize,
    /// Sources of one group, wanted or excluded. Default 128.
    pub sources_per_group_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            robustness: NonZeroU8::new(2).expect("two is not zero"),
            query_interval: Duration::from_secs(125),
            query_response_interval: Duration::from_secs(10),
            last_member_query_interval: Duration::from_secs(1),
            last_member_query_count: None,
            leave_mode: LeaveMode::default(),
            older_hosts: true,
            version: Compatibility::default(),
            groups_max: 1024,
            sources_per_group_max: 128,
        }
    }
}

impl Config {
    /// GMI, MALI: after so much silence a group or source has no member (RFC 3376 §8.4, RFC 3810 §9.4). 260 s by default.
    ///
    /// The Older Host Present Interval is the same time (RFC 3376 §8.13, RFC 3810 §9.13).
    #[must_use]
    pub fn membership_interval(&self) -> Duration {
        self.query_interval * u32::from(self.robustness.get()) + self.query_response_interval
    }

    /// How often a specific query is sent (RFC 3376 §8.9).
    #[must_use]
    pub fn last_member_query_count(&self) -> NonZeroU8 {
        self.last_member_query_count.unwrap_or(self.robustness)
    }

    /// LMQT, LLQT: so long a doubted group or source is still forwarded (RFC 3376 §8.10). 2 s by default.
    #[must_use]
    pub fn last_member_query_time(&self) -> Duration {
        self.last_member_query_interval * u32::from(self.last_member_query_count().get())
    }

    /// After so much silence there is no other querier (RFC 3376 §8.5, RFC 3810 §9.5). 255 s by default.
    #[must_use]
    pub fn other_querier_present_interval(&self) -> Duration {
        self.query_interval * u32::from(self.robustness.get()) + self.query_response_interval / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_come_to_the_times_that_everybody_knows() {
        let config = Config::default();
        assert_eq!(config.membership_interval(), Duration::from_secs(260));
        assert_eq!(config.other_querier_present_interval(), Duration::from_secs(255));
        assert_eq!(config.last_member_query_time(), Duration::from_secs(2));
    }
}
