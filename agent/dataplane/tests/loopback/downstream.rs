//! From native multicast into tunnels, on real sockets.

use crate::lab::{Client, LOOPBACK, Lab, Native, host, wait_until};
use castgate_dataplane::{DropReason, Event, Interface, Traffic};
use castgate_udp::shard_of;
use castgate_wire::umtp::{Channel, Command, Trailer};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

const PORT: u16 = 5004;

#[test]
fn every_tunnel_gets_the_payload_with_a_trailer_of_its_own_octet_for_octet() {
    let mut lab = Lab::new(host(1, 1), 2);
    let source = Native::source_with_ttl(host(1, 2), 64);
    let channel = Channel::source_specific(host(1, 2), Ipv4Addr::new(232, 1, 1, 1), PORT);
    let clients: Vec<_> = (10..16).map(|last| lab.client(host(1, last))).collect();
    for client in &clients {
        lab.attach(client, channel);
    }
    lab.publish(&[channel]);

    source.send(channel, b"hi");
    for (client, number) in clients.iter().zip(1..) {
        let expected = [
            b'h', b'i', // payload
            127, 60, 1, 2, // source
            0x11, number, 0x22, number, // cookies: the server's, the client's
            232, 1, 1, 1, 0x13, 0x8c, // group and port
            63,   // TTL less one
            0x81, // S, DATA
        ];
        assert_eq!(client.receive(1), [expected]);
    }
    lab.wait_for_tunnels_out(6);
    let flows = lab.dataplane.counters().flows;
    assert_eq!(flows.native_in, Traffic { packets: 1, bytes: 2 }, "once, though two workers take it in");
    assert_eq!(flows.tunnels_out, Traffic { packets: 6, bytes: 12 });
    let report = &lab.dataplane.channels()[0];
    assert_eq!((report.channel, report.tunnels, report.flows), (channel, 6, flows));
}

#[test]
fn a_plain_channel_has_the_short_trailer_and_takes_any_source() {
    let mut lab = Lab::new(host(2, 1), 1);
    let channel = Channel::any_source(Ipv4Addr::new(239, 60, 2, 1), PORT);
    let client = lab.client(host(2, 10));
    lab.attach(&client, channel);
    lab.publish(&[channel]);
    Native::source(host(2, 2)).send(channel, b"a");
    Native::source(host(2, 3)).send(channel, b"b");
    let expected = |payload| [payload, 0x11, 1, 0x22, 1, 239, 60, 2, 1, 0x13, 0x8c, 31, 1];
    assert_eq!(client.receive(2), [expected(b'a'), expected(b'b')]);
}

#[test]
fn datagrams_are_the_same_with_and_without_segmentation() {
    let payloads: Vec<Vec<u8>> = [1316, 1316, 1316, 500, 0, 1316, 1400, 1316]
        .iter()
        .cycle()
        .zip(0..200_u8)
        .map(|(&length, number)| vec![number; length])
        .collect();
    let mut seen = Vec::new();
    for (last, segmentation) in [(1, true), (2, false)] {
        let mut lab = Lab::with(host(3, last), 1, |settings| settings.segmentation = segmentation);
        let channel = Channel::any_source(Ipv4Addr::new(239, 60, 3, last), PORT);
        let client = lab.client(host(3, 10));
        lab.attach(&client, channel);
        lab.publish(&[channel]);
        let source = Native::source(host(3, 3));
        // All of it waits at the ingress socket or is under way: batches of every size come about.
        for payload in &payloads {
            source.send(channel, payload);
        }
        seen.push(client.payloads(channel, 31, payloads.len()));
    }
    assert_eq!(seen[0], payloads);
    assert_eq!(seen[1], payloads);
}

#[test]
fn twenty_five_groups_and_twelve_sources_are_taken_at_once() {
    let mut lab = Lab::new(host(4, 1), 1);
    let client = lab.client(host(4, 10));
    let groups = (1..=25).map(|last| Channel::any_source(Ipv4Addr::new(239, 60, 4, last), PORT));
    let group = Ipv4Addr::new(232, 60, 4, 1);
    let sources = (101..=112).map(|last| Channel::source_specific(host(4, last), group, PORT));
    let channels: Vec<_> = groups.chain(sources).collect();
    for channel in &channels {
        lab.attach(&client, *channel);
    }
    lab.publish(&channels);

    let source = Native::source(host(4, 2));
    for (channel, number) in channels.iter().zip(0_u8..) {
        match channel.source {
            None => source.send(*channel, &[number]),
            Some(address) => Native::source(address).send(*channel, &[number]),
        }
        assert_eq!(client.payloads(*channel, 31, 1), [[number]]);
    }
    // A thirteenth source of that group is nobody's business.
    Native::source(host(4, 113)).send(Channel::any_source(group, PORT), b"x");
    source.send(channels[0], b"last");
    assert_eq!(client.payloads(channels[0], 31, 1), [b"last"]);
}

#[test]
fn sources_that_take_turns_at_one_socket_are_told_apart_and_keep_their_order() {
    let mut lab = Lab::new(host(15, 1), 1);
    let client = lab.client(host(15, 10));
    let group = Ipv4Addr::new(232, 60, 15, 1);
    let channels: Vec<_> = (101..=103).map(|last| Channel::source_specific(host(15, last), group, PORT)).collect();
    for channel in &channels {
        lab.attach(&client, *channel);
    }
    lab.publish(&channels);
    let sources: Vec<_> = (101..=103).map(|last| Native::source(host(15, last))).collect();
    for number in 0..100_u8 {
        for (source, channel) in sources.iter().zip(&channels) {
            source.send(*channel, &[number]);
        }
    }
    let datagrams = client.receive(300);
    for channel in &channels {
        let of_channel = datagrams.iter().map(|datagram| Trailer::parse(datagram).unwrap());
        let numbers: Vec<_> =
            of_channel.filter(|(_, trailer)| trailer.channel == *channel).map(|(payload, _)| payload[0]).collect();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }
    assert!(client.has_nothing());
}

#[test]
fn more_tunnels_than_one_call_of_the_kernel_takes_are_all_served() {
    let mut lab = Lab::new(host(16, 1), 1);
    let channel = Channel::any_source(Ipv4Addr::new(239, 60, 16, 1), PORT);
    let clients: Vec<_> = (0..150).map(|_| lab.client(host(16, 10))).collect();
    for client in &clients {
        lab.attach(client, channel);
    }
    lab.publish(&[channel]);
    let source = Native::source(host(16, 2));
    let expected: Vec<_> = (0..20).map(|number| vec![number; 10]).collect();
    for payload in &expected {
        source.send(channel, payload);
    }
    for client in &clients {
        assert_eq!(client.payloads(channel, 31, 20), expected);
    }
    lab.wait_for_tunnels_out(20 * 150);
    assert!(lab.dataplane.tunnels().iter().all(|tunnel| tunnel.sent == Traffic { packets: 20, bytes: 200 }));
}

#[test]
fn a_worker_serves_the_clients_that_the_kernel_steers_to_it_whatever_their_port() {
    let workers = NonZeroUsize::new(3).unwrap();
    let mut lab = Lab::new(host(5, 1), workers.get());
    let channel = Channel::any_source(Ipv4Addr::new(239, 60, 5, 1), PORT);
    let clients: Vec<_> = (10..20).flat_map(|last| [lab.client(host(5, last)), lab.client(host(5, last))]).collect();
    for client in &clients {
        lab.attach(client, channel);
    }
    let expected = (10..20).map(|last| shard_of(host(5, last), workers)).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(expected.len(), 3, "the addresses of this test reach every worker");
    lab.publish(&[channel]);
    Native::source(host(5, 2)).send(channel, b"x");
    for client in &clients {
        assert_eq!(client.payloads(channel, 31, 1), [b"x"], "once");
        assert!(client.has_nothing());
    }
}

#[test]
fn a_ttl_of_one_ends_with_the_client_and_of_zero_with_us() {
    let mut lab = Lab::new(host(6, 1), 1);
    let channel = Channel::any_source(Ipv4Addr::new(239, 60, 6, 1), PORT);
    let client = lab.client(host(6, 10));
    lab.attach(&client, channel);
    lab.publish(&[channel]);
    Native::source_with_ttl(host(6, 2), 0).send(channel, b"zero");
    Native::source_with_ttl(host(6, 2), 1).send(channel, b"one");
    assert_eq!(client.payloads(channel, 0, 1), [b"one"]);
    lab.wait_for_drops(DropReason::TimeToLive, 1);
}

#[test]
fn a_payload_longer_than_allowed_is_counted_and_its_neighbours_are_not_hurt() {
    let mut lab = Lab::with(host(7, 1), 1, |settings| settings.payload_bytes_max = 1000);
    let channel = Channel::any_source(Ipv4Addr::new(239, 60, 7, 1), PORT);
    let client = lab.client(host(7, 10));
    lab.attach(&client, channel);
    lab.publish(&[channel]);
    let source = Native::source(host(7, 2));
    for length in [1000, 1001, 2000, 999] {
        source.send(channel, &vec![7; length]);
    }
    let lengths: Vec<_> = client.payloads(channel, 31, 2).iter().map(Vec::len).collect();
    assert_eq!(lengths, [1000, 999]);
    lab.wait_for_drops(DropReason::TooLarge, 2);
}

#[test]
fn a_client_that_cannot_be_reached_costs_the_others_nothing() {
    let mut lab = Lab::new(host(8, 1), 1);
    let channel = Channel::any_source(Ipv4Addr::new(239, 60, 8, 1), PORT);
    let first = lab.client(host(8, 10));
    lab.attach(&first, channel);
    // From a loopback address there is no way to the world.
    let nowhere = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9);
    lab.table.tunnel_up(nowhere, first.cookies);
    lab.table.attach(nowhere, channel, false, 1);
    let second = lab.client(host(8, 11));
    lab.attach(&second, channel);
    lab.publish(&[channel]);
    let source = Native::source(host(8, 2));
    for number in 0..10 {
        source.send(channel, &[number]);
    }
    let expected: Vec<_> = (0..10).map(|number| vec![number]).collect();
    assert_eq!(first.payloads(channel, 31, 10), expected);
    assert_eq!(second.payloads(channel, 31, 10), expected);
    wait_until("the failures", || {
        let counters = lab.dataplane.counters();
        counters.dropped(DropReason::SendFailed) + counters.dropped(DropReason::Unreachable) == 10
    });
}

#[test]
fn a_client_that_hears_its_own_multicast_here_is_told_and_not_served() {
    let mut lab = Lab::new(host(9, 1), 2);
    let channel = Channel::any_source(Ipv4Addr::new(239, 60, 9, 1), PORT);
    let other_channel = Channel::any_source(Ipv4Addr::new(239, 60, 9, 2), PORT);
    let client = lab.client(host(9, 10));
    let other = lab.client(host(9, 11));
    lab.attach(&client, channel);
    lab.attach(&other, channel);
    lab.attach(&other, other_channel);
    lab.publish(&[channel, other_channel]);

    let loudspeaker = Native::source(host(9, 10));
    loudspeaker.send(channel, b"again");
    let Event::Loop { channel: found, source } = lab.event() else { panic!("a loop") };
    assert_eq!((found, source), (channel, host(9, 10)));
    // In a channel that this client does not have it is a source like any other.
    loudspeaker.send(other_channel, b"fine");
    assert_eq!(other.payloads(other_channel, 31, 1), [b"fine"]);
    assert!(client.has_nothing());

    lab.table.set_loop_check(false);
    lab.publish(&[channel, other_channel]);
    wait_until("the new table", || {
        loudspeaker.send(channel, b"now");
        !client.has_nothing()
    });
}

#[test]
fn our_own_address_is_never_a_loop() {
    let mut lab = Lab::new(host(10, 1), 1);
    let channel = Channel::any_source(Ipv4Addr::new(239, 60, 10, 1), PORT);
    let client = lab.client(host(10, 1));
    lab.attach(&client, channel);
    lab.publish(&[channel]);
    Native::source(host(10, 1)).send(channel, b"same machine");
    assert_eq!(client.payloads(channel, 31, 1), [b"same machine"]);
}

#[test]
fn a_table_swapped_under_traffic_loses_nothing_for_those_who_stay() {
    const PACKETS: u32 = 4000;
    const WINDOW: u32 = 50;
    let mut lab = Lab::new(host(11, 1), 2);
    let channel = Channel::any_source(Ipv4Addr::new(239, 60, 11, 1), PORT);
    let stays = lab.client(host(11, 10));
    let comes_and_goes: Vec<_> = (20..40).map(|last| lab.client(host(11, last))).collect();
    lab.attach(&stays, channel);
    lab.publish(&[channel]);
    let source = Native::source(host(11, 2));

    let addresses: Vec<_> = comes_and_goes.iter().map(|client| client.address).collect();
    let done = AtomicBool::new(false);
    let Lab { dataplane, table, .. } = &mut lab;
    let swaps = std::thread::scope(|scope| {
        let editor = scope.spawn(|| {
            let mut swaps = 0;
            while !done.load(Ordering::Relaxed) {
                for &client in &addresses {
                    if swaps % 2 == 0 {
                        table.attach(client, channel, false, 1);
                    } else {
                        table.detach(client, channel);
                    }
                    dataplane.publish(table.build());
                }
                swaps += 1;
            }
            swaps
        });
        for window in 0..PACKETS / WINDOW {
            let numbers = window * WINDOW..(window + 1) * WINDOW;
            numbers.clone().for_each(|number| source.send(channel, &number.to_be_bytes()));
            let expected: Vec<_> = numbers.map(|number| number.to_be_bytes().to_vec()).collect();
            assert_eq!(stays.payloads(channel, 31, WINDOW as usize), expected);
        }
        done.store(true, Ordering::Relaxed);
        editor.join().unwrap()
    });
    assert!(swaps > 1, "the table changed while packets flowed");
}

#[test]
fn a_channel_that_nobody_has_any_more_is_left() {
    let mut lab = Lab::new(host(12, 1), 1);
    let channel = Channel::any_source(Ipv4Addr::new(239, 60, 12, 1), PORT);
    let client = lab.client(host(12, 10));
    lab.attach(&client, channel);
    lab.publish(&[channel]);
    lab.table.detach(client.address, channel);
    lab.publish(&[]);
    Native::source(host(12, 2)).send(channel, b"x");
    assert_eq!(lab.dataplane.counters().flows.native_in, Traffic::default());
    assert!(client.has_nothing());
}

#[test]
fn interfaces_may_change_while_it_runs_and_one_that_is_not_there_is_reported() {
    let mut lab = Lab::new(host(13, 1), 1);
    let channel = Channel::any_source(Ipv4Addr::new(239, 60, 13, 1), PORT);
    let client = lab.client(host(13, 10));
    lab.attach(&client, channel);
    lab.publish(&[channel]);
    lab.dataplane.set_interfaces(&[]).unwrap();
    lab.publish(&[]);
    let loopback = Interface { name: "lo".into(), index: LOOPBACK, address: host(13, 1) };
    lab.dataplane.set_interfaces(std::slice::from_ref(&loopback)).unwrap();
    lab.publish(&[channel]);

    let gone = Interface { name: "gone0".into(), index: 1_000_000, address: host(13, 1) };
    lab.dataplane.set_interfaces(&[loopback, gone]).unwrap_err();
    Native::source(host(13, 2)).send(channel, b"still");
    assert_eq!(client.payloads(channel, 31, 1), [b"still"]);
}

#[test]
fn a_rotation_of_cookies_shows_in_the_next_datagram() {
    let mut lab = Lab::new(host(14, 1), 1);
    let channel = Channel::any_source(Ipv4Addr::new(239, 60, 14, 1), PORT);
    let mut client: Client = lab.client(host(14, 10));
    lab.attach(&client, channel);
    lab.publish(&[channel]);
    let source = Native::source(host(14, 2));
    source.send(channel, b"old");
    assert_eq!(client.payloads(channel, 31, 1), [b"old"]);

    let old = client.cookies;
    client.cookies.local = castgate_wire::umtp::Cookie(0x7777);
    client.cookies.previous = Some(old.local);
    lab.table.cookies(client.address, client.cookies);
    source.send(channel, b"new");
    assert_eq!(client.payloads(channel, 31, 1), [b"new"]);
    // The old one is still taken.
    let mut trailer = client.trailer(Command::JoinGroup, channel, 1);
    trailer.destination_cookie = old.local;
    client.send_with(&lab, &trailer, b"");
    assert!(matches!(lab.event(), Event::Control { known: true, .. }));
}
