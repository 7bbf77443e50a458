//! Updates: MACs, what is inside of them, rules.

use super::*;

#[test]
fn an_update_counts_only_with_the_mac_of_its_address_port_nonce_and_relay() {
    let mut lab = Lab::new();
    let got = lab.ask(gateway(1));
    let join = allow(SSM, &[SOURCE]);
    lab.update_with(gateway(2), &got, &join);
    lab.update_with(SocketAddr::new(gateway(1).ip(), 40_001), &got, &join);
    lab.update_with(gateway(1), &Got { nonce: Nonce(got.nonce.0 + 1), ..got.clone() }, &join);
    lab.update_with(gateway(1), &Got { mac: ResponseMac([0; 6]), ..got.clone() }, &join);
    let packet = emit(&join, ip("0.0.0.0")).remove(0);
    let update = Repr::Update { mac: got.mac, nonce: got.nonce, packet: &packet }.to_vec();
    lab.relay.handle_datagram(lab.now, "198.51.100.2:2268".parse().unwrap(), gateway(1), &update);
    assert_eq!((lab.dropped(Reason::WrongMac), lab.relay.endpoints().len()), (5, 0));
    assert!(lab.outputs().is_empty(), "and nobody is told");
    lab.update_with(gateway(1), &got, &join);
    assert_eq!(lab.relay.endpoints().len(), 1);
}

#[test]
fn a_mac_outlives_the_change_of_secrets_by_two_query_intervals() {
    let mut lab = Lab::new();
    lab.wait(Duration::from_secs(3599));
    let got = lab.ask(gateway(1));
    lab.wait(Duration::from_secs(1));
    let after = lab.ask(gateway(2));
    lab.wait(Duration::from_millis(249_999));
    lab.update_with(gateway(1), &got, &allow(SSM, &[SOURCE]));
    assert_eq!(lab.relay.endpoints().len(), 1);
    lab.wait(Duration::from_millis(1));
    lab.update_with(gateway(1), &got, &allow(SSM, &[SOURCE]));
    assert_eq!(lab.dropped(Reason::WrongMac), 1);
    lab.update_with(gateway(2), &after, &allow(SSM, &[SOURCE]));
    assert_eq!(lab.relay.endpoints().len(), 2);
}

#[test]
fn an_update_may_use_one_mac_for_both_families() {
    let mut lab = Lab::new();
    let got = lab.ask(gateway(1));
    lab.update_with(gateway(1), &got, &allow(SSM, &[SOURCE]));
    lab.update_with(gateway(1), &got, &allow(SSM_V6, &[SOURCE_V6]));
    assert_eq!(lab.groups(gateway(1)).len(), 2);
}

#[test]
fn reports_are_taken_from_any_source_address_and_with_octets_behind_them() {
    let mut lab = Lab::new();
    let got = lab.ask(gateway(1));
    for (number, (message, source)) in [
        (allow("232.1.2.3", &[SOURCE]), "0.0.0.0"),
        (allow("232.1.2.4", &[SOURCE]), "10.0.0.99"),
        (allow("ff3e::1", &[SOURCE_V6]), "::"),
        (allow("ff3e::2", &[SOURCE_V6]), "2001:db8::77"),
        (allow("ff3e::3", &[SOURCE_V6]), "fe80::99"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut packet = emit(&message, ip(source)).remove(0);
        packet.extend([0xff; 9]);
        lab.receive(gateway(1), &Repr::Update { mac: got.mac, nonce: got.nonce, packet: &packet });
        assert_eq!(lab.groups(gateway(1)).len(), number + 1, "{source}");
    }
}

#[test]
fn what_is_no_report_changes_nothing() {
    let mut lab = Lab::new();
    let got = lab.ask(gateway(1));
    let report = emit(&allow(SSM, &[SOURCE]), ip("0.0.0.0")).remove(0);
    let mut others = vec![lab.relay.queries.igmp.clone(), lab.relay.queries.mld.clone(), vec![], b"hello".to_vec()];
    others.extend(emit(&Message::OldReport { version: 1, group: ip(ASM) }, ip("0.0.0.0")));
    for place in 0..report.len() {
        others.push(report[..place].to_vec());
        let mut damaged = report.clone();
        damaged[place] ^= 0x20;
        others.push(damaged);
    }
    for packet in &others {
        lab.receive(gateway(1), &Repr::Update { mac: got.mac, nonce: got.nonce, packet });
        assert_eq!(lab.relay.endpoints().len(), 0, "{packet:02x?}");
    }
    assert_eq!(lab.dropped(Reason::NotReport), others.len() as u64);
    lab.receive(gateway(1), &Repr::Update { mac: got.mac, nonce: got.nonce, packet: &report });
    assert_eq!(lab.relay.endpoints().len(), 1);
}

#[test]
fn all_record_types_and_older_versions_make_the_state_of_the_rfc() {
    let mut lab = Lab::new();
    let [a, b, c] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
    let exclude = |sources: &[&str]| Filter::exclude(sources.iter().map(|source| ip(source)));
    let steps = [
        (RecordType::ModeIsInclude, vec![a], Some(include(&[a]))),
        (RecordType::AllowNewSources, vec![b], Some(include(&[a, b]))),
        (RecordType::BlockOldSources, vec![a], Some(include(&[b]))),
        (RecordType::ChangeToExclude, vec![c], Some(exclude(&[c]))),
        (RecordType::AllowNewSources, vec![c], Some(exclude(&[]))),
        (RecordType::BlockOldSources, vec![a], Some(exclude(&[a]))),
        (RecordType::ModeIsExclude, vec![a, b], Some(exclude(&[a]))),
        (RecordType::ChangeToInclude, vec![b], Some(include(&[b]))),
        (RecordType::ChangeToInclude, vec![], None),
        (RecordType::Unknown(9), vec![a], None),
    ];
    for (kind, sources, expected) in steps {
        lab.report(gateway(1), &Message::Report(vec![record(kind, ASM, &sources)]));
        let filter = lab.groups(gateway(1)).pop().map(|(_, filter)| filter);
        // What was asked for again within an EXCLUDE is forwarded until it is blocked.
        assert_eq!(filter, expected, "{kind:?} {sources:?}");
    }
    for (group, version) in [(ASM, 2), ("ff0e::1", 1)] {
        lab.report(gateway(1), &Message::OldReport { version, group: ip(group) });
        assert_eq!(lab.groups(gateway(1)), [(ip(group), Filter::everything())]);
        lab.report(gateway(1), &Message::OldLeave { group: ip(group) });
        assert_eq!(lab.groups(gateway(1)), []);
    }
}

#[test]
fn unfit_groups_and_sources_are_refused_by_reason() {
    let mut lab = Lab::new();
    for (message, reason) in [
        (allow("224.0.0.251", &[SOURCE]), Reason::UnfitGroup),
        (allow("192.0.2.1", &[SOURCE]), Reason::UnfitGroup),
        (allow("ff02::fb", &[SOURCE_V6]), Reason::UnfitGroup),
        (Message::OldReport { version: 2, group: ip("224.0.0.251") }, Reason::UnfitGroup),
        (allow(SSM, &["255.255.255.255"]), Reason::UnfitSource),
        (allow(SSM_V6, &["ff0e::1"]), Reason::UnfitSource),
        (Message::OldReport { version: 2, group: ip(SSM) }, Reason::SsmWithoutSource),
        (Message::OldReport { version: 1, group: ip(SSM_V6) }, Reason::SsmWithoutSource),
        (Message::Report(vec![record(RecordType::ModeIsExclude, SSM, &[])]), Reason::SsmWithoutSource),
        (Message::Report(vec![record(RecordType::ChangeToExclude, SSM_V6, &[])]), Reason::SsmWithoutSource),
    ] {
        let before = lab.dropped(reason);
        lab.report(gateway(1), &message);
        assert_eq!((lab.dropped(reason), lab.relay.endpoints().len()), (before + 1, 0), "{message:?}");
    }
}

#[test]
fn an_older_leave_does_not_end_a_source_specific_group() {
    let mut lab = Lab::new();
    lab.join(gateway(1));
    lab.report(gateway(1), &Message::OldLeave { group: ip(SSM) });
    assert_eq!(lab.groups(gateway(1)).len(), 1);
}

#[test]
fn of_a_report_the_permitted_part_is_obeyed() {
    let mut lab = Lab::new();
    let within = Sources::Within("192.0.2.0/28".parse().unwrap());
    let permit = |groups: &str, sources| Permit { groups: groups.parse().unwrap(), sources };
    let rules =
        vec![permit("232.0.0.0/8", within), permit("239.1.0.0/16", Sources::Any), permit("239.2.0.0/16", within)];
    lab.relay.set_permissions(Permissions(rules), lab.now);
    let report = Message::Report(vec![
        record(RecordType::AllowNewSources, SSM, &[SOURCE, "192.0.2.99"]),
        record(RecordType::AllowNewSources, "233.1.1.1", &[SOURCE]),
        record(RecordType::ModeIsExclude, "239.1.1.1", &[SOURCE]),
        record(RecordType::ModeIsExclude, "239.2.1.1", &[SOURCE]),
    ]);
    lab.report(gateway(1), &report);
    let expected = [(ip(SSM), include(&[SOURCE])), (ip("239.1.1.1"), Filter::exclude([ip(SOURCE)]))];
    assert_eq!(lab.groups(gateway(1)), expected);
    assert_eq!(lab.dropped(Reason::NotPermitted), 3);
}

#[test]
fn rules_that_change_withdraw_what_they_no_longer_permit() {
    let mut lab = Lab::new();
    lab.report(gateway(1), &allow(SSM, &[SOURCE, "192.0.2.99"]));
    lab.report(gateway(1), &Message::OldReport { version: 2, group: ip(ASM) });
    lab.report(gateway(2), &Message::OldReport { version: 2, group: ip(ASM) });
    lab.outputs();
    let permit = |groups: &str, net: &str| Permit {
        groups: groups.parse().unwrap(),
        sources: Sources::Within(net.parse().unwrap()),
    };
    let permissions = Permissions(vec![permit("224.0.0.0/4", "192.0.2.0/28")]);
    lab.relay.set_permissions(permissions.clone(), lab.now);
    let (remote, group) = (gateway(1), ip(SSM));
    let outputs = lab.outputs();
    assert!(outputs.contains(&Output::Filter { remote, group, filter: Some(include(&[SOURCE])) }));
    assert!(outputs.contains(&Output::Upstream { group: ip(ASM), filter: None }));
    assert!(outputs.contains(&Output::EndpointDown { remote: gateway(2), reason: DownReason::NotPermitted }));
    assert_eq!(lab.groups(gateway(1)), [(group, include(&[SOURCE]))]);
    lab.relay.set_permissions(permissions, lab.now);
    assert!(lab.outputs().is_empty(), "what stays the same is not said again");
}
