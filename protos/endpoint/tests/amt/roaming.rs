//! Addresses that change and relays that forget.

use crate::bed::{Bed, SOURCE, SSM, include, millis};
use castgate_endpoint::amt::gateway::{Config, Event};
use castgate_endpoint::amt::relay;
use std::net::SocketAddr;
use std::time::Duration;

fn streaming() -> (Bed, usize, usize) {
    let mut bed = Bed::new(3);
    let relay = bed.add_relay(relay::Config::default());
    let gateway = bed.add_gateway(bed.relays[relay].address, Config::default());
    bed.add_source(SOURCE, SSM);
    bed.join(gateway, SSM, include(&[SOURCE]));
    bed.run_for(Duration::from_secs(5));
    assert!(bed.gateways[gateway].count(SOURCE) > 480);
    (bed, relay, gateway)
}

#[test]
fn a_nat_that_takes_another_port_costs_less_than_three_seconds_and_the_old_endpoint_ends() {
    let (mut bed, relay, gateway) = streaming();
    let since = bed.at();
    let old = bed.gateways[gateway].public;
    let new = SocketAddr::new(old.ip(), 40_001);
    bed.gateways[gateway].public = new;
    bed.run_for(Duration::from_secs(5));
    let back = bed.gateways[gateway].first_since(SOURCE, since).expect("the stream comes back");
    assert!(back - since < 3_000, "{} ms", back - since);
    assert_eq!(bed.endpoints(relay), [new]);
    let changed = Event::AddressChanged { from: old, to: new };
    assert!(bed.gateways[gateway].events.iter().any(|(_, event)| *event == changed));
}

#[test]
fn a_relay_that_was_restarted_has_its_gateways_back_within_three_seconds() {
    let (mut bed, relay, gateway) = streaming();
    bed.kill_relay(relay);
    bed.start_relay(relay);
    let since = bed.at() + 11;
    bed.run_for(Duration::from_secs(5));
    let back = bed.gateways[gateway].first_since(SOURCE, since).expect("the stream comes back");
    assert!(back - since < 3_000, "{} ms", back - since);
    assert!(!bed.gateways[gateway].events.iter().any(|(_, event)| matches!(event, Event::Silent { .. })));
}

#[test]
fn a_relay_that_is_dead_is_told_by_silence_within_four_and_a_half_seconds() {
    let (mut bed, relay, gateway) = streaming();
    bed.kill_relay(relay);
    let since = bed.at();
    bed.run_for(Duration::from_secs(30));
    let events = &bed.gateways[gateway].events;
    let (at, _) = events.iter().find(|(_, event)| matches!(event, Event::Silent { .. })).expect("told");
    assert!(at - since < 4_500, "{} ms", at - since);
}

#[test]
fn a_network_that_is_cut_for_a_minute_heals_by_itself() {
    let (mut bed, _, gateway) = streaming();
    bed.net.loss_permille = 1000;
    bed.run_for(Duration::from_mins(1));
    bed.net.loss_permille = 0;
    let since = bed.at();
    bed.run_for(millis(100));
    assert!(bed.gateways[gateway].first_since(SOURCE, since).is_some(), "the endpoint has outlived it");
}
