//! Updates and Teardowns.

use super::*;

fn quiet() -> Config {
    Config { silence_initial: None, ..Config::default() }
}

fn kinds(records: &[(u8, Record)]) -> Vec<(u8, RecordType)> {
    records.iter().map(|(mac, record)| (*mac, record.kind)).collect()
}

#[test]
fn a_report_waits_for_the_query_and_is_then_told_as_a_change_and_repeated() {
    let mut lab = Lab::with(quiet());
    lab.join(SSM, &[SOURCE]);
    assert_eq!(lab.requests().len(), 1, "a Request, and no Update yet");
    lab.wait(SECOND);
    lab.answer(5, None);
    let records = lab.records();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].0, &records[0].1.group, &records[0].1.sources), (5, &ip(SSM), &vec![ip(SOURCE)]));
    lab.wait(SECOND);
    assert_eq!(lab.records(), records, "robustness 2: once more within a second");
    lab.wait(Duration::from_secs(10));
    assert!(lab.sent().is_empty());
}

#[test]
fn joins_and_leaves_in_between_go_out_at_once_with_the_last_mac() {
    let mut lab = Lab::joined(quiet());
    lab.wait(SECOND);
    lab.sent();
    lab.join("232.1.2.4", &[SOURCE]);
    assert_eq!(kinds(&lab.records()), [(1, RecordType::AllowNewSources)]);
    lab.gateway.set_filter(ip(SSM), Filter::nothing(), lab.now).unwrap();
    let records = lab.records();
    assert_eq!(kinds(&records), [(1, RecordType::BlockOldSources)]);
    assert_eq!(lab.gateway.groups().count(), 1);
}

#[test]
fn an_update_has_the_ip_headers_of_the_rfcs() {
    let mut lab = Lab::with(quiet());
    lab.join(SSM, &[SOURCE]);
    lab.join(SSM_V6, &[SOURCE_V6]);
    for (nonce, flags) in lab.requests() {
        let family = if flags == 2 { Family::V4 } else { Family::V6 };
        let reply = reply_to(family, nonce);
        lab.receive(&reply);
        let datagrams = lab.sent();
        let Repr::Update { packet, nonce: told, .. } = Repr::parse(&datagrams[0]).unwrap() else { panic!("an Update") };
        let received = parse(packet).unwrap();
        let destination = if family == Family::V4 { "224.0.0.22" } else { "ff02::16" };
        assert_eq!((told, received.destination), (nonce, ip(destination)));
        assert_eq!((received.hop_limit, received.router_alert), (1, true));
    }
}

#[test]
fn what_no_tunnel_can_carry_is_refused() {
    let mut lab = Lab::new();
    let mut set = |group: &str, filter| lab.gateway.set_filter(ip(group), filter, lab.now);
    let unfit = |unfit| Err(Refusal::Unfit(unfit));
    assert_eq!(set("224.0.0.251", Filter::everything()), unfit(Unfit::LinkLocal(ip("224.0.0.251"))));
    assert_eq!(set("192.0.2.1", Filter::everything()), unfit(Unfit::NotMulticast(ip("192.0.2.1"))));
    assert_eq!(set(SSM, Filter::everything()), unfit(Unfit::SsmWithoutSource(ip(SSM))));
    assert_eq!(set(SSM, include(&[ASM])), unfit(Unfit::BadSource(ip(ASM))));
    let many = Filter::include((0..2000_u32).map(|low| IpAddr::from((0x0a00_0000 + low).to_be_bytes())));
    assert!(matches!(set(ASM, many), Err(Refusal::Limit(_))));
    assert!(lab.sent().is_empty());
}

#[test]
fn a_relay_that_tells_another_address_is_told_to_tear_the_old_tunnel_down_and_gets_everything_anew() {
    let mut lab = Lab::with(quiet());
    lab.join(SSM, &[SOURCE]);
    let first = lab.answer(1, Some(us(1111)));
    lab.wait(Duration::from_secs(2));
    lab.sent();
    lab.wait(Duration::from_mins(1));
    lab.events.clear();
    lab.answer(2, Some(us(2222)));
    let datagrams = lab.sent();
    let teardown = Repr::Teardown { mac: ResponseMac([1; 6]), nonce: first, gateway: us(1111) }.to_vec();
    assert_eq!(datagrams[0], teardown);
    assert!(matches!(Repr::parse(&datagrams[1]).unwrap(), Repr::Update { mac: ResponseMac([2, ..]), .. }));
    assert_eq!(lab.events[0], Event::AddressChanged { from: us(1111), to: us(2222) });
    lab.wait(SECOND);
    assert!(lab.sent().contains(&teardown), "robustness 2");
    lab.wait(SECOND);
    assert!(!lab.sent().contains(&teardown));
    assert_eq!((lab.gateway.counters().teardowns, lab.gateway.address()), (1, Some(us(2222))));
}

#[test]
fn after_a_change_of_address_the_other_family_gets_a_mac_of_its_own() {
    let mut lab = Lab::with(quiet());
    lab.join(SSM, &[SOURCE]);
    lab.join(SSM_V6, &[SOURCE_V6]);
    let [(igmp, _), (mld, _)] = lab.requests()[..] else { panic!("two Requests") };
    let reply = Reply { gateway: Some(us(1)), ..reply_to(Family::V4, igmp) };
    lab.receive(&reply);
    let reply = Reply { gateway: Some(us(1)), ..reply_to(Family::V6, mld) };
    lab.receive(&reply);
    lab.sent();
    lab.wait(Duration::from_secs(59));
    lab.sent();
    lab.wait(SECOND);
    let [(igmp, _), (mld, _)] = lab.requests()[..] else { panic!("two Requests") };
    let reply = Reply { gateway: Some(us(2)), mac: 2, ..reply_to(Family::V4, igmp) };
    lab.receive(&reply);
    assert!(lab.sent().iter().any(|datagram| datagram[0] == 7));
    assert!(!lab.gateway.is_connected(Family::V6), "the MAC of the old address is worth nothing");
    let reply = Reply { gateway: Some(us(2)), mac: 3, ..reply_to(Family::V6, mld) };
    lab.receive(&reply);
    assert_eq!(lab.records().len(), 1);
}

#[test]
fn an_address_that_stays_and_one_that_is_not_told_are_no_change() {
    let mut lab = Lab::with(quiet());
    lab.join(SSM, &[SOURCE]);
    lab.answer(1, Some(us(1)));
    for gateway in [Some(us(1)), None, Some(us(1))] {
        lab.wait(Duration::from_secs(59));
        lab.sent();
        lab.wait(SECOND);
        lab.answer(2, gateway);
        assert!(lab.sent().iter().all(|datagram| datagram[0] == 5));
    }
}

#[test]
fn without_teardown_a_change_of_address_is_only_reported_anew() {
    let mut lab = Lab::with(Config { teardown: false, ..quiet() });
    lab.join(SSM, &[SOURCE]);
    lab.answer(1, Some(us(1)));
    lab.wait(Duration::from_secs(59));
    lab.sent();
    lab.wait(SECOND);
    lab.answer(2, Some(us(2)));
    assert_eq!(lab.records().len(), 1);
}

#[test]
fn a_gateway_that_shuts_down_tears_down_where_its_address_is_told() {
    let mut lab = Lab::with(quiet());
    lab.join(SSM, &[SOURCE]);
    lab.answer(1, Some(us(1)));
    lab.sent();
    lab.gateway.shut_down(lab.now);
    let first = lab.sent();
    assert!(matches!(first[..], [ref one] if one[0] == 7));
    assert!(!lab.gateway.is_finished());
    lab.wait(SECOND);
    assert_eq!(lab.sent(), first);
    assert!(lab.gateway.is_finished() && lab.gateway.next_timeout().is_none());
    assert!(!lab.data(relay(), SOURCE, SSM));
}

#[test]
fn a_gateway_that_shuts_down_leaves_its_groups_where_no_address_is_told() {
    let mut lab = Lab::joined(quiet());
    lab.gateway.shut_down(lab.now);
    let records = lab.records();
    assert_eq!(kinds(&records), [(1, RecordType::ChangeToInclude)]);
    assert!(records[0].1.sources.is_empty());
    lab.wait(SECOND);
    assert_eq!(lab.records(), records);
    assert!(lab.gateway.is_finished());
}

#[test]
fn a_gateway_that_has_nothing_shuts_down_without_a_word() {
    for discovery_first in [false, true] {
        let mut lab = Lab::at(quiet(), discovery_first);
        lab.gateway.connect(Family::V4, lab.now);
        lab.sent();
        lab.gateway.shut_down(lab.now);
        assert!(lab.sent().is_empty() && lab.gateway.is_finished() && lab.gateway.next_timeout().is_none());
    }
}
