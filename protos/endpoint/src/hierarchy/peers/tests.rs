//! When peers are asked, under a clock that we turn.

use super::*;

const INTERVAL: Duration = Duration::from_mins(5);
const WAIT: Duration = Duration::from_secs(30);

#[test]
fn without_peers_there_is_nothing_to_wait_for() {
    let mut peers = Peers::new();
    assert!(peers.is_synchronised() && peers.is_settled());
    assert_eq!((peers.poll_transfer(), peers.next_timeout()), (None, None));
    peers.handle_doubt(Instant::now(), Doubt::Unheard);
    assert!(peers.is_synchronised(), "nobody could tell it more");
}

#[test]
fn the_first_peer_that_gives_all_it_has_ends_the_wait_and_each_is_asked_from_then_on() {
    let mut lab = Lab::new(2);
    assert!(!lab.peers.is_synchronised());
    assert_eq!(lab.ask(false), Some(0));
    assert!(!lab.peers.is_synchronised());
    assert_eq!(lab.ask(true), Some(1));
    assert!(lab.peers.is_synchronised() && lab.peers.is_settled());
    assert_eq!(lab.pass(), INTERVAL * 2);
    assert_eq!((lab.ask(false), lab.ask(true)), (Some(0), Some(1)));
    assert!(lab.peers.is_synchronised());
    assert_eq!(lab.ask(true), None);
}

#[test]
fn while_entries_are_hearsay_peers_are_asked_before_one_goes() {
    let mut lab = Lab::new(1);
    lab.hearsay = 1;
    lab.ask(true);
    assert!(lab.pass() < INTERVAL * 9 / 10, "an owner that lives is heard by the peer within 1.1 intervals");
}

#[test]
fn when_nobody_gives_anything_it_answers_after_a_while_and_goes_on_asking() {
    let mut lab = Lab::new(2);
    let mut waited = Duration::ZERO;
    while !lab.peers.is_synchronised() {
        assert_eq!((lab.ask(false), lab.ask(false)), (Some(0), Some(1)));
        if !lab.peers.is_synchronised() {
            waited += lab.pass();
        }
    }
    assert_eq!(waited, WAIT);
    assert!(lab.peers.is_settled());
    assert_eq!(lab.pass(), RETRY_MAX);
    assert_eq!(lab.ask(true), Some(0));
    assert_eq!(lab.pass(), INTERVAL * 2, "as if nothing had been");
}

#[test]
fn in_doubt_it_asks_before_it_answers_and_again_when_somebody_is_heard() {
    let mut lab = Lab::new(1);
    lab.ask(true);
    lab.peers.handle_doubt(lab.now, Doubt::Unheard);
    assert!(!lab.peers.is_synchronised());
    while !lab.peers.is_synchronised() {
        lab.ask(false);
        lab.pass();
    }
    lab.peers.handle_doubt(lab.now, Doubt::Unheard);
    assert!(lab.peers.is_synchronised(), "told once");
    lab.peers.handle_doubt(lab.now, Doubt::HeardAgain);
    assert!(!lab.peers.is_synchronised());
    assert_eq!(lab.ask(true), Some(0));
    assert!(lab.peers.is_synchronised());
}

#[test]
fn who_looks_for_its_peers_does_not_answer_before_it_has_found_them_or_the_time_is_up() {
    let now = Instant::now();
    let mut peers = Peers::searching(now, WAIT);
    assert!(!peers.is_synchronised());
    peers.handle_timeout(now + WAIT);
    assert!(peers.is_synchronised());

    let mut peers = Peers::searching(now, WAIT);
    peers.set_members(now, Vec::new(), WAIT);
    assert!(peers.is_synchronised(), "there are none");

    let mut peers = Peers::searching(now, WAIT);
    peers.set_members(now, members(1), WAIT);
    assert!(!peers.is_synchronised());
    assert_eq!(peers.poll_transfer(), Some(members(1)[0].clone()));
}

#[test]
fn peers_that_come_later_do_not_silence_a_database_that_answers() {
    let mut lab = Lab::new(1);
    lab.ask(true);
    lab.peers.set_members(lab.now, members(2), WAIT);
    assert!(lab.peers.is_synchronised() && !lab.peers.is_settled());
    assert_eq!((lab.ask(true), lab.ask(true)), (Some(0), Some(1)));
    assert!(lab.peers.is_settled());
}

#[test]
fn a_transfer_that_was_begun_before_the_peers_changed_counts_for_nothing() {
    let mut lab = Lab::new(1);
    assert!(lab.peers.poll_transfer().is_some());
    lab.peers.set_members(lab.now, members(2), WAIT);
    let done = Transferred { is_whole: true, interval: INTERVAL, hearsay: 0 };
    assert!(!lab.peers.handle_transfer(lab.now, done));
    assert!(!lab.peers.is_synchronised());
}

struct Lab {
    now: Instant,
    peers: Peers,
    hearsay: usize,
}

impl Lab {
    fn new(count: u8) -> Self {
        let (now, mut peers) = (Instant::now(), Peers::new());
        peers.set_members(now, members(count), WAIT);
        Self { now, peers, hearsay: 0 }
    }

    /// Carries out the next transfer; which peer it is from.
    fn ask(&mut self, is_whole: bool) -> Option<usize> {
        let member = self.peers.poll_transfer()?;
        assert_eq!(self.peers.poll_transfer(), None, "one at a time");
        let done = Transferred { is_whole, interval: INTERVAL, hearsay: self.hearsay };
        assert_eq!(self.peers.handle_transfer(self.now, done), is_whole);
        members(9).iter().position(|other| *other == member)
    }

    /// Until the next timeout.
    fn pass(&mut self) -> Duration {
        let Some(next) = self.peers.next_timeout() else { return Duration::ZERO };
        let took = next - self.now;
        self.now = next;
        self.peers.handle_timeout(next);
        took
    }
}

fn members(count: u8) -> Vec<DatabaseAddress> {
    (0..count).map(|n| DatabaseAddress::of_socket(([10, 0, 0, n], 5632).into())).collect()
}

#[test]
fn a_peer_that_is_added_to_a_database_that_answers_is_asked_while_it_goes_on_answering() {
    let (now, wait) = (Instant::now(), Duration::from_secs(30));
    let member: DatabaseAddress = "192.0.2.1".parse().unwrap();
    let added = |goes_on: bool| {
        let mut peers = Peers::new();
        peers.set_members(now, Vec::new(), wait);
        if goes_on {
            peers.go_on_answering();
        }
        peers.set_members(now, vec![member.clone()], wait);
        (peers.is_synchronised(), peers.poll_transfer())
    };
    assert_eq!(added(true), (true, Some(member.clone())));
    assert_eq!(added(false), (false, Some(member.clone())), "one that was found is waited for");
}
