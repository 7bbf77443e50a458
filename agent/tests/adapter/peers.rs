//! What a registrar that speaks to databases itself tells the other roles of its agent, through the adapter as well.

use std::net::SocketAddr;
use std::time::Duration;

use castgate_agent::Surroundings;
use castgate_agent::report::RegistrationReport;
use castgate_agent::roles::feeding::Feeding;
use castgate_agent::roles::peering::Peering;
use castgate_agent::roles::registrar::{Direct, Registrar};
use castgate_control::{AdapterClient, AdapterRef, RegistrarSnapshot};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::bed::{Bed, SERVER, discovery, entry, eventually, key, stands, wide};
use crate::parents::{PATIENCE, becomes};
use crate::raw_http;

const ISP: &str = "134.184.0.0/16";

#[tokio::test]
async fn a_database_behind_the_adapter_hears_of_its_peers_and_waits_for_their_entries() {
    let bed = Bed::new().await;
    let states = [TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap()];
    let root = wide(&states[0], |_| {}).await;
    let (first, second) = (wide(&states[1], |_| {}).await, wide(&states[2], |_| {}).await);
    let mut snapshot = RegistrarSnapshot::new(vec![entry(first.local_address(), None, &[ISP])], Vec::new());
    snapshot.discovery = Some(discovery(root.local_address()));
    let of_first = Direct::start_beside(snapshot, &bed.around("castgate/tdb-one@node-1")).unwrap();
    becomes(&root, 1).await;

    let entries = vec![entry(second.local_address(), None, &[ISP])];
    let client = AdapterClient {
        entries: entries.clone(),
        parents: Vec::new(),
        discovery: Some(discovery(root.local_address())),
        ..bed.client(SERVER, &[])
    };
    let adapter = bed.adapter(&[client]).await;
    let board = Peering::default();
    let around = Surroundings { peering: board.clone(), ..bed.around(SERVER) };
    let endpoint = format!("https://{}", adapter.local_address());
    let mut snapshot = RegistrarSnapshot::new(entries, Vec::new());
    snapshot.adapter = Some(AdapterRef { endpoint, key: key(SERVER) });
    let of_second = Registrar::start(snapshot, &around).unwrap();

    eventually("it hears of the first", || {
        *board.peers().borrow() == [castgate_control::DatabaseAddress::of_socket(first.local_address())]
    })
    .await;
    let waits = |reports: &[RegistrationReport]| {
        let said = reports[0].last_refusal.as_deref().unwrap_or_default();
        reports[0].state == "trying" && said.starts_with("waits for the entries of its peers")
    };
    stands(&of_second, waits).await;
    assert!(!*board.synchronised().borrow());
    assert_eq!(root.report().entries, 1, "nobody is sent to a database that is empty");

    board.set_synchronised(true);
    becomes(&root, 2).await;
    stands(&of_second, |reports| reports[0].state == "registered").await;
    assert_eq!(*board.peers().borrow(), [castgate_control::DatabaseAddress::of_socket(first.local_address())]);
    of_second.stop().await;
    becomes(&root, 1).await;
    of_first.stop().await;
}

#[tokio::test]
async fn the_chain_that_feeds_a_relay_is_announced_by_the_adapter() {
    let bed = Bed::new().await;
    let adapter = bed.adapter(&[bed.client(SERVER, &["BE"])]).await;
    let feeding = Feeding::default();
    feeding.set(vec!["192.0.2.9".parse().unwrap(), "192.0.2.8".parse().unwrap()]);
    let around = Surroundings { feeding: feeding.clone(), ..bed.around(SERVER) };
    let registrar = Registrar::start(crate::bed::through(&adapter, &["BE"], key(SERVER)), &around).unwrap();
    becomes(&bed.database, 1).await;
    let address = bed.database.local_address();
    // The first REGISTER may be on its way before the chain is known.
    chain_is(address, "192.0.2.9,192.0.2.8").await;
    feeding.set(vec!["192.0.2.7".parse().unwrap()]);
    chain_is(address, "192.0.2.7").await;
    registrar.stop().await;
}

/// Waits until the database hands out this chain with the only server that it knows.
async fn chain_is(database: SocketAddr, wanted: &str) {
    let wanted = format!("<FEDBY>{wanted}</FEDBY>");
    let seen = timeout(PATIENCE, async {
        while !raw_http::get(database, "ACTION=QUERY&TYPE=TS&COUNTRY=BE", None).await.body.contains(&wanted) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    seen.await.unwrap_or_else(|_| panic!("never: {wanted}"));
}
