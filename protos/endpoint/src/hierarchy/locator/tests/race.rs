//! Several databases at one time: the first good answer wins.

use super::*;

#[test]
fn the_next_root_is_asked_after_the_head_start_and_the_first_answer_wins() {
    let start = now();
    let mut walk = locator(&["10.0.0.1", "10.0.0.2", "10.0.0.3"], None);
    let (first, first_id) = ask(&mut walk, start);
    assert_eq!(walk.poll(start), None);
    assert_eq!(walk.next_timeout(), Some(start + HEAD_START));
    assert_eq!(walk.poll(start + HEAD_START / 2), None);
    let (second, second_id) = ask(&mut walk, start + HEAD_START);
    assert_ne!(first, second);
    assert_eq!(walk.poll(start + HEAD_START), None, "the second has its head start, too");

    walk.handle_answer(second_id, Ok(answer(vec![ts("10.2.0.1:10100")])));
    let found = found(poll(&mut walk));
    assert_eq!(addresses(&found.servers), ["10.2.0.1:10100"]);
    assert!(!walk.awaits(first_id), "the slow one is dropped");
    assert_eq!(walk.next_timeout(), None);
    assert_eq!(found.hops[0], Hop { asked: second.to_string(), depth: 0, outcome: HopOutcome::Servers(1, None) });
    let text = serde_json::to_string(&found.cache).unwrap();
    assert!(text.contains(&second.to_string()), "{text}");
}

#[test]
fn a_failure_starts_the_next_at_once() {
    let start = now();
    let mut walk = locator(&["10.0.0.1", "10.0.0.2"], None);
    let (_, id) = ask(&mut walk, start);
    walk.handle_answer(id, Err("connection refused".to_owned()));
    let _ = ask(&mut walk, start);
    assert_eq!(walk.poll(start + HEAD_START), None, "nobody is left");
    assert_eq!(walk.next_timeout(), None, "and no clock runs for it");
}

#[test]
fn an_answer_without_servers_does_not_end_the_race() {
    let start = now();
    let mut walk = locator(&["10.0.0.1", "10.0.0.2"], None);
    let (_, first) = ask(&mut walk, start);
    let (_, second) = ask(&mut walk, start + HEAD_START);
    walk.handle_answer(second, Ok(answer(Vec::new())));
    assert!(walk.awaits(first));
    assert_eq!(walk.poll(start + HEAD_START), None);
    walk.handle_answer(first, Ok(answer(vec![ts("10.2.0.1:10100")])));
    assert_eq!(addresses(&found(poll(&mut walk)).servers), ["10.2.0.1:10100"]);
}

#[test]
fn an_overtaken_root_is_asked_again_when_the_winner_leads_nowhere() {
    let start = now();
    let mut walk = locator(&["10.0.0.1", "10.0.0.2"], None);
    let (slow, slow_id) = ask(&mut walk, start);
    let (_, quick_id) = ask(&mut walk, start + HEAD_START);
    walk.handle_answer(quick_id, Ok(answer(vec![tds("10.1.0.1:5632")])));
    assert!(!walk.awaits(slow_id));
    let (below, id) = ask(&mut walk, start + HEAD_START);
    assert_eq!(below, "10.1.0.1:5632".parse().unwrap());
    // The step above waits until this one is through, however long that takes.
    assert_eq!(walk.poll(start + HEAD_START * 10), None);
    walk.handle_answer(id, Err("connection refused".to_owned()));
    let (again, id) = ask(&mut walk, start + HEAD_START * 10);
    assert_eq!(again, slow);
    walk.handle_answer(id, Ok(answer(vec![ts("10.2.0.1:10100")])));
    let found = found(poll(&mut walk));
    assert_eq!(found.hops[0].outcome, HopOutcome::Databases(1, None));
    assert_eq!(found.hops[1], Hop { asked: slow.to_string(), depth: 0, outcome: HopOutcome::Overtaken });
    assert_eq!(addresses(&found.servers), ["10.2.0.1:10100"]);
}

#[test]
fn a_database_that_has_not_answered_yet_may_be_named_by_one_that_has() {
    let start = now();
    let mut walk = locator(&["10.0.0.1", "10.0.0.2"], None);
    let (slow, _) = ask(&mut walk, start);
    let (_, quick) = ask(&mut walk, start + HEAD_START);
    walk.handle_answer(quick, Ok(answer(vec![tds(&slow.to_string())])));
    assert_eq!(ask(&mut walk, start + HEAD_START).0, slow);
}

#[test]
fn the_members_of_a_cached_step_and_then_the_roots_are_raced() {
    let mut world = World::default();
    world.answers("10.0.0.1:5632", Ok(vec![tds("10.1.0.1:5632"), tds("10.1.0.2:5632")]));
    for member in ["10.1.0.1:5632", "10.1.0.2:5632"] {
        world.answers(member, Ok(vec![ts("10.2.0.1:10100")]));
    }
    let (step, _) = world.walk(locator(&["10.0.0.1"], None));
    let cache = found(step).cache;

    let start = now();
    let mut walk = locator(&["10.0.0.1"], Some(cache.clone()));
    let asked: Vec<SocketAddr> = (0..3).map(|turn| ask(&mut walk, start + HEAD_START * turn).0).collect();
    assert_eq!(asked[2], "10.0.0.1:5632".parse().unwrap(), "the root is the last");
    assert_ne!(asked[0], asked[1]);

    // From the roots the cached databases are left out, and the servers are not.
    let mut walk = locator(&["10.0.0.1"], Some(cache)).from_the_roots();
    let (root, id) = ask(&mut walk, start);
    assert_eq!(root, "10.0.0.1:5632".parse().unwrap());
    walk.handle_answer(id, Err("connection refused".to_owned()));
    assert!(found(poll(&mut walk)).from_cache);
}

#[test]
fn a_dead_name_server_for_one_root_does_not_hold_up_the_others() {
    let start = now();
    let mut walk = Locator::new(roots(&["roots.example", "10.0.0.2"]), wanted(), None, 1, NOW);
    let mut steps = vec![walk.poll(start).unwrap(), walk.poll(start + HEAD_START).unwrap()];
    steps.sort_by_key(|step| matches!(step, Step::Ask(_)));
    let [Step::ResolveService { id: lookup, .. }, Step::Ask(ask)] = &steps[..] else { panic!("{steps:?}") };
    walk.handle_answer(ask.id, Ok(answer(vec![ts("10.2.0.1:10100")])));
    assert!(!walk.awaits(*lookup));
    assert!(matches!(poll(&mut walk), Step::Found(_)));
}

#[test]
fn a_race_has_so_many_runners_and_no_more() {
    let names: Vec<String> = (1..=20).map(|number| format!("10.0.0.{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let start = now();
    let mut walk = locator(&names, None);
    let running: Vec<TaskId> =
        (0..).map_while(|turn| walk.poll(start + HEAD_START * turn)).map(|step| asked(step).1).collect();
    assert_eq!(running.len(), RACE_MAX);
    assert_eq!(walk.next_timeout(), None);
    walk.handle_answer(running[3], Err("no answer within 10 s".to_owned()));
    let _ = ask(&mut walk, start + HEAD_START * 9);
}

#[test]
fn the_first_target_of_a_service_may_be_dead() {
    let mut walk = locator(&["roots.example"], None);
    let id = service_of(poll(&mut walk), "_castgate._tcp.roots.example");
    walk.handle_service(id, Ok(vec![srv(20, 0, 5633, "second.example."), srv(10, 0, 5632, "first.example.")]));
    let id = address_of(poll(&mut walk), "first.example");
    walk.handle_addresses(id, Ok(vec!["2001:db8::1".parse().unwrap()]));
    let (dead, id) = ask(&mut walk, now());
    assert_eq!(dead, "[2001:db8::1]:5632".parse().unwrap());
    walk.handle_answer(id, Err("network is unreachable".to_owned()));
    let id = address_of(poll(&mut walk), "second.example");
    walk.handle_addresses(id, Ok(vec!["192.0.2.2".parse().unwrap()]));
    let (alive, id) = ask(&mut walk, now());
    assert_eq!(alive, "192.0.2.2:5633".parse().unwrap());
    walk.handle_answer(id, Ok(answer(vec![ts("10.2.0.1:10100")])));
    let found = found(poll(&mut walk));
    let text = serde_json::to_value(&found.cache).unwrap();
    assert_eq!(text["databases"].as_array().unwrap().len(), 1, "the dead one is another list: {text}");
}

proptest! {
    /// Whatever the databases answer, and in whatever order: the walk ends, within its bounds, and never asks one twice that has
    /// answered.
    #[test]
    fn every_race_ends(
        seed: u64,
        turns in prop::collection::vec((0..4_u8, any::<usize>(), 0..40_u8, any::<bool>()), 0..400),
    ) {
        let mut walk = Locator::new(roots(&["10.0.0.1", "10.0.0.2", "roots.example"]), wanted(), None, seed, NOW);
        let mut at = now();
        let (mut open, mut asks, mut answered) = (Vec::<(TaskId, Option<SocketAddr>)>::new(), 0, HashSet::new());
        let mut turns = turns.into_iter();
        loop {
            open.retain(|(id, _)| walk.awaits(*id));
            prop_assert!(open.len() <= RACE_MAX);
            match walk.poll(at) {
                Some(Step::Ask(ask)) => {
                    prop_assert!(!answered.contains(&ask.address), "{} has answered", ask.address);
                    asks += 1;
                    open.push((ask.id, Some(ask.address)));
                    continue;
                }
                Some(Step::ResolveService { id, .. } | Step::ResolveAddress { id, .. }) => {
                    open.push((id, None));
                    continue;
                }
                Some(Step::Found(_) | Step::Failed(_)) => break,
                None => prop_assert!(!open.is_empty(), "it waits for nobody"),
            }
            let (kind, which, number, waits) = turns.next().unwrap_or((0, 0, 0, false));
            if waits && let Some(until) = walk.next_timeout() {
                prop_assert!(until > at, "a deadline that has passed makes the driver spin");
                at = until;
                continue;
            }
            let (id, asked) = open[which % open.len()];
            match asked {
                None => {
                    let address = IpAddr::from([10, 0, 1, number]);
                    walk.handle_service(id, Ok(vec![srv(0, 0, 5632, "target.example.")]));
                    walk.handle_addresses(id, if kind == 0 { Err("NXDOMAIN".to_owned()) } else { Ok(vec![address]) });
                }
                Some(address) => {
                    answered.insert(address);
                    let result = match kind {
                        0 => Err("connection refused".to_owned()),
                        1 => Ok(answer(Vec::new())),
                        _ => Ok(answer(vec![tds(&format!("10.1.0.{number}:5632")), tds(&format!("10.1.0.{}:5632", number / 2))])),
                    };
                    walk.handle_answer(id, result);
                }
            }
        }
        prop_assert!(asks <= ASKS_MAX);
    }
}
