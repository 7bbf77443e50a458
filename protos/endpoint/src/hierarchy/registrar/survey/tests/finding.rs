//! Who is found is registered with, and those who are new there are told.

use super::*;

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
