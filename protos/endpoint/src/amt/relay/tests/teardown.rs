//! Teardown (RFC 7450 §5.3.3.5).

use super::*;

fn teardown(got: &Got, gateway: SocketAddr) -> Repr<'static> {
    Repr::Teardown { mac: got.mac, nonce: got.nonce, gateway }
}

#[test]
fn a_teardown_from_the_new_address_ends_the_old_endpoint_at_once() {
    let mut lab = Lab::new();
    let got = lab.ask(gateway(1));
    lab.update_with(gateway(1), &got, &allow(SSM, &[SOURCE]));
    lab.outputs();
    lab.receive(gateway(2), &teardown(&got, gateway(1)));
    let (remote, group) = (gateway(1), ip(SSM));
    assert_eq!(
        lab.outputs(),
        [
            Output::Filter { remote, group, filter: None },
            Output::Upstream { group, filter: None },
            Output::EndpointDown { remote, reason: DownReason::Teardown },
        ]
    );
    lab.receive(gateway(2), &teardown(&got, gateway(1)));
    assert!(lab.outputs().is_empty(), "a repeated one finds nothing");
    assert_eq!((lab.relay.counters().teardowns, lab.relay.next_timeout()), (2, None));
}

#[test]
fn a_teardown_counts_only_with_the_mac_of_the_endpoint_that_it_names() {
    let mut lab = Lab::new();
    lab.join(gateway(1));
    let got = lab.ask(gateway(2));
    lab.receive(gateway(2), &teardown(&got, gateway(1)));
    let of_one = lab.ask(gateway(1));
    lab.receive(gateway(1), &teardown(&Got { mac: ResponseMac([1; 6]), ..of_one.clone() }, gateway(1)));
    lab.receive(gateway(1), &teardown(&of_one, SocketAddr::new(gateway(1).ip(), 7)));
    assert_eq!((lab.dropped(Reason::WrongMac), lab.relay.endpoints().len()), (3, 1));
}

#[test]
fn without_teardown_the_message_is_ignored() {
    let mut lab = Lab::with(Config { teardown: false, ..Config::default() });
    let got = lab.ask(gateway(1));
    lab.update_with(gateway(1), &got, &allow(SSM, &[SOURCE]));
    lab.receive(gateway(1), &teardown(&got, gateway(1)));
    assert_eq!((lab.dropped(Reason::Unexpected), lab.relay.endpoints().len()), (1, 1));
}

#[test]
fn a_link_local_endpoint_is_found_by_the_scope_of_whoever_tears_it_down() {
    let mut lab = Lab::new();
    let from: SocketAddr = "[fe80::7%4]:40000".parse().unwrap();
    let got = lab.request(from, RequestFlags::IGMP, Nonce(1)).unwrap();
    lab.update_with(from, &got, &allow(SSM, &[SOURCE]));
    assert_eq!(lab.relay.endpoints().len(), 1);
    let other = "[fe80::8%4]:40000".parse().unwrap();
    lab.receive(other, &teardown(&got, "[fe80::7]:40000".parse().unwrap()));
    assert_eq!(lab.relay.endpoints().len(), 0);
}
