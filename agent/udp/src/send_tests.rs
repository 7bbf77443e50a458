//! What a filled batch does on real sockets, with and without segmentation.

use super::*;
use crate::{MulticastOut, RecvBatch};

const LOOPBACK: u32 = 1;

#[test]
fn each_destination_gets_every_payload_with_its_own_tail() {
    for in_one_message in [true, false] {
        let clients: Vec<_> = (0..3).map(|_| bind(&Options::new(ANY_PORT))).collect();
        let sender = bind(&Options::new(ANY_PORT));
        let mut batch = SendBatch::new(16, 64);
        let mut filling = batch.fill();
        for (client, octet) in clients.iter().zip(0xa0..) {
            let to = client.local_address().unwrap();
            let tail = filling.tail(&[octet; 12]);
            if in_one_message {
                filling.message(to, None, 0);
            }
            for payload in [b"first", b"other", b"third"] {
                if !in_one_message {
                    filling.message(to, None, 0);
                }
                filling.datagram(payload, Some(tail));
            }
        }
        let outcomes = send(filling, &sender);
        assert_eq!(outcomes.iter().map(|outcome| outcome.sent).sum::<usize>(), 9);
        for (client, octet) in clients.iter().zip(0xa0..) {
            let tail = [octet; 12];
            let expected: Vec<_> = [b"first", b"other", b"third"].iter().map(|p| [&p[..], &tail].concat()).collect();
            assert_eq!(receive_all(client), expected);
        }
    }
}

#[test]
fn the_last_datagram_of_a_message_may_be_shorter() {
    let client = bind(&Options::new(ANY_PORT));
    let sender = bind(&Options::new(ANY_PORT));
    let mut batch = SendBatch::new(1, 64);
    let mut filling = batch.fill();
    filling.message(client.local_address().unwrap(), None, 0);
    for payload in [&b"same"[..], b"size", b"end"] {
        filling.datagram(payload, None);
    }
    send(filling, &sender);
    assert_eq!(receive_all(&client), [b"same".to_vec(), b"size".to_vec(), b"end".to_vec()]);
}

#[test]
fn room_is_told_before_it_runs_out() {
    let mut batch = SendBatch::new(2, 64);
    let mut filling = batch.fill();
    assert!(filling.has_room(64) && !filling.has_room(65));
    filling.message(ANY_PORT, None, 0);
    filling.datagram(b"x", None);
    assert!(filling.has_room(63) && !filling.has_room(64));
    filling.message(ANY_PORT, None, 0);
    assert!(!filling.has_room(1));
}

#[test]
fn a_destination_that_fails_stops_no_other() {
    let client = bind(&Options::new(ANY_PORT));
    let sender = bind(&Options::new(ANY_PORT));
    let mut batch = SendBatch::new(4, 64);
    let mut filling = batch.fill();
    // A socket bound to a loopback address has no way to the world: the kernel refuses with EINVAL or ENETUNREACH.
    let nowhere = SocketAddr::from(([192, 0, 2, 1], 9));
    for (tag, to) in
        [nowhere, client.local_address().unwrap(), nowhere, client.local_address().unwrap()].iter().enumerate()
    {
        filling.message(*to, None, tag as u64);
        filling.datagram(b"x", None);
    }
    let outcomes = send(filling, &sender);
    let sent: Vec<_> = outcomes.iter().map(|outcome| (outcome.tag, outcome.sent, outcome.failed)).collect();
    assert_eq!(sent, [(0, 0, 1), (1, 1, 0), (2, 0, 1), (3, 1, 0)]);
    assert!(outcomes[0].error.is_some() && outcomes[1].error.is_none());
    assert_eq!(receive_all(&client).len(), 2);
}

#[test]
fn what_the_kernel_will_not_cut_arrives_one_by_one() {
    let client = bind(&Options::new(ANY_PORT));
    // UDP_SEGMENT together with SO_NO_CHECK is EINVAL, on every device and for every user.
    let sender = bind(&Options { zero_checksum: true, ..Options::new(ANY_PORT) });
    let to = client.local_address().unwrap();
    let mut batch = SendBatch::new(4, 64);
    let mut filling = batch.fill();
    for tag in 0..2 {
        filling.message(to, None, tag);
        filling.datagram(b"one", None);
        filling.datagram(b"two", None);
    }
    let outcomes = send(filling, &sender);
    for outcome in outcomes {
        assert!(outcome.segmentation_refused);
        assert_eq!((outcome.sent, outcome.failed, outcome.error), (2, 0, None));
    }
    let expected = [b"one".to_vec(), b"two".to_vec()];
    assert_eq!(receive_all(&client), [expected.clone(), expected].concat());
}

#[test]
fn a_message_carries_its_own_ttl_and_the_socket_s_without_one() {
    let group = Ipv4Addr::new(239, 77, 4, 1);
    let member = bind(&Options { receive_ttl: true, ..Options::new(SocketAddrV4::new(group, 0)) });
    member.join(group.into(), None, LOOPBACK).unwrap();
    let out = MulticastOut { interface: LOOPBACK, ttl: 0, loopback: true };
    let sender = bind(&Options { multicast_out: Some(out), ..Options::new(ANY_PORT) });
    let to = SocketAddrV4::new(group, member.local_address().unwrap().port());
    let mut batch = SendBatch::new(4, 64);
    let mut filling = batch.fill();
    for ttl in [Some(7), Some(0), None] {
        filling.message(to, ttl, 0);
        filling.datagram(b"x", None);
    }
    assert!(send(filling, &sender).iter().all(|outcome| outcome.sent == 1));
    let mut received = RecvBatch::new(4, 64);
    received.receive(&member).unwrap();
    assert_eq!(received.iter().map(|datagram| datagram.ttl).collect::<Vec<_>>(), [Some(7), Some(0), Some(0)]);
}

#[test]
fn a_block_is_cut_by_the_kernel_or_by_us_into_the_same_datagrams() {
    let octets: Vec<u8> = (0..250).collect();
    for is_refused in [false, true] {
        let client = bind(&Options::new(ANY_PORT));
        let sender = bind(&Options { zero_checksum: is_refused, ..Options::new(ANY_PORT) });
        let mut batch = SendBatch::new(3, 64);
        let mut filling = batch.fill();
        filling.message(client.local_address().unwrap(), None, 0);
        filling.block(&octets, 100);
        filling.message(client.local_address().unwrap(), None, 1);
        filling.block(&octets[..40], 100);
        filling.message(client.local_address().unwrap(), None, 2);
        filling.block(&[], 100);
        let outcomes = send(filling, &sender);
        let sent: Vec<_> = outcomes.iter().map(|outcome| (outcome.sent, outcome.segmentation_refused)).collect();
        assert_eq!(sent, [(3, is_refused), (1, false), (1, false)]);
        let expected = [&octets[..100], &octets[100..200], &octets[200..], &octets[..40], &[]];
        assert_eq!(receive_all(&client), expected);
    }
}

#[test]
fn ipv6_destinations_and_ipv4_ones_have_segments_and_a_traffic_class_too() {
    for any_port in [ANY_PORT, "[::1]:0".parse().unwrap()] {
        let client = bind(&Options { receive_traffic_class: true, ..Options::new(any_port) });
        let sender = bind(&Options::new(any_port));
        let mut batch = SendBatch::new(2, 64);
        let mut filling = batch.fill();
        for (tag, class) in [Some(0xba), None].into_iter().enumerate() {
            let head = Head { traffic_class: class, ..Head::to(client.local_address().unwrap()) };
            filling.message_with(head, tag as u64);
            filling.datagram(b"one", None);
            filling.datagram(b"two", None);
        }
        let outcomes = send(filling, &sender);
        assert!(outcomes.iter().all(|outcome| (outcome.sent, outcome.segmentation_refused) == (2, false)));
        let mut received = RecvBatch::new(4, 64);
        received.receive(&client).unwrap();
        let seen: Vec<_> = received.iter().map(|datagram| (datagram.payload, datagram.traffic_class)).collect();
        let expected = [(&b"one"[..], Some(0xba)), (b"two", Some(0xba)), (b"one", Some(0)), (b"two", Some(0))];
        assert_eq!(seen, expected);
    }
}

#[test]
fn a_socket_of_several_addresses_sends_from_the_one_that_is_asked_for() {
    let client = bind(&Options::new(ANY_PORT));
    let sender = bind(&Options::new(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)));
    let from = IpAddr::from([127, 77, 4, 2]);
    let mut batch = SendBatch::new(1, 64);
    let mut filling = batch.fill();
    filling.message_with(Head { from: Some(from), ..Head::to(client.local_address().unwrap()) }, 0);
    filling.datagram(b"one", None);
    filling.datagram(b"two", None);
    assert_eq!(send(filling, &sender)[0].sent, 2);
    let mut received = RecvBatch::new(4, 64);
    received.receive(&client).unwrap();
    assert_eq!(received.iter().map(|datagram| datagram.source.ip()).collect::<Vec<_>>(), [from, from]);
}

#[test]
fn this_kernel_cuts() {
    // Linux 4.18 is older than anything else we need; without it fan-out would quietly be ten times slower.
    assert_eq!(Gso::probe().segments_max(), SEGMENTS_MAX);
    assert_eq!(Gso::OFF.segments_max(), 1);
}

const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn bind(options: &Options) -> UdpSocket {
    UdpSocket::bind(options).unwrap()
}

fn send(filling: Filling<'_, '_>, socket: &UdpSocket) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    filling.send(socket, |outcome| outcomes.push(outcome));
    outcomes
}

fn receive_all(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut batch = RecvBatch::new(64, 2048);
    batch.receive(socket).unwrap();
    batch.iter().map(|datagram| datagram.payload.to_vec()).collect()
}
