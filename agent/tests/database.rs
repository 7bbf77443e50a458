//! The database role as its callers see it: real sockets on loopback, real files, raw HTTP.

mod raw_http;
mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use castgate_agent::roles::database::{Database, DatabaseError};
use castgate_control::{
    Account, AgentSnapshot, Allow, DatabaseSnapshot, EntryType, MatchSnapshot, PeersSnapshot, PolicySnapshot,
    PoolServerSnapshot, PoolSnapshot, Protocol, RoutesSnapshot, RuleSnapshot, ServerPlaceSnapshot,
};
use raw_http::{Reply, basic, exchange, get};
use rustix::process::Signal;
use support::program::Program;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

const REGISTER: &str =
    "ACTION=REGISTER&TYPE=TS&SOURCE=134.184.1.24&PORT=10100&PROTOCOL=UDP&NETWORKS=134.184.1.0/24&COUNTRY=BE";
const BYE: &str = "ACTION=BYE&SOURCE=134.184.1.24&PORT=10100";
const BY_COUNTRY: &str = "ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.1&PORT=10100&PROTOCOL=UDP&COUNTRY=BE";
const QUERY: &str = "ACTION=QUERY&TYPE=TS&COUNTRY=BE";
/// What is sure to come is waited for so long.
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_server_registers_is_found_and_says_goodbye() {
    let room = Room::new().await;
    let registered = room.get(BY_COUNTRY, Some("be:s3cret")).await;
    assert_eq!((registered.status, registered.body.as_str()), (200, ""));
    assert_eq!(registered.field("x-castgate-update-interval"), Some("300"));
    assert_eq!(registered.field("cache-control"), Some("no-store"));

    let found = room.get(QUERY, None).await;
    assert_eq!(found.status, 200);
    assert_eq!(found.field("content-type"), Some("text/xml; charset=utf-8"));
    assert_eq!(found.field("cache-control"), Some("no-store"));
    assert_eq!(found.field("x-castgate-match"), Some("country"));
    let servers = castgate_wire::registry::xml::parse_servers(found.body.as_bytes()).unwrap();
    assert_eq!(servers.len(), 1);
    assert_eq!(SocketAddr::new(servers[0].address, servers[0].port), "127.0.2.1:10100".parse().unwrap());

    let bye = "ACTION=BYE&SOURCE=127.0.2.1&PORT=10100";
    assert_eq!(room.get(bye, Some("be:s3cret")).await.status, 200);
    let gone = room.get(QUERY, None).await;
    assert_eq!((gone.status, gone.field("x-castgate-match")), (200, Some("none")));
    assert!(castgate_wire::registry::xml::parse_servers(gone.body.as_bytes()).unwrap().is_empty());
    assert_eq!(room.get(bye, Some("be:s3cret")).await.status, 200, "a second goodbye is none of our worries");
    assert_eq!(room.get(&format!("{bye}&strict=1"), Some("be:s3cret")).await.status, 404);
}

#[tokio::test]
async fn the_source_of_the_connection_decides_which_network_matches() {
    let room = Room::new().await;
    let local = "ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.1&PORT=10100&PROTOCOL=UDP&NETWORKS=127.0.3.0/24";
    assert_eq!(room.get(local, Some("be:s3cret")).await.status, 200);
    let request = format!("GET /script/castgate.cgs?{QUERY} HTTP/1.0\r\n\r\n");
    let inside = raw_http::exchange_from("127.0.3.1".parse().unwrap(), room.address, request.as_bytes()).await;
    assert_eq!(inside.field("x-castgate-match"), Some("network"));
    let outside = raw_http::exchange_from("127.0.9.1".parse().unwrap(), room.address, request.as_bytes()).await;
    assert_eq!(outside.field("x-castgate-match"), Some("none"));
}

#[tokio::test]
async fn without_the_right_password_nothing_is_registered_or_taken_back() {
    let room = Room::new().await;
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    for credentials in [None, Some("be:wrong"), Some("be:"), Some("nobody:s3cret"), Some("s3cret")] {
        for request in [REGISTER, "ACTION=BYE&SOURCE=127.0.2.1&PORT=10100"] {
            let reply = room.get(request, credentials).await;
            assert_eq!(reply.status, 401, "{credentials:?} {request}");
            assert!(reply.field("www-authenticate").unwrap().starts_with("Basic "), "{reply:?}");
        }
    }
    let in_url = room.get(&format!("{REGISTER}&LOGIN=be&PASSWORD=s3cret"), None).await;
    assert_eq!(in_url.status, 401, "a password in a URL is not taken");
    assert_eq!(room.database.report().entries, 1);
}

#[tokio::test]
async fn a_claim_beyond_the_account_is_refused_in_a_sentence_that_names_it() {
    let room = Room::new().await;
    for (request, named) in [
        ("TYPE=TDS&SOURCE=10.0.0.1&PORT=5632&COUNTRY=BE", "TYPE TDS"),
        ("TYPE=TS&SOURCE=10.0.0.1&PORT=1&PROTOCOL=UDP&COUNTRY=FR", "country FR"),
        ("TYPE=TS&SOURCE=10.0.0.1&PORT=1&PROTOCOL=UDP&NETWORKS=135.0.0.0/8", "network 135.0.0.0/8"),
        ("TYPE=TS&SOURCE=10.0.0.1&PORT=1&PROTOCOL=UDP&NETWORKS=0.0.0.0/0", "network 0.0.0.0/0"),
        ("TYPE=TS&SOURCE=11.0.0.1&PORT=1&PROTOCOL=UDP&COUNTRY=BE", "source 11.0.0.1"),
    ] {
        let reply = room.get(&format!("ACTION=REGISTER&{request}"), Some("be:s3cret")).await;
        assert_eq!(
            (reply.status, reply.body.trim_end()),
            (
                403,
                &*format!(
                    "this account may not register {}",
                    if named.starts_with("TYPE") { format!("entries of {named}") } else { named.to_owned() }
                )
            )
        );
    }
    assert_eq!(room.database.report().entries, 0);
}

#[tokio::test]
async fn goodbye_is_for_ones_own_entries() {
    let room = Room::new().await;
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    let foreign = room.get("ACTION=BYE&SOURCE=127.0.2.1&PORT=10100", Some("fr:s3cret")).await;
    assert_eq!(foreign.status, 403);
    assert!(foreign.body.contains("another account"), "{foreign:?}");
    assert_eq!(room.database.report().entries, 1);
}

#[tokio::test]
async fn a_body_carries_credentials_and_a_list_of_networks_that_no_url_can() {
    let room = Room::new().await;
    let networks: Vec<String> =
        (0..=65_535_u32).step_by(16).map(|n| format!("134.{}.{}.0/24", n >> 8, n & 255)).collect();
    let body = format!(
        "ACTION=REGISTER&TYPE=TS&SOURCE=10.0.0.1&PORT=1&PROTOCOL=UDP&NETWORKS={}&LOGIN=be&PASSWORD=s3cret",
        networks.join(",")
    );
    assert!(body.len() > 60_000);
    let request = format!("GET /script/castgate.cgs?{body} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(exchange(room.address, request.as_bytes()).await.status, 414);
    assert_eq!(room.post("/script/castgate.cgs", &body, "").await.status, 200);

    let typed = "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n";
    assert_eq!(room.post("/script/castgate.cgs?ACTION=QUERY", "TYPE=TS&COUNTRY=BE", typed).await.status, 200);
    assert_eq!(room.post("/script/castgate.cgs", QUERY, "Content-Type: text/xml\r\n").await.status, 400);
    let wrong = body.replace("s3cret", "wrong");
    assert_eq!(room.post("/script/castgate.cgs", &wrong, "").await.status, 401);
    let huge = format!("{body}&X={}", "x".repeat(1 << 20));
    assert_eq!(room.post("/script/castgate.cgs", &huge, "").await.status, 413);
}

#[tokio::test]
async fn a_refresh_with_the_same_password_costs_no_second_check() {
    let room = Room::new().await;
    for _ in 0..5 {
        assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    }
    let report = room.database.report();
    assert_eq!((report.registers, report.password_checks, report.entries), (5, 1, 1));
}

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
    timeout(support::PATIENCE, entries.wait_for(|entries| *entries == 0)).await.expect("it goes by itself").unwrap();
    let life = at.elapsed();
    assert!((Duration::from_millis(1_900)..Duration::from_secs(4)).contains(&life), "{life:?}");
    assert_eq!(room.get(QUERY, None).await.field("x-castgate-match"), Some("none"));
    room.database.stop().await;
    let again = Room::start(snapshot(), room.state).await;
    assert_eq!(again.database.report().entries, 0);
}

#[tokio::test]
async fn liberal_requests_are_understood() {
    let room = Room::new().await;
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    for request in [
        "GET /script/castgate.cgs?ACTION=QUERY&TYPE=TS&COUNTRY=BE HTTP/1.0\r\n\r\n",
        "GET /cgi-bin/CastGate.cgs?action=query;type=ts;country=be;colour=blue HTTP/1.0\r\n\r\n",
        "GET http://tds.example/script/castgate.cgs?ACTION=QUERY&TYPE=0&COUNTRY=%22BE%22 HTTP/1.1\r\nConnection: close\r\n\r\n",
        "POST /script/castgate.cgs HTTP/1.0\r\nContent-Length: 33\r\n\r\nACTION=QUERY&TYPE=TS&COUNTRY=BE\r\n",
    ] {
        let reply = exchange(room.address, request.as_bytes()).await;
        assert_eq!((reply.status, reply.field("x-castgate-match")), (200, Some("country")), "{request}\n{reply:?}");
    }
    let unknown = room.get("ACTION=QUERY&TYPE=TS&COUNTRY=ZZ", None).await;
    assert_eq!(unknown.status, 200, "not to know one's country is no error");
}

#[tokio::test]
async fn malformed_requests_are_answered_with_a_status_and_change_nothing() {
    let room = Room::new().await;
    let long = "x".repeat(9_000);
    let monstrous = "x".repeat(200_000);
    let get = |target: &str| format!("GET {target} HTTP/1.0\r\n\r\n");
    let ours = |pairs: &str| get(&format!("/script/castgate.cgs?{pairs}"));
    let cases = [
        (get("/"), 404),
        (get("/script/castgate.cgs.bak?ACTION=QUERY"), 404),
        (get("/script/castgate.cgs"), 400),
        (ours("ACTION=QUERY"), 400),
        (ours("ACTION=DROP"), 400),
        (ours("ACTION=QUERY&TYPE=TX"), 400),
        (ours("ACTION=QUERY&TYPE=TS&COUNTRY=BEL"), 400),
        (ours("ACTION=QUERY&TYPE=TDS&NETWORK=1.2.3.4/33"), 400),
        (ours("ACTION=REGISTER&TYPE=TS&SOURCE=999.1.1.1&PORT=1&COUNTRY=BE"), 400),
        (ours("ACTION=REGISTER&TYPE=TS&SOURCE=10.0.0.1&PORT=0&COUNTRY=BE"), 400),
        (ours("ACTION=REGISTER&TYPE=TS&SOURCE=10.0.0.1&PORT=65536&COUNTRY=BE"), 400),
        (ours("ACTION=REGISTER&TYPE=TS&PORT=1&COUNTRY=BE"), 400),
        (ours("ACTION=REGISTER&TYPE=TS&SOURCE=10.0.0.1&PORT=1&NETWORKS=all"), 400),
        (ours("ACTION=BYE&SOURCE=10.0.0.1"), 400),
        (ours("ACTION=QUERY&TYPE=%ff%fe"), 400),
        (ours("ACTION=TRANSFER"), 401),
        (ours(&format!("ACTION=QUERY&TYPE=TS&X={long}")), 414),
        (ours(&format!("ACTION=QUERY&TYPE=TS&X={monstrous}")), 431),
        (ours("ACTION=QUERY&TYPE=TS").replace("GET", "HEAD"), 405),
        (ours("ACTION=QUERY&TYPE=TS").replace("GET", "DELETE"), 405),
        (ours("ACTION=QUERY&TYPE=TS").replace("GET", "get"), 405),
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET /script/castgate.cgs HTTP/9.9\r\n\r\n".to_owned(), 400),
        ("POST /script/castgate.cgs HTTP/1.0\r\nContent-Length: -1\r\n\r\n".to_owned(), 400),
        ("POST /script/castgate.cgs HTTP/1.0\r\nContent-Length: 4\r\n\r\n\u{fffd}x".to_owned(), 400),
        ("POST /script/castgate.cgs HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(), 400),
    ];
    for (request, status) in cases {
        let reply = exchange(room.address, request.as_bytes()).await;
        let shown: String = request.chars().take(100).collect();
        assert_eq!(reply.status, status, "{shown}\n{reply:?}");
    }
    let head = exchange(room.address, ours("ACTION=QUERY&TYPE=TS").replace("GET", "HEAD").as_bytes()).await;
    assert_eq!((head.field("allow"), head.body.as_str()), (Some("GET, POST"), ""));
    // Whatever came: it is still there, and empty.
    assert_eq!(room.get(QUERY, None).await.status, 200);
    assert_eq!(room.database.report().entries, 0);
}

#[tokio::test]
async fn an_address_that_asks_too_often_is_told_when_to_come_again_and_others_are_not() {
    let mut strict = snapshot();
    strict.requests_per_minute_max = NonZeroU32::new(5).unwrap();
    let room = Room::start(strict, TempDir::new().unwrap()).await;
    for _ in 0..5 {
        assert_eq!(room.get(QUERY, None).await.status, 200);
    }
    let refused = room.get(QUERY, None).await;
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert_eq!(refused.status, 429);
    assert!((1..=12).contains(&wait), "{wait}");
    let request = format!("GET /script/castgate.cgs?{QUERY} HTTP/1.0\r\n\r\n");
    let other = raw_http::exchange_from("127.0.3.1".parse().unwrap(), room.address, request.as_bytes()).await;
    assert_eq!(other.status, 200);
}

#[tokio::test]
async fn guessing_passwords_is_slowed_down_and_costs_no_more_checks() {
    let room = Room::new().await;
    let mut statuses = Vec::new();
    for n in 0..70 {
        statuses.push(room.get(REGISTER, Some(&format!("be:guess{n}"))).await.status);
    }
    assert!(statuses[..60].iter().all(|status| *status == 401), "{statuses:?}");
    assert_eq!(statuses[69], 429);
    let checks = room.database.report().password_checks;
    assert!(checks < 70, "{checks}");
    assert_eq!(room.get(QUERY, None).await.status, 200, "asking is another matter");
}

#[tokio::test]
async fn whoever_dawdles_over_a_request_is_cut_off() {
    let room = Room::new().await;
    // From here on time jumps to the next timer whenever nothing else is to be done.
    tokio::time::pause();
    let body = "POST /script/castgate.cgs HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nACT";
    assert_eq!(exchange(room.address, body.as_bytes()).await.status, 408);
    for beginning in ["", "GET /script/castgate.cgs?ACTION=QUERY", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let start = tokio::time::Instant::now();
        let answer = raw_http::octets_until_closed(room.address, beginning.as_bytes()).await;
        assert!(start.elapsed() < Duration::from_secs(20), "{beginning}: {:?}", start.elapsed());
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn another_snapshot_changes_accounts_and_bounds_without_a_restart() {
    let mut room = Room::new().await;
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    let mut changed = snapshot();
    changed.accounts[0].password_hash = hash("n3w");
    changed.update_interval_seconds = NonZeroU32::new(60).unwrap();
    room.database.apply(changed.clone()).await.unwrap();
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 401, "the old password is forgotten at once");
    let refreshed = room.get(BY_COUNTRY, Some("be:n3w")).await;
    assert_eq!((refreshed.status, refreshed.field("x-castgate-update-interval")), (200, Some("60")));

    let mut broken = changed.clone();
    broken.accounts[1].password_hash = "$argon2id$nonsense".to_owned();
    let error = room.database.apply(broken).await.unwrap_err().to_string();
    assert!(error.starts_with("accounts: account `fr`: the password hash is not a PHC string"), "{error}");
    let mut moved = changed.clone();
    moved.listen.set_port(1);
    assert!(matches!(room.database.apply(moved).await, Err(DatabaseError::Moved(_))));
    assert_eq!(room.database.report().entries, 1);

    changed.accounts.remove(0);
    room.database.apply(changed).await.unwrap();
    assert_eq!(room.database.report().entries, 0, "entries go with their account");
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
                    match raw_http::try_get(address, &request, Some("be:s3cret")).await {
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

#[tokio::test]
async fn a_password_is_changed_without_turning_anybody_away() {
    let mut room = Room::new().await;
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    let mut both = snapshot();
    both.accounts[0].previous_password_hash =
        Some(std::mem::replace(&mut both.accounts[0].password_hash, hash("fresh")));
    room.database.apply(both.clone()).await.unwrap();
    let told = |room: &Room| room.database.report().rotations.into_iter().next().map(|row| row.previous_shown);
    assert_eq!(room.get(BY_COUNTRY, Some("be:fresh")).await.status, 200);
    assert_eq!(told(&room), Some(None), "nobody showed the one before");
    for password in ["s3cret", "fresh", "s3cret"] {
        assert_eq!(room.get(BY_COUNTRY, Some(&format!("be:{password}"))).await.status, 200);
    }
    let since = room.database.report().rotations[0].since;
    assert!(told(&room).flatten().is_some_and(|shown| shown >= since), "{:?}", room.database.report().rotations);
    both.accounts[0].previous_password_hash = None;
    room.database.apply(both).await.unwrap();
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 401);
    assert_eq!(room.get(BY_COUNTRY, Some("be:fresh")).await.status, 200);
    assert_eq!((room.database.report().entries, told(&room)), (1, None));
}

#[tokio::test]
async fn a_policy_change_moves_a_client_with_its_next_query_and_is_counted() {
    let mut room = Room::new().await;
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    let other = "ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.2&PORT=10100&PROTOCOL=UDP&NETWORKS=134.184.1.0/24";
    assert_eq!(room.get(other, Some("be:s3cret")).await.status, 200);
    let found = |reply: &Reply| {
        let servers = castgate_wire::registry::xml::parse_servers(reply.body.as_bytes()).unwrap();
        let places: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
        (reply.field("x-castgate-match").map(str::to_owned), places.join(" "))
    };
    let tier = |tier: &str, server: &str| (Some(tier.to_owned()), server.to_owned());
    assert_eq!(found(&room.get(QUERY, None).await), tier("country", "127.0.2.1"));
    let routes = room.state.path().join("routes.csv");
    std::fs::write(&routes, "127.0.0.0/8,64500\n").unwrap();
    let with = |server: &str| DatabaseSnapshot { policies: vec![policy(&routes, server)], ..snapshot() };
    room.database.apply(with("127.0.2.2:10100")).await.unwrap();
    assert_eq!(found(&room.get(QUERY, None).await), tier("tsap", "127.0.2.2"));
    assert_eq!(found(&room.get(QUERY, None).await), tier("tsap", "127.0.2.2"));
    let report = room.database.report();
    let rule = &report.rules[0];
    assert_eq!((rule.policy.as_str(), rule.rule.as_str(), rule.clients, rule.answers), ("p", "customer", 1, 2));
    room.database.apply(with("127.0.2.9:10100")).await.unwrap();
    assert_eq!(found(&room.get(QUERY, None).await), tier("country", "127.0.2.1"), "who is not registered gets nobody");
    std::fs::write(&routes, "127.0.0.0/8;64500\n# and longer\n").unwrap();
    let error = room.database.apply(with("127.0.2.2:10100")).await.unwrap_err().to_string();
    assert!(error.starts_with("policies[0].routes.file: ") && error.contains("line 1"), "{error}");
    room.database.apply(snapshot()).await.unwrap();
    assert_eq!(found(&room.get(QUERY, None).await), tier("country", "127.0.2.1"));
    assert!(room.database.report().rules.is_empty());
}

#[tokio::test]
async fn an_account_of_an_autonomous_system_registers_what_the_route_table_gives_it() {
    let state = TempDir::new().unwrap();
    let table = state.path().join("routes.csv");
    std::fs::write(&table, "134.184.0.0/16,64500\n134.185.0.0/16,64500\n134.186.0.0/16,64501\n").unwrap();
    let mut snapshot = snapshot();
    snapshot.routes = Some(RoutesSnapshot { file: Some(table.clone()), rows: Vec::new() });
    let allow = &mut snapshot.accounts[0].allow;
    (allow.networks, allow.asns) = (Vec::new(), vec![64_500]);
    let room = Room::start(snapshot, state).await;
    let register = |third: u8| {
        format!("ACTION=REGISTER&TYPE=TS&SOURCE=134.184.1.{third}&PORT=1&PROTOCOL=UDP&NETWORKS=134.{third}.0.0/16")
    };
    for third in [184, 185] {
        assert_eq!(room.get(&register(third), Some("be:s3cret")).await.status, 200);
    }
    let refused = room.get(&register(186), Some("be:s3cret")).await;
    assert_eq!(
        (refused.status, refused.body.trim()),
        (403, "this account may not register network 134.186.0.0/16, which is of AS 64501 and not of AS 64500")
    );

    // Another table is in force without a restart, and what it does not give any more is gone.
    let mut entries = room.database.entries();
    let fresh = room.state.path().join("fresh.csv");
    std::fs::write(&fresh, "134.184.0.0/16,64500\n134.186.0.0/16,64500\n").unwrap();
    std::fs::rename(&fresh, &table).unwrap();
    timeout(LONG, entries.wait_for(|entries| *entries == 1)).await.unwrap().unwrap();
    assert_eq!(room.get(&register(185), Some("be:s3cret")).await.status, 403);
    assert_eq!(room.get(&register(186), Some("be:s3cret")).await.status, 200);
    let audit = std::fs::read_to_string(room.state.path().join("audit.log")).unwrap();
    for (outcome, about) in [("changed", "route table"), ("gone", "TS 134.184.1.185 1 UDP")] {
        let line = format!("\"outcome\":\"{outcome}\",\"about\":\"{about}\"");
        assert!(audit.contains(&line), "{line}: {audit}");
    }

    // One that cannot be read changes nothing.
    std::fs::write(&fresh, "134.184.0.0;16\n").unwrap();
    std::fs::rename(&fresh, &table).unwrap();
    std::fs::write(&fresh, "134.184.0.0/16,64500\n").unwrap();
    std::fs::rename(&fresh, &table).unwrap();
    timeout(LONG, entries.wait_for(|entries| *entries == 1)).await.unwrap().unwrap();
    assert_eq!(room.database.report().entries, 1, "what the second table gave went with the third");
}

#[tokio::test]
async fn a_strict_database_refuses_networks_elsewhere_and_other_regions_hold_with_the_next_query() {
    let mut room = Room::new().await;
    let apart = "ACTION=REGISTER&TYPE=TS&SOURCE=10.0.0.1&PORT=1&PROTOCOL=UDP&NETWORKS=134.184.1.0/24";
    assert_eq!(room.get(apart, Some("be:s3cret")).await.status, 200);
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    let of_ireland = "ACTION=QUERY&TYPE=TS&COUNTRY=IE";
    assert_eq!(room.get(of_ireland, None).await.field("x-castgate-match"), Some("none"));
    let countries = ["BE", "IE"].map(|code| code.parse().unwrap()).to_vec();
    let regions = [("Channel".to_owned(), countries)].into();
    room.database.apply(DatabaseSnapshot { strict_source: true, regions, ..snapshot() }).await.unwrap();
    assert_eq!(room.database.report().entries, 1, "what is not allowed any more is gone");
    let refused = room.get(apart, Some("be:s3cret")).await;
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("network 134.184.1.0/24 with source 10.0.0.1: strictSource"), "{}", refused.body);
    assert_eq!(room.get(of_ireland, None).await.field("x-castgate-match"), Some("region"));
    let twice = [("A", "BE"), ("B", "BE")].map(|(name, code)| (name.to_owned(), vec![code.parse().unwrap()]));
    let error = room.database.apply(DatabaseSnapshot { regions: twice.into(), ..snapshot() }).await.unwrap_err();
    assert_eq!(error.to_string(), "regions.B: BE is in \"A\" already");
}

/// Clients of AS 64500 to one server that registers here.
fn policy(routes: &Path, server: &str) -> PolicySnapshot {
    let place = ServerPlaceSnapshot { address: server.parse().unwrap(), protocol: Protocol::Udp };
    let server = PoolServerSnapshot {
        name: "s".to_owned(),
        places: vec![place],
        registers: true,
        down: false,
        load_percent: None,
    };
    let pool = PoolSnapshot { name: "all".to_owned(), weight: 1, load_percent_max: 100, servers: vec![server] };
    let matches = MatchSnapshot { asns: vec![64_500], ..MatchSnapshot::default() };
    let rule = RuleSnapshot { name: "customer".to_owned(), matches, pools: vec![pool], exclude: Vec::new() };
    let routes = Some(RoutesSnapshot { file: Some(routes.to_owned()), rows: Vec::new() });
    PolicySnapshot { name: "p".to_owned(), rules: vec![rule], routes }
}

/// A snapshot with this peer set.
fn with_peers(members: &[String]) -> DatabaseSnapshot {
    let peers = PeersSnapshot::new(members.to_vec(), "peer".to_owned(), "p33r".to_owned());
    DatabaseSnapshot { peers: Some(peers), ..snapshot() }
}

struct Room {
    database: Database,
    address: SocketAddr,
    state: TempDir,
}

impl Room {
    async fn new() -> Self {
        Self::start(snapshot(), TempDir::new().unwrap()).await
    }

    async fn start(snapshot: DatabaseSnapshot, state: TempDir) -> Self {
        let path: &Path = state.path();
        let database = Database::start(snapshot, path).await.unwrap();
        Self { address: database.local_address(), database, state }
    }

    async fn get(&self, pairs: &str, credentials: Option<&str>) -> Reply {
        get(self.address, pairs, credentials).await
    }

    async fn post(&self, target: &str, body: &str, header: &str) -> Reply {
        let length = body.len();
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{header}\r\n{body}"
        );
        exchange(self.address, request.as_bytes()).await
    }
}

fn snapshot() -> DatabaseSnapshot {
    let mut snapshot = DatabaseSnapshot::new("127.0.0.1:0".parse().unwrap());
    let allow = Allow {
        types: vec![EntryType::TunnelServer],
        networks: vec!["134.0.0.0/8".parse().unwrap(), "127.0.0.0/8".parse().unwrap()],
        countries: vec!["BE".parse().unwrap()],
        sources: vec!["134.184.0.0/16".parse().unwrap(), "10.0.0.0/8".parse().unwrap(), "127.0.0.0/8".parse().unwrap()],
        ..Allow::default()
    };
    let account = |login: &str| Account {
        login: login.to_owned(),
        password_hash: hash("s3cret"),
        previous_password_hash: None,
        allow: allow.clone(),
    };
    snapshot.accounts = vec![account("be"), account("fr")];
    snapshot
}

/// The cheapest hash there is: these tests are not about argon2.
fn hash(password: &str) -> String {
    let salt = SaltString::encode_b64(b"a salt for tests").unwrap();
    let cheap = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
    cheap.hash_password(password.as_bytes(), &salt).unwrap().to_string()
}

#[test]
fn credentials_are_coded_as_basic_wants_it() {
    assert_eq!(basic("Aladdin:open sesame"), "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n");
}
