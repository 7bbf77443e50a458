//! Golden octets of all seven AMT messages, each in both directions, with the packets inside them. MAC and nonces are
//! chosen to be seen at once; checksums were computed by another program.

use crate::hex::octets;
use castgate_wire::amt::{Nonce, QueryFlags, Repr, RequestFlags, ResponseMac};
use castgate_wire::membership::{self, Message, Query, Record, RecordType};
use std::time::Duration;

const MAC: ResponseMac = ResponseMac([1, 2, 3, 4, 5, 6]);
const NONCE: Nonce = Nonce(0xcafe_babe);
const DISCOVERY_NONCE: Nonce = Nonce(0xdead_beef);
const GENERAL_QUERY: &str = "46c00024 00004000 01020413 00000000 e0000001 94040000 1101ec81 00000000 027d0000";
const ALLOW_REPORT: &str =
    "46c0002c 00004000 010203f6 00000000 e0000016 94040000 22002cee 00000001 05000001 e8010203 c000020a";

#[track_caller]
fn holds(hex: &str, repr: Repr<'_>) {
    let bytes = octets(hex);
    assert_eq!(Repr::parse(&bytes), Ok(repr));
    let mut dirty = vec![0xff; repr.buffer_len()];
    repr.emit(&mut dirty);
    assert_eq!(dirty, bytes);
    assert_eq!(repr.to_vec(), bytes);
}

#[test]
fn relay_discovery() {
    holds("01000000 deadbeef", Repr::Discovery { nonce: DISCOVERY_NONCE });
}

#[test]
fn relay_advertisement() {
    let with = |relay: &str| Repr::Advertisement { nonce: DISCOVERY_NONCE, relay: relay.parse().unwrap() };
    holds("02000000 deadbeef c0000207", with("192.0.2.7"));
    holds("02000000 deadbeef 20010db8 00000000 00000000 00000007", with("2001:db8::7"));
}

#[test]
fn request() {
    let with = |flags| Repr::Request { nonce: NONCE, flags };
    holds("03000000 cafebabe", with(RequestFlags::IGMP));
    holds("03010000 cafebabe", with(RequestFlags::MLD));
    holds("03020000 cafebabe", with(RequestFlags::ECN));
    holds("03030000 cafebabe", with(RequestFlags::MLD.with(RequestFlags::ECN)));
    holds("03800000 cafebabe", with(RequestFlags::LINUX_MLD));
}

#[test]
fn membership_query() {
    let query = Message::Query(Query {
        version: 3,
        group: None,
        max_response: Duration::from_millis(100),
        suppress: false,
        robustness: 2,
        interval: Duration::from_secs(125),
        sources: Vec::new(),
    });
    let packet = octets(GENERAL_QUERY);
    assert_eq!(membership::parse(&packet).unwrap().message, query);
    assert_eq!(membership::emit(&query, "0.0.0.0".parse().unwrap()), std::slice::from_ref(&packet));

    let gateway = Some("198.51.100.9:40000".parse().unwrap());
    let address = "9c40 000000000000000000000000 c6336409";
    let with = |flags, gateway| Repr::Query { mac: MAC, nonce: NONCE, flags, gateway, packet: &packet };
    let header = "010203040506 cafebabe";
    holds(&format!("0401 {header} {GENERAL_QUERY} {address}"), with(QueryFlags::GATEWAY_ADDRESS, gateway));
    holds(&format!("0400 {header} {GENERAL_QUERY}"), with(QueryFlags::NONE, None));
    holds(&format!("0402 {header} {GENERAL_QUERY}"), with(QueryFlags::LIMIT, None));
    holds(&format!("0440 {header} {GENERAL_QUERY}"), with(QueryFlags::LINUX_LIMIT, None));
}

#[test]
fn membership_update() {
    let allow = Message::Report(vec![Record {
        kind: RecordType::AllowNewSources,
        group: "232.1.2.3".parse().unwrap(),
        sources: vec!["192.0.2.10".parse().unwrap()],
    }]);
    let packet = octets(ALLOW_REPORT);
    assert_eq!(membership::parse(&packet).unwrap().message, allow);
    assert_eq!(membership::emit(&allow, "0.0.0.0".parse().unwrap()), std::slice::from_ref(&packet));
    let update = Repr::Update { mac: MAC, nonce: NONCE, packet: &packet };
    holds(&format!("0500 010203040506 cafebabe {ALLOW_REPORT}"), update);
}

#[test]
fn multicast_data() {
    holds("0600 45000014", Repr::Data { packet: &octets("45000014") });
}

#[test]
fn teardown() {
    let with = |gateway: &str| Repr::Teardown { mac: MAC, nonce: NONCE, gateway: gateway.parse().unwrap() };
    let header = "0700 010203040506 cafebabe 9c40";
    holds(&format!("{header} 000000000000000000000000 c6336409"), with("198.51.100.9:40000"));
    holds(&format!("{header} 20010db8 00000000 00000000 00000009"), with("[2001:db8::9]:40000"));
}
