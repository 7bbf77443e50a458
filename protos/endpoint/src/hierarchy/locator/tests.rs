//! Walks through hierarchies that stand as tables in the test.

use std::collections::HashMap;

use castgate_wire::registry::{Protocol, Scheme};
use proptest::prelude::*;

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

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

/// Databases by address, with what each answers.
#[derive(Default)]
struct World(HashMap<String, Result<Vec<Server>, String>>);

impl World {
    fn answers(&mut self, address: &str, answer: Result<Vec<Server>, &str>) {
        self.0.insert(address.to_owned(), answer.map_err(ToOwned::to_owned));
    }

    /// Walks to the end; also returns who was asked.
    fn walk(&self, mut locator: Locator) -> (Step, Vec<String>) {
        let mut asks = Vec::new();
        while let Step::Ask(ask) = poll(&mut locator) {
            let address = ask.address.to_string();
            let result = self.0.get(&address).cloned().unwrap_or_else(|| Err("no route".to_owned()));
            asks.push(address);
            locator.handle_answer(ask.id, result.map(answer));
        }
        (poll(&mut locator), asks)
    }
}

/// The next step, where nothing is open.
fn poll(walk: &mut Locator) -> Step {
    walk.poll(now()).expect("nothing is open")
}

/// Whom the next step asks.
fn ask(walk: &mut Locator, now: Instant) -> (SocketAddr, TaskId) {
    asked(walk.poll(now).expect("somebody is left to be asked"))
}

fn asked(step: Step) -> (SocketAddr, TaskId) {
    match step {
        Step::Ask(ask) => (ask.address, ask.id),
        other => panic!("expected a question, not {other:?}"),
    }
}

fn service_of(step: Step, expected: &str) -> TaskId {
    match step {
        Step::ResolveService { id, name } if name == expected => id,
        other => panic!("expected {expected}, not {other:?}"),
    }
}

fn address_of(step: Step, expected: &str) -> TaskId {
    match step {
        Step::ResolveAddress { id, name } if name == expected => id,
        other => panic!("expected {expected}, not {other:?}"),
    }
}

fn now() -> Instant {
    Instant::now()
}

fn locator(names: &[&str], cache: Option<Cache>) -> Locator {
    Locator::new(roots(names), wanted(), cache, 1, NOW)
}

fn wanted() -> Wanted {
    Wanted { country: Some("BE".parse().unwrap()), protocol: ProtocolFilter::Only(Protocol::Udp) }
}

fn roots(names: &[&str]) -> Vec<DatabaseAddress> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn answer(servers: Vec<Server>) -> Answer {
    Answer { servers, tier: None }
}

fn found(step: Step) -> Found {
    match step {
        Step::Found(found) => found,
        other => panic!("expected servers, not {other:?}"),
    }
}

fn addresses(servers: &[Server]) -> Vec<String> {
    servers.iter().map(|server| format!("{}:{}", server.address, server.port)).collect()
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> ServiceTarget {
    ServiceTarget { priority, weight, port, target: target.to_owned() }
}

fn ts(address: &str) -> Server {
    server(address, EntryType::TunnelServer, Protocol::Udp)
}

fn tds(address: &str) -> Server {
    server(address, EntryType::TunnelDatabase, Protocol::Tcp)
}

fn server(address: &str, entry_type: EntryType, protocol: Protocol) -> Server {
    let address: SocketAddr = address.parse().unwrap();
    let (address, port) = (address.ip(), address.port());
    Server {
        address,
        port,
        entry_type,
        protocol: Some(protocol),
        prefix_len: None,
        fed_by: Vec::new(),
        scheme: Scheme::Http,
    }
}
