//! From the first PROBE to the first packet, and the rhythm of JOINs.

use crate::bed::{Bed, Link, Millis, channel, millis};
use castgate_endpoint::umtp::client::Event;
use castgate_wire::umtp::{Channel, Command, Trailer};
use std::net::SocketAddrV4;
use std::time::Duration;

const ASM: &str = "239.1.2.3:5004";
const SSM: &str = "232.1.2.3@192.0.2.10:5004";

#[test]
fn a_channel_arrives_two_round_trips_after_it_was_joined() {
    for name in [ASM, SSM] {
        let mut bed = Bed::new(1);
        bed.add_server();
        let client = bed.add_client();
        bed.add_source(channel(name), millis(10));
        bed.join(client, channel(name));
        bed.run_for(millis(200));
        // PROBE, PROBE_ACK, JOIN, DATA at 10 ms each; the source's next packet was due in that moment.
        assert_eq!(bed.arrivals(client, channel(name)).first(), Some(&50));
        let (_, _, ttl, _) = bed.clients[client].received[0];
        assert_eq!(ttl, 63, "one hop less than the native packet");
    }
}

#[test]
fn joins_are_repeated_after_half_a_second_one_two_and_four_until_data_and_then_every_fifteen() {
    let mut bed = Bed::new(1);
    bed.add_server();
    let client = bed.add_client();
    bed.join(client, channel(ASM));
    bed.run_for(Duration::from_secs(40));
    let up = 20;
    assert_eq!(joins(&bed), [0, 500, 1_500, 3_500, 7_500, 22_500, 37_500].map(|at| at + up));

    let mut bed = Bed::new(1);
    bed.add_server();
    let client = bed.add_client();
    bed.join(client, channel(ASM));
    bed.run_for(millis(2_000));
    bed.add_source(channel(ASM), millis(100));
    bed.run_for(Duration::from_secs(33));
    assert_eq!(bed.arrivals(client, channel(ASM))[0], 2_010);
    assert_eq!(joins(&bed), [20, 520, 1_520, 17_010, 32_010], "refreshed from the first packet on");
}

#[test]
fn with_two_percent_loss_the_first_packet_is_there_within_five_seconds_in_all_of_a_hundred_seeds() {
    for seed in 0..100 {
        let mut bed = Bed::new(seed);
        bed.net.link = lossy();
        bed.add_server();
        let client = bed.add_client();
        bed.add_source(channel(SSM), millis(100));
        bed.join(client, channel(SSM));
        bed.run_for(Duration::from_secs(5));
        assert!(!bed.arrivals(client, channel(SSM)).is_empty(), "seed {seed}");
    }
}

#[test]
fn on_a_lossy_network_a_flowing_channel_stays_and_what_is_missing_is_what_was_lost() {
    let mut bed = Bed::new(7);
    bed.net.link = Link { duplicate_permille: 0, ..lossy() };
    bed.add_server();
    let client = bed.add_client();
    bed.add_source(channel(ASM), millis(20));
    bed.join(client, channel(ASM));
    bed.run_for(Duration::from_mins(2));
    let numbers: Vec<u64> = bed.clients[client]
        .received
        .iter()
        .map(|(.., payload)| u64::from_be_bytes(payload.as_slice().try_into().unwrap()))
        .collect();
    let (first, last) = (numbers.iter().min().unwrap(), numbers.iter().max().unwrap());
    let missing = last - first + 1 - numbers.len() as u64;
    let data_sent = bed.sent.iter().filter(|(.., datagram)| command(datagram) == Some(Command::Data)).count();
    assert!(missing > 50, "2 % of 6000 were lost, {missing} are missing");
    assert!(data_sent as u64 - numbers.len() as u64 >= missing);
    assert!(!bed.clients[client].events.iter().any(|(_, event)| matches!(event, Event::ServerLost { .. })));
}

#[test]
fn a_leave_is_said_three_times_and_the_channel_stops_at_once() {
    let mut bed = Bed::new(1);
    let server = bed.add_server();
    let client = bed.add_client();
    bed.add_source(channel(ASM), millis(5));
    bed.join(client, channel(ASM));
    bed.run_for(millis(1_000));
    bed.leave(client, channel(ASM));
    bed.run_for(millis(5_000));
    assert_eq!(times(&bed, Command::LeaveGroup), [1_000, 1_200, 1_400]);
    assert!(bed.arrivals(client, channel(ASM)).iter().all(|at| *at <= 1_000));
    assert!(bed.servers[server].native.is_empty());
    assert_eq!(bed.server(server).counters().leaves, 1);
}

#[test]
fn a_lost_leave_is_made_good_by_the_next() {
    let mut bed = Bed::new(1);
    let server = bed.add_server();
    let client = bed.add_client();
    bed.join(client, channel(ASM));
    bed.run_for(millis(1_000));
    bed.net.is_cut = true;
    bed.leave(client, channel(ASM));
    bed.run_for(millis(100));
    bed.net.is_cut = false;
    bed.run_for(millis(120));
    assert!(bed.servers[server].native.is_empty());
}

#[test]
fn a_channel_that_is_joined_again_at_once_is_not_left_by_the_repeats() {
    let mut bed = Bed::new(1);
    bed.add_server();
    let client = bed.add_client();
    bed.add_source(channel(ASM), millis(20));
    bed.join(client, channel(ASM));
    bed.run_for(millis(1_000));
    bed.leave(client, channel(ASM));
    bed.run_for(millis(50));
    bed.join(client, channel(ASM));
    bed.run_for(millis(3_000));
    assert_eq!(times(&bed, Command::LeaveGroup), [1_000]);
    let arrivals = bed.arrivals(client, channel(ASM));
    assert!(arrivals.windows(2).all(|pair| pair[1] - pair[0] <= 100));
}

#[test]
fn an_idle_tunnel_is_kept_by_a_probe_every_thirty_seconds() {
    let mut bed = Bed::new(1);
    let server = bed.add_server();
    let client = bed.add_client();
    bed.join(client, channel(ASM));
    bed.run_for(millis(1_000));
    bed.leave(client, channel(ASM));
    bed.run_for(Duration::from_mins(5));
    assert_eq!(bed.server(server).tunnels().len(), 1);
    let probes: Vec<Millis> = times(&bed, Command::Probe).into_iter().filter(|at| *at > 5_000).collect();
    assert!(probes.windows(2).all(|pair| pair[1] - pair[0] == 30_020), "{probes:?}");
}

#[test]
fn a_quiet_channel_at_a_living_server_is_kept() {
    let mut bed = Bed::new(1);
    bed.add_server();
    let client = bed.add_client();
    bed.join(client, channel(ASM));
    bed.run_for(Duration::from_mins(10));
    assert!(!bed.clients[client].events.iter().any(|(_, event)| matches!(event, Event::ServerLost { .. })));
    bed.add_source(channel(ASM), millis(100));
    bed.run_for(millis(50));
    assert_eq!(bed.arrivals(client, channel(ASM)).len(), 1);
}

#[test]
fn a_client_that_shuts_down_leaves_nothing_behind() {
    let mut bed = Bed::new(1);
    let server = bed.add_server();
    let client = bed.add_client();
    for port in 1..=5 {
        bed.join(client, Channel { port, ..channel(ASM) });
    }
    bed.run_for(millis(1_000));
    let now = bed.now;
    bed.clients[client].client.shut_down(now);
    bed.clients[client].wanted.clear();
    assert!(!bed.clients[client].client.is_finished());
    bed.run_for(millis(1_000));
    assert!(bed.clients[client].client.is_finished());
    assert_eq!(times(&bed, Command::TearDown), [1_000, 1_200, 1_400]);
    assert_eq!((bed.server(server).tunnels().len(), bed.server(server).channels().len()), (0, 0));
}

pub fn lossy() -> Link {
    Link { delay: millis(20), jitter: millis(10), loss_permille: 20, duplicate_permille: 10 }
}

pub fn command(datagram: &[u8]) -> Option<Command> {
    Trailer::parse(datagram).ok().map(|(_, trailer)| trailer.command)
}

/// When anybody sent this command.
pub fn times(bed: &Bed, wanted: Command) -> Vec<Millis> {
    bed.sent.iter().filter(|(.., datagram)| command(datagram) == Some(wanted)).map(|(at, ..)| *at).collect()
}

fn joins(bed: &Bed) -> Vec<Millis> {
    times(bed, Command::JoinGroup)
}

/// Where a client is seen by servers.
pub fn seen(bed: &Bed, client: usize) -> SocketAddrV4 {
    bed.clients[client].public
}
