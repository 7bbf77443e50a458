//! One rule of the server each; the helpers stand here, the rules in the files.

mod cookies;
mod joins;
mod payloads;

use super::*;
use castgate_wire::umtp::Cookie;
use std::net::Ipv4Addr;
use std::time::Duration;

const ASM: &str = "239.1.2.3:5004";
const SSM: &str = "232.1.2.3@192.0.2.10:5004";
/// The cookie of every client of these tests.
const REMOTE: Cookie = Cookie(0x0392);

fn channel(text: &str) -> Channel {
    text.parse().unwrap()
}

fn client(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new([203, 0, 113, number].into(), 40_000)
}

fn everything() -> Permissions {
    let groups = "224.0.0.0/4".parse().unwrap();
    Permissions(vec![Permit { groups, sources: Sources::Any, ports: 0..=u16::MAX, send: true, ttl_max: 255 }])
}

/// A server under a clock that we turn.
struct Lab {
    server: Server,
    start: Instant,
    now: Instant,
}

impl Lab {
    fn new() -> Self {
        Self::with(Config::default(), everything())
    }

    fn with(config: Config, permissions: Permissions) -> Self {
        let now = Instant::now();
        Self { server: Server::new(config, permissions, [7; 16], now), start: now, now }
    }

    fn wait(&mut self, span: Duration) {
        self.now += span;
        self.server.handle_timeout(self.now);
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.server.poll_output()).collect()
    }

    /// What went to `to` since the last look; everything else is forgotten.
    fn sent_to(&mut self, to: SocketAddrV4) -> Vec<(Trailer, Vec<u8>)> {
        let outputs = self.outputs();
        let datagrams = outputs.into_iter().filter_map(|output| match output {
            Output::Transmit { to: receiver, datagram } if receiver == to => Some(datagram),
            _ => None,
        });
        datagrams
            .map(|datagram| {
                let (head, trailer) = Trailer::parse(&datagram).unwrap();
                (trailer, head.to_vec())
            })
            .collect()
    }

    fn receive(&mut self, from: SocketAddrV4, trailer: Trailer, head: &[u8]) {
        self.server.handle_datagram(self.now, from, &datagram(&trailer, head));
    }

    /// The cookie that `from` would be told, by a way that leaves no trace in the limits.
    fn cookie(&self, from: SocketAddrV4) -> Cookie {
        self.server.jar.cookies(from, self.now).current
    }

    fn trailer(&self, from: SocketAddrV4, command: Command, channel: Channel, ttl: u8) -> Trailer {
        Trailer { source_cookie: REMOTE, destination_cookie: self.cookie(from), channel, ttl, command }
    }

    fn say(&mut self, from: SocketAddrV4, command: Command, channel: Channel) {
        let trailer = self.trailer(from, command, channel, 63);
        self.receive(from, trailer, &[]);
    }

    fn join(&mut self, from: SocketAddrV4, channel: Channel) {
        self.say(from, Command::JoinGroup, channel);
    }

    fn joined(&self, tunnel: SocketAddrV4) -> Vec<Channel> {
        let found = self.server.tunnels().find(|report| report.tunnel == tunnel);
        found.map(|report| report.channels).unwrap_or_default()
    }

    fn dropped(&self, reason: Reason) -> u64 {
        self.server.counters().drops.of(reason)
    }
}
