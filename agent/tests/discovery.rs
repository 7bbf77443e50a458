//! Databases and a server that know the roots and themselves find each other, over HTTP on loopback.

mod parents;

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use castgate_agent::Surroundings;
use castgate_agent::report::RegistrationReport;
use castgate_agent::roles::database::Database;
use castgate_agent::roles::peering::Peering;
use castgate_agent::roles::registrar::Direct;
use castgate_control::{
    DatabaseAddress, DatabaseRole, DatabaseSnapshot, EntryType, Protocol, RegistrarDiscovery, RegistrarSnapshot,
    Registration,
};
use parents::{PATIENCE, Strange, becomes};
use tempfile::TempDir;
use tokio::time::timeout;

const ISP: &str = "134.184.0.0/16";

#[tokio::test]
async fn a_country_an_isp_and_a_server_find_their_places_from_the_root() {
    let hierarchy = Hierarchy::start().await;
    let server = start(server("134.184.1.0/24"), &hierarchy.root);
    becomes(&hierarchy.isp, 1).await;
    assert_eq!(stands(&server, "registered", "").await.parent, hierarchy.isp.local_address().to_string());
    assert_eq!((hierarchy.root.report().entries, hierarchy.country.report().entries), (1, 1), "each has who is next");

    server.stop().await;
    assert_eq!(hierarchy.isp.report().entries, 0, "the server says goodbye where it was");
    let Hierarchy { root, country, isp, registrars, .. } = hierarchy;
    for registrar in registrars {
        registrar.stop().await;
    }
    assert_eq!((root.report().entries, country.report().entries, isp.report().entries), (0, 0, 0));
}

#[tokio::test]
async fn a_second_database_of_the_isp_waits_for_the_entries_of_the_first_and_servers_come_to_it() {
    let hierarchy = Hierarchy::start().await;
    let server = start(server("134.184.1.0/24"), &hierarchy.root);
    becomes(&hierarchy.isp, 1).await;

    let state = TempDir::new().unwrap();
    let second = database(&state).await;
    let board = Peering::default();
    let entry = below(second.local_address(), &[ISP]);
    let registrar = Direct::start_beside(registrar(entry, &hierarchy.root), &around(&board)).unwrap();
    let first = hierarchy.isp.local_address();
    let waiting = stands(&registrar, "trying", "waits for the entries of its peers").await;
    assert_eq!(waiting.parent, hierarchy.country.local_address().to_string());
    assert_eq!(*board.peers().borrow(), [DatabaseAddress::of_socket(first)]);
    assert_eq!(hierarchy.country.report().entries, 1, "nobody is sent to a database that is empty");

    board.set_synchronised(true);
    becomes(&hierarchy.country, 2).await;
    stands(&registrar, "registered", "").await;
    // The server asks the parents of its parents again at every fourth update: after four seconds here.
    becomes(&second, 1).await;
    registrar.stop().await;
    assert!(board.peers().borrow().is_empty());
    assert_eq!(hierarchy.country.report().entries, 1);
    server.stop().await;
}

#[tokio::test]
async fn the_database_of_a_customer_with_the_network_of_its_isp_is_below_it() {
    let states = [TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap()];
    let (root, isp, customer) = (database(&states[0]).await, database(&states[1]).await, database(&states[2]).await);
    // All are on loopback: each of them has its address inside the network.
    let above = start(below(isp.local_address(), &["127.0.0.0/8"]), &root);
    becomes(&root, 1).await;
    let mut snapshot = registrar(below(customer.local_address(), &["127.0.0.0/8"]), &root);
    snapshot.discovery.as_mut().unwrap().role = DatabaseRole::Customer;
    let board = Peering::default();
    let registrar = Direct::start_beside(snapshot, &around(&board)).unwrap();
    assert_eq!(stands(&registrar, "registered", "").await.parent, isp.local_address().to_string());
    assert_eq!((root.report().entries, isp.report().entries), (1, 1));
    assert!(board.peers().borrow().is_empty());
    registrar.stop().await;
    above.stop().await;
}

#[tokio::test]
async fn a_root_that_comes_later_is_found_and_until_then_the_report_says_what_is_missing() {
    let state = TempDir::new().unwrap();
    let first = database(&state).await;
    let address = first.local_address();
    first.stop().await;
    let server = Direct::start(registrar_at(server("134.184.1.0/24"), address), &Arc::default()).unwrap();
    let sentence =
        format!("no database to register with was found after 1 questions; the last, {address}: no connection");
    stands(&server, "trying", &sentence).await;
    let snapshot = DatabaseSnapshot { listen: address, ..snapshot() };
    let root = Database::start(snapshot, state.path()).await.unwrap();
    becomes(&root, 1).await;
    server.stop().await;
}

#[tokio::test]
async fn roots_that_do_not_speak_our_language_are_quoted() {
    for (answer, said) in [
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "answered 503 Service Unavailable"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n<SERVERS>", "the answer of "),
    ] {
        let strange = Strange::start(Duration::ZERO, answer).await;
        let server = Direct::start(registrar_at(server("134.184.1.0/24"), strange.address), &Arc::default()).unwrap();
        let sentence =
            format!("no database to register with was found after 1 questions; the last, {}: {said}", strange.address);
        stands(&server, "trying", &sentence).await;
        assert!(strange.asked("QUERY") >= 1 && strange.asked("REGISTER") == 0);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_root_that_is_no_address_is_named_by_its_field() {
    let mut snapshot = registrar_at(server("134.184.1.0/24"), "127.0.0.1:1".parse().unwrap());
    snapshot.discovery.as_mut().unwrap().roots.push("a b".to_owned());
    let error = Direct::start(snapshot, &Arc::default()).unwrap_err().to_string();
    assert!(error.starts_with("discovery.roots[1]: database `a b`"), "{error}");
}

/// A root, the database of a country, and that of an ISP in it.
struct Hierarchy {
    root: Database,
    country: Database,
    isp: Database,
    registrars: Vec<Direct>,
    _states: [TempDir; 3],
}

impl Hierarchy {
    /// They know the root and what they are for.
    async fn start() -> Self {
        let states = [TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap()];
        let (root, country, isp) = (database(&states[0]).await, database(&states[1]).await, database(&states[2]).await);
        let of_country = start(below(country.local_address(), &[]), &root);
        becomes(&root, 1).await;
        let of_isp = start(below(isp.local_address(), &[ISP]), &root);
        becomes(&country, 1).await;
        Self { root, country, isp, registrars: vec![of_country, of_isp], _states: states }
    }
}

fn start(entry: Registration, root: &Database) -> Direct {
    Direct::start_beside(registrar(entry, root), &around(&Peering::default())).unwrap()
}

/// Waits until the first registration stands so.
async fn stands(registrar: &Direct, state: &str, error: &str) -> RegistrationReport {
    let mut changed = registrar.reports();
    let stands = |reports: &Vec<RegistrationReport>| {
        let said = |report: &RegistrationReport| report.last_refusal.as_deref().unwrap_or_default().starts_with(error);
        reports.first().is_some_and(|report| report.state == state && said(report))
    };
    let seen = timeout(PATIENCE, changed.wait_for(stands)).await;
    seen.unwrap_or_else(|_| panic!("{:?}", registrar.report())).unwrap()[0].clone()
}

/// The database at the address of its registration, for these networks of Belgium.
fn below(address: SocketAddr, networks: &[&str]) -> Registration {
    Registration {
        entry_type: EntryType::TunnelDatabase,
        source: address.ip(),
        port: NonZeroU16::new(address.port()).unwrap(),
        protocol: None,
        networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
        country: Some("BE".parse().unwrap()),
        scheme: castgate_control::Scheme::Http,
    }
}

fn server(network: &str) -> Registration {
    Registration {
        entry_type: EntryType::TunnelServer,
        protocol: Some(Protocol::Udp),
        ..below("127.0.2.1:10100".parse().unwrap(), &[network])
    }
}

fn registrar(entry: Registration, root: &Database) -> RegistrarSnapshot {
    registrar_at(entry, root.local_address())
}

fn registrar_at(entry: Registration, root: SocketAddr) -> RegistrarSnapshot {
    let mut snapshot = RegistrarSnapshot::new(vec![entry], Vec::new());
    snapshot.discovery = Some(RegistrarDiscovery {
        roots: vec![root.to_string()],
        login: "be".to_owned(),
        password: "s3cret".to_owned(),
        ca: None,
        role: DatabaseRole::Peer,
    });
    snapshot.retry_seconds = NonZeroU32::new(1).unwrap();
    snapshot
}

/// Surroundings with a board that the test reads and writes.
fn around(board: &Peering) -> Surroundings {
    Surroundings { peering: board.clone(), ..Surroundings::new(Path::new("/nonexistent")) }
}

async fn database(state: &TempDir) -> Database {
    Database::start(snapshot(), state.path()).await.unwrap()
}

/// A database that takes servers and databases of Belgium, each second anew.
fn snapshot() -> DatabaseSnapshot {
    let mut snapshot = parents::database("127.0.0.1:0");
    let allow = &mut snapshot.accounts[0].allow;
    allow.types = vec![EntryType::TunnelServer, EntryType::TunnelDatabase];
    allow.networks.push("127.0.0.0/8".parse().unwrap());
    snapshot.update_interval_seconds = NonZeroU32::new(1).unwrap();
    snapshot
}
