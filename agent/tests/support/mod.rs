//! A client made of bytes, and the agent as a program.
//!
//! Everything is loopback; each test has a network of its own, 127.T.0.0/16 with groups 232.T.0.0/16 and 239.T.0.0/16, so
//! that tests do not hear each other.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod program;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use castgate_control::{AgentSnapshot, ChannelRule, PatternSource, ServerSnapshot};
use castgate_wire::pattern;
use castgate_wire::umtp::{Channel, Command, Cookie, Trailer};

/// More than any answer on one machine takes, however busy it is.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// What did not arrive after this does not arrive: loopback delivers in microseconds, the agent answers in milliseconds.
pub const SILENCE: Duration = Duration::from_millis(400);

/// The network of one test.
#[derive(Debug, Clone, Copy)]
pub struct Net(pub u8);

impl Net {
    pub fn server(self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(127, self.0, 2, 1), 10100)
    }

    pub fn source(self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.0, 1, 1)
    }

    pub fn client(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.0, 3, number)
    }

    pub fn ssm(self, number: u8) -> Channel {
        Channel::source_specific(self.source(), Ipv4Addr::new(232, self.0, 1, number), 5004)
    }

    pub fn asm(self, number: u8) -> Channel {
        Channel::any_source(Ipv4Addr::new(239, self.0, 1, number), 5004)
    }

    /// A server on `lo` that permits these channels, clients may send into any-source ones.
    pub fn snapshot(self, channels: &[Channel]) -> AgentSnapshot {
        let mut server = ServerSnapshot::new(self.server(), vec!["lo".to_owned()]);
        server.channels = channels.iter().map(|channel| rule(*channel)).collect();
        AgentSnapshot { agent: "test/agent".to_owned(), server: Some(server), ..AgentSnapshot::default() }
    }
}

pub fn rule(channel: Channel) -> ChannelRule {
    ChannelRule {
        name: format!("channel {channel}"),
        group: channel.group.into(),
        source: channel.source.map(Into::into),
        ports: channel.port.to_string().parse().unwrap(),
        send: channel.source.is_none(),
        ttl: 63.try_into().unwrap(),
    }
}

/// About a hundred datagrams a second.
pub fn pattern_of(channel: Channel) -> PatternSource {
    PatternSource::new(channel, NonZeroU64::new(1_000_000).unwrap(), "lo".to_owned())
}

/// A client that does what it is told, octet for octet.
#[derive(Debug)]
pub struct RawClient {
    socket: UdpSocket,
    server: SocketAddrV4,
    cookie: Cookie,
    server_cookie: Cookie,
}

impl RawClient {
    /// A client that has proven its address.
    pub fn connect(address: Ipv4Addr, server: SocketAddrV4) -> Self {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        let mut client = Self { socket, server, cookie: Cookie(914), server_cookie: Cookie(2207) };
        let answer = client.insist(|client| client.send(&client.bare(Command::Probe), &[]), Command::ProbeAck);
        client.server_cookie = answer.source_cookie;
        client
    }

    /// Joins and waits for nothing: base UMTP has no answer.
    pub fn join(&self, channel: Channel) {
        self.send(&Trailer { channel, ttl: 63, ..self.bare(Command::JoinGroup) }, &[]);
    }

    pub fn leave(&self, channel: Channel) {
        self.send(&Trailer { channel, ..self.bare(Command::LeaveGroup) }, &[]);
    }

    pub fn data(&self, channel: Channel, ttl: u8, payload: &[u8]) {
        self.send(&Trailer { channel, ttl, ..self.bare(Command::Data) }, payload);
    }

    /// Asks and waits for the answer: everything sent before has been handled.
    pub fn settle(&self) {
        self.insist(|client| client.send(&client.bare(Command::Probe), &[]), Command::ProbeAck);
    }

    /// The next datagram of any kind.
    pub fn receive(&self, timeout: Duration) -> Option<(Trailer, Vec<u8>)> {
        let mut buffer = [0; 2048];
        self.socket.set_read_timeout(Some(timeout)).unwrap();
        let (length, from) = self.socket.recv_from(&mut buffer).ok()?;
        assert_eq!(from, self.server.into(), "an answer comes from where the question went");
        let (head, trailer) = Trailer::parse(&buffer[..length]).unwrap();
        Some((trailer, head.to_vec()))
    }

    /// The next payload of a channel.
    pub fn receive_data(&self, channel: Channel, timeout: Duration) -> Option<(Trailer, Vec<u8>)> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            match self.receive(left)? {
                (trailer, payload) if trailer.command == Command::Data && trailer.channel == channel => {
                    return Some((trailer, payload));
                }
                _ => {}
            }
        }
    }

    /// Joins until the first pattern datagram of the channel arrives, and gives its number.
    pub fn first_of_pattern(&self, channel: Channel) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.join(channel);
            if let Some((_, payload)) = self.receive_data(channel, SILENCE) {
                return pattern::Repr::parse(&payload).expect("an intact pattern").sequence;
            }
        }
        panic!("nothing of {channel} arrived at {:?}", self.socket.local_addr());
    }

    /// Receives `count` more datagrams of a pattern, each with the number after the one before, and gives the last.
    pub fn follow_pattern(&self, channel: Channel, mut sequence: u64, count: usize) -> u64 {
        for _ in 0..count {
            let (_, payload) = self.receive_data(channel, PATIENCE).expect("the pattern goes on");
            let next = pattern::Repr::parse(&payload).expect("an intact pattern").sequence;
            assert_eq!(next, sequence + 1, "a datagram is missing or came twice");
            sequence = next;
        }
        sequence
    }

    pub fn send(&self, trailer: &Trailer, head: &[u8]) {
        let mut datagram = head.to_vec();
        trailer.append_to(&mut datagram);
        self.socket.send_to(&datagram, self.server).unwrap();
    }

    /// A command without a channel.
    pub fn bare(&self, command: Command) -> Trailer {
        Trailer::without_channel(command, self.cookie, self.server_cookie)
    }

    fn insist(&self, ask: impl Fn(&Self), wanted: Command) -> Trailer {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            ask(self);
            let again_at = Instant::now() + SILENCE;
            while let Some((trailer, _)) = self.receive(again_at.saturating_duration_since(Instant::now()).max(NAP)) {
                if trailer.command == wanted {
                    return trailer;
                }
            }
        }
        panic!("no {wanted:?} from {}", self.server);
    }
}

/// `set_read_timeout` takes no zero.
const NAP: Duration = Duration::from_millis(1);

/// Whether this host is a member of the group on any interface.
pub fn is_joined(group: Ipv4Addr) -> bool {
    let octets = u32::from_ne_bytes(group.octets());
    std::fs::read_to_string("/proc/net/igmp").unwrap().contains(&format!("{octets:08X}"))
}
