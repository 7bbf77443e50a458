//! Relay Discovery and Advertisement (RFC 7450 §5.3.3.2).

use super::*;

fn discover(lab: &mut Lab, at: &str, from: &str) -> Option<(SocketAddr, IpAddr)> {
    let (at, from): (SocketAddr, SocketAddr) = (at.parse().unwrap(), from.parse().unwrap());
    let discovery = Repr::Discovery { nonce: Nonce(0xdead_beef) }.to_vec();
    lab.relay.handle_datagram(lab.now, at, from, &discovery);
    let Some(Output::Transmit { local, to, datagram }) = lab.outputs().pop() else { return None };
    assert_eq!(to, from);
    match Repr::parse(&datagram).unwrap() {
        Repr::Advertisement { nonce: Nonce(0xdead_beef), relay } => Some((local, relay)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_discovery_is_answered_from_where_it_came_to_with_its_nonce_and_the_unicast_address_of_its_family() {
    let unicast = vec![ip("198.51.100.1"), ip("2001:db8::1"), ip("198.51.100.2")];
    let mut lab = Lab::with(Config { unicast, ..Config::default() });
    let cases = [
        ("198.51.100.9:2268", "203.0.113.1:7", "198.51.100.9"),
        ("192.52.193.1:2268", "203.0.113.1:7", "198.51.100.1"),
        ("0.0.0.0:2268", "203.0.113.1:7", "198.51.100.1"),
        ("[2001:db8::9]:2268", "[2001:db8::7]:7", "2001:db8::9"),
        ("[2001:3::1]:2268", "[2001:db8::7]:7", "2001:db8::1"),
    ];
    for (at, from, relay) in cases {
        assert_eq!(discover(&mut lab, at, from), Some((at.parse().unwrap(), ip(relay))));
    }
    assert_eq!(lab.relay.counters().advertisements, 5);
}

#[test]
fn without_a_unicast_address_of_the_family_the_anycast_address_is_silent() {
    let mut lab = Lab::with(Config { unicast: vec![ip("2001:db8::1")], ..Config::default() });
    assert_eq!(discover(&mut lab, "192.52.193.1:2268", "203.0.113.1:7"), None);
    assert_eq!(lab.dropped(Reason::NoAddress), 1);
}

#[test]
fn a_full_relay_still_tells_its_address() {
    let mut lab = Lab::new();
    lab.relay.drain();
    assert!(discover(&mut lab, "198.51.100.1:2268", "203.0.113.1:7").is_some());
}

#[test]
fn what_only_gateways_take_other_versions_and_unknown_types_are_ignored() {
    let mut lab = Lab::new();
    let messages = [
        Repr::Advertisement { nonce: Nonce(1), relay: ip("192.0.2.1") },
        Repr::Query { mac: ResponseMac([0; 6]), nonce: Nonce(1), flags: QueryFlags::NONE, gateway: None, packet: &[] },
        Repr::Data { packet: &[] },
    ];
    for message in messages {
        lab.receive(gateway(1), &message);
    }
    assert_eq!(lab.dropped(Reason::Unexpected), 3);
    for first in [0x00, 0x08, 0x0f] {
        lab.relay.handle_datagram(lab.now, local(), gateway(1), &[first, 0, 0, 0, 0, 0, 0, 1]);
    }
    assert_eq!(lab.dropped(Reason::UnknownType), 3);
    for first in [0x11, 0x13, 0xf5] {
        lab.relay.handle_datagram(lab.now, local(), gateway(1), &[first, 0, 0, 0, 0, 0, 0, 1]);
    }
    assert_eq!(lab.dropped(Reason::Version), 3);
    lab.relay.handle_datagram(lab.now, local(), gateway(1), &[]);
    assert_eq!(lab.dropped(Reason::Malformed), 1);
    assert!(lab.outputs().is_empty());
}

#[test]
fn nobody_is_answered_who_cannot_receive() {
    let mut lab = Lab::new();
    for from in ["0.0.0.0:7", "255.255.255.255:7", "239.1.2.3:7", "203.0.113.1:0", "[ff02::1]:7"] {
        lab.receive(from.parse().unwrap(), &Repr::Discovery { nonce: Nonce(1) });
    }
    assert_eq!((lab.outputs(), lab.dropped(Reason::BadSender)), (vec![], 5));
}
