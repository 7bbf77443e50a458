//! A registrar that finds its parents in a hierarchy that is a table, under a clock that we turn.

use std::collections::{BTreeMap, BTreeSet};

use castgate_wire::registry::{Protocol, Request, Scheme, Server};

use super::super::{Call, Outcome, Registrar};
use super::*;
use crate::hierarchy::discovery::Role;

const ROOT: &str = "127.0.4.1:5632";
const COUNTRY: &str = "127.0.5.1:5632";
const ISP: &str = "127.0.6.1:5632";
const OTHER_ISP: &str = "127.0.6.2:5632";
const OWN: &str = "192.0.2.9:5632";

#[test]
fn a_server_that_knows_the_root_and_its_network_is_registered_at_every_database_of_its_isp() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    lab.knows(ROOT, &[COUNTRY], 0);
    lab.knows(COUNTRY, &[ISP, OTHER_ISP], 8);
    assert_eq!(
        lab.round(),
        [
            "127.0.6.1:5632 ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.1&PORT=10100&PROTOCOL=UDP&NETWORKS=10.1.0.0/16&COUNTRY=BE",
            "127.0.6.2:5632 ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.1&PORT=10100&PROTOCOL=UDP&NETWORKS=10.1.0.0/16&COUNTRY=BE",
        ]
    );
    assert_eq!(lab.standings(), [Standing::Registered, Standing::Registered]);
}

#[test]
fn each_parent_is_sent_the_networks_that_led_to_it_in_one_request() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16", "10.2.0.0/16", "172.16.0.0/16", "0.0.0.0/0"])]);
    lab.knows(ROOT, &[COUNTRY], 0);
    lab.knows_network(COUNTRY, "10.0.0.0/8", &[ISP]);
    lab.knows_network(COUNTRY, "172.16.0.0/12", &[OTHER_ISP]);
    assert_eq!(
        lab.networks(),
        ["127.0.5.1:5632 0.0.0.0/0", "127.0.6.1:5632 10.1.0.0/16,10.2.0.0/16", "127.0.6.2:5632 172.16.0.0/16"]
    );
}

#[test]
fn an_entry_without_networks_follows_its_country() {
    let mut lab = Lab::new(&[server(&[])]);
    lab.knows(ROOT, &[COUNTRY], 0);
    assert_eq!(lab.networks(), ["127.0.5.1:5632 "]);
}

#[test]
fn one_network_that_finds_nobody_holds_up_no_other() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16", "172.16.0.0/16"])]);
    lab.knows_network(ROOT, "10.0.0.0/8", &[ISP]);
    lab.knows_network(ROOT, "172.16.0.0/12", &[OTHER_ISP]);
    lab.silent.insert(OTHER_ISP.to_owned());
    assert_eq!(lab.networks(), ["127.0.6.1:5632 10.1.0.0/16"]);
    let lost = lab.registrar.statuses().find(|status| status.failures == 1).unwrap();
    assert_eq!((lost.parent.to_string(), lost.standing), (ROOT.to_owned(), Standing::Trying));
    assert_eq!(
        lost.error,
        Some("no database to register with was found after 2 questions; the last, 127.0.6.2:5632: connection refused")
    );
}

#[test]
fn a_search_that_fails_is_tried_again_with_growing_waits_up_to_a_minute() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    lab.silent.insert(ROOT.to_owned());
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert!(lab.round().is_empty());
        waits.push(lab.wait().as_secs());
        lab.pass();
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    lab.silent.clear();
    assert_eq!(lab.round().len(), 1);
    assert_eq!(lab.standings(), [Standing::Registered]);
}

#[test]
fn a_new_peer_of_a_parent_is_told_at_the_fourth_update_and_the_root_is_not_asked_again() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    lab.knows(ROOT, &[COUNTRY], 0);
    lab.knows(COUNTRY, &[ISP], 8);
    lab.round();
    lab.knows(COUNTRY, &[ISP, OTHER_ISP], 8);
    lab.asked.clear();
    let begin = lab.now;
    let mut updates = 0;
    let told = loop {
        lab.pass();
        let calls = lab.round();
        updates += calls.iter().filter(|call| call.starts_with(ISP)).count();
        if calls.iter().any(|call| call.starts_with(OTHER_ISP)) {
            break lab.now - begin;
        }
    };
    assert!((3..=5).contains(&updates), "{updates}");
    assert!((1_080..=1_320).contains(&told.as_secs()), "{told:?}");
    assert!(!lab.asked.contains(&ROOT.to_owned()) && lab.asked[0] == COUNTRY, "{:?}", lab.asked);
}

#[test]
fn the_interval_that_a_parent_names_is_the_one_that_counts() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    lab.knows(ROOT, &[ISP], 8);
    lab.interval = Some(Duration::from_secs(10));
    lab.round();
    lab.knows(ROOT, &[ISP, OTHER_ISP], 8);
    let begin = lab.now;
    while !lab.round().iter().any(|call| call.starts_with(OTHER_ISP)) {
        lab.pass();
    }
    let told = lab.now - begin;
    assert!((36..=44).contains(&told.as_secs()), "{told:?}");
}

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

#[test]
fn a_database_with_peers_is_announced_when_it_holds_what_they_hold() {
    let mut lab = Lab::new(&[database(&["10.0.0.0/8"])]);
    lab.knows(ROOT, &[ISP], 8);
    assert!(lab.round().is_empty());
    assert_eq!(lab.registrar.peers(), [ISP.parse().unwrap()]);
    let status = lab.registrar.statuses().next().unwrap();
    assert_eq!((status.parent.to_string(), status.standing), (ROOT.to_owned(), Standing::Trying));
    assert_eq!(status.error, Some("waits for the entries of its peers 127.0.6.1:5632"));
    assert_eq!(lab.wait(), Duration::from_mins(1), "peers that are gone are not waited for longer");

    lab.registrar.set_synchronised(lab.now, true);
    assert_eq!(
        lab.round(),
        ["127.0.4.1:5632 ACTION=REGISTER&TYPE=TDS&SOURCE=192.0.2.9&PORT=5632&NETWORKS=10.0.0.0/8&COUNTRY=BE"]
    );

    // Another peer comes: it takes over from us, and we stay.
    lab.knows(ROOT, &[ISP, OTHER_ISP], 8);
    lab.until_walk();
    assert_eq!(lab.registrar.peers().len(), 2);
    assert_eq!(lab.standings(), [Standing::Registered]);
    lab.registrar.set_synchronised(lab.now, false);
    lab.until_walk();
    assert_eq!(lab.standings(), [Standing::Registered]);
}

#[test]
fn a_database_whose_peers_are_gone_waits_no_longer() {
    let mut lab = Lab::new(&[database(&["10.0.0.0/8"])]);
    lab.knows(ROOT, &[ISP], 8);
    lab.round();
    lab.knows(ROOT, &[], 0);
    lab.pass();
    assert_eq!(lab.round().len(), 1);
    assert!(lab.registrar.peers().is_empty());
    assert_eq!(lab.standings(), [Standing::Registered]);
}

#[test]
fn other_peers_make_synchronised_a_word_of_the_past() {
    let mut lab = Lab::new(&[database(&["10.0.0.0/8"])]);
    lab.registrar.set_synchronised(lab.now, true);
    lab.knows(ROOT, &[ISP], 8);
    assert!(lab.round().is_empty(), "what was said of no peers does not hold for these");
}

#[test]
fn networks_without_peers_are_announced_while_the_others_wait() {
    let mut lab = Lab::new(&[database(&["10.0.0.0/8", "172.16.0.0/12"])]);
    lab.knows_network(ROOT, "10.0.0.0/8", &[ISP]);
    assert_eq!(lab.networks(), ["127.0.4.1:5632 172.16.0.0/12"]);
    lab.registrar.set_synchronised(lab.now, true);
    assert_eq!(lab.networks(), ["127.0.4.1:5632 10.0.0.0/8,172.16.0.0/12"]);
}

#[test]
fn what_is_registered_already_is_refreshed_while_the_peers_are_waited_for() {
    let mut lab = Lab::new(&[database(&["10.0.0.0/8"])]);
    lab.knows(ROOT, &[ISP], 8);
    let named =
        Parent { address: ROOT.parse().unwrap(), login: "be".to_owned(), password: "s3cret".to_owned(), ca: None };
    lab.registrar.set(Config::default(), &[database(&["10.0.0.0/8"])], &[named], lab.now);
    lab.round();
    lab.registrar.set_discovering(Config::default(), &[database(&["10.0.0.0/8"])], discovery(), lab.now);
    let mut calls = lab.round();
    for _ in 0..10 {
        lab.pass();
        calls.extend(lab.round());
    }
    assert_eq!(lab.registrar.peers(), [ISP.parse().unwrap()]);
    assert!(calls.iter().filter(|call| call.contains("ACTION=REGISTER")).count() > 1, "{calls:?}");
    assert_eq!(lab.standings(), [Standing::Registered]);
}

#[test]
fn a_database_that_somebody_else_runs_does_not_wait() {
    let mut lab = Lab::new(&[database(&["10.0.0.0/8"])]);
    lab.knows(ROOT, &[ISP], 8);
    let discovery = Discovery { waits_for_peers: false, ..discovery() };
    lab.registrar.set_discovering(Config::default(), &[database(&["10.0.0.0/8"])], discovery, lab.now);
    assert_eq!(lab.round().len(), 1);
}

#[test]
fn at_the_end_everybody_is_told_goodbye_and_replies_are_too_late() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    lab.knows(ROOT, &[ISP, OTHER_ISP], 8);
    lab.round();
    lab.registrar.shut_down(lab.now);
    let byes = lab.round();
    assert!(byes.len() == 2 && byes.iter().all(|call| call.contains("ACTION=BYE")), "{byes:?}");
    assert!(lab.registrar.is_finished() && lab.registrar.next_timeout().is_none());

    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    let question = lab.registrar.poll_question().unwrap();
    lab.registrar.shut_down(lab.now);
    lab.registrar.handle_reply(lab.now, question.id, Reply::Databases(Ok(Vec::new())));
    assert!(lab.registrar.is_finished() && lab.registrar.poll_call().is_none());
}

#[test]
fn a_network_that_is_taken_away_is_taken_back_and_the_others_stay() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16", "10.2.0.0/16", "172.16.0.0/16"])]);
    lab.knows_network(ROOT, "10.0.0.0/8", &[ISP]);
    lab.knows_network(ROOT, "172.16.0.0/12", &[OTHER_ISP]);
    lab.round();
    lab.asked.clear();
    lab.registrar.set_discovering(Config::default(), &[server(&["10.1.0.0/16"])], discovery(), lab.now);
    let calls = lab.round();
    assert_eq!(
        calls,
        [
            "127.0.6.1:5632 ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.1&PORT=10100&PROTOCOL=UDP&NETWORKS=10.1.0.0/16&COUNTRY=BE",
            "127.0.6.2:5632 ACTION=BYE&TYPE=TS&SOURCE=127.0.2.1&PORT=10100&PROTOCOL=UDP",
        ]
    );
    assert!(lab.asked.is_empty(), "what was found is not searched again");
}

#[test]
fn other_roots_are_asked_at_once_and_what_they_say_counts() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    lab.knows(ROOT, &[ISP], 8);
    lab.round();
    lab.knows(COUNTRY, &[ISP, OTHER_ISP], 8);
    let moved = Discovery { roots: vec![COUNTRY.parse().unwrap()], ..discovery() };
    lab.registrar.set_discovering(Config::default(), &[server(&["10.1.0.0/16"])], moved, lab.now);
    let calls = lab.round();
    assert!(calls.len() == 1 && calls[0].starts_with(OTHER_ISP), "{calls:?}");
}

#[test]
fn from_discovery_to_named_parents_and_back() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    lab.knows(ROOT, &[ISP], 8);
    lab.round();
    let parent =
        Parent { address: COUNTRY.parse().unwrap(), login: "be".to_owned(), password: "x".to_owned(), ca: None };
    lab.registrar.set(Config::default(), &[server(&["10.1.0.0/16"])], &[parent], lab.now);
    let calls = lab.round();
    assert!(calls[0].starts_with(COUNTRY) && calls[1].starts_with(&format!("{ISP} ACTION=BYE")), "{calls:?}");
    lab.registrar.set_discovering(Config::default(), &[server(&["10.1.0.0/16"])], discovery(), lab.now);
    assert!(lab.round().iter().any(|call| call.starts_with(&format!("{ISP} ACTION=REGISTER"))));
}

#[test]
fn few_walks_are_under_way_at_one_time_and_all_have_their_turn() {
    let networks: Vec<String> = (1..=20).map(|number| format!("10.{number}.0.0/16")).collect();
    let networks: Vec<&str> = networks.iter().map(String::as_str).collect();
    let mut lab = Lab::new(&[server(&networks)]);
    lab.knows(ROOT, &[ISP], 8);
    let first: Vec<Question> = std::iter::from_fn(|| lab.registrar.poll_question()).collect();
    assert_eq!(first.len(), WALKS_MAX);
    for question in first {
        lab.reply(question);
    }
    let told = lab.networks();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].split(',').count(), 20);
}

#[test]
fn a_password_of_discovery_is_not_shown() {
    let mut lab = Lab::new(&[server(&["10.1.0.0/16"])]);
    lab.knows(ROOT, &[ISP], 8);
    lab.round();
    let shown = format!("{:?} {:?}", lab.registrar, discovery());
    assert!(shown.contains("127.0.6.1") && !shown.contains("s3cret"));
}

/// For which network, which databases, and by what length they are found.
type Row = (Option<Prefix>, Vec<String>, u8);

struct Lab {
    now: Instant,
    registrar: Registrar,
    /// Who names whom for which networks; without one it is by country.
    table: BTreeMap<String, Vec<Row>>,
    silent: BTreeSet<String>,
    /// Who has no account for us.
    refuses: BTreeSet<String>,
    /// Who says when to come again.
    busy: BTreeSet<String>,
    /// Whether parents answer before those who are asked for the way.
    answers_first: bool,
    /// What parents answer to a REGISTER.
    interval: Option<Duration>,
    asked: Vec<String>,
    walks: usize,
}

impl Lab {
    fn new(entries: &[Register]) -> Self {
        let now = Instant::now();
        let registrar = Registrar::discovering(Config::default(), entries, discovery(), 7, now);
        Self {
            now,
            registrar,
            table: BTreeMap::new(),
            silent: BTreeSet::new(),
            refuses: BTreeSet::new(),
            busy: BTreeSet::new(),
            answers_first: false,
            interval: None,
            asked: Vec::new(),
            walks: 0,
        }
    }

    fn knows(&mut self, who: &str, below: &[&str], matched: u8) {
        let below = below.iter().map(|text| (*text).to_owned()).collect();
        self.table.insert(who.to_owned(), vec![(None, below, matched)]);
    }

    fn knows_network(&mut self, who: &str, network: &str, below: &[&str]) {
        let network: Prefix = network.parse().unwrap();
        let below = below.iter().map(|text| (*text).to_owned()).collect();
        self.table.entry(who.to_owned()).or_default().push((Some(network), below, network.prefix_len()));
    }

    /// Answers every question and every call until there are none; returns the calls, in the order of parents.
    fn round(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let question = if self.answers_first { None } else { self.registrar.poll_question() };
            if let Some(question) = question {
                self.reply(question);
            } else if let Some(Call { id, parent, authority, request }) = self.registrar.poll_call() {
                let parent = parent.address.to_string();
                assert_eq!(parent, authority);
                let outcome = if self.silent.contains(&parent) {
                    Outcome::Unreachable { sentence: "connection refused".to_owned() }
                } else if self.refuses.contains(&parent) {
                    Outcome::Refused { sentence: "401".to_owned(), retry_after: None }
                } else if self.busy.contains(&parent) {
                    let retry_after = Some(Duration::from_secs(1));
                    Outcome::Refused { sentence: "503".to_owned(), retry_after }
                } else {
                    Outcome::Done { interval: self.interval }
                };
                told.push(format!("{parent} {}", request.emit()));
                self.registrar.handle_outcome(self.now, id, outcome);
            } else if let Some(question) = self.registrar.poll_question() {
                self.reply(question);
            } else {
                told.sort();
                return told;
            }
        }
    }

    fn reply(&mut self, Question { id, lookup }: Question) {
        let Lookup::Databases(ask) = lookup else { panic!("the roots are addresses") };
        let asked = ask.address.to_string();
        let pairs = ask.target.split_once('?').unwrap().1;
        let Ok((Request::Query(query), None)) = Request::parse(pairs) else { panic!("{pairs}") };
        let result = if self.silent.contains(&asked) {
            Err("connection refused".to_owned())
        } else {
            let rows = self.table.get(&asked).map(Vec::as_slice).unwrap_or_default();
            let range = query.network.unwrap();
            let found = rows.iter().find(|(network, ..)| network.is_none_or(|network| network.contains(&range)));
            let (below, matched) = found.map(|(_, below, matched)| (&below[..], *matched)).unwrap_or_default();
            Ok(below.iter().map(|text| named(text, matched)).collect())
        };
        self.asked.push(asked);
        self.registrar.handle_reply(self.now, id, Reply::Databases(result));
    }

    /// The networks that each parent was told in this round.
    fn networks(&mut self) -> Vec<String> {
        let of = |call: &String| {
            let (parent, pairs) = call.split_once(' ').unwrap();
            let networks = pairs.split('&').find_map(|pair| pair.strip_prefix("NETWORKS="));
            format!("{parent} {}", networks.unwrap_or_default())
        };
        self.round().iter().map(of).collect()
    }

    /// Lets time pass until somebody was asked; returns the calls of that time.
    fn until_walk(&mut self) -> Vec<String> {
        self.asked.clear();
        let mut calls = Vec::new();
        while self.asked.is_empty() {
            self.pass();
            calls.extend(self.round());
        }
        self.walks += 1;
        calls
    }

    fn standings(&self) -> Vec<Standing> {
        self.registrar.statuses().map(|status| status.standing).collect()
    }

    fn wait(&self) -> Duration {
        self.registrar.next_timeout().expect("something is planned") - self.now
    }

    fn pass(&mut self) {
        self.now = self.registrar.next_timeout().expect("something is planned");
        self.registrar.handle_timeout(self.now);
    }
}

fn named(text: &str, matched: u8) -> Server {
    let address: SocketAddr = text.parse().unwrap();
    Server {
        address: address.ip(),
        port: address.port(),
        entry_type: EntryType::TunnelDatabase,
        protocol: Some(Protocol::Tcp),
        prefix_len: Some(matched),
        fed_by: Vec::new(),
        scheme: Scheme::Http,
    }
}

fn discovery() -> Discovery {
    Discovery {
        roots: vec![ROOT.parse().unwrap()],
        login: "be".to_owned(),
        password: "s3cret".to_owned(),
        ca: None,
        role: Role::Peer,
        waits_for_peers: true,
    }
}

fn server(networks: &[&str]) -> Register {
    Register {
        source: "127.0.2.1".parse().unwrap(),
        port: 10100,
        entry_type: EntryType::TunnelServer,
        protocol: Some(Protocol::Udp),
        networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
        country: Some("BE".parse().unwrap()),
        fed_by: Vec::new(),
        scheme: Scheme::Http,
    }
}

fn database(networks: &[&str]) -> Register {
    let own: SocketAddr = OWN.parse().unwrap();
    Register {
        source: own.ip(),
        port: own.port(),
        entry_type: EntryType::TunnelDatabase,
        protocol: None,
        ..server(networks)
    }
}
