//! One question after the other, from the roots or from what is cached.

use super::*;

#[test]
fn the_walk_goes_from_the_root_over_the_country_to_its_servers_in_their_order() {
    let mut world = World::default();
    world.answers("127.0.4.1:5632", Ok(vec![tds("127.0.5.1:5632")]));
    world.answers("127.0.5.1:5632", Ok(vec![ts("127.0.2.9:10100"), ts("127.0.2.1:10100"), ts("127.0.2.5:10100")]));
    let (step, asks) = world.walk(locator(&["127.0.4.1"], None));
    let found = found(step);
    assert_eq!(addresses(&found.servers), ["127.0.2.9:10100", "127.0.2.1:10100", "127.0.2.5:10100"]);
    assert_eq!(asks, ["127.0.4.1:5632", "127.0.5.1:5632"]);
    assert_eq!(found.hops[0].outcome, HopOutcome::Databases(1, None));
    assert_eq!((found.hops[1].depth, found.hops[1].outcome.clone()), (1, HopOutcome::Servers(3, None)));
    assert!(!found.from_cache);
}

#[test]
fn a_question_carries_country_and_protocol_and_the_host_as_named() {
    let mut locator = locator(&["http://roots.example:80/tds/castgate.cgs"], None);
    let id = address_of(poll(&mut locator), "roots.example");
    locator.handle_addresses(id, Ok(vec!["192.0.2.1".parse().unwrap()]));
    let Step::Ask(ask) = poll(&mut locator) else { panic!("an address is there to be asked") };
    assert_eq!(ask.address, "192.0.2.1:80".parse().unwrap());
    assert_eq!(ask.authority, "roots.example:80");
    assert_eq!(ask.target, "/tds/castgate.cgs?ACTION=QUERY&TYPE=TS&COUNTRY=BE&PROTOCOL=UDP");
}

#[test]
fn a_bare_name_is_a_service_first_and_a_host_if_there_is_none() {
    let mut walk = locator(&["roots.example"], None);
    let id = service_of(poll(&mut walk), "_castgate._tcp.roots.example");
    walk.handle_service(id, Err("NXDOMAIN".to_owned()));
    let id = address_of(poll(&mut walk), "roots.example");
    walk.handle_addresses(id, Ok(vec!["192.0.2.1".parse().unwrap()]));
    let Step::Ask(ask) = poll(&mut walk) else { panic!("an address is there to be asked") };
    assert_eq!(ask.address, "192.0.2.1:5632".parse().unwrap());

    let mut walk = locator(&["roots.example"], None);
    let id = service_of(poll(&mut walk), "_castgate._tcp.roots.example");
    walk.handle_service(id, Ok(vec![srv(0, 0, 5632, ".")]));
    assert!(matches!(poll(&mut walk), Step::Failed(_)), "the service is decidedly not there");
}

#[test]
fn service_records_are_tried_by_priority_and_shared_by_weight() {
    let mut firsts = HashMap::new();
    for seed in 0..300 {
        let mut walk = Locator::new(roots(&["roots.example"]), wanted(), None, seed, NOW);
        let records =
            vec![srv(20, 0, 3, "backup.example."), srv(10, 30, 1, "big.example."), srv(10, 10, 2, "small.example.")];
        let id = service_of(poll(&mut walk), "_castgate._tcp.roots.example");
        walk.handle_service(id, Ok(records));
        let mut order = Vec::new();
        while let Step::ResolveAddress { id, name } = poll(&mut walk) {
            order.push(name);
            walk.handle_addresses(id, Ok(Vec::new()));
        }
        assert_eq!(order.len(), 3);
        assert_eq!(order[2], "backup.example");
        *firsts.entry(order[0].clone()).or_insert(0_u32) += 1;
    }
    assert!((180..=260).contains(&firsts["big.example"]), "{firsts:?}");
}

#[test]
fn other_members_then_the_step_above_then_other_roots_are_asked_on_failure() {
    let mut world = World::default();
    // Every root sends us to the same two databases, both dead, but the second root has one more.
    world.answers("10.0.0.1:5632", Ok(vec![tds("10.1.0.1:5632"), tds("10.1.0.2:5632")]));
    world.answers("10.0.0.2:5632", Ok(vec![tds("10.1.0.1:5632"), tds("10.1.0.2:5632"), tds("10.1.0.3:5632")]));
    world.answers("10.1.0.1:5632", Err("connection refused"));
    world.answers("10.1.0.2:5632", Err("no answer within 10 s"));
    world.answers("10.1.0.3:5632", Ok(vec![ts("10.2.0.1:10100")]));
    for seed in 0..20 {
        let walk = Locator::new(roots(&["10.0.0.1", "10.0.0.2"]), wanted(), None, seed, NOW);
        let (step, asks) = world.walk(walk);
        assert_eq!(addresses(&found(step).servers), ["10.2.0.1:10100"], "seed {seed}: {asks:?}");
        let unique: HashSet<_> = asks.iter().collect();
        assert_eq!(unique.len(), asks.len(), "nobody is asked twice: {asks:?}");
    }
}

#[test]
fn members_are_drawn_and_not_always_the_first() {
    let mut world = World::default();
    world.answers("10.0.0.1:5632", Ok(vec![tds("10.1.0.1:5632"), tds("10.1.0.2:5632"), tds("10.1.0.3:5632")]));
    for member in ["10.1.0.1:5632", "10.1.0.2:5632", "10.1.0.3:5632"] {
        world.answers(member, Ok(vec![ts("10.2.0.1:10100")]));
    }
    let second = |seed| world.walk(Locator::new(roots(&["10.0.0.1"]), wanted(), None, seed, NOW)).1[1].clone();
    let reached: HashSet<String> = (0..60).map(second).collect();
    assert_eq!(reached.len(), 3);
}

#[test]
fn two_databases_that_name_each_other_end_the_walk() {
    let mut world = World::default();
    world.answers("10.0.0.1:5632", Ok(vec![tds("10.0.0.2:5632")]));
    world.answers("10.0.0.2:5632", Ok(vec![tds("10.0.0.1:5632")]));
    let (step, asks) = world.walk(locator(&["10.0.0.1"], None));
    assert!(matches!(step, Step::Failed(_)));
    assert_eq!(asks, ["10.0.0.1:5632", "10.0.0.2:5632"]);
}

#[test]
fn an_endless_chain_of_new_databases_ends_after_sixteen_steps() {
    let mut walk = locator(&["10.0.0.0"], None);
    let mut asks = 0_u8;
    while let Step::Ask(ask) = poll(&mut walk) {
        asks += 1;
        walk.handle_answer(ask.id, Ok(answer(vec![tds(&format!("10.0.0.{asks}:5632"))])));
    }
    assert_eq!(usize::from(asks), PATH_STEPS_MAX);
    assert!(matches!(poll(&mut walk), Step::Failed(_)));
}

#[test]
fn a_wide_maze_is_left_after_a_bounded_number_of_questions() {
    let mut walk = locator(&["10.0.0.0"], None);
    let mut asks = 0_u32;
    while let Step::Ask(ask) = poll(&mut walk) {
        asks += 1;
        let many = (0..200_u32).map(|n| tds(&format!("10.{}.{}.1:5632", asks % 250, n))).collect();
        walk.handle_answer(ask.id, Ok(answer(many)));
    }
    assert_eq!(usize::try_from(asks).unwrap(), ASKS_MAX);
}

#[test]
fn nothing_is_not_found_and_the_error_says_who_was_asked_last() {
    let mut world = World::default();
    world.answers("10.0.0.1:5632", Ok(Vec::new()));
    let (step, _) = world.walk(locator(&["10.0.0.1"], None));
    let Step::Failed(error) = step else { panic!("an empty list is not a find") };
    assert_eq!(
        error.to_string(),
        "no tunnel server found after 1 questions; the last, 10.0.0.1:5632: knows no tunnel server for this place"
    );
}

#[test]
fn servers_of_another_protocol_are_not_handed_out() {
    let relay = Server { protocol: Some(Protocol::Amt), ..ts("10.2.0.1:2268") };
    let web = Server { protocol: Some(Protocol::Tcp), ..ts("10.2.0.1:8080") };
    let old = Server { protocol: None, ..ts("10.2.0.2:10100") };
    let mut walk = locator(&["10.0.0.1"], None);
    let (_, id) = ask(&mut walk, now());
    walk.handle_answer(id, Ok(answer(vec![relay, web, old.clone(), old])));
    assert_eq!(addresses(&found(poll(&mut walk)).servers), ["10.2.0.2:10100"]);
}

#[test]
fn a_young_cache_starts_at_its_databases_and_falls_back_to_the_roots() {
    let mut world = World::default();
    world.answers("10.0.0.1:5632", Ok(vec![tds("10.1.0.1:5632")]));
    world.answers("10.1.0.1:5632", Ok(vec![ts("10.2.0.1:10100")]));
    let (step, _) = world.walk(locator(&["10.0.0.1"], None));
    let text = serde_json::to_string(&found(step).cache).unwrap();
    let cache: Cache = serde_json::from_str(&text).unwrap();

    let (_, asks) = world.walk(locator(&["10.0.0.1"], Some(cache.clone())));
    assert_eq!(asks, ["10.1.0.1:5632"], "the root is left in peace");

    world.answers("10.1.0.1:5632", Err("connection refused"));
    world.answers("10.0.0.1:5632", Ok(vec![tds("10.1.0.2:5632")]));
    world.answers("10.1.0.2:5632", Ok(vec![ts("10.2.0.2:10100")]));
    let (step, asks) = world.walk(locator(&["10.0.0.1"], Some(cache.clone())));
    assert_eq!(asks, ["10.1.0.1:5632", "10.0.0.1:5632", "10.1.0.2:5632"]);
    assert_eq!(addresses(&found(step).servers), ["10.2.0.2:10100"]);

    let later = NOW.after(CACHE_AGE_MAX);
    let (_, asks) = world.walk(Locator::new(roots(&["10.0.0.1"]), wanted(), Some(cache), 1, later));
    assert_eq!(asks[0], "10.0.0.1:5632", "a day later the roots are asked");
}

#[test]
fn a_cache_of_another_question_is_not_used() {
    let mut world = World::default();
    world.answers("10.0.0.1:5632", Ok(vec![ts("10.2.0.1:10100")]));
    let (step, _) = world.walk(locator(&["10.0.0.1"], None));
    let cache = found(step).cache;
    let elsewhere = Wanted { country: Some("FR".parse().unwrap()), ..wanted() };
    let amt = Wanted { protocol: ProtocolFilter::Only(Protocol::Amt), ..wanted() };
    assert!(cache.answers(&roots(&["10.0.0.1"]), &wanted(), NOW));
    assert!(!cache.answers(&roots(&["10.0.0.2"]), &wanted(), NOW));
    assert!(!cache.answers(&roots(&["10.0.0.1"]), &elsewhere, NOW));
    assert!(!cache.answers(&roots(&["10.0.0.1"]), &amt, NOW));
    assert!(!cache.answers(&roots(&["10.0.0.1"]), &wanted(), UnixMillis(NOW.0 - 1)), "written in the future");
}

#[test]
fn without_any_database_the_servers_of_the_last_time_are_handed_out() {
    let mut world = World::default();
    world.answers("10.0.0.1:5632", Ok(vec![ts("10.2.0.1:10100")]));
    let (step, _) = world.walk(locator(&["10.0.0.1"], None));
    let cache = found(step).cache;

    world.answers("10.0.0.1:5632", Err("connection refused"));
    let (step, _) = world.walk(locator(&["10.0.0.1"], Some(cache.clone())));
    let again = found(step);
    assert!(again.from_cache);
    assert_eq!(addresses(&again.servers), ["10.2.0.1:10100"]);
    assert_eq!(again.cache, cache, "its age goes on counting from the last answer");

    world.answers("10.0.0.1:5632", Ok(Vec::new()));
    let (step, _) = world.walk(locator(&["10.0.0.1"], Some(cache)));
    assert!(matches!(step, Step::Failed(_)), "a database that says there are none is believed");
}

#[test]
fn without_roots_the_walk_says_so() {
    let Step::Failed(error) = poll(&mut locator(&[], None)) else { panic!("there is nobody to ask") };
    assert_eq!(error.to_string(), "no tunnel server found: no database is configured");
}

#[test]
fn results_that_nobody_waits_for_change_nothing() {
    let mut walk = locator(&["10.0.0.1"], None);
    let (_, id) = ask(&mut walk, now());
    walk.handle_service(id, Ok(Vec::new()));
    walk.handle_addresses(id, Ok(Vec::new()));
    assert!(walk.awaits(id), "the task is another one");
    walk.handle_answer(TaskId(77), Ok(answer(vec![ts("10.2.0.1:10100")])));
    assert!(walk.awaits(id), "nobody has that task");
    walk.handle_answer(id, Ok(answer(vec![ts("10.2.0.2:10100")])));
    walk.handle_answer(id, Ok(answer(vec![ts("10.2.0.3:10100")])));
    assert_eq!(addresses(&found(poll(&mut walk)).servers), ["10.2.0.2:10100"]);
}
