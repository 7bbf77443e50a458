//! What is sent to whom and when, without any network.

use super::super::fixtures::{identity, snapshot};
use super::*;

#[test]
fn an_agent_gets_its_own_snapshot_and_only_when_it_differs() {
    let fleet = fleet(10);
    fleet.publish([snapshot("n1", 1), snapshot("n2", 1)].into());
    let mut stream = fleet.open(identity("n1"), &Hello::default()).unwrap();
    let first = latest(&mut stream).expect("it is planned");
    assert_eq!(AgentSnapshot::from_yaml(&first.document).unwrap().agent, "isp/ts-edge@n1");
    assert_eq!(first.digest, AgentSnapshot::from_yaml(&first.document).unwrap().digest(), "the agent names the same");

    fleet.publish([snapshot("n1", 1), snapshot("n2", 2)].into());
    assert!(!stream.snapshots.has_changed().unwrap(), "another agent's snapshot is not its business");
    fleet.publish([snapshot("n1", 2), snapshot("n2", 2)].into());
    assert!(stream.snapshots.has_changed().unwrap());
    let second = latest(&mut stream).unwrap();
    assert!(second.generation > first.generation);
    assert_eq!(AgentSnapshot::from_yaml(&second.document).unwrap().generation, second.generation);
}

#[test]
fn an_agent_that_is_planned_no_more_keeps_what_it_has() {
    let fleet = fleet(10);
    fleet.publish([snapshot("n1", 1)].into());
    let mut stream = fleet.open(identity("n1"), &Hello::default()).unwrap();
    latest(&mut stream);
    fleet.publish(BTreeMap::new());
    assert!(!stream.snapshots.has_changed().unwrap());
    assert_eq!(fleet.agent("isp/ts-edge@n1").unwrap().published, None);
    // And one that comes now hears nothing.
    let mut again = fleet.open(identity("n1"), &Hello::default()).unwrap();
    assert!(latest(&mut again).is_none());
}

#[test]
fn generations_grow_from_replica_to_replica() {
    let ahead = u64::try_from(Timestamp::now().as_millisecond()).unwrap() + 3_600_000;
    let fleet = fleet(10);
    fleet.publish([snapshot("n1", 1)].into());
    // It comes from a replica whose clock is an hour ahead.
    let hello = Hello { generation: ahead, digest: "another".to_owned(), ..Hello::default() };
    let mut stream = fleet.open(identity("n1"), &hello).unwrap();
    let first = latest(&mut stream).unwrap();
    assert_eq!(first.generation, ahead + 1);
    assert_eq!(AgentSnapshot::from_yaml(&first.document).unwrap().generation, ahead + 1);
    fleet.publish([snapshot("n1", 2)].into());
    assert_eq!(latest(&mut stream).unwrap().generation, ahead + 2);
}

#[test]
fn a_second_stream_ends_the_first_and_the_first_cannot_say_it_is_lost() {
    let fleet = fleet(1);
    let mut first = fleet.open(identity("n1"), &Hello::default()).unwrap();
    assert!(first.ended.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
    let mut second = fleet.open(identity("n1"), &Hello::default()).expect("it takes the place of the first");
    assert_eq!(first.ended.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    first.state(State { listen: "1.1.1.1:1".to_owned(), ..State::default() });
    drop(first);
    let view = fleet.agent("isp/ts-edge@n1").unwrap();
    assert!(view.connected && view.state.is_none(), "the first has nothing to say any more");
    assert_eq!(second.ended.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    drop(second);
    let view = fleet.agent("isp/ts-edge@n1").unwrap();
    assert!(!view.connected && view.lost_at.is_some());
    assert!(fleet.metrics.text().contains(r#"castgate_agents_connected{role="server"} 0"#));
    assert!(fleet.metrics.text().contains("castgate_agent_streams_total 2"));
}

#[test]
fn there_is_a_limit_to_streams() {
    let fleet = fleet(2);
    let first = fleet.open(identity("n1"), &Hello::default()).unwrap();
    let _second = fleet.open(identity("n2"), &Hello::default()).unwrap();
    assert_eq!(fleet.open(identity("n3"), &Hello::default()).unwrap_err(), Refusal::Full(2));
    drop(first);
    assert!(fleet.open(identity("n3"), &Hello::default()).is_ok());
}

#[test]
fn a_refusal_is_known_until_the_snapshot_is_taken_or_taken_back() {
    let fleet = fleet(10);
    fleet.publish([snapshot("n1", 1)].into());
    let mut stream = fleet.open(identity("n1"), &Hello::default()).unwrap();
    let good = latest(&mut stream).unwrap();
    stream.verdict(&verdict(good.generation, &good.digest, ""));
    assert_eq!(fleet.agent("isp/ts-edge@n1").unwrap().generation, good.generation);

    fleet.publish([snapshot("n1", 2)].into());
    let bad = latest(&mut stream).unwrap();
    stream.verdict(&verdict(bad.generation, &good.digest, "server.listen: in use"));
    let view = fleet.agent("isp/ts-edge@n1").unwrap();
    assert_eq!(view.refusal.as_deref(), Some("server.listen: in use"));
    assert_eq!((view.generation, &view.digest), (good.generation, &good.digest), "the one before is in force");

    fleet.publish([snapshot("n1", 1)].into());
    assert_eq!(fleet.agent("isp/ts-edge@n1").unwrap().refusal, None, "what is in force is what is published");
}

#[test]
fn a_reconciler_hears_of_what_matters_and_not_of_counters() {
    let fleet = fleet(10);
    let mut changes = fleet.subscribe_changes();
    let mut heard = |what: &str| {
        let heard = changes.has_changed().expect(what);
        changes.mark_unchanged();
        heard
    };
    let stream = fleet.open(identity("n1"), &Hello::default()).unwrap();
    assert!(heard("an agent comes"));
    let listening = State { listen: "192.0.2.1:10000".to_owned(), ..State::default() };
    stream.state(listening.clone());
    assert!(heard("it listens"));
    stream.state(State { tunnels: 7, ..listening.clone() });
    assert!(!heard("counters"));
    let registrations = vec![v1::Registration { state: "registered".to_owned(), ..v1::Registration::default() }];
    stream.state(State { registrations, ..listening });
    assert!(heard("a registration"));
    stream.verdict(&verdict(1, "d", ""));
    assert!(heard("a verdict"));
    drop(stream);
    assert!(heard("it goes"));
}

#[tokio::test]
async fn the_writer_hears_of_everything_once() {
    let fleet = fleet(10);
    let stream = fleet.open(identity("n1"), &Hello::default()).unwrap();
    stream.state(State::default());
    let both = ["isp/ts-edge@n1".to_owned()];
    assert!(fleet.dirty().await.iter().eq(&both));
    tokio::select! {
        biased;
        _ = fleet.dirty() => panic!("nothing is new"),
        () = tokio::task::yield_now() => {}
    }
    stream.state(State::default());
    assert!(fleet.dirty().await.iter().eq(&both));
}

#[test]
fn the_lost_are_forgotten_when_they_are_planned_no_more() {
    let fleet = fleet(10);
    fleet.publish([snapshot("n1", 1)].into());
    drop(fleet.open(identity("n1"), &Hello::default()).unwrap());
    fleet.publish([snapshot("n1", 1)].into());
    assert_eq!(fleet.agents().len(), 1, "it is expected to come back");
    fleet.publish(BTreeMap::new());
    fleet.lock().dirty.clear();
    fleet.publish(BTreeMap::new());
    assert_eq!(fleet.agents().len(), 0);
}

mod outbox {
    use super::*;

    #[test]
    fn nothing_is_due_when_the_agent_has_it() {
        let outbox = Outbox::new(&Hello { digest: "a".to_owned(), ..Hello::default() });
        assert!(!outbox.is_due(&planned(1, "a")));
        assert!(outbox.is_due(&planned(2, "b")));
    }

    #[test]
    fn what_is_under_way_is_not_sent_twice() {
        let mut outbox = Outbox::default();
        outbox.sent(&planned(1, "a"));
        assert!(!outbox.is_due(&planned(1, "a")));
        outbox.verdict(&verdict(1, "a", ""));
        assert!(!outbox.is_due(&planned(1, "a")));
    }

    #[test]
    fn a_change_that_is_taken_back_before_it_is_in_force_is_sent_all_the_same() {
        let mut outbox = Outbox::new(&Hello { digest: "a".to_owned(), ..Hello::default() });
        outbox.sent(&planned(2, "b"));
        assert!(outbox.is_due(&planned(3, "a")), "b will be in force in a moment");
        outbox.sent(&planned(3, "a"));
        // The agent took both, or only the newer one.
        for verdicts in [&[verdict(2, "b", ""), verdict(3, "a", "")][..], &[verdict(3, "a", "")]] {
            let mut outbox = Outbox { pending: outbox.pending.clone(), ..Outbox::default() };
            for verdict in verdicts {
                outbox.verdict(verdict);
            }
            assert!(!outbox.is_due(&planned(3, "a")));
        }
    }

    #[test]
    fn what_was_refused_is_not_repeated_but_something_else_is_sent() {
        let mut outbox = Outbox::new(&Hello { digest: "a".to_owned(), ..Hello::default() });
        outbox.sent(&planned(2, "b"));
        outbox.verdict(&verdict(2, "a", "server.listen: in use"));
        assert!(!outbox.is_due(&planned(2, "b")));
        assert!(!outbox.is_due(&planned(3, "a")), "it is in force");
        assert!(outbox.is_due(&planned(4, "c")));
        // Refused b, got c, and now b again: another try is worth it.
        outbox.sent(&planned(4, "c"));
        outbox.verdict(&verdict(4, "c", ""));
        assert!(outbox.is_due(&planned(5, "b")));
    }
}

fn fleet(streams_max: usize) -> Arc<Fleet> {
    Fleet::new(Arc::new(Metrics::new()), streams_max)
}

fn latest(stream: &mut Stream) -> Option<Arc<Planned>> {
    stream.snapshots.borrow_and_update().clone()
}

fn planned(generation: u64, digest: &str) -> Planned {
    Planned {
        digest: digest.to_owned(),
        generation,
        document: String::new(),
        since: Instant::now(),
        snapshot: AgentSnapshot::default(),
    }
}

fn verdict(generation: u64, digest: &str, refusal: &str) -> Verdict {
    Verdict { generation, digest: digest.to_owned(), refusal: refusal.to_owned() }
}
