//! A database, an adapter below it, and agents below that.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use castgate_agent::Surroundings;
use castgate_agent::report::{ClientReport, RegistrationReport};
use castgate_agent::roles::adapter::Adapter;
use castgate_agent::roles::database::Database;
use castgate_agent::roles::registrar::Registrar;
use castgate_control::{
    AdapterClient, AdapterRef, AdapterSnapshot, DatabaseRole, DatabaseSnapshot, EntryType, Parent, Protocol,
    RegistrarDiscovery, RegistrarSnapshot, Registration, TlsIdentity,
};
use castgate_rpc::v1::hierarchy_client::HierarchyClient;
use castgate_rpc::v1::{Entry, RegisterRequest, RegisterState};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::fleet::Authority;
use crate::parents::{PATIENCE, database};

pub const SERVER: &str = "castgate/ts-one@node-1";
pub const OTHER: &str = "castgate/ts-two@node-2";

/// A database of ours, an authority that agents trust, and a place for files.
pub struct Bed {
    pub authority: Authority,
    pub directory: TempDir,
    pub database: Database,
}

impl Bed {
    pub async fn new() -> Self {
        Self::with_interval(300).await
    }

    pub async fn refreshed_every_second() -> Self {
        Self::with_interval(1).await
    }

    pub async fn with_interval(seconds: u32) -> Self {
        let (authority, directory) = (Authority::new(), TempDir::new().unwrap());
        let mut snapshot = database("127.0.0.1:0");
        snapshot.update_interval_seconds = NonZeroU32::new(seconds).unwrap();
        let database = Database::start(snapshot, directory.path()).await.unwrap();
        let bed = Self { authority, directory, database };
        std::fs::write(bed.ca(), &bed.authority.pem).unwrap();
        bed
    }

    pub fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    pub fn around(&self, agent: &str) -> Surroundings {
        Surroundings { agent: agent.to_owned(), ..Surroundings::new(self.directory.path()).trusting(&self.ca()) }
    }

    pub fn client(&self, agent: &str, countries: &[&str]) -> AdapterClient {
        AdapterClient {
            agent: agent.to_owned(),
            key: key(agent),
            entries: entries("127.0.2.1", countries),
            parents: vec![parent(&self.database.local_address().to_string())],
            discovery: None,
            peers: None,
            interval_seconds: NonZeroU32::new(300).unwrap(),
        }
    }

    pub fn snapshot(&self, clients: &[AdapterClient]) -> AdapterSnapshot {
        let (certificate, key) = self.authority.vouch_for("127.0.0.1");
        AdapterSnapshot {
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: TlsIdentity { certificate, key },
            clients: clients.to_vec(),
            grace_seconds: NonZeroU32::new(1).unwrap(),
        }
    }

    pub async fn adapter(&self, clients: &[AdapterClient]) -> Adapter {
        Adapter::start(self.snapshot(clients), &self.around("castgate/adapter@node-3")).await.unwrap()
    }

    pub fn agent(&self, agent: &str, adapter: &Adapter, countries: &[&str]) -> Registrar {
        self.agent_with(agent, adapter, countries, key(agent))
    }

    pub fn agent_at(&self, agent: &str, adapter: &Adapter, source: &str, countries: &[&str]) -> Registrar {
        let mut snapshot = through(adapter, countries, key(agent));
        snapshot.entries = entries(source, countries);
        Registrar::start(snapshot, &self.around(agent)).unwrap()
    }

    pub fn agent_with(&self, agent: &str, adapter: &Adapter, countries: &[&str], key: String) -> Registrar {
        Registrar::start(through(adapter, countries, key), &self.around(agent)).unwrap()
    }

    /// The same service by hand.
    pub async fn stream(
        &self,
        agent: &str,
        adapter: &Adapter,
    ) -> (mpsc::Sender<RegisterRequest>, Streaming<RegisterState>) {
        let mut client = self.hierarchy(adapter).await;
        let entries = entries("127.0.2.1", &["BE"]).iter().map(Entry::from).collect();
        let first = RegisterRequest { agent: agent.to_owned(), entries, ..RegisterRequest::default() };
        let (requests, outgoing) = mpsc::channel(1);
        requests.send(first).await.unwrap();
        let request = signed(ReceiverStream::new(outgoing), &key(agent));
        (requests, client.register(request).await.unwrap().into_inner())
    }

    /// The adapter's service as anybody calls it.
    pub async fn hierarchy(&self, adapter: &Adapter) -> HierarchyClient<Channel> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.authority.pem));
        let endpoint = Endpoint::from_shared(format!("https://{}", adapter.local_address())).unwrap();
        HierarchyClient::new(endpoint.tls_config(tls).unwrap().connect().await.unwrap())
    }
}

/// A database that takes servers and databases of Belgium, with anything else as the test wants it.
pub async fn wide(state: &TempDir, edit: impl FnOnce(&mut DatabaseSnapshot)) -> Database {
    let mut snapshot = database("127.0.0.1:0");
    let allow = &mut snapshot.accounts[0].allow;
    allow.types = vec![EntryType::TunnelServer, EntryType::TunnelDatabase];
    allow.networks.push("127.0.0.0/8".parse().unwrap());
    edit(&mut snapshot);
    Database::start(snapshot, state.path()).await.unwrap()
}

/// An entry for these networks of Belgium.
pub fn entry(address: SocketAddr, protocol: Option<Protocol>, networks: &[&str]) -> Registration {
    Registration {
        entry_type: if protocol.is_some() { EntryType::TunnelServer } else { EntryType::TunnelDatabase },
        source: address.ip(),
        port: NonZeroU16::new(address.port()).unwrap(),
        protocol,
        networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
        country: Some("BE".parse().unwrap()),
        scheme: castgate_control::Scheme::Http,
    }
}

/// Parents are found from this root.
pub fn discovery(root: SocketAddr) -> RegistrarDiscovery {
    RegistrarDiscovery {
        roots: vec![root.to_string()],
        login: "be".to_owned(),
        password: "s3cret".to_owned(),
        ca: None,
        role: DatabaseRole::Peer,
    }
}

/// A call that shows a key.
pub fn signed<T>(message: T, key: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}

/// A registrar whose entries the adapter announces.
pub fn through(adapter: &Adapter, countries: &[&str], key: String) -> RegistrarSnapshot {
    let endpoint = format!("https://{}", adapter.local_address());
    let mut snapshot = RegistrarSnapshot::new(entries("127.0.2.1", countries), Vec::new());
    snapshot.adapter = Some(AdapterRef { endpoint, key });
    snapshot
}

pub fn key(agent: &str) -> String {
    format!("{agent:x<64}")
}

pub fn parent(address: &str) -> Parent {
    Parent { url: format!("http://{address}"), login: "be".to_owned(), password: "s3cret".to_owned(), ca: None }
}

pub fn entries(source: &str, countries: &[&str]) -> Vec<Registration> {
    let entry = |(port, country): (u16, &&str)| Registration {
        entry_type: EntryType::TunnelServer,
        source: source.parse().unwrap(),
        port: NonZeroU16::new(port).unwrap(),
        protocol: Some(Protocol::Udp),
        networks: Vec::new(),
        country: Some(country.parse().unwrap()),
        scheme: castgate_control::Scheme::Http,
    };
    (10100..).zip(countries).map(entry).collect()
}

/// Waits until the registrations of an agent stand so.
pub async fn stands(registrar: &Registrar, wanted: impl Fn(&[RegistrationReport]) -> bool) {
    let seen = timeout(PATIENCE, async {
        while !wanted(&registrar.report()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    seen.await.unwrap_or_else(|_| panic!("{:?}", registrar.report()));
}

pub async fn connected(adapter: &Adapter, agent: &str, wanted: bool) {
    let is = || adapter.report().iter().any(|client| client.agent == agent && client.connected == wanted);
    eventually(agent, is).await;
}

pub async fn becomes_report(adapter: &Adapter, wanted: &[ClientReport]) {
    eventually("the report", || adapter.report() == wanted).await;
}

pub async fn eventually(what: &str, is: impl Fn() -> bool) {
    let seen = timeout(PATIENCE, async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    seen.await.unwrap_or_else(|_| panic!("never: {what}"));
}
