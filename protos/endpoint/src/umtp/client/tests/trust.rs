//! Whom the client believes.

use super::*;

#[test]
fn an_unsolicited_probe_ack_with_our_cookie_teaches_the_new_one_and_all_joins_are_sent_again_at_once() {
    let mut lab = Lab::up(1);
    lab.client.join(channel(SSM), lab.now);
    lab.data(ASM);
    lab.wait(millis(1_200));
    lab.sent.clear();
    let renewed =
        Trailer { source_cookie: Cookie(77), ..lab.trailer(server(1), Command::ProbeAck, Channel::UNSPECIFIED) };
    lab.receive(server(1), renewed);
    let joins: Vec<_> =
        lab.sent.iter().map(|(_, _, trailer)| (trailer.command, trailer.channel, trailer.destination_cookie)).collect();
    let join = |text| (Command::JoinGroup, channel(text), Cookie(77));
    assert_eq!(joins, [join(SSM), join(ASM)]);
}

#[test]
fn joins_are_sent_again_once_a_second_at_most_so_that_two_peers_never_keep_each_other_busy() {
    let mut lab = Lab::up(1);
    let mut joins = 0;
    for cookie in 0..1_000 {
        lab.data(ASM);
        let renewed = Trailer {
            source_cookie: Cookie(cookie),
            ..lab.trailer(server(1), Command::ProbeAck, Channel::UNSPECIFIED)
        };
        lab.receive(server(1), renewed);
        lab.wait(millis(10));
        joins += lab.commands().into_iter().filter(|command| *command == Command::JoinGroup).count();
    }
    assert!((10..=25).contains(&joins), "{joins} joins in 10 s");
}

#[test]
fn what_does_not_come_from_the_server_with_our_cookie_has_no_effect() {
    let mut lab = Lab::up(2);
    lab.data(ASM);
    lab.wait(millis(2_000));
    lab.sent.clear();
    let right = lab.client.local_cookie(server(1));
    let commands = [
        Command::Data,
        Command::TearDown,
        Command::ProbeAck,
        Command::ProbeNack,
        Command::JoinGroup,
        Command::LeaveGroup,
        Command::Unknown(15),
    ];
    let same_address = SocketAddrV4::new(*server(1).ip(), 1);
    for command in commands {
        for from in [same_address, server(2), server(9)] {
            let stolen = Trailer { destination_cookie: right, ..lab.trailer(from, command, channel(ASM)) };
            assert!(!lab.receive(from, stolen));
        }
        let guessed = Trailer {
            destination_cookie: Cookie(!right.0),
            source_cookie: Cookie(666),
            ..lab.trailer(server(1), command, channel(ASM))
        };
        assert!(!lab.receive(server(1), guessed));
    }
    assert_eq!(lab.client.server(), Some(server(1)));
    // The one thing that is said is what the server would need to know: our cookie, once a second.
    assert_eq!(lab.commands(), [Command::ProbeAck]);
    lab.client.join(channel(SSM), lab.now);
    lab.drain();
    assert_eq!(lab.sent[0].2.destination_cookie, REMOTE, "and nothing was learned");
}

#[test]
fn a_server_that_is_being_asked_is_believed_only_with_our_cookie() {
    let mut lab = Lab::new(2);
    lab.client.join(channel(ASM), lab.now);
    lab.drain();
    for command in [Command::ProbeAck, Command::ProbeNack, Command::TearDown] {
        let right = lab.trailer(server(1), command, Channel::UNSPECIFIED);
        lab.receive(server(1), Trailer { destination_cookie: Cookie(!right.destination_cookie.0), ..right });
        lab.receive(server(2), lab.trailer(server(2), command, Channel::UNSPECIFIED));
    }
    assert!(lab.events.is_empty());
    assert_eq!(lab.client.counters().drops.of(Reason::WrongCookie), 3);
    assert_eq!(lab.client.counters().drops.of(Reason::Stranger), 3);
}

#[test]
fn a_refusal_counts_only_after_a_probe() {
    let mut lab = Lab::up(2);
    lab.data(ASM);
    lab.client.handle_timeout(lab.now + Duration::from_secs(1));
    lab.now += Duration::from_secs(5);
    // No deadline was served since: nothing was asked for five seconds.
    lab.answer(server(1), Command::ProbeNack);
    assert_eq!(lab.client.server(), Some(server(1)));
    lab.client.handle_timeout(lab.now);
    lab.answer(server(1), Command::ProbeNack);
    assert_eq!(lab.client.server(), None);
}

#[test]
fn our_cookies_differ_from_server_to_server_and_from_client_to_client() {
    let lab = Lab::new(0);
    assert_ne!(lab.client.local_cookie(server(1)), lab.client.local_cookie(server(2)));
    let other = Client::new(Config::default(), vec![], [8; 16], lab.now);
    assert_ne!(lab.client.local_cookie(server(1)), other.local_cookie(server(1)));
}

#[test]
fn a_probe_of_the_server_is_answered_and_its_cookie_learned() {
    let mut lab = Lab::up(1);
    let probe = Trailer { source_cookie: Cookie(77), ..lab.trailer(server(1), Command::Probe, Channel::UNSPECIFIED) };
    lab.receive(server(1), probe);
    let expected = Trailer::without_channel(Command::ProbeAck, lab.client.local_cookie(server(1)), Cookie(77));
    assert_eq!(lab.sent, [(0, server(1), Trailer { ttl: 9, ..expected })]);
}

#[test]
fn a_probe_of_a_stranger_is_refused_with_swapped_cookies_once_a_second() {
    let mut lab = Lab::up(1);
    let stranger = server(9);
    for _ in 0..3 {
        lab.receive(stranger, Trailer::without_channel(Command::Probe, Cookie(914), Cookie(2207)));
        lab.receive(stranger, Trailer::without_channel(Command::TearDown, Cookie(914), Cookie(2207)));
    }
    let refusal = Trailer::without_channel(Command::ProbeNack, Cookie(2207), Cookie(914));
    assert_eq!(lab.sent, [(0, stranger, refusal)]);
    assert_eq!(lab.client.counters().drops.of(Reason::Stranger), 6);
}

#[test]
fn options_before_an_answer_are_ignored_and_flow_data_is_not_taken() {
    let mut lab = Lab::new(1);
    lab.client.join(channel(ASM), lab.now);
    let ack = lab.trailer(server(1), Command::ProbeAck, Channel::UNSPECIFIED);
    let with_options = datagram(&ack, b"\x00\x01\x00\x02\x11\x69\x00\x02\x00\x00\x00\x00\x00\x00");
    lab.client.handle_datagram(lab.now, server(1), &with_options);
    assert_eq!(lab.client.server(), Some(server(1)));
    assert!(lab.client.handle_datagram(lab.now, server(1), b"hi\x4a\x21\x7e\x0c").is_none());
    assert_eq!(lab.client.counters().drops.of(Reason::Malformed), 1);
}

#[test]
fn after_the_end_nothing_is_taken_and_nothing_is_said_but_the_farewell() {
    let mut lab = Lab::up(1);
    lab.client.shut_down(lab.now);
    assert!(!lab.data(ASM));
    lab.client.join(channel(SSM), lab.now);
    lab.receive(server(9), Trailer::without_channel(Command::Probe, Cookie(1), Cookie(2)));
    lab.wait(Duration::from_mins(1));
    let farewell = [Command::LeaveGroup, Command::TearDown];
    assert_eq!(lab.commands(), [farewell, farewell, farewell].concat());
    assert!(lab.client.is_finished());
    assert_eq!(lab.client.next_timeout(), None);
}
