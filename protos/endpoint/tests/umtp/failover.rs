//! Servers and clients that die, come back, or send each other away.

use crate::bed::{Bed, channel, millis};
use crate::joining::{lossy, seen, times};
use castgate_endpoint::umtp::client::{Event, LostReason};
use castgate_endpoint::umtp::server::DownReason;
use castgate_wire::umtp::{Command, Trailer};
use std::time::Duration;

const CHANNEL: &str = "232.1.2.3@192.0.2.10:5004";

#[test]
fn a_server_that_is_killed_and_restarted_has_every_client_back_within_five_seconds() {
    for (seed, outage) in (0..50).zip([100, 1_000, 2_300, 3_400, 4_000, 10_000, 60_000, 300_000].into_iter().cycle()) {
        let mut bed = Bed::new(seed);
        bed.net.link = lossy();
        let server = bed.add_server();
        let clients: Vec<usize> = (0..10).map(|_| bed.add_client()).collect();
        bed.add_source(channel(CHANNEL), millis(50));
        for client in &clients {
            bed.join(*client, channel(CHANNEL));
        }
        bed.run_for(Duration::from_secs(10));
        bed.kill_server(server);
        bed.run_for(millis(outage));
        bed.start_server(server);
        let restarted = bed.at();
        bed.run_for(Duration::from_secs(5));
        for client in clients {
            let back = bed.first_since(client, channel(CHANNEL), restarted);
            assert!(back.is_some(), "client {client} after {outage} ms, seed {seed}");
        }
    }
}

#[test]
fn a_server_that_leaves_politely_and_returns_has_its_clients_back_within_five_seconds() {
    let mut bed = Bed::new(1);
    let server = bed.add_server();
    let client = bed.add_client();
    bed.add_source(channel(CHANNEL), millis(50));
    bed.join(client, channel(CHANNEL));
    bed.run_for(Duration::from_secs(3));
    bed.server_mut(server).tear_down_all();
    bed.settle();
    bed.kill_server(server);
    bed.run_for(Duration::from_secs(1));
    bed.start_server(server);
    let restarted = bed.at();
    bed.run_for(Duration::from_secs(5));
    assert!(bed.first_since(client, channel(CHANNEL), restarted).is_some());
    let torn = Event::ServerLost { server: bed.servers[server].address, reason: LostReason::TornDown };
    assert!(bed.clients[client].events.iter().any(|(_, event)| *event == torn));
}

#[test]
fn of_two_servers_one_is_killed_and_packets_come_from_the_other_within_five_seconds() {
    for seed in 0..100 {
        let mut bed = Bed::new(seed);
        bed.net.link = lossy();
        let [first, second] = [bed.add_server(), bed.add_server()];
        let client = bed.add_client();
        bed.add_source(channel(CHANNEL), millis(20));
        bed.join(client, channel(CHANNEL));
        bed.run_for(Duration::from_secs(10));
        bed.kill_server(first);
        let killed = bed.at();
        bed.run_for(Duration::from_secs(5));
        assert_eq!(bed.clients[client].client.server(), Some(bed.servers[second].address), "seed {seed}");
        let last = bed.arrivals(client, channel(CHANNEL)).last().copied();
        assert!(last.is_some_and(|last| last > killed + 3_000), "seed {seed}: {last:?}, killed at {killed}");
        let hand_over = Event::HandOver { from: bed.servers[first].address, to: bed.servers[second].address };
        assert!(bed.clients[client].events.iter().any(|(_, event)| *event == hand_over));
    }
}

#[test]
fn a_silent_server_is_asked_three_times_half_a_second_apart_and_then_given_up() {
    let mut bed = Bed::new(1);
    let server = bed.add_server();
    let client = bed.add_client();
    bed.add_source(channel(CHANNEL), millis(100));
    bed.join(client, channel(CHANNEL));
    bed.run_for(millis(2_000));
    bed.kill_server(server);
    bed.run_for(millis(3_600));
    let last = *bed.arrivals(client, channel(CHANNEL)).last().unwrap();
    let probes: Vec<_> = times(&bed, Command::Probe).into_iter().filter(|at| *at > 100).collect();
    assert_eq!(probes, [last + 2_000, last + 2_500, last + 3_000]);
    let address = bed.servers[server].address;
    let given_up = Event::ServerLost { server: address, reason: LostReason::Silent };
    assert!(bed.clients[client].events.contains(&(last + 3_500, given_up)));
    assert!(bed.clients[client].events.contains(&(last + 3_500, Event::NeedServers)));
}

#[test]
fn a_first_server_that_never_answers_is_passed_over() {
    let mut bed = Bed::new(1);
    let [dead, alive] = [bed.add_server(), bed.add_server()];
    bed.kill_server(dead);
    let client = bed.add_client();
    bed.add_source(channel(CHANNEL), millis(20));
    bed.join(client, channel(CHANNEL));
    bed.run_for(Duration::from_secs(5));
    let lost = Event::ServerLost { server: bed.servers[dead].address, reason: LostReason::Unanswered };
    assert_eq!(bed.clients[client].events[0], (2_250, lost));
    assert_eq!(bed.clients[client].client.server(), Some(bed.servers[alive].address));
    assert!(bed.arrivals(client, channel(CHANNEL))[0] < 2_400);
}

#[test]
fn servers_are_needed_again_and_again_until_there_is_one() {
    let mut bed = Bed::new(1);
    let client = bed.add_client();
    bed.join(client, channel(CHANNEL));
    bed.run_for(Duration::from_secs(25));
    let needed: Vec<_> = bed.clients[client].events.iter().map(|(at, _)| *at).collect();
    assert_eq!(needed, [0, 10_000, 20_000]);
    let server = bed.add_server();
    bed.clients[client].servers = vec![bed.servers[server].address];
    bed.add_source(channel(CHANNEL), millis(20));
    bed.run_for(Duration::from_secs(6));
    assert!(!bed.arrivals(client, channel(CHANNEL)).is_empty(), "the driver brought the list at 30 s");
}

#[test]
fn a_killed_client_loses_its_joins_after_sixty_seconds_and_its_tunnel_after_a_hundred_and_twenty() {
    let mut bed = Bed::new(1);
    let server = bed.add_server();
    let [dead, alive] = [bed.add_client(), bed.add_client()];
    bed.add_source(channel(CHANNEL), millis(100));
    for client in [dead, alive] {
        bed.join(client, channel(CHANNEL));
    }
    bed.run_for(millis(1_000));
    let last = *times(&bed, Command::JoinGroup).last().unwrap() + 10;
    bed.clients[dead].is_dead = true;
    let channels =
        |bed: &Bed| -> Vec<usize> { bed.server(server).tunnels().map(|tunnel| tunnel.channels.len()).collect() };
    bed.run_until(bed.start + millis(last + 60_000 - 1));
    assert_eq!(channels(&bed), [1, 1]);
    bed.run_for(millis(2));
    assert_eq!(channels(&bed), [0, 1]);
    bed.run_until(bed.start + millis(last + 120_000 - 1));
    assert_eq!(channels(&bed), [0, 1]);
    bed.run_for(millis(2));
    assert_eq!(channels(&bed), [1]);
    assert_eq!(bed.servers[server].down, [(last + 120_000, seen(&bed, dead), DownReason::Idle)]);
    let arrivals = bed.arrivals(alive, channel(CHANNEL));
    assert!(arrivals.windows(2).all(|pair| pair[1] - pair[0] == 100), "the other client sees nothing of it");
}

#[test]
fn after_a_hand_over_the_old_server_is_left_and_what_it_still_sends_is_not_delivered() {
    let mut bed = Bed::new(1);
    let [first, second] = [bed.add_server(), bed.add_server()];
    let client = bed.add_client();
    bed.add_source(channel(CHANNEL), millis(50));
    bed.join(client, channel(CHANNEL));
    bed.run_for(millis(1_000));
    // A cut that is as long as a client's patience: the first server lives on and does not know of it.
    bed.net.is_cut = true;
    bed.run_for(millis(3_600));
    bed.net.is_cut = false;
    bed.run_for(millis(2_000));
    assert_eq!(bed.clients[client].client.server(), Some(bed.servers[second].address));
    assert_eq!(bed.server(first).tunnels().len(), 0, "left");
    let arrivals = bed.arrivals(client, channel(CHANNEL));
    assert!(arrivals.windows(2).all(|pair| pair[1] > pair[0]), "never the same packet from both");
}

#[test]
fn a_spoofed_tear_down_without_the_cookie_changes_nothing() {
    let mut bed = Bed::new(1);
    let server = bed.add_server();
    let client = bed.add_client();
    bed.add_source(channel(CHANNEL), millis(100));
    bed.join(client, channel(CHANNEL));
    bed.run_for(millis(1_000));
    let (server_address, client_address) = (bed.servers[server].address, seen(&bed, client));
    let right = bed.server(server).tunnels().next().unwrap().cookies;
    for guess in 0..2_000 {
        let guess = castgate_wire::umtp::Cookie(guess);
        for (from, to, is_right) in [
            (server_address, client_address, guess == right.remote),
            (client_address, server_address, guess == right.local || guess == right.local_previous),
        ] {
            for command in [Command::TearDown, Command::ProbeNack, Command::ProbeAck] {
                if !is_right {
                    let mut spoofed = Vec::new();
                    Trailer::without_channel(command, guess, guess).append_to(&mut spoofed);
                    bed.inject(from, to, &spoofed);
                }
            }
        }
    }
    bed.run_for(millis(3_000));
    let arrivals = bed.arrivals(client, channel(CHANNEL));
    assert!(arrivals.windows(2).all(|pair| pair[1] - pair[0] == 100));
    assert!(bed.servers[server].down.is_empty());
}
