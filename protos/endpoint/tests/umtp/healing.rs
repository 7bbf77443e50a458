//! Whatever happened: when the network heals, every joined channel flows within one JOIN interval, and no packet was ever
//! delivered for a channel that was not joined (the bed looks at each).

use crate::bed::{Bed, Link, channel, millis};
use castgate_wire::umtp::Channel;
use proptest::prelude::*;
use std::time::Duration;

const CLIENTS: usize = 3;
const SERVERS: usize = 2;

/// The JOIN interval of the draft.
const JOIN_INTERVAL: Duration = Duration::from_secs(15);

fn channels() -> [Channel; 3] {
    ["239.1.2.3:5004", "239.1.2.3:5005", "232.1.2.3@192.0.2.10:5004"].map(channel)
}

#[derive(Debug, Clone)]
enum Step {
    Join(usize, usize),
    Leave(usize, usize),
    Send(usize, usize),
    KillServer(usize),
    StartServer(usize),
    Rebind(usize),
    Cut(bool),
    Damage(u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..CLIENTS, 0..3_usize).prop_map(|(client, channel)| Step::Join(client, channel)),
        3 => (0..CLIENTS, 0..3_usize).prop_map(|(client, channel)| Step::Leave(client, channel)),
        2 => (0..CLIENTS, 0..3_usize).prop_map(|(client, channel)| Step::Send(client, channel)),
        1 => (0..SERVERS).prop_map(Step::KillServer),
        1 => (0..SERVERS).prop_map(Step::StartServer),
        1 => (0..CLIENTS).prop_map(Step::Rebind),
        1 => any::<bool>().prop_map(Step::Cut),
        1 => (0..400_u64).prop_map(Step::Damage),
        // From the shortest race to longer than every timer.
        6 => prop_oneof![0..300_u64, 0..5_000_u64, 0..150_000_u64].prop_map(Step::Wait),
    ]
}

fn carry_out(bed: &mut Bed, step: &Step) {
    match *step {
        Step::Join(client, place) => bed.join(client, channels()[place]),
        Step::Leave(client, place) => bed.leave(client, channels()[place]),
        Step::Send(client, place) => {
            // May fail for want of a server or a join; what it must not do is disturb anything.
            let _ = bed.clients[client].client.send(channels()[place], 9, b"upstream");
            bed.settle();
        }
        Step::KillServer(server) => bed.kill_server(server),
        Step::StartServer(server) => {
            bed.kill_server(server);
            bed.start_server(server);
        }
        Step::Rebind(client) => bed.rebind(client),
        Step::Cut(is_cut) => bed.net.is_cut = is_cut,
        Step::Damage(permille) => {
            bed.net.link = Link {
                delay: millis(15),
                jitter: millis(permille),
                loss_permille: permille,
                duplicate_permille: permille / 2,
            };
        }
        Step::Wait(span) => bed.run_for(millis(span)),
    }
}

fn heal(bed: &mut Bed) {
    bed.net.is_cut = false;
    bed.net.link = Link::GOOD;
    for server in 0..SERVERS {
        if bed.servers[server].server.is_none() {
            bed.start_server(server);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn after_any_schedule_every_joined_channel_flows_within_one_join_interval(
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 0..30),
    ) {
        let mut bed = Bed::new(seed);
        for _ in 0..SERVERS {
            bed.add_server();
        }
        for _ in 0..CLIENTS {
            bed.add_client();
        }
        for channel in channels() {
            bed.add_source(channel, millis(200));
        }
        for step in &steps {
            carry_out(&mut bed, step);
        }
        heal(&mut bed);
        bed.run_for(JOIN_INTERVAL);
        let healed = bed.at();
        bed.run_for(millis(500));
        for (place, node) in bed.clients.iter().enumerate() {
            for channel in &node.wanted {
                prop_assert!(
                    bed.first_since(place, *channel, healed).is_some(),
                    "client {place}: {channel} does not flow at {healed} ms: {:?}",
                    node.events
                );
            }
        }
    }
}
