//! A receiver and real servers over the loopback: joins, hand-over, and a new question when every server is gone.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::mpsc::{Receiver as Inbox, Sender as Outbox, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use castgate_client::{
    CacheFolder, DatabaseAddress, Dns, Event, Locator, Path, Receiver, ReceiverSettings, SendTo, Sender,
    SenderSettings, Servers, TunnelSettings, Via,
};
use castgate_endpoint::umtp::server::{Config, Output, Permissions, Permit, Server, Sources};
use castgate_wire::umtp::Channel;
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);
const NAME: &str = "ham:ip:232.1.90.3@127.90.1.1:5004";

#[tokio::test]
async fn payloads_come_as_they_were_sent_with_their_source() {
    let server = TunnelServer::start("127.90.2.1:0");
    let mut receiver = Receiver::open(settings(Servers::Fixed(vec![server.address]))).await.unwrap();
    let mut seen = Vec::new();
    let mut events = Vec::new();
    timeout(LONG, async {
        while seen.len() < 10 {
            let event = receiver.receive(|datagram| seen.push((datagram.source, datagram.payload.to_vec())));
            events.extend(event.await.unwrap());
        }
    })
    .await
    .unwrap();
    let expected = receiver.name().source();
    assert!(seen.iter().all(|(source, payload)| *source == expected && payload == b"castgate"));
    assert_eq!(events[..2], [Event::PathChosen(Path::Umtp), Event::TunnelUp { server: server.address.into() }]);
    assert_eq!((receiver.path(), receiver.server()), (Some(Path::Umtp), Some(server.address.into())));
    receiver.close().await;
    assert_eq!(server.stop(), 0, "closing tears the tunnel down");
}

#[tokio::test]
async fn a_receiver_goes_on_with_the_next_server() {
    let (first, second) = (TunnelServer::start("127.91.2.1:0"), TunnelServer::start("127.91.2.2:0"));
    let list = vec![first.address, second.address];
    let mut receiver = Receiver::open(settings(Servers::Fixed(list))).await.unwrap();
    let (from, to) = (first.address.into(), second.address.into());
    until(&mut receiver, |event| matches!(event, Event::FirstData { server, .. } if *server == from)).await;
    first.stop();
    let silent_since = Instant::now();
    until(&mut receiver, |event| *event == Event::HandOver { from, to }).await;
    until(&mut receiver, |event| matches!(event, Event::FirstData { server, .. } if *server == to)).await;
    assert!(silent_since.elapsed() < Duration::from_secs(5), "it took {:?}", silent_since.elapsed());
}

#[tokio::test]
async fn when_every_server_is_gone_the_databases_are_asked_again() {
    let first = TunnelServer::start("127.92.2.1:0");
    let database = Database::start(first.address);
    let roots = vec![DatabaseAddress::of_socket(database.address)];
    let locator = Locator::new(roots, None, Dns::with_resolver("127.0.0.1:1").unwrap(), CacheFolder::none());
    let mut receiver = Receiver::open(settings(Servers::Located(locator))).await.unwrap();
    until(&mut receiver, |event| matches!(event, Event::FirstData { .. })).await;
    let second = TunnelServer::start("127.92.2.2:0");
    database.names(second.address);
    first.stop();
    until(&mut receiver, |event| *event == Event::Searching).await;
    let to = second.address.into();
    until(&mut receiver, |event| matches!(event, Event::FirstData { server, .. } if *server == to)).await;
}

#[tokio::test]
async fn a_database_that_comes_later_is_waited_for_and_the_same_trouble_is_told_once() {
    let server = TunnelServer::start("127.95.2.1:0");
    // An address that is free a moment from now.
    let taken = TcpListener::bind("127.95.4.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let roots = vec![DatabaseAddress::of_socket(address)];
    let locator = Locator::new(roots, None, Dns::with_resolver("127.0.0.1:1").unwrap(), CacheFolder::none());
    let mut receiver = Receiver::open(settings(Servers::Located(locator))).await.unwrap();
    let mut troubles = Vec::new();
    let started = Instant::now();
    // Long enough for a second try to fail like the first.
    while started.elapsed() < Duration::from_millis(1_600) {
        if let Ok(event) = timeout(Duration::from_millis(100), receiver.receive(|_| {})).await {
            troubles.extend(event.unwrap().filter(|event| matches!(event, Event::LocateFailed(_) | Event::Searching)));
        }
    }
    assert_eq!(troubles.len(), 1, "{troubles:?}");
    let told = troubles[0].to_string();
    assert!(told.contains(&address.to_string()) && told.ends_with("the databases are asked again"), "{told}");
    assert!(receiver.silence_reason().contains(&address.to_string()), "{}", receiver.silence_reason());
    let _database = Database::start_at(address, server.address);
    until(&mut receiver, |event| matches!(event, Event::FirstData { .. })).await;
    assert!(started.elapsed() < Duration::from_secs(8), "the pauses begin short: {:?}", started.elapsed());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_as_the_reason() {
    let gone: SocketAddrV4 = "127.93.2.1:10100".parse().unwrap();
    let mut receiver = Receiver::open(settings(Servers::Fixed(vec![gone]))).await.unwrap();
    until(&mut receiver, |event| matches!(event, Event::ServerLost { .. })).await;
    assert_eq!(receiver.silence_reason(), "the tunnel server 127.93.2.1:10100 does not answer");
}

#[tokio::test]
async fn what_a_sender_sends_reaches_the_other_member_once() {
    let name = "ham:ip:239.1.94.3:5004".parse().unwrap();
    let server = TunnelServer::start("127.94.2.1:0");
    let tunnel = |local: &str| TunnelSettings {
        servers: Servers::Fixed(vec![server.address]),
        local: Some(local.parse().unwrap()),
        silence: None,
    };
    let listen =
        ReceiverSettings { name, via: Via::Umtp, interface: None, tunnel: Some(tunnel("127.94.3.1")), amt: None };
    let mut receiver = Receiver::open(listen).await.unwrap();
    until(&mut receiver, |event| matches!(event, Event::TunnelUp { .. })).await;
    let to = SendTo::Tunnel(tunnel("127.94.3.2"));
    let mut sender = Sender::open(SenderSettings { name, ttl: 4, to }).await.unwrap();
    let mut heard: Vec<u8> = Vec::new();
    timeout(LONG, async {
        while !sender.is_ready() {
            sender.drive(|_| {}).await.unwrap();
        }
        for number in 0..5 {
            sender.send(&[number]).unwrap();
        }
        while heard.last() != Some(&4) {
            receiver
                .receive(|datagram| heard.extend(datagram.payload.iter().filter(|_| datagram.ttl == Some(2))))
                .await
                .unwrap();
        }
    })
    .await
    .unwrap();
    assert_eq!(heard, [0, 1, 2, 3, 4], "one hop to the server and one from it");
}

fn settings(servers: Servers) -> ReceiverSettings {
    let tunnel = TunnelSettings { servers, local: None, silence: Some(Duration::from_secs(2)) };
    ReceiverSettings { name: NAME.parse().unwrap(), via: Via::Umtp, interface: None, tunnel: Some(tunnel), amt: None }
}

fn channel_of(name: &str) -> Channel {
    name.parse().unwrap()
}

/// Receives until the event comes.
async fn until(receiver: &mut Receiver, wanted: impl Fn(&Event) -> bool) {
    let mut seen = Vec::new();
    let found = timeout(LONG, async {
        loop {
            if let Some(event) = receiver.receive(|_| {}).await.unwrap() {
                if wanted(&event) {
                    return;
                }
                seen.push(event);
            }
        }
    });
    assert!(found.await.is_ok(), "other events came: {seen:?}");
}

/// A tunnel server in a thread, fed with a source-specific channel of its own making.
struct TunnelServer {
    address: SocketAddrV4,
    stop: Outbox<()>,
    thread: JoinHandle<usize>,
}

impl TunnelServer {
    fn start(listen: &str) -> Self {
        let socket = UdpSocket::bind(listen).unwrap();
        let SocketAddr::V4(address) = socket.local_addr().unwrap() else { panic!("bound to IPv4") };
        let (stop, stopped) = channel();
        let thread = thread::spawn(move || serve(&socket, &stopped));
        Self { address, stop, thread }
    }

    /// Ends it without a word; says how many tunnels it had.
    fn stop(self) -> usize {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap()
    }
}

fn serve(socket: &UdpSocket, stopped: &Inbox<()>) -> usize {
    let permit = Permit {
        groups: "224.0.0.0/4".parse().unwrap(),
        sources: Sources::Any,
        ports: 1..=u16::MAX,
        send: true,
        ttl_max: 63,
    };
    let mut server = Server::new(Config::default(), Permissions(vec![permit]), [7; 16], Instant::now());
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let feed = channel_of(NAME);
    let mut datagram = [0; 2_048];
    while stopped.try_recv().is_err() {
        let now = Instant::now();
        if let Ok((len, SocketAddr::V4(from))) = socket.recv_from(&mut datagram) {
            server.handle_datagram(now, from, &datagram[..len]);
        }
        let destination = SocketAddrV4::new(feed.group, feed.port);
        server.handle_native(now, destination, feed.source.unwrap(), Some(8), b"castgate");
        server.handle_timeout(now);
        while let Some(output) = server.poll_output() {
            if let Output::Transmit { to, datagram } = output {
                // A client that is gone makes the loopback answer with an error.
                let _ = socket.send_to(&datagram, to);
            }
        }
    }
    server.tunnels().len()
}

/// A database that names one server to everybody.
struct Database {
    address: SocketAddr,
    server: Arc<Mutex<SocketAddrV4>>,
}

impl Database {
    fn start(server: SocketAddrV4) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), server)
    }

    fn start_at(address: SocketAddr, server: SocketAddrV4) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Mutex::new(server));
        let named = Arc::clone(&server);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 2_048];
                assert!(stream.read(&mut request).unwrap() > 0);
                let server = *named.lock().unwrap();
                let body = format!(
                    "<SERVERS><SERVER><ADDRESS>{}</ADDRESS><PORT>{}</PORT><TYPE>0</TYPE><PROTOCOL>UDP</PROTOCOL></SERVER></SERVERS>",
                    server.ip(),
                    server.port()
                );
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            }
        });
        Self { address, server }
    }

    fn names(&self, server: SocketAddrV4) {
        *self.server.lock().unwrap() = server;
    }
}
