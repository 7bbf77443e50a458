//! The merged filter against the model, and what it costs.

use crate::bed::{numbered_group, source};
use crate::model::Model;
use castgate_endpoint::membership::Filter;
use castgate_endpoint::membership::merge::Merged;
use castgate_wire::membership::Family;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

fn filter() -> impl Strategy<Value = Filter> {
    (any::<bool>(), prop::collection::btree_set(0..6_u8, 0..6)).prop_map(|(is_exclude, numbers)| {
        let sources = numbers.into_iter().map(|number| source(Family::V4, number));
        if is_exclude { Filter::exclude(sources) } else { Filter::include(sources) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn after_every_change_the_merged_filter_is_the_model_and_changes_are_told_exactly_when_there_are_any(
        steps in prop::collection::vec((0..5_u8, 0..2_u8, filter(), 0..20_u8), 0..120),
    ) {
        let (mut merged, mut model) = (Merged::new(), Model::new());
        let mut told: BTreeMap<IpAddr, Filter> = BTreeMap::new();
        for (key, group, filter, action) in steps {
            let group = numbered_group(Family::V4, group);
            let changes = if action == 0 {
                for group in [0, 1].map(|group| numbered_group(Family::V4, group)) {
                    model.set(key, group, &Filter::nothing());
                }
                merged.remove(&key)
            } else {
                model.set(key, group, &filter);
                merged.set(key, group, (action > 1 || !filter.is_nothing()).then_some(filter)).into_iter().collect()
            };
            for change in changes {
                let before = told.get(&change.group).cloned();
                prop_assert_ne!(&before, &change.filter, "a change changes something");
                match change.filter {
                    Some(filter) => told.insert(change.group, filter),
                    None => told.remove(&change.group),
                };
            }
            for group in [0, 1].map(|group| numbered_group(Family::V4, group)) {
                model.assert_equals(group, told.get(&group), "told");
                prop_assert_eq!(merged.filter(group), told.get(&group));
            }
        }
        prop_assert_eq!(merged.groups().count(), told.len());
    }

    #[test]
    fn merging_two_filters_admits_what_either_admits(a in filter(), b in filter(), limit in 0..6_usize) {
        let merged = a.merge(&b);
        let limited = merged.clone().within(limit);
        for number in 0..8 {
            let source = source(Family::V4, number);
            prop_assert_eq!(merged.admits(source), a.admits(source) || b.admits(source));
            prop_assert!(limited.admits(source) || !merged.admits(source), "a limit takes nothing away");
        }
        prop_assert!(!limited.is_exclude() || limited.sources().len() <= limit);
        prop_assert_eq!(merged, b.merge(&a));
    }
}

/// 1000 groups of 128 sources. Half of them have a hundred endpoints each, which mostly agree; in the other half, one endpoint
/// alone decides, so that each of its changes is one of the merged filter. Counting over all would take 128 sources times a
/// hundred endpoints for each change.
#[test]
fn ten_thousand_changes_in_a_thousand_groups_take_far_less_than_the_second_in_which_they_may_come() {
    let mut merged = Merged::new();
    let group_of = |number: u32| IpAddr::from((0xe800_0000 + number).to_be_bytes());
    let all = |group: u32| (0..128).map(move |low: u32| IpAddr::from((0x0a00_0000 + group * 256 + low).to_be_bytes()));
    for group in 0..1000 {
        for key in 0..if group < 500 { 100 } else { 1_u32 } {
            let is_dissenter = key > 0 && key % 10 == 0;
            let without = usize::try_from(if is_dissenter { key } else { 0 }).unwrap();
            let sources = all(group).skip(without);
            merged.set(key, group_of(group), Some(Filter::include(sources)));
        }
    }
    assert_eq!(merged.len(), 50_500);
    let filters: Vec<(IpAddr, Filter)> = (0..10_000_u32)
        .map(|change| {
            let one = usize::try_from(change / 1000).unwrap();
            let sources = all(change % 1000).enumerate().filter(|(place, _)| *place != one).map(|(_, source)| source);
            // Every fifth round, everybody wants another mode.
            let filter = if one % 5 == 4 { Filter::exclude(sources) } else { Filter::include(sources) };
            (group_of(change % 1000), filter)
        })
        .collect();
    let began = Instant::now();
    let mut changes = 0;
    for (group, filter) in filters {
        changes += usize::from(merged.set(0, group, Some(filter)).is_some());
    }
    let took = began.elapsed();
    println!("10 000 changes took {took:?}, {changes} of them changed the merged filter");
    assert!(changes >= 5_000, "{changes}");
    // Without optimisation and on a busy machine it is a small part of this.
    assert!(took < Duration::from_secs(10), "{took:?}");
}
