//! Which agent's endpoint is written when, and by whom.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_endpoint_of_a_new_agent_is_made_with_owner_and_status() {
    let api = Arc::new(FakeApi::default());
    let a = Replica::start("a", &api);
    let _stream = a.agent("n1");
    pass(1).await;
    let object = api.endpoint("n1").expect("it is made");
    assert_eq!(object.metadata.owner_references.unwrap()[0].name, "edge");
    assert_eq!(object.metadata.labels.unwrap()["castgate.dev/owner"], "edge");
    assert_eq!((object.spec.owner_name.as_str(), object.spec.node.as_str()), ("edge", "n1"));
    let status = object.status.unwrap();
    assert_eq!(held(&status), ("a", 1, "True"));
    assert_eq!(status.address.as_deref(), Some("192.0.2.1:10000"));
}

#[tokio::test(start_paused = true)]
async fn an_agent_moves_and_the_late_write_of_the_first_replica_is_fenced() {
    let api = Arc::new(FakeApi::default());
    let (a, b) = (Replica::start("a", &api), Replica::start("b", &api));
    let old = a.agent("n1");
    pass(1).await;
    let _new = b.agent("n1");
    pass(1).await;
    assert_eq!(held(&api.status("n1")), ("b", 2, "True"));
    let writes = api.writes();

    // Only now the first one notices that its stream is dead.
    drop(old);
    pass(60).await;
    assert_eq!(held(&api.status("n1")), ("b", 2, "True"));
    assert_eq!(api.writes(), writes, "nothing was written");
    assert!(a.metrics.text().contains("castgate_endpoint_fenced_total 1"), "{}", a.metrics.text());
    assert!(b.metrics.text().contains("castgate_endpoint_fenced_total 0"));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_left_before_it_came_elsewhere_is_taken_over() {
    let api = Arc::new(FakeApi::default());
    let (a, b) = (Replica::start("a", &api), Replica::start("b", &api));
    drop_after(&a, "n1", 1).await;
    pass(1).await;
    assert_eq!(held(&api.status("n1")), ("a", 1, "False"));
    let _new = b.agent("n1");
    pass(1).await;
    assert_eq!(held(&api.status("n1")), ("b", 2, "True"));
    // And back again.
    let _newest = a.agent("n1");
    pass(3).await;
    assert_eq!(held(&api.status("n1")), ("a", 3, "True"));
}

#[tokio::test(start_paused = true)]
async fn a_live_replica_that_still_has_counters_to_write_is_fenced_too() {
    let api = Arc::new(FakeApi::default());
    let (a, b) = (Replica::start("a", &api), Replica::start("b", &api));
    let old = a.agent("n1");
    pass(1).await;
    let _new = b.agent("n1");
    pass(1).await;
    old.state(State { tunnels: 99, listen: "198.51.100.1:1".to_owned(), ..State::default() });
    pass(60).await;
    let status = api.status("n1");
    assert_eq!((held(&status), status.tunnels), (("b", 2, "True"), 0));
}

#[tokio::test(start_paused = true)]
async fn two_that_claim_at_once_agree_in_the_end() {
    let api = Arc::new(FakeApi::default());
    let (a, b) = (Replica::start("a", &api), Replica::start("b", &api));
    drop_after(&a, "n1", 1).await;
    pass(5).await;
    // Both read before either writes; which of them is last to claim is chance.
    api.hold();
    let old = a.agent("n1");
    let _new = b.agent("n1");
    pass(1).await;
    api.release();
    pass(3).await;
    drop(old);
    pass(20).await;
    let status = api.status("n1");
    let (replica, _, connected) = held(&status);
    assert_eq!((replica, connected), ("b", "True"), "the one whose stream lives has it");
}

#[tokio::test(start_paused = true)]
async fn a_lost_stream_is_written_within_a_second() {
    let api = Arc::new(FakeApi::default());
    let a = Replica::start("a", &api);
    let stream = a.agent("n1");
    pass(1).await;
    // Something was written just now: that must not delay the news.
    stream.state(State { listen: "192.0.2.1:10001".to_owned(), ..State::default() });
    pass(2).await;
    drop(stream);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let status = api.status("n1");
    assert_eq!(held(&status), ("a", 1, "False"));
    assert_eq!(status.conditions[0].reason, "StreamLost");
    assert_eq!(status.conditions[1].status, "False");
    assert_eq!(status.address.as_deref(), Some("192.0.2.1:10001"), "what was known stays");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_while_nothing_changes() {
    let api = Arc::new(FakeApi::default());
    let a = Replica::start("a", &api);
    let streams: Vec<_> = (0..20).map(|number| a.agent(&format!("n{number}"))).collect();
    pass(5).await;
    let writes = api.writes();
    for _ in 0..60 {
        for stream in &streams {
            stream.state(listening());
        }
        pass(1).await;
    }
    assert_eq!(api.writes(), writes);
}

#[tokio::test(start_paused = true)]
async fn counters_of_one_agent_are_written_every_fifteen_seconds_at_most() {
    let api = Arc::new(FakeApi::default());
    let a = Replica::start("a", &api);
    let stream = a.agent("n1");
    pass(5).await;
    let writes = api.writes();
    for second in 1..=150 {
        stream.state(State { tunnels: second, ..listening() });
        pass(1).await;
    }
    let more = api.writes() - writes;
    assert!((9..=11).contains(&more), "{more} writes in 150 s");
    assert!(api.status("n1").tunnels > 130, "and what is there is not older than that");
}

#[tokio::test(start_paused = true)]
async fn five_hundred_agents_at_once_write_no_faster_than_the_bucket_allows() {
    let api = Arc::new(FakeApi::default());
    let a = Replica::start("a", &api);
    let streams: Vec<_> = (0..500).map(|number| a.agent(&format!("n{number}"))).collect();
    for second in 1..=40 {
        for stream in &streams {
            stream.state(State { tunnels: second, ..listening() });
        }
        pass(1).await;
    }
    let times = api.times();
    for window in times.windows(41) {
        let span = window[40].duration_since(window[0]);
        assert!(span > Duration::ZERO, "more than the burst at one moment");
    }
    let total = times.len();
    assert!(total <= 40 + 20 * 40 + 1, "{total} writes in 40 s");
    assert!(total >= 20 * 38, "{total} writes: the bucket is used");
    assert!((0..500).all(|number| api.endpoint(&format!("n{number}")).is_some()), "every agent had its turn");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_is_tried_again_until_it_is_there() {
    let api = Arc::new(FakeApi::default());
    let a = Replica::start("a", &api);
    let stream = a.agent("n1");
    pass(1).await;
    *api.away.lock().unwrap() = true;
    drop(stream);
    pass(60).await;
    assert_eq!(held(&api.status("n1")), ("a", 1, "True"), "the news did not arrive");
    *api.away.lock().unwrap() = false;
    pass(6).await;
    assert_eq!(held(&api.status("n1")), ("a", 1, "False"));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_somebody_deletes_comes_back_while_its_agent_is_here() {
    let api = Arc::new(FakeApi::default());
    let a = Replica::start("a", &api);
    let stream = a.agent("n1");
    pass(1).await;
    api.objects.lock().unwrap().clear();
    stream.state(State { listen: "192.0.2.1:10001".to_owned(), ..State::default() });
    pass(3).await;
    assert_eq!(held(&api.status("n1")), ("a", 1, "True"));

    // Although its agent has nothing new to say.
    api.objects.lock().unwrap().clear();
    pass(6).await;
    assert_eq!(held(&api.status("n1")), ("a", 1, "True"));

    api.objects.lock().unwrap().clear();
    drop(stream);
    pass(60).await;
    assert!(api.endpoint("n1").is_none(), "nobody is left to have one");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_the_leader_has_written_off_is_taken_back_although_its_agent_says_nothing_new() {
    let api = Arc::new(FakeApi::default());
    let a = Replica::start("a", &api);
    let stream = a.agent("n1");
    pass(1).await;
    api.write_off("n1", "leader");
    assert_eq!(held(&api.status("n1")), ("leader", 2, "False"));
    pass(6).await;
    assert_eq!(held(&api.status("n1")), ("a", 3, "True"));
    let writes = api.writes();
    pass(60).await;
    assert_eq!(api.writes(), writes, "nobody writes against anybody");
    assert!(a.metrics.text().contains("castgate_endpoint_fenced_total 0"), "{}", a.metrics.text());

    // The end of a stream that was written off is news to nobody.
    api.write_off("n1", "leader");
    drop(stream);
    pass(60).await;
    assert_eq!(held(&api.status("n1")), ("leader", 4, "False"));
}

#[tokio::test(start_paused = true)]
async fn what_a_life_before_held_and_nobody_came_back_for_is_written_off() {
    let api = Arc::new(FakeApi::default());
    let before = Replica::start("a", &api);
    let streams = [before.agent("n1"), before.agent("n2")];
    pass(1).await;
    // The process is killed: nobody writes the ends of its streams. Its successor has the same name.
    drop(before);
    drop(streams);
    let a = Replica::start("a", &api);
    let _back = a.agent("n2");
    pass(29).await;
    assert_eq!(held(&api.status("n1")), ("a", 1, "True"), "it may still come back");
    *api.away.lock().unwrap() = true;
    pass(60).await;
    *api.away.lock().unwrap() = false;
    pass(6).await;
    let status = api.status("n1");
    assert_eq!(held(&status), ("a", 2, "False"));
    assert_eq!(status.address.as_deref(), Some("192.0.2.1:10000"), "what was known stays");
    assert_eq!(held(&api.status("n2")), ("a", 2, "True"), "this one did");
    let _late = a.agent("n1");
    pass(1).await;
    assert_eq!(held(&api.status("n1")), ("a", 3, "True"));
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_quiet_agent_is_elsewhere_learns_it() {
    let api = Arc::new(FakeApi::default());
    let (a, b) = (Replica::start("a", &api), Replica::start("b", &api));
    let _half_open = a.agent("n1");
    pass(1).await;
    let _new = b.agent("n1");
    pass(6).await;
    assert_eq!(held(&api.status("n1")), ("b", 2, "True"));
    assert!(a.metrics.text().contains("castgate_endpoint_fenced_total 1"), "{}", a.metrics.text());
}

#[tokio::test(start_paused = true)]
async fn no_endpoint_is_made_before_its_owner_is_known() {
    let api = Arc::new(FakeApi::default());
    let a = Replica::start("a", &api);
    *a.objects.owners_known.lock().unwrap() = false;
    let _stream = a.agent("n1");
    pass(20).await;
    assert!(api.endpoint("n1").is_none());
    *a.objects.owners_known.lock().unwrap() = true;
    pass(6).await;
    assert!(api.endpoint("n1").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_taken_at_once_does_not_make_the_agent_unready_and_one_that_is_not_does() {
    let api = Arc::new(FakeApi::default());
    let a = Replica::start("a", &api);
    let ready = || {
        let status = api.status("n1");
        (status.conditions[1].status.clone(), status.conditions[1].message.clone())
    };
    a.fleet.publish([snapshot("n1", 1)].into());
    let mut stream = a.agent("n1");
    take(&mut stream);
    pass(1).await;
    assert_eq!(ready().0, "True", "the first thing that is said of it");

    a.fleet.publish([snapshot("n1", 2)].into());
    pass(1).await;
    assert_eq!(ready().0, "True", "it has time to take it");
    take(&mut stream);
    let writes = api.writes();
    pass(30).await;
    assert_eq!(ready().0, "True");
    assert!(api.writes() <= writes + 1, "the generation alone");

    a.fleet.publish([snapshot("n1", 3)].into());
    pass(4).await;
    assert_eq!(ready().0, "True");
    pass(2).await;
    assert_eq!(ready(), ("False".to_owned(), "the agent has not taken its snapshot yet".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn names_that_join_to_the_same_do_not_share_an_object() {
    let api = Arc::new(FakeApi::default());
    let a = Replica::start("a", &api);
    // ts-edge on n1-b, and ts-edge-n1 on b: both would be `ts-edge-n1-b`.
    let _first = a.agent("n1-b");
    pass(1).await;
    let other = Identity { owner: "edge-n1".to_owned(), node: "b".to_owned(), ..identity("b") };
    let stream = a.fleet.open(other, &Hello::default()).unwrap();
    stream.state(State { listen: "198.51.100.1:1".to_owned(), ..State::default() });
    pass(10).await;
    let object = api.endpoint("n1-b").unwrap();
    assert_eq!(object.spec.owner_name, "edge");
    assert_eq!(object.status.unwrap().address.as_deref(), Some("192.0.2.1:10000"));
}
