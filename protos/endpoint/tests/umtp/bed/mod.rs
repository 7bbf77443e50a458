//! The test bed: servers, clients behind NATs, sources, one clock, one seed.
//!
//! ```text
//!   source ──native──▶ server ══ net: delay, loss, duplicates, reorder, cuts ══ NAT ── client
//! ```
//! Everything happens in the order of its time and, within that, of its making: the same seed gives the same run.

mod net;

pub use net::{Link, Net};

use castgate_endpoint::umtp::client::{self, Client, Event};
use castgate_endpoint::umtp::server::{self, Permissions, Permit, Server, Sources};
use castgate_wire::umtp::Channel;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Milliseconds since the bed was made.
pub type Millis = u64;

pub const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A server and what it was told and told us.
pub struct ServerNode {
    pub address: SocketAddrV4,
    /// `None` while it is killed.
    pub server: Option<Server>,
    pub config: server::Config,
    pub permissions: Permissions,
    /// Channels that it takes natively.
    pub native: BTreeSet<Channel>,
    /// What its clients sent, as it went to the native network.
    pub multicast: Vec<(Channel, u8, Vec<u8>)>,
    /// Tunnels that went down, with their reasons.
    pub down: Vec<(Millis, SocketAddrV4, server::DownReason)>,
}

/// A client, its NAT, and what it received.
pub struct ClientNode {
    pub client: Client,
    /// As servers see it.
    pub public: SocketAddrV4,
    /// What the test wants to be joined.
    pub wanted: BTreeSet<Channel>,
    pub received: Vec<(Millis, Channel, u8, Vec<u8>)>,
    pub events: Vec<(Millis, Event)>,
    /// Killed without a word.
    pub is_dead: bool,
    /// What the driver answers to `NeedServers`.
    pub servers: Vec<SocketAddrV4>,
}

/// A sender in the native network.
pub struct Source {
    pub destination: SocketAddrV4,
    pub address: Ipv4Addr,
    pub interval: Duration,
    pub next_at: Instant,
    pub sequence: u64,
}

pub struct Bed {
    pub start: Instant,
    pub now: Instant,
    pub net: Net,
    pub servers: Vec<ServerNode>,
    pub clients: Vec<ClientNode>,
    pub sources: Vec<Source>,
    /// Every datagram that was handed to the network: time, sender, receiver, octets.
    pub sent: Vec<(Millis, SocketAddrV4, SocketAddrV4, Vec<u8>)>,
}

/// All of 224/4, both directions: what a test wants to forbid it forbids itself.
pub fn everything() -> Permissions {
    Permissions(vec![Permit {
        groups: "224.0.0.0/4".parse().unwrap(),
        sources: Sources::Any,
        ports: 0..=u16::MAX,
        send: true,
        ttl_max: 255,
    }])
}

pub fn channel(text: &str) -> Channel {
    text.parse().unwrap()
}

impl Bed {
    pub fn new(seed: u64) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: start,
            net: Net::new(seed),
            servers: Vec::new(),
            clients: Vec::new(),
            sources: Vec::new(),
            sent: Vec::new(),
        }
    }

    pub fn add_server(&mut self) -> usize {
        self.add_server_with(server::Config::default(), everything())
    }

    pub fn add_server_with(&mut self, config: server::Config, permissions: Permissions) -> usize {
        let place = self.servers.len();
        let address = SocketAddrV4::new([198, 51, 100, u8::try_from(place + 1).unwrap()].into(), 10_100);
        self.servers.push(ServerNode {
            address,
            server: None,
            config,
            permissions,
            native: BTreeSet::new(),
            multicast: Vec::new(),
            down: Vec::new(),
        });
        self.start_server(place);
        place
    }

    /// A client that knows all servers of this moment, behind a NAT of its own.
    pub fn add_client(&mut self) -> usize {
        self.add_client_with(client::Config::default())
    }

    pub fn add_client_with(&mut self, config: client::Config) -> usize {
        let place = u8::try_from(self.clients.len() + 1).unwrap();
        self.add_client_at(SocketAddrV4::new([203, 0, 113, place].into(), 40_000), config)
    }

    pub fn add_client_at(&mut self, public: SocketAddrV4, config: client::Config) -> usize {
        let servers: Vec<_> = self.servers.iter().map(|node| node.address).collect();
        let key = self.net.random.key();
        self.clients.push(ClientNode {
            client: Client::new(config, servers.clone(), key, self.now),
            public,
            wanted: BTreeSet::new(),
            received: Vec::new(),
            events: Vec::new(),
            is_dead: false,
            servers,
        });
        self.clients.len() - 1
    }

    /// A source that sends a numbered packet at every interval, from now on.
    pub fn add_source(&mut self, channel: Channel, interval: Duration) {
        self.sources.push(Source {
            destination: SocketAddrV4::new(channel.group, channel.port),
            address: channel.source.unwrap_or(Ipv4Addr::new(192, 0, 2, 10)),
            interval,
            next_at: self.now,
            sequence: 0,
        });
    }

    /// Kills a server; its state is gone.
    pub fn kill_server(&mut self, place: usize) {
        self.servers[place].server = None;
        self.servers[place].native.clear();
    }

    /// Starts a server that is not running, with a new key.
    pub fn start_server(&mut self, place: usize) {
        let key = self.net.random.key();
        let node = &mut self.servers[place];
        node.native.clear();
        node.server = Some(Server::new(node.config.clone(), node.permissions.clone(), key, self.now));
    }

    pub fn server(&self, place: usize) -> &Server {
        self.servers[place].server.as_ref().expect("the test asks a running server")
    }

    pub fn server_mut(&mut self, place: usize) -> &mut Server {
        self.servers[place].server.as_mut().expect("the test commands a running server")
    }

    /// The NAT of a client forgets it: from now on it has another port.
    pub fn rebind(&mut self, place: usize) {
        let public = self.clients[place].public;
        self.clients[place].public = SocketAddrV4::new(*public.ip(), public.port() + 1);
    }

    pub fn join(&mut self, place: usize, channel: Channel) {
        self.clients[place].wanted.insert(channel);
        self.clients[place].client.join(channel, self.now);
        self.settle();
    }

    pub fn leave(&mut self, place: usize, channel: Channel) {
        self.clients[place].wanted.remove(&channel);
        self.clients[place].client.leave(channel, self.now);
        self.settle();
    }

    pub fn send(&mut self, place: usize, channel: Channel, ttl: u8, payload: &[u8]) {
        self.clients[place].client.send(channel, ttl, payload).unwrap();
        self.settle();
    }

    /// A datagram from anybody, as if he had sent it.
    pub fn inject(&mut self, from: SocketAddrV4, to: SocketAddrV4, datagram: &[u8]) {
        self.net.carry(self.now, from, to, datagram);
    }

    pub fn at(&self) -> Millis {
        u64::try_from((self.now - self.start).as_millis()).unwrap()
    }

    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }

    /// Runs until nothing is due before `end`.
    pub fn run_until(&mut self, end: Instant) {
        self.settle();
        while let Some(next) = self.next_event().filter(|next| *next <= end) {
            assert!(next >= self.now, "time runs forward");
            self.now = next;
            self.step();
        }
        self.now = end;
    }

    fn next_event(&self) -> Option<Instant> {
        let clients = self.clients.iter().filter(|node| !node.is_dead).filter_map(|node| node.client.next_timeout());
        let servers = self.servers.iter().filter_map(|node| node.server.as_ref()?.next_timeout());
        let sources = self.sources.iter().map(|source| source.next_at);
        // A driver that wakes late is late, not wrong.
        clients.chain(servers).chain(sources).chain(self.net.next_arrival()).min().map(|next| next.max(self.now))
    }

    fn step(&mut self) {
        let now = self.now;
        for node in &mut self.clients {
            if !node.is_dead && node.client.next_timeout().is_some_and(|at| at <= now) {
                node.client.handle_timeout(now);
                assert!(node.client.next_timeout().is_none_or(|at| at > now), "a client that is never satisfied");
            }
        }
        for server in self.servers.iter_mut().filter_map(|node| node.server.as_mut()) {
            if server.next_timeout().is_some_and(|at| at <= now) {
                server.handle_timeout(now);
                assert!(server.next_timeout().is_none_or(|at| at > now), "a server that is never satisfied");
            }
        }
        self.run_sources();
        while let Some((from, to, datagram)) = self.net.arrive(now) {
            self.receive(from, to, &datagram);
        }
        self.settle();
    }

    fn run_sources(&mut self) {
        for source in self.sources.iter_mut().filter(|source| source.next_at <= self.now) {
            let payload = source.sequence.to_be_bytes();
            source.sequence += 1;
            source.next_at += source.interval;
            for node in &mut self.servers {
                let any = Channel::any_source(*source.destination.ip(), source.destination.port());
                let specific = Channel { source: Some(source.address), ..any };
                let is_taken = node.native.contains(&any) || node.native.contains(&specific);
                if let Some(server) = node.server.as_mut().filter(|_| is_taken) {
                    server.handle_native(self.now, source.destination, source.address, Some(64), &payload);
                }
            }
        }
    }

    fn receive(&mut self, from: SocketAddrV4, to: SocketAddrV4, datagram: &[u8]) {
        let (now, at) = (self.now, self.at());
        if let Some(server) =
            self.servers.iter_mut().find(|node| node.address == to).and_then(|node| node.server.as_mut())
        {
            server.handle_datagram(now, from, datagram);
        }
        for node in self.clients.iter_mut().filter(|node| node.public == to && !node.is_dead) {
            if let Some(received) = node.client.handle_datagram(now, from, datagram) {
                assert!(
                    node.wanted.contains(&received.channel),
                    "a packet of {} at {at} ms, which is not joined",
                    received.channel
                );
                node.received.push((at, received.channel, received.ttl, received.payload.to_vec()));
            }
        }
    }

    /// Carries out all outputs.
    pub fn settle(&mut self) {
        let (now, at) = (self.now, self.at());
        for place in 0..self.clients.len() {
            let node = &mut self.clients[place];
            while let Some(output) = node.client.poll_output() {
                match output {
                    client::Output::Transmit { to, datagram } if !node.is_dead => {
                        self.net.carry(now, node.public, to, &datagram);
                        self.sent.push((at, node.public, to, datagram));
                    }
                    client::Output::Transmit { .. } => {}
                    client::Output::Event(event) => {
                        if event == Event::NeedServers {
                            node.client.set_servers(node.servers.clone(), now);
                        }
                        node.events.push((at, event));
                    }
                }
            }
        }
        for node in &mut self.servers {
            let Some(server) = &mut node.server else { continue };
            while let Some(output) = server.poll_output() {
                match output {
                    server::Output::Transmit { to, datagram } => {
                        self.net.carry(now, node.address, to, &datagram);
                        self.sent.push((at, node.address, to, datagram));
                    }
                    server::Output::JoinNative(channel) => assert!(node.native.insert(channel), "joined twice"),
                    server::Output::LeaveNative(channel) => assert!(node.native.remove(&channel), "left twice"),
                    server::Output::Multicast { channel, ttl, payload } => {
                        node.multicast.push((channel, ttl, payload));
                    }
                    server::Output::TunnelDown { tunnel, reason } => node.down.push((at, tunnel, reason)),
                    server::Output::TunnelUp { .. }
                    | server::Output::Cookies { .. }
                    | server::Output::Attach { .. }
                    | server::Output::Detach { .. } => {}
                }
            }
        }
    }

    /// When a client received packets of a channel.
    pub fn arrivals(&self, place: usize, channel: Channel) -> Vec<Millis> {
        self.clients[place].received.iter().filter(|(_, of, ..)| *of == channel).map(|(at, ..)| *at).collect()
    }

    /// The first packet of a channel at a client since a time.
    pub fn first_since(&self, place: usize, channel: Channel, since: Millis) -> Option<Millis> {
        self.arrivals(place, channel).into_iter().find(|at| *at >= since)
    }
}
