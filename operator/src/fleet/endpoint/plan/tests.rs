//! How often an endpoint is written, with a clock that the test turns.

use std::sync::Arc;

use castgate_crds::tunnel_endpoint::{EndpointRole, TunnelEndpointSpec};
use castgate_rpc::v1::{Registration, State};

use super::super::super::identity::Identity;
use super::super::super::registry::Published;
use super::*;

const PACE: Pace = Pace {
    matter: Duration::from_secs(2),
    counters: Duration::from_secs(15),
    first_report: Duration::from_secs(3),
    settle: Duration::ZERO,
    per_second: 20.0,
    burst: 40.0,
};

#[test]
fn what_stands_there_already_is_not_written() {
    let desk = Desk::written(0);
    for second in [1, 60, 3600] {
        assert_eq!(desk.due(second), None);
    }
}

#[test]
fn the_first_change_that_matters_is_written_at_once_and_the_next_after_two_seconds() {
    let mut desk = Desk::written(0);
    desk.state(|state| state.listen = "192.0.2.1:10001".to_owned());
    assert_eq!(desk.due(10), Some(10));
    desk.write(10);
    assert_eq!(desk.due(10), None);
    desk.state(|state| state.registrations = vec![Registration::default()]);
    assert_eq!(desk.due(11), Some(12));
    assert_eq!(desk.due(30), Some(30));
}

#[test]
fn each_of_these_matters() {
    let cases: [fn(&mut AgentView); 5] = [
        |view| view.version = "0.2.0".to_owned(),
        |view| view.generation = 99,
        |view| (view.digest, view.refusal) = ("old".to_owned(), Some("no".to_owned())),
        |view| view.published = None,
        |view| view.identity.pod = "another".to_owned(),
    ];
    for change in cases {
        let mut desk = Desk::written(0);
        change(&mut desk.view);
        assert_eq!(desk.due(1), Some(2));
    }
}

#[test]
fn mere_counters_wait_for_fifteen_seconds() {
    let cases: [fn(&mut State); 4] = [
        |state| state.tunnels = 9,
        |state| state.entries = 9,
        |state| state.drops = [("no_tunnel".to_owned(), 9)].into(),
        |state| state.channels = vec![castgate_rpc::v1::Channel { packets: 9, ..Default::default() }],
    ];
    for change in cases {
        let mut desk = Desk::written(0);
        desk.state(change);
        assert_eq!(desk.due(1), Some(15));
        assert_eq!(desk.due(20), Some(20));
    }
}

#[test]
fn a_lost_stream_is_written_at_once_and_once() {
    let mut desk = Desk::written(0);
    desk.view.connected = false;
    assert_eq!(desk.due(0), Some(0));
    desk.write(0);
    desk.memory.finish(1);
    assert_eq!(desk.due(1), None);
}

#[test]
fn a_stream_that_was_never_claimed_is_not_told_of_when_it_is_lost() {
    let mut desk = Desk::new();
    desk.view.connected = false;
    assert_eq!(desk.due(0), None);
}

#[test]
fn a_new_stream_is_written_with_its_first_report_or_after_three_seconds() {
    let mut desk = Desk::new();
    assert_eq!(desk.due(0), Some(0), "it has reported");
    desk.view.state = None;
    assert_eq!(desk.due(1), Some(3));
    assert_eq!(desk.due(7), Some(7));
}

#[test]
fn a_stream_that_comes_and_goes_is_claimed_every_two_seconds_at_most() {
    let mut desk = Desk::written(10);
    desk.view.stream = 2;
    desk.memory.follow(&desk.view);
    assert!(desk.memory.claim.is_none(), "the epoch of the stream before is of no use");
    assert_eq!(desk.due(11), Some(12));
}

#[test]
fn nothing_is_tried_before_its_time_after_a_failure() {
    let mut desk = Desk::written(0);
    desk.memory.retry_at = Some(desk.at(40));
    desk.view.connected = false;
    assert_eq!(desk.due(20), Some(40));
}

#[test]
fn a_fenced_stream_is_silent_until_it_looks_again() {
    let mut desk = Desk::written(0);
    desk.memory.fence(1, desk.at(15));
    desk.state(|state| state.listen = String::new());
    assert_eq!(desk.due(1), Some(15));
    desk.view.connected = false;
    assert_eq!(desk.due(1), None, "the end of an old stream is nobody's business");
}

#[test]
fn news_of_a_stream_that_was_replaced_meanwhile_changes_nothing() {
    let mut desk = Desk::written(0);
    let claim = desk.memory.claim.take().unwrap();
    desk.memory.wrote(7, claim.clone(), true, desk.at(1));
    assert!(desk.memory.claim.is_none());
    desk.memory.saw(7, claim, false);
    desk.memory.finish(7);
    desk.memory.fence(7, desk.at(1));
    assert!(!desk.memory.finished && !desk.memory.fenced);
}

#[test]
fn the_bucket_gives_forty_at_once_and_twenty_a_second() {
    let start = Instant::now();
    let mut bucket = Bucket::full(start, &PACE);
    let mut now = start;
    let mut at = Vec::new();
    for _ in 0..240 {
        now = bucket.ready_at(now);
        bucket.take(now, &PACE);
        at.push(now - start);
    }
    assert!(at[39] < Duration::from_millis(100), "{:?}", at[39]);
    assert!(at[239] >= Duration::from_millis(9800) && at[239] < Duration::from_millis(10_500), "{:?}", at[239]);
    // It never holds more than its burst, however long nobody asks.
    let later = now + Duration::from_hours(1);
    for _ in 0..40 {
        bucket.take(later, &PACE);
    }
    assert!(bucket.ready_at(later) >= later + Duration::from_millis(50));
}

/// One agent, its memory, and a clock.
struct Desk {
    start: Instant,
    memory: Memory,
    view: AgentView,
}

impl Desk {
    fn new() -> Self {
        let start = Instant::now();
        let view = AgentView {
            agent: "isp/ts-edge@n1".to_owned(),
            identity: Identity {
                namespace: "isp".to_owned(),
                role: EndpointRole::Server,
                owner: "edge".to_owned(),
                node: "n1".to_owned(),
                pod: "ts-edge-abc".to_owned(),
            },
            stream: 1,
            connected: true,
            since: start,
            lost_at: None,
            version: "0.1.0".to_owned(),
            generation: 1,
            digest: "new".to_owned(),
            refusal: None,
            state: Some(Arc::new(State { listen: "192.0.2.1:10000".to_owned(), ..State::default() })),
            published: Some(Published { generation: 1, digest: "new".to_owned(), since: start, listens: true }),
        };
        let mut memory = Memory::default();
        memory.follow(&view);
        Self { start, memory, view }
    }

    /// One whose endpoint was written at this second.
    fn written(second: u64) -> Self {
        let mut desk = Self::new();
        desk.write(second);
        desk
    }

    fn write(&mut self, second: u64) {
        let spec =
            TunnelEndpointSpec { role: EndpointRole::Server, owner_name: "edge".to_owned(), node: "n1".to_owned() };
        let before = self.memory.claim.as_ref().and_then(|claim| claim.object.status.clone()).unwrap_or_default();
        let holder = StreamHolder { replica: "a".to_owned(), epoch: 1 };
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut object = TunnelEndpoint::new("ts-edge-n1", spec);
        object.status = Some(desired(&self.view, &before, holder, now, false));
        object.metadata.resource_version = Some("1".to_owned());
        self.memory.wrote(1, Claim { epoch: 1, object }, true, self.at(second));
    }

    fn state(&mut self, change: impl FnOnce(&mut State)) {
        change(Arc::make_mut(self.view.state.as_mut().unwrap()));
    }

    fn at(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }

    /// The second at which it is due, as seen at this second.
    fn due(&self, second: u64) -> Option<u64> {
        plan_write(&self.memory, self.at(second), &self.view, &PACE).map(|due| (due - self.start).as_secs())
    }
}
