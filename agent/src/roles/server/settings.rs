//! A server's part of the snapshot in the words of those who carry it out: the endpoint and the dataplane.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::time::Duration;

use castgate_control::{ChannelRule, LoopCheck, ServerLimits, ServerSnapshot, ServerTimers};
use castgate_endpoint::umtp::server;
use castgate_wire::umtp::Channel;
use ipnet::Ipv4Net;

/// Times and limits for the endpoint.
pub(super) fn config(snapshot: &ServerSnapshot, own_addresses: Vec<Ipv4Addr>) -> server::Config {
    let ServerTimers {
        join_timeout_ms,
        idle_timeout_ms,
        cookie_epoch_ms,
        answer_interval_ms,
        wrong_cookie_window_ms,
        ignore_for_ms,
        loop_interval_ms,
    } = snapshot.timers;
    let ServerLimits { tunnels, channels, channels_per_tunnel, ttl, wrong_cookies } = snapshot.limits;
    server::Config {
        join_timeout: millis(join_timeout_ms),
        idle_timeout: millis(idle_timeout_ms),
        cookie_epoch: millis(cookie_epoch_ms),
        answer_interval: millis(answer_interval_ms),
        wrong_cookie_window: millis(wrong_cookie_window_ms),
        ignore_for: millis(ignore_for_ms),
        loop_interval: millis(loop_interval_ms),
        tunnels_max: count(tunnels),
        channels_max: count(channels),
        channels_per_tunnel_max: count(channels_per_tunnel),
        wrong_cookies_max: count(wrong_cookies),
        ttl_max: ttl.get(),
        loop_check: match snapshot.loop_check {
            LoopCheck::Off => server::LoopCheck::Off,
            LoopCheck::Endpoint => server::LoopCheck::Endpoint,
            LoopCheck::Address => server::LoopCheck::Address,
        },
        own_addresses,
        ..server::Config::default()
    }
}

/// The rules for the endpoint.
pub(super) fn permissions(rules: &[ChannelRule]) -> server::Permissions {
    server::Permissions(rules.iter().map(permit).collect())
}

fn permit(rule: &ChannelRule) -> server::Permit {
    let ChannelRule { name: _, group, source, ports, send, ttl } = rule;
    server::Permit {
        groups: Ipv4Net::from(*group),
        sources: source.map_or(server::Sources::Any, |source| server::Sources::Within(Ipv4Net::from(source))),
        ports: ports.first()..=ports.last(),
        send: *send,
        ttl_max: ttl.get(),
    }
}

/// What people call a channel: the name of the first rule that covers it.
pub(super) fn name_of(rules: &[ChannelRule], channel: Channel) -> String {
    let rule = rules.iter().find(|rule| permit(rule).covers(channel));
    rule.map_or_else(|| channel.to_string(), |rule| rule.name.clone())
}

fn millis(value: NonZeroU32) -> Duration {
    Duration::from_millis(value.get().into())
}

fn count(value: NonZeroU32) -> usize {
    usize::try_from(value.get()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_the_snapshot_are_those_of_the_endpoint() {
        let snapshot = ServerSnapshot::new("127.0.2.1:10100".parse().unwrap(), vec!["lo".to_owned()]);
        assert_eq!(config(&snapshot, Vec::new()), server::Config::default());
    }

    #[test]
    fn a_channel_has_the_name_of_the_rule_that_permits_it() {
        let rules =
            [rule("bars", "232.1.2.3", Some("192.0.2.10"), "5004"), rule("talk", "239.1.1.1", None, "5000-5010")];
        let name = |channel: &str| name_of(&rules, channel.parse().unwrap());
        assert_eq!(name("232.1.2.3@192.0.2.10:5004"), "bars");
        assert_eq!(name("239.1.1.1:5010"), "talk");
        assert_eq!(name("239.1.1.1:5011"), "239.1.1.1:5011");
        let permissions = permissions(&rules);
        assert!(permissions.grant("232.1.2.3@192.0.2.10:5004".parse().unwrap()).is_some());
        assert!(permissions.grant("232.1.2.3@192.0.2.11:5004".parse().unwrap()).is_none());
    }

    fn rule(name: &str, group: &str, source: Option<&str>, ports: &str) -> ChannelRule {
        ChannelRule {
            name: name.to_owned(),
            group: group.parse().unwrap(),
            source: source.map(|source| source.parse().unwrap()),
            ports: ports.parse().unwrap(),
            send: false,
            ttl: 63.try_into().unwrap(),
        }
    }
}
