//! A dataplane on the loopback interface, with sources, clients and native listeners around it.
//!
//! Every party has an address of its own in 127/8, which works for an ordinary user. Nothing sleeps: tests wait for datagrams,
//! events and memberships, and give up after [`PATIENCE`].

use castgate_dataplane::{Cookies, Dataplane, DropReason, Event, Events, Interface, Settings, TableBuilder};
use castgate_udp::ready::wait_readable;
use castgate_udp::{MulticastOut, Options, RecvBatch, UdpSocket, shard_of};
use castgate_wire::umtp::{Channel, Command, Cookie, Trailer};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

pub const LOOPBACK: u32 = 1;
/// Longer than anything takes on a busy machine; only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Lab {
    pub dataplane: Dataplane,
    pub events: Events,
    pub table: TableBuilder,
    workers: NonZeroUsize,
    clients: u16,
    attached: Vec<(Channel, Ipv4Addr)>,
}

/// A client with its tunnel's cookies.
pub struct Client {
    pub socket: UdpSocket,
    pub address: SocketAddrV4,
    pub cookies: Cookies,
    batch: RefCell<RecvBatch>,
}

/// A program on the same host that takes or sends multicast natively.
pub struct Native {
    pub socket: UdpSocket,
    batch: RefCell<RecvBatch>,
}

/// A datagram as a native listener sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub source: Ipv4Addr,
    pub ttl: Option<u8>,
    pub payload: Vec<u8>,
}

impl Lab {
    /// A dataplane that listens at `address`, which is also its address on the loopback interface.
    pub fn new(address: Ipv4Addr, workers: usize) -> Self {
        Self::with(address, workers, |_| {})
    }

    pub fn with(address: Ipv4Addr, workers: usize, change: impl FnOnce(&mut Settings)) -> Self {
        let interface = Interface { name: "lo".into(), index: LOOPBACK, address };
        let mut settings = Settings::new(SocketAddrV4::new(address, 0), vec![interface]);
        let workers = NonZeroUsize::new(workers).unwrap();
        settings.workers = workers;
        change(&mut settings);
        let (dataplane, events) = Dataplane::start(settings).unwrap();
        let table = dataplane.table();
        Self { dataplane, events, table, workers, clients: 0, attached: Vec::new() }
    }

    /// A client at `address` whose tunnel is up.
    pub fn client(&mut self, address: Ipv4Addr) -> Client {
        self.clients += 1;
        let cookies =
            Cookies { local: Cookie(0x1100 + self.clients), previous: None, remote: Cookie(0x2200 + self.clients) };
        let client = Client::new(address, cookies);
        self.table.tunnel_up(client.address, cookies);
        client
    }

    pub fn attach(&mut self, client: &Client, channel: Channel) {
        self.table.attach(client.address, channel, true, 63);
        self.attached.push((channel, *client.address.ip()));
    }

    /// Publishes the table and waits until exactly these channels are taken in, each by every worker with a client of it.
    pub fn publish(&self, channels: &[Channel]) {
        self.dataplane.publish(self.table.build());
        let mut wanted: Vec<_> = channels.iter().map(|channel| (*channel, self.workers_of(*channel))).collect();
        wanted.sort();
        wait_until("the memberships", || {
            self.dataplane.joined().iter().map(|joined| (joined.channel, joined.workers)).collect::<Vec<_>>() == wanted
        });
    }

    /// How many workers have a client of this channel.
    pub fn workers_of(&self, channel: Channel) -> usize {
        let clients = self.attached.iter().filter(|(of, _)| *of == channel);
        clients.map(|(_, client)| shard_of(*client, self.workers)).collect::<BTreeSet<_>>().len().max(1)
    }

    /// Waits until the workers have counted so much sent into tunnels: they count after they have sent.
    pub fn wait_for_tunnels_out(&self, packets: u64) {
        wait_until("the counters", || self.dataplane.counters().flows.tunnels_out.packets >= packets);
    }

    /// Waits until so many datagrams were dropped for this reason.
    pub fn wait_for_drops(&self, reason: DropReason, count: u64) {
        wait_until(reason.label(), || self.dataplane.counters().dropped(reason) >= count);
        assert_eq!(self.dataplane.counters().dropped(reason), count, "{}", reason.label());
    }

    pub fn event(&mut self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event in time")
    }
}

impl Client {
    pub fn new(address: Ipv4Addr, cookies: Cookies) -> Self {
        let options = Options { receive_buffer_bytes: Some(4 << 20), ..Options::new(SocketAddrV4::new(address, 0)) };
        let socket = UdpSocket::bind(&options).unwrap();
        let address = SocketAddrV4::new(address, socket.local_address().unwrap().port());
        Self { socket, address, cookies, batch: RefCell::new(RecvBatch::new(64, 4096)) }
    }

    /// The trailer that this client puts behind what it sends.
    pub fn trailer(&self, command: Command, channel: Channel, ttl: u8) -> Trailer {
        let Cookies { local, remote, .. } = self.cookies;
        Trailer { source_cookie: remote, destination_cookie: local, channel, ttl, command }
    }

    pub fn send(&self, lab: &Lab, command: Command, channel: Channel, ttl: u8, payload: &[u8]) {
        self.send_with(lab, &self.trailer(command, channel, ttl), payload);
    }

    pub fn send_with(&self, lab: &Lab, trailer: &Trailer, payload: &[u8]) {
        let mut datagram = payload.to_vec();
        trailer.append_to(&mut datagram);
        self.socket.send_to(&datagram, lab.dataplane.listen()).unwrap();
    }

    /// The next `count` datagrams, whole.
    pub fn receive(&self, count: usize) -> Vec<Vec<u8>> {
        receive(&self.socket, &self.batch, count).into_iter().map(|heard| heard.payload).collect()
    }

    /// The next `count` payloads, whose trailers are checked: DATA of this channel with this TTL and our cookies.
    pub fn payloads(&self, channel: Channel, ttl: u8, count: usize) -> Vec<Vec<u8>> {
        let Cookies { local, remote, .. } = self.cookies;
        let expected =
            Trailer { source_cookie: local, destination_cookie: remote, channel, ttl, command: Command::Data };
        let check = |datagram: Vec<u8>| {
            let (payload, trailer) = Trailer::parse(&datagram).unwrap();
            assert_eq!(trailer, expected);
            payload.to_vec()
        };
        self.receive(count).into_iter().map(check).collect()
    }

    /// What is there now.
    pub fn receive_some(&self) -> Vec<Vec<u8>> {
        let mut batch = self.batch.borrow_mut();
        if batch.receive(&self.socket).is_err() {
            return Vec::new();
        }
        batch.iter().map(|datagram| datagram.payload.to_vec()).collect()
    }

    /// Whether nothing is there. Says something only about what was surely sent before.
    pub fn has_nothing(&self) -> bool {
        !wait_readable(&self.socket, Some(Duration::ZERO)).unwrap()
    }
}

impl Native {
    /// A source at `address`.
    pub fn source(address: Ipv4Addr) -> Self {
        Self::source_with_ttl(address, 32)
    }

    pub fn source_with_ttl(address: Ipv4Addr, ttl: u8) -> Self {
        let out = MulticastOut { interface: LOOPBACK, ttl, loopback: true };
        Self::bind(&Options { multicast_out: Some(out), ..Options::new(SocketAddrV4::new(address, 0)) })
    }

    /// A listener for this channel.
    pub fn listener(channel: Channel) -> Self {
        let bind = SocketAddrV4::new(channel.group, channel.port);
        let native =
            Self::bind(&Options { reuse_address: true, reuse_port: true, receive_ttl: true, ..Options::new(bind) });
        native.socket.join(channel.group.into(), channel.source.map(IpAddr::V4), LOOPBACK).unwrap();
        native
    }

    fn bind(options: &Options) -> Self {
        Self { socket: UdpSocket::bind(options).unwrap(), batch: RefCell::new(RecvBatch::new(64, 4096)) }
    }

    pub fn send(&self, channel: Channel, payload: &[u8]) {
        self.socket.send_to(payload, SocketAddrV4::new(channel.group, channel.port)).unwrap();
    }

    pub fn receive(&self, count: usize) -> Vec<Heard> {
        receive(&self.socket, &self.batch, count)
    }

    pub fn has_nothing(&self) -> bool {
        !wait_readable(&self.socket, Some(Duration::ZERO)).unwrap()
    }
}

fn receive(socket: &UdpSocket, batch: &RefCell<RecvBatch>, count: usize) -> Vec<Heard> {
    let mut heard = Vec::new();
    let mut batch = batch.borrow_mut();
    while heard.len() < count {
        assert!(wait_readable(socket, Some(PATIENCE)).unwrap(), "{} of {count} datagrams came", heard.len());
        batch.receive(socket).unwrap();
        heard.extend(batch.iter().map(|datagram| Heard {
            source: *datagram.source_v4().unwrap().ip(),
            ttl: datagram.ttl,
            payload: datagram.payload.to_vec(),
        }));
    }
    assert_eq!(heard.len(), count, "no more than expected");
    heard
}

/// Waits for something that another thread brings about and that rings no bell.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::yield_now();
    }
}

pub fn host(third: u8, fourth: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 60, third, fourth)
}
