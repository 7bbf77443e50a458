//! Endpoints: what makes one, what it is told by, what ends it.

use super::*;

#[test]
fn nothing_is_kept_before_a_valid_update_with_a_group() {
    let mut lab = Lab::new();
    let got = lab.ask(gateway(1));
    for message in [
        Message::Report(vec![]),
        Message::Report(vec![record(RecordType::BlockOldSources, SSM, &[SOURCE])]),
        Message::Report(vec![record(RecordType::ChangeToInclude, ASM, &[])]),
        Message::OldLeave { group: ip(ASM) },
    ] {
        lab.update_with(gateway(1), &got, &message);
        assert_eq!((lab.relay.endpoints().len(), lab.relay.next_timeout()), (0, None), "{message:?}");
        assert!(lab.outputs().is_empty());
    }
    lab.update_with(gateway(1), &got, &allow(SSM, &[SOURCE]));
    assert_eq!(lab.relay.endpoints().len(), 1);
}

#[test]
fn an_endpoint_comes_up_before_its_filter_and_goes_down_after_it() {
    let mut lab = Lab::new();
    let got = lab.ask(gateway(1));
    lab.update_with(gateway(1), &got, &allow(SSM, &[SOURCE]));
    let (remote, group) = (gateway(1), ip(SSM));
    let endpoint = Endpoint { local: local(), remote, ecn: false };
    assert_eq!(
        lab.outputs(),
        [
            Output::EndpointUp { endpoint },
            Output::Filter { remote, group, filter: Some(include(&[SOURCE])) },
            Output::Upstream { group, filter: Some(include(&[SOURCE])) },
        ]
    );
    lab.update_with(gateway(1), &got, &allow(SSM, &[SOURCE]));
    assert!(lab.outputs().is_empty(), "what stays the same is not said again");
    let block = Message::Report(vec![record(RecordType::BlockOldSources, SSM, &[SOURCE])]);
    lab.update_with(gateway(1), &got, &block);
    assert_eq!(
        lab.outputs(),
        [
            Output::Filter { remote, group, filter: None },
            Output::Upstream { group, filter: None },
            Output::EndpointDown { remote, reason: DownReason::Left },
        ]
    );
    assert_eq!(lab.relay.next_timeout(), None, "no timer is left behind");
}

#[test]
fn upstream_is_the_merged_filter_and_said_only_when_it_changes() {
    let mut lab = Lab::new();
    lab.join(gateway(1));
    lab.outputs();
    let upstream = |outputs: Vec<Output>| -> Vec<Option<Filter>> {
        let changes = outputs.into_iter().filter_map(|output| match output {
            Output::Upstream { filter, .. } => Some(filter),
            _ => None,
        });
        changes.collect()
    };
    lab.join(gateway(2));
    assert_eq!(upstream(lab.outputs()), []);
    let got = lab.ask(gateway(3));
    lab.update_with(gateway(3), &got, &allow(SSM, &["192.0.2.11"]));
    assert_eq!(upstream(lab.outputs()), [Some(include(&[SOURCE, "192.0.2.11"]))]);
    lab.relay.remove(gateway(3));
    assert_eq!(upstream(lab.outputs()), [Some(include(&[SOURCE]))]);
    lab.relay.remove(gateway(1));
    assert_eq!(upstream(lab.outputs()), []);
    lab.relay.remove_all();
    assert_eq!(upstream(lab.outputs()), [None]);
}

#[test]
fn an_endpoint_ends_260_seconds_after_its_last_update() {
    let mut lab = Lab::new();
    lab.join(gateway(1));
    assert_eq!(lab.relay.next_timeout(), Some(lab.start + Duration::from_secs(260)));
    lab.wait(Duration::from_secs(259));
    lab.ask(gateway(1));
    lab.wait(Duration::from_millis(999));
    assert_eq!(lab.relay.endpoints().len(), 1);
    lab.wait(Duration::from_millis(1));
    let down = Output::EndpointDown { remote: gateway(1), reason: DownReason::Expired };
    assert_eq!(lab.outputs().last(), Some(&down), "a Request alone refreshes nothing");
    assert_eq!((lab.relay.counters().expiries, lab.relay.next_timeout()), (1, None));
}

#[test]
fn every_update_restarts_the_timer_and_a_group_that_is_not_reported_ends_alone() {
    let mut lab = Lab::new();
    lab.join(gateway(1));
    lab.report(gateway(1), &allow("232.1.2.4", &[SOURCE]));
    for _ in 0..5 {
        lab.wait(Duration::from_secs(100));
        lab.join(gateway(1));
    }
    assert_eq!(lab.groups(gateway(1)), [(ip(SSM), include(&[SOURCE]))]);
    lab.wait(Duration::from_secs(260));
    assert_eq!(lab.relay.endpoints().len(), 0);
}

#[test]
fn the_timer_follows_the_configuration() {
    let config = Config {
        query_interval: Duration::from_secs(4),
        query_response_interval: Duration::from_secs(10),
        ..Config::default()
    };
    let mut lab = Lab::with(config);
    lab.join(gateway(1));
    lab.wait(Duration::from_secs(18) - Duration::from_nanos(1));
    assert_eq!(lab.relay.endpoints().len(), 1);
    lab.wait(Duration::from_nanos(1));
    assert_eq!(lab.relay.endpoints().len(), 0);
}

#[test]
fn a_longer_query_interval_holds_for_endpoints_that_are_there() {
    let mut lab = Lab::new();
    lab.join(gateway(1));
    lab.relay.set_config(Config { query_interval: Duration::from_mins(10), ..Config::default() });
    lab.join(gateway(1));
    lab.wait(Duration::from_secs(1209));
    assert_eq!(lab.relay.endpoints().len(), 1);
    lab.wait(Duration::from_secs(1));
    assert_eq!(lab.relay.endpoints().len(), 0);
}

#[test]
fn the_e_flag_of_the_request_is_kept_with_the_endpoint_and_may_change() {
    let mut lab = Lab::new();
    let got = lab.request(gateway(1), RequestFlags::ECN, Nonce(1)).unwrap();
    lab.update_with(gateway(1), &got, &allow(SSM, &[SOURCE]));
    let endpoint = Endpoint { local: local(), remote: gateway(1), ecn: true };
    assert_eq!(lab.outputs().first(), Some(&Output::EndpointUp { endpoint }));
    let got = lab.request(gateway(1), RequestFlags::IGMP, Nonce(2)).unwrap();
    lab.update_with(gateway(1), &got, &allow(SSM, &[SOURCE]));
    let endpoint = Endpoint { ecn: false, ..endpoint };
    assert_eq!(lab.outputs(), [Output::EndpointUp { endpoint }]);
    lab.relay.set_config(Config { ecn: false, ..Config::default() });
    let got = lab.request(gateway(1), RequestFlags::ECN, Nonce(3)).unwrap();
    lab.update_with(gateway(1), &got, &allow(SSM, &[SOURCE]));
    assert!(lab.outputs().is_empty(), "switched off, the flag is not heeded");
}

#[test]
fn an_endpoint_that_turns_to_another_address_of_ours_is_served_from_there() {
    let mut lab = Lab::new();
    lab.join(gateway(1));
    lab.outputs();
    let other: SocketAddr = "198.51.100.2:2268".parse().unwrap();
    let request = Repr::Request { nonce: Nonce(9), flags: RequestFlags::IGMP }.to_vec();
    lab.relay.handle_datagram(lab.now, other, gateway(1), &request);
    let Some(Output::Transmit { local: source, datagram, .. }) = lab.outputs().pop() else { panic!("an answer") };
    assert_eq!(source, other);
    let Repr::Query { mac, nonce, .. } = Repr::parse(&datagram).unwrap() else { panic!("a query") };
    let packet = emit(&allow(SSM, &[SOURCE]), ip("0.0.0.0")).remove(0);
    let update = Repr::Update { mac, nonce, packet: &packet }.to_vec();
    lab.relay.handle_datagram(lab.now, other, gateway(1), &update);
    let endpoint = Endpoint { local: other, remote: gateway(1), ecn: false };
    assert_eq!(lab.outputs(), [Output::EndpointUp { endpoint }]);
}

#[test]
fn a_series_of_unreachables_without_an_update_ends_the_tunnel() {
    let mut lab = Lab::new();
    lab.join(gateway(1));
    for _ in 0..9 {
        lab.relay.handle_unreachable(gateway(1));
    }
    lab.join(gateway(1));
    for _ in 0..9 {
        lab.relay.handle_unreachable(gateway(1));
    }
    assert_eq!(lab.relay.endpoints().len(), 1);
    lab.relay.handle_unreachable(gateway(1));
    let down = Output::EndpointDown { remote: gateway(1), reason: DownReason::Unreachable };
    assert_eq!(lab.outputs().last(), Some(&down));
    lab.relay.set_config(Config { unreachables_max: None, ..Config::default() });
    lab.join(gateway(1));
    (0..1000).for_each(|_| lab.relay.handle_unreachable(gateway(1)));
    assert_eq!(lab.relay.endpoints().len(), 1);
}

#[test]
fn a_new_configuration_ends_no_endpoint() {
    let mut lab = Lab::new();
    lab.join(gateway(1));
    lab.outputs();
    lab.relay.set_config(Config { endpoints_max: 0, groups_max: 0, ..Config::default() });
    lab.join(gateway(1));
    assert_eq!(lab.relay.endpoints().len(), 1);
}

#[test]
fn removing_everything_leaves_nothing() {
    let mut lab = Lab::new();
    (1..=3).for_each(|number| lab.join(gateway(number)));
    lab.outputs();
    lab.relay.remove_all();
    let down: BTreeSet<SocketAddr> = lab
        .outputs()
        .into_iter()
        .filter_map(|output| match output {
            Output::EndpointDown { remote, reason: DownReason::Requested } => Some(remote),
            _ => None,
        })
        .collect();
    assert_eq!(down, BTreeSet::from([1, 2, 3].map(gateway)));
    assert_eq!((lab.relay.endpoints().len(), lab.relay.upstream().count(), lab.relay.next_timeout()), (0, 0, None));
}
