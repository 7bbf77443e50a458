//! Joining, leaving, delivering, sending.

use super::*;

#[test]
fn a_packet_is_delivered_only_while_its_channel_is_joined() {
    let mut lab = Lab::up(1);
    assert!(lab.data(ASM));
    assert!(!lab.data("239.1.2.3:5005") && !lab.data("239.1.2.3@192.0.2.10:5004"));
    lab.client.leave(channel(ASM), lab.now);
    assert!(!lab.data(ASM));
    assert_eq!(lab.client.counters().drops.of(Reason::NotJoined), 3);
    lab.client.join(channel(ASM), lab.now);
    assert!(lab.data(ASM));
}

#[test]
fn a_payload_comes_with_its_channel_and_ttl_and_is_not_copied() {
    let mut lab = Lab::new(1);
    lab.client.join(channel(SSM), lab.now);
    lab.answer(server(1), Command::ProbeAck);
    let octets = datagram(&lab.trailer(server(1), Command::Data, channel(SSM)), b"payload");
    let received = lab.client.handle_datagram(lab.now, server(1), &octets).unwrap();
    assert_eq!(received, Received { channel: channel(SSM), ttl: 9, payload: b"payload" });
    assert!(std::ptr::eq(received.payload, &raw const octets[..7]));
}

#[test]
fn the_first_packet_of_a_join_is_told_once() {
    let mut lab = Lab::up(1);
    lab.data(ASM);
    lab.data(ASM);
    assert_eq!(lab.events, [Event::FirstData { channel: channel(ASM), server: server(1) }]);
}

#[test]
fn a_join_carries_the_channel_the_cookies_and_the_ttl() {
    let mut lab = Lab::up(1);
    let options = JoinOptions { ttl: 127, ..JoinOptions::new(&Config::default()) };
    lab.client.join_with(channel(SSM), options, lab.now);
    lab.drain();
    let expected = Trailer {
        source_cookie: lab.client.local_cookie(server(1)),
        destination_cookie: REMOTE,
        channel: channel(SSM),
        ttl: 127,
        command: Command::JoinGroup,
    };
    assert_eq!(lab.sent, [(0, server(1), expected)]);
}

#[test]
fn what_no_tunnel_can_carry_is_refused_with_its_reason() {
    let mut lab = Lab::up(1);
    let host = Channel::any_source(Ipv4Addr::new(192, 0, 2, 1), 1);
    let options = JoinOptions { rtp: true, ..JoinOptions::new(&Config::default()) };
    for text in ["224.0.0.5:1", "239.1.2.3:0"] {
        lab.client.join(channel(text), lab.now);
    }
    lab.client.join(host, lab.now);
    lab.client.join_with(channel("239.1.2.3:65535"), options, lab.now);
    lab.drain();
    let labels: Vec<String> = lab
        .events
        .iter()
        .map(|event| match event {
            Event::Refused { reason, .. } => reason.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        "group 224.0.0.5 never leaves its link",
        "port 0 asks for raw tunnelling",
        "group 192.0.2.1 is not a multicast address",
        "an RTP pair cannot start at port 65535",
    ];
    assert_eq!(labels, expected);
    assert!(lab.sent.is_empty());
    assert_eq!(lab.client.channels().len(), 1);
}

#[test]
fn more_channels_than_the_limit_are_refused() {
    let mut lab = Lab::with(Config { channels_max: 1, ..Config::default() }, 1);
    lab.client.join(channel(ASM), lab.now);
    lab.client.join(channel(SSM), lab.now);
    lab.drain();
    assert_eq!(lab.events, [Event::Refused { channel: channel(SSM), reason: Refusal::ChannelsMax(1) }]);
}

#[test]
fn a_channel_that_is_joined_is_not_joined_again() {
    let mut lab = Lab::up(1);
    lab.client.join(channel(ASM), lab.now);
    lab.drain();
    assert!(lab.sent.is_empty());
}

#[test]
fn an_rtp_pair_is_joined_by_one_command_and_delivers_both_ports() {
    let mut lab = Lab::up(1);
    lab.client.leave(channel(ASM), lab.now);
    lab.wait(millis(1_000));
    lab.sent.clear();
    let options = JoinOptions { rtp: true, ..JoinOptions::new(&Config::default()) };
    lab.client.join_with(channel(ASM), options, lab.now);
    lab.drain();
    assert_eq!(lab.commands(), [Command::JoinRtpGroup]);
    assert!(lab.data("239.1.2.3:5004") && lab.data("239.1.2.3:5005"));
    lab.client.leave(channel("239.1.2.3:5005"), lab.now);
    lab.drain();
    assert_eq!(lab.commands(), [Command::LeaveGroup]);
    assert!(lab.data("239.1.2.3:5004") && !lab.data("239.1.2.3:5005"));
    lab.wait(millis(1_000));
    lab.sent.clear();
    lab.client.leave(channel("239.1.2.3:5004"), lab.now);
    lab.drain();
    assert_eq!(lab.commands(), [Command::LeaveGroup], "what is left of a pair is no pair");
}

#[test]
fn an_rtp_pair_is_left_by_one_command() {
    let mut lab = Lab::up(1);
    let options = JoinOptions { rtp: true, ..JoinOptions::new(&Config::default()) };
    lab.client.join_with(channel(ASM), options, lab.now);
    lab.drain();
    lab.sent.clear();
    lab.client.leave(channel(ASM), lab.now);
    lab.wait(millis(1_000));
    assert_eq!(lab.said(), [0, 200, 400].map(|at| (at, Command::LeaveRtpGroup)));
    assert_eq!(lab.client.channels().len(), 0);
}

#[test]
fn a_native_packet_goes_upstream_with_its_ttl_or_that_of_the_join() {
    let mut lab = Lab::up(1);
    let source = Ipv4Addr::new(10, 0, 0, 5);
    let destination = "239.1.2.3:5004".parse().unwrap();
    lab.client.handle_native(lab.now, destination, source, Some(5), b"").unwrap();
    lab.client.handle_native(lab.now, destination, source, None, b"").unwrap();
    lab.drain();
    let ttls: Vec<u8> = lab.sent.iter().map(|(_, _, trailer)| trailer.ttl).collect();
    assert_eq!(ttls, [4, 62]);
    let other = "239.1.2.4:5004".parse().unwrap();
    let refused = lab.client.handle_native(lab.now, other, source, Some(5), b"");
    assert_eq!(refused, Err(SendError::NotJoined(channel("239.1.2.4:5004"))));
    assert_eq!(lab.client.handle_native(lab.now, destination, source, Some(0), b""), Err(SendError::TtlZero));
}

#[test]
fn a_native_packet_from_the_server_tears_the_tunnel_down_unless_it_is_our_own_address_or_not_checked() {
    let from_server = |config: Config| {
        let mut lab = Lab::with(config, 1);
        lab.client.join(channel(ASM), lab.now);
        lab.answer(server(1), Command::ProbeAck);
        lab.sent.clear();
        let destination = "239.1.2.3:5004".parse().unwrap();
        let sent = lab.client.handle_native(lab.now, destination, *server(1).ip(), Some(5), b"");
        lab.drain();
        (sent, lab.commands())
    };
    let looped = Err(SendError::Loop(*server(1).ip()));
    assert_eq!(from_server(Config::default()), (looped, vec![Command::TearDown]));
    let own = Config { own_addresses: vec![*server(1).ip()], ..Config::default() };
    assert_eq!(from_server(own), (Ok(()), vec![Command::Data]));
    let off = Config { loop_check: crate::umtp::LoopCheck::Off, ..Config::default() };
    assert_eq!(from_server(off), (Ok(()), vec![Command::Data]));
}
