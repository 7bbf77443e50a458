//! The registrar role against a real database on loopback.

mod parents;
mod raw_http;

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use castgate_agent::Agent;
use castgate_agent::roles::database::Database;
use castgate_agent::roles::registrar::Direct;
use castgate_control::{
    AgentSnapshot, EntryType, Parent, Protocol, RegistrarSnapshot, Registration, RoutesSnapshot, SystemsSnapshot,
};
use parents::{PATIENCE, becomes, database};
use tempfile::TempDir;
use tokio::time::timeout;

#[tokio::test]
async fn entries_appear_when_the_role_starts_and_are_gone_when_it_stops() {
    let state = TempDir::new().unwrap();
    let database = Database::start(database("127.0.0.1:0"), state.path()).await.unwrap();
    let registrar =
        Direct::start(registrar(&database.local_address().to_string(), &["BE", "NL"]), &Arc::default()).unwrap();
    becomes(&database, 2).await;
    registrar.stop().await;
    assert_eq!(database.report().entries, 0, "stop returns after the goodbyes");
}

#[tokio::test]
async fn another_snapshot_announces_the_new_and_takes_back_the_old() {
    let state = TempDir::new().unwrap();
    let database = Database::start(database("127.0.0.1:0"), state.path()).await.unwrap();
    let parent = database.local_address().to_string();
    let mut registrar_role = Direct::start(registrar(&parent, &["BE"]), &Arc::default()).unwrap();
    becomes(&database, 1).await;
    registrar_role.apply(registrar(&parent, &["BE", "NL", "BE"])).unwrap();
    becomes(&database, 3).await;
    registrar_role.apply(registrar(&parent, &[])).unwrap();
    becomes(&database, 0).await;
    registrar_role.stop().await;
}

#[tokio::test]
async fn a_database_that_comes_later_is_told_as_well() {
    let state = TempDir::new().unwrap();
    // An address that is free a moment from now: taken, seen, and given back.
    let first = Database::start(database("127.0.0.1:0"), state.path()).await.unwrap();
    let address = first.local_address().to_string();
    first.stop().await;
    let registrar = Direct::start(registrar(&address, &["BE"]), &Arc::default()).unwrap();
    reports(&registrar, "trying", "no connection to").await;
    let database = Database::start(database(&address), state.path()).await.unwrap();
    becomes(&database, 1).await;
    reports(&registrar, "registered", "").await;
    registrar.stop().await;
}

#[tokio::test]
async fn a_refusal_is_reported_in_the_words_of_the_parent() {
    let state = TempDir::new().unwrap();
    let database = Database::start(database("127.0.0.1:0"), state.path()).await.unwrap();
    let mut snapshot = registrar(&database.local_address().to_string(), &["FR"]);
    let registrar = Direct::start(snapshot.clone(), &Arc::default()).unwrap();
    reports(&registrar, "refused", "403: this account may not register country FR").await;
    assert_eq!(registrar.report()[0].entry, "TS 127.0.2.1:10100 UDP");
    registrar.stop().await;
    snapshot.parents[0].password = "wrong".to_owned();
    let registrar = Direct::start(snapshot, &Arc::default()).unwrap();
    reports(&registrar, "refused", "401: login and password of an account are needed").await;
    registrar.stop().await;
}

#[tokio::test]
async fn a_list_that_is_too_long_for_a_url_is_posted() {
    let state = TempDir::new().unwrap();
    let database = Database::start(database("127.0.0.1:0"), state.path()).await.unwrap();
    let mut snapshot = registrar(&database.local_address().to_string(), &["BE"]);
    snapshot.entries[0].networks = (0..=255_u8).map(|n| format!("134.{n}.0.0/16").parse().unwrap()).collect();
    let registrar = Direct::start(snapshot, &Arc::default()).unwrap();
    becomes(&database, 1).await;
    registrar.stop().await;
}

#[tokio::test]
async fn entries_are_refreshed_in_the_interval_that_the_parent_names() {
    let state = TempDir::new().unwrap();
    let mut quick = database("127.0.0.1:0");
    quick.update_interval_seconds = NonZeroU32::new(1).unwrap();
    let database = Database::start(quick, state.path()).await.unwrap();
    let registrar = Direct::start(registrar(&database.local_address().to_string(), &["BE"]), &Arc::default()).unwrap();
    let mut entries = database.entries();
    timeout(PATIENCE, entries.wait_for(|entries| *entries == 1)).await.unwrap().unwrap();
    // Without refreshes it would be gone after two seconds.
    let gone = timeout(Duration::from_millis(3_500), entries.wait_for(|entries| *entries == 0)).await;
    assert!(gone.is_err(), "the entry went although it was to be refreshed");
    assert!(database.report().registers >= 3);
    registrar.stop().await;
}

#[tokio::test]
async fn a_parent_that_is_no_address_is_named_by_its_field() {
    let error = Direct::start(registrar("a b", &["BE"]), &Arc::default()).unwrap_err().to_string();
    assert!(error.starts_with("parents[0].url: database `http://a b`"), "{error}");
}

#[tokio::test]
async fn a_route_table_that_changes_is_announced_as_it_is_now() {
    let state = TempDir::new().unwrap();
    let database = Database::start(database("127.0.0.1:0"), state.path()).await.unwrap();
    let table = state.path().join("routes.csv");
    let write = |rows: &str| {
        let fresh = state.path().join("routes.fresh");
        std::fs::write(&fresh, rows).unwrap();
        std::fs::rename(&fresh, &table).unwrap();
    };
    write("192.0.2.0/24,64500\n");
    let mut part = registrar(&database.local_address().to_string(), &["BE"]);
    part.entries[0].country = None;
    let routes = RoutesSnapshot { file: Some(table.clone()), rows: Vec::new() };
    part.systems = Some(SystemsSnapshot { asns: vec![64_500], routes });
    let snapshot =
        AgentSnapshot { agent: "test/systems".to_owned(), registrar: Some(part), ..AgentSnapshot::default() };
    let agent = Agent::start(snapshot, &state.path().join("agent")).await.unwrap();
    let stands = async |wanted: &str| {
        let seen = async {
            while !agent.report().registrations.iter().any(|report| report.state == wanted) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{:?}", agent.report().registrations));
    };
    stands("refused").await;
    write("134.184.0.0/16,64500\n");
    becomes(&database, 1).await;
    stands("registered").await;
    // One that cannot be read changes nothing, and the next one is read again.
    write("134.184.0.0;16\n");
    write("198.51.100.0/24,64500\n");
    stands("refused").await;
    agent.stop().await;
}

/// Waits until the first registration stands so.
async fn reports(registrar: &Direct, state: &str, error: &str) {
    let mut changed = registrar.reports();
    let stands = |reports: &Vec<castgate_agent::report::RegistrationReport>| {
        let said = |report: &castgate_agent::report::RegistrationReport| {
            report.last_refusal.as_deref().unwrap_or_default().starts_with(error)
        };
        reports.first().is_some_and(|report| report.state == state && said(report))
    };
    let seen = timeout(PATIENCE, changed.wait_for(stands)).await;
    seen.unwrap_or_else(|_| panic!("{:?}", registrar.report())).unwrap();
}

fn registrar(parent: &str, countries: &[&str]) -> RegistrarSnapshot {
    let entry = |(port, country): (u16, &&str)| Registration {
        entry_type: EntryType::TunnelServer,
        source: "127.0.2.1".parse().unwrap(),
        port: NonZeroU16::new(port).unwrap(),
        protocol: Some(Protocol::Udp),
        networks: Vec::new(),
        country: Some(country.parse().unwrap()),
        scheme: castgate_control::Scheme::Http,
    };
    let parent =
        Parent { url: format!("http://{parent}"), login: "be".to_owned(), password: "s3cret".to_owned(), ca: None };
    let mut snapshot = RegistrarSnapshot::new((10100..).zip(countries).map(entry).collect(), vec![parent]);
    snapshot.retry_seconds = NonZeroU32::new(1).unwrap();
    snapshot
}
