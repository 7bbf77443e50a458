//! Region Transfer between databases under a clock that we turn.

use castgate_wire::registry::{Request, Transfer, TransferEntry};

use super::super::tests::{Lab, WALL};
use super::super::*;
use super::*;

const SERVER: &str = "TYPE=TS&SOURCE=10.0.0.1&PORT=1&NETWORKS=134.184.0.0/16&COUNTRY=BE";

#[test]
fn a_peer_gets_every_entry_with_its_account_and_how_long_it_lives() {
    let mut lab = Lab::new();
    lab.register(SERVER).unwrap();
    lab.pass(100);
    lab.register_as("fr", "TYPE=TDS&SOURCE=10.0.0.2&PORT=5632&COUNTRY=FR").unwrap();
    let mut all = lab.database.transfer(lab.now, &Transfer::default());
    all.sort_by_key(|entry| entry.server.port);
    let [server, database] = &all[..] else { panic!("{all:?}") };
    assert_eq!((&*server.login, server.expires_in_seconds), ("be", Some(500)));
    assert!(server.password.starts_with("$argon2id$"), "a hash and nothing else");
    assert_eq!(server.networks, ["134.184.0.0/16".parse().unwrap()]);
    assert_eq!(server.countries, ["BE".parse().unwrap()]);
    assert_eq!((&*database.login, database.server.prefix_len, database.expires_in_seconds), ("fr", None, Some(600)));
    lab.pass(500);
    assert_eq!(lab.database.transfer(lab.now, &Transfer::default()).len(), 1, "what is over is not told");
}

#[test]
fn a_transfer_is_narrowed_to_a_network_or_a_country() {
    let mut lab = Lab::new();
    lab.register(SERVER).unwrap();
    lab.register("TYPE=TS&SOURCE=10.0.0.1&PORT=2&COUNTRY=NL").unwrap();
    let count = |pairs: &str| {
        let Request::Transfer(request) = Request::parse(&format!("ACTION=TRANSFER{pairs}")).unwrap().0 else {
            panic!()
        };
        lab.database.transfer(lab.now, &request).len()
    };
    assert_eq!(count(""), 2);
    assert_eq!(count("&NETWORK=134.0.0.0/8"), 1);
    assert_eq!(count("&NETWORK=134.184.1.0/24"), 0, "only networks inside");
    assert_eq!(count("&COUNTRY=NL"), 1);
    assert_eq!(count("&COUNTRY=NL&NETWORK=134.0.0.0/8"), 0);
}

#[test]
fn parts_of_a_transfer_are_the_whole() {
    let mut lab = Lab::new();
    let count = PLACES_PER_PART * 2 + 5;
    for n in 0..count {
        lab.register(&format!("TYPE=TS&SOURCE=10.0.{}.{}&PORT=1&COUNTRY=BE", n / 200, n % 200)).unwrap();
    }
    let request = Transfer::default();
    let (mut sizes, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let part = lab.database.transfer_part(lab.now, &request, at);
        sizes.push(part.entries.len());
        from = part.next;
    }
    assert_eq!(sizes, [PLACES_PER_PART as usize, PLACES_PER_PART as usize, 5]);
    assert!(lab.database.transfer_part(lab.now, &request, u32::MAX).entries.is_empty());
}

#[test]
fn what_a_peer_holds_is_found_here_and_lives_as_long_as_there() {
    for (age_seconds, lives_seconds) in [(0, 600), (200, 400), (450, 150)] {
        let (mut old, mut new) = pair();
        old.register(SERVER).unwrap();
        pass(&mut old, &mut new, age_seconds);
        assert_eq!(new.take_from(&old), Adoption { taken: 1, ..Adoption::default() });
        assert_eq!(new.query("134.184.1.1", "TYPE=TS&COUNTRY=BE"), "network 10.0.0.1:1");
        assert_eq!(new.changes(), ["~TS 10.0.0.1 1 UDP"], "stored, and nobody waits for it");
        assert_eq!(new.database.hearsay(), 1);
        pass(&mut old, &mut new, lives_seconds - 1);
        assert_eq!(new.query("134.184.1.1", "TYPE=TS&COUNTRY=BE"), "network 10.0.0.1:1", "{age_seconds}");
        pass(&mut old, &mut new, 1);
        assert_eq!(new.query("134.184.1.1", "TYPE=TS&COUNTRY=BE"), "none", "{age_seconds}");
    }
}

#[test]
fn an_entry_that_nobody_refreshes_goes_however_often_peers_tell_each_other() {
    let (mut one, mut other) = pair();
    one.register(SERVER).unwrap();
    for _ in 0..12 {
        pass(&mut one, &mut other, 100);
        other.take_from(&one);
        one.take_from(&other);
        one.database.handle_timeout(one.now);
        other.database.handle_timeout(other.now);
    }
    assert_eq!((one.database.len(), other.database.len()), (0, 0));
}

#[test]
fn an_entry_that_is_refreshed_at_one_peer_alone_stays_at_both() {
    let (mut one, mut other) = pair();
    for _ in 0..20 {
        one.register(SERVER).unwrap();
        other.take_from(&one);
        pass(&mut one, &mut other, 300);
        assert_eq!(other.query("134.184.1.1", "TYPE=TS&COUNTRY=BE"), "network 10.0.0.1:1");
    }
}

#[test]
fn a_goodbye_is_not_undone_by_a_peer_that_has_not_heard_of_it() {
    let (mut old, mut new) = pair();
    old.register(SERVER).unwrap();
    new.register(SERVER).unwrap();
    assert_eq!(new.bye("be", "SOURCE=10.0.0.1&PORT=1"), Ok(1));
    assert_eq!(new.take_from(&old), Adoption { gone: 1, ..Adoption::default() });
    assert!(new.database.is_empty());
    pass(&mut old, &mut new, 599);
    old.register(SERVER).unwrap();
    assert_eq!(new.take_from(&old).gone, 1);
    pass(&mut old, &mut new, 1);
    assert_eq!(new.take_from(&old).taken, 1, "after two intervals it is an entry like others");

    let (mut old, mut new) = pair();
    old.register(SERVER).unwrap();
    assert_eq!(new.bye("be", "SOURCE=10.0.0.1&PORT=1&PROTOCOL=UDP&STRICT=1"), Err(Refusal::NoEntry));
    assert_eq!(new.take_from(&old).gone, 1, "said before we had it, as while we start");
    new.register(SERVER).unwrap();
    assert_eq!(new.database.len(), 1, "its owner may always come back");
}

#[test]
fn a_peer_never_overwrites_what_is_newer_here() {
    let (mut old, mut new) = pair();
    old.register(SERVER).unwrap();
    pass(&mut old, &mut new, 10);
    new.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&NETWORKS=134.185.0.0/16&COUNTRY=BE").unwrap();
    assert_eq!(new.take_from(&old), Adoption { known: 1, ..Adoption::default() });
    assert_eq!(new.query("134.185.1.1", "TYPE=TS&COUNTRY=BE"), "network 10.0.0.1:1");
    pass(&mut old, &mut new, 300);
    assert_eq!(old.take_from(&new).known, 1, "refreshes at one moment differ by less than an interval");
    pass(&mut old, &mut new, 200);
    new.register("TYPE=TS&SOURCE=10.0.0.1&PORT=1&NETWORKS=134.186.0.0/16&COUNTRY=BE").unwrap();
    assert_eq!(old.take_from(&new).taken, 1, "here a refresh was missed");
    assert_eq!(old.query("134.186.1.1", "TYPE=TS&COUNTRY=BE"), "network 10.0.0.1:1");
}

#[test]
fn without_an_account_that_may_claim_it_nothing_is_taken_over() {
    let (mut old, mut new) = pair();
    old.register(SERVER).unwrap();
    let mut all = old.database.transfer(old.now, &Transfer::default());
    all[0].login = "nobody".to_owned();
    let mut elsewhere = TransferEntry { login: "be".to_owned(), ..all[0].clone() };
    elsewhere.countries = vec!["JP".parse().unwrap()];
    let foreign = TransferEntry { login: "fr".to_owned(), ..all[0].clone() };
    new.register(SERVER).unwrap();
    all.extend([elsewhere, foreign]);
    assert_eq!(new.database.adopt(new.now, WALL, all), Adoption { refused: 3, ..Adoption::default() });
    assert_eq!(new.database.len(), 1);
}

#[test]
fn a_peer_that_does_not_say_how_long_an_entry_lives_is_believed_for_one_interval() {
    let (mut old, mut new) = pair();
    old.register(SERVER).unwrap();
    let mut all = old.database.transfer(old.now, &Transfer::default());
    all[0].expires_in_seconds = None;
    all[0].server.protocol = None;
    assert_eq!(new.database.adopt(new.now, WALL, all).taken, 1);
    new.pass(299);
    assert_eq!(new.query("134.184.1.1", "TYPE=TS&COUNTRY=BE"), "network 10.0.0.1:1");
    new.pass(1);
    assert_eq!(new.query("134.184.1.1", "TYPE=TS&COUNTRY=BE"), "none");
}

#[test]
fn a_register_makes_an_adopted_entry_ours_and_is_promised_when_it_is_on_disk() {
    let (mut old, mut new) = pair();
    old.register(SERVER).unwrap();
    new.take_from(&old);
    new.changes();
    assert!(!new.register(SERVER).unwrap().is_new);
    assert_eq!(new.changes(), ["+TS 10.0.0.1 1 UDP"], "what a peer said may not be on disk yet");
    assert_eq!(new.database.hearsay(), 0);
    new.register(SERVER).unwrap();
    assert_eq!(new.changes(), ["~TS 10.0.0.1 1 UDP"]);
}

fn pair() -> (Lab, Lab) {
    let one = Lab::new();
    let mut other = Lab::new();
    other.now = one.now;
    (one, other)
}

fn pass(one: &mut Lab, other: &mut Lab, seconds: u64) {
    one.pass(seconds);
    other.pass(seconds);
}

impl Lab {
    fn take_from(&mut self, peer: &Self) -> Adoption {
        let all = peer.database.transfer(peer.now, &Transfer::default());
        self.database.adopt(self.now, WALL, all)
    }
}
