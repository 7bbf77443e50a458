//! A receiver, real relays and a name server over the loopback: every family, every way of finding a relay, hand-over, and what
//! must not be taken.

mod dns;
mod relay;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use castgate_client::amt::{Anycast, Method, Place, access, discovery, gateway, parse_place};
use castgate_client::{
    AmtSettings, CacheFolder, DatabaseAddress, Dns, Event, Locator, Path, ReceiveError, Receiver, ReceiverSettings, Via,
};
use castgate_endpoint::amt::relay::DownReason;
use castgate_wire::amt::Repr;
use relay::{RelayServer, fragments, packet};
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_mins(1);
const NAME: &str = "ham:ip:232.1.95.3@198.51.100.1:5004";
const NAME_V6: &str = "ham:ip:[ff3e::8000:95]@[2001:db8::1]:5004";
/// Where the source of [`NAME`] has its AMTRELAY records.
const REVERSE: &str = "1.100.51.198.in-addr.arpa";

#[tokio::test]
async fn payloads_of_both_families_come_over_both_families_with_their_source() {
    for listen in ["127.95.2.1:0", "[::1]:0"] {
        for name in [NAME, NAME_V6] {
            let relay = RelayServer::start(listen, vec![wanted(name)]);
            let mut receiver = open(name, of_relays(&[relay.address])).await;
            let mut seen = Vec::new();
            let mut events = Vec::new();
            timeout(LONG, async {
                while seen.len() < 10 || events.len() < 3 {
                    let event = receiver.receive(|datagram| {
                        seen.push((datagram.source, datagram.ttl, datagram.payload.to_vec()));
                    });
                    events.extend(event.await.unwrap());
                }
            })
            .await
            .unwrap();
            let expected = (receiver.name().source(), Some(9), b"castgate".to_vec());
            assert!(seen.iter().all(|seen| *seen == expected), "{seen:?}");
            let found = Event::RelayFound { relay: relay.address, method: Method::Explicit };
            let first = Event::FirstData { name: receiver.name(), server: relay.address };
            assert_eq!(events, [Event::PathChosen(Path::Amt), found, first]);
            assert_eq!((receiver.path(), receiver.server()), (Some(Path::Amt), Some(relay.address)));
            receiver.close().await;
            let seen = relay.stop();
            assert_eq!((seen.endpoints, &seen.ended[..]), (0, &[DownReason::Teardown][..]), "closing says goodbye");
        }
    }
}

#[tokio::test]
async fn a_group_with_any_source_tells_each_source() {
    let packets = ["198.51.100.1", "198.51.100.2"].map(|source| packet(source, "239.1.96.3", 5004, b"any")).into();
    let relay = RelayServer::start("127.96.2.1:0", packets);
    let mut receiver = open("ham:ip:239.1.96.3:5004", of_relays(&[relay.address])).await;
    let mut sources = std::collections::BTreeSet::new();
    timeout(LONG, async {
        while sources.len() < 2 {
            receiver.receive(|datagram| sources.extend(datagram.source)).await.unwrap();
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn when_a_relay_dies_the_next_takes_over() {
    let first = RelayServer::start("127.97.2.1:0", vec![wanted(NAME)]);
    let second = RelayServer::start("127.97.2.2:0", vec![wanted(NAME)]);
    let (from, to) = (first.address, second.address);
    let mut receiver = open(NAME, of_relays(&[from, to])).await;
    until(&mut receiver, |event| matches!(event, Event::FirstData { server, .. } if *server == from)).await;
    first.stop();
    let lost = Event::RelayLost { relay: from, reason: access::LostReason::Silent };
    until(&mut receiver, |event| *event == lost).await;
    until(&mut receiver, |event| *event == Event::HandOver { from, to }).await;
    until(&mut receiver, |event| matches!(event, Event::FirstData { server, .. } if *server == to)).await;
    assert_eq!(receiver.server(), Some(to));
}

#[tokio::test]
async fn a_relay_that_takes_nobody_or_cannot_be_reached_is_passed_over() {
    let full = RelayServer::full("127.98.2.1:0");
    let good = RelayServer::start("127.98.2.2:0", vec![wanted(NAME)]);
    // From a loopback address there is no way to the world.
    let unreachable = "192.0.2.1:2268".parse().unwrap();
    let local = Some("127.98.3.1".parse().unwrap());
    let settings = AmtSettings { local, ..of_relays(&[unreachable, full.address, good.address]) };
    let mut receiver = open(NAME, settings).await;
    until(&mut receiver, |event| matches!(event, Event::FirstData { server, .. } if *server == good.address)).await;
}

#[tokio::test]
async fn amtrelay_records_are_found_behind_a_cname_and_bad_ones_are_ignored() {
    let relay = RelayServer::start("127.99.2.1:2268", vec![wanted(NAME)]);
    let record = |data: &[u8]| ("relays.example.org", dns::AMTRELAY, data.to_vec());
    let dns = dns::serve(vec![
        (REVERSE, dns::CNAME, dns::name("relays.example.org")),
        record(&[1]),
        record(&[1, 1, 127, 99, 2]),
        record(&[1, 2, 127, 99, 2, 9]),
        record(&[1, 0x89, 1, 2, 3]),
        record(&[1, 3, 60, b'x']),
        record(&[10, 1, 127, 99, 2, 1]),
    ]);
    let mut receiver = open(NAME, AmtSettings { dns, driad: true, ..of_relays(&[]) }).await;
    let found = Event::RelayFound { relay: relay.address, method: Method::Driad };
    until(&mut receiver, |event| *event == found).await;
    until(&mut receiver, |event| matches!(event, Event::FirstData { .. })).await;
    assert_eq!(relay.stop().discoveries, 1, "D is 0: the relay is asked for before it is used");
}

#[tokio::test]
async fn an_amtrelay_record_may_hold_a_name() {
    let relay = RelayServer::start("127.100.2.1:2268", vec![wanted(NAME)]);
    let dns = dns::serve(vec![
        (REVERSE, dns::AMTRELAY, [&[10, 0x83][..], &dns::name("relay.example.org")].concat()),
        ("relay.example.org", dns::CNAME, dns::name("host.example.org")),
        ("host.example.org", dns::A, vec![127, 100, 2, 1]),
    ]);
    let mut receiver = open(NAME, AmtSettings { dns, driad: true, ..of_relays(&[]) }).await;
    let found = Event::RelayFound { relay: relay.address, method: Method::Driad };
    until(&mut receiver, |event| *event == found).await;
    until(&mut receiver, |event| matches!(event, Event::FirstData { .. })).await;
    assert_eq!(relay.stop().discoveries, 0, "D is 1: it may be used at once");
}

#[tokio::test]
async fn a_service_and_an_anycast_name_lead_to_relays() {
    let relay = RelayServer::start("[::1]:0", vec![wanted(NAME)]);
    let [high, low] = relay.address.port().to_be_bytes();
    let address = "::1".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
    let dns = dns::serve(vec![
        ("_amt._udp.example.org", dns::PTR, dns::name("one two._amt._udp.example.org")),
        (
            "one two._amt._udp.example.org",
            dns::SRV,
            [&[0, 1, 0, 2, high, low][..], &dns::name("relay.example.org")].concat(),
        ),
        ("relay.example.org", dns::AAAA, address),
    ]);
    let domains = vec!["example.org".to_owned()];
    let mut receiver = open(NAME, AmtSettings { dns: dns.clone(), domains, ..of_relays(&[]) }).await;
    let found = Event::RelayFound { relay: relay.address, method: Method::DnsSd };
    until(&mut receiver, |event| *event == found).await;
    receiver.close().await;

    let anycast = Anycast::At(Place::Name("relay.example.org".to_owned(), relay.address.port()));
    let mut receiver = open(NAME, AmtSettings { dns, anycast, ..of_relays(&[]) }).await;
    let found = Event::RelayFound { relay: relay.address, method: Method::Anycast };
    until(&mut receiver, |event| *event == found).await;
    until(&mut receiver, |event| matches!(event, Event::FirstData { .. })).await;
}

#[tokio::test]
async fn the_hierarchy_names_relays_to_whoever_asks_for_amt() {
    let relay = RelayServer::start("127.101.2.1:0", vec![wanted(NAME)]);
    let roots = vec![DatabaseAddress::of_socket(database(relay.address))];
    let locator = Locator::new(roots, None, nobody(), CacheFolder::none());
    let mut receiver = open(NAME, AmtSettings { locator: Some(locator), ..of_relays(&[]) }).await;
    let found = Event::RelayFound { relay: relay.address, method: Method::Hierarchy };
    until(&mut receiver, |event| *event == found).await;
    until(&mut receiver, |event| matches!(event, Event::FirstData { .. })).await;
}

#[tokio::test]
async fn without_a_relay_one_sentence_says_what_was_tried() {
    let dead = UdpSocket::bind("127.102.2.1:0").unwrap();
    let address = dead.local_addr().unwrap();
    let settings = AmtSettings { dns: dns::serve(Vec::new()), driad: true, ..of_relays(&[address]) };
    let mut receiver = open(NAME, settings).await;
    let sentence = until(&mut receiver, |event| matches!(event, Event::NoRelay(_))).await.to_string();
    assert!(sentence.starts_with("there is no AMT relay for (198.51.100.1, 232.1.95.3): "), "{sentence}");
    assert!(sentence.contains(&format!("{REVERSE} has no AMTRELAY record")), "{sentence}");
    assert!(sentence.contains(&format!("{address} does not answer")), "{sentence}");
    assert_eq!(receiver.silence_reason(), sentence);

    // A name server that answers nothing, for longer than discovery waits.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dns = Dns::with_resolver(&silent.local_addr().unwrap().to_string()).unwrap();
    let mut settings = AmtSettings { dns, driad: true, ..of_relays(&[]) };
    settings.discovery.resolution_timeout = Duration::from_millis(300);
    let mut receiver = open(NAME, settings).await;
    let sentence = until(&mut receiver, |event| matches!(event, Event::NoRelay(_))).await.to_string();
    assert!(sentence.ends_with(&format!("no name server has told the AMTRELAY records of {REVERSE}")), "{sentence}");

    let dns = dns::serve(vec![(REVERSE, dns::AMTRELAY, vec![0, 0])]);
    let mut receiver = open(NAME, AmtSettings { dns, driad: true, ..of_relays(&[]) }).await;
    let sentence = until(&mut receiver, |event| matches!(event, Event::NoRelay(_))).await.to_string();
    assert!(sentence.contains("its source publishes that it has none"), "{sentence}");
}

#[tokio::test]
async fn a_relay_can_make_us_take_nothing_but_the_channel() {
    let (source, group) = ("198.51.100.1", "232.1.95.3");
    let mut damaged = packet(source, group, 5004, b"damaged");
    *damaged.last_mut().unwrap() ^= 1;
    let relay = RelayServer::start(
        "127.103.2.1:0",
        vec![
            packet("198.51.100.2", group, 5004, b"another source"),
            packet(source, "232.1.95.4", 5004, b"another group"),
            packet(source, "127.103.3.1", 5004, b"a host"),
            packet(source, group, 5005, b"another port"),
            packet("2001:db8::1", "ff3e::8000:95", 5004, b"another family"),
            b"\x45no packet".to_vec(),
            Vec::new(),
            damaged,
            wanted(NAME),
        ],
    );
    let settings = AmtSettings { local: Some("127.103.3.1".parse().unwrap()), ..of_relays(&[relay.address]) };
    let mut receiver = open(NAME, settings).await;
    let mut payloads = Vec::new();
    timeout(LONG, async {
        while payloads.len() < 10 {
            receiver.receive(|datagram| payloads.push(datagram.payload.to_vec())).await.unwrap();
        }
    })
    .await
    .unwrap();
    assert!(payloads.iter().all(|payload| payload == b"castgate"), "{payloads:?}");
}

#[tokio::test]
async fn data_of_a_stranger_is_not_taken() {
    let relay = RelayServer::start("127.104.2.1:0", Vec::new());
    let settings =
        AmtSettings { silence: None, local: Some("127.104.3.1".parse().unwrap()), ..of_relays(&[relay.address]) };
    let mut receiver = open(NAME, settings).await;
    until(&mut receiver, |event| matches!(event, Event::RelayFound { .. })).await;
    let reason = receiver.silence_reason();
    assert!(reason.contains("answers but sends nothing"), "{reason}");
    // Every port of our address: one of them is the tunnel's. What the stranger sends arrives before what he sends last.
    let stranger = UdpSocket::bind("127.104.2.2:0").unwrap();
    let marker = UdpSocket::bind("127.104.3.1:0").unwrap();
    let datagram = Repr::Data { packet: &wanted(NAME) }.to_vec();
    for port in 1_024..=u16::MAX {
        let _ = stranger.send_to(&datagram, ("127.104.3.1", port));
    }
    let mut room = [0; 128];
    assert!(marker.recv(&mut room).unwrap() > 0, "it was among them");
    let mut taken = 0;
    let waiting = timeout(Duration::from_millis(200), async {
        loop {
            receiver.receive(|_| taken += 1).await.unwrap();
        }
    });
    let _: Result<(), _> = waiting.await;
    assert_eq!(taken, 0);
}

#[tokio::test]
async fn packets_that_a_relay_has_cut_are_whole_again() {
    let payload: Vec<u8> = (0..3_000_u16).map(|at| at.to_be_bytes()[1]).collect();
    for (name, listen) in [(NAME, "127.105.2.1:0"), (NAME_V6, "[::1]:0")] {
        let mut cut = fragments(&of_name(name, &payload));
        assert!(cut.len() > 5, "{}", cut.len());
        cut.reverse();
        let relay = RelayServer::start(listen, cut);
        let mut receiver = open(name, of_relays(&[relay.address])).await;
        let mut taken = Vec::new();
        timeout(LONG, async {
            while taken.len() < 3 {
                receiver.receive(|datagram| taken.push(datagram.payload.to_vec())).await.unwrap();
            }
        })
        .await
        .unwrap();
        assert!(taken.iter().all(|taken| *taken == payload));
    }
}

#[tokio::test]
async fn what_no_relay_may_carry_is_refused_at_once() {
    for (name, cause) in
        [("ham:ip:232.1.2.3:5004", "needs a source"), ("ham:ip:224.0.0.9:5004", "never leaves its link")]
    {
        let error = Receiver::open(settings(name, AmtSettings::default())).await.unwrap_err();
        assert!(matches!(error, ReceiveError::Unfit { .. }) && error.to_string().contains(cause), "{error}");
    }
}

/// Short times, these relays, and no name server.
fn of_relays(relays: &[SocketAddr]) -> AmtSettings {
    let relays = relays.iter().map(|relay| parse_place(&relay.to_string()).unwrap()).collect();
    AmtSettings {
        dns: nobody(),
        silence: Some(Duration::from_secs(1)),
        discovery: discovery::Config { attempt_timeout: Duration::from_secs(2), ..discovery::Config::default() },
        gateway: gateway::Config { timeout_initial: Duration::from_millis(300), ..gateway::Config::default() },
        ..AmtSettings::of_relays(relays)
    }
}

/// Nobody listens there.
fn nobody() -> Dns {
    Dns::with_resolver("127.0.0.1:1").unwrap()
}

fn settings(name: &str, amt: AmtSettings) -> ReceiverSettings {
    ReceiverSettings { name: name.parse().unwrap(), via: Via::Amt, interface: None, tunnel: None, amt: Some(amt) }
}

async fn open(name: &str, amt: AmtSettings) -> Receiver {
    Receiver::open(settings(name, amt)).await.unwrap()
}

/// A packet of a source-specific channel.
fn wanted(name: &str) -> Vec<u8> {
    of_name(name, b"castgate")
}

fn of_name(name: &str, payload: &[u8]) -> Vec<u8> {
    let name: castgate_client::GroupName = name.parse().unwrap();
    let source: IpAddr = name.source().unwrap();
    packet(&source.to_string(), &name.group().to_string(), name.port(), payload)
}

/// Receives until the event comes.
async fn until(receiver: &mut Receiver, wanted: impl Fn(&Event) -> bool) -> Event {
    let mut seen = Vec::new();
    let found = timeout(LONG, async {
        loop {
            if let Some(event) = receiver.receive(|_| {}).await.unwrap() {
                if wanted(&event) {
                    return event;
                }
                seen.push(event);
            }
        }
    });
    found.await.unwrap_or_else(|_| panic!("other events came: {seen:?}"))
}

/// A database that names one relay to those who ask for AMT.
fn database(relay: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 2_048];
            let len = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..len]).into_owned();
            assert!(request.contains("TYPE=TS") && request.contains("PROTOCOL=AMT"), "{request}");
            let body = format!(
                "<SERVERS><SERVER><ADDRESS>{}</ADDRESS><PORT>{}</PORT><TYPE>0</TYPE><PROTOCOL>AMT</PROTOCOL></SERVER></SERVERS>",
                relay.ip(),
                relay.port()
            );
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    address
}
