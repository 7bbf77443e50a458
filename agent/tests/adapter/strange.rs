//! Databases as strangers run them, seen through the adapter: what can be used of them is used, the rest is one sentence, and
//! nobody else is disturbed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use castgate_agent::report::RegistrationReport;
use castgate_agent::roles::adapter::Adapter;
use castgate_control::{AdapterClient, AdapterPeers, Protocol};
use castgate_rpc::v1::{DiscoverRequest, Entry, LocateAnswer, LocateRequest, TransferRequest, Whereabouts};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tonic::{Code, Status};

use crate::bed::{Bed, SERVER, discovery, entry, key, parent, signed, stands};
use crate::parents::{Strange, becomes};

const SERVERS: &str = "<SERVERS><SERVER><ADDRESS>127.0.2.1</ADDRESS><PORT>10100</PORT><TYPE>0</TYPE><PROTOCOL>UDP</PROTOCOL>\
                       </SERVER></SERVERS>";

#[tokio::test]
async fn the_list_of_an_old_database_is_taken_whatever_http_and_xml_it_speaks() {
    let bed = Bed::new().await;
    for answer in [
        format!("HTTP/1.0 200 OK\r\nContent-Type: txt/xml\r\n\r\n{SERVERS}"),
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{SERVERS}", SERVERS.len()),
        format!("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{SERVERS}\r\n0\r\n\r\n", SERVERS.len()),
        // Twice, the first time empty, as in the draft's own example.
        format!("HTTP/1.0 200 OK\r\n\r\n{}", SERVERS.replace("<PROTOCOL>", "<PROTOCOL></PROTOCOL><PROTOCOL>")),
        // Twice, and both say something: the first counts.
        format!("HTTP/1.0 200 OK\r\n\r\n{}", SERVERS.replace("</SERVER>", "<PROTOCOL>TCP</PROTOCOL></SERVER>")),
        // Words for digits, another order and case, attributes, comments, elements of somebody's own, lines of blanks.
        "HTTP/1.0 200 OK\r\n\r\n\u{feff}<?xml version=\"1.0\"?>\n<!-- old --><Servers version=\"0\">\n<server id=\"7\">\n\
         <type>TS</type>\n<weight>9</weight><port> 10100 </port><protocol>udp</protocol><address>\n127.0.2.1\n</address>\n\
         </server></Servers>\n"
            .to_owned(),
    ] {
        let shown = answer.clone();
        let strange = Strange::start(Duration::ZERO, answer.leak()).await;
        let adapter = bed.adapter(&[client(&bed, strange.address)]).await;
        let found = locate(&bed, &adapter).await.unwrap();
        let server = &found.servers[0];
        assert_eq!(
            (found.servers.len(), server.address.as_str(), server.port, server.protocol.as_str()),
            (1, "127.0.2.1", 10_100, "UDP"),
            "{shown:?}"
        );
    }
    // Without a PROTOCOL at all, as before draft -02.
    let answer = format!("HTTP/1.0 200 OK\r\n\r\n{}", SERVERS.replace("<PROTOCOL>UDP</PROTOCOL>", ""));
    let strange = Strange::start(Duration::ZERO, answer.leak()).await;
    let adapter = bed.adapter(&[client(&bed, strange.address)]).await;
    assert_eq!(locate(&bed, &adapter).await.unwrap().servers[0].protocol, "");
}

#[tokio::test]
async fn a_walk_through_an_old_database_ends_where_it_says_so() {
    let bed = Bed::new().await;
    for answer in
        ["HTTP/1.0 200 OK\r\n\r\n<SERVERS/>", "HTTP/1.0 200 OK\r\nContent-Type: txt/xml\r\n\r\n<servers></servers>"]
    {
        let strange = Strange::start(Duration::ZERO, answer).await;
        let adapter = bed.adapter(&[client(&bed, strange.address)]).await;
        let found = discover(&bed, &adapter).await;
        assert_eq!((found.register, found.trouble.as_str()), (vec![strange.address.to_string()], ""));
    }
    // It names itself, for ever.
    let address = serve(|address, _| {
        format!(
            "HTTP/1.0 200 OK\r\n\r\n<SERVERS><SERVER><ADDRESS>127.0.0.1</ADDRESS><PORT>{}</PORT><TYPE>1</TYPE>\
             <PROTOCOL>TCP</PROTOCOL><PREFIXLEN>16</PREFIXLEN></SERVER></SERVERS>",
            address.port()
        )
    })
    .await;
    let adapter = bed.adapter(&[client(&bed, address)]).await;
    let found = discover(&bed, &adapter).await;
    assert_eq!(found.register, [address.to_string()], "{found:?}");
}

#[tokio::test]
async fn what_is_no_answer_is_one_sentence_and_the_registrations_of_others_go_on() {
    let bed = Bed::new().await;
    for (answer, sentence) in [
        ("", "does not speak HTTP as expected"),
        ("\u{1}garbage\r\n\r\n", "does not speak HTTP as expected"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n<SERVERS>", "cannot be read"),
        ("HTTP/1.0 200 OK\r\n\r\n<!DOCTYPE SERVERS [<!ENTITY a \"aa\">]><SERVERS/>", "has a DOCTYPE, which is refused"),
        ("HTTP/1.0 200 OK\r\n\r\n<html><body>It works!</body></html>", "The document is \"html\""),
        ("HTTP/1.1 302 Found\r\nLocation: /script/castgate.cgs\r\n\r\n", "redirects more than 3 times"),
        ("HTTP/1.1 301 Moved\r\nLocation: ftp://tds.example/\r\n\r\n", "only http:// and https:// are spoken"),
        ("HTTP/1.1 301 Moved\r\n\r\n", "redirects without saying where to"),
    ] {
        let strange = Strange::start(Duration::ZERO, answer).await;
        let mut client = client(&bed, strange.address);
        client.entries = bed.client(SERVER, &["BE"]).entries;
        client.parents.insert(0, parent(&bed.database.local_address().to_string()));
        client.discovery = None;
        let adapter = bed.adapter(&[client]).await;
        let registrar = bed.agent(SERVER, &adapter, &["BE"]);
        stands(&registrar, |reports| reports.iter().any(|report| report.state == "registered")).await;
        registrar.stop().await;
        becomes(&bed.database, 0).await;

        let adapter = bed.adapter(&[self::client(&bed, strange.address)]).await;
        let status = locate(&bed, &adapter).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{answer:?}");
        assert!(status.message().contains(sentence) && !status.message().contains('\n'), "{answer:?}: {status:?}");
    }
}

#[tokio::test]
async fn a_redirect_within_the_database_is_followed_by_questions_and_registrations() {
    let bed = Bed::new().await;
    let address = serve(|_, head| {
        if head.starts_with("GET /new?") {
            format!("HTTP/1.0 200 OK\r\n\r\n{SERVERS}")
        } else {
            "HTTP/1.0 307 Moved\r\nLocation: /new\r\n\r\n".to_owned()
        }
    })
    .await;
    let mut client = bed.client(SERVER, &["BE"]);
    client.parents = vec![parent(&address.to_string())];
    let adapter = bed.adapter(&[client]).await;
    assert_eq!(locate(&bed, &adapter).await.unwrap().servers.len(), 1);
    let registrar = bed.agent(SERVER, &adapter, &["BE"]);
    stands(&registrar, |reports| reports[0].state == "registered").await;
    drop(registrar);
}

#[tokio::test]
async fn a_database_that_drips_its_answer_holds_up_nobody_else() {
    let bed = Bed::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // A head that never ends.
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nX: ").await;
                while stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
    });
    let mut client = bed.client(SERVER, &["BE"]);
    client.parents.insert(0, parent(&address.to_string()));
    let adapter = bed.adapter(&[client]).await;
    let began = Instant::now();
    let registrar = bed.agent(SERVER, &adapter, &["BE"]);
    becomes(&bed.database, 1).await;
    assert!(began.elapsed() < Duration::from_secs(8), "the honest one waits for nobody");
    let sentence = format!("{address} did not answer within 10 s");
    let is_given_up = |reports: &[RegistrationReport]| {
        let strange = reports.iter().find(|report| report.parent == address.to_string());
        strange.is_some_and(|report| report.last_refusal.as_ref() == Some(&sentence))
    };
    stands(&registrar, is_given_up).await;
}

#[tokio::test]
async fn a_strange_peer_ends_a_transfer_with_a_sentence() {
    let bed = Bed::new().await;
    let list = SERVERS.replace("</SERVER>", "<LOGIN>be</LOGIN><PASSWORD>x</PASSWORD></SERVER>");
    let broken = list.replace("</SERVERS>", "");
    for (answer, entries, sentence) in [
        (format!("HTTP/1.0 200 OK\r\nContent-Type: txt/xml\r\n\r\n{list}"), 1, None),
        // As the draft's content model has it: without a PROTOCOL.
        (format!("HTTP/1.0 200 OK\r\n\r\n{}", list.replace("<PROTOCOL>UDP</PROTOCOL>", "")), 1, None),
        (format!("HTTP/1.0 200 OK\r\n\r\n{broken}"), 1, Some("without an end")),
        ("HTTP/1.0 404 Not Found\r\n\r\n".to_owned(), 0, Some("404 Not Found")),
        ("\u{1}garbage".to_owned(), 0, Some("invalid HTTP")),
    ] {
        let shown = answer.clone();
        let strange = Strange::start(Duration::ZERO, answer.leak()).await;
        let peers = AdapterPeers {
            members: vec![strange.address.to_string()],
            login: "peer".to_owned(),
            password: "p33r".to_owned(),
            ca: None,
        };
        let adapter = bed.adapter(&[AdapterClient { peers: Some(peers), ..client(&bed, strange.address) }]).await;
        let wanted = TransferRequest { agent: SERVER.to_owned(), ..TransferRequest::default() };
        let mut hierarchy = bed.hierarchy(&adapter).await;
        let mut stream = hierarchy.transfer(signed(wanted, &key(SERVER))).await.unwrap().into_inner();
        let mut count = 0;
        let end = loop {
            match stream.message().await {
                Ok(Some(_)) => count += 1,
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        };
        assert_eq!((count, end.is_some()), (entries, sentence.is_some()), "{shown:?}: {end:?}");
        let said = end.map(|status| status.message().to_owned()).unwrap_or_default();
        assert!(said.contains(sentence.unwrap_or_default()) && !said.contains('\n'), "{shown:?}: {said}");
    }
}

/// An agent whose databases are found from this one, which is also its only parent by name.
fn client(bed: &Bed, strange: SocketAddr) -> AdapterClient {
    let discovery = Some(discovery(strange));
    AdapterClient { entries: Vec::new(), parents: Vec::new(), discovery, ..bed.client(SERVER, &[]) }
}

async fn locate(bed: &Bed, adapter: &Adapter) -> Result<LocateAnswer, Status> {
    let question = LocateRequest {
        agent: SERVER.to_owned(),
        r#type: "TS".to_owned(),
        country: "BE".to_owned(),
        ..LocateRequest::default()
    };
    bed.hierarchy(adapter).await.locate(signed(question, &key(SERVER))).await.map(tonic::Response::into_inner)
}

async fn discover(bed: &Bed, adapter: &Adapter) -> Whereabouts {
    let server = entry("127.0.2.1:10100".parse().unwrap(), Some(Protocol::Udp), &["134.184.1.0/24"]);
    let question = DiscoverRequest { agent: SERVER.to_owned(), entries: vec![Entry::from(&server)] };
    let answer = bed.hierarchy(adapter).await.discover(signed(question, &key(SERVER))).await.unwrap();
    answer.into_inner().found.remove(0)
}

/// A server that knows its address and answers by the head of a request.
async fn serve(answer: impl Fn(SocketAddr, &str) -> String + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|length| length > 0) {}
            let octets = answer(address, &String::from_utf8_lossy(&head));
            // Whoever has seen enough hangs up.
            let _ = stream.write_all(octets.as_bytes()).await;
        }
    });
    address
}
