//! Clients that send.

use crate::bed::{Bed, channel, everything, millis};
use castgate_endpoint::umtp::client::SendError;
use castgate_endpoint::umtp::server::{Config, Permissions, Permit, Reason};
use castgate_wire::umtp::Channel;

const CHANNEL: &str = "239.1.2.3:5004";

/// Three clients of one server in one channel.
fn party() -> (Bed, usize, [usize; 3]) {
    let mut bed = Bed::new(1);
    let server = bed.add_server();
    let clients = [bed.add_client(), bed.add_client(), bed.add_client()];
    for client in clients {
        bed.join(client, channel(CHANNEL));
    }
    bed.run_for(millis(1_000));
    (bed, server, clients)
}

#[test]
fn what_a_client_sends_reaches_the_network_and_the_others_once_and_not_himself() {
    let (mut bed, server, [sender, second, third]) = party();
    bed.send(sender, channel(CHANNEL), 10, b"hello");
    bed.run_for(millis(100));
    assert_eq!(bed.servers[server].multicast, [(channel(CHANNEL), 9, b"hello".to_vec())]);
    for receiver in [second, third] {
        let [(_, of, ttl, payload)] = &bed.clients[receiver].received[..] else { panic!("once") };
        assert_eq!((*of, *ttl, &payload[..]), (channel(CHANNEL), 8, &b"hello"[..]), "every hop costs one");
    }
    assert!(bed.clients[sender].received.is_empty());
}

#[test]
fn a_packet_with_ttl_one_reaches_the_native_network_of_the_server_and_no_further_tunnel() {
    let (mut bed, server, [sender, second, _]) = party();
    bed.send(sender, channel(CHANNEL), 1, b"near");
    bed.run_for(millis(100));
    assert_eq!(bed.servers[server].multicast, [(channel(CHANNEL), 0, b"near".to_vec())]);
    assert!(bed.clients[second].received.is_empty());
}

#[test]
fn the_ttl_of_a_client_is_lowered_to_the_limit_of_the_server() {
    let (mut bed, server, [sender, second, _]) = party();
    bed.send(sender, channel(CHANNEL), 255, b"far");
    bed.run_for(millis(100));
    assert_eq!(bed.servers[server].multicast[0].1, 63);
    assert_eq!(bed.clients[second].received[0].2, 62);
}

#[test]
fn a_client_refuses_what_local_event_3_ignores() {
    let (mut bed, _, [sender, ..]) = party();
    let other = Channel { port: 1, ..channel(CHANNEL) };
    let client = &mut bed.clients[sender].client;
    assert_eq!(client.send(channel(CHANNEL), 0, b""), Err(SendError::TtlZero));
    assert_eq!(client.send(other, 1, b""), Err(SendError::NotJoined(other)));
    assert_eq!(client.send(channel(CHANNEL), 1, &vec![0; 65_500]), Err(SendError::TooLong(65_500)));
    assert_eq!(client.poll_output(), None);
}

#[test]
fn where_clients_may_not_send_nothing_is_relayed_and_it_is_counted() {
    let mut bed = Bed::new(1);
    let Permissions(permits) = everything();
    let receive_only = permits.into_iter().map(|permit| Permit { send: false, ..permit }).collect();
    let server = bed.add_server_with(Config::default(), Permissions(receive_only));
    let [sender, second] = [bed.add_client(), bed.add_client()];
    for client in [sender, second] {
        bed.join(client, channel(CHANNEL));
    }
    bed.run_for(millis(1_000));
    bed.send(sender, channel(CHANNEL), 10, b"hello");
    bed.run_for(millis(100));
    assert!(bed.servers[server].multicast.is_empty());
    assert!(bed.clients[second].received.is_empty());
    assert_eq!(bed.server(server).counters().drops.of(Reason::MayNotSend), 1);
}
