//! Who asks on a link with several routers: RFC 3376 §6.6.2 and RFC 3810 §7.6.2, and the general queries of whoever does.
//!
//! ```text
//!                    a query from a lower address
//!      ┌─────────┐ ───────────────────────────────▶ ┌───────────┐ ──┐ a query from a lower address:
//!   ──▶│ Querier │                                  │ Listening │ ◀─┘ Other Querier Present starts anew
//!      └─────────┘ ◀─────────────────────────────── └───────────┘
//!       general queries    Other Querier Present ends
//! ```
//! Both roles learn the same from reports: a [`Router`] is driven here. Being the member of a group that a router must be,
//! of 224.0.0.22 or `ff02::16`, is for whoever has the socket.

use super::router::{self, Router, is_link_local};
use super::{Compatibility, Filter, QUERY_INTERVAL_MAX, ROBUSTNESS_MAX, told_robustness};
use castgate_wire::membership::{Family, Message, Query};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

/// Times and limits. [`Config::default`] holds the values of the RFC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Times and limits of the router. As querier, it uses these; otherwise those of the querier.
    pub router: router::Config,
    /// Time between the first general queries (§8.6). Default: a quarter of the query interval, for `None`.
    pub startup_query_interval: Option<Duration>,
    /// How many first general queries there are (§8.7). Default: the robustness variable, for `None`.
    pub startup_query_count: Option<NonZeroU8>,
    /// Another version on the link is told at most once in this time (§7.3.1). Default 1 minute.
    pub warning_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            router: router::Config::default(),
            startup_query_interval: None,
            startup_query_count: None,
            warning_interval: Duration::from_mins(1),
        }
    }
}

/// One thing to do, or to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this query to the link.
    Query(Query),
    /// Something else is to be forwarded to the link.
    Changed {
        /// The group.
        group: IpAddr,
        /// What is wanted of it from now on; `None` for nothing.
        filter: Option<Filter>,
    },
    /// Another router asks from now on, or this one.
    Elected {
        /// Who asks.
        querier: IpAddr,
    },
    /// A router on the link asks in another version: somebody has to configure one of them (§7.3.1).
    OtherVersion {
        /// That router.
        router: IpAddr,
        /// Its version by the numbers of its protocol.
        version: u8,
    },
}

/// A router on a link of one family. See the [module](self), and [`super`] for the contract with its driver.
#[derive(Debug, Clone)]
pub struct Querier {
    config: Config,
    family: Family,
    address: IpAddr,
    role: Role,
    router: Router,
    warned_at: Option<Instant>,
    outputs: VecDeque<Output>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Querier { startup_left: u8, general_at: Instant },
    Listening { querier: IpAddr, until: Instant },
}

impl Querier {
    /// A router that takes itself for the querier and asks at once (RFC 3376 §8.6). `address` is the source of its queries.
    #[must_use]
    pub fn new(config: Config, address: IpAddr, now: Instant) -> Self {
        let startup_left = config.startup_query_count.unwrap_or(config.router.robustness).get();
        let mut querier = Self {
            config,
            family: Family::of(address),
            address,
            role: Role::Querier { startup_left, general_at: now },
            router: Router::new(config.router),
            warned_at: None,
            outputs: VecDeque::new(),
        };
        querier.run(now);
        querier
    }

    /// Takes in what `from` said.
    pub fn handle_message(&mut self, now: Instant, from: IpAddr, message: &Message) {
        self.run(now);
        if let Message::Query(query) = message {
            let is_ours = Family::of(from) == self.family
                && query.group.is_none_or(|group| Family::of(group) == self.family)
                && (self.family == Family::V4 || is_link_local(from));
            if !is_ours || from == self.address {
                return;
            }
            self.compare_version(now, from, query);
            if is_lower(from, self.address) {
                self.give_way(now, from, query);
            }
        }
        self.router.handle_message(now, from, message);
    }

    /// A router with a lower address asks: it is the querier, and its times are ours.
    fn give_way(&mut self, now: Instant, from: IpAddr, query: &Query) {
        let own = &self.config.router;
        if self.version_of(query) == Compatibility::Current {
            let robustness = NonZeroU8::new(query.robustness.min(ROBUSTNESS_MAX)).unwrap_or(own.robustness);
            let is_said = !query.interval.is_zero();
            let interval = if is_said { query.interval.min(QUERY_INTERVAL_MAX) } else { own.query_interval };
            self.router.set_times(robustness, interval);
        }
        let until = now + self.router.config().other_querier_present_interval();
        let was = std::mem::replace(&mut self.role, Role::Listening { querier: from, until });
        self.router.set_querier(false);
        if !matches!(was, Role::Listening { querier, .. } if querier == from) {
            self.outputs.push_back(Output::Elected { querier: from });
        }
    }

    fn compare_version(&mut self, now: Instant, from: IpAddr, query: &Query) {
        let is_other = self.version_of(query) != self.own_version();
        let is_due = self.warned_at.is_none_or(|at| now.saturating_duration_since(at) >= self.config.warning_interval);
        if is_other && is_due {
            self.warned_at = Some(now);
            self.outputs.push_back(Output::OtherVersion { router: from, version: query.version });
        }
    }

    fn version_of(&self, query: &Query) -> Compatibility {
        Compatibility::of(self.family == Family::V4, query.version)
    }

    /// MLD has nothing as old as `IGMPv1`.
    fn own_version(&self) -> Compatibility {
        let version = self.config.router.version;
        if self.family == Family::V6 { version.max(Compatibility::Second) } else { version }
    }

    fn run(&mut self, now: Instant) {
        if let Role::Listening { until, .. } = self.role
            && until <= now
        {
            self.role = Role::Querier { startup_left: 0, general_at: now };
            self.router.set_times(self.config.router.robustness, self.config.router.query_interval);
            self.router.set_querier(true);
            self.outputs.push_back(Output::Elected { querier: self.address });
        }
        if let Role::Querier { startup_left, general_at } = &mut self.role
            && *general_at <= now
        {
            *startup_left = startup_left.saturating_sub(1);
            let interval = self.config.router.query_interval;
            let startup_interval = self.config.startup_query_interval.unwrap_or(interval / 4);
            *general_at = now + if *startup_left > 0 { startup_interval } else { interval };
            self.outputs.push_back(Output::Query(self.general_query()));
        }
        self.router.handle_timeout(now);
    }

    fn general_query(&self) -> Query {
        let config = &self.config.router;
        Query {
            version: self.own_version().version(self.family == Family::V4),
            group: None,
            max_response: config.query_response_interval,
            suppress: false,
            robustness: told_robustness(config.robustness),
            interval: config.query_interval,
            sources: Vec::new(),
        }
    }

    /// Lets timers run out and asks.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.run(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let (Role::Querier { general_at: at, .. } | Role::Listening { until: at, .. }) = self.role;
        [Some(at), self.router.next_timeout()].into_iter().flatten().min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        self.router.poll_output().map(|output| match output {
            router::Output::Query(query) => Output::Query(query),
            router::Output::Changed { group, filter } => Output::Changed { group, filter },
        })
    }

    /// Who asks on this link, as far as is known here.
    #[must_use]
    pub fn querier(&self) -> IpAddr {
        match self.role {
            Role::Querier { .. } => self.address,
            Role::Listening { querier, .. } => querier,
        }
    }

    /// Whether this router asks.
    #[must_use]
    pub fn is_querier(&self) -> bool {
        matches!(self.role, Role::Querier { .. })
    }

    /// What the hosts of the link want.
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.router
    }
}

/// Whether a querier at `address` comes before one at `own` (RFC 3376 §6.6.2; RFC 3810 §7.6.2 compares interface identifiers).
fn is_lower(address: IpAddr, own: IpAddr) -> bool {
    match (address, own) {
        // RFC 4541 §2.1.1: a switch that asks without having an address shall not keep routers from asking.
        (IpAddr::V4(address), IpAddr::V4(own)) => !address.is_unspecified() && address < own,
        (IpAddr::V6(address), IpAddr::V6(own)) => address.segments()[4..] < own.segments()[4..],
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_address_asks_and_in_ipv6_the_lower_interface_identifier() {
        let is_lower = |address: &str, own: &str| is_lower(address.parse().unwrap(), own.parse().unwrap());
        assert!(is_lower("192.0.2.9", "192.0.2.10") && !is_lower("192.0.2.10", "192.0.2.9"));
        assert!(!is_lower("192.0.2.9", "192.0.2.9") && !is_lower("0.0.0.0", "192.0.2.9"));
        assert!(is_lower("fe80::1:0:0:5", "fe80::1:0:0:6") && !is_lower("fe80::2:0:0:0", "fe80::1:0:0:6"));
        assert!(is_lower("fe80:0:0:1::5", "fe80::6") && !is_lower("fe80::6", "fe80:0:0:1::5"));
        assert!(!is_lower("192.0.2.9", "fe80::1"));
    }
}
