//! The draft's HTTP in front of the service: what old servers, databases and clients speak, answered by an adapter behind.

use std::net::SocketAddr;
use std::sync::Arc;

use castgate_agent::roles::adapter::Adapter;
use castgate_agent::roles::front::Front;
use castgate_agent::roles::registrar::Direct;
use castgate_control::{
    AdapterClient, AdapterPeers, AdapterRef, FrontSnapshot, Parent, PeersSnapshot, RegistrarSnapshot, TlsIdentity,
};
use tempfile::TempDir;

use crate::bed::{Bed, OTHER, SERVER, connected, eventually, key, wide};
use crate::parents::becomes;
use crate::raw_http::{self, Reply};

const FRONT: &str = "castgate/front@node-9";
const ENTRY: &str = "TYPE=TS&SOURCE=127.0.2.1&PORT=10100&PROTOCOL=UDP&COUNTRY=BE";

#[tokio::test]
async fn an_old_server_registers_and_an_old_client_finds_it() {
    let bed = Bed::new().await;
    let adapter = bed.adapter(&[bed.client(SERVER, &["BE"]), bed.client(FRONT, &[])]).await;
    let front = start(&bed, &adapter, |_| {}).await;
    let address = front.local_address();
    let login = format!("{SERVER}:{}", key(SERVER));

    let reply = get(address, &format!("ACTION=REGISTER&{ENTRY}"), Some(&login)).await;
    assert_eq!((reply.status, reply.field("x-castgate-update-interval")), (200, Some("300")), "{}", reply.body);
    assert_eq!((reply.field("cache-control"), bed.database.report().entries), (Some("no-store"), 1));
    connected(&adapter, SERVER, true).await;
    // A refresh is answered from what is known.
    assert_eq!(get(address, &format!("ACTION=REGISTER&{ENTRY}"), Some(&login)).await.status, 200);
    assert_eq!(bed.database.report().registers, 1);

    let found = get(address, "ACTION=QUERY&TYPE=TS&COUNTRY=BE", None).await;
    assert_eq!((found.status, found.field("content-type")), (200, Some("text/xml; charset=utf-8")));
    assert_eq!(found.field("x-castgate-match"), Some("country"));
    let servers = castgate_wire::registry::xml::parse_servers(found.body.as_bytes()).unwrap();
    assert_eq!((servers.len(), servers[0].port), (1, 10_100));
    let none = get(address, "ACTION=QUERY&TYPE=TS&COUNTRY=JP", None).await;
    assert_eq!((none.status, none.body.contains("<SERVERS/>")), (200, true), "{}", none.body);

    let bye = "ACTION=BYE&SOURCE=127.0.2.1&PORT=10100";
    assert_eq!(get(address, bye, Some(&login)).await.status, 200);
    assert_eq!(bed.database.report().entries, 0, "the goodbye is answered when it is said");
    assert_eq!(get(address, &format!("{bye}&STRICT=1"), Some(&login)).await.status, 404);
    assert_eq!(get(address, bye, Some(&login)).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn the_words_of_a_database_are_those_of_the_front() {
    let bed = Bed::new().await;
    let adapter = bed.adapter(&[bed.client(SERVER, &["BE"]), bed.client(OTHER, &["DE"]), bed.client(FRONT, &[])]).await;
    let front = start(&bed, &adapter, |_| {}).await;
    let address = front.local_address();
    let of_server = format!("{SERVER}:{}", key(SERVER));
    let register = format!("ACTION=REGISTER&{ENTRY}");
    for (pairs, login, status, said) in [
        (register.as_str(), None, 401, "login and password of an account are needed"),
        (&register, Some(format!("{SERVER}:{}", key(OTHER))), 401, "login and password"),
        (&register, Some("nobody:x".to_owned()), 401, "login and password"),
        (&register.replace("BE", "NL"), Some(of_server.clone()), 403, "is not among the entries that"),
        (&register.replace("TYPE=TS", "TYPE=TX"), Some(of_server.clone()), 400, "Parameter TYPE"),
        ("ACTION=TRANSFER", Some(of_server.clone()), 403, "no login of peers is given"),
        ("ACTION=DANCE", None, 400, "REGISTER, BYE, QUERY or TRANSFER"),
    ] {
        let reply = get(address, pairs, login.as_deref()).await;
        assert!(reply.status == status && reply.body.contains(said), "{pairs}: {} {}", reply.status, reply.body);
    }
    assert_eq!(bed.database.report().registers, 0);
    // A password in a POST body, as a database takes it.
    let body = format!("{register}&LOGIN={SERVER}&PASSWORD={}", key(SERVER)).replace('@', "%40");
    let request = format!(
        "POST /script/castgate.cgs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(raw_http::exchange(address, request.as_bytes()).await.status, 200);
    for (line, status) in [
        ("GET / HTTP/1.1", 404),
        ("PUT /script/castgate.cgs HTTP/1.1", 405),
        (&format!("GET /script/castgate.cgs?{} HTTP/1.1", "x".repeat(9_000)), 414),
    ] {
        let request = format!("{line}\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert_eq!(raw_http::exchange(address, request.as_bytes()).await.status, status, "{status}");
    }
}

#[tokio::test]
async fn a_country_that_the_databases_above_refuse_is_refused_with_their_words() {
    let bed = Bed::new().await;
    // The adapter permits it, the account of the adapter at the database does not.
    let adapter = bed.adapter(&[bed.client(OTHER, &["DE"]), bed.client(FRONT, &[])]).await;
    let front = start(&bed, &adapter, |_| {}).await;
    let login = format!("{OTHER}:{}", key(OTHER));
    let pairs = format!("ACTION=REGISTER&{}", ENTRY.replace("BE", "DE"));
    let reply = get(front.local_address(), &pairs, Some(&login)).await;
    assert!(
        reply.status == 403 && reply.body.contains("may not register country DE"),
        "{} {}",
        reply.status,
        reply.body
    );
}

#[tokio::test]
async fn a_login_that_is_known_no_longer_is_told_so() {
    let bed = Bed::new().await;
    let mut adapter = bed.adapter(&[bed.client(SERVER, &["BE"]), bed.client(FRONT, &[])]).await;
    let front = start(&bed, &adapter, |_| {}).await;
    let login = format!("{SERVER}:{}", key(SERVER));
    let register = async || get(front.local_address(), &format!("ACTION=REGISTER&{ENTRY}"), Some(&login)).await.status;
    assert_eq!(register().await, 200);
    adapter.apply(&bed.snapshot(&[bed.client(FRONT, &[])])).unwrap();
    becomes(&bed.database, 0).await;
    // Its stream may come again, as after any break; when it does not, the password is proven anew. The front may hear of it a
    // moment after the database.
    let mut status = 200;
    while status == 200 {
        status = register().await;
    }
    assert_eq!((status, register().await), (503, 401));
}

#[tokio::test]
async fn what_is_not_refreshed_is_taken_back_after_two_intervals() {
    let bed = Bed::new().await;
    let adapter = bed.adapter(&[bed.client(SERVER, &["BE"]), bed.client(FRONT, &[])]).await;
    let front = start(&bed, &adapter, |snapshot| snapshot.update_interval_seconds = 1.try_into().unwrap()).await;
    let login = format!("{SERVER}:{}", key(SERVER));
    let reply = get(front.local_address(), &format!("ACTION=REGISTER&{ENTRY}"), Some(&login)).await;
    assert_eq!(reply.field("x-castgate-update-interval"), Some("1"));
    let began = std::time::Instant::now();
    becomes(&bed.database, 0).await;
    assert!(began.elapsed() >= std::time::Duration::from_millis(1_500), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_entries_of_a_peer_are_transferred_through_the_front() {
    let bed = Bed::new().await;
    let state = TempDir::new().unwrap();
    let peer = wide(&state, |snapshot| {
        snapshot.peers = Some(PeersSnapshot::new(Vec::new(), "peer".to_owned(), "p33r".to_owned()));
    })
    .await;
    for n in 1..=120 {
        let pairs = format!("ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.{n}&PORT=10100&PROTOCOL=UDP&COUNTRY=BE");
        assert_eq!(get(peer.local_address(), &pairs, Some("be:s3cret")).await.status, 200);
    }
    let peers = AdapterPeers {
        members: vec![peer.local_address().to_string()],
        login: "peer".to_owned(),
        password: "p33r".to_owned(),
        ca: None,
    };
    let client = AdapterClient { peers: Some(peers), ..bed.client(SERVER, &[]) };
    let adapter = bed.adapter(&[client, bed.client(FRONT, &[])]).await;
    let front = start(&bed, &adapter, |_| {}).await;
    let basic = raw_http::basic(&format!("{SERVER}:{}", key(SERVER)));
    let request = format!("GET /script/castgate.cgs?ACTION=TRANSFER HTTP/1.0\r\n{basic}\r\n");
    let all = raw_http::exchange(front.local_address(), request.as_bytes()).await;
    let entries = castgate_wire::registry::xml::parse_transfer(all.body.as_bytes()).unwrap();
    assert_eq!((all.status, entries.len(), entries[0].login.as_str()), (200, 120, "be"));
}

#[tokio::test]
async fn without_the_service_behind_everybody_is_told_to_come_again_and_then_it_goes_on() {
    let bed = Bed::new().await;
    let clients = [bed.client(SERVER, &["BE"]), bed.client(FRONT, &[])];
    let adapter = bed.adapter(&clients).await;
    let address = adapter.local_address();
    let front = start(&bed, &adapter, |_| {}).await;
    adapter.stop().await;
    let login = format!("{SERVER}:{}", key(SERVER));
    for (pairs, login) in
        [("ACTION=QUERY&TYPE=TS&COUNTRY=BE", None), (&format!("ACTION=REGISTER&{ENTRY}"), Some(login.as_str()))]
    {
        let reply = get(front.local_address(), pairs, login).await;
        assert_eq!((reply.status, reply.field("retry-after")), (503, Some("1")), "{}", reply.body);
        assert!(reply.body.starts_with("the service behind this front does not answer: "), "{}", reply.body);
    }
    let snapshot = castgate_control::AdapterSnapshot { listen: address, ..bed.snapshot(&clients) };
    let _adapter = Adapter::start(snapshot, &bed.around("castgate/adapter@node-3")).await.unwrap();
    let reply = get(front.local_address(), &format!("ACTION=REGISTER&{ENTRY}"), Some(&login)).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    eventually("the database has it", || bed.database.report().entries == 1).await;
}

#[tokio::test]
async fn guesses_of_passwords_are_slowed_down() {
    let bed = Bed::new().await;
    let adapter = bed.adapter(&[bed.client(SERVER, &["BE"]), bed.client(FRONT, &[])]).await;
    let front = start(&bed, &adapter, |_| {}).await;
    let mut statuses = Vec::new();
    for guess in 0..70 {
        let login = format!("{SERVER}:guess-{guess}");
        statuses.push(get(front.local_address(), &format!("ACTION=REGISTER&{ENTRY}"), Some(&login)).await.status);
    }
    let refused = statuses.iter().filter(|status| **status == 401).count();
    let slowed = statuses.iter().filter(|status| **status == 429).count();
    assert!((60..=65).contains(&refused) && refused + slowed == 70, "{statuses:?}");
    // Questions need no password.
    assert_eq!(get(front.local_address(), "ACTION=QUERY&TYPE=TS&COUNTRY=BE", None).await.status, 200);
}

#[tokio::test]
async fn a_front_speaks_https_and_goes_back_to_http_without_a_restart() {
    let bed = Bed::new().await;
    let adapter = bed.adapter(&[bed.client(SERVER, &["BE"]), bed.client(FRONT, &[])]).await;
    let (certificate, its_key) = bed.authority.vouch_for("127.0.0.1");
    let tls = TlsIdentity { certificate, key: its_key };
    let mut snapshot = of(&adapter);
    snapshot.tls = Some(TlsIdentity { key: "nonsense".to_owned(), ..tls.clone() });
    let error = Front::start(&snapshot, &bed.around(FRONT)).await.unwrap_err().to_string();
    assert!(error.starts_with("tls.key: "), "{error}");
    snapshot.tls = Some(tls);
    let mut front = Front::start(&snapshot, &bed.around(FRONT)).await.unwrap();
    let address = front.local_address();
    let login = format!("{SERVER}:{}", key(SERVER));

    let parent = |ca: &str| Parent {
        url: format!("https://{address}"),
        login: SERVER.to_owned(),
        password: key(SERVER),
        ca: Some(ca.to_owned()),
    };
    let entries = bed.client(SERVER, &["BE"]).entries;
    let stranger = RegistrarSnapshot::new(entries.clone(), vec![parent(&crate::fleet::Authority::new().pem)]);
    let stranger = Direct::start(stranger, &Arc::default()).unwrap();
    eventually("it is not believed", || {
        let said = stranger.report()[0].last_refusal.clone().unwrap_or_default();
        said.contains("has a certificate that cannot be used: ")
    })
    .await;
    stranger.stop().await;
    let server = Direct::start(RegistrarSnapshot::new(entries, vec![parent(&bed.authority.pem)]), &Arc::default());
    becomes(&bed.database, 1).await;
    server.unwrap().stop().await;
    becomes(&bed.database, 0).await;

    let in_the_clear = get(address, &format!("ACTION=REGISTER&{ENTRY}"), Some(&login)).await;
    assert_eq!(in_the_clear.status, 400);
    assert!(in_the_clear.body.contains("https is spoken here"), "{}", in_the_clear.body);
    snapshot.tls = None;
    front.apply(&snapshot).unwrap();
    assert_eq!(get(address, &format!("ACTION=REGISTER&{ENTRY}"), Some(&login)).await.status, 200);
    front.stop().await;
}

fn of(adapter: &Adapter) -> FrontSnapshot {
    let endpoint = format!("https://{}", adapter.local_address());
    FrontSnapshot::new("127.0.0.1:0".parse().unwrap(), AdapterRef { endpoint, key: key(FRONT) })
}

async fn start(bed: &Bed, adapter: &Adapter, edit: impl FnOnce(&mut FrontSnapshot)) -> Front {
    let mut snapshot = of(adapter);
    edit(&mut snapshot);
    Front::start(&snapshot, &bed.around(FRONT)).await.unwrap()
}

async fn get(address: SocketAddr, pairs: &str, credentials: Option<&str>) -> Reply {
    raw_http::get(address, pairs, credentials).await
}
