//! What is asked, and how it is answered.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use tempfile::TempDir;

use crate::raw_http::exchange;
use crate::room::{BY_COUNTRY, QUERY, REGISTER, Room, snapshot};

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
    let inside = crate::raw_http::exchange_from("127.0.3.1".parse().unwrap(), room.address, request.as_bytes()).await;
    assert_eq!(inside.field("x-castgate-match"), Some("network"));
    let outside = crate::raw_http::exchange_from("127.0.9.1".parse().unwrap(), room.address, request.as_bytes()).await;
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
    let other = crate::raw_http::exchange_from("127.0.3.1".parse().unwrap(), room.address, request.as_bytes()).await;
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
        let answer = crate::raw_http::octets_until_closed(room.address, beginning.as_bytes()).await;
        assert!(start.elapsed() < Duration::from_secs(20), "{beginning}: {:?}", start.elapsed());
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    }
}
