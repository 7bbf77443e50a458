//! One rule of the client each; the helpers stand here, the rules in the files.

mod channels;
mod servers;
mod trust;

use super::*;
use castgate_wire::umtp::Cookie;
use std::net::Ipv4Addr;
use std::time::Duration;

const ASM: &str = "239.1.2.3:5004";
const SSM: &str = "232.1.2.3@192.0.2.10:5004";
/// The cookie of every server of these tests, until one changes it.
const REMOTE: Cookie = Cookie(0x05a2);

fn channel(text: &str) -> Channel {
    text.parse().unwrap()
}

fn server(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new([198, 51, 100, number].into(), 10_100)
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A client under a clock that we turn; the servers are played by the test.
struct Lab {
    client: Client,
    start: Instant,
    now: Instant,
    /// What went out, with its time in milliseconds, since the last look.
    sent: Vec<(u64, SocketAddrV4, Trailer)>,
    events: Vec<Event>,
}

impl Lab {
    fn new(servers: u8) -> Self {
        Self::with(Config::default(), servers)
    }

    fn with(config: Config, servers: u8) -> Self {
        let now = Instant::now();
        let client = Client::new(config, (1..=servers).map(server).collect(), [7; 16], now);
        Self { client, start: now, now, sent: Vec::new(), events: Vec::new() }
    }

    /// A client that has joined a channel at the first of its servers.
    fn up(servers: u8) -> Self {
        let mut lab = Self::new(servers);
        lab.client.join(channel(ASM), lab.now);
        lab.answer(server(1), Command::ProbeAck);
        lab.drain();
        lab.sent.clear();
        lab.events.clear();
        lab
    }

    fn drain(&mut self) {
        let at = u64::try_from((self.now - self.start).as_millis()).unwrap();
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Transmit { to, datagram } => {
                    self.sent.push((at, to, Trailer::parse(&datagram).unwrap().1));
                }
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    /// Turns the clock, stopping at every deadline of the client.
    fn wait(&mut self, span: Duration) {
        self.drain();
        let end = self.now + span;
        while let Some(next) = self.client.next_timeout().filter(|next| *next <= end) {
            self.now = next;
            self.client.handle_timeout(next);
            self.drain();
        }
        self.now = end;
        self.drain();
    }

    /// A datagram of a server with the right cookies.
    fn trailer(&self, from: SocketAddrV4, command: Command, channel: Channel) -> Trailer {
        let destination_cookie = self.client.local_cookie(from);
        Trailer { source_cookie: REMOTE, destination_cookie, channel, ttl: 9, command }
    }

    fn receive(&mut self, from: SocketAddrV4, trailer: Trailer) -> bool {
        let octets = datagram(&trailer, b"hi");
        let is_delivered = self.client.handle_datagram(self.now, from, &octets).is_some();
        self.drain();
        is_delivered
    }

    fn answer(&mut self, from: SocketAddrV4, command: Command) {
        let trailer = self.trailer(from, command, Channel::UNSPECIFIED);
        self.receive(from, trailer);
    }

    fn data(&mut self, text: &str) -> bool {
        let trailer = self.trailer(server(1), Command::Data, channel(text));
        self.receive(server(1), trailer)
    }

    /// Command and time of what went out.
    fn said(&mut self) -> Vec<(u64, Command)> {
        std::mem::take(&mut self.sent).into_iter().map(|(at, _, trailer)| (at, trailer.command)).collect()
    }

    fn commands(&mut self) -> Vec<Command> {
        self.said().into_iter().map(|(_, command)| command).collect()
    }
}
