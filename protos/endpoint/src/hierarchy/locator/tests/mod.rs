//! Walks through hierarchies that stand as tables in the test.

mod race;
mod walk;

use std::collections::HashMap;

use castgate_wire::registry::{Protocol, Scheme};
use proptest::prelude::*;

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// Databases by address, with what each answers.
#[derive(Default)]
struct World(HashMap<String, Result<Vec<Server>, String>>);

impl World {
    fn answers(&mut self, address: &str, answer: Result<Vec<Server>, &str>) {
        self.0.insert(address.to_owned(), answer.map_err(ToOwned::to_owned));
    }

    /// Walks to the end; also returns who was asked.
    fn walk(&self, mut locator: Locator) -> (Step, Vec<String>) {
        let mut asks = Vec::new();
        while let Step::Ask(ask) = poll(&mut locator) {
            let address = ask.address.to_string();
            let result = self.0.get(&address).cloned().unwrap_or_else(|| Err("no route".to_owned()));
            asks.push(address);
            locator.handle_answer(ask.id, result.map(answer));
        }
        (poll(&mut locator), asks)
    }
}

/// The next step, where nothing is open.
fn poll(walk: &mut Locator) -> Step {
    walk.poll(now()).expect("nothing is open")
}

/// Whom the next step asks.
fn ask(walk: &mut Locator, now: Instant) -> (SocketAddr, TaskId) {
    asked(walk.poll(now).expect("somebody is left to be asked"))
}

fn asked(step: Step) -> (SocketAddr, TaskId) {
    match step {
        Step::Ask(ask) => (ask.address, ask.id),
        other => panic!("expected a question, not {other:?}"),
    }
}

fn service_of(step: Step, expected: &str) -> TaskId {
    match step {
        Step::ResolveService { id, name } if name == expected => id,
        other => panic!("expected {expected}, not {other:?}"),
    }
}

fn address_of(step: Step, expected: &str) -> TaskId {
    match step {
        Step::ResolveAddress { id, name } if name == expected => id,
        other => panic!("expected {expected}, not {other:?}"),
    }
}

fn now() -> Instant {
    Instant::now()
}

fn locator(names: &[&str], cache: Option<Cache>) -> Locator {
    Locator::new(roots(names), wanted(), cache, 1, NOW)
}

fn wanted() -> Wanted {
    Wanted { country: Some("BE".parse().unwrap()), protocol: ProtocolFilter::Only(Protocol::Udp) }
}

fn roots(names: &[&str]) -> Vec<DatabaseAddress> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn answer(servers: Vec<Server>) -> Answer {
    Answer { servers, tier: None }
}

fn found(step: Step) -> Found {
    match step {
        Step::Found(found) => found,
        other => panic!("expected servers, not {other:?}"),
    }
}

fn addresses(servers: &[Server]) -> Vec<String> {
    servers.iter().map(|server| format!("{}:{}", server.address, server.port)).collect()
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> ServiceTarget {
    ServiceTarget { priority, weight, port, target: target.to_owned() }
}

fn ts(address: &str) -> Server {
    server(address, EntryType::TunnelServer, Protocol::Udp)
}

fn tds(address: &str) -> Server {
    server(address, EntryType::TunnelDatabase, Protocol::Tcp)
}

fn server(address: &str, entry_type: EntryType, protocol: Protocol) -> Server {
    let address: SocketAddr = address.parse().unwrap();
    let (address, port) = (address.ip(), address.port());
    Server {
        address,
        port,
        entry_type,
        protocol: Some(protocol),
        prefix_len: None,
        fed_by: Vec::new(),
        scheme: Scheme::Http,
    }
}
