//! Who is answered, how, how often, and what is learned of him.

use super::*;

#[test]
fn the_exchange_of_the_draft_has_the_octets_of_the_draft() {
    let mut lab = Lab::new();
    let probe = Trailer::without_channel(Command::Probe, Cookie(914), Cookie(2207));
    lab.receive(client(1), probe, &[]);
    let [(answer, head)] = &lab.sent_to(client(1))[..] else { panic!("one answer") };
    assert_eq!(*answer, Trailer::without_channel(Command::ProbeAck, lab.cookie(client(1)), Cookie(914)));
    assert!(head.is_empty());
    assert_eq!(lab.server.tunnels().len(), 0, "nothing is kept");
}

/// Every command that has a cookie to check.
const CHALLENGED: [Command; 7] = [
    Command::Data,
    Command::JoinGroup,
    Command::LeaveGroup,
    Command::TearDown,
    Command::Probe,
    Command::JoinRtpGroup,
    Command::LeaveRtpGroup,
];

#[test]
fn any_command_of_a_stranger_with_a_wrong_cookie_is_answered_like_a_probe_and_not_carried_out() {
    for command in CHALLENGED {
        for text in [ASM, SSM] {
            if channel(text).source.is_some() && !command.may_carry_source() {
                continue;
            }
            let mut lab = Lab::new();
            let wrong = Cookie(lab.cookie(client(1)).0 ^ 0x5555);
            let question = Trailer { destination_cookie: wrong, ..lab.trailer(client(1), command, channel(text), 9) };
            lab.receive(client(1), question, b"options or payload");
            let [output] = &lab.outputs()[..] else { panic!("{command} has one answer and no other effect") };
            let Output::Transmit { to, datagram } = output else { panic!("{output:?}") };
            let (head, answer) = Trailer::parse(datagram).unwrap();
            let copied = Channel { source: None, ..channel(text) };
            assert_eq!((*to, head, datagram.len()), (client(1), &[][..], 12));
            let expected = Trailer {
                source_cookie: lab.cookie(client(1)),
                destination_cookie: REMOTE,
                channel: copied,
                ttl: 9,
                command: Command::ProbeAck,
            };
            assert_eq!(answer, expected, "group, port and TTL are copied");
        }
    }
}

#[test]
fn a_wrong_cookie_through_a_tunnel_is_challenged_and_the_command_not_carried_out() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    lab.outputs();
    for command in CHALLENGED {
        lab.wait(Duration::from_secs(1));
        let wrong = Cookie(lab.cookie(client(1)).0 ^ 0x5555);
        let question = Trailer { destination_cookie: wrong, ..lab.trailer(client(1), command, channel(ASM), 9) };
        lab.receive(client(1), question, b"");
        let [(answer, _)] = &lab.sent_to(client(1))[..] else { panic!("one answer to {command}") };
        assert_eq!(answer.command, Command::ProbeAck);
        assert_eq!(lab.joined(client(1)), [channel(ASM)]);
    }
}

#[test]
fn answers_to_one_address_and_port_are_a_second_apart() {
    let mut lab = Lab::new();
    let mut answers = 0;
    for _ in 0..100 {
        let probe = Trailer::without_channel(Command::Probe, Cookie(1), Cookie(2));
        lab.receive(client(1), probe, &[]);
        answers += lab.sent_to(client(1)).len();
        lab.wait(Duration::from_millis(100));
    }
    assert_eq!(answers, 10);
    assert_eq!(lab.dropped(Reason::AnswerSuppressed), 90);
}

#[test]
fn whoever_has_the_cookie_is_answered_every_time() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    lab.outputs();
    for _ in 0..3 {
        lab.say(client(1), Command::Probe, Channel::UNSPECIFIED);
        let [(answer, _)] = &lab.sent_to(client(1))[..] else { panic!("an answer") };
        assert_eq!((answer.command, answer.destination_cookie), (Command::ProbeAck, REMOTE));
    }
}

#[test]
fn answers_are_never_answered_so_that_two_servers_cannot_be_set_on_each_other() {
    for command in [Command::ProbeAck, Command::ProbeNack] {
        for from in [client(1), client(2)] {
            let mut lab = Lab::new();
            lab.join(client(1), channel(ASM));
            lab.outputs();
            let question = Trailer::without_channel(command, Cookie(1), Cookie(2));
            lab.receive(from, question, &[]);
            assert!(lab.outputs().is_empty());
            assert_eq!(lab.dropped(Reason::Unsolicited), 1);
        }
    }
}

#[test]
fn commands_that_base_umtp_lacks_are_dropped_without_an_answer() {
    for code in [0, 10, 11, 12, 13, 14, 15] {
        let mut lab = Lab::new();
        let mut octets = vec![0; 15];
        octets.push(code);
        lab.server.handle_datagram(lab.now, client(1), &octets);
        assert!(lab.outputs().is_empty(), "{code}");
        assert_eq!(lab.dropped(Reason::UnknownCommand), 1, "{code}");
    }
}

#[test]
fn another_version_and_what_is_too_short_are_dropped_without_an_answer() {
    let mut lab = Lab::new();
    let mut version_1 = vec![0; 11];
    version_1.push(0x15);
    lab.server.handle_datagram(lab.now, client(1), &version_1);
    for short in [&[][..], &[5], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]] {
        lab.server.handle_datagram(lab.now, client(1), short);
    }
    assert!(lab.outputs().is_empty());
    assert_eq!((lab.dropped(Reason::Version), lab.dropped(Reason::Malformed)), (1, 3));
}

#[test]
fn a_join_with_the_right_cookie_needs_no_probe_before_it() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    let cookies = Cookies {
        local: lab.cookie(client(1)),
        local_previous: lab.server.jar.cookies(client(1), lab.now).previous,
        remote: REMOTE,
    };
    let (tunnel, channel) = (client(1), channel(ASM));
    let expected = [
        Output::TunnelUp { tunnel, cookies },
        Output::JoinNative(channel),
        Output::Attach { tunnel, channel, ttl: 63, ttl_max: 63, may_send: true },
    ];
    assert_eq!(lab.outputs(), expected);
}

#[test]
fn a_cookie_proves_one_port_only() {
    let mut lab = Lab::new();
    let other_port = SocketAddrV4::new(*client(1).ip(), 40_001);
    let stolen = lab.trailer(client(1), Command::JoinGroup, channel(ASM), 9);
    lab.receive(other_port, stolen, &[]);
    assert_eq!(lab.server.tunnels().len(), 0);
}

#[test]
fn the_cookie_of_the_client_is_learned_from_every_valid_datagram() {
    let mut lab = Lab::new();
    lab.join(client(1), channel(ASM));
    lab.outputs();
    let renewed = Trailer { source_cookie: Cookie(9), ..lab.trailer(client(1), Command::JoinGroup, channel(ASM), 9) };
    lab.receive(client(1), renewed, &[]);
    let [Output::Cookies { tunnel, cookies }] = &lab.outputs()[..] else { panic!("the table must know") };
    assert_eq!((*tunnel, cookies.remote), (client(1), Cookie(9)));
}

#[test]
fn the_cookie_of_the_epoch_before_is_accepted_and_the_one_before_that_is_challenged() {
    let mut lab = Lab::new();
    let first = lab.trailer(client(1), Command::JoinGroup, channel(ASM), 9);
    lab.receive(client(1), first, &[]);
    let Some(end) = lab.server.tunnels().len().checked_sub(1).map(|_| lab.server.jar.cookies(client(1), lab.now).until)
    else {
        panic!("a tunnel")
    };
    let refresh_until = |lab: &mut Lab, end: Instant| {
        while lab.now + Duration::from_secs(30) < end {
            lab.wait(Duration::from_secs(30));
            lab.join(client(1), channel(ASM));
        }
        lab.wait(Duration::from_secs(30));
        lab.outputs()
    };
    let outputs = refresh_until(&mut lab, end);
    assert!(outputs.iter().any(|output| matches!(output, Output::Cookies { .. })), "the table must know");
    let refreshes = lab.server.counters().refreshes;
    lab.receive(client(1), first, &[]);
    assert_eq!(lab.server.counters().refreshes, refreshes + 1);
    refresh_until(&mut lab, end + Duration::from_hours(1));
    let refreshes = lab.server.counters().refreshes;
    lab.receive(client(1), first, &[]);
    assert_eq!(lab.server.counters().refreshes, refreshes);
    assert_eq!(lab.sent_to(client(1))[0].0.command, Command::ProbeAck);
}

#[test]
fn a_server_without_room_refuses_the_probe_of_a_stranger_with_swapped_cookies_and_none_of_his_octets() {
    let config = Config { tunnels_max: 1, ..Config::default() };
    let mut lab = Lab::with(config, everything());
    lab.join(client(1), channel(ASM));
    lab.outputs();
    let probe = Trailer::without_channel(Command::Probe, Cookie(914), Cookie(2207));
    lab.receive(client(2), probe, b"options");
    let [(answer, head)] = &lab.sent_to(client(2))[..] else { panic!("an answer") };
    assert_eq!(*answer, Trailer::without_channel(Command::ProbeNack, Cookie(2207), Cookie(914)));
    assert!(head.is_empty());
    lab.join(client(2), channel(ASM));
    assert!(lab.outputs().is_empty());
    assert_eq!(lab.dropped(Reason::TunnelsMax), 2);
    lab.say(client(1), Command::Probe, Channel::UNSPECIFIED);
    assert_eq!(lab.sent_to(client(1))[0].0.command, Command::ProbeAck, "those inside are not refused");
}

#[test]
fn above_sixteen_wrong_cookies_an_address_is_ignored_for_a_minute() {
    let mut lab = Lab::new();
    let right = lab.cookie(client(1));
    for guess in 1..=17 {
        let wrong = Cookie(right.0 ^ guess ^ 0x5500);
        let join = lab.trailer(client(1), Command::JoinGroup, channel(ASM), 9);
        lab.receive(client(1), Trailer { destination_cookie: wrong, ..join }, &[]);
    }
    let neighbour = SocketAddrV4::new(*client(1).ip(), 2);
    lab.join(neighbour, channel(ASM));
    assert_eq!(lab.server.tunnels().len(), 0, "even the right cookie, from another port");
    lab.wait(Duration::from_mins(1));
    lab.join(neighbour, channel(ASM));
    assert_eq!(lab.server.tunnels().len(), 1);
}

#[test]
fn an_address_with_a_proven_tunnel_is_never_ignored() {
    let mut lab = Lab::new();
    let neighbour = SocketAddrV4::new(*client(1).ip(), 2);
    lab.join(neighbour, channel(ASM));
    let right = lab.cookie(client(1));
    for guess in 1..=1000 {
        let wrong = Cookie(right.0 ^ guess ^ 0x5500);
        let join = lab.trailer(client(1), Command::JoinGroup, channel(ASM), 9);
        lab.receive(client(1), Trailer { destination_cookie: wrong, ..join }, &[]);
    }
    lab.wait(Duration::from_secs(1));
    lab.outputs();
    let stale =
        Trailer { destination_cookie: Cookie(!right.0), ..lab.trailer(client(1), Command::Data, channel(ASM), 9) };
    lab.receive(client(1), stale, b"");
    assert_eq!(lab.sent_to(client(1))[0].0.command, Command::ProbeAck, "and is told the cookie");
    lab.join(client(1), channel(ASM));
    assert_eq!(lab.server.tunnels().len(), 2);
}

#[test]
fn probes_are_no_guesses_because_they_gain_nothing() {
    let mut lab = Lab::new();
    for guess in 0..1000 {
        let probe = Trailer::without_channel(Command::Probe, REMOTE, Cookie(guess));
        lab.receive(client(1), probe, &[]);
    }
    lab.join(client(1), channel(ASM));
    assert_eq!(lab.server.tunnels().len(), 1);
}
