//! What the operator decides about a server: times, limits and the channels that may cross its tunnels.

use super::super::LoopCheck;
use castgate_wire::umtp::Channel;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Times and limits of a server. [`Config::default`] holds the documented values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A join that is not repeated ends after this time. Default 60 s (draft-finlayson-umtp-09: four repeats).
    pub join_timeout: Duration,
    /// A tunnel with nothing joined ends this long after its last valid datagram. Default 120 s.
    pub idle_timeout: Duration,
    /// How long a local cookie is handed out; it is accepted for one epoch more. Default 3600 s. Fixed at start.
    pub cookie_epoch: Duration,
    /// An unproven address and port is answered once in this time. Default 1 s.
    pub answer_interval: Duration,
    /// The TTL of whatever a client sends or asks for is lowered to this. Default 63.
    pub ttl_max: u8,
    /// Tunnels at one time. Default 100 000.
    pub tunnels_max: usize,
    /// Channels at one time. Default 10 000.
    pub channels_max: usize,
    /// Channels of one tunnel at one time. Default 256.
    pub channels_per_tunnel_max: usize,
    /// Different wrong cookies that an address without a tunnel may use per window. Default 16.
    pub wrong_cookies_max: usize,
    /// The window in which wrong cookies are counted. Default 60 s.
    pub wrong_cookie_window: Duration,
    /// How long an address is ignored after more wrong cookies than that. Default 60 s.
    pub ignore_for: Duration,
    /// What happens when a native packet comes from the address of a tunnel. Default [`LoopCheck::Endpoint`].
    pub loop_check: LoopCheck,
    /// Tunnels of one address are torn down for a loop at most once in this time. Default 1 s.
    pub loop_interval: Duration,
    /// Our own addresses; a native packet from one of them is no loop.
    pub own_addresses: Vec<Ipv4Addr>,
    /// Addresses and ports of which the last answer is remembered. Default 16 384. Fixed at start.
    pub answers_remembered: usize,
    /// Addresses of which wrong cookies are remembered. Default 4096. Fixed at start.
    pub guessers_remembered: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            join_timeout: Duration::from_mins(1),
            idle_timeout: Duration::from_mins(2),
            cookie_epoch: Duration::from_hours(1),
            answer_interval: Duration::from_secs(1),
            ttl_max: 63,
            tunnels_max: 100_000,
            channels_max: 10_000,
            channels_per_tunnel_max: 256,
            wrong_cookies_max: 16,
            wrong_cookie_window: Duration::from_mins(1),
            ignore_for: Duration::from_mins(1),
            loop_check: LoopCheck::Endpoint,
            loop_interval: Duration::from_secs(1),
            own_addresses: Vec::new(),
            answers_remembered: 16_384,
            guessers_remembered: 4096,
        }
    }
}

/// One rule that lets channels cross the tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// The groups.
    pub groups: Ipv4Net,
    /// The sources that may be asked for.
    pub sources: Sources,
    /// The UDP ports.
    pub ports: RangeInclusive<u16>,
    /// Whether a client that has joined may also send.
    pub send: bool,
    /// The TTL of these channels is lowered to this, and to [`Config::ttl_max`].
    pub ttl_max: u8,
}

/// Which sources a [`Permit`] lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sources {
    /// The group with any source, and with each single one.
    Any,
    /// Source-specific joins of these sources only.
    Within(Ipv4Net),
}

impl Permit {
    /// Whether this rule speaks of `channel`.
    #[must_use]
    pub fn covers(&self, channel: Channel) -> bool {
        self.groups.contains(&channel.group)
            && self.ports.contains(&channel.port)
            && match (self.sources, channel.source) {
                (Sources::Any, _) => true,
                (Sources::Within(net), Some(source)) => net.contains(&source),
                (Sources::Within(_), None) => false,
            }
    }
}

/// All rules together. Without a rule nothing is permitted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permissions(pub Vec<Permit>);

/// What the rules grant for one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Whether a client that has joined may also send.
    pub send: bool,
    /// The highest TTL.
    pub ttl_max: u8,
}

impl Permissions {
    /// What is granted for `channel`: the union of all rules that cover it; `None` when none does.
    #[must_use]
    pub fn grant(&self, channel: Channel) -> Option<Grant> {
        self.0.iter().filter(|permit| permit.covers(channel)).fold(None, |grant: Option<Grant>, permit| {
            let before = grant.unwrap_or(Grant { send: false, ttl_max: 0 });
            Some(Grant { send: before.send || permit.send, ttl_max: before.ttl_max.max(permit.ttl_max) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit(groups: &str, sources: Sources, send: bool, ttl_max: u8) -> Permit {
        Permit { groups: groups.parse().unwrap(), sources, ports: 5000..=5009, send, ttl_max }
    }

    fn channel(text: &str) -> Channel {
        text.parse().unwrap()
    }

    #[test]
    fn without_a_rule_nothing_is_permitted() {
        assert_eq!(Permissions::default().grant(channel("239.1.2.3:5004")), None);
    }

    #[test]
    fn a_rule_for_a_source_permits_neither_another_source_nor_any() {
        let sources = Sources::Within("192.0.2.10/32".parse().unwrap());
        let permissions = Permissions(vec![permit("232.1.2.0/24", sources, false, 63)]);
        assert!(permissions.grant(channel("232.1.2.3@192.0.2.10:5004")).is_some());
        assert_eq!(permissions.grant(channel("232.1.2.3@192.0.2.11:5004")), None);
        assert_eq!(permissions.grant(channel("232.1.2.3:5004")), None);
        assert_eq!(permissions.grant(channel("232.1.3.3@192.0.2.10:5004")), None);
        assert_eq!(permissions.grant(channel("232.1.2.3@192.0.2.10:5010")), None);
    }

    #[test]
    fn a_rule_for_any_source_permits_each() {
        let permissions = Permissions(vec![permit("239.0.0.0/8", Sources::Any, false, 63)]);
        assert!(permissions.grant(channel("239.1.2.3:5004")).is_some());
        assert!(permissions.grant(channel("239.1.2.3@192.0.2.10:5004")).is_some());
    }

    #[test]
    fn overlapping_rules_grant_what_any_of_them_grants() {
        let permissions = Permissions(vec![
            permit("239.0.0.0/8", Sources::Any, false, 63),
            permit("239.1.0.0/16", Sources::Any, true, 5),
        ]);
        assert_eq!(permissions.grant(channel("239.1.2.3:5004")), Some(Grant { send: true, ttl_max: 63 }));
        assert_eq!(permissions.grant(channel("239.2.2.3:5004")), Some(Grant { send: false, ttl_max: 63 }));
    }
}
