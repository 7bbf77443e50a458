//! What outlives the process, and what does not.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use castgate_agent::roles::database::Database;
use castgate_control::AgentSnapshot;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::raw_http::get;
use crate::room::{BY_COUNTRY, BYE, QUERY, REGISTER, Room, snapshot};
use crate::support::program::Program;

#[tokio::test]
async fn what_was_answered_is_on_disk_before_the_answer() {
    let room = Room::new().await;
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    assert_eq!(room.get(REGISTER, Some("be:s3cret")).await.status, 200);
    assert_eq!(room.get(BYE, Some("be:s3cret")).await.status, 200);
    // What a kill -9 at this moment leaves behind, while the first database goes on running.
    let after_kill = TempDir::new().unwrap();
    std::fs::copy(room.state.path().join("database.redb"), after_kill.path().join("database.redb")).unwrap();
    let again = Room::start(snapshot(), after_kill).await;
    assert_eq!(again.database.report().entries, 1, "one registered, the other said goodbye");
    let found = again.get(QUERY, None).await;
    assert!(found.body.contains("127.0.2.1"), "{found:?}");
}

#[tokio::test]
async fn a_database_that_starts_again_in_its_folder_has_its_entries() {
    let mut room = Room::new().await;
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    room.database.stop().await;
    let mut again = snapshot();
    again.accounts.remove(1);
    room = Room::start(again, room.state).await;
    assert_eq!(room.database.report().entries, 1);
    room.database.stop().await;
    let mut without = snapshot();
    without.accounts.remove(0);
    room = Room::start(without, room.state).await;
    assert_eq!(room.database.report().entries, 0, "entries of an account that is no more are not brought back");
}

#[tokio::test]
async fn an_entry_that_is_not_refreshed_is_gone_after_two_intervals_in_memory_and_on_disk() {
    let mut quick = snapshot();
    quick.update_interval_seconds = NonZeroU32::new(1).unwrap();
    let room = Room::start(quick, TempDir::new().unwrap()).await;
    let mut entries = room.database.entries();
    let registered = room.get(BY_COUNTRY, Some("be:s3cret")).await;
    let at = Instant::now();
    assert_eq!(registered.field("x-castgate-update-interval"), Some("1"));
    entries.wait_for(|entries| *entries == 1).await.unwrap();
    timeout(crate::support::PATIENCE, entries.wait_for(|entries| *entries == 0))
        .await
        .expect("it goes by itself")
        .unwrap();
    let life = at.elapsed();
    assert!((Duration::from_millis(1_900)..Duration::from_secs(4)).contains(&life), "{life:?}");
    assert_eq!(room.get(QUERY, None).await.field("x-castgate-match"), Some("none"));
    room.database.stop().await;
    let again = Room::start(snapshot(), room.state).await;
    assert_eq!(again.database.report().entries, 0);
}

#[tokio::test]
async fn an_address_that_is_taken_and_a_store_that_is_open_are_named() {
    let room = Room::new().await;
    let mut same_address = snapshot();
    same_address.listen = room.address;
    let elsewhere = TempDir::new().unwrap();
    let error = Database::start(same_address, elsewhere.path()).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("listen: {}: ", room.address)), "{error}");
    let error = Database::start(snapshot(), room.state.path()).await.unwrap_err().to_string();
    assert!(error.starts_with("store: ") && error.contains("database.redb"), "{error}");
    assert_eq!(room.get(QUERY, None).await.status, 200, "the first goes on");
}

#[tokio::test]
async fn many_that_register_at_once_are_all_on_disk_when_they_are_answered() {
    let room = Room::new().await;
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    let all = (0..100_u16).map(|port| {
        let request = format!("ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.2&PORT={}&PROTOCOL=UDP&COUNTRY=BE", port + 1);
        let address = room.address;
        tokio::spawn(async move { get(address, &request, Some("be:s3cret")).await.status })
    });
    let tasks: Vec<_> = all.collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 200);
    }
    let after_kill = TempDir::new().unwrap();
    std::fs::copy(room.state.path().join("database.redb"), after_kill.path().join("database.redb")).unwrap();
    let again = Room::start(snapshot(), after_kill).await;
    assert_eq!(again.database.report().entries, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_dash_nine_in_the_middle_of_many_takes_back_no_entry_that_was_answered() {
    let folder = Arc::new(TempDir::new().unwrap());
    let agent = AgentSnapshot { agent: "test/be".to_owned(), database: Some(snapshot()), ..AgentSnapshot::default() };
    std::fs::write(folder.path().join("agent.yaml"), agent.to_yaml()).unwrap();
    let mut program = Program::start_in(folder.clone());
    let address = address_of(&program);
    let (answered, mut answers) = mpsc::unbounded_channel();
    let callers: Vec<_> = (0..4_u16)
        .map(|caller| {
            let answered = answered.clone();
            tokio::spawn(async move {
                for port in (1 + caller..250).step_by(4) {
                    let request = format!("ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.1&PORT={port}&COUNTRY=BE");
                    match crate::raw_http::try_get(address, &request, Some("be:s3cret")).await {
                        Some(reply) if reply.status == 200 => answered.send(port).unwrap(),
                        Some(reply) => panic!("{reply:?}"),
                        None => return,
                    }
                }
            })
        })
        .collect();
    drop(answered);
    let mut promised = BTreeSet::new();
    while let Some(port) = answers.recv().await {
        promised.insert(port);
        if promised.len() == 60 {
            program.signal(Signal::KILL);
        }
    }
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(!program.wait().success());
    assert!((60..249).contains(&promised.len()), "it was killed in the middle: {}", promised.len());

    let again = Program::start_in(folder);
    let found = get(address_of(&again), QUERY, None).await;
    let servers = castgate_wire::registry::xml::parse_servers(found.body.as_bytes()).unwrap();
    let kept: BTreeSet<u16> = servers.iter().map(|server| server.port).collect();
    assert!(promised.is_subset(&kept), "promised and gone: {:?}", promised.difference(&kept));
}

/// The log says where it listens; the port was left to the system.
fn address_of(program: &Program) -> SocketAddr {
    let line = program.wait_for("database started");
    let listen = line.split_whitespace().find_map(|word| word.strip_prefix("listen=")).expect("a field of the line");
    listen.parse().unwrap()
}
