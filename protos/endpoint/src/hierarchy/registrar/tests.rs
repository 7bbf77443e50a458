//! A registrar under a clock that we turn, with parents that answer as the test says.

use std::time::Duration;

use castgate_wire::registry::{EntryType, Protocol, Request, Scheme};

use super::*;

#[test]
fn every_entry_is_announced_at_every_parent_at_once() {
    let mut lab = Lab::new(&[10100, 8080], &["10.0.0.1", "10.0.0.2"]);
    let asked = lab.answer_all(&done());
    assert_eq!(
        asked,
        [
            "10.0.0.1:5632 ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.1&PORT=10100&PROTOCOL=UDP&COUNTRY=BE",
            "10.0.0.2:5632 ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.1&PORT=10100&PROTOCOL=UDP&COUNTRY=BE",
            "10.0.0.1:5632 ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.1&PORT=8080&PROTOCOL=UDP&COUNTRY=BE",
            "10.0.0.2:5632 ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.1&PORT=8080&PROTOCOL=UDP&COUNTRY=BE",
        ]
    );
    assert_eq!(lab.registrar.statuses().filter(|status| status.standing == Standing::Registered).count(), 4);
}

#[test]
fn a_refresh_comes_after_the_interval_of_the_parent_give_or_take_a_tenth() {
    let mut waits = Vec::new();
    for seed in 0..200 {
        let mut lab = Lab::with_seed(&[10100], &["10.0.0.1"], seed);
        lab.answer_all(&Outcome::Done { interval: Some(Duration::from_secs(100)) });
        waits.push(lab.wait());
    }
    assert!(waits.iter().all(|wait| (90_000..=110_000).contains(wait)), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait < 93_000) && waits.iter().any(|wait| *wait > 107_000), "they are spread");
}

#[test]
fn without_a_word_of_the_parent_the_configured_interval_holds() {
    let mut lab = Lab::new(&[10100], &["10.0.0.1"]);
    lab.answer_all(&done());
    assert!((270_000..=330_000).contains(&lab.wait()));
}

#[test]
fn a_parent_cannot_ask_to_be_flooded_or_to_be_forgotten() {
    for (asked, range) in [(0, 900..=1_100), (u64::MAX, 77_760_000..=95_040_000)] {
        let mut lab = Lab::new(&[10100], &["10.0.0.1"]);
        lab.answer_all(&Outcome::Done { interval: Some(Duration::from_secs(asked)) });
        assert!(range.contains(&lab.wait()));
    }
}

#[test]
fn failures_are_retried_with_growing_waits_up_to_a_minute_and_a_success_starts_over() {
    let mut lab = Lab::new(&[10100], &["10.0.0.1"]);
    let mut waits = Vec::new();
    for _ in 0..8 {
        lab.answer_all(&unreachable("connection refused"));
        waits.push(lab.wait() / 1_000);
        lab.pass();
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    let status = lab.registrar.statuses().next().unwrap();
    assert_eq!((status.standing, status.failures, status.error), (Standing::Trying, 8, Some("connection refused")));

    lab.answer_all(&done());
    assert!(lab.registrar.statuses().all(|status| status.standing == Standing::Registered && status.error.is_none()));
    lab.pass();
    lab.answer_all(&unreachable("connection refused"));
    assert_eq!(lab.wait(), 1_000);
}

#[test]
fn a_refusal_is_kept_as_the_parent_said_it_and_retry_after_is_heeded() {
    let mut lab = Lab::new(&[10100], &["10.0.0.1"]);
    lab.answer_all(&refused("403: this account may not register country BE", None));
    let status = lab.registrar.statuses().next().unwrap();
    assert_eq!(status.error, Some("403: this account may not register country BE"));
    assert_eq!(status.standing, Standing::Refused);
    assert_eq!(lab.wait(), 1_000);
    lab.pass();
    lab.answer_all(&refused("503: starting", Some(17)));
    assert_eq!(lab.wait(), 17_000);
    lab.pass();
    lab.answer_all(&refused("503: starting", Some(1_000_000)));
    assert_eq!(lab.wait(), 300_000, "nobody sends us away for longer than an interval");
}

#[test]
fn one_silent_parent_does_not_hold_up_the_other() {
    let mut lab = Lab::new(&[10100], &["10.0.0.1", "10.0.0.2"]);
    let calls = lab.calls();
    lab.registrar.handle_outcome(lab.now, calls[1].id, done());
    assert!((270_000..=330_000).contains(&lab.wait()));
    lab.pass();
    let again = lab.calls();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].parent, calls[1].parent);
}

#[test]
fn the_end_takes_back_what_was_or_may_have_been_registered_and_nothing_else() {
    let mut lab = Lab::new(&[10100], &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let calls = lab.calls();
    lab.registrar.handle_outcome(lab.now, calls[0].id, done());
    lab.registrar.handle_outcome(lab.now, calls[1].id, unreachable("the answer did not come"));
    lab.registrar.handle_outcome(lab.now, calls[2].id, refused("401", None));
    lab.registrar.shut_down(lab.now);
    assert!(!lab.registrar.is_finished());
    let leaving: Vec<_> = lab.registrar.statuses().map(|status| status.standing).collect();
    assert_eq!(leaving, [Standing::Leaving, Standing::Leaving], "who never had it does not have to give it back");
    let asked = lab.answer_all(&done());
    assert_eq!(
        asked,
        [
            "10.0.0.1:5632 ACTION=BYE&TYPE=TS&SOURCE=127.0.2.1&PORT=10100&PROTOCOL=UDP",
            "10.0.0.2:5632 ACTION=BYE&TYPE=TS&SOURCE=127.0.2.1&PORT=10100&PROTOCOL=UDP",
        ]
    );
    assert!(lab.registrar.is_finished());
    assert_eq!(lab.registrar.next_timeout(), None);
}

#[test]
fn a_bye_that_is_refused_is_not_repeated() {
    let mut lab = Lab::new(&[10100], &["10.0.0.1"]);
    lab.answer_all(&done());
    lab.registrar.shut_down(lab.now);
    lab.answer_all(&refused("403", None));
    assert!(lab.registrar.is_finished());
}

#[test]
fn a_bye_that_nobody_hears_is_repeated_for_half_a_minute() {
    let mut lab = Lab::new(&[10100], &["10.0.0.1"]);
    lab.answer_all(&done());
    lab.registrar.shut_down(lab.now);
    let begin = lab.now;
    let mut byes = 0;
    while !lab.registrar.is_finished() {
        byes += lab.answer_all(&unreachable("connection refused")).len();
        let Some(next) = lab.registrar.next_timeout() else { break };
        assert!(lab.registrar.statuses().all(|status| status.standing == Standing::Leaving && status.error.is_some()));
        lab.now = next;
        lab.registrar.handle_timeout(lab.now);
    }
    assert!(lab.registrar.is_finished());
    assert!((3..=20).contains(&byes), "{byes} BYEs");
    let took = lab.now - begin;
    assert!((Duration::from_secs(30)..Duration::from_secs(70)).contains(&took), "{took:?}");
}

#[test]
fn a_parent_that_is_back_hears_the_bye_and_an_entry_that_is_back_is_registered_at_once() {
    let mut lab = Lab::new(&[10100], &["10.0.0.1"]);
    lab.answer_all(&done());
    lab.registrar.set(Config::default(), &[], &[parent("10.0.0.1")], lab.now);
    lab.answer_all(&unreachable("connection refused"));
    lab.registrar.set(Config::default(), &[entry(10100)], &[parent("10.0.0.1")], lab.now);
    assert!(
        matches!(lab.calls()[..], [Call { request: Request::Register(_), .. }]),
        "it does not wait for the goodbye"
    );

    let mut lab = Lab::new(&[10100], &["10.0.0.1"]);
    lab.answer_all(&done());
    lab.registrar.shut_down(lab.now);
    lab.answer_all(&unreachable("connection refused"));
    lab.now = lab.registrar.next_timeout().unwrap();
    lab.registrar.handle_timeout(lab.now);
    lab.answer_all(&done());
    assert!(lab.registrar.is_finished());
}

#[test]
fn bye_waits_for_a_register_that_is_under_way() {
    let mut lab = Lab::new(&[10100], &["10.0.0.1"]);
    let calls = lab.calls();
    lab.registrar.shut_down(lab.now);
    assert!(lab.calls().is_empty(), "BYE would overtake its REGISTER");
    lab.registrar.handle_outcome(lab.now, calls[0].id, done());
    assert!(matches!(lab.calls()[0].request, Request::Bye(_)));
}

#[test]
fn a_change_announces_the_new_takes_back_the_old_and_leaves_the_rest_in_peace() {
    let mut lab = Lab::new(&[1, 2], &["10.0.0.1"]);
    lab.answer_all(&done());
    let mut changed = entry(2);
    changed.networks.push("134.184.0.0/16".parse().unwrap());
    lab.registrar.set(Config::default(), &[changed, entry(3)], &[parent("10.0.0.1")], lab.now);
    let asked = lab.answer_all(&done());
    assert_eq!(
        asked,
        [
            "10.0.0.1:5632 ACTION=BYE&TYPE=TS&SOURCE=127.0.2.1&PORT=1&PROTOCOL=UDP",
            "10.0.0.1:5632 ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.1&PORT=2&PROTOCOL=UDP&NETWORKS=134.184.0.0/16&COUNTRY=BE",
            "10.0.0.1:5632 ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.1&PORT=3&PROTOCOL=UDP&COUNTRY=BE",
        ]
    );
    let same = [entry(3)];
    lab.registrar.set(Config::default(), &same, &[parent("10.0.0.1")], lab.now);
    lab.answer_all(&done());
    lab.registrar.set(Config::default(), &same, &[parent("10.0.0.1")], lab.now);
    assert!(lab.calls().is_empty(), "the same again changes nothing");
}

#[test]
fn a_change_during_a_register_is_announced_right_after_it() {
    let mut lab = Lab::new(&[1], &["10.0.0.1"]);
    let first = lab.calls();
    let login = Parent { password: "other".to_owned(), ..parent("10.0.0.1") };
    lab.registrar.set(Config::default(), &[entry(1)], std::slice::from_ref(&login), lab.now);
    assert!(lab.calls().is_empty());
    lab.registrar.handle_outcome(lab.now, first[0].id, refused("401", None));
    let second = lab.calls();
    assert_eq!(second[0].parent, login, "with the new password, and without waiting");
}

#[test]
fn an_entry_that_comes_back_while_its_bye_is_under_way_is_registered_after_it() {
    let mut lab = Lab::new(&[1], &["10.0.0.1"]);
    lab.answer_all(&done());
    lab.registrar.set(Config::default(), &[], &[parent("10.0.0.1")], lab.now);
    let bye = lab.calls();
    lab.registrar.set(Config::default(), &[entry(1)], &[parent("10.0.0.1")], lab.now);
    assert!(lab.calls().is_empty());
    lab.registrar.handle_outcome(lab.now, bye[0].id, done());
    assert!(matches!(lab.calls()[..], [Call { request: Request::Register(_), .. }]));
}

#[test]
fn a_relay_is_announced_with_the_chain_that_feeds_it_whenever_that_changes() {
    let mut lab = Lab::new(&[1], &["10.0.0.1"]);
    lab.answer_all(&done());
    let chain = ["192.0.2.7", "2001:db8::7"].map(|address| address.parse().unwrap());
    lab.registrar.set_fed_by(&chain, lab.now);
    let asked = lab.answer_all(&done());
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].ends_with("&COUNTRY=BE&FEDBY=192.0.2.7,2001:db8::7"), "{asked:?}");
    lab.registrar.set_fed_by(&chain, lab.now);
    assert!(lab.calls().is_empty(), "the same is no news");
    // Other entries have it from the start, and databases are fed by nobody.
    let database = Register { entry_type: EntryType::TunnelDatabase, protocol: None, ..entry(5632) };
    lab.registrar.set(Config::default(), &[entry(1), entry(2), database], &[parent("10.0.0.1")], lab.now);
    let asked = lab.answer_all(&done());
    assert_eq!(asked.iter().map(|asked| asked.contains("FEDBY")).collect::<Vec<_>>(), [true, false], "{asked:?}");
    lab.registrar.set_fed_by(&[], lab.now);
    let asked = lab.answer_all(&done());
    assert!(asked.len() == 2 && !asked.concat().contains("FEDBY"), "{asked:?}");
}

#[test]
fn results_of_forgotten_calls_change_nothing() {
    let mut lab = Lab::new(&[1], &["10.0.0.1"]);
    let call = lab.calls().remove(0);
    lab.registrar.handle_outcome(lab.now, call.id, done());
    let wait = lab.wait();
    lab.registrar.handle_outcome(lab.now, call.id, refused("late", None));
    assert_eq!(lab.wait(), wait);
    assert!(lab.registrar.statuses().all(|status| status.standing == Standing::Registered));
}

#[test]
fn a_password_is_not_shown() {
    let mut lab = Lab::new(&[1], &["10.0.0.1"]);
    let shown = format!("{:?}", lab.registrar) + &format!("{:?}", lab.calls());
    assert!(shown.contains("10.0.0.1") && !shown.contains("s3cret"));
}

struct Lab {
    now: Instant,
    registrar: Registrar,
}

impl Lab {
    fn new(ports: &[u16], parents: &[&str]) -> Self {
        Self::with_seed(ports, parents, 1)
    }

    fn with_seed(ports: &[u16], parents: &[&str], seed: u64) -> Self {
        let now = Instant::now();
        let entries: Vec<Register> = ports.iter().map(|port| entry(*port)).collect();
        let parents: Vec<Parent> = parents.iter().map(|address| parent(address)).collect();
        Self { now, registrar: Registrar::new(Config::default(), &entries, &parents, seed, now) }
    }

    fn calls(&mut self) -> Vec<Call> {
        std::iter::from_fn(|| self.registrar.poll_call()).collect()
    }

    /// Gives every call that is waiting the same answer; returns what was asked.
    fn answer_all(&mut self, outcome: &Outcome) -> Vec<String> {
        let calls = self.calls();
        for call in &calls {
            self.registrar.handle_outcome(self.now, call.id, outcome.clone());
        }
        calls.iter().map(|call| format!("{} {}", call.parent.address, call.request.emit())).collect()
    }

    /// Milliseconds to the next timeout.
    fn wait(&self) -> u64 {
        let next = self.registrar.next_timeout().expect("something is planned");
        u64::try_from(next.duration_since(self.now).as_millis()).unwrap()
    }

    /// Turns the clock to the next timeout.
    fn pass(&mut self) {
        self.now = self.registrar.next_timeout().expect("something is planned");
        self.registrar.handle_timeout(self.now);
    }
}

fn entry(port: u16) -> Register {
    Register {
        fed_by: Vec::new(),
        scheme: Scheme::Http,
        source: "127.0.2.1".parse().unwrap(),
        port,
        entry_type: EntryType::TunnelServer,
        protocol: Some(Protocol::Udp),
        networks: Vec::new(),
        country: Some("BE".parse().unwrap()),
    }
}

fn parent(address: &str) -> Parent {
    Parent { address: address.parse().unwrap(), login: "be".to_owned(), password: "s3cret".to_owned(), ca: None }
}

fn done() -> Outcome {
    Outcome::Done { interval: None }
}

fn unreachable(sentence: &str) -> Outcome {
    Outcome::Unreachable { sentence: sentence.to_owned() }
}

fn refused(sentence: &str, retry_after_seconds: Option<u64>) -> Outcome {
    Outcome::Refused { sentence: sentence.to_owned(), retry_after: retry_after_seconds.map(Duration::from_secs) }
}
