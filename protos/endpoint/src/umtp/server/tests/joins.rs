//! Joins: who has what, for how long, and what ends it.

use super::*;

#[test]
fn a_join_ends_sixty_seconds_after_its_last_repeat_and_the_others_stay() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    lab.join(client(2), channel(ASM));
    lab.wait(Duration::from_secs(59));
    lab.join(client(2), channel(ASM));
    lab.outputs();
    lab.wait(Duration::from_secs(1));
    assert_eq!(lab.outputs(), [Output::Detach { tunnel: client(1), channel: channel(ASM) }]);
    assert_eq!(lab.joined(client(2)), [channel(ASM)]);
    assert_eq!(lab.server.counters().expiries, 1);
    lab.wait(Duration::from_secs(59));
    let (tunnel, channel) = (client(2), channel(ASM));
    assert_eq!(lab.outputs(), [Output::Detach { tunnel, channel }, Output::LeaveNative(channel)]);
}

#[test]
fn the_deadline_is_told_to_the_nanosecond() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    assert_eq!(lab.server.next_timeout(), Some(lab.start + Duration::from_mins(1)));
    lab.wait(Duration::from_nanos(59_999_999_999));
    assert_eq!(lab.joined(client(1)).len(), 1);
    lab.wait(Duration::from_nanos(1));
    assert_eq!(lab.joined(client(1)).len(), 0);
}

#[test]
fn a_leave_concerns_its_sender_only_and_may_be_repeated() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    lab.join(client(2), channel(ASM));
    lab.outputs();
    for _ in 0..3 {
        lab.say(client(1), Command::LeaveGroup, channel(ASM));
    }
    assert_eq!(lab.outputs(), [Output::Detach { tunnel: client(1), channel: channel(ASM) }]);
    assert_eq!(lab.joined(client(2)), [channel(ASM)]);
    assert_eq!(lab.server.counters().leaves, 1);
}

#[test]
fn a_leave_of_another_source_leaves_nothing() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(SSM));
    for other in ["232.1.2.3@192.0.2.11:5004", "232.1.2.3:5004", "232.1.2.3@192.0.2.10:5005"] {
        lab.say(client(1), Command::LeaveGroup, channel(other));
    }
    assert_eq!(lab.joined(client(1)), [channel(SSM)]);
}

#[test]
fn a_tear_down_cleans_everything_of_its_sender_and_nothing_else() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    lab.join(client(1), channel(SSM));
    lab.join(client(2), channel(ASM));
    lab.outputs();
    lab.say(client(1), Command::TearDown, Channel::UNSPECIFIED);
    let tunnel = client(1);
    let expected = [
        Output::Detach { tunnel, channel: channel(SSM) },
        Output::LeaveNative(channel(SSM)),
        Output::Detach { tunnel, channel: channel(ASM) },
        Output::TunnelDown { tunnel, reason: DownReason::Peer },
    ];
    assert_eq!(lab.outputs(), expected);
    assert_eq!(lab.joined(client(2)), [channel(ASM)]);
    lab.say(client(1), Command::TearDown, Channel::UNSPECIFIED);
    assert!(lab.outputs().is_empty(), "a repeated one finds nothing");
    lab.wait(Duration::from_mins(10));
    assert_eq!(lab.server.next_timeout(), None, "no timer is left behind");
}

#[test]
fn a_tunnel_ends_a_hundred_and_twenty_seconds_after_its_last_valid_datagram_with_nothing_joined() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    lab.wait(Duration::from_secs(10));
    lab.say(client(1), Command::LeaveGroup, channel(ASM));
    lab.wait(Duration::from_secs(100));
    lab.say(client(1), Command::Probe, Channel::UNSPECIFIED);
    let wrong = Trailer {
        destination_cookie: Cookie(!lab.cookie(client(1)).0),
        ..lab.trailer(client(1), Command::Probe, channel(ASM), 0)
    };
    lab.wait(Duration::from_secs(100));
    lab.receive(client(1), wrong, &[]);
    lab.outputs();
    lab.wait(Duration::from_secs(19));
    assert!(lab.outputs().is_empty());
    lab.wait(Duration::from_secs(1));
    assert_eq!(lab.outputs(), [Output::TunnelDown { tunnel: client(1), reason: DownReason::Idle }]);
}

#[test]
fn a_tunnel_with_a_channel_is_never_idle_and_activity_of_the_driver_counts() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    for _ in 0..20 {
        lab.wait(Duration::from_secs(30));
        lab.join(client(1), channel(ASM));
    }
    assert_eq!(lab.server.tunnels().len(), 1);
    lab.say(client(1), Command::LeaveGroup, channel(ASM));
    lab.wait(Duration::from_secs(119));
    lab.server.handle_activity(lab.now, client(1));
    lab.wait(Duration::from_secs(119));
    assert_eq!(lab.server.tunnels().len(), 1);
}

#[test]
fn an_rtp_join_is_two_joins_with_lives_of_their_own() {
    let mut lab = Lab::new();
    let (first, second) = (channel("239.1.2.3:5004"), channel("239.1.2.3:5005"));
    lab.say(client(1), Command::JoinRtpGroup, first);
    assert_eq!(lab.joined(client(1)), [first, second]);
    lab.wait(Duration::from_secs(30));
    lab.join(client(1), first);
    lab.wait(Duration::from_secs(30));
    assert_eq!(lab.joined(client(1)), [first], "the second port was not repeated");
    lab.say(client(1), Command::JoinRtpGroup, first);
    lab.say(client(1), Command::LeaveGroup, second);
    assert_eq!(lab.joined(client(1)), [first]);
    lab.say(client(1), Command::JoinRtpGroup, first);
    lab.say(client(1), Command::LeaveRtpGroup, first);
    assert_eq!(lab.joined(client(1)), []);
}

#[test]
fn an_rtp_pair_at_the_last_port_is_refused_whole() {
    let mut lab = Lab::new();
    let last = channel("239.1.2.3:65535");
    lab.say(client(1), Command::JoinRtpGroup, last);
    assert_eq!(lab.server.tunnels().len(), 0);
    lab.join(client(1), last);
    lab.say(client(1), Command::LeaveRtpGroup, last);
    assert_eq!(lab.joined(client(1)), [last]);
    assert_eq!(lab.dropped(Reason::NoRtcpPort), 2);
}

#[test]
fn of_an_rtp_pair_the_permitted_half_is_joined() {
    let mut permissions = everything();
    permissions.0[0].ports = 5004..=5004;
    let mut lab = Lab::with(Config::default(), permissions);
    lab.say(client(1), Command::JoinRtpGroup, channel("239.1.2.3:5004"));
    assert_eq!(lab.joined(client(1)), [channel("239.1.2.3:5004")]);
    assert_eq!(lab.dropped(Reason::NotPermitted), 1);
}

#[test]
fn a_join_that_no_rule_permits_is_counted_and_gets_no_answer() {
    let mut lab = Lab::with(Config::default(), Permissions::default());
    lab.join(client(1), channel(ASM));
    assert!(lab.outputs().is_empty());
    assert_eq!((lab.dropped(Reason::NotPermitted), lab.server.tunnels().len()), (1, 0));
}

#[test]
fn every_limit_holds_and_is_counted_by_its_own_reason() {
    let config = Config { tunnels_max: 2, channels_max: 3, channels_per_tunnel_max: 2, ..Config::default() };
    let mut lab = Lab::with(config, everything());
    let port = |port| Channel { port, ..channel(ASM) };
    lab.join(client(1), port(1));
    lab.join(client(1), port(2));
    lab.join(client(1), port(3));
    assert_eq!((lab.joined(client(1)), lab.dropped(Reason::ChannelsPerTunnelMax)), (vec![port(1), port(2)], 1));
    lab.join(client(2), port(3));
    lab.join(client(2), port(4));
    assert_eq!((lab.joined(client(2)), lab.dropped(Reason::ChannelsMax)), (vec![port(3)], 1));
    lab.join(client(2), port(1));
    assert_eq!(lab.joined(client(2)), [port(1), port(3)], "a channel that is there already is no new one");
    lab.join(client(3), port(1));
    assert_eq!((lab.server.tunnels().len(), lab.dropped(Reason::TunnelsMax)), (2, 1));
}

#[test]
fn rules_that_change_withdraw_and_adjust_what_is_joined() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    lab.join(client(1), channel(SSM));
    lab.outputs();
    let mut permissions = everything();
    permissions.0[0] =
        Permit { groups: "239.0.0.0/8".parse().unwrap(), send: false, ttl_max: 5, ..permissions.0[0].clone() };
    lab.server.set_permissions(permissions.clone());
    let tunnel = client(1);
    let expected = [
        Output::Detach { tunnel, channel: channel(SSM) },
        Output::LeaveNative(channel(SSM)),
        Output::Attach { tunnel, channel: channel(ASM), ttl: 5, ttl_max: 5, may_send: false },
    ];
    assert_eq!(lab.outputs(), expected);
    lab.server.set_permissions(permissions);
    assert!(lab.outputs().is_empty(), "what stays the same is not said again");
    lab.server.set_permissions(everything());
    let restored = Output::Attach { tunnel, channel: channel(ASM), ttl: 63, ttl_max: 63, may_send: true };
    assert_eq!(lab.outputs(), [restored]);
}

#[test]
fn a_new_configuration_ends_no_tunnel() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    lab.outputs();
    lab.server.set_config(Config { tunnels_max: 0, channels_max: 0, ..Config::default() });
    assert!(lab.outputs().is_empty());
    lab.join(client(1), channel(ASM));
    assert_eq!(lab.server.counters().refreshes, 1);
}

#[test]
fn tearing_everything_down_tells_every_client_and_leaves_nothing() {
    let mut lab = Lab::new();
    for number in 1..=3 {
        lab.join(client(number), channel(ASM));
    }
    lab.outputs();
    lab.server.tear_down_all();
    let told: Vec<_> = lab
        .outputs()
        .into_iter()
        .filter_map(|output| match output {
            Output::Transmit { to, datagram } => Some((to, Trailer::parse(&datagram).unwrap().1)),
            _ => None,
        })
        .collect();
    let tear_down = |number| {
        let to = client(number);
        (to, Trailer::without_channel(Command::TearDown, lab.cookie(to), REMOTE))
    };
    assert_eq!(told, [1, 2, 3].map(tear_down));
    assert_eq!((lab.server.tunnels().len(), lab.server.channels().len()), (0, 0));
    assert_eq!(lab.server.next_timeout(), None);
}
