//! Other entries, other roots, the end.

use super::*;

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
