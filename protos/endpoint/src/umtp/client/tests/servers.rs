//! One server after another.

use super::*;

#[test]
fn nobody_is_asked_before_something_is_joined() {
    let mut lab = Lab::new(2);
    lab.wait(Duration::from_mins(10));
    assert!(lab.sent.is_empty() && lab.events.is_empty());
    assert_eq!(lab.client.next_timeout(), None);
}

#[test]
fn the_first_contact_is_tried_three_times_and_then_the_next_server_is_taken() {
    let mut lab = Lab::new(2);
    lab.client.join(channel(ASM), lab.now);
    lab.wait(millis(2_300));
    let asked: Vec<_> = lab.sent.iter().map(|(at, to, trailer)| (*at, *to, trailer.command)).collect();
    let probe = |at, to| (at, server(to), Command::Probe);
    assert_eq!(asked, [probe(0, 1), probe(500, 1), probe(1_250, 1), probe(2_250, 2)]);
    assert_eq!(lab.events, [Event::ServerLost { server: server(1), reason: LostReason::Unanswered }]);
}

#[test]
fn a_late_answer_is_better_than_none() {
    let mut lab = Lab::new(2);
    lab.client.join(channel(ASM), lab.now);
    lab.wait(millis(2_300));
    lab.answer(server(1), Command::ProbeAck);
    assert_eq!(lab.client.server(), Some(server(1)));
}

#[test]
fn when_the_list_is_exhausted_all_are_asked_until_one_answers() {
    let mut lab = Lab::new(2);
    lab.client.join(channel(ASM), lab.now);
    lab.wait(millis(4_500));
    assert_eq!(lab.events.last(), Some(&Event::NeedServers));
    lab.sent.clear();
    lab.wait(millis(5_600));
    let rounds: Vec<_> = lab.sent.iter().map(|(at, to, _)| (*at, *to)).collect();
    let both = |at| [(at, server(1)), (at, server(2))];
    assert_eq!(rounds, [both(5_000), both(6_000), both(8_000), both(10_000)].concat());
    lab.answer(server(2), Command::ProbeAck);
    assert_eq!(lab.client.server(), Some(server(2)));
}

#[test]
fn a_new_list_is_begun_at_its_head() {
    let mut lab = Lab::new(1);
    lab.client.join(channel(ASM), lab.now);
    lab.wait(millis(3_000));
    lab.sent.clear();
    lab.client.set_servers(vec![server(7), server(8)], lab.now);
    lab.drain();
    assert_eq!(lab.sent.iter().map(|(_, to, _)| *to).collect::<Vec<_>>(), [server(7)]);
}

#[test]
fn a_new_list_never_ends_a_tunnel_that_works() {
    let mut lab = Lab::up(1);
    lab.client.set_servers(vec![server(7)], lab.now);
    lab.wait(millis(100));
    assert_eq!(lab.client.server(), Some(server(1)));
    assert!(lab.sent.is_empty() && lab.events.is_empty());
    lab.answer(server(1), Command::TearDown);
    assert_eq!(lab.sent.last().map(|(_, to, trailer)| (*to, trailer.command)), Some((server(7), Command::Probe)));
}

#[test]
fn a_list_is_cut_to_its_limit_and_names_nobody_twice() {
    let mut lab = Lab::with(Config { servers_max: 2, ..Config::default() }, 0);
    lab.client.set_servers([1, 1, 2, 3].map(server).to_vec(), lab.now);
    assert_eq!(lab.client.servers, [server(1), server(2)]);
}

#[test]
fn a_tear_down_and_a_refusal_lead_to_the_next_server_at_once() {
    let mut lab = Lab::up(3);
    lab.answer(server(1), Command::TearDown);
    assert_eq!(lab.events, [Event::ServerLost { server: server(1), reason: LostReason::TornDown }]);
    lab.answer(server(2), Command::ProbeNack);
    assert_eq!(lab.events[1], Event::ServerLost { server: server(2), reason: LostReason::Refused });
    lab.answer(server(3), Command::ProbeAck);
    assert_eq!(
        lab.events[2..],
        [Event::TunnelUp { server: server(3) }, Event::HandOver { from: server(1), to: server(3) }]
    );
    let joined: Vec<_> = lab.sent.iter().filter(|(.., trailer)| trailer.command == Command::JoinGroup).collect();
    assert_eq!(joined.len(), 1);
}

#[test]
fn the_list_is_a_ring_that_begins_after_the_server_that_was_lost() {
    let mut lab = Lab::up(3);
    lab.answer(server(1), Command::TearDown);
    lab.answer(server(2), Command::ProbeAck);
    lab.answer(server(2), Command::TearDown);
    lab.sent.clear();
    lab.wait(millis(5_500));
    let mut asked: Vec<_> = lab.sent.iter().map(|(_, to, _)| *to).collect();
    asked.dedup();
    assert_eq!(asked[..2], [server(3), server(1)]);
}

#[test]
fn silence_is_answered_by_three_probes_and_a_hand_over_that_leaves_the_old_server() {
    let mut lab = Lab::up(2);
    lab.data(ASM);
    lab.wait(millis(3_500));
    assert_eq!(lab.said(), [2_000, 2_500, 3_000, 3_500].map(|at| (at, Command::Probe)));
    lab.answer(server(2), Command::ProbeAck);
    let to_old: Vec<_> =
        lab.sent.iter().filter(|(_, to, _)| *to == server(1)).map(|(.., trailer)| trailer.command).collect();
    assert_eq!(to_old, [Command::LeaveGroup, Command::TearDown]);
}

#[test]
fn a_server_that_is_used_again_is_no_longer_told_that_it_is_left() {
    let mut lab = Lab::up(2);
    lab.data(ASM);
    lab.wait(millis(3_500));
    lab.answer(server(2), Command::ProbeAck);
    lab.answer(server(2), Command::TearDown);
    lab.answer(server(1), Command::ProbeAck);
    assert_eq!(lab.client.server(), Some(server(1)));
    lab.sent.clear();
    lab.wait(millis(499));
    assert!(lab.sent.is_empty());
}

#[test]
fn the_answer_to_a_probe_keeps_the_server_and_reminds_it_of_the_silent_channel() {
    let mut lab = Lab::up(2);
    lab.data(ASM);
    lab.wait(millis(2_100));
    lab.sent.clear();
    lab.answer(server(1), Command::ProbeAck);
    assert_eq!(lab.commands(), [Command::JoinGroup]);
    lab.wait(millis(1_000));
    assert!(lab.events.iter().all(|event| !matches!(event, Event::ServerLost { .. })));
}

#[test]
fn servers_that_take_us_and_send_us_away_are_not_circled_at_the_speed_of_the_network() {
    let mut lab = Lab::up(2);
    let mut contacts = 0;
    for _ in 0..10_000 {
        if let Some(current) = lab.client.server() {
            lab.answer(current, Command::TearDown);
        }
        lab.wait(millis(10));
        let asked: Vec<_> = std::mem::take(&mut lab.sent);
        for (_, to, trailer) in asked {
            if trailer.command == Command::Probe {
                contacts += 1;
                lab.answer(to, Command::ProbeAck);
            }
        }
    }
    assert!(contacts < 60, "{contacts} contacts in 100 s");
}

#[test]
fn with_nothing_joined_a_lost_server_is_not_replaced() {
    let mut lab = Lab::up(2);
    lab.client.leave(channel(ASM), lab.now);
    lab.answer(server(1), Command::TearDown);
    lab.sent.clear();
    lab.wait(Duration::from_mins(5));
    assert!(lab.sent.is_empty());
    lab.client.join(channel(ASM), lab.now);
    lab.drain();
    assert_eq!(lab.sent[0].1, server(1), "the list from its head");
}
