//! Relay Discovery, Requests, Queries.

use super::*;
use std::collections::BTreeSet;

fn advertise(lab: &mut Lab, from: SocketAddr, nonce: Nonce, relay: &str) {
    let datagram = Repr::Advertisement { nonce, relay: ip(relay) }.to_vec();
    lab.gateway.handle_datagram(lab.now, from, &datagram);
}

fn discovery(lab: &mut Lab) -> Nonce {
    match &lab.sent()[..] {
        [one] => match Repr::parse(one).unwrap() {
            Repr::Discovery { nonce } => nonce,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_sent_before_something_is_wanted() {
    let mut lab = Lab::new();
    assert!(lab.sent().is_empty() && lab.gateway.next_timeout().is_none());
    lab.gateway.connect(Family::V4, lab.now);
    assert_eq!(lab.requests().len(), 1);
}

#[test]
fn a_discovery_is_repeated_with_its_nonce_and_ends_with_the_relay_that_was_advertised() {
    let mut lab = Lab::at(Config::default(), true);
    lab.gateway.connect(Family::V4, lab.now);
    let nonce = discovery(&mut lab);
    assert_ne!(nonce.0, 0);
    assert_eq!(lab.gateway.next_timeout(), Some(lab.now + SECOND));
    lab.wait(SECOND);
    assert_eq!(discovery(&mut lab), nonce);
    advertise(&mut lab, relay(), nonce, "198.51.100.7");
    let known: SocketAddr = "198.51.100.7:2268".parse().unwrap();
    let outputs: Vec<_> = std::iter::from_fn(|| lab.gateway.poll_output()).collect();
    assert_eq!(outputs[0], Output::Event(Event::Advertised { relay: known }));
    assert!(matches!(&outputs[1], Output::Transmit { to, datagram } if *to == known && datagram[0] == 3));
    assert_eq!((outputs.len(), lab.gateway.relay()), (2, Some(known)));
    advertise(&mut lab, relay(), nonce, "198.51.100.8");
    assert_eq!(lab.dropped(Reason::Unasked), 1, "the first counts");
}

#[test]
fn an_advertisement_counts_only_from_where_it_was_asked_with_the_nonce_and_a_unicast_address_of_its_family() {
    let mut lab = Lab::at(Config::default(), true);
    advertise(&mut lab, relay(), Nonce(0), "198.51.100.7");
    assert_eq!(lab.dropped(Reason::Unasked), 1, "nobody has asked yet");
    lab.gateway.connect(Family::V4, lab.now);
    let nonce = discovery(&mut lab);
    advertise(&mut lab, us(2268), nonce, "198.51.100.7");
    advertise(&mut lab, SocketAddr::new(relay().ip(), 2269), nonce, "198.51.100.7");
    advertise(&mut lab, relay(), Nonce(nonce.0 ^ 1), "198.51.100.7");
    for bad in ["2001:db8::7", "239.1.2.3", "0.0.0.0", "255.255.255.255"] {
        advertise(&mut lab, relay(), nonce, bad);
    }
    let dropped = [Reason::Stranger, Reason::WrongNonce, Reason::BadRelay].map(|reason| lab.dropped(reason));
    assert_eq!((dropped, lab.gateway.relay()), ([2, 1, 4], None));
}

#[test]
fn a_request_is_repeated_with_its_nonce_after_a_second_and_then_ever_later_with_other_flags() {
    let mut lab = Lab::new();
    lab.gateway.connect(Family::V6, lab.now);
    let mut sent = lab.requests();
    let mut times = vec![lab.now];
    for _ in 0..9 {
        lab.now = lab.gateway.next_timeout().unwrap();
        lab.gateway.handle_timeout(lab.now);
        sent.extend(lab.requests());
        times.push(lab.now);
    }
    let nonces: BTreeSet<_> = sent.iter().map(|(nonce, _)| *nonce).collect();
    assert_eq!((nonces.len(), sent.len()), (1, 10));
    let flags: Vec<_> = sent.iter().map(|(_, flags)| *flags).collect();
    assert_eq!(flags, [3, 1, 0x80, 3, 1, 0x80, 3, 1, 0x80, 3], "E, as in the RFC, as Linux has it");
    for (tries, pair) in (0..).zip(times.windows(2)) {
        let longest = SECOND * 2_u32.pow(tries).min(120);
        assert!((SECOND..=longest).contains(&(pair[1] - pair[0])), "{tries}");
    }
}

#[test]
fn each_family_is_asked_by_its_own_request_with_the_nonce_of_the_cycle() {
    let mut lab = Lab::new();
    lab.join(SSM, &[SOURCE]);
    lab.join("232.1.2.4", &[SOURCE]);
    lab.join(SSM_V6, &[SOURCE_V6]);
    let requests = lab.requests();
    assert_eq!(requests.iter().map(|(_, flags)| *flags).collect::<Vec<_>>(), [0x02, 0x03]);
    assert_eq!(requests[0].0, requests[1].0);
    for (family, (nonce, _)) in [Family::V4, Family::V6].into_iter().zip(requests) {
        lab.receive(&reply_to(family, nonce));
        lab.sent();
    }
    lab.wait(Duration::from_mins(1));
    let again = lab.requests();
    assert_eq!(again.iter().map(|(_, flags)| *flags).collect::<Vec<_>>(), [0x02, 0x03]);
    assert_eq!(again[0].0, again[1].0);
}

#[test]
fn a_family_that_is_joined_later_takes_the_other_into_its_cycle() {
    let mut lab = Lab::joined(Config::default());
    lab.join(SSM_V6, &[SOURCE_V6]);
    let [(mld, 0x03), (igmp, 0x02)] = lab.requests()[..] else { panic!("both") };
    assert_eq!(mld, igmp, "no Update of IGMP goes out with a MAC that is not the last");
}

#[test]
fn flags_that_were_answered_are_kept_and_tell_the_other_family_about_e() {
    let mut lab = Lab::new();
    lab.join(SSM, &[SOURCE]);
    lab.requests();
    lab.wait(SECOND);
    let [(nonce, 0)] = lab.requests()[..] else { panic!("without E") };
    lab.receive(&reply_to(Family::V4, nonce));
    lab.sent();
    lab.join(SSM_V6, &[SOURCE_V6]);
    let [(nonce, 0x01), (_, 0x00)] = lab.requests()[..] else { panic!("nor E for MLD") };
    lab.receive(&reply_to(Family::V4, nonce));
    lab.receive(&reply_to(Family::V6, nonce));
    lab.sent();
    lab.wait(Duration::from_mins(1));
    let flags: Vec<_> = lab.requests().iter().map(|(_, flags)| *flags).collect();
    assert_eq!(flags, [0x00, 0x01], "the next cycle begins with what was answered");
}

#[test]
fn e_that_was_lost_once_is_said_again_while_the_other_family_has_it() {
    let mut lab = Lab::new();
    lab.join(SSM, &[SOURCE]);
    lab.join(SSM_V6, &[SOURCE_V6]);
    let (nonce, _) = lab.requests()[0];
    lab.receive(&reply_to(Family::V4, nonce));
    lab.sent();
    lab.wait(SECOND);
    let [(nonce, 0x01)] = lab.requests()[..] else { panic!("the Request for MLD was lost") };
    lab.receive(&reply_to(Family::V6, nonce));
    lab.sent();
    lab.wait(Duration::from_mins(1));
    let flags: Vec<_> = lab.requests().iter().map(|(_, flags)| *flags).collect();
    assert_eq!(flags, [0x02, 0x03]);
}

#[test]
fn without_ecn_no_e_is_said() {
    let mut lab = Lab::with(Config { ecn: false, ..Config::default() });
    lab.join(SSM, &[SOURCE]);
    lab.join(SSM_V6, &[SOURCE_V6]);
    assert_eq!(lab.requests().iter().map(|(_, flags)| *flags).collect::<Vec<_>>(), [0x00, 0x01]);
}

#[test]
fn a_relay_that_does_not_answer_is_told_every_four_tries_and_asked_on() {
    let mut lab = Lab::new();
    lab.gateway.connect(Family::V4, lab.now);
    for _ in 0..8 {
        lab.now = lab.gateway.next_timeout().unwrap();
        lab.gateway.handle_timeout(lab.now);
        lab.requests();
    }
    let unanswered = |tries| Event::Unanswered { relay: relay(), tries };
    assert_eq!(lab.events(), [unanswered(4), unanswered(8)]);
}

#[test]
fn a_query_counts_only_as_the_answer_of_the_relay_to_the_request() {
    let mut lab = Lab::new();
    let early = reply_to(Family::V4, Nonce(0));
    lab.receive(&early);
    assert_eq!(lab.dropped(Reason::Unasked), 1);
    lab.join(SSM, &[SOURCE]);
    let (nonce, _) = lab.requests()[0];
    let right = reply_to(Family::V4, nonce);
    let query = general(Family::V4);
    let wrong = [
        (Reply { from: us(2268), ..right.clone() }, Reason::Stranger),
        (Reply { from: SocketAddr::new(relay().ip(), 2269), ..right.clone() }, Reason::Stranger),
        (Reply { nonce: Nonce(nonce.0 ^ 1), ..right.clone() }, Reason::WrongNonce),
        (Reply { query: Query { version: 2, ..query.clone() }, ..right.clone() }, Reason::NotQuery),
        (Reply { query: Query { group: Some(ip(ASM)), ..query.clone() }, ..right.clone() }, Reason::NotQuery),
        (Reply { query: general(Family::V6), source: "fe80::1", ..right.clone() }, Reason::NotQuery),
    ];
    for (reply, reason) in wrong {
        let before = lab.dropped(reason);
        lab.receive(&reply);
        assert_eq!(lab.dropped(reason), before + 1);
        assert!(!lab.gateway.is_connected(Family::V4) && lab.sent().is_empty());
    }
    lab.receive(&Reply { source: "10.9.8.7", ..right.clone() });
    assert!(lab.gateway.is_connected(Family::V4), "whatever the source address inside");
    lab.receive(&right);
    assert_eq!(lab.dropped(Reason::Unasked), 2, "one answer to one question");
}

#[test]
fn an_mld_query_is_taken_from_any_source() {
    for source in ["::", "2001:db8::1", "fe80::1"] {
        let mut lab = Lab::new();
        lab.join(SSM_V6, &[SOURCE_V6]);
        let (nonce, _) = lab.requests()[0];
        let reply = Reply { source, ..reply_to(Family::V6, nonce) };
        lab.receive(&reply);
        assert_eq!(lab.records().len(), 1, "{source}");
    }
}

#[test]
fn a_damaged_or_truncated_query_is_dropped_and_octets_behind_it_are_not_looked_at() {
    let mut lab = Lab::new();
    lab.join(SSM, &[SOURCE]);
    let (nonce, _) = lab.requests()[0];
    let mut inner = emit(&Message::Query(general(Family::V4)), ip("0.0.0.0")).remove(0);
    let query = |packet: &[u8]| {
        let (mac, flags) = (ResponseMac([1; 6]), QueryFlags::NONE);
        Repr::Query { mac, nonce, flags, gateway: None, packet }.to_vec()
    };
    let whole = query(&inner);
    for len in 0..whole.len() {
        lab.gateway.handle_datagram(lab.now, relay(), &whole[..len]);
        let mut damaged = whole.clone();
        damaged[len] ^= 0x20;
        if len >= 12 {
            lab.gateway.handle_datagram(lab.now, relay(), &damaged);
        }
        assert!(!lab.gateway.is_connected(Family::V4), "{len}");
    }
    inner.extend([0xff; 5]);
    lab.gateway.handle_datagram(lab.now, relay(), &query(&inner));
    assert!(lab.gateway.is_connected(Family::V4));
}

#[test]
fn what_only_relays_take_is_ignored() {
    let mut lab = Lab::new();
    let (mac, nonce) = (ResponseMac([1; 6]), Nonce(1));
    for message in [
        Repr::Discovery { nonce },
        Repr::Request { nonce, flags: RequestFlags::IGMP },
        Repr::Update { mac, nonce, packet: &[] },
        Repr::Teardown { mac, nonce, gateway: us(1) },
    ] {
        lab.gateway.handle_datagram(lab.now, relay(), &message.to_vec());
    }
    assert_eq!((lab.dropped(Reason::Unexpected), lab.sent()), (4, vec![]));
    for first in [0x14, 0x96] {
        lab.gateway.handle_datagram(lab.now, relay(), &[first; 40]);
    }
    lab.gateway.handle_datagram(lab.now, relay(), &[0x08; 40]);
    lab.gateway.handle_datagram(lab.now, relay(), &[]);
    let dropped = [Reason::Version, Reason::UnknownType, Reason::Malformed].map(|reason| lab.dropped(reason));
    assert_eq!(dropped, [2, 1, 1]);
}

#[test]
fn the_next_cycle_begins_when_the_relay_says_with_a_new_nonce() {
    let mut lab = Lab::with(Config { silence_initial: None, ..Config::default() });
    lab.join(SSM, &[SOURCE]);
    let first = lab.answer(1, None);
    lab.wait(Duration::from_secs(59));
    lab.sent();
    lab.wait(SECOND);
    let second = lab.answer(2, None);
    assert_ne!(first, second);
    let records = lab.records();
    assert_eq!((records.len(), records[0].0, records[0].1.kind), (1, 2, RecordType::ModeIsInclude));
}

#[test]
fn a_long_query_interval_is_cut_for_the_nat_and_none_at_all_is_the_default() {
    for (told, expected) in [(0, 110), (1, 1), (60, 60), (3600, 110)] {
        let mut lab = Lab::with(Config { silence_initial: None, ..Config::default() });
        lab.gateway.connect(Family::V4, lab.now);
        let (nonce, _) = lab.requests()[0];
        let query = Query { interval: Duration::from_secs(told), ..general(Family::V4) };
        let reply = Reply { query, ..reply_to(Family::V4, nonce) };
        lab.receive(&reply);
        assert_eq!(lab.gateway.next_timeout(), Some(lab.now + Duration::from_secs(expected)));
    }
}

#[test]
fn a_connection_is_the_first_valid_query_without_l_and_nothing_is_reported_by_it() {
    let mut lab = Lab::new();
    lab.gateway.connect(Family::V4, lab.now);
    lab.answer(1, None);
    assert_eq!(lab.events(), [Event::Connected { relay: relay(), family: Family::V4 }]);
    lab.join(SSM, &[SOURCE]);
    assert_eq!(lab.records().len(), 1, "and then it is reported without another Request");
}

#[test]
fn without_groups_the_relay_is_asked_no_more_and_the_mac_is_given_up() {
    let mut lab = Lab::new();
    lab.gateway.connect(Family::V4, lab.now);
    lab.answer(1, None);
    lab.wait(Duration::from_mins(1));
    assert!(lab.sent().is_empty() && !lab.gateway.is_connected(Family::V4));
    lab.join(SSM, &[SOURCE]);
    assert_eq!(lab.requests().len(), 1);
}

#[test]
fn a_full_relay_is_told_and_asked_no_more_by_a_gateway_that_has_nothing_there() {
    let mut lab = Lab::new();
    lab.join(SSM, &[SOURCE]);
    let (nonce, _) = lab.requests()[0];
    let reply = Reply { flags: QueryFlags::LIMIT, ..reply_to(Family::V4, nonce) };
    lab.receive(&reply);
    assert_eq!(lab.events(), [Event::Limited { relay: relay(), in_use: false }]);
    lab.wait(Duration::from_mins(10));
    assert!(lab.sent().is_empty(), "no report and no Request");
}

#[test]
fn a_gateway_with_groups_stays_at_a_relay_that_has_become_full() {
    let mut lab = Lab::joined(Config { silence_initial: None, ..Config::default() });
    lab.wait(SECOND);
    lab.wait(Duration::from_secs(59));
    let (nonce, _) = lab.requests()[0];
    let reply = Reply { flags: QueryFlags::LIMIT, mac: 2, ..reply_to(Family::V4, nonce) };
    lab.receive(&reply);
    assert_eq!(lab.records().len(), 1);
    assert_eq!(lab.events(), [Event::Limited { relay: relay(), in_use: true }]);
    lab.wait(Duration::from_mins(1));
    assert_eq!(lab.requests().len(), 1);
}

#[test]
fn an_unreachable_starts_a_new_cycle_once_something_was_reported() {
    let mut lab = Lab::new();
    lab.join(SSM, &[SOURCE]);
    lab.requests();
    lab.gateway.handle_unreachable(lab.now);
    assert!(lab.sent().is_empty(), "a Request is repeated anyway");
    let mut lab = Lab::joined(Config::default());
    lab.gateway.handle_unreachable(lab.now);
    assert_eq!(lab.requests().len(), 1);
    lab.gateway.handle_unreachable(lab.now);
    assert!(lab.sent().is_empty());
}
