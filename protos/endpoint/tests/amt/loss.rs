//! Joining, refreshing and leaving, over networks that lose.

use crate::bed::{Bed, SOURCE, SOURCE_V6, SSM, SSM_V6, include, ip, millis};
use castgate_endpoint::amt::gateway::{Config, Event};
use castgate_endpoint::amt::relay;
use castgate_endpoint::membership::Filter;
use std::net::SocketAddr;
use std::time::Duration;

#[test]
fn a_channel_arrives_two_round_trips_after_it_was_joined_and_stops_one_way_after_it_was_left() {
    let mut bed = Bed::new(1);
    let relay = bed.add_relay(relay::Config::default());
    let gateway = bed.add_gateway(bed.relays[relay].address, Config::default());
    bed.add_source(SOURCE, SSM);
    bed.join(gateway, SSM, include(&[SOURCE]));
    bed.run_for(millis(500));
    // Request, Query, Update at 10 ms each, the next packet of the source at 40 ms, and its way.
    assert_eq!(bed.gateways[gateway].first_since(SOURCE, 0), Some(50));
    assert!(bed.gateways[gateway].events.iter().any(|(_, event)| matches!(event, Event::FirstData { .. })));
    bed.join(gateway, SSM, Filter::nothing());
    bed.run_for(millis(11));
    assert!(bed.endpoints(relay).is_empty() && bed.relays[relay].table.upstream.is_empty());
}

#[test]
fn all_four_pairs_of_outer_and_inner_family_work() {
    for address in ["198.51.100.1:2268", "[2001:db8:f::1]:2268"] {
        let mut bed = Bed::new(1);
        let address: SocketAddr = address.parse().unwrap();
        let relay = bed.add_relay_at(address, relay::Config::default());
        let gateway = bed.add_gateway(address, Config::default());
        bed.add_source(SOURCE, SSM);
        bed.add_source(SOURCE_V6, SSM_V6);
        bed.join(gateway, SSM, include(&[SOURCE]));
        bed.join(gateway, SSM_V6, include(&[SOURCE_V6]));
        bed.run_for(Duration::from_mins(10));
        let node = &bed.gateways[gateway];
        assert!(node.count(SOURCE) > 59_900 && node.count(SOURCE_V6) > 59_900);
        assert_eq!(bed.endpoints(relay), [node.public], "one endpoint for both");
        assert!(bed.relays[relay].table.endpoints[&node.public].0.ecn);
    }
}

#[test]
fn with_ten_percent_loss_the_first_packet_is_there_within_eight_seconds_in_all_of_a_hundred_seeds() {
    let mut worst = 0;
    for seed in 0..100 {
        let mut bed = Bed::new(seed);
        bed.net.loss_permille = 100;
        let relay = bed.add_relay(relay::Config::default());
        let gateway = bed.add_gateway(bed.relays[relay].address, Config::default());
        bed.add_source(SOURCE, SSM);
        bed.join(gateway, SSM, include(&[SOURCE]));
        bed.run_for(Duration::from_secs(8));
        worst = worst.max(bed.gateways[gateway].first_since(SOURCE, 0).unwrap_or(u64::MAX));
    }
    assert!(worst < 8_000, "{worst} ms");
}

#[test]
fn through_changes_of_secrets_and_loss_a_stream_never_stops_for_longer_than_a_second() {
    let mut bed = Bed::new(5);
    bed.net.loss_permille = 20;
    let config = relay::Config { secret_life: Duration::from_mins(10), ..relay::Config::default() };
    let relay = bed.add_relay(config);
    let gateway = bed.add_gateway(bed.relays[relay].address, Config::default());
    bed.add_source(SOURCE, SSM);
    bed.join(gateway, SSM, include(&[SOURCE]));
    bed.run_for(Duration::from_secs(10));
    bed.gateways[gateway].received.clear();
    bed.run_for(Duration::from_mins(45));
    let times: Vec<u64> = bed.gateways[gateway].received.iter().map(|(at, ..)| *at).collect();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(longest.is_some_and(|gap| gap < 1_000), "{longest:?}");
    assert!(bed.relays[relay].relay.as_ref().unwrap().counters().updates > 20);
}

#[test]
fn two_gateways_with_filters_of_their_own_make_one_upstream_and_get_each_their_own() {
    let mut bed = Bed::new(1);
    let relay = bed.add_relay(relay::Config::default());
    let address = bed.relays[relay].address;
    let [one, two] = [(); 2].map(|()| bed.add_gateway(address, Config::default()));
    let (a, b, group) = ("192.0.2.1", "192.0.2.2", "239.1.2.3");
    bed.add_source(a, group);
    bed.add_source(b, group);
    bed.join(one, group, include(&[a]));
    bed.join(two, group, Filter::exclude([ip(a)]));
    bed.run_for(Duration::from_secs(5));
    assert_eq!(bed.relays[relay].table.upstream[&ip(group)], Filter::everything());
    let counts = |bed: &Bed, place: usize| [a, b].map(|source| bed.gateways[place].count(source) > 400);
    assert_eq!((counts(&bed, one), counts(&bed, two)), ([true, false], [false, true]));
    bed.gateways[two].gateway.shut_down(bed.now);
    bed.run_for(Duration::from_secs(5));
    assert_eq!(bed.relays[relay].table.upstream[&ip(group)], include(&[a]));
    assert!(bed.gateways[two].gateway.is_finished());
}

#[test]
fn an_endpoint_whose_gateway_is_gone_without_a_word_ends_by_itself() {
    let mut bed = Bed::new(1);
    let relay = bed.add_relay(relay::Config::default());
    let gateway = bed.add_gateway(bed.relays[relay].address, Config::default());
    bed.join(gateway, SSM, include(&[SOURCE]));
    bed.run_for(Duration::from_secs(3));
    assert_eq!(bed.endpoints(relay).len(), 1);
    bed.gateways.clear();
    bed.run_for(Duration::from_secs(256));
    assert_eq!(bed.endpoints(relay).len(), 1);
    bed.run_for(Duration::from_secs(6));
    assert_eq!(bed.endpoints(relay).len(), 0);
}

#[test]
fn a_full_relay_sends_new_gateways_away_and_keeps_the_old() {
    let mut bed = Bed::new(1);
    let relay = bed.add_relay(relay::Config::default());
    let address = bed.relays[relay].address;
    bed.add_source(SOURCE, SSM);
    let old = bed.add_gateway(address, Config::default());
    bed.join(old, SSM, include(&[SOURCE]));
    bed.run_for(Duration::from_secs(1));
    bed.relays[relay].relay.as_mut().unwrap().drain();
    let new = bed.add_gateway(address, Config::default());
    bed.join(new, SSM, include(&[SOURCE]));
    bed.run_for(Duration::from_mins(10));
    let limited = |in_use| Event::Limited { relay: address, in_use };
    assert!(bed.gateways[new].events.iter().any(|(_, event)| *event == limited(false)));
    assert_eq!(bed.gateways[new].count(SOURCE), 0);
    assert!(bed.gateways[old].events.iter().any(|(_, event)| *event == limited(true)));
    assert!(bed.gateways[old].count(SOURCE) > 59_000);
}
