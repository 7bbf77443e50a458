//! A server's part of the snapshot in the words of those who carry it out: the endpoint and the dataplane.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use castgate_control::{
    AmtLimits, AmtSnapshot, AmtTimers, ChannelRule, LoopCheck, ServerLimits, ServerSnapshot, ServerTimers,
};
use castgate_dataplane::{AmtSettings, TunnelMtu, WholePackets};
use castgate_endpoint::amt::relay;
use castgate_endpoint::umtp::server;
use castgate_wire::umtp::Channel;
use ipnet::{IpNet, Ipv4Net};

/// Ports at which packets are rebuilt: each is a socket in every worker.
const REBUILT_PORTS_MAX: usize = 64;

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
    server::Permissions(rules.iter().filter_map(permit).collect())
}

/// `None` for a channel of version 6: UMTP carries none.
fn permit(rule: &ChannelRule) -> Option<server::Permit> {
    let ChannelRule { name: _, group, source, ports, send, ttl } = rule;
    let (IpAddr::V4(group), None | Some(IpAddr::V4(_))) = (*group, *source) else { return None };
    let sources = match source {
        Some(IpAddr::V4(source)) => server::Sources::Within(Ipv4Net::from(*source)),
        Some(IpAddr::V6(_)) | None => server::Sources::Any,
    };
    let ports = ports.first()..=ports.last();
    Some(server::Permit { groups: Ipv4Net::from(group), sources, ports, send: *send, ttl_max: ttl.get() })
}

/// Times, limits and addresses for the AMT relay.
pub(super) fn amt_config(snapshot: &AmtSnapshot) -> relay::Config {
    let AmtSnapshot { listen, advertise, anycast, teardown, mtu: _, zero_checksum: _, timers, limits } = snapshot;
    let AmtTimers { query_interval_ms, query_response_interval_ms, robustness, secret_lifetime_ms } = *timers;
    let AmtLimits { endpoints, groups_per_endpoint, sources_per_group } = *limits;
    let own = listen.iter().map(SocketAddr::ip).filter(|address| !address.is_unspecified());
    relay::Config {
        query_interval: millis(query_interval_ms),
        query_response_interval: millis(query_response_interval_ms),
        robustness,
        secret_life: millis(secret_lifetime_ms),
        teardown: *teardown,
        anycast: anycast.iter().flat_map(|anycast| anycast.addresses.iter().copied()).collect(),
        unicast: advertise.iter().copied().chain(own).collect(),
        endpoints_max: count(endpoints),
        groups_per_endpoint_max: count(groups_per_endpoint),
        sources_per_group_max: count(sources_per_group),
        ..relay::Config::default()
    }
}

/// The rules for the AMT relay: without regard to ports, which a membership does not name.
pub(super) fn amt_permissions(rules: &[ChannelRule]) -> relay::Permissions {
    let permit = |rule: &ChannelRule| relay::Permit {
        groups: IpNet::from(rule.group),
        sources: rule.source.map_or(relay::Sources::Any, |source| relay::Sources::Within(IpNet::from(source))),
    };
    relay::Permissions(rules.iter().map(permit).collect())
}

/// The relay's sockets for the dataplane: at its own addresses and, at the same port, at the anycast addresses.
pub(super) fn amt_settings(snapshot: &AmtSnapshot) -> AmtSettings {
    let AmtSnapshot { listen, anycast, mtu, zero_checksum, .. } = snapshot;
    let shared = anycast.iter().flat_map(|anycast| &anycast.addresses).filter_map(|address| {
        let of_family = listen.iter().find(|place| place.is_ipv4() == address.is_ipv4())?;
        // A socket at every address has this one already.
        (!of_family.ip().is_unspecified()).then(|| SocketAddr::new(*address, of_family.port()))
    });
    let mut settings = AmtSettings::new(listen.iter().copied().chain(shared).collect());
    settings.mtu = mtu.map_or(settings.mtu, |mtu| TunnelMtu::Fixed(mtu.get()));
    settings.zero_checksum = *zero_checksum;
    settings
}

/// For a program that may not see whole packets: what a socket at each port that a rule names can rebuild; `None` when a rule
/// names more ports than there should be sockets.
pub(super) fn rebuilt(rules: &[ChannelRule]) -> Option<WholePackets> {
    let mut ports = BTreeSet::new();
    for rule in rules {
        if usize::from(rule.ports.last() - rule.ports.first()) >= REBUILT_PORTS_MAX {
            return None;
        }
        ports.extend(rule.ports.first()..=rule.ports.last());
    }
    (ports.len() <= REBUILT_PORTS_MAX).then(|| WholePackets::Rebuilt { ports: ports.into_iter().collect() })
}

/// What people call a channel: the name of the first rule that covers it.
pub(super) fn name_of(rules: &[ChannelRule], channel: Channel) -> String {
    let rule = rules.iter().find(|rule| permit(rule).is_some_and(|permit| permit.covers(channel)));
    rule.map_or_else(|| channel.to_string(), |rule| rule.name.clone())
}

pub(super) fn millis(value: NonZeroU32) -> Duration {
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
    fn the_defaults_of_a_relay_s_snapshot_are_those_of_the_endpoint() {
        let snapshot = AmtSnapshot::new(vec!["0.0.0.0:2268".parse().unwrap()]);
        let defaults = relay::Config { anycast: Vec::new(), unicast: Vec::new(), ..relay::Config::default() };
        assert_eq!(amt_config(&snapshot), defaults);
    }

    #[test]
    fn a_relay_listens_at_its_anycast_addresses_and_advertises_its_own() {
        let mut snapshot =
            AmtSnapshot::new(vec!["192.0.2.1:2268".parse().unwrap(), "[2001:db8::1]:2269".parse().unwrap()]);
        let anycast = ["192.52.193.1", "2001:3::1"].map(|address| address.parse().unwrap()).to_vec();
        snapshot.anycast =
            Some(castgate_control::AnycastSnapshot { addresses: anycast.clone(), table: 2268.try_into().unwrap() });
        let listen = amt_settings(&snapshot).listen;
        let expected = ["192.0.2.1:2268", "[2001:db8::1]:2269", "192.52.193.1:2268", "[2001:3::1]:2269"];
        assert_eq!(listen, expected.map(|place| place.parse().unwrap()));
        let config = amt_config(&snapshot);
        assert_eq!(config.anycast, anycast);
        assert_eq!(config.unicast, ["192.0.2.1", "2001:db8::1"].map(|address| address.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn a_few_ports_can_be_rebuilt_and_a_range_of_thousands_cannot() {
        let rules = [rule("a", "239.1.1.1", None, "5004"), rule("b", "239.1.1.2", None, "5004-5006")];
        assert_eq!(rebuilt(&rules), Some(WholePackets::Rebuilt { ports: vec![5004, 5005, 5006] }));
        assert_eq!(rebuilt(&[rule("c", "239.1.1.1", None, "1-65535")]), None);
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

    #[test]
    fn a_channel_of_version_6_permits_no_umtp() {
        let rules = [rule("six", "ff3e::8000:1", Some("2001:db8::1"), "5004"), rule("four", "239.1.1.1", None, "5004")];
        assert_eq!(permissions(&rules).0.len(), 1);
        assert_eq!(name_of(&rules, "239.1.1.1:5004".parse().unwrap()), "four");
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
