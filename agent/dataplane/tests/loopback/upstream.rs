//! What clients send: upstream DATA, control datagrams, and everything that is neither.

use crate::lab::{Client, Lab, Native, PATIENCE, host};
use castgate_dataplane::{Dataplane, DropReason, Event, Settings, StartError, Traffic};
use castgate_wire::umtp::{Channel, Command, Cookie};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

const PORT: u16 = 5004;

#[test]
fn upstream_data_reaches_the_native_lan_and_every_other_tunnel_once_and_its_sender_never() {
    let mut lab = Lab::new(host(101, 1), 3);
    let channel = Channel::any_source(Ipv4Addr::new(239, 61, 1, 1), PORT);
    let clients: Vec<_> = (10..20).map(|last| lab.client(host(101, last))).collect();
    for client in &clients {
        lab.attach(client, channel);
    }
    lab.publish(&[channel]);
    let lan = Native::listener(channel);

    let expected: Vec<_> = (0..5_u8).map(|number| vec![number; 100]).collect();
    for payload in &expected {
        clients[0].send(&lab, Command::Data, channel, 9, payload);
    }
    let heard = lan.receive(5);
    assert_eq!(heard.iter().map(|heard| heard.payload.clone()).collect::<Vec<_>>(), expected);
    assert!(heard.iter().all(|heard| heard.ttl == Some(9) && heard.source == host(101, 1)));
    for client in &clients[1..] {
        assert_eq!(client.payloads(channel, 8, 5), expected);
    }
    // Our own multicast came in again at each worker that has the channel, and stopped there.
    let workers = lab.workers_of(channel);
    assert!(workers > 1, "the clients of this test belong to several workers");
    lab.wait_for_drops(DropReason::Own, workers as u64 * 5);
    assert!(clients.iter().all(Client::has_nothing) && lan.has_nothing());
    lab.wait_for_tunnels_out(45);
    let flows = lab.dataplane.counters().flows;
    assert_eq!(flows.tunnels_in, Traffic { packets: 5, bytes: 500 });
    assert_eq!(flows.native_out, Traffic { packets: 5, bytes: 500 });
    assert_eq!(flows.tunnels_out, Traffic { packets: 45, bytes: 4500 });
    assert_eq!(lab.dataplane.tunnels()[0].received, Traffic { packets: 5, bytes: 500 });
    let Event::Activity { tunnel } = lab.event() else { panic!("its client lives") };
    assert_eq!(tunnel, clients[0].address);
}

#[test]
fn a_ttl_is_capped_and_at_zero_stays_on_this_host_and_out_of_tunnels() {
    let mut lab = Lab::new(host(102, 1), 1);
    let channel = Channel::any_source(Ipv4Addr::new(239, 61, 2, 1), PORT);
    let (sender, other) = (lab.client(host(102, 10)), lab.client(host(102, 11)));
    lab.attach(&sender, channel);
    lab.attach(&other, channel);
    lab.publish(&[channel]);
    let lan = Native::listener(channel);
    sender.send(&lab, Command::Data, channel, 0, b"zero");
    sender.send(&lab, Command::Data, channel, 255, b"much");
    assert_eq!(lan.receive(2).iter().map(|heard| heard.ttl).collect::<Vec<_>>(), [Some(0), Some(63)]);
    assert_eq!(other.payloads(channel, 62, 1), [b"much"]);
}

#[test]
fn data_that_may_not_be_sent_or_is_not_attached_is_left_to_the_control_thread() {
    let mut lab = Lab::new(host(103, 1), 1);
    let channel = Channel::any_source(Ipv4Addr::new(239, 61, 3, 1), PORT);
    let foreign = Channel::any_source(Ipv4Addr::new(239, 61, 3, 2), PORT);
    let client = lab.client(host(103, 10));
    lab.table.attach(client.address, channel, false, 63);
    lab.publish(&[channel]);
    let lan = Native::listener(channel);
    for channel in [channel, foreign] {
        client.send(&lab, Command::Data, channel, 5, b"x");
        let Event::Control { from, known, .. } = lab.event() else { panic!("a datagram") };
        assert_eq!((from, known), (client.address, true));
    }
    assert!(lan.has_nothing());
}

#[test]
fn control_goes_up_whole_and_a_wrong_cookie_makes_its_sender_a_stranger() {
    let mut lab = Lab::new(host(104, 1), 2);
    let channel = Channel::any_source(Ipv4Addr::new(239, 61, 4, 1), PORT);
    let client = lab.client(host(104, 10));
    lab.publish(&[]);
    let right = client.trailer(Command::JoinGroup, channel, 5);
    let mut wrong = right;
    wrong.destination_cookie = Cookie(right.destination_cookie.0 ^ 1);
    let mut stranger = client.trailer(Command::Probe, channel, 5);
    stranger.destination_cookie = Cookie(0);

    for (trailer, expected) in [(right, true), (wrong, false), (stranger, false)] {
        client.send_with(&lab, &trailer, b"options");
        let Event::Control { from, datagram, known } = lab.event() else { panic!("a datagram") };
        assert_eq!((from, known), (client.address, expected));
        assert_eq!(datagram, [b"options", &*trailer.to_octets()].concat());
    }
    client.socket.send_to(b"short", lab.dataplane.listen()).unwrap();
    lab.wait_for_drops(DropReason::Malformed, 1);
}

#[test]
fn wrong_cookies_on_data_reach_neither_the_lan_nor_a_tunnel() {
    let mut lab = Lab::new(host(105, 1), 1);
    let channel = Channel::any_source(Ipv4Addr::new(239, 61, 5, 1), PORT);
    let (sender, other) = (lab.client(host(105, 10)), lab.client(host(105, 11)));
    lab.attach(&sender, channel);
    lab.attach(&other, channel);
    lab.publish(&[channel]);
    let lan = Native::listener(channel);
    let mut trailer = sender.trailer(Command::Data, channel, 5);
    trailer.destination_cookie = Cookie(0xffff);
    sender.send_with(&lab, &trailer, b"forged");
    assert!(matches!(lab.event(), Event::Control { known: false, .. }));
    assert!(lan.has_nothing() && other.has_nothing());
}

#[test]
fn a_flood_of_strangers_leaves_the_channel_and_the_joins_of_the_known_alone() {
    let mut lab = Lab::with(host(106, 1), 1, |settings| settings.stranger_queue_max = 10);
    let channel = Channel::any_source(Ipv4Addr::new(239, 61, 6, 1), PORT);
    let client = lab.client(host(106, 10));
    lab.attach(&client, channel);
    lab.publish(&[channel]);
    let stranger = Client::new(host(106, 99), client.cookies);
    let mut guess = stranger.trailer(Command::JoinGroup, channel, 5);
    guess.destination_cookie = Cookie(0);
    for _ in 0..1000 {
        stranger.send_with(&lab, &guess, b"");
    }
    client.send(&lab, Command::JoinGroup, channel, 5, b"");
    lab.wait_for_drops(DropReason::StrangerQueueFull, 990);
    Native::source(host(106, 2)).send(channel, b"undisturbed");
    assert_eq!(client.payloads(channel, 31, 1), [b"undisturbed"]);
    // The join came last and stands first, unless its worker had not seen it when the last stranger was counted.
    let known = std::iter::from_fn(|| lab.events.recv_timeout(PATIENCE)).take(11).map(|event| match event {
        Event::Control { known, .. } => known,
        other => panic!("{other:?}"),
    });
    assert_eq!(known.filter(|known| *known).count(), 1);
    assert!(stranger.has_nothing(), "nothing is answered here");
}

#[test]
fn what_the_control_thread_sends_comes_from_the_tunnels_address_and_the_interface() {
    let lab = Lab::new(host(107, 1), 2);
    let channel = Channel::any_source(Ipv4Addr::new(239, 61, 7, 1), PORT);
    let lan = Native::listener(channel);
    let client = Native::source(host(107, 10));
    let Ok(SocketAddr::V4(to)) = client.socket.local_address() else { panic!("an IPv4 address") };
    lab.dataplane.transmit(to, b"ack");
    let heard = client.receive(1);
    assert_eq!((heard[0].source, &heard[0].payload[..]), (host(107, 1), &b"ack"[..]));
    lab.dataplane.multicast(&channel, 3, b"slow path");
    let heard = lan.receive(1);
    assert_eq!((heard[0].source, heard[0].ttl), (host(107, 1), Some(3)));
    assert_eq!(lab.dataplane.counters().flows.native_out, Traffic { packets: 1, bytes: 9 });
}

#[test]
fn a_taken_address_is_said_and_after_a_stop_it_is_free_again() {
    let mut lab = Lab::new(host(108, 1), 2);
    let listen = lab.dataplane.listen();
    let again = || Dataplane::start(Settings::new(listen, Vec::new()));
    let Err(StartError::Listen { address, .. }) = again() else { panic!("it is taken") };
    assert_eq!(address, listen);
    lab.dataplane.stop();
    lab.dataplane.stop();
    drop(lab);
    again().unwrap();
}

#[test]
fn a_stop_that_follows_a_table_at_once_is_heard_by_every_worker() {
    let (stopped, all_stopped) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..60 {
            let mut lab = Lab::new(host(110, 1), 2);
            lab.dataplane.publish(lab.table.build());
            lab.dataplane.stop();
        }
        stopped.send(()).unwrap();
    });
    all_stopped.recv_timeout(PATIENCE).expect("no worker sleeps on");
}

#[test]
fn a_foreign_address_or_interface_ends_the_start_with_its_name() {
    let nowhere = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 0);
    let error = Dataplane::start(Settings::new(nowhere, Vec::new())).unwrap_err();
    assert!(error.to_string().contains("192.0.2.1"), "{error}");
    let interface =
        castgate_dataplane::Interface { name: "eth7".into(), index: 1, address: Ipv4Addr::new(192, 0, 2, 1) };
    let listen = SocketAddrV4::new(host(109, 1), 0);
    let error = Dataplane::start(Settings::new(listen, vec![interface])).unwrap_err();
    assert!(error.to_string().contains("eth7"), "{error}");
}
