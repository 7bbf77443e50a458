//! What `kubectl get tep` shows, for what an agent says.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::super::identity::Identity;
use super::super::super::registry::Published;
use super::*;

#[test]
fn a_server_that_does_what_is_planned_is_ready() {
    let status = status_of(&server());
    assert_eq!(conditions(&status), [("Connected", "True", "Connected"), ("Ready", "True", "Ready")]);
    assert!(status.active);
    assert_eq!(status.address.as_deref(), Some("192.0.2.1:10000"));
    assert_eq!((status.tunnels, status.channels, status.packets), (5, 1, 70));
    assert_eq!(status.megabits_per_second.as_deref(), Some("12.5"));
    assert_eq!(status.dropped, 7);
    assert_eq!(status.drops, [DropCount { reason: "no_tunnel".to_owned(), count: 7 }]);
    assert_eq!(status.registered.as_deref(), Some("1/2"));
    assert_eq!(status.registrations[1].last_refusal.as_deref(), Some("ACCESS DENIED"));
    assert_eq!((status.version.as_deref(), status.pod.as_deref()), (Some("0.1.0"), Some("ts-edge-abc")));
    assert_eq!(status.snapshot_generation, 9);
    assert_eq!(status.stream, Some(holder()));
}

#[test]
fn each_thing_that_is_missing_has_its_reason() {
    type Spoil = fn(&mut AgentView);
    let cases: [(Spoil, &str, &str); 6] = [
        (|view| view.connected = false, "StreamLost", "stream"),
        (|view| view.published = None, "NotReady", "nothing is planned"),
        (
            |view| {
                view.digest = "old".to_owned();
                view.refusal = Some("server.listen: in use".to_owned());
            },
            "AgentRefused",
            "server.listen: in use",
        ),
        (|view| view.digest = "old".to_owned(), "NotReady", "has not taken its snapshot yet"),
        (|view| view.state = None, "NotReady", "has not reported yet"),
        (|view| view.state = Some(Arc::new(State::default())), "NotReady", "does not listen yet"),
    ];
    for (spoil, reason, message) in cases {
        let mut view = server();
        spoil(&mut view);
        let ready = status_of(&view).conditions.remove(1);
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", reason));
        assert!(ready.message.contains(message), "{}", ready.message);
    }
}

#[test]
fn a_database_tells_what_the_rules_of_its_policies_did() {
    let mut view = server();
    view.identity.role = EndpointRole::Database;
    let row =
        |number: usize| v1::RuleState { policy: "p".to_owned(), rule: format!("r{number}"), clients: 7, answers: 9 };
    view.state = Some(Arc::new(State { rules: (0..1_000).map(row).collect(), ..State::default() }));
    let status = status_of(&view);
    assert_eq!(status.rules.len(), RULES_MAX);
    let first = &status.rules[0];
    assert_eq!((first.policy.as_str(), first.rule.as_str(), first.clients, first.answers), ("p", "r0", 7, 9));
}

#[test]
fn a_database_tells_whose_password_is_being_changed() {
    let mut view = server();
    view.identity.role = EndpointRole::Database;
    let row = |login: &str, since, previous_shown| v1::Rotation { login: login.to_owned(), since, previous_shown };
    let rotations = vec![row("be", 1_000, 1_060), row("nl", 1_000, 0), row("never", u64::MAX, 0)];
    view.state = Some(Arc::new(State { rotations, ..State::default() }));
    let shown: Vec<_> = status_of(&view)
        .rotations
        .into_iter()
        .map(|row| (row.login, row.since.0.as_second(), row.previous_shown.map(|time| time.0.as_second())))
        .collect();
    assert_eq!(shown, [("be".to_owned(), 1_000, Some(1_060)), ("nl".to_owned(), 1_000, None)]);
}

#[test]
fn a_server_that_stands_by_is_ready_and_not_active() {
    let mut view = server();
    view.published.as_mut().unwrap().listens = false;
    view.state = Some(Arc::new(State::default()));
    let status = status_of(&view);
    assert_eq!(conditions(&status)[1], ("Ready", "True", "Ready"));
    assert!(!status.active);
}

#[test]
fn a_lost_stream_keeps_what_was_known() {
    let mut view = server();
    view.connected = false;
    let status = status_of(&view);
    assert_eq!(conditions(&status), [("Connected", "False", "StreamLost"), ("Ready", "False", "StreamLost")]);
    assert_eq!((status.tunnels, status.address.as_deref()), (5, Some("192.0.2.1:10000")));
}

#[test]
fn times_of_conditions_change_with_their_status_only() {
    let early = Timestamp::from_second(100).unwrap();
    let late = Timestamp::from_second(200).unwrap();
    let times = |status: &TunnelEndpointStatus| -> Vec<i64> {
        status.conditions.iter().map(|condition| condition.last_transition_time.0.as_second()).collect()
    };
    let mut view = server();
    view.state = None;
    let first = desired(&view, &TunnelEndpointStatus::default(), holder(), early, false);
    assert_eq!(times(&first), [100, 100]);
    // Not ready for another reason: the same condition, the same time.
    view.digest = "old".to_owned();
    let second = desired(&view, &first, holder(), late, false);
    assert_eq!(times(&second), [100, 100]);
    assert_ne!(first.conditions[1].message, second.conditions[1].message);
    // Ready now.
    let third = desired(&server(), &second, holder(), late, false);
    assert_eq!(times(&third), [100, 200]);
}

#[test]
fn a_new_stream_that_has_not_reported_keeps_the_numbers_of_the_old_one() {
    let written = status_of(&server());
    let mut view = server();
    view.state = None;
    let next = desired(&view, &written, StreamHolder { epoch: 4, ..holder() }, Timestamp::UNIX_EPOCH, false);
    assert_eq!((next.tunnels, &next.registrations), (5, &written.registrations));
    assert_eq!(next.stream.unwrap().epoch, 4);
}

#[test]
fn an_agent_that_was_ready_stays_so_while_it_settles_unless_it_refuses_or_is_lost() {
    let written = status_of(&server());
    let settling = |view: &AgentView| {
        let status = desired(view, &written, holder(), Timestamp::UNIX_EPOCH, true);
        (status.conditions[1].status.clone(), status.conditions[1].reason.clone())
    };
    let mut view = server();
    view.digest = "old".to_owned();
    assert_eq!(settling(&view), ("True".to_owned(), "Ready".to_owned()));
    view.refusal = Some("no".to_owned());
    assert_eq!(settling(&view), ("False".to_owned(), "AgentRefused".to_owned()));
    view.connected = false;
    assert_eq!(settling(&view), ("False".to_owned(), "StreamLost".to_owned()));
    // One that was not ready does not become so by waiting.
    let mut view = server();
    view.digest = "old".to_owned();
    let fresh = desired(&view, &TunnelEndpointStatus::default(), holder(), Timestamp::UNIX_EPOCH, true);
    assert_eq!(fresh.conditions[1].status, "False");
}

#[test]
fn an_adapter_counts_all_registrations_and_lists_those_that_do_not_stand() {
    let mut view = server();
    view.identity.role = EndpointRole::Adapter;
    view.published.as_mut().unwrap().listens = false;
    let client = |number: usize| v1::ClientState {
        agent: format!("isp/ts-edge@n{number}"),
        connected: true,
        registrations: vec![
            registration("registered", ""),
            registration(if number < 80 { "trying" } else { "registered" }, "no answer"),
        ],
    };
    view.state = Some(Arc::new(State { clients: (0..100).map(client).collect(), ..State::default() }));
    let status = status_of(&view);
    assert_eq!(status.registered.as_deref(), Some("120/200"));
    assert_eq!(status.registrations.len(), REGISTRATIONS_MAX);
    assert_eq!(status.registrations[0].agent.as_deref(), Some("isp/ts-edge@n0"));
    assert!(status.registrations.iter().all(|registration| registration.state == "trying"));
    assert!(status.active && status.megabits_per_second.is_none());
}

#[test]
fn an_amt_relay_and_the_servers_above_are_shown_and_bounded() {
    let mut view = server();
    view.identity.role = EndpointRole::Relay;
    let above = |server: &str, state: &str, last_failure: &str| v1::Upstream {
        server: server.to_owned(),
        protocol: "AMT".to_owned(),
        state: state.to_owned(),
        channels: 3,
        last_failure: last_failure.to_owned(),
    };
    let amt = v1::Amt { listen: vec!["192.0.2.1:2268".to_owned()], endpoints: 7, groups: 2, anycast: Vec::new() };
    let report = |upstreams: Vec<v1::Upstream>| State {
        amt: Some(amt.clone()),
        upstreams,
        ..view.state.as_deref().cloned().unwrap_or_default()
    };
    let shown = |upstreams: Vec<v1::Upstream>| {
        let mut view = view.clone();
        view.state = Some(Arc::new(report(upstreams)));
        status_of(&view)
    };
    let status = shown(vec![above("192.0.2.7:2268", "held", "silent"), above("192.0.2.8:2268", "connected", "")]);
    assert_eq!(status.amt.as_ref().map(|amt| (amt.endpoints, amt.groups)), Some((7, 2)));
    assert_eq!(status.amt.as_ref().unwrap().addresses, ["192.0.2.1:2268"]);
    assert_eq!(status.upstream.as_deref(), Some("192.0.2.8:2268"));
    assert_eq!(status.upstreams[0].last_failure.as_deref(), Some("silent"));
    assert!(status.megabits_per_second.is_some(), "it carries packets as a server does");
    let many: Vec<_> = (0..100).map(|_| above("192.0.2.8:2268", "connected", "")).collect();
    let status = shown(many);
    assert_eq!((status.upstream.as_deref(), status.upstreams.len()), (Some("192.0.2.8:2268 +99"), UPSTREAMS_MAX));
    assert_eq!(shown(vec![above("", "searching", "")]).upstream.as_deref(), Some("searching"));
    assert_eq!(shown(Vec::new()).upstream, None);
}

#[test]
fn rates_are_rounded_to_tenths() {
    for (bits, shown) in [(0, "0.0"), (49_999, "0.0"), (50_000, "0.1"), (8_049_999, "8.0"), (123_456_789, "123.5")] {
        assert_eq!(megabits(bits), shown);
    }
    assert_eq!(megabits(u64::MAX), "18446744073709.6");
}

#[test]
fn an_agent_cannot_make_an_object_that_no_api_server_takes() {
    let mut view = server();
    view.refusal = Some("x".repeat(1 << 20));
    view.digest = "old".to_owned();
    let drops = (0..100_000).map(|number| (format!("{number}"), u64::MAX)).collect();
    let registrations = vec![registration("trying", &"y".repeat(1 << 20)); 1000];
    let long = "z".repeat(1 << 20);
    let upstream = v1::Upstream { server: long.clone(), last_failure: long.clone(), ..v1::Upstream::default() };
    let amt = Some(v1::Amt { listen: vec![long.clone(); 1000], anycast: vec![long; 1000], ..v1::Amt::default() });
    let upstreams = vec![upstream; 1000];
    view.state = Some(Arc::new(State { drops, registrations, tunnels: u64::MAX, amt, upstreams, ..State::default() }));
    let status = status_of(&view);
    assert_eq!((status.tunnels, status.dropped), (i64::MAX, i64::MAX));
    let octets = serde_json::to_string(&status).unwrap().len();
    assert!(octets < 256 * 1024, "{octets}");
}

fn status_of(view: &AgentView) -> TunnelEndpointStatus {
    desired(view, &TunnelEndpointStatus::default(), holder(), Timestamp::UNIX_EPOCH, false)
}

fn conditions(status: &TunnelEndpointStatus) -> Vec<(&str, &str, &str)> {
    status
        .conditions
        .iter()
        .map(|condition| (condition.type_.as_str(), condition.status.as_str(), condition.reason.as_str()))
        .collect()
}

fn holder() -> StreamHolder {
    StreamHolder { replica: "operator-a".to_owned(), epoch: 3 }
}

/// A server with everything as it should be.
fn server() -> AgentView {
    let channel =
        |tunnels, bits_per_second| v1::Channel { tunnels, packets: 35, bits_per_second, ..v1::Channel::default() };
    let state = State {
        generation: 9,
        listen: "192.0.2.1:10000".to_owned(),
        tunnels: 5,
        channels: vec![channel(5, 12_345_678), channel(0, 204_321)],
        drops: [("no_tunnel".to_owned(), 7), ("other".to_owned(), 0)].into(),
        registrations: vec![registration("registered", ""), registration("refused", "ACCESS DENIED")],
        ..State::default()
    };
    AgentView {
        agent: "isp/ts-edge@node-1".to_owned(),
        identity: Identity {
            namespace: "isp".to_owned(),
            role: EndpointRole::Server,
            owner: "edge".to_owned(),
            node: "node-1".to_owned(),
            pod: "ts-edge-abc".to_owned(),
        },
        stream: 1,
        connected: true,
        since: Instant::now(),
        lost_at: None,
        version: "0.1.0".to_owned(),
        generation: 9,
        digest: "new".to_owned(),
        refusal: None,
        state: Some(Arc::new(state)),
        published: Some(Published { generation: 9, digest: "new".to_owned(), since: Instant::now(), listens: true }),
    }
}

fn registration(state: &str, last_refusal: &str) -> v1::Registration {
    v1::Registration {
        parent: "http://root:5632".to_owned(),
        entry: "TS 192.0.2.1:10000 UDP".to_owned(),
        state: state.to_owned(),
        last_refusal: last_refusal.to_owned(),
    }
}
