//! Walks through hierarchies that exist as a table: who names whom, and who does not answer.

use std::collections::{BTreeMap, HashMap};

use castgate_wire::registry::{Protocol, Scheme, Server};
use proptest::prelude::*;

use super::super::Role;
use super::*;

const ROOT: &str = "127.0.4.1:5632";
const OTHER_ROOT: &str = "127.0.4.2:5632";
const COUNTRY: &str = "127.0.5.1:5632";
const ISP: &str = "127.0.6.1:5632";
const OTHER_ISP: &str = "127.0.6.2:5632";

#[test]
fn the_way_from_the_root_over_the_country_to_the_isp() {
    let mut lab =
        Lab::new(&[(ROOT, &[COUNTRY], 0), (COUNTRY, &[ISP, OTHER_ISP], 8), (ISP, &[], 0), (OTHER_ISP, &[], 0)]);
    let found = lab.walk(&[ROOT], &server("10.1.0.0/16")).unwrap();
    assert_eq!(sets(&found.path), [vec![ROOT], vec![COUNTRY], vec![ISP, OTHER_ISP]]);
    assert_eq!(found.path.iter().map(|step| step.matched).collect::<Vec<_>>(), [None, Some(0), Some(8)]);
    assert_eq!(addresses(&found.decision.register), [ISP, OTHER_ISP]);
    assert_eq!(lab.asked.len(), 3, "one member of each step: {:?}", lab.asked);
    assert_eq!(
        lab.targets[0], "/script/castgate.cgs?ACTION=QUERY&TYPE=TDS&COUNTRY=BE&NETWORK=10.1.0.0/16",
        "the range, not our address, is what is looked for"
    );
}

#[test]
fn roots_that_know_nobody_end_the_way() {
    let mut lab = Lab::new(&[(ROOT, &[], 0), (OTHER_ROOT, &[], 0)]);
    let found = lab.walk(&[ROOT, OTHER_ROOT], &database("10.1.0.0/16")).unwrap();
    assert_eq!(addresses(&found.decision.register), [ROOT, OTHER_ROOT], "both, though one was asked");
    assert_eq!(lab.asked.len(), 1);
}

#[test]
fn a_country_asks_for_what_no_network_holds_and_does_not_follow_networks() {
    let mut lab = Lab::new(&[(ROOT, &[ISP], 16), (ISP, &[], 0)]);
    let subject = Subject { range: None, ..database("10.1.0.0/16") };
    let found = lab.walk(&[ROOT], &subject).unwrap();
    assert_eq!(lab.targets, ["/script/castgate.cgs?ACTION=QUERY&TYPE=TDS&COUNTRY=BE&NETWORK=0.0.0.0/0"]);
    assert_eq!(sets(&found.path), [[ROOT]]);
}

#[test]
fn every_root_is_known_by_its_name_before_one_is_asked() {
    let mut lab = Lab::new(&[(ROOT, &[], 0), (OTHER_ROOT, &[], 0), ("127.0.4.3:7000", &[], 0)]);
    lab.services.insert("_castgate._tcp.roots.example", vec![service("a.example", 5632), service("b.example", 7000)]);
    lab.names.insert("a.example", vec!["127.0.4.1"]);
    lab.names.insert("b.example", vec!["127.0.4.3"]);
    lab.names.insert("other.example", vec!["127.0.4.2"]);
    let found = lab.walk(&["roots.example", "other.example"], &server("10.1.0.0/16")).unwrap();
    let mut roots = addresses(&found.decision.register);
    roots.sort_unstable();
    assert_eq!(roots, [ROOT, OTHER_ROOT, "127.0.4.3:7000"]);
    let named = found.decision.register.iter().find(|member| member.address.port() == 7000).unwrap();
    assert_eq!(named.authority, "b.example:7000", "the Host field says the name");
}

#[test]
fn a_root_without_an_address_is_left_out_and_one_that_has_no_service_is_a_failure() {
    let mut lab = Lab::new(&[(ROOT, &[], 0)]);
    lab.services.insert("_castgate._tcp.gone.example", vec![service(".", 0)]);
    let found = lab.walk(&["nowhere.example", "gone.example", ROOT], &server("10.1.0.0/16")).unwrap();
    assert_eq!(addresses(&found.decision.register), [ROOT]);
    let error = lab.walk(&["nowhere.example"], &server("10.1.0.0/16")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no database to register with was found after 1 questions; the last, nowhere.example: no such name"
    );
    let error = lab.walk(&[], &server("10.1.0.0/16")).unwrap_err();
    assert_eq!(error.to_string(), "no database to register with was found: no root is configured");
}

#[test]
fn other_members_answer_for_one_that_fails() {
    let mut lab = Lab::new(&[(ROOT, &[ISP, OTHER_ISP], 8), (OTHER_ISP, &[], 0)]);
    for seed in 0..20 {
        lab.seed = seed;
        let found = lab.walk(&[ROOT], &server("10.1.0.0/16")).unwrap();
        assert_eq!(addresses(&found.decision.register), [ISP, OTHER_ISP], "who fails today answers tomorrow");
    }
}

#[test]
fn a_step_of_which_nobody_answers_sends_us_to_the_step_above_and_then_to_other_roots() {
    // The first root delegates to databases that are gone; the other one knows better ones.
    let mut lab = Lab::new(&[(ROOT, &[COUNTRY], 0), (OTHER_ROOT, &[ISP], 8), (ISP, &[], 0)]);
    let mut detours = 0;
    for seed in 0..20 {
        lab.seed = seed;
        let found = lab.walk(&[ROOT, OTHER_ROOT], &server("10.1.0.0/16")).unwrap();
        assert_eq!(addresses(&found.decision.register), [ISP]);
        detours += usize::from(found.hops.len() == 4);
    }
    assert!((1..20).contains(&detours), "{detours}");
}

#[test]
fn when_nobody_answers_the_failure_tells_every_question() {
    let mut lab = Lab::new(&[(ROOT, &[COUNTRY], 0)]);
    let error = lab.walk(&[ROOT], &server("10.1.0.0/16")).unwrap_err();
    let told: Vec<String> =
        error.hops.iter().map(|hop| format!("{} {}: {}", hop.depth, hop.asked, hop.outcome)).collect();
    assert_eq!(told, ["0 127.0.4.1:5632: 1 databases by country", "1 127.0.5.1:5632: connection refused"]);
}

#[test]
fn we_never_meet_ourselves() {
    let own = "192.0.2.9:5632";
    let mut lab = Lab::new(&[(ROOT, &[own, ISP], 16), (ISP, &[own], 16), (own, &[], 0)]);
    let found = lab.walk(&[ROOT, own], &database("10.1.0.0/16")).unwrap();
    assert_eq!(sets(&found.path), [[ROOT], [ISP]]);
    assert_eq!(
        (addresses(&found.decision.register), addresses(&found.decision.transfer)),
        (vec![ROOT.to_owned()], vec![ISP.to_owned()])
    );
    assert!(!lab.asked.contains(&own.to_owned()));
    let error = lab.walk(&[own], &database("10.1.0.0/16")).unwrap_err();
    assert!(error.to_string().ends_with("the roots: there is no root but ourselves"), "{error}");
}

#[test]
fn twins_that_came_before_their_country_find_it_and_stay_each_others_peers() {
    let own = "192.0.2.9:5632";
    let wide = "127.0.7.1:5632";
    // The root holds both of us: an answer has the longest match alone.
    for at_the_root in [&[own, ISP][..], &[own], &[ISP]] {
        let mut lab = Lab::new(&[(ROOT, at_the_root, 16), (COUNTRY, &[], 0), (ISP, &[], 0)]);
        let alone = lab.walk(&[ROOT], &database("10.1.0.0/16")).unwrap();
        assert_eq!(addresses(&alone.decision.register), [ROOT], "there is no country yet");
        assert_eq!(
            lab.targets[1], "/script/castgate.cgs?ACTION=QUERY&TYPE=TDS&COUNTRY=BE&NETWORK=0.0.0.0/0",
            "whose country it is is asked for"
        );
        lab.countries.insert(ROOT, vec![COUNTRY]);
        let found = lab.walk(&[ROOT], &database("10.1.0.0/16")).unwrap();
        assert_eq!(addresses(&found.decision.register), [COUNTRY]);
        let peers: &[&str] = if at_the_root.contains(&ISP) { &[ISP] } else { &[] };
        assert_eq!(addresses(&found.decision.transfer), peers, "whoever went on before us or not");
        // A wider network below the country, which has our twin already.
        lab.table.insert(COUNTRY.to_owned(), (vec![wide.to_owned()], 8));
        lab.table.insert(wide.to_owned(), (vec![ISP.to_owned(), own.to_owned()], 16));
        let found = lab.walk(&[ROOT], &database("10.1.0.0/16")).unwrap();
        assert_eq!(sets(&found.path), [[ROOT], [COUNTRY], [wide], [ISP]]);
        assert_eq!(addresses(&found.decision.register), [wide]);
    }
}

#[test]
fn a_question_for_the_country_that_fails_leaves_what_was_found() {
    let mut lab = Lab::new(&[(ROOT, &[ISP], 16), (ISP, &[], 0)]);
    lab.country_fails = true;
    let found = lab.walk(&[ROOT], &database("10.1.0.0/16")).unwrap();
    assert_eq!(sets(&found.path), [[ROOT], [ISP]]);
    for subject in [server("10.1.0.0/16"), Subject { country: None, ..database("10.1.0.0/16") }] {
        lab.walk(&[ROOT], &subject).unwrap();
        assert_eq!(lab.asked, [ROOT, ISP], "a server has no twins, and who has no country does not ask for it");
    }
}

#[test]
fn two_databases_that_name_each_other_end_the_way() {
    let mut lab = Lab::new(&[(ROOT, &[ISP], 8), (ISP, &[OTHER_ISP], 8), (OTHER_ISP, &[ISP, ROOT], 8)]);
    let found = lab.walk(&[ROOT], &server("10.1.0.0/16")).unwrap();
    assert_eq!(sets(&found.path), [[ROOT], [ISP], [OTHER_ISP]]);
}

#[test]
fn a_way_without_end_is_given_up() {
    let mut lab = Lab::new(&[]);
    lab.endless = true;
    let error = lab.walk(&[ROOT], &server("10.1.0.0/16")).unwrap_err();
    let sentence = HopOutcome::Failed("it names further databases after 16 steps".to_owned());
    assert!(error.hops.iter().any(|hop| hop.outcome == sentence && hop.depth == 15), "{error:?}");
    assert_eq!(lab.asked.len(), ASKS_MAX);
    assert!(error.to_string().ends_with("64 databases were asked before it"), "{error}");
}

#[test]
fn servers_smaller_networks_and_other_lengths_in_an_answer_lead_nowhere() {
    let mut lab = Lab::new(&[(ROOT, &[], 0), (ISP, &[], 0)]);
    let answer = |entry_type, address: &str, prefix_len| {
        let address: SocketAddr = address.parse().unwrap();
        Server {
            address: address.ip(),
            port: address.port(),
            entry_type,
            protocol: Some(Protocol::Tcp),
            prefix_len,
            fed_by: Vec::new(),
            scheme: Scheme::Http,
        }
    };
    lab.words.insert(
        ROOT,
        vec![
            answer(EntryType::TunnelServer, "127.0.2.1:10100", Some(16)),
            answer(EntryType::TunnelDatabase, "127.0.7.1:5632", Some(24)),
            answer(EntryType::TunnelDatabase, COUNTRY, Some(0)),
            answer(EntryType::TunnelDatabase, OTHER_ISP, None),
            answer(EntryType::TunnelDatabase, ISP, Some(12)),
            answer(EntryType::TunnelDatabase, ISP, Some(12)),
        ],
    );
    let found = lab.walk(&[ROOT], &server("10.1.0.0/16")).unwrap();
    assert_eq!(sets(&found.path), [[ROOT], [ISP]]);
    assert_eq!(found.path[1].matched, Some(12));
}

#[test]
fn an_answer_without_lengths_is_an_answer_by_country() {
    let mut lab = Lab::new(&[(ROOT, &[], 0), (ISP, &[], 0)]);
    let address: SocketAddr = ISP.parse().unwrap();
    let server = Server {
        address: address.ip(),
        port: address.port(),
        entry_type: EntryType::TunnelDatabase,
        protocol: None,
        prefix_len: None,
        fed_by: Vec::new(),
        scheme: Scheme::Http,
    };
    lab.words.insert(ROOT, vec![server]);
    let found = lab.walk(&[ROOT], &database("10.1.0.0/16")).unwrap();
    assert_eq!((addresses(&found.decision.register), found.decision.transfer.len()), (vec![ISP.to_owned()], 0));
}

#[test]
fn a_cached_path_saves_the_way_and_falls_back_to_the_roots() {
    let mut lab = Lab::new(&[(ROOT, &[COUNTRY], 0), (COUNTRY, &[ISP], 8), (ISP, &[], 0)]);
    let first = lab.walk(&[ROOT], &server("10.1.0.0/16")).unwrap();
    let cached = &first.path[..first.decision.step];

    lab.table.insert(COUNTRY.to_owned(), (vec![ISP.to_owned(), OTHER_ISP.to_owned()], 8));
    lab.table.insert(OTHER_ISP.to_owned(), (Vec::new(), 0));
    let again = lab.walk_from(&[ROOT], &server("10.1.0.0/16"), cached).unwrap();
    assert_eq!(addresses(&again.decision.register), [ISP, OTHER_ISP], "a new peer is found at the parent");
    assert_eq!(lab.asked.len(), 2, "and the root is not troubled: {:?}", lab.asked);
    assert_eq!(sets(&again.path).len(), 3, "the path is whole");

    // The country moved: its old address is dead, and the old root names it still. A new root has the new one.
    lab.table.remove(COUNTRY);
    lab.table.insert(OTHER_ROOT.to_owned(), (vec![OTHER_ISP.to_owned()], 8));
    let moved = lab.walk_from(&[OTHER_ROOT], &server("10.1.0.0/16"), cached).unwrap();
    assert_eq!(sets(&moved.path), [[OTHER_ROOT], [OTHER_ISP]]);
}

#[test]
fn results_that_nobody_waits_for_change_nothing() {
    let mut walk = Walk::new(vec![ROOT.parse().unwrap()], server("10.1.0.0/16"), &[], 1);
    let before = walk.step();
    walk.handle_service(Ok(vec![service("a.example", 1)]));
    walk.handle_addresses(Ok(vec!["127.0.0.1".parse().unwrap()]));
    assert_eq!(walk.step(), before);
    walk.handle_answer(Ok(Vec::new()));
    let end = walk.step();
    assert!(matches!(end, Step::Found(_)));
    walk.handle_answer(Err("late".to_owned()));
    assert_eq!(walk.step(), end);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_walk_ends_and_its_path_visits_nobody_twice(
        links in prop::collection::vec((prop::collection::vec(0_u8..24, 0..6), 0_u8..=20, any::<bool>()), 24),
        own in 0_u8..24,
        seed: u64,
        is_server: bool,
    ) {
        let name = |number: u8| format!("10.9.0.{number}:5632");
        let mut lab = Lab::new(&[]);
        lab.seed = seed;
        for (number, (below, matched, answers)) in (0..).zip(&links) {
            if *answers {
                lab.table.insert(name(number), (below.iter().map(|number| name(*number)).collect(), *matched));
            }
        }
        let own: SocketAddr = name(own).parse().unwrap();
        let subject = Subject { own: vec![own], ..if is_server { server("10.9.0.0/16") } else { database("10.9.0.0/16") } };
        let result = lab.walk(&[&name(0), &name(1), &name(2)], &subject);
        prop_assert!(lab.asked.len() <= ASKS_MAX);
        prop_assert!(!lab.asked.contains(&own.to_string()));
        if let Ok(found) = result {
            prop_assert!((1..=PATH_STEPS_MAX).contains(&found.path.len()));
            let all: Vec<String> = sets(&found.path).into_iter().flatten().collect();
            let once: HashSet<&String> = all.iter().collect();
            prop_assert_eq!(all.len(), once.len());
            prop_assert!(!found.decision.register.is_empty());
            prop_assert!(found.decision.transfer.iter().all(|peer| !found.decision.register.contains(peer)));
        }
    }
}

/// Databases as a table. Who is not in it refuses connections.
#[derive(Default)]
struct Lab {
    table: BTreeMap<String, (Vec<String>, u8)>,
    /// Answers in full, before the table.
    words: HashMap<&'static str, Vec<Server>>,
    /// Who knows databases of the country behind those of networks.
    countries: HashMap<&'static str, Vec<&'static str>>,
    /// Nobody answers who is asked for the country alone.
    country_fails: bool,
    services: HashMap<&'static str, Vec<ServiceTarget>>,
    names: HashMap<&'static str, Vec<&'static str>>,
    /// Everybody names two more.
    endless: bool,
    seed: u64,
    asked: Vec<String>,
    targets: Vec<String>,
}

impl Lab {
    fn new(table: &[(&str, &[&str], u8)]) -> Self {
        let row = |(who, below, matched): &(&str, &[&str], u8)| {
            ((*who).to_owned(), (below.iter().map(|text| (*text).to_owned()).collect(), *matched))
        };
        Self { table: table.iter().map(row).collect(), ..Self::default() }
    }

    fn walk(&mut self, roots: &[&str], subject: &Subject) -> Result<Found, DiscoverError> {
        self.walk_from(roots, subject, &[])
    }

    fn walk_from(&mut self, roots: &[&str], subject: &Subject, cached: &[PathStep]) -> Result<Found, DiscoverError> {
        self.asked.clear();
        self.targets.clear();
        let roots = roots.iter().map(|text| text.parse().unwrap()).collect();
        let mut walk = Walk::new(roots, subject.clone(), cached, self.seed);
        loop {
            match walk.step() {
                Step::ResolveService { name } => {
                    walk.handle_service(self.services.get(&*name).cloned().ok_or_else(none));
                }
                Step::ResolveAddress { name } => {
                    let found = self.names.get(&*name).ok_or_else(none);
                    walk.handle_addresses(found.map(|list| list.iter().map(|text| text.parse().unwrap()).collect()));
                }
                Step::Ask(ask) => {
                    let answer = self.answer(ask.address, ask.target.ends_with("NETWORK=0.0.0.0/0"));
                    self.asked.push(ask.address.to_string());
                    self.targets.push(ask.target);
                    walk.handle_answer(answer);
                }
                Step::Found(mut found) => {
                    found.path.iter_mut().for_each(|step| step.members.sort_by_key(|member| member.address));
                    found.decision.register.sort_by_key(|member| member.address);
                    return Ok(found);
                }
                Step::Failed(error) => return Err(error),
            }
        }
    }

    fn answer(&self, asked: SocketAddr, by_country: bool) -> Result<Vec<Server>, String> {
        let text = asked.to_string();
        if by_country && self.country_fails {
            return Err("timed out".to_owned());
        }
        if let Some(words) = self.words.get(&*text) {
            return Ok(words.clone());
        }
        let (below, matched) = if self.endless {
            let next = u32::try_from(self.asked.len()).unwrap() * 2;
            let names = [next + 1, next + 2].map(|number| format!("10.7.{}.{}:5632", number / 200, number % 200 + 1));
            (names.to_vec(), 8)
        } else if let Some(above) = self.countries.get(&*text).filter(|_| by_country) {
            (above.iter().map(|text| (*text).to_owned()).collect(), 0)
        } else {
            self.table.get(&text).cloned().ok_or("connection refused")?
        };
        let server = |text: &String| {
            let address: SocketAddr = text.parse().unwrap();
            Server {
                address: address.ip(),
                port: address.port(),
                entry_type: EntryType::TunnelDatabase,
                protocol: Some(Protocol::Tcp),
                prefix_len: Some(matched),
                fed_by: Vec::new(),
                scheme: Scheme::Http,
            }
        };
        Ok(below.iter().map(server).collect())
    }
}

fn none() -> String {
    "no such name".to_owned()
}

fn service(target: &str, port: u16) -> ServiceTarget {
    ServiceTarget { priority: 1, weight: 1, port, target: target.to_owned() }
}

fn server(range: &str) -> Subject {
    Subject { entry_type: EntryType::TunnelServer, ..database(range) }
}

fn database(range: &str) -> Subject {
    Subject {
        entry_type: EntryType::TunnelDatabase,
        range: Some(range.parse().unwrap()),
        country: Some("BE".parse().unwrap()),
        own: vec!["192.0.2.9:5632".parse().unwrap()],
        role: Role::Peer,
    }
}

fn sets(path: &[PathStep]) -> Vec<Vec<String>> {
    path.iter().map(|step| addresses(&step.members)).collect()
}

fn addresses(members: &[Member]) -> Vec<String> {
    members.iter().map(|member| member.address.to_string()).collect()
}
