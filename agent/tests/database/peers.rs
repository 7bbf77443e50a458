//! Databases that know what the others know.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use castgate_control::{DatabaseSnapshot, PeersSnapshot};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::raw_http::{basic, exchange, get};
use crate::room::{BY_COUNTRY, BYE, QUERY, REGISTER, Room, snapshot};

/// A database with its folder.
#[tokio::test]
async fn a_peer_gets_every_entry_and_nobody_else_does() {
    let room = Room::start(with_peers(&[]), TempDir::new().unwrap()).await;
    for n in 1..=200 {
        let register = format!("ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.{n}&PORT=10100&PROTOCOL=UDP&COUNTRY=BE");
        assert_eq!(room.get(&register, Some("be:s3cret")).await.status, 200);
    }
    for credentials in [None, Some("be:s3cret"), Some("peer:wrong")] {
        assert_eq!(room.get("ACTION=TRANSFER", credentials).await.status, 401, "{credentials:?}");
    }
    // To HTTP/1.0 without chunks, so that the body is what it is.
    let request = format!("GET /script/castgate.cgs?ACTION=TRANSFER HTTP/1.0\r\n{}\r\n", basic("peer:p33r"));
    let all = exchange(room.address, request.as_bytes()).await;
    assert_eq!((all.status, all.field("content-type")), (200, Some("text/xml; charset=utf-8")));
    let entries = castgate_wire::registry::xml::parse_transfer(all.body.as_bytes()).unwrap();
    assert_eq!(entries.len(), 200);
    assert!(entries.iter().all(|entry| entry.login == "be" && entry.password.starts_with("$argon2id$")));
    assert_eq!(room.post("/script/castgate.cgs", "ACTION=TRANSFER&LOGIN=peer&PASSWORD=p33r", "").await.status, 200);
    let audit = std::fs::read_to_string(room.state.path().join("audit.log")).unwrap();
    let count = |part: &str| audit.lines().filter(|line| line.contains(part)).count();
    assert_eq!(count("\"action\":\"register\""), 200);
    assert_eq!((count("\"action\":\"transfer\""), count("\"refused\"")), (4, 2));
}

#[tokio::test]
async fn a_database_that_starts_is_never_asked_before_it_knows_what_its_peer_knows() {
    let old = Room::start(with_peers(&[]), TempDir::new().unwrap()).await;
    assert_eq!(old.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    let peers = ["127.0.0.1:1".to_owned(), old.address.to_string()];
    let new = Room::start(with_peers(&peers), TempDir::new().unwrap()).await;
    let answered = async {
        loop {
            let answer = new.get(QUERY, None).await;
            match answer.status {
                200 => return answer,
                503 => assert_eq!(answer.field("retry-after"), Some("1")),
                status => panic!("{status}"),
            }
        }
    };
    let first = timeout(Duration::from_secs(20), answered).await.expect("a transfer in time");
    let servers = castgate_wire::registry::xml::parse_servers(first.body.as_bytes()).unwrap();
    assert_eq!(servers.len(), 1, "its first answer holds what the peer knows");
    assert_eq!(new.get("ACTION=BYE&SOURCE=127.0.2.1&PORT=10100", Some("be:s3cret")).await.status, 200);
    assert_eq!((old.database.report().entries, new.database.report().entries), (1, 0));
}

#[tokio::test]
async fn a_database_whose_peers_are_all_away_serves_what_its_store_holds_after_a_while() {
    let state = TempDir::new().unwrap();
    let room = Room::start(with_peers(&[]), state).await;
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    let Room { database, state, .. } = room;
    database.stop().await;
    let mut alone = with_peers(&["127.0.0.1:1".to_owned()]);
    alone.peers.as_mut().unwrap().wait_seconds = NonZeroU32::MIN;
    let room = Room::start(alone, state).await;
    assert_eq!(room.get(QUERY, None).await.status, 503);
    assert_eq!(room.get(REGISTER, Some("be:s3cret")).await.status, 200, "those who register are not put off");
    let answered = async {
        while room.get(QUERY, None).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), answered).await.expect("it does not wait for ever");
    assert_eq!(room.database.report().entries, 2);
}

#[tokio::test]
async fn a_database_that_ends_for_good_gives_its_last_entries_to_the_peer_that_is_told_to_do_without_it() {
    let mut stays = Room::start(with_peers(&[]), TempDir::new().unwrap()).await;
    let mut going = with_peers(&[stays.address.to_string()]);
    going.peers.as_mut().unwrap().hand_over_seconds = NonZeroU32::new(60);
    let goes = Room::start(going, TempDir::new().unwrap()).await;
    answers(&goes).await;
    stays.database.apply(with_peers(&[goes.address.to_string()])).await.unwrap();
    assert_eq!(goes.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200, "nobody but it knows of this one");
    let address = goes.address;
    let ending = tokio::spawn(goes.database.stop());
    // A question is answered to the end, but what comes from now on is for somebody else.
    let refused = async {
        loop {
            let answer = get(address, REGISTER, Some("be:s3cret")).await;
            if answer.status == 503 {
                return answer;
            }
        }
    };
    let refused = timeout(Duration::from_secs(20), refused).await.expect("it ends");
    assert!(refused.body.contains("this database ends"), "{}", refused.body);
    assert_eq!(get(address, QUERY, None).await.status, 200);
    let taken = get(address, BYE, Some("be:s3cret")).await.status;
    assert_eq!(taken, 503, "a goodbye that nobody else hears would be forgotten");
    stays.database.apply(with_peers(&[])).await.unwrap();
    timeout(Duration::from_secs(20), ending).await.expect("it ends when its peer has everything").unwrap();
    let found = stays.get(QUERY, None).await;
    assert!(found.body.contains("127.0.2.1"), "{}", found.body);
}

#[tokio::test]
async fn a_database_that_ends_waits_for_its_peers_no_longer_than_it_may() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut going = with_peers(&[nobody.local_addr().unwrap().to_string()]);
    let peers = going.peers.as_mut().unwrap();
    (peers.wait_seconds, peers.hand_over_seconds) = (NonZeroU32::MIN, Some(NonZeroU32::MIN));
    drop(nobody);
    let goes = Room::start(going, TempDir::new().unwrap()).await;
    assert_eq!(goes.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    answers(&goes).await;
    let start = Instant::now();
    timeout(Duration::from_secs(20), goes.database.stop()).await.expect("its peer never comes");
    assert!(start.elapsed() >= Duration::from_secs(1), "it waited for nobody");
}

#[tokio::test]
async fn a_peer_that_is_added_does_not_silence_a_database_that_answers() {
    let mut room = Room::new().await;
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    let new = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    room.database.apply(with_peers(&[new.local_addr().unwrap().to_string()])).await.unwrap();
    let asked = timeout(Duration::from_secs(20), new.accept()).await.expect("it asks the new one").unwrap();
    // It is not answered yet.
    assert_eq!(room.get(QUERY, None).await.status, 200);
    assert!(room.database.is_synchronised());
    drop(asked);
}

/// Until it has what its peers have, or knows that they have nothing.
async fn answers(room: &Room) {
    let answered = async {
        while room.get(QUERY, None).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), answered).await.expect("it does not wait for ever");
    assert!(room.database.is_synchronised());
}

/// A snapshot with this peer set.
fn with_peers(members: &[String]) -> DatabaseSnapshot {
    let peers = PeersSnapshot::new(members.to_vec(), "peer".to_owned(), "p33r".to_owned());
    DatabaseSnapshot { peers: Some(peers), ..snapshot() }
}
