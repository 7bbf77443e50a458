//! The database role over https: who is convinced, who is not, and what happens to those who say something else.

mod parents;
mod raw_http;
mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use castgate_agent::limits::raise_open_files;
use castgate_agent::roles::database::Database;
use castgate_agent::roles::registrar::Direct;
use castgate_client::{CacheFolder, DatabaseAddress, Dns, Locator, Trust};
use castgate_control::{
    AgentSnapshot, DatabaseSnapshot, EntryType, Parent, PeersSnapshot, Protocol, RegistrarSnapshot, Registration,
    Scheme, TlsFiles, TlsIdentity,
};
use parents::{PATIENCE, becomes};
use raw_http::{basic, exchange, try_get};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use support::program::Program;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const QUERY: &str = "ACTION=QUERY&TYPE=TS&COUNTRY=BE";
const REGISTER: &str = "ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.1&PORT=10100&PROTOCOL=UDP&COUNTRY=BE";

#[tokio::test]
async fn curl_and_openssl_are_convinced_and_take_a_password_there() {
    let authority = Authority::new("castgate test");
    let room = Room::start(&authority.vouch_for(&["127.0.0.1"])).await;
    let ca = room.file("ca.pem", &authority.pem);
    let url = format!("https://{}/script/castgate.cgs?", room.address);
    let curl = async |pairs: &str, more: &[&str]| {
        let url = format!("{url}{pairs}");
        run("curl", &[&["--silent", "--show-error", "--include", "--cacert", &ca], more, &[&url]].concat()).await
    };
    let registered = curl(REGISTER, &["--user", "be:s3cret"]).await;
    assert!(registered.starts_with("HTTP/1.1 200 OK"), "{registered}");
    let found = curl(QUERY, &["--tlsv1.2", "--tls-max", "1.2"]).await;
    assert!(found.contains("<ADDRESS>127.0.2.1</ADDRESS>"), "TLS 1.2 is spoken as well: {found}");
    let stranger = run("curl", &["--silent", "--show-error", &url]).await;
    assert!(stranger.contains("certificate"), "without the authority it is not believed: {stranger}");

    let place = room.address.to_string();
    let shown = run(
        "openssl",
        &[
            "s_client",
            "-connect",
            &place,
            "-CAfile",
            &ca,
            "-verify_return_error",
            "-verify_ip",
            "127.0.0.1",
            "-brief",
            "-alpn",
            "http/1.1",
        ],
    )
    .await;
    assert!(shown.contains("Verification: OK") && shown.contains("TLSv1.3"), "{shown}");
}

#[tokio::test]
async fn a_request_in_the_clear_is_told_what_is_spoken_and_its_password_is_not_looked_at() {
    let room = Room::start(&Authority::new("castgate test").vouch_for(&["127.0.0.1"])).await;
    let authorization = basic("be:s3cret");
    let get = format!("GET /script/castgate.cgs?{REGISTER} HTTP/1.1\r\nHost: x\r\n{authorization}\r\n");
    let post =
        format!("POST /script/castgate.cgs HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n{authorization}\r\nACTION=BY");
    for request in [get, post, "GET / HTTP/1.0\r\n\r\n".to_owned()] {
        let answer = exchange(room.address, request.as_bytes()).await;
        assert_eq!(answer.status, 400, "{request}");
        let said = answer.body.trim();
        assert!(said.ends_with("https is spoken here, and the request came in the clear"), "{said}");
    }
    let report = room.database.report();
    assert_eq!((report.entries, report.password_checks), (0, 0));
}

#[tokio::test]
async fn a_thousand_that_never_finish_their_handshake_disturb_nobody_and_are_all_cut_off() {
    raise_open_files();
    let authority = Authority::new("castgate test");
    let room = Room::start(&authority.vouch_for(&["127.0.0.1"])).await;
    let mut idle = tokio::task::JoinSet::new();
    for number in 0..1_040_u16 {
        let socket = TcpSocket::new_v4().unwrap();
        let from = Ipv4Addr::new(127, 67, 0, 1 + u8::try_from(number / 130).unwrap());
        socket.bind((from, 0).into()).unwrap();
        let mut stream = socket.connect(room.address).await.unwrap();
        // Half of them say nothing, half begin a handshake.
        if number % 2 == 0 {
            stream.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.unwrap();
        }
        idle.spawn(async move {
            let start = tokio::time::Instant::now();
            let _ = stream.read(&mut [0; 64]).await;
            start.elapsed()
        });
    }
    for _ in 0..5 {
        let found =
            timeout(Duration::from_secs(5), room.locate(&authority)).await.expect("others are answered at once");
        assert!(found.unwrap_err().contains("knows no tunnel server"), "nobody has registered");
    }
    tokio::time::pause();
    while let Some(life) = idle.join_next().await {
        let life = life.unwrap();
        assert!(life < Duration::from_secs(20), "{life:?}");
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart_and_connections_under_way_go_on() {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let listen: SocketAddr = "127.97.0.1:5632".parse().unwrap();
    let [old, new] = ["old authority", "new authority"].map(Authority::new);
    let write = |identity: &TlsIdentity| {
        // As a person does it: one after the other, in place.
        fs::write(directory.path().join("tls.crt"), &identity.certificate).unwrap();
        fs::write(directory.path().join("tls.key"), &identity.key).unwrap();
    };
    write(&old.vouch_for(&["127.97.0.1"]));
    let mut database = parents::database(&listen.to_string());
    database.tls_files = Some(TlsFiles { certificate: PathBuf::from("tls.crt"), key: PathBuf::from("tls.key") });
    let snapshot =
        AgentSnapshot { agent: "demo/database".to_owned(), database: Some(database), ..AgentSnapshot::default() };
    fs::write(directory.path().join("agent.yaml"), snapshot.to_yaml()).unwrap();
    let program = Program::start_in(directory.clone());
    program.wait_for("in force");
    let mut under_way = old.connect(listen).await.unwrap();
    keep_asking(&mut under_way).await;

    // A key of somebody else: the one before stays.
    let good = old.vouch_for(&["127.97.0.1"]);
    write(&TlsIdentity { key: new.vouch_for(&["127.97.0.1"]).key, ..good });
    let line = program.wait_for("refused");
    assert!(line.contains("WARN") && line.contains("database.tls.certificate and key"), "{line}");
    old.connect(listen).await.expect("the one before is shown");
    fs::write(directory.path().join("tls.crt"), "nonsense").unwrap();
    let line = program.wait_for("refused");
    assert!(line.contains("database.tls.certificate: holds no certificate in PEM"), "{line}");

    write(&new.vouch_for(&["127.97.0.1"]));
    program.wait_for("in force");
    new.connect(listen).await.expect("the new one is shown");
    let refused = old.connect(listen).await.err().expect("and the old one is not");
    assert_eq!(refused, "has a certificate that nobody has signed whom we trust");
    keep_asking(&mut under_way).await;
}

#[tokio::test]
async fn a_server_registers_over_https_with_whoever_proves_to_be_the_parent_and_with_nobody_else() {
    let [authority, other] = ["castgate test", "somebody else"].map(Authority::new);
    let room = Room::start(&authority.vouch_for(&["127.0.0.1", "localhost"])).await;
    let port = room.address.port();
    let told = |url: String, ca: Option<&str>| {
        let parent = Parent { url, login: "be".to_owned(), password: "s3cret".to_owned(), ca: ca.map(str::to_owned) };
        let mut snapshot = RegistrarSnapshot::new(vec![server()], vec![parent]);
        snapshot.retry_seconds = NonZeroU32::new(1).unwrap();
        Direct::start(snapshot, &Arc::default()).unwrap()
    };
    for (url, ca, sentence) in [
        (format!("https://127.0.0.1:{port}"), &other, "has a certificate that nobody has signed whom we trust"),
        (format!("http://127.0.0.1:{port}"), &other, "400: "),
    ] {
        let registrar = told(url.clone(), url.starts_with("https").then_some(ca.pem.as_str()));
        let said = refusal(&registrar).await;
        assert!(said.contains(sentence), "{url}: {said}");
        registrar.stop().await;
    }
    assert_eq!(room.database.report().password_checks, 0, "nobody was told the password");
    for name in ["127.0.0.1", "localhost"] {
        let registrar = told(format!("https://{name}:{port}"), Some(&authority.pem));
        becomes(&room.database, 1).await;
        registrar.stop().await;
        assert_eq!(room.database.report().entries, 0, "{name}: it says goodbye over https too");
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_or_another_time_is_refused_in_one_sentence() {
    let authority = Authority::new("castgate test");
    let expired = authority.sign(&["127.0.0.1"], |params| params.not_after = date_time_ymd(2020, 1, 1));
    let early = authority.sign(&["127.0.0.1"], |params| params.not_before = date_time_ymd(2100, 1, 1));
    for (identity, sentence) in [
        (authority.vouch_for(&["tds.example"]), "has a certificate that is not for this name"),
        (expired, "has a certificate that has expired"),
        (early, "has a certificate that is not valid yet"),
    ] {
        let room = Room::start(&identity).await;
        let error = room.locate(&authority).await.unwrap_err();
        let expected = format!(": {} {sentence}", room.address);
        assert!(error.ends_with(&expected), "{error} is not {expected}");
    }
    let plain = Room::start_with(|_| {}).await;
    let error = plain.locate(&authority).await.unwrap_err();
    assert!(error.ends_with("does not speak TLS"), "{error}");
}

#[tokio::test]
async fn a_database_over_https_says_so_when_it_registers_and_the_walk_goes_there_over_https() {
    let authority = Authority::new("castgate test");
    let below = Room::start(&authority.vouch_for(&["127.0.0.1"])).await;
    let root = Room::start(&authority.vouch_for(&["127.0.0.1"])).await;
    let above = |room: &Room, entry| {
        let (url, ca) = (format!("https://{}", room.address), Some(authority.pem.clone()));
        let parent = Parent { url, login: "be".to_owned(), password: "s3cret".to_owned(), ca };
        Direct::start(RegistrarSnapshot::new(vec![entry], vec![parent]), &Arc::default()).unwrap()
    };
    let entry = Registration {
        entry_type: EntryType::TunnelDatabase,
        source: below.address.ip(),
        port: NonZeroU16::new(below.address.port()).unwrap(),
        protocol: None,
        scheme: Scheme::Https,
        ..server()
    };
    let registrars = [above(&root, entry), above(&below, server())];
    becomes(&root.database, 1).await;
    becomes(&below.database, 1).await;
    assert_eq!(root.locate(&authority).await, Ok(vec!["127.0.2.1:10100".parse().unwrap()]));
    for registrar in registrars {
        registrar.stop().await;
    }
}

#[tokio::test]
async fn a_database_takes_the_entries_of_a_peer_over_https() {
    let authority = Authority::new("castgate test");
    let peers = |members: Vec<String>, ca: Option<String>| {
        Some(PeersSnapshot { ca, ..PeersSnapshot::new(members, "peer".to_owned(), "p33r".to_owned()) })
    };
    let identity = authority.vouch_for(&["127.0.0.1"]);
    let first = Room::start_with(|snapshot| {
        snapshot.tls = Some(identity);
        snapshot.peers = peers(Vec::new(), None);
    })
    .await;
    let registrar = {
        let (url, ca) = (format!("https://{}", first.address), Some(authority.pem.clone()));
        let parent = Parent { url, login: "be".to_owned(), password: "s3cret".to_owned(), ca };
        Direct::start(RegistrarSnapshot::new(vec![server()], vec![parent]), &Arc::default()).unwrap()
    };
    becomes(&first.database, 1).await;
    let member = format!("https://{}", first.address);
    let second = Room::start_with(|snapshot| snapshot.peers = peers(vec![member], Some(authority.pem.clone()))).await;
    becomes(&second.database, 1).await;
    registrar.stop().await;
}

#[tokio::test]
async fn a_database_goes_over_to_https_and_back_without_a_restart() {
    let authority = Authority::new("castgate test");
    let mut room = Room::start_with(|_| {}).await;
    assert_eq!(try_get(room.address, QUERY, None).await.map(|reply| reply.status), Some(200));
    let mut snapshot = room.snapshot.clone();
    snapshot.tls = Some(authority.vouch_for(&["127.0.0.1"]));
    room.database.apply(snapshot.clone()).await.unwrap();
    assert_eq!(try_get(room.address, QUERY, None).await.map(|reply| reply.status), Some(400));
    authority.connect(room.address).await.unwrap();
    let foreign = authority.vouch_for(&["127.0.0.1"]).key;
    let wrong = TlsIdentity { key: foreign, ..snapshot.tls.clone().unwrap() };
    let error = room.database.apply(DatabaseSnapshot { tls: Some(wrong), ..snapshot }).await.unwrap_err().to_string();
    assert!(error.starts_with("tls.certificate and key: "), "{error}");
    authority.connect(room.address).await.expect("it goes on as before");
    room.database.apply(room.snapshot.clone()).await.unwrap();
    assert_eq!(try_get(room.address, QUERY, None).await.map(|reply| reply.status), Some(200));
}

/// A database with a state of its own.
struct Room {
    state: TempDir,
    snapshot: DatabaseSnapshot,
    database: Database,
    address: SocketAddr,
}

impl Room {
    async fn start(identity: &TlsIdentity) -> Self {
        Self::start_with(|snapshot| snapshot.tls = Some(identity.clone())).await
    }

    async fn start_with(change: impl FnOnce(&mut DatabaseSnapshot)) -> Self {
        let state = TempDir::new().unwrap();
        let mut snapshot = parents::database("127.0.0.1:0");
        snapshot.accounts[0].allow.types.push(EntryType::TunnelDatabase);
        change(&mut snapshot);
        let database = Database::start(snapshot.clone(), state.path()).await.unwrap();
        let address = database.local_address();
        Self { state, snapshot, database, address }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.state.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// What a client of Belgium finds that starts here and believes this authority.
    async fn locate(&self, authority: &Authority) -> Result<Vec<std::net::SocketAddrV4>, String> {
        let root: DatabaseAddress = format!("https://{}", self.address).parse().unwrap();
        let dns = Dns::with_resolver("127.0.0.1:1").unwrap();
        let locator = Locator::new(vec![root], Some("BE".parse().unwrap()), dns, CacheFolder::none());
        locator.trusting(authority.trust()).servers().await.map_err(|error| error.to_string())
    }
}

/// Who signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn vouch_for(&self, names: &[&str]) -> TlsIdentity {
        self.sign(names, |_| {})
    }

    fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> TlsIdentity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        TlsIdentity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn trust(&self) -> Trust {
        Trust::only(&self.pem).unwrap()
    }

    async fn connect(&self, address: SocketAddr) -> Result<Box<dyn castgate_client::tls::Stream>, String> {
        let stream = TcpStream::connect(address).await.unwrap();
        let connected = self.trust().connect(Scheme::Https, stream, &address.to_string()).await;
        connected.map_err(|error| error.to_string())
    }
}

/// A request on a connection that stays.
async fn keep_asking(stream: &mut Box<dyn castgate_client::tls::Stream>) {
    let request = format!("GET /script/castgate.cgs?{QUERY} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(b"<SERVERS/>\n") {
        let length = timeout(PATIENCE, stream.read(&mut part)).await.unwrap().unwrap();
        assert_ne!(length, 0, "the connection was closed: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&part[..length]);
    }
}

/// Why the only registration does not stand.
async fn refusal(registrar: &Direct) -> String {
    let mut reports = registrar.reports();
    let said = timeout(PATIENCE, reports.wait_for(|reports| reports[0].last_refusal.is_some())).await;
    said.expect("it is refused").unwrap()[0].last_refusal.clone().unwrap()
}

fn server() -> Registration {
    Registration {
        entry_type: EntryType::TunnelServer,
        source: "127.0.2.1".parse().unwrap(),
        port: NonZeroU16::new(10_100).unwrap(),
        protocol: Some(Protocol::Udp),
        networks: Vec::new(),
        country: Some("BE".parse().unwrap()),
        scheme: Scheme::Http,
    }
}

/// What a program of others says, on both its outputs.
async fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(std::process::Stdio::null()).env_remove("SSL_CERT_FILE");
    let shown = program.to_owned();
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let output = output.unwrap_or_else(|error| panic!("{shown}: {error}; it is in the Debian package {shown}"));
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}
