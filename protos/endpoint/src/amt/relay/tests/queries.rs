//! Requests and Membership Queries (RFC 7450 §5.3.3.3), and gateways that take no flags.

use super::*;

fn inner(got: &Got) -> castgate_wire::membership::Received {
    parse(&got.packet).unwrap()
}

fn query_of(got: &Got) -> Query {
    match inner(got).message {
        Message::Query(query) => query,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_query_has_the_octets_of_the_rfc_with_the_address_of_its_gateway() {
    let mut lab = Lab::with(Config { query_source_v4: [1, 2, 4, 19].into(), ..Config::default() });
    let from = "198.51.100.9:40000".parse().unwrap();
    let got = lab.request(from, RequestFlags::IGMP, Nonce(0xcafe_babe)).unwrap();
    assert_eq!((got.nonce, got.flags, got.gateway), (Nonce(0xcafe_babe), QueryFlags::GATEWAY_ADDRESS, Some(from)));
    let received = inner(&got);
    assert_eq!((received.source, received.destination), (ip("1.2.4.19"), ip("224.0.0.1")));
    assert_eq!((received.hop_limit, received.router_alert), (1, true));
    assert_eq!(got.packet[0..2], [0x46, 0xc0]);
    assert_eq!(got.packet[24..], [0x11, 0x01, 0xec, 0x81, 0, 0, 0, 0, 0x02, 0x7d, 0, 0]);
}

#[test]
fn a_request_for_igmp_gets_igmpv3_and_one_for_mld_gets_mldv2_in_either_order_of_bits() {
    let mut lab = Lab::new();
    for (number, flags, version, destination) in [
        (1, RequestFlags::IGMP, 3, "224.0.0.1"),
        (2, RequestFlags::ECN, 3, "224.0.0.1"),
        (3, RequestFlags::MLD, 2, "ff02::1"),
        (4, RequestFlags::MLD.with(RequestFlags::ECN), 2, "ff02::1"),
        (5, RequestFlags::LINUX_MLD, 2, "ff02::1"),
    ] {
        let got = lab.request(gateway(number), flags, Nonce(1)).unwrap();
        let query = query_of(&got);
        assert_eq!((query.version, inner(&got).destination), (version, ip(destination)));
        assert_eq!((query.group, query.sources.len(), query.suppress), (None, 0, false), "a general query");
        assert_eq!((query.robustness, query.interval), (2, Duration::from_secs(125)));
    }
}

#[test]
fn a_query_asks_for_an_answer_at_once() {
    let mut lab = Lab::new();
    let igmp = lab.request(gateway(1), RequestFlags::IGMP, Nonce(1)).unwrap();
    assert_eq!(igmp.packet[25], 1, "Max Resp Code");
    let mld = lab.request(gateway(2), RequestFlags::MLD, Nonce(1)).unwrap();
    assert_eq!(mld.packet[52..54], [0, 1], "Maximum Response Code");
}

#[test]
fn times_of_the_configuration_are_told() {
    let mut lab = Lab::new();
    let robustness = std::num::NonZeroU8::new(3).unwrap();
    lab.relay.set_config(Config { query_interval: Duration::from_secs(20), robustness, ..Config::default() });
    let query = query_of(&lab.ask(gateway(1)));
    assert_eq!((query.robustness, query.interval), (3, Duration::from_secs(20)));
}

#[test]
fn octets_after_a_request_and_reserved_bits_are_not_looked_at() {
    let mut lab = Lab::new();
    lab.relay.handle_datagram(lab.now, local(), gateway(1), &[3, 0x7c, 0xff, 0xff, 0, 0, 0, 1, 0]);
    assert_eq!((lab.outputs().len(), lab.relay.counters().queries), (1, 1));
}

#[test]
fn an_ipv6_gateway_and_one_behind_a_dual_stack_socket_are_told_their_own_address() {
    let mut lab = Lab::new();
    let mapped: SocketAddr = "[::ffff:203.0.113.1]:40000".parse().unwrap();
    lab.receive(mapped, &Repr::Request { nonce: Nonce(1), flags: RequestFlags::IGMP });
    let Some(Output::Transmit { to, datagram, .. }) = lab.outputs().pop() else { panic!("an answer") };
    let Repr::Query { gateway: told, .. } = Repr::parse(&datagram).unwrap() else { panic!("a query") };
    assert_eq!((to, told), (gateway(1), Some(gateway(1))));
    let v6 = "[2001:db8::7]:40000".parse().unwrap();
    assert_eq!(lab.request(v6, RequestFlags::IGMP, Nonce(1)).unwrap().gateway, Some(v6));
}

#[test]
fn without_teardown_no_address_is_told() {
    let mut lab = Lab::with(Config { teardown: false, ..Config::default() });
    let got = lab.ask(gateway(1));
    assert_eq!((got.flags, got.gateway), (QueryFlags::NONE, None));
}

#[test]
fn a_relay_that_is_full_draining_or_told_so_sets_l() {
    let mut lab = Lab::with(Config { endpoints_max: 1, ..Config::default() });
    assert!(!lab.ask(gateway(2)).flags.limit());
    lab.join(gateway(1));
    assert!(lab.ask(gateway(3)).flags.limit() && lab.relay.is_limited());
    lab.relay.set_config(Config::default());
    assert!(!lab.ask(gateway(4)).flags.limit());
    lab.relay.set_limit_flag(true);
    assert!(lab.ask(gateway(5)).flags.limit());
    lab.relay.set_limit_flag(false);
    assert!(!lab.ask(gateway(6)).flags.limit());
    lab.relay.drain();
    assert!(lab.ask(gateway(7)).flags.limit());
}

#[test]
fn a_gateway_that_sends_0x80_gets_no_flags_from_then_on() {
    let mut lab = Lab::new();
    lab.relay.drain();
    assert_eq!(lab.request(gateway(1), RequestFlags::IGMP, Nonce(1)).unwrap().flags.0, 0x03);
    assert_eq!(lab.request(gateway(1), RequestFlags::LINUX_MLD, Nonce(1)).unwrap().flags.0, 0);
    for nonce in 2..9 {
        lab.wait(Duration::from_mins(3));
        let got = lab.request(gateway(1), RequestFlags::IGMP, Nonce(nonce)).unwrap();
        assert_eq!((got.flags.0, got.gateway), (0, None));
    }
    assert_eq!(lab.request(gateway(2), RequestFlags::IGMP, Nonce(1)).unwrap().flags.0, 0x03, "others do");
}

#[test]
fn a_gateway_that_asks_again_with_a_new_nonce_and_never_updates_gets_no_flags() {
    let mut lab = Lab::new();
    assert_eq!(lab.ask(gateway(1)).flags, QueryFlags::GATEWAY_ADDRESS);
    lab.wait(Duration::from_secs(2));
    assert_eq!(lab.ask(gateway(1)).flags, QueryFlags::NONE);
    let got = lab.ask(gateway(1));
    lab.update_with(gateway(1), &got, &allow(SSM, &[SOURCE]));
    lab.wait(Duration::from_secs(125));
    assert_eq!(lab.ask(gateway(1)).flags, QueryFlags::NONE, "also once it has a tunnel");
    assert!(lab.relay.endpoints().next().unwrap().is_plain);
}

#[test]
fn a_gateway_that_updates_keeps_its_flags_however_often_it_asks() {
    let mut lab = Lab::new();
    lab.join(gateway(1));
    for _ in 0..20 {
        lab.wait(Duration::from_secs(2));
        assert_eq!(lab.ask(gateway(1)).flags, QueryFlags::GATEWAY_ADDRESS);
    }
}
