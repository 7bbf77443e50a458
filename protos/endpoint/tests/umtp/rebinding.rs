//! NATs: another port in mid-stream, several clients behind one address, client and server on one machine.

use crate::bed::{Bed, channel, millis};
use crate::joining::{lossy, seen};
use castgate_endpoint::umtp::client::{self, Event};
use castgate_endpoint::umtp::server::{self, LoopCheck};
use castgate_wire::umtp::Channel;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

const CHANNEL: &str = "239.1.2.3:5004";

#[test]
fn a_nat_that_takes_another_port_in_mid_stream_costs_less_than_five_seconds_and_no_server() {
    for seed in 0..50 {
        let mut bed = Bed::new(seed);
        bed.net.link = lossy();
        bed.add_server();
        let client = bed.add_client();
        bed.add_source(channel(CHANNEL), millis(50));
        bed.join(client, channel(CHANNEL));
        bed.run_for(Duration::from_secs(10));
        bed.rebind(client);
        let rebound = bed.at();
        bed.run_for(Duration::from_secs(5));
        assert!(bed.first_since(client, channel(CHANNEL), rebound + 100).is_some(), "seed {seed}");
    }
}

#[test]
fn rebinding_without_loss_is_noticed_by_silence_and_healed_by_the_answer_to_one_probe() {
    let mut bed = Bed::new(1);
    bed.add_server();
    let client = bed.add_client();
    bed.add_source(channel(CHANNEL), millis(50));
    bed.join(client, channel(CHANNEL));
    bed.run_for(millis(3_000));
    bed.rebind(client);
    bed.run_for(millis(3_000));
    let gap = bed.arrivals(client, channel(CHANNEL)).windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(gap < Some(2_150), "{gap:?}");
    assert!(!bed.clients[client].events.iter().any(|(_, event)| matches!(event, Event::ServerLost { .. })));
}

#[test]
fn a_client_that_sends_is_back_a_round_trip_after_rebinding() {
    let mut bed = Bed::new(1);
    let server = bed.add_server();
    let client = bed.add_client();
    bed.join(client, channel(CHANNEL));
    bed.run_for(millis(3_000));
    bed.rebind(client);
    bed.send(client, channel(CHANNEL), 10, b"lost, but it tells");
    bed.run_for(millis(100));
    bed.send(client, channel(CHANNEL), 10, b"arrives");
    bed.run_for(millis(100));
    assert_eq!(bed.servers[server].multicast, [(channel(CHANNEL), 9, b"arrives".to_vec())]);
}

#[test]
fn the_tunnel_of_the_old_port_ends_by_its_deadlines() {
    let mut bed = Bed::new(1);
    let server = bed.add_server();
    let client = bed.add_client();
    bed.add_source(channel(CHANNEL), millis(100));
    bed.join(client, channel(CHANNEL));
    bed.run_for(millis(3_000));
    bed.rebind(client);
    bed.run_for(Duration::from_mins(3));
    let tunnels: Vec<SocketAddrV4> = bed.server(server).tunnels().map(|tunnel| tunnel.tunnel).collect();
    assert_eq!(tunnels, [seen(&bed, client)]);
}

#[test]
fn two_clients_behind_one_nat_are_two_tunnels() {
    let mut bed = Bed::new(1);
    let server = bed.add_server();
    let nat = Ipv4Addr::new(203, 0, 113, 200);
    let clients = [1, 2].map(|port| bed.add_client_at(SocketAddrV4::new(nat, port), client::Config::default()));
    bed.add_source(channel(CHANNEL), millis(50));
    for client in clients {
        bed.join(client, channel(CHANNEL));
    }
    bed.run_for(millis(3_000));
    assert_eq!(bed.server(server).tunnels().len(), 2);
    bed.leave(clients[0], channel(CHANNEL));
    let left = bed.at();
    bed.run_for(millis(3_000));
    assert_eq!(bed.first_since(clients[0], channel(CHANNEL), left + 1), None);
    let arrivals = bed.arrivals(clients[1], channel(CHANNEL));
    assert!(arrivals.windows(2).all(|pair| pair[1] - pair[0] == 50), "the other is not disturbed");
}

#[test]
fn fifty_clients_behind_one_nat_survive_the_restart_of_their_server_together() {
    let mut bed = Bed::new(1);
    let server = bed.add_server();
    let nat = Ipv4Addr::new(203, 0, 113, 200);
    let clients: Vec<usize> =
        (1..=50).map(|port| bed.add_client_at(SocketAddrV4::new(nat, port), client::Config::default())).collect();
    bed.add_source(channel(CHANNEL), millis(50));
    for client in &clients {
        bed.join(*client, channel(CHANNEL));
    }
    bed.run_for(millis(3_000));
    bed.kill_server(server);
    bed.run_for(millis(500));
    bed.start_server(server);
    let restarted = bed.at();
    bed.run_for(Duration::from_secs(5));
    for client in clients {
        assert!(bed.first_since(client, channel(CHANNEL), restarted).is_some(), "client {client}");
    }
}

#[test]
fn fifty_senders_behind_one_nat_survive_the_restart_of_their_server_although_each_sends_its_old_cookie() {
    let mut bed = Bed::new(1);
    let server = bed.add_server();
    let nat = Ipv4Addr::new(203, 0, 113, 200);
    let clients: Vec<usize> =
        (1..=50).map(|port| bed.add_client_at(SocketAddrV4::new(nat, port), client::Config::default())).collect();
    for client in &clients {
        bed.join(*client, channel(CHANNEL));
    }
    bed.run_for(millis(3_000));
    bed.kill_server(server);
    bed.start_server(server);
    for _ in 0..250 {
        for client in &clients {
            // Fails while a client has no server; that would show below.
            let _ = bed.clients[*client].client.send(channel(CHANNEL), 10, b"all at once");
        }
        bed.run_for(millis(20));
    }
    let late = bed.at() - 1_000;
    for client in clients {
        assert!(bed.first_since(client, channel(CHANNEL), late).is_some(), "client {client}");
    }
}

/// A server that hears, natively, what a client at `source` sends.
fn hear_natively(loop_check: LoopCheck, own: &[Ipv4Addr]) -> (Bed, usize, [usize; 2], Ipv4Addr) {
    let mut bed = Bed::new(1);
    let config = server::Config { loop_check, own_addresses: own.to_vec(), ..server::Config::default() };
    let server = bed.add_server_with(config, crate::bed::everything());
    let shared = Ipv4Addr::new(203, 0, 113, 200);
    let clients = [1, 2].map(|port| bed.add_client_at(SocketAddrV4::new(shared, port), client::Config::default()));
    bed.join(clients[0], channel(CHANNEL));
    bed.join(clients[1], Channel { group: Ipv4Addr::new(239, 9, 9, 9), ..channel(CHANNEL) });
    bed.run_for(millis(1_000));
    let now = bed.now;
    bed.server_mut(server).handle_native(now, "239.1.2.3:5004".parse().unwrap(), shared, Some(9), b"round and round");
    bed.run_for(millis(100));
    (bed, server, clients, shared)
}

#[test]
fn a_native_packet_from_a_tunnel_tears_down_the_tunnel_with_that_group_and_no_other_of_that_address() {
    let (bed, server, clients, _) = hear_natively(LoopCheck::Endpoint, &[]);
    let down: Vec<_> = bed.servers[server].down.iter().map(|(_, tunnel, reason)| (*tunnel, *reason)).collect();
    assert_eq!(down, [(seen(&bed, clients[0]), server::DownReason::Loop)]);
    assert!(bed.clients[clients[0]].received.is_empty(), "and the packet goes nowhere");
}

#[test]
fn the_loop_check_by_address_tears_down_all_tunnels_of_it() {
    let (bed, server, _, _) = hear_natively(LoopCheck::Address, &[]);
    assert_eq!(bed.servers[server].down.len(), 2);
}

#[test]
fn without_the_loop_check_the_packet_is_relayed_like_any_other() {
    let (bed, server, clients, _) = hear_natively(LoopCheck::Off, &[]);
    assert!(bed.servers[server].down.is_empty());
    assert_eq!(bed.clients[clients[0]].received.len(), 1);
}

#[test]
fn on_one_machine_a_packet_from_our_own_address_is_no_loop() {
    let (bed, server, clients, _) = hear_natively(LoopCheck::Address, &[Ipv4Addr::new(203, 0, 113, 200)]);
    assert!(bed.servers[server].down.is_empty());
    assert_eq!(bed.clients[clients[0]].received.len(), 1);
}

#[test]
fn a_client_that_loops_for_ever_is_torn_down_once_a_second_at_most() {
    let (mut bed, server, _, shared) = hear_natively(LoopCheck::Endpoint, &[]);
    for _ in 0..1_000 {
        bed.run_for(millis(10));
        let now = bed.now;
        bed.server_mut(server).handle_native(now, "239.1.2.3:5004".parse().unwrap(), shared, Some(9), b"again");
    }
    assert!(bed.servers[server].down.len() <= 11, "{:?}", bed.servers[server].down);
}
