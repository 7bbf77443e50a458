//! Filters of endpoints and the legs that come of them.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const WORKERS: NonZeroUsize = NonZeroUsize::new(3).unwrap();
const LOCAL: &str = "192.0.2.1:2268";

#[test]
fn included_and_not_excluded_sources_have_the_legs_and_others_none() {
    let mut builder = builder();
    builder.filter(remote(1), group(), Some(SourceFilter::include([source(1), source(2)])));
    builder.filter(remote(2), group(), Some(SourceFilter::exclude([source(2)])));
    assert_eq!(legs(&builder, source(1)), [remote(1), remote(2)]);
    assert_eq!(legs(&builder, source(2)), [remote(1)]);
    assert_eq!(legs(&builder, source(3)), [remote(2)]);
    assert_eq!(builder.table.groups.get(&group()).unwrap().endpoints(), 2);
}

#[test]
fn a_published_table_does_not_see_later_edits() {
    let mut builder = builder();
    builder.filter(remote(1), group(), Some(SourceFilter::exclude([])));
    let published = builder.build();
    builder.filter(remote(1), group(), None);
    assert!(published.groups.get(&group()).is_some());
    assert_eq!(published.amt_legs.iter().sum::<usize>(), 1);
    assert!(builder.build().groups.get(&group()).is_none());
    assert_eq!(builder.build().amt_legs, [0; 3]);
}

#[test]
fn an_endpoint_that_comes_by_another_address_keeps_its_filters_and_one_that_ends_loses_them() {
    let mut builder = builder();
    builder.filter(remote(1), group(), Some(SourceFilter::exclude([])));
    builder.endpoint_up(remote(1), "[2001:db8::1]:2268".parse().unwrap(), true);
    let table = builder.build();
    let members = &table.groups.get(&group()).unwrap().members;
    let legs: Vec<_> = members.iter().flat_map(|members| members.legs(source(1)).iter()).collect();
    let [(_, AmtLeg { listener, from, ecn, .. })] = legs[..] else { panic!("one leg") };
    assert_eq!((*listener, *from, *ecn), (1, Some("2001:db8::1".parse().unwrap()), true));
    builder.endpoint_down(remote(1));
    assert!(builder.build().groups.get(&group()).is_none());
}

#[test]
fn an_endpoint_at_no_address_of_ours_or_unknown_changes_nothing() {
    let mut builder = builder();
    builder.endpoint_up(remote(9), "192.0.2.9:2268".parse().unwrap(), false);
    builder.filter(remote(9), group(), Some(SourceFilter::exclude([])));
    builder.filter(remote(1), group(), Some(SourceFilter::include([])));
    assert!(builder.build().groups.get(&group()).is_none());
    assert_eq!(builder.build().endpoints.iter().count(), 2);
}

#[test]
fn a_leg_sits_with_the_worker_that_the_kernel_steers_its_endpoint_to() {
    let mut builder = builder();
    for last in 1..=20 {
        builder.endpoint_up(remote(last), LOCAL.parse().unwrap(), false);
        builder.filter(remote(last), group(), Some(SourceFilter::exclude([])));
    }
    let table = builder.build();
    for (worker, members) in table.groups.get(&group()).unwrap().members.iter().enumerate() {
        for (_, leg) in members.legs(source(1)).iter() {
            assert_eq!(shard_of(leg.endpoint.remote.ip(), WORKERS), worker);
        }
    }
}

fn any_filter() -> impl Strategy<Value = Option<SourceFilter>> {
    let sources = || proptest::collection::btree_set(0..6_u8, 0..6);
    prop_oneof![
        Just(None),
        sources().prop_map(|sources| Some(SourceFilter::include(sources.into_iter().map(source)))),
        sources().prop_map(|sources| Some(SourceFilter::exclude(sources.into_iter().map(source)))),
    ]
}

proptest! {
    #[test]
    fn whatever_was_edited_the_legs_are_those_of_the_last_filters(
        edits in proptest::collection::vec((1..5_u8, any_filter()), 1..40),
    ) {
        let mut builder = builder();
        for last in 1..5 {
            builder.endpoint_up(remote(last), LOCAL.parse().unwrap(), false);
        }
        let mut filters = BTreeMap::new();
        for (last, filter) in edits {
            builder.filter(remote(last), group(), filter.clone());
            filters.insert(remote(last), filter);
            for number in 0..7 {
                let wanted: Vec<_> = filters
                    .iter()
                    .filter(|(_, filter)| filter.as_ref().is_some_and(|filter| filter.admits(source(number))))
                    .map(|(remote, _)| *remote)
                    .collect();
                prop_assert_eq!(legs(&builder, source(number)), wanted);
            }
            let members = filters.values().flatten().filter(|filter| !filter.is_nothing()).count();
            prop_assert_eq!(builder.table.amt_legs.iter().sum::<usize>(), members);
            prop_assert_eq!(builder.table.groups.iter().count(), usize::from(members > 0));
        }
    }
}

fn builder() -> TableBuilder {
    let mut builder = TableBuilder::new(WORKERS);
    builder.listeners = vec![LOCAL.parse().unwrap(), "[::]:2268".parse().unwrap()].into();
    builder.endpoint_up(remote(1), LOCAL.parse().unwrap(), false);
    builder.endpoint_up(remote(2), LOCAL.parse().unwrap(), false);
    builder
}

fn group() -> IpAddr {
    IpAddr::from([232, 1, 1, 1])
}

fn remote(last: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, last], 40_000))
}

fn source(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn legs(builder: &TableBuilder, source: IpAddr) -> Vec<SocketAddr> {
    let Some(entry) = builder.table.groups.get(&group()) else { return Vec::new() };
    let legs = entry.members.iter().flat_map(|members| members.legs(source).iter());
    let remotes: BTreeSet<_> = legs.map(|(_, leg)| leg.endpoint.remote).collect();
    remotes.into_iter().collect()
}
