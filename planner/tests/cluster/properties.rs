//! Whatever the facts are: the same plan again, nobody active outside of the pool, never more than wanted.

use std::collections::BTreeSet;

use castgate_crds::placement::TaintEffect;
use castgate_planner::cluster::{Fleet, NodeFacts, Taint};
use proptest::prelude::*;
use serde_json::json;

use crate::world::{World, name, server};

proptest! {
    // Each case judges all objects several times.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_facts_give_one_plan_and_good_snapshots(world in worlds()) {
        let (first, second) = (world.plan(), world.plan());
        prop_assert_eq!(&first, &second);
        let mut shuffled = world.clone();
        shuffled.objects.reverse();
        prop_assert_eq!(&first, &shuffled.plan());
        let titles: Vec<_> = first.workloads.iter().map(|workload| &workload.object["metadata"]).collect();
        prop_assert!(!titles.is_empty());
    }

    #[test]
    fn who_is_active_is_in_the_pool_and_as_many_as_can_be(world in worlds()) {
        let fleet = world.plan();
        let edge = server(&fleet, "edge");
        let pool: BTreeSet<_> = edge.pool.iter().collect();
        prop_assert!(edge.active.iter().all(|node| pool.contains(node)));
        let replicas = world.clone().spec("TunnelServer")["replicas"].as_u64();
        let limit = replicas.map_or(pool.len(), |replicas| pool.len().min(usize::try_from(replicas).unwrap()));
        prop_assert_eq!(edge.wanted, limit);
        let carries = |node: &str| world.facts.active[&("TunnelServer", name("edge"))].contains(node);
        let able = edge.pool.iter().filter(|node| {
            let facts = &world.facts.nodes[*node];
            facts.internal_ip.is_some() && (facts.ready || carries(node) || replicas.is_none())
        });
        prop_assert_eq!(edge.active.len(), able.count().min(limit));
        for node in &edge.active {
            let agent = format!("castgate/ts-edge@{node}");
            prop_assert!(fleet.snapshots[&agent].server.is_some());
        }
    }

    #[test]
    fn a_node_that_carries_tunnels_and_is_ready_loses_them_to_nobody(world in worlds()) {
        let fleet = world.plan();
        let edge = server(&fleet, "edge");
        let good = |node: &String| {
            let facts = &world.facts.nodes[node];
            facts.ready && facts.internal_ip.is_some()
        };
        let sticky: BTreeSet<_> =
            edge.pool.iter().filter(|node| world.facts.active[&("TunnelServer", name("edge"))].contains(*node) && good(node)).collect();
        let kept = edge.active.iter().filter(|node| sticky.contains(node)).count();
        prop_assert_eq!(kept, sticky.len().min(edge.wanted));
    }

    #[test]
    fn a_plan_that_came_true_is_planned_again(mut world in worlds()) {
        let first = world.settle();
        // A node that stands by and admits no new pods is in the pool no more.
        let second = world.settle();
        prop_assert_eq!(&server(&first, "edge").active, &server(&second, "edge").active);
        prop_assert_eq!(second, world.plan());
    }

    #[test]
    fn scaling_up_and_down_again_keeps_the_first_nodes(mut world in worlds(), few in 0_u32..4, more in 0_u32..4) {
        let mut scale = |replicas: u32| {
            world.spec("TunnelServer")["replicas"] = json!(replicas);
            world.settle()
        };
        let active = |fleet: Fleet| server(&fleet, "edge").active.clone();
        // What carried tunnels before anybody scaled is a matter of the past.
        scale(0);
        let small = active(scale(few));
        let large = active(scale(few + more));
        prop_assert!(small.iter().all(|node| large.contains(node)));
        prop_assert_eq!(active(scale(few)), small);
    }
}

/// The ISP on up to six nodes in every condition.
fn worlds() -> impl Strategy<Value = World> {
    let node = (any::<bool>(), prop::bool::weighted(0.7), prop::bool::weighted(0.8), any::<bool>(), 0..8_u8);
    let nodes = prop::collection::vec((node, any::<bool>()), 0..6);
    (nodes, prop::option::of(0..5_u32)).prop_map(|(nodes, replicas)| {
        let mut world = World::isp();
        world.facts.nodes.clear();
        let mut carrying = BTreeSet::new();
        for (index, ((labelled, ready, has_address, unschedulable, taint), carries)) in nodes.into_iter().enumerate() {
            let node = format!("n{}", index + 1);
            let mut facts = NodeFacts { ready, unschedulable, ..NodeFacts::default() };
            if labelled {
                facts.labels.insert("castgate.dev/tunnels".into(), "true".into());
            }
            facts.internal_ip = has_address.then(|| [10, 77, 0, 11 + u8::try_from(index).unwrap()].into());
            let effect = [TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule, TaintEffect::NoExecute];
            if let Some(effect) = effect.get(usize::from(taint)) {
                facts.taints.push(Taint { key: "video".into(), value: String::new(), effect: *effect });
            }
            if carries {
                carrying.insert(node.clone());
            }
            world.facts.nodes.insert(node, facts);
        }
        world.facts.active.insert(("TunnelServer", name("edge")), carrying);
        if let Some(replicas) = replicas {
            world.spec("TunnelServer")["replicas"] = json!(replicas);
        }
        world
    })
}
