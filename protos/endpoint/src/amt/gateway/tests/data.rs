//! Multicast Data: what is taken.

use super::*;

#[test]
fn only_packets_of_the_relay_for_a_joined_group_and_a_wanted_source_are_taken() {
    let mut lab = Lab::joined(Config::default());
    lab.gateway.set_filter(ip(ASM), Filter::exclude([ip("192.0.2.66")]), lab.now).unwrap();
    lab.gateway.set_filter(ip(SSM_V6), include(&[SOURCE_V6]), lab.now).unwrap();
    for (source, group) in [(SOURCE, SSM), (SOURCE, ASM), (SOURCE_V6, SSM_V6)] {
        assert!(lab.data(relay(), source, group), "{source} {group}");
    }
    for (from, source, group, reason) in [
        (SocketAddr::new(relay().ip(), 2269), SOURCE, SSM, Reason::Stranger),
        (us(2268), SOURCE, SSM, Reason::Stranger),
        (relay(), "192.0.2.11", SSM, Reason::WrongSource),
        (relay(), "192.0.2.66", ASM, Reason::WrongSource),
        (relay(), "2001:db8::b", SSM_V6, Reason::WrongSource),
        (relay(), SOURCE, "232.1.2.4", Reason::NotJoined),
        (relay(), SOURCE, "192.0.2.1", Reason::NotMulticast),
        (relay(), SOURCE_V6, "2001:db8::1", Reason::NotMulticast),
    ] {
        let before = lab.dropped(reason);
        assert!(!lab.data(from, source, group), "{source} {group}");
        assert_eq!(lab.dropped(reason), before + 1);
    }
    assert_eq!(lab.gateway.counters().data, 3);
}

#[test]
fn what_was_left_is_no_longer_taken_and_may_come_for_long() {
    let mut lab = Lab::joined(Config::default());
    lab.gateway.set_filter(ip(SSM), Filter::nothing(), lab.now).unwrap();
    for _ in 0..100 {
        lab.wait(SECOND);
        assert!(!lab.data(relay(), SOURCE, SSM));
    }
    assert_eq!(lab.dropped(Reason::NotJoined), 100);
}

#[test]
fn what_is_no_packet_is_dropped_and_octets_behind_a_packet_are_not_passed_on() {
    let mut lab = Lab::joined(Config::default());
    let inner = packet(SOURCE, SSM);
    let whole = Repr::Data { packet: &inner }.to_vec();
    for len in 0..whole.len() {
        assert!(lab.gateway.handle_datagram(lab.now, relay(), &whole[..len]).is_none(), "{len}");
    }
    let mut longer = whole.clone();
    longer.extend([0xff; 7]);
    let taken = lab.gateway.handle_datagram(lab.now, relay(), &longer).unwrap();
    assert_eq!(taken.octets(), inner);
}

#[test]
fn a_relay_behind_a_dual_stack_socket_is_the_relay() {
    let mut lab = Lab::joined(Config::default());
    assert!(lab.data("[::ffff:198.51.100.1]:2268".parse().unwrap(), SOURCE, SSM));
}

#[test]
fn a_fragment_of_a_packet_is_taken_like_the_packet() {
    let lab = Lab::joined(Config::default());
    let mut fragment = packet(SOURCE, SSM);
    fragment[6] = 0x20;
    let datagram = Repr::Data { packet: &fragment }.to_vec();
    assert!(lab.gateway.takes(relay(), &datagram).is_ok());
}
