//! As many tunnels as a server may have.

use crate::bed::everything;
use castgate_endpoint::umtp::server::{Config, DownReason, Output, Server};
use castgate_wire::umtp::{Channel, Command, Cookie, Trailer};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

const TUNNELS: u32 = 100_000;

fn client(number: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(0x0a00_0000 + number), 4_000)
}

fn send(server: &mut Server, now: Instant, number: u32, destination_cookie: Cookie, command: Command) {
    let channel = Channel::any_source([239, 1, (number % 200).to_be_bytes()[3], 1].into(), 5_004);
    let trailer = Trailer { source_cookie: Cookie(1), destination_cookie, channel, ttl: 63, command };
    server.handle_datagram(now, client(number), &trailer.to_octets());
}

/// A scan of all tunnels at every step would take 10^10 looks here: minutes instead of a second.
#[test]
fn a_hundred_thousand_tunnels_join_refresh_and_expire_without_being_scanned() {
    let wall = Instant::now();
    let mut now = Instant::now();
    let mut server = Server::new(Config::default(), everything(), [7; 16], now);
    let mut cookies = Vec::new();
    for number in 0..TUNNELS {
        send(&mut server, now, number, Cookie(0), Command::Probe);
        let Some(Output::Transmit { datagram, .. }) = server.poll_output() else { panic!("an answer") };
        cookies.push(Trailer::parse(&datagram).unwrap().1.source_cookie);
    }
    let refresh = |server: &mut Server, now: &mut Instant| {
        for (number, cookie) in (0..).zip(&cookies) {
            *now += Duration::from_micros(100);
            send(server, *now, number, *cookie, Command::JoinGroup);
            assert!(server.next_timeout().is_some());
            server.handle_timeout(*now);
            while server.poll_output().is_some() {}
        }
    };
    refresh(&mut server, &mut now);
    assert_eq!((server.tunnels().len(), server.channels().len()), (100_000, 200));
    refresh(&mut server, &mut now);
    assert_eq!(server.counters().refreshes, u64::from(TUNNELS));

    let mut idle = 0;
    while let Some(next) = server.next_timeout() {
        server.handle_timeout(next);
        while let Some(output) = server.poll_output() {
            idle += u32::from(matches!(output, Output::TunnelDown { reason: DownReason::Idle, .. }));
        }
    }
    assert_eq!(idle, TUNNELS);
    assert_eq!(server.counters().expiries, u64::from(TUNNELS));
    assert!(wall.elapsed() < Duration::from_mins(1), "{:?}", wall.elapsed());
}
