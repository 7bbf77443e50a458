use super::*;
use crate::tls::TlsError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

#[test]
fn a_database_without_a_name_is_named_once() {
    let said = |database: &str| {
        let (database, peer) = (database.to_owned(), "192.0.2.1:5632".parse().unwrap());
        HttpError::Tls { database, peer, error: TlsError::Expired }.to_string()
    };
    assert_eq!(said("192.0.2.1:5632"), "192.0.2.1:5632 has a certificate that has expired");
    assert_eq!(said("tds.example:5632"), "tds.example:5632 at 192.0.2.1:5632 has a certificate that has expired");
}

#[tokio::test]
async fn a_query_is_a_get_from_the_local_address_and_its_body_comes_back() {
    let (peer, server) = serve(b"HTTP/1.1 200 OK\r\nX-CastGate-Match: country\r\nContent-Length: 2\r\n\r\nhi").await;
    let local = Some("127.0.3.77".parse().unwrap());
    let answer = Exchange { local, ..get(peer) }.run(&Dns::default()).await.unwrap();
    assert_eq!(
        (answer.status, answer.matched.as_deref(), &answer.body[..]),
        (StatusCode::OK, Some("country"), &b"hi"[..])
    );
    let (from, head) = server.await.unwrap();
    assert_eq!(from.ip().to_string(), "127.0.3.77");
    assert!(head.starts_with("GET /script/castgate.cgs?ACTION=QUERY&TYPE=TS HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: tds.example.org:5632\r\n") && !head.contains("authorization"), "{head}");
}

#[tokio::test]
async fn credentials_go_as_basic_and_long_pairs_as_post() {
    let (peer, server) = serve(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
    let credentials = Credentials { login: "be".to_owned(), password: "secret".to_owned() };
    let target = format!("/script/castgate.cgs?ACTION=REGISTER&NETWORKS={}", "192.0.2.0/24,".repeat(300));
    let exchange = Exchange { target: &target, credentials: Some(&credentials), ..get(peer) };
    let answer = exchange.run(&Dns::default()).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let (_, head) = server.await.unwrap();
    assert!(head.starts_with("POST /script/castgate.cgs HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: Basic YmU6c2VjcmV0\r\n"), "{head}");
    assert!(!format!("{credentials:?}").contains("secret"));
}

#[tokio::test]
async fn for_whom_it_is_asked_is_told_as_proxies_do() {
    for (client, field) in [("192.0.2.7", "forwarded: for=192.0.2.7\r\n"), ("::7", "forwarded: for=\"[::7]\"\r\n")] {
        let (peer, server) = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let on_behalf_of = Some(client.parse().unwrap());
        Exchange { on_behalf_of, ..get(peer) }.run(&Dns::default()).await.unwrap();
        let (_, head) = server.await.unwrap();
        assert!(head.contains(field), "{head}");
    }
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = free.local_addr().unwrap();
    drop(free);
    let error = get(peer).run(&Dns::default()).await.unwrap_err();
    assert!(matches!(error, HttpError::Connect { .. }) && error.to_string().contains(&peer.to_string()), "{error}");
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let (peer, _server) = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n").await;
    let error = get(peer).run(&Dns::default()).await.unwrap_err();
    assert!(matches!(error, HttpError::Body { .. }), "{error}");
}

fn get(peer: SocketAddr) -> Exchange<'static> {
    let target = "/script/castgate.cgs?ACTION=QUERY&TYPE=TS";
    Exchange::new(peer, "tds.example.org:5632", target)
}

/// Answers one connection with fixed octets; yields who called and what was sent.
async fn serve(answer: &'static [u8]) -> (SocketAddr, tokio::task::JoinHandle<(SocketAddr, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, from) = listener.accept().await.unwrap();
        let mut head = vec![0; 8_192];
        let len = stream.read(&mut head).await.unwrap();
        stream.write_all(answer).await.unwrap();
        (from, String::from_utf8_lossy(&head[..len]).into_owned())
    });
    (peer, server)
}
