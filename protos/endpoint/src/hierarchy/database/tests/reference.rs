//! The property: answers are those of a matcher written down as plainly as the rules.

use super::*;

/// The rules as plainly as they can be written: all entries, every time.
fn reference(entries: &[Entry], caller: IpAddr, query: &Query) -> (Option<Tier>, Vec<(String, Option<u8>)>) {
    let is_tds = |entry: &Entry| entry.key.entry_type == EntryType::TunnelDatabase;
    let ask_tds = query.entry_type == EntryType::TunnelDatabase;
    let usable = |entry: &&Entry| is_tds(entry) || (!ask_tds && query.protocol.matches(Some(&entry.key.protocol)));
    let range = if ask_tds { query.network } else { None }.unwrap_or_else(|| Prefix::from(caller));
    let specific = |entry: &Entry| entry.networks.iter().any(|network| network.prefix_len() > 0);
    let country_ok = |entry: &Entry| {
        entry.countries.is_empty() || query.country.is_some_and(|country| entry.countries.contains(&country))
    };
    let longest = |entry: &Entry| {
        let around = entry.networks.iter().filter(|network| network.prefix_len() > 0 && network.contains(&range));
        around.map(Prefix::prefix_len).max()
    };
    let finish = |tier, list: Vec<&Entry>, len: Option<u8>| {
        let any_tds = list.iter().any(|entry| is_tds(entry));
        let kept = list.into_iter().filter(|entry| !any_tds || is_tds(entry));
        let mut shown: Vec<_> = kept.map(|entry| (entry.key.to_string(), len)).collect();
        shown.sort();
        (Some(tier), shown)
    };

    let near: Vec<&Entry> = entries.iter().filter(usable).filter(|entry| country_ok(entry)).collect();
    if let Some(best) = near.iter().filter_map(|entry| longest(entry)).max() {
        let list = near.into_iter().filter(|entry| longest(entry) == Some(best)).collect();
        return finish(Tier::Network, list, ask_tds.then_some(best));
    }
    let wide: Vec<&Entry> = entries.iter().filter(usable).filter(|entry| !specific(entry)).collect();
    let of = |countries: &[Country]| -> Vec<&Entry> {
        let any = |entry: &&&Entry| entry.countries.iter().any(|country| countries.contains(country));
        wide.iter().filter(any).copied().collect()
    };
    if let Some(country) = query.country {
        let national = of(&[country]);
        if !national.is_empty() {
            return finish(Tier::Country, national, ask_tds.then_some(0));
        }
        let regions = Regions::default();
        let region: &[Country] = regions.of(country).map(Region::countries).unwrap_or_default();
        let regional = of(region);
        if !ask_tds && !regional.is_empty() {
            return finish(Tier::Region, regional, None);
        }
    }
    let is_public =
        |entry: &&Entry| entry.countries.is_empty() && entry.networks.iter().any(|network| network.prefix_len() == 0);
    let public: Vec<&Entry> = entries.iter().filter(usable).filter(is_public).collect();
    if !ask_tds && !public.is_empty() {
        return finish(Tier::Public, public, None);
    }
    (None, Vec::new())
}

#[derive(Debug, Clone)]
enum Op {
    Register(Register),
    Bye { source: u8, port: u16 },
    Pass(u64),
    Query(IpAddr, Query),
}

/// Few networks, addresses and countries, so that they meet.
fn network() -> impl Strategy<Value = Prefix> {
    prop_oneof![
        1 => Just("0.0.0.0/0".parse().unwrap()),
        1 => Just("::/0".parse().unwrap()),
        6 => (0_u8..4, prop_oneof![Just(1_u8), Just(8), Just(16), Just(17), Just(24), Just(32)])
            .prop_map(|(n, len)| Prefix::new(IpAddr::from([134, 184, n * 64, n]), len).unwrap().trunc()),
        1 => (0_u16..3, prop_oneof![Just(32_u8), Just(48), Just(128)])
            .prop_map(|(n, len)| Prefix::new(IpAddr::from([0x2001, 0xdb8, n, 0, 0, 0, 0, 1]), len).unwrap().trunc()),
    ]
}

fn country() -> impl Strategy<Value = Option<Country>> {
    prop::sample::select(vec![None, Some("BE"), Some("NL"), Some("GB"), Some("JP")])
        .prop_map(|code| code.map(|code| code.parse().unwrap()))
}

fn kind() -> impl Strategy<Value = EntryType> {
    prop::sample::select(vec![EntryType::TunnelServer, EntryType::TunnelDatabase])
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(vec![Protocol::Udp, Protocol::Tcp, Protocol::Amt])
}

fn op() -> impl Strategy<Value = Op> {
    let register = (kind(), 0_u8..6, 1_u16..3, protocol(), prop::collection::vec(network(), 0..4), country()).prop_map(
        |(entry_type, n, port, protocol, networks, country)| {
            let source = IpAddr::from([10, 0, 0, n]);
            {
                let fed_by = Vec::new();
                let (protocol, scheme) = (Some(protocol), castgate_wire::registry::Scheme::Http);
                Op::Register(Register { source, port, entry_type, protocol, networks, country, fed_by, scheme })
            }
        },
    );
    let caller = prop_oneof![
        4 => (0_u8..4, 0_u8..5).prop_map(|(a, b)| IpAddr::from([134, 184, a * 64, b])),
        1 => Just(IpAddr::from([192, 0, 2, 1])),
        1 => (0_u16..4).prop_map(|n| IpAddr::from([0x2001, 0xdb8, n, 0, 0, 0, 0, 1])),
    ];
    let filter = prop_oneof![Just(ProtocolFilter::All), protocol().prop_map(ProtocolFilter::Only)];
    let query = (caller, kind(), country(), filter, prop::option::of(network())).prop_map(
        |(caller, entry_type, country, protocol, network)| {
            Op::Query(caller, Query { entry_type, country, protocol, network })
        },
    );
    prop_oneof![
        6 => register,
        1 => (0_u8..6, 1_u16..3).prop_map(|(source, port)| Op::Bye { source, port }),
        2 => (1_u64..400).prop_map(Op::Pass),
        6 => query,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is registered, taken back and forgotten: answers are those of the plain rules over a plain list, the store
    /// that follows the changes holds that list, and nothing is left in the index when it is empty.
    #[test]
    fn answers_are_those_of_the_plain_rules(ops in prop::collection::vec(op(), 1..60)) {
        let mut lab = Lab::new();
        let mut model: BTreeMap<Key, (Entry, Instant)> = BTreeMap::new();
        let mut store: BTreeSet<String> = BTreeSet::new();
        for op in ops {
            match op {
                Op::Register(register) => {
                    if lab.database.register(lab.now, WALL, "be", &register).is_ok() {
                        let entry = Entry::of_register(&register, "be");
                        model.insert(entry.key.clone(), (entry, lab.now + Duration::from_mins(10)));
                    }
                }
                Op::Bye { source, port } => {
                    let source = IpAddr::from([10, 0, 0, source]);
                    let bye = Bye { source, port, entry_type: None, protocol: None, strict: false };
                    let before = model.len();
                    model.retain(|key, _| (key.source, key.port) != (source, port));
                    prop_assert_eq!(lab.database.bye(lab.now, "be", &bye), Ok(before - model.len()));
                }
                Op::Pass(seconds) => lab.pass(seconds),
                Op::Query(caller, query) => {
                    let entries: Vec<Entry> = model.values().map(|(entry, _)| entry.clone()).collect();
                    let (tier, expected) = reference(&entries, caller, &query);
                    let answer = lab.database.query(lab.now, WALL, Caller { address: caller, asked_at: None }, &query);
                    let shown = |server: &castgate_wire::registry::Server| {
                        let protocol = server.protocol.clone().unwrap();
                        let key = Key { entry_type: server.entry_type, source: server.address, port: server.port, protocol };
                        (key.to_string(), server.prefix_len)
                    };
                    let mut found: Vec<_> = answer.servers.iter().map(shown).collect();
                    found.sort();
                    prop_assert_eq!((answer.tier, found), (tier, expected));
                }
            }
            let now = lab.now;
            model.retain(|_, (_, deadline)| *deadline > now);
            lab.database.handle_timeout(now);
            for change in lab.changes() {
                match change.split_at(1) {
                    ("-", key) => _ = store.remove(key),
                    (_, key) => _ = store.insert(key.to_owned()),
                }
            }
            let held: BTreeSet<String> = lab.database.entries().map(|(entry, _)| entry.key.to_string()).collect();
            prop_assert_eq!(&held, &model.keys().map(ToString::to_string).collect());
            prop_assert_eq!(&held, &store);
        }
        lab.pass(600);
        lab.database.handle_timeout(lab.now);
        prop_assert!(lab.database.index.is_empty() && lab.database.logins.is_empty());
    }
}
