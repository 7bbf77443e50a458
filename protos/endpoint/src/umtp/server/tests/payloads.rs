//! Payloads and their TTL.

use super::*;

const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

fn native(lab: &mut Lab, destination: &str, ttl: Option<u8>) {
    lab.server.handle_native(lab.now, destination.parse().unwrap(), SOURCE, ttl, b"hi");
}

#[test]
fn a_native_packet_goes_to_every_tunnel_of_the_channel_with_one_hop_less() {
    let mut lab = Lab::new();
    lab.join(client(1), channel("232.1.2.3@192.0.2.10:5004"));
    lab.join(client(2), channel("232.1.2.3:5004"));
    lab.join(client(3), channel("232.1.2.3@192.0.2.11:5004"));
    lab.join(client(4), channel("232.1.2.3:5005"));
    lab.outputs();
    native(&mut lab, "232.1.2.3:5004", Some(127));
    let sent: Vec<_> = lab
        .outputs()
        .into_iter()
        .map(|output| match output {
            Output::Transmit { to, datagram } => {
                let (head, trailer) = Trailer::parse(&datagram).unwrap();
                assert_eq!((head, trailer.ttl, trailer.command), (&b"hi"[..], 126, Command::Data));
                assert_eq!((trailer.source_cookie, trailer.destination_cookie), (lab.cookie(to), REMOTE));
                (to, trailer.channel)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [(client(2), channel("232.1.2.3:5004")), (client(1), channel("232.1.2.3@192.0.2.10:5004"))];
    assert_eq!(sent, expected, "each with the channel as it was joined");
}

#[test]
fn a_native_packet_of_unknown_ttl_takes_that_of_the_join_lowered_to_the_limit() {
    let mut lab = Lab::new();
    for (number, asked) in [(1, 10), (2, 255), (3, 0)] {
        let join = lab.trailer(client(number), Command::JoinGroup, channel(ASM), asked);
        lab.receive(client(number), join, &[]);
    }
    lab.outputs();
    native(&mut lab, ASM, None);
    let ttls: Vec<_> = lab
        .outputs()
        .into_iter()
        .map(|output| match output {
            Output::Transmit { to, datagram } => (to, Trailer::parse(&datagram).unwrap().1.ttl),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ttls, [(client(1), 9), (client(2), 62)], "and with TTL 0 nothing is sent");
}

#[test]
fn a_native_packet_with_ttl_zero_or_one_goes_no_further_or_one_hop() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    lab.outputs();
    native(&mut lab, ASM, Some(0));
    assert!(lab.outputs().is_empty());
    native(&mut lab, ASM, Some(1));
    assert_eq!(lab.sent_to(client(1))[0].0.ttl, 0);
}

#[test]
fn data_goes_to_the_network_and_to_the_others_but_never_back() {
    let mut lab = Lab::new();
    for number in 1..=3 {
        lab.join(client(number), channel(ASM));
    }
    lab.outputs();
    let data = lab.trailer(client(1), Command::Data, channel(ASM), 9);
    lab.receive(client(1), data, b"hi");
    let outputs = lab.outputs();
    assert_eq!(outputs[0], Output::Multicast { channel: channel(ASM), ttl: 9, payload: b"hi".to_vec() });
    let receivers: Vec<_> = outputs[1..]
        .iter()
        .map(|output| match output {
            Output::Transmit { to, datagram } => (*to, Trailer::parse(datagram).unwrap().1.ttl),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(receivers, [(client(2), 8), (client(3), 8)]);
}

#[test]
fn an_empty_payload_is_a_payload() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    lab.join(client(2), channel(ASM));
    lab.outputs();
    lab.say(client(1), Command::Data, channel(ASM));
    assert_eq!(lab.sent_to(client(2)).len(), 1);
}

#[test]
fn data_with_ttl_zero_is_multicast_on_the_host_and_relayed_to_nobody() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    lab.join(client(2), channel(ASM));
    lab.outputs();
    let data = lab.trailer(client(1), Command::Data, channel(ASM), 0);
    lab.receive(client(1), data, b"hi");
    assert_eq!(lab.outputs(), [Output::Multicast { channel: channel(ASM), ttl: 0, payload: b"hi".to_vec() }]);
}

#[test]
fn the_ttl_of_data_is_lowered_to_the_rule_and_to_the_limit_of_the_server() {
    for (of_rule, of_server, expected) in [(255, 63, 63), (5, 63, 5), (63, 7, 7)] {
        let mut permissions = everything();
        permissions.0[0].ttl_max = of_rule;
        let mut lab = Lab::with(Config { ttl_max: of_server, ..Config::default() }, permissions);
        lab.join(client(1), channel(ASM));
        lab.outputs();
        let data = lab.trailer(client(1), Command::Data, channel(ASM), 255);
        lab.receive(client(1), data, b"");
        let [Output::Multicast { ttl, .. }] = &lab.outputs()[..] else { panic!("one packet") };
        assert_eq!(*ttl, expected);
    }
}

#[test]
fn data_is_dropped_with_its_reason_unless_its_sender_joined_a_channel_that_clients_may_send_to() {
    let cases = [
        ("239.1.2.3:5005", Reason::NotJoined),
        ("239.1.2.3@192.0.2.10:5004", Reason::NotJoined),
        ("224.0.0.251:5353", Reason::LinkLocal),
        ("239.1.2.3:0", Reason::RawPort),
    ];
    for (text, reason) in cases {
        let mut lab = Lab::new();
        lab.join(client(1), channel(ASM));
        lab.join(client(2), channel("239.1.2.3:5005"));
        lab.outputs();
        let data = lab.trailer(client(1), Command::Data, channel(text), 9);
        lab.receive(client(1), data, b"");
        assert!(lab.outputs().is_empty(), "{text}");
        assert_eq!(lab.dropped(reason), 1, "{text}");
    }
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    lab.outputs();
    for host in [[127, 0, 0, 1], [192, 0, 2, 1], [255, 255, 255, 255], [0, 0, 0, 0]] {
        let data = lab.trailer(client(1), Command::Data, Channel::any_source(host.into(), 53), 9);
        lab.receive(client(1), data, b"reflected?");
    }
    assert!(lab.outputs().is_empty(), "no reflector");
    assert_eq!(lab.dropped(Reason::NotMulticast), 4);
}

#[test]
fn data_with_the_right_cookie_but_without_a_tunnel_is_answered_so_that_its_sender_joins_again() {
    let mut lab = Lab::new();
    for _ in 0..10 {
        lab.say(client(1), Command::Data, channel(ASM));
    }
    let [(answer, _)] = &lab.sent_to(client(1))[..] else { panic!("one answer a second") };
    assert_eq!(answer.command, Command::ProbeAck);
    assert_eq!(lab.dropped(Reason::NoTunnel), 10);
}

#[test]
fn a_loop_that_the_driver_saw_is_judged_like_one_that_we_saw() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    lab.join(client(2), channel(ASM));
    lab.outputs();
    lab.server.handle_loop(lab.now, channel(ASM), SOURCE);
    assert!(lab.outputs().is_empty(), "nobody's address");
    lab.server.handle_loop(lab.now, channel(ASM), *client(1).ip());
    assert_eq!(lab.sent_to(client(1))[0].0.command, Command::TearDown);
    assert_eq!(lab.server.tunnels().map(|tunnel| tunnel.tunnel).collect::<Vec<_>>(), [client(2)]);
    assert_eq!(lab.dropped(Reason::Loop), 1);
}

#[test]
fn a_loop_is_torn_down_once_a_second_and_its_packets_go_nowhere_meanwhile() {
    let mut lab = Lab::new();
    lab.join(client(2), channel(ASM));
    let (mut tear_downs, mut relayed) = (0, 0);
    for _ in 0..100 {
        lab.join(client(1), channel(ASM));
        lab.outputs();
        lab.server.handle_native(lab.now, ASM.parse().unwrap(), *client(1).ip(), Some(9), b"round and round");
        for output in lab.outputs() {
            tear_downs += u32::from(matches!(output, Output::TunnelDown { reason: DownReason::Loop, .. }));
            relayed += u32::from(matches!(output, Output::Transmit { to, .. } if to == client(2)));
        }
        lab.wait(Duration::from_millis(100));
    }
    assert_eq!((tear_downs, relayed), (10, 0));
}
