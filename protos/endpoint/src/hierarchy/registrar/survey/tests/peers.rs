//! A database is announced when it holds what its peers hold.

use super::*;

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
