//! Strangers in great numbers.

use crate::bed::{Bed, channel, everything, millis};
use crate::random::Random;
use castgate_endpoint::umtp::server::{Config, Output, Reason, Server};
use castgate_wire::umtp::{Channel, Command, Cookie, Trailer};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

const CHANNEL: &str = "232.1.2.3@192.0.2.10:5004";

const COMMANDS: [Command; 9] = [
    Command::Data,
    Command::JoinGroup,
    Command::LeaveGroup,
    Command::TearDown,
    Command::Probe,
    Command::ProbeAck,
    Command::ProbeNack,
    Command::JoinRtpGroup,
    Command::LeaveRtpGroup,
];

fn guess(random: &mut Random) -> Vec<u8> {
    let trailer = Trailer {
        source_cookie: cookie(random),
        destination_cookie: cookie(random),
        channel: channel(CHANNEL),
        ttl: 63,
        command: COMMANDS[usize::try_from(random.below(9)).unwrap()],
    };
    let mut datagram = vec![0; usize::try_from(random.below(40)).unwrap()];
    trailer.append_to(&mut datagram);
    datagram
}

fn cookie(random: &mut Random) -> Cookie {
    Cookie(u16::try_from(random.below(65_536)).unwrap())
}

/// Sends guesses into a server at 100 000 a second and looks at what comes out.
struct Flood {
    key: [u8; 16],
    start: Instant,
    now: Instant,
    server: Server,
    /// Octets in and out by address; the balance of a stranger must never be in his favour.
    octets: BTreeMap<SocketAddrV4, (usize, usize)>,
    ups: usize,
}

impl Flood {
    fn new(random: &mut Random) -> Self {
        let (key, start) = (random.key(), Instant::now());
        let server = Server::new(Config::default(), everything(), key, start);
        Self { key, start, now: start, server, octets: BTreeMap::new(), ups: 0 }
    }

    /// Whether a twin of the server, with the same key, takes the cookie.
    fn is_right(&self, from: SocketAddrV4, datagram: &[u8]) -> bool {
        let config = Config { answers_remembered: 1, guessers_remembered: 1, ..Config::default() };
        let mut twin = Server::new(config, everything(), self.key, self.start);
        let (_, guess) = Trailer::parse(datagram).unwrap();
        let mut join = Vec::new();
        Trailer { command: Command::JoinGroup, ..guess }.append_to(&mut join);
        twin.handle_datagram(self.now, from, &join);
        twin.tunnels().len() == 1
    }

    fn receive(&mut self, from: SocketAddrV4, datagram: &[u8]) {
        self.now += Duration::from_micros(10);
        self.octets.entry(from).or_default().0 += datagram.len();
        self.server.handle_datagram(self.now, from, datagram);
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Transmit { to, datagram } => {
                    let (octets_in, octets_out) = self.octets.entry(to).or_default();
                    *octets_out += datagram.len();
                    assert!(*octets_out <= *octets_in, "{to} got more than it sent");
                }
                Output::TunnelUp { .. } => self.ups += 1,
                other => panic!("a stranger made the server say {other:?}"),
            }
        }
        assert!(self.server.next_timeout().is_none(), "a stranger made the server remember him");
    }
}

#[test]
fn wrong_cookies_from_random_addresses_leave_no_trace_and_are_never_answered_with_more() {
    let mut random = Random(1);
    let mut flood = Flood::new(&mut random);
    for _ in 0..1_000_000 {
        let address = Ipv4Addr::from(u32::try_from(random.below(1 << 32)).unwrap());
        let from = SocketAddrV4::new(address, u16::try_from(random.below(65_536)).unwrap());
        let datagram = guess(&mut random);
        // In a million random guesses a few dozen are right; the flood of this test is wrong by definition.
        if !flood.is_right(from, &datagram) {
            flood.receive(from, &datagram);
        }
    }
    assert_eq!(flood.ups, 0);
    assert_eq!((flood.server.tunnels().len(), flood.server.channels().len()), (0, 0));
    assert!(flood.server.counters().drops.of(Reason::WrongCookie) > 500_000);
}

#[test]
fn sixty_seconds_of_guesses_from_one_address_get_nothing() {
    for seed in 0..3 {
        let mut random = Random(seed);
        let mut flood = Flood::new(&mut random);
        for number in 0..600_000_u32 {
            // Ten thousand a second; the first seed from one port only, where every guess excludes one.
            flood.now += Duration::from_micros(90);
            let port = if seed == 0 { 7 } else { u16::try_from(random.below(65_536)).unwrap() };
            let mut datagram = Vec::new();
            let destination_cookie = Cookie(u16::try_from(number % 65_536).unwrap());
            Trailer {
                source_cookie: Cookie(1),
                destination_cookie,
                channel: channel(CHANNEL),
                ttl: 63,
                command: Command::JoinGroup,
            }
            .append_to(&mut datagram);
            flood.receive(SocketAddrV4::new([203, 0, 113, 9].into(), port), &datagram);
        }
        assert_eq!(flood.ups, 0);
        let counters = flood.server.counters();
        assert!(counters.probe_acks <= 16, "{} answers", counters.probe_acks);
        assert!(counters.drops.of(Reason::Ignored) > 599_900);
    }
}

#[test]
fn an_honest_client_is_not_disturbed_by_a_flood_and_another_gets_in() {
    let mut bed = Bed::new(3);
    let server = bed.add_server();
    let client = bed.add_client();
    bed.add_source(channel(CHANNEL), millis(10));
    bed.join(client, channel(CHANNEL));
    bed.run_for(millis(1_000));
    let late = bed.add_client();
    bed.join(late, channel(CHANNEL));
    for _ in 0..2_000 {
        for _ in 0..100 {
            let address = Ipv4Addr::from(u32::try_from(bed.net.random.below(1 << 31)).unwrap());
            let datagram = guess(&mut bed.net.random);
            if matches!(Trailer::parse(&datagram).unwrap().1.command, Command::Probe | Command::Data) {
                let to = bed.servers[server].address;
                bed.inject(SocketAddrV4::new(address, 1), to, &datagram);
            }
        }
        bed.run_for(millis(1));
    }
    let arrivals = bed.arrivals(client, channel(CHANNEL));
    assert!(arrivals.windows(2).all(|pair| pair[1] - pair[0] == 10));
    assert!(bed.arrivals(late, channel(CHANNEL)).len() > 150);
}

#[test]
fn unfit_and_unpermitted_joins_join_nothing_and_are_counted_by_reason() {
    let mut bed = Bed::new(1);
    let mut permissions = everything();
    permissions.0[0].groups = "239.1.0.0/16".parse().unwrap();
    let server = bed.add_server_with(Config::default(), permissions);
    let from = SocketAddrV4::new([203, 0, 113, 9].into(), 9);
    let mut probe = Vec::new();
    Trailer::without_channel(Command::Probe, Cookie(1), Cookie(2)).append_to(&mut probe);
    let now = bed.now;
    bed.server_mut(server).handle_datagram(now, from, &probe);
    let Some(Output::Transmit { datagram, .. }) = bed.server_mut(server).poll_output() else { panic!("an answer") };
    let right = Trailer::parse(&datagram).unwrap().1.source_cookie;
    let any = |group: [u8; 4], port| Channel::any_source(group.into(), port);
    let cases = [
        (Command::JoinGroup, any([224, 0, 0, 5], 1), Reason::LinkLocal),
        (Command::JoinGroup, any([192, 0, 2, 1], 1), Reason::NotMulticast),
        (Command::JoinGroup, any([239, 2, 0, 1], 1), Reason::NotPermitted),
        (Command::JoinGroup, any([239, 1, 0, 1], 0), Reason::RawPort),
        (Command::JoinRtpGroup, any([239, 1, 0, 1], 65_535), Reason::NoRtcpPort),
        (
            Command::JoinGroup,
            Channel::source_specific(Ipv4Addr::BROADCAST, [239, 1, 0, 1].into(), 1),
            Reason::BadSource,
        ),
        (Command::Data, any([239, 1, 0, 1], 1), Reason::NoTunnel),
    ];
    for (command, channel, reason) in cases {
        let mut datagram = Vec::new();
        Trailer { source_cookie: Cookie(1), destination_cookie: right, channel, ttl: 9, command }
            .append_to(&mut datagram);
        bed.server_mut(server).handle_datagram(now, from, &datagram);
        assert_eq!(bed.server(server).counters().drops.of(reason), 1, "{reason:?}");
        assert_eq!(bed.server_mut(server).poll_output(), None, "{reason:?}");
    }
    assert_eq!((bed.server(server).tunnels().len(), bed.server(server).channels().len()), (0, 0));
}
