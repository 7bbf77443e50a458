//! Sockets in a namespace of their own.

use super::*;
use proptest::prelude::*;

const LOOPBACK: u32 = 1;

#[test]
fn twelve_sources_take_two_sockets_and_twenty_five_groups_two_and_give_them_back() {
    let mut lab = Lab::new();
    lab.set(group(1), Some(SourceFilter::include((1..=12).map(source))));
    assert_eq!(lab.sockets(), 2);
    for last in 2..=25 {
        lab.set(group(last), Some(SourceFilter::exclude([])));
    }
    // Twenty in the first, the rest beside the two sources in the second.
    assert_eq!(lab.sockets(), 2);
    for last in 1..=25 {
        lab.set(group(last), None);
    }
    assert_eq!((lab.sockets(), lab.natives.held.len()), (0, 0));
}

#[test]
fn the_kernel_holds_what_was_asked_for() {
    let mut lab = Lab::new();
    let group = IpAddr::from([239, 99, 7, 1]);
    let kernel = || {
        let text = std::fs::read_to_string("/proc/net/mcfilter").unwrap();
        let lines = text.lines().filter(|line| line.contains("0xef630701"));
        let columns = lines.map(|line| {
            let columns: Vec<&str> = line.split_whitespace().skip(3).collect();
            let source = u32::from_str_radix(columns[0].trim_start_matches("0x"), 16).unwrap().to_be_bytes();
            (source[3], columns[1] != "0")
        });
        columns.collect::<BTreeSet<_>>()
    };
    lab.set(group, Some(SourceFilter::include([source(1), source(2)])));
    assert_eq!(kernel(), [(1, true), (2, true)].into());
    lab.set(group, Some(SourceFilter::exclude([source(2), source(3)])));
    assert_eq!(kernel(), [(2, false), (3, false)].into());
    lab.set(group, Some(SourceFilter::exclude((1..=11).map(source))));
    assert_eq!(kernel(), [].into(), "more than ten cannot be said: everything is taken");
    assert_eq!(lab.memberships(), [(group, "lo".to_owned(), SourceFilter::exclude([]))]);
    lab.set(group, Some(SourceFilter::include([source(5)])));
    assert_eq!(kernel(), [(5, true)].into());
}

#[test]
fn a_refused_membership_is_told_once_and_tried_again() {
    let mut lab = Lab::new();
    let gone = [(LOOPBACK, "lo".to_owned()), (1_000_000, "gone0".to_owned())];
    lab.set_interfaces(&gone);
    lab.set(group(1), Some(SourceFilter::exclude([])));
    lab.set(group(1), Some(SourceFilter::include([source(1)])));
    assert_eq!(lab.refused.len(), 1);
    assert_eq!((lab.refused[0].group, &*lab.refused[0].interface), (group(1), "gone0"));
    lab.natives.retry();
    assert!(lab.natives.has_refusals());
    assert_eq!(lab.memberships(), [(group(1), "lo".to_owned(), SourceFilter::include([source(1)]))]);
    lab.set_interfaces(&gone[..1]);
    assert!(!lab.natives.has_refusals());
    lab.set_interfaces(&[]);
    assert_eq!((lab.sockets(), lab.memberships().len()), (0, 0));
}

#[test]
fn ipv6_groups_have_sockets_of_their_own() {
    let mut lab = Lab::new();
    let v6: IpAddr = "ff3e::8000:1".parse().unwrap();
    lab.set(v6, Some(SourceFilter::include(["2001:db8::1".parse().unwrap()])));
    lab.set(group(1), Some(SourceFilter::exclude([])));
    assert_eq!((lab.sockets(), lab.memberships().len()), (2, 2));
    assert!(lab.refused.is_empty());
}

fn any_filter() -> impl Strategy<Value = Option<SourceFilter>> {
    let sources = || proptest::collection::btree_set(1..30_u8, 0..25);
    prop_oneof![
        Just(None),
        sources().prop_map(|sources| Some(SourceFilter::include(sources.into_iter().map(source)))),
        sources().prop_map(|sources| Some(SourceFilter::exclude(sources.into_iter().map(source)))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_was_asked_for_before_the_last_filter_is_held_and_nothing_is_refused(
        edits in proptest::collection::vec((1..4_u8, any_filter()), 1..20),
    ) {
        let mut lab = Lab::new();
        let mut wanted = BTreeMap::new();
        for (last, filter) in edits {
            lab.set(group(last), filter.clone());
            wanted.insert(group(last), filter);
        }
        let expected: Vec<_> = wanted
            .into_iter()
            .filter_map(|(group, filter)| Some((group, filter.filter(|filter| !filter.is_nothing())?)))
            .map(|(group, filter)| match filter {
                SourceFilter::Exclude(sources) if sources.len() > 10 => (group, SourceFilter::exclude([])),
                filter => (group, filter),
            })
            .map(|(group, filter)| (group, "lo".to_owned(), filter))
            .collect();
        prop_assert_eq!(lab.memberships(), expected);
        prop_assert!(lab.refused.is_empty());
        let places: usize = lab.natives.held.values().map(Vec::len).sum();
        let counted: usize = lab.natives.slots.iter().flatten().map(|slot| slot.places).sum();
        prop_assert_eq!(places, counted);
    }
}

struct Lab {
    natives: Natives,
    refused: Vec<Refused>,
}

impl Lab {
    fn new() -> Self {
        let mut lab = Self { natives: Natives::default(), refused: Vec::new() };
        lab.set_interfaces(&[(LOOPBACK, "lo".to_owned())]);
        lab
    }

    fn set(&mut self, group: IpAddr, filter: Option<SourceFilter>) {
        self.natives.set(group, filter, &mut |refused| self.refused.push(refused));
    }

    fn set_interfaces(&mut self, interfaces: &[(u32, String)]) {
        self.natives.set_interfaces(interfaces.iter().cloned(), &mut |refused| self.refused.push(refused));
    }

    fn memberships(&self) -> Vec<(IpAddr, String, SourceFilter)> {
        self.natives.memberships().collect()
    }

    fn sockets(&self) -> usize {
        self.natives.slots.iter().flatten().count()
    }
}

fn group(last: u8) -> IpAddr {
    IpAddr::from([239, 99, 6, last])
}

fn source(last: u8) -> IpAddr {
    IpAddr::from([127, 99, 0, last])
}
