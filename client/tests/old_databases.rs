//! Databases as strangers run them: whatever stands behind the address, the walk takes what it can use, says in one sentence what
//! is wrong with the rest, and never hangs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use castgate_client::http::{Credentials, Exchange};
use castgate_client::{CacheFolder, DatabaseAddress, Dns, LocateError, Locator};
use castgate_endpoint::hierarchy::locator::HopOutcome;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const LIST: &str = "<SERVERS><SERVER><ADDRESS>127.0.2.1</ADDRESS><PORT>10100</PORT><TYPE>0</TYPE><PROTOCOL>UDP</PROTOCOL>\
                    </SERVER></SERVERS>";

#[tokio::test]
async fn whatever_an_old_database_makes_of_http_and_xml_its_list_is_taken() {
    let length = LIST.len();
    let twice = LIST.replace("<PROTOCOL>", "<PROTOCOL></PROTOCOL><PROTOCOL>");
    let (first, second) = LIST.split_at(40);
    for (what, answer) in [
        ("no content type", format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{LIST}")),
        ("the draft's", format!("HTTP/1.1 200 OK\r\nContent-Type: txt/xml\r\nContent-Length: {length}\r\n\r\n{LIST}")),
        (
            "a wrong one",
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{LIST}"),
        ),
        ("HTTP/1.0 to the end", format!("HTTP/1.0 200 OK\r\nContent-Type: text/xml\r\n\r\n{LIST}")),
        ("HTTP/1.1 to the end", format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{LIST}")),
        (
            "chunks",
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
                first.len(),
                second.len()
            ),
        ),
        ("a byte order mark", format!("HTTP/1.0 200 OK\r\n\r\n\u{feff}<?xml version=\"1.0\"?>\r\n{LIST}\r\n")),
        ("PROTOCOL twice", format!("HTTP/1.0 200 OK\r\n\r\n{twice}")),
        ("no reason in the status", format!("HTTP/1.1 200\r\nContent-Length: {length}\r\n\r\n{LIST}")),
    ] {
        let database = Database::start(move |_, _| answer.clone()).await;
        let found = locator(&[database.address]).servers().await;
        assert_eq!(found, Ok(vec!["127.0.2.1:10100".parse().unwrap()]), "{what}");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_told_in_one_sentence() {
    let huge = "x".repeat(2 << 20);
    for (answer, cause) in [
        (String::new(), "does not speak HTTP as expected"),
        ("\u{1}\u{2}garbage\r\n\r\n".to_owned(), "does not speak HTTP as expected"),
        ("SSH-2.0-OpenSSH_9.6\r\n".to_owned(), "does not speak HTTP as expected"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n<SERVERS>".to_owned(), "cannot be read"),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{huge}", huge.len()), "cannot be read"),
        (format!("HTTP/1.0 200 OK\r\n\r\n{huge}"), "cannot be read"),
        (format!("HTTP/1.1 200 OK\r\nX: {huge}\r\n\r\n"), "does not speak HTTP as expected"),
        (
            "HTTP/1.0 200 OK\r\n\r\n<!DOCTYPE SERVERS [<!ENTITY a \"aa\">]><SERVERS/>".to_owned(),
            "The document has a DOCTYPE, which is refused.",
        ),
        ("HTTP/1.0 200 OK\r\n\r\n<html><body>It works!</body></html>".to_owned(), "The document is \"html\""),
        ("HTTP/1.0 200 OK\r\n\r\n{\"servers\":[]}".to_owned(), "not well-formed"),
        ("HTTP/1.0 200 OK\r\n\r\n".to_owned(), "not well-formed: no root element"),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), "answered 204 No Content"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(), "answered 404 Not Found"),
        ("HTTP/1.1 302 Found\r\n\r\n".to_owned(), "redirects without saying where to"),
        (redirect(301, "ftp://tds.example/script/castgate.cgs"), "only http:// and https:// are spoken"),
        (redirect(302, "ftp://tds.example/"), "only http:// and https:// are spoken"),
        (redirect(307, "castgate.cgs"), "no URL of a database"),
    ] {
        let shown: String = answer.chars().take(60).collect();
        let database = Database::start(move |_, _| answer.clone()).await;
        let sentence = failure(&locator(&[database.address])).await;
        assert!(sentence.contains(cause) && !sentence.contains('\n'), "{shown:?}: {sentence}");
    }
}

#[tokio::test]
async fn a_strange_database_does_not_hide_an_honest_one() {
    let strange = Database::start(|_, _| "\u{1}garbage".to_owned()).await;
    let honest = Database::start(|_, _| ok(LIST)).await;
    for _ in 0..4 {
        let found = locator(&[strange.address, honest.address]).servers().await;
        assert_eq!(found, Ok(vec!["127.0.2.1:10100".parse().unwrap()]));
    }
}

#[tokio::test]
async fn a_database_that_says_nothing_is_overtaken_by_another_root() {
    // It takes connections, as far as the kernel does so for it.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let honest = Database::start(|_, _| ok(LIST)).await;
    let started = std::time::Instant::now();
    for _ in 0..4 {
        let found = locator(&[silent.local_addr().unwrap(), honest.address]).locate().await.unwrap();
        assert_eq!(found.servers[0].port, 10_100);
        let overtaken = found.hops.iter().filter(|hop| hop.outcome == HopOutcome::Overtaken).count();
        assert_eq!(overtaken, found.hops.len() - 1);
    }
    assert!(started.elapsed() < castgate_endpoint::hierarchy::locator::ANSWER_TIMEOUT, "{:?}", started.elapsed());
}

#[tokio::test]
async fn the_whole_answer_has_to_come_in_time() {
    // One octet now and then, for ever.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let dripping = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(b" ").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    let sentence = failure(&locator(&[address])).await;
    assert!(sentence.contains(&format!("{address} did not answer within 10 s")), "{sentence}");
    dripping.await.unwrap();
}

#[tokio::test]
async fn redirects_are_followed_to_other_paths_and_hosts() {
    let there = Database::start(|_, _| ok(LIST)).await;
    let to = there.address;
    for (status, location, target) in [
        (
            301,
            format!("http://{to}/new/castgate.cgs"),
            "/new/castgate.cgs?ACTION=QUERY&TYPE=TS&COUNTRY=ZZ&PROTOCOL=UDP",
        ),
        (302, format!("//{to}/new/castgate.cgs?a=b"), "/new/castgate.cgs?a=b"),
        (307, format!("http://{to}"), "/?ACTION=QUERY&TYPE=TS&COUNTRY=ZZ&PROTOCOL=UDP"),
        (308, format!("http://{to}/script/castgate.cgs"), "/script/castgate.cgs?ACTION=QUERY&TYPE=TS"),
    ] {
        let here = Database::start(move |_, _| redirect(status, &location)).await;
        let found = locator(&[here.address]).servers().await;
        assert_eq!(found, Ok(vec!["127.0.2.1:10100".parse().unwrap()]), "{status}");
        let head = there.heads().pop().unwrap();
        assert!(head.starts_with(&format!("GET {target}")), "{status}: {head}");
        assert!(head.contains(&format!("host: {to}\r\n")), "{status}: {head}");
    }
    // To itself, elsewhere; the port of a URL without one is 80, so the path alone is named.
    let here = Database::start(|number, _| if number == 0 { redirect(302, "/elsewhere") } else { ok(LIST) }).await;
    assert!(locator(&[here.address]).servers().await.is_ok());
    assert!(here.heads()[1].starts_with("GET /elsewhere?ACTION=QUERY"));
}

#[tokio::test]
async fn a_redirect_in_circles_ends() {
    let here = Database::start(|_, _| redirect(302, "/script/castgate.cgs")).await;
    let sentence = failure(&locator(&[here.address])).await;
    assert!(sentence.contains("redirects more than 3 times"), "{sentence}");
    assert_eq!(here.heads().len(), 4);
}

#[tokio::test]
async fn a_line_that_is_too_long_for_a_database_goes_as_a_post() {
    const REFUSAL: &str = "HTTP/1.1 414 URI Too Long\r\nContent-Length: 0\r\n\r\n";
    let short = Database::start(|_, head| if head.starts_with("GET ") { REFUSAL.to_owned() } else { ok(LIST) }).await;
    assert_eq!(locator(&[short.address]).servers().await, Ok(vec!["127.0.2.1:10100".parse().unwrap()]));
    let heads = short.heads();
    assert!(heads.len() == 2 && heads[1].starts_with("POST /script/castgate.cgs HTTP/1.1\r\n"), "{heads:?}");
    // Who refuses that as well has answered.
    let refusing = Database::start(|_, _| REFUSAL.to_owned()).await;
    assert!(failure(&locator(&[refusing.address])).await.contains("answered 414 URI Too Long"));
    assert_eq!(refusing.heads().len(), 2);
    let authority = refusing.address.to_string();
    let answer = Exchange::new(refusing.address, &authority, "/without-pairs").run(&dns()).await.unwrap();
    assert_eq!((answer.status.as_u16(), refusing.heads().len()), (414, 4), "nothing is repeated without end");
}

#[tokio::test]
async fn credentials_are_given_to_the_same_host_only() {
    let credentials = Credentials { login: "be".to_owned(), password: "secret".to_owned() };
    let stranger = Database::start(|_, _| ok(LIST)).await;
    let location = format!("http://{}/script/castgate.cgs", stranger.address);
    let away = Database::start(move |_, _| redirect(307, &location)).await;
    let authority = away.address.to_string();
    let target = "/script/castgate.cgs?ACTION=TRANSFER";
    let exchange = Exchange { credentials: Some(&credentials), ..Exchange::new(away.address, &authority, target) };
    let error = exchange.run(&dns()).await.unwrap_err().to_string();
    assert!(error.contains("login and password are not given to another host"), "{error}");
    assert!(stranger.heads().is_empty());

    let moved = Database::start(|number, _| if number == 0 { redirect(307, "/new") } else { ok(LIST) }).await;
    let authority = moved.address.to_string();
    let answer = Exchange { peer: moved.address, authority: &authority, ..exchange }.run(&dns()).await.unwrap();
    assert_eq!(&answer.body[..], LIST.as_bytes());
    let head = &moved.heads()[1];
    assert!(head.starts_with("GET /new?ACTION=TRANSFER ") && head.contains("authorization: Basic "), "{head}");
}

#[tokio::test]
async fn databases_with_ipv6_addresses_are_roots_members_and_the_end_of_a_redirect() {
    let country = Database::start_at("[::1]:0", |_, _| ok(LIST)).await;
    let location = format!("http://{}/script/castgate.cgs", country.address);
    let moved = Database::start_at("[::1]:0", move |_, _| redirect(302, &location)).await;
    let list = LIST
        .replace("127.0.2.1", "::1")
        .replace("10100", &moved.address.port().to_string())
        .replace("<TYPE>0", "<TYPE>1")
        .replace("UDP", "TCP");
    let root = Database::start_at("[::1]:0", move |_, _| ok(&list)).await;
    let written: DatabaseAddress = format!("http://[::1]:{}/", root.address.port()).parse().unwrap();
    let locator = Locator::new(vec![written], None, dns(), CacheFolder::none());
    // An address of the other family to ask from changes nothing.
    let locator = locator.from_address(Some("127.0.0.1".parse().unwrap()));
    assert_eq!(locator.servers().await, Ok(vec!["127.0.2.1:10100".parse().unwrap()]));
    assert!(root.heads()[0].contains(&format!("host: {}\r\n", root.address)), "{}", root.heads()[0]);
}

fn locator(roots: &[SocketAddr]) -> Locator {
    let roots = roots.iter().map(|root| DatabaseAddress::of_socket(*root)).collect();
    Locator::new(roots, None, dns(), CacheFolder::none())
}

/// Nobody is asked for names.
fn dns() -> Dns {
    Dns::with_resolver("127.0.0.1:1").unwrap()
}

/// The sentence about the only database that was asked.
async fn failure(locator: &Locator) -> String {
    match locator.locate().await {
        Err(LocateError::Walk(error)) => {
            assert_eq!(error.hops.len(), 1, "{error}");
            error.to_string()
        }
        other => panic!("{other:?}"),
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn redirect(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
}

/// Whether the head is there; a body may follow it.
fn ends_head(octets: &[u8]) -> bool {
    octets.windows(4).any(|four| four == b"\r\n\r\n")
}

/// A server that answers octets.
struct Database {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Database {
    /// Answers each connection with what the closure makes of its number and of the head of the request.
    async fn start(answer: impl Fn(usize, &str) -> String + Send + 'static) -> Self {
        Self::start_at("127.0.0.1:0", answer).await
    }

    async fn start_at(address: &str, answer: impl Fn(usize, &str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !ends_head(&head) && stream.read_buf(&mut head).await.is_ok_and(|len| len > 0) {}
                let head = String::from_utf8_lossy(&head).into_owned();
                let number = seen.lock().unwrap().len();
                let octets = answer(number, &head);
                seen.lock().unwrap().push(head);
                // Whoever has seen enough hangs up.
                let _ = stream.write_all(octets.as_bytes()).await;
            }
        });
        Self { address, heads }
    }

    /// The heads of the requests so far.
    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}
