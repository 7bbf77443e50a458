//! Silence.

use super::*;

fn silent(lab: &mut Lab) -> Vec<(Duration, u32)> {
    let mut seen = Vec::new();
    for _ in 0..2000 {
        let Some(next) = lab.gateway.next_timeout() else { break };
        if next > lab.start + Duration::from_mins(10) {
            break;
        }
        lab.now = next;
        lab.gateway.handle_timeout(next);
        // The relay answers all the while.
        for datagram in lab.sent() {
            if let Ok(Repr::Request { nonce, .. }) = Repr::parse(&datagram) {
                let reply = reply_to(Family::V4, nonce);
                lab.receive(&reply);
            }
        }
        lab.sent();
        for event in std::mem::take(&mut lab.events) {
            if let Event::Silent { silences, .. } = event {
                seen.push((lab.now - lab.start, silences));
            }
        }
    }
    seen
}

#[test]
fn a_channel_of_which_nothing_comes_is_told_after_four_seconds_and_then_ever_later() {
    let mut lab = Lab::joined(Config::default());
    let seen = silent(&mut lab);
    assert_eq!(seen[0], (Duration::from_secs(4), 1));
    for (pair, silences) in seen.windows(2).zip(1..) {
        let longest = (Duration::from_secs(4) * 2_u32.pow(silences)).min(Duration::from_mins(2));
        assert!((Duration::from_secs(4)..=longest).contains(&pair[1].0.abs_diff(pair[0].0)), "{silences}");
        assert_eq!(pair[1].1, silences + 1);
    }
    assert!(seen.len() > 5);
}

#[test]
fn a_silent_relay_is_asked_anew_before_it_is_given_up() {
    let mut lab = Lab::joined(Config::default());
    lab.data(relay(), SOURCE, SSM);
    lab.wait(Duration::from_secs(2));
    lab.sent();
    let mut lab = Lab::joined(Config::default());
    lab.wait(Duration::from_millis(1_999));
    lab.sent();
    lab.wait(Duration::from_millis(1));
    assert_eq!(lab.requests().len(), 1);
    assert!(lab.events().is_empty());
}

#[test]
fn packets_postpone_silence_and_the_first_is_told() {
    let mut lab = Lab::joined(Config::default());
    for _ in 0..20 {
        lab.wait(SECOND);
        lab.sent();
        assert!(lab.data(relay(), SOURCE, SSM));
    }
    let first = Event::FirstData { source: ip(SOURCE), group: ip(SSM) };
    assert_eq!(lab.events(), std::slice::from_ref(&first));
    lab.wait(Duration::from_secs(2));
    lab.sent();
    lab.wait(Duration::from_secs(2));
    lab.sent();
    assert_eq!(lab.events(), [Event::Silent { source: Some(ip(SOURCE)), group: ip(SSM), silences: 1 }]);
    lab.data(relay(), SOURCE, SSM);
    assert_eq!(lab.events(), [first]);
    lab.wait(Duration::from_secs(2));
    lab.sent();
    lab.wait(Duration::from_secs(2));
    lab.sent();
    let again = Event::Silent { source: Some(ip(SOURCE)), group: ip(SSM), silences: 1 };
    assert_eq!(lab.events(), [again], "a packet has ended the row");
}

#[test]
fn each_source_is_watched_and_a_group_with_any_source_as_one() {
    let mut lab = Lab::joined(Config::default());
    lab.join(SSM, &[SOURCE, "192.0.2.11"]);
    lab.gateway.set_filter(ip(ASM), Filter::everything(), lab.now).unwrap();
    lab.sent();
    for _ in 0..6 {
        lab.wait(SECOND);
        lab.data(relay(), SOURCE, SSM);
        lab.data(relay(), "192.0.2.77", ASM);
        lab.sent();
    }
    let silent: Vec<_> = lab.events().into_iter().filter(|event| matches!(event, Event::Silent { .. })).collect();
    let expected = Event::Silent { source: Some(ip("192.0.2.11")), group: ip(SSM), silences: 1 };
    assert_eq!(silent, [expected]);
}

#[test]
fn what_is_left_is_watched_no_more_and_nothing_is_before_the_relay_knows() {
    let mut lab = Lab::new();
    lab.join(SSM, &[SOURCE]);
    assert!(lab.gateway.watches.is_empty());
    lab.answer(1, None);
    assert_eq!(lab.gateway.watches.len(), 1);
    lab.gateway.set_filter(ip(SSM), Filter::nothing(), lab.now).unwrap();
    assert!(lab.gateway.watches.is_empty());
    let sparse = Config { silence_initial: None, ..Config::default() };
    assert!(Lab::joined(sparse).gateway.watches.is_empty(), "a sparse channel is not watched");
}

#[test]
fn the_patience_may_begin_where_another_relay_has_left_it() {
    let mut lab = Lab::joined(Config::default());
    lab.gateway.set_silences(ip(SSM), Some(ip(SOURCE)), 5, lab.now);
    let seen = silent(&mut lab);
    assert!(seen[0].0 >= Duration::from_secs(4) && seen[0].1 == 6);
}
