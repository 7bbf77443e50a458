//! Parents that fail, refuse, vanish and come back.

use super::*;

#[test]
fn a_walk_that_fails_leaves_us_where_we_are_registered() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    lab.knows(ROOT, &[ISP], 8);
    lab.round();
    lab.silent.insert(ROOT.to_owned());
    let mut refreshed = 0;
    for _ in 0..100 {
        lab.pass();
        refreshed += lab.round().iter().filter(|call| call.contains("REGISTER")).count();
        assert_eq!(lab.standings(), [Standing::Registered]);
    }
    assert!(refreshed > 5, "{refreshed}");
}

#[test]
fn a_parent_that_vanished_is_left_when_it_fails() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    lab.knows(ROOT, &[ISP, OTHER_ISP], 8);
    lab.round();
    lab.knows(ROOT, &[ISP], 8);
    lab.until_walk();
    assert_eq!(lab.standings(), [Standing::Registered, Standing::Registered], "it takes our word still");
    lab.silent.insert(OTHER_ISP.to_owned());
    while lab.standings().len() > 1 {
        lab.pass();
        let calls = lab.round();
        assert!(
            calls.iter().all(|call| !call.contains("BYE")),
            "it may be back just then, and we are not off-line: {calls:?}"
        );
    }
    assert!(lab.walks < 2, "before the next walk");
    assert_eq!(lab.registrar.statuses().next().unwrap().parent.to_string(), ISP);
}

#[test]
fn a_parent_that_is_left_hears_all_networks_of_an_entry_to_the_end() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16", "10.2.0.0/16"])]);
    lab.knows(ROOT, &[ISP, OTHER_ISP], 8);
    lab.round();
    lab.knows(ROOT, &[ISP], 8);
    // One of the networks finds it missing a little earlier than the other.
    lab.until_walk();
    lab.silent.insert(OTHER_ISP.to_owned());
    let mut told = 0;
    while lab.standings().len() > 1 {
        lab.pass();
        for call in lab.networks().into_iter().filter(|call| call.starts_with(OTHER_ISP)) {
            assert_eq!(call, format!("{OTHER_ISP} 10.1.0.0/16,10.2.0.0/16"));
            told += 1;
        }
    }
    assert!(told > 5, "{told}");
}

#[test]
fn a_parent_that_vanished_for_three_updates_is_told_goodbye() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    lab.knows(ROOT, &[ISP], 8);
    lab.round();
    lab.knows(ROOT, &[OTHER_ISP], 8);
    let first = lab.until_walk();
    assert!(first.iter().all(|call| !call.contains("BYE")), "{first:?}");
    let second = lab.until_walk();
    assert!(
        second.contains(&format!("{ISP} ACTION=BYE&TYPE=TS&SOURCE=127.0.2.1&PORT=10100&PROTOCOL=UDP")),
        "{second:?}"
    );
    assert_eq!(lab.standings(), [Standing::Registered]);
}

#[test]
fn a_parent_that_is_back_at_the_next_walk_was_never_left() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    lab.knows(ROOT, &[ISP], 8);
    lab.round();
    for _ in 0..3 {
        // The root lost its memory: at this walk it knows nobody.
        lab.knows(ROOT, &[], 0);
        let lost = lab.until_walk();
        lab.knows(ROOT, &[ISP], 8);
        let back = lab.until_walk();
        assert!(lost.iter().chain(&back).all(|call| !call.starts_with(&format!("{ISP} ACTION=BYE"))));
    }
}

#[test]
fn walks_that_follow_one_another_quickly_make_us_leave_nobody() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    lab.knows(ROOT, &[ISP, OTHER_ISP], 8);
    lab.round();
    // One parent is silent, so that we look for another every minute; the root was cut off and forgot the other one.
    lab.silent.insert(ISP.to_owned());
    lab.knows(ROOT, &[ISP], 8);
    let begin = lab.now;
    let mut walks = 0;
    while walks < 3 {
        let calls = lab.until_walk();
        assert!(calls.iter().all(|call| !call.contains("BYE")), "{calls:?}");
        walks += 1;
    }
    assert!((lab.now - begin).as_secs() < 2 * 300 + 3 * 60, "{:?}", lab.now - begin);
    lab.knows(ROOT, &[ISP, OTHER_ISP], 8);
    assert!(lab.until_walk().iter().all(|call| !call.contains("BYE")));
}

#[test]
fn a_parent_that_is_silent_makes_us_look_for_another_within_a_minute() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    lab.knows(ROOT, &[ISP], 8);
    lab.round();
    lab.silent.insert(ISP.to_owned());
    lab.knows(ROOT, &[OTHER_ISP], 8);
    let begin = lab.now;
    while !lab.round().iter().any(|call| call.starts_with(OTHER_ISP)) {
        lab.pass();
    }
    assert!((lab.now - begin).as_secs() < 330 + 61);
}

#[test]
fn a_parent_that_refuses_makes_us_look_for_where_we_belong_with_growing_waits() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    // Everything starts at once: the root does not know the ISP yet, and has no account for us.
    lab.refuses.insert(ROOT.to_owned());
    assert!(lab.round().iter().all(|call| call.starts_with(ROOT)));
    let mut waits = Vec::new();
    for _ in 0..8 {
        let begin = lab.now;
        lab.until_walk();
        waits.push((lab.now - begin).as_secs());
    }
    assert!(waits.is_sorted() && waits[0] <= 2 && waits[7] == 60, "{waits:?}");
    lab.knows(ROOT, &[ISP], 8);
    let calls = lab.until_walk();
    assert!(calls.iter().any(|call| call.starts_with(&format!("{ISP} ACTION=REGISTER"))), "{calls:?}");
    while lab.standings().len() > 1 {
        lab.pass();
        lab.round();
    }
    assert_eq!(lab.standings(), [Standing::Registered], "and the root is left in peace");
    let begin = lab.now;
    lab.until_walk();
    assert!((lab.now - begin).as_secs() > 4 * 300 * 8 / 10, "the next walk is that of the fourth update");
}

#[test]
fn a_parent_that_says_when_to_come_again_is_not_left() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    lab.knows(ROOT, &[ISP, OTHER_ISP], 8);
    lab.round();
    // It was cut off, its parents forgot it, and it takes over from its peers.
    lab.knows(ROOT, &[ISP], 8);
    lab.busy.insert(OTHER_ISP.to_owned());
    lab.until_walk();
    for _ in 0..20 {
        let calls = lab.round();
        assert!(calls.iter().all(|call| !call.contains("BYE")), "{calls:?}");
        lab.pass();
    }
    assert_eq!(lab.standings().len(), 2);
}

#[test]
fn a_parent_that_is_back_is_not_left_because_those_above_it_do_not_know_it_yet() {
    // It comes back around the time of the third update that it misses.
    for missed in (800..900).step_by(4) {
        let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
        lab.knows(ROOT, &[ISP, OTHER_ISP], 8);
        lab.round();
        lab.knows(ROOT, &[ISP], 8);
        lab.silent.insert(OTHER_ISP.to_owned());
        lab.until_walk();
        let begin = lab.now;
        while (lab.now - begin).as_secs() < missed {
            lab.pass();
            lab.round();
        }
        lab.silent.clear();
        // It takes our word while we are still told that it is missing.
        lab.answers_first = true;
        let calls = lab.until_walk();
        assert!(calls.iter().all(|call| !call.contains("BYE")), "{missed}: {calls:?}");
    }
}

#[test]
fn when_one_network_leads_to_a_new_parent_it_is_told_all_that_lead_there_in_one_request() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16", "10.2.0.0/16"])]);
    lab.knows(ROOT, &[ISP], 8);
    lab.round();
    lab.knows(ROOT, &[ISP, OTHER_ISP], 8);
    let mut told = Vec::new();
    while told.is_empty() {
        lab.pass();
        told = lab.networks();
        told.retain(|call| call.starts_with(OTHER_ISP));
    }
    assert_eq!(told, [format!("{OTHER_ISP} 10.1.0.0/16,10.2.0.0/16")], "the first word already");
}
