//! Arbitrary datagrams, arbitrary times: nothing panics, nobody gets more than he gave, and the tables that drivers build from
//! the outputs are the tables of the server.

use crate::bed::{channel, everything, millis};
use castgate_endpoint::umtp::client::{self, Client};
use castgate_endpoint::umtp::server::{Config, Cookies, LoopCheck, Output, Server};
use castgate_wire::umtp::{Channel, Command, Cookie, Trailer};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
enum Datagram {
    Octets(Vec<u8>),
    /// A trailer; with the cookie that the other side has told us, or any.
    Trailer {
        command: u8,
        channel: usize,
        ttl: u8,
        source_cookie: u16,
        destination_cookie: Option<u16>,
        head: Vec<u8>,
    },
}

const GROUPS: [&str; 6] =
    ["239.1.2.3:5004", "239.1.2.3:5005", "232.1.2.3@192.0.2.10:5004", "224.0.0.5:1", "239.1.2.3:0", "239.1.2.3:65535"];

fn datagram() -> impl Strategy<Value = Datagram> {
    let head = prop::collection::vec(any::<u8>(), 0..20);
    let cookies = (any::<u16>(), prop::option::weighted(0.2, any::<u16>()));
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Datagram::Octets),
        9 => (0..16_u8, 0..GROUPS.len(), any::<u8>(), cookies, head).prop_map(
            |(command, channel, ttl, (source_cookie, destination_cookie), head)| Datagram::Trailer {
                command, channel, ttl, source_cookie, destination_cookie, head,
            }
        ),
    ]
}

fn octets(datagram: &Datagram, learned: Cookie) -> Vec<u8> {
    match datagram {
        Datagram::Octets(octets) => octets.clone(),
        Datagram::Trailer { command, channel: place, ttl, source_cookie, destination_cookie, head } => {
            let command = Command::from_code(*command);
            let mut octets = head.clone();
            if command == Command::FlowData {
                octets.extend([0, 1, 2, command.code()]);
            } else {
                Trailer {
                    source_cookie: Cookie(*source_cookie),
                    destination_cookie: destination_cookie.map_or(learned, Cookie),
                    channel: channel(GROUPS[*place]),
                    ttl: *ttl,
                    command,
                }
                .append_to(&mut octets);
            }
            octets
        }
    }
}

/// A peer by number: two behind one address, and two alone.
fn peer(number: usize) -> SocketAddrV4 {
    [([203, 0, 113, 1], 1), ([203, 0, 113, 1], 2), ([203, 0, 113, 2], 1), ([203, 0, 113, 3], 1)]
        .map(|(address, port): ([u8; 4], u16)| SocketAddrV4::new(address.into(), port))[number]
}

/// What a driver knows from the outputs alone.
#[derive(Default)]
struct Replay {
    tunnels: BTreeMap<SocketAddrV4, (Cookies, BTreeSet<Channel>)>,
    native: BTreeSet<Channel>,
    learned: BTreeMap<SocketAddrV4, Cookie>,
    octets: BTreeMap<SocketAddrV4, (usize, usize)>,
    proven: BTreeSet<SocketAddrV4>,
}

impl Replay {
    fn carry_out(&mut self, server: &mut Server) {
        while let Some(output) = server.poll_output() {
            match output {
                Output::Transmit { to, datagram } => {
                    let (_, trailer) = Trailer::parse(&datagram).expect("we send what we can read");
                    if trailer.command == Command::ProbeAck {
                        self.learned.insert(to, trailer.source_cookie);
                    }
                    let (octets_in, octets_out) = self.octets.entry(to).or_default();
                    *octets_out += datagram.len();
                    assert!(self.proven.contains(&to) || *octets_out <= *octets_in, "{to} got more than it gave");
                }
                Output::TunnelUp { tunnel, cookies } => {
                    self.proven.insert(tunnel);
                    assert!(self.tunnels.insert(tunnel, (cookies, BTreeSet::new())).is_none(), "up twice");
                }
                Output::Cookies { tunnel, cookies } => self.tunnel(tunnel).0 = cookies,
                Output::TunnelDown { tunnel, .. } => {
                    let (_, channels) = self.tunnels.remove(&tunnel).expect("a tunnel that was up");
                    assert!(channels.is_empty(), "detached before");
                }
                Output::Attach { tunnel, channel, ttl, ttl_max, .. } => {
                    assert!(self.native.contains(&channel) && ttl <= ttl_max);
                    self.tunnel(tunnel).1.insert(channel);
                }
                Output::Detach { tunnel, channel } => assert!(self.tunnel(tunnel).1.remove(&channel)),
                Output::JoinNative(channel) => assert!(self.native.insert(channel)),
                Output::LeaveNative(channel) => assert!(self.native.remove(&channel)),
                Output::Multicast { channel, .. } => {
                    assert!(channel.is_multicast() && !channel.is_link_local() && channel.port != 0);
                }
            }
        }
    }

    fn tunnel(&mut self, tunnel: SocketAddrV4) -> &mut (Cookies, BTreeSet<Channel>) {
        self.tunnels.get_mut(&tunnel).expect("a tunnel that is up")
    }

    fn assert_equals(&self, server: &Server) {
        let tunnels: BTreeMap<_, _> = server
            .tunnels()
            .map(|tunnel| (tunnel.tunnel, (tunnel.cookies, tunnel.channels.into_iter().collect())))
            .collect();
        assert_eq!(self.tunnels, tunnels);
        let native: BTreeSet<_> = server.channels().map(|channel| channel.channel).collect();
        assert_eq!(self.native, native);
        for channel in server.channels() {
            let attached = self.tunnels.values().filter(|(_, channels)| channels.contains(&channel.channel)).count();
            assert_eq!(attached, channel.tunnels);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_server_survives_anything_and_its_driver_knows_what_it_knows(
        steps in prop::collection::vec((0..4_usize, datagram(), prop_oneof![0..10_u64, 0..40_000_u64]), 0..80),
        limits in (1..5_usize, 1..4_usize, 1..4_usize),
        is_loop_at in 0..80_usize,
    ) {
        let (mut now, mut replay) = (Instant::now(), Replay::default());
        let (tunnels_max, channels_max, channels_per_tunnel_max) = limits;
        let config = Config {
            tunnels_max, channels_max, channels_per_tunnel_max,
            cookie_epoch: Duration::from_mins(5),
            loop_check: LoopCheck::Address,
            ..Config::default()
        };
        let mut server = Server::new(config, everything(), [7; 16], now);
        for (step, (from, datagram, wait)) in steps.into_iter().enumerate() {
            let from = peer(from);
            let datagram = octets(&datagram, replay.learned.get(&from).copied().unwrap_or(Cookie(0)));
            replay.octets.entry(from).or_default().0 += datagram.len();
            server.handle_datagram(now, from, &datagram);
            replay.carry_out(&mut server);
            server.handle_native(now, "239.1.2.3:5004".parse().unwrap(), [192, 0, 2, 10].into(), None, b"data");
            if step == is_loop_at {
                server.handle_loop(now, channel(GROUPS[0]), *from.ip());
            }
            replay.carry_out(&mut server);
            now += millis(wait);
            server.handle_timeout(now);
            replay.carry_out(&mut server);
            replay.assert_equals(&server);
            prop_assert!(server.tunnels().len() <= tunnels_max && server.channels().len() <= channels_max);
            prop_assert!(server.tunnels().all(|tunnel| tunnel.channels.len() <= channels_per_tunnel_max));
        }
        // Left alone, it forgets everything by itself.
        while let Some(next) = server.next_timeout() {
            prop_assert!(next <= now + Duration::from_mins(4));
            server.handle_timeout(next);
            replay.carry_out(&mut server);
        }
        replay.assert_equals(&server);
        prop_assert!(replay.tunnels.is_empty() && replay.native.is_empty());
    }

    #[test]
    fn a_client_survives_anything_and_delivers_only_what_is_joined(
        steps in prop::collection::vec((0..4_usize, datagram(), prop_oneof![0..10_u64, 0..40_000_u64]), 0..80),
        joins in prop::collection::vec((0..80_usize, 0..GROUPS.len(), any::<bool>()), 0..20),
    ) {
        let mut now = Instant::now();
        let servers = vec![peer(0), peer(2)];
        let mut client = Client::new(client::Config::default(), servers.clone(), [7; 16], now);
        let mut wanted = BTreeSet::new();
        let mut learned = BTreeMap::new();
        let mut strangers: BTreeMap<SocketAddrV4, (usize, usize)> = BTreeMap::new();
        for (step, (from, datagram, wait)) in steps.into_iter().enumerate() {
            for (_, place, is_join) in joins.iter().filter(|(at, ..)| *at == step) {
                let channel = channel(GROUPS[*place]);
                if *is_join {
                    client.join(channel, now);
                    wanted.insert(channel);
                } else {
                    client.leave(channel, now);
                    wanted.remove(&channel);
                }
            }
            let from = peer(from);
            let datagram = octets(&datagram, learned.get(&from).copied().unwrap_or(Cookie(0)));
            strangers.entry(from).or_default().0 += datagram.len();
            if let Some(received) = client.handle_datagram(now, from, &datagram) {
                prop_assert!(wanted.contains(&received.channel) && servers.contains(&from));
            }
            now += millis(wait);
            client.handle_timeout(now);
            prop_assert!(client.next_timeout().is_none_or(|next| next > now));
            while let Some(output) = client.poll_output() {
                if let client::Output::Transmit { to, datagram } = output {
                    let (_, trailer) = Trailer::parse(&datagram).expect("we send what we can read");
                    let (octets_in, octets_out) = strangers.entry(to).or_default();
                    *octets_out += datagram.len();
                    if servers.contains(&to) {
                        learned.insert(to, trailer.source_cookie);
                    } else {
                        prop_assert!(*octets_out <= *octets_in, "a stranger got more than he gave");
                    }
                }
            }
        }
    }
}
