//! Where tunnel servers run, and what their agents are told.

use castgate_crds::placement::TaintEffect;
use castgate_planner::cluster::Fleet;
use serde_json::json;

use crate::world::{World, name, server, snapshot, titles};

#[test]
fn every_node_of_the_pool_carries_tunnels_at_its_own_address() {
    let fleet = World::isp().plan();
    let edge = server(&fleet, "edge");
    assert_eq!(
        (edge.pool.as_slice(), edge.active.as_slice(), edge.wanted),
        (&nodes("n1 n2")[..], &nodes("n1 n2")[..], 2)
    );
    assert_eq!(listens(&fleet, "edge"), ["n1 10.77.0.11:10100", "n2 10.77.0.12:10100"]);
    assert!(edge.problems.is_empty() && fleet.held.is_empty());
    assert!(!fleet.snapshots.contains_key("castgate/ts-edge@n3"), "a node without the label has no agent");
}

#[test]
fn a_label_that_moves_takes_the_agent_along() {
    let mut world = World::isp();
    world.settle();
    let label = world.node("n1").labels.pop_first().unwrap();
    world.node("n3").labels.extend([label]);
    let fleet = world.plan();
    assert_eq!(listens(&fleet, "edge"), ["n2 10.77.0.12:10100", "n3 10.77.0.13:10100"]);
    assert!(!fleet.snapshots.contains_key("castgate/ts-edge@n1"));
}

#[test]
fn scaling_up_and_down_again_keeps_the_first_node() {
    let mut world = World::isp();
    let mut active = |replicas: u32| {
        world.spec("TunnelServer")["replicas"] = json!(replicas);
        let fleet = world.settle();
        assert_eq!(server(&fleet, "edge").pool, nodes("n1 n2"), "standing by is being in the pool");
        server(&fleet, "edge").active.clone()
    };
    assert_eq!([active(1), active(2), active(1), active(0)], [nodes("n1"), nodes("n1 n2"), nodes("n1"), nodes("")]);
}

#[test]
fn an_agent_that_stands_by_is_told_to_do_nothing() {
    let mut world = World::isp();
    world.spec("TunnelServer")["replicas"] = json!(1);
    let fleet = world.plan();
    let idle = snapshot(&fleet, "castgate/ts-edge@n2");
    assert!(idle.server.is_none() && idle.registrar.is_none() && idle.patterns.is_empty());
}

#[test]
fn a_node_that_carries_tunnels_keeps_them_when_another_one_comes() {
    let mut world = World::isp();
    world.spec("TunnelServer")["replicas"] = json!(1);
    world.carrying("edge", &["n2"]);
    assert_eq!(server(&world.plan(), "edge").active, nodes("n2"));
}

#[test]
fn a_node_that_is_not_ready_is_replaced_and_only_then() {
    let mut world = World::isp();
    world.spec("TunnelServer")["replicas"] = json!(1);
    world.carrying("edge", &["n1"]);
    world.node("n1").ready = false;
    assert_eq!(server(&world.plan(), "edge").active, nodes("n2"));
    // Nobody could take its place: it may well serve its clients, whatever the cluster thinks.
    world.node("n2").ready = false;
    assert_eq!(server(&world.plan(), "edge").active, nodes("n1"));
}

#[test]
fn a_node_that_comes_back_does_not_push_out_the_one_that_replaced_it() {
    let mut world = World::isp();
    world.spec("TunnelServer")["replicas"] = json!(1);
    world.settle();
    world.node("n1").ready = false;
    assert_eq!(server(&world.settle(), "edge").active, nodes("n2"));
    // It was cut off, and did not hear that it should stand by: for a moment both carry tunnels.
    world.node("n1").ready = true;
    world.carrying("edge", &["n1", "n2"]);
    assert_eq!(server(&world.plan(), "edge").active, nodes("n2"));
}

#[test]
fn without_replicas_a_node_that_is_not_ready_stays_planned() {
    let mut world = World::isp();
    world.node("n1").ready = false;
    world.taint("n1", "node.kubernetes.io/unreachable", TaintEffect::NoSchedule);
    world.taint("n1", "node.kubernetes.io/unreachable", TaintEffect::NoExecute);
    assert_eq!(server(&world.plan(), "edge").active, nodes("n1 n2"));
}

#[test]
fn a_cordon_is_not_a_drain() {
    let mut world = World::isp();
    world.node("n1").unschedulable = true;
    world.taint("n1", "node.kubernetes.io/unschedulable", TaintEffect::NoSchedule);
    assert_eq!(server(&world.plan(), "edge").active, nodes("n1 n2"));
}

#[test]
fn taints_keep_agents_away_unless_tolerated() {
    let table = [
        (json!([]), TaintEffect::NoSchedule, "n2"),
        (json!([]), TaintEffect::NoExecute, "n2"),
        (json!([]), TaintEffect::PreferNoSchedule, "n1 n2"),
        (json!([{ "operator": "Exists" }]), TaintEffect::NoExecute, "n1 n2"),
        (json!([{ "key": "video", "operator": "Exists" }]), TaintEffect::NoExecute, "n1 n2"),
        (json!([{ "key": "video", "value": "" }]), TaintEffect::NoSchedule, "n1 n2"),
        (json!([{ "key": "video", "value": "4k" }]), TaintEffect::NoSchedule, "n2"),
        (json!([{ "key": "audio", "operator": "Exists" }]), TaintEffect::NoSchedule, "n2"),
        (json!([{ "key": "video", "operator": "Exists", "effect": "NoSchedule" }]), TaintEffect::NoExecute, "n2"),
        (json!([{ "key": "video", "operator": "Exists", "effect": "NoExecute" }]), TaintEffect::NoExecute, "n1 n2"),
    ];
    for (tolerations, effect, expected) in table {
        let mut world = World::isp();
        world.taint("n1", "video", effect);
        world.spec("TunnelServer")["tolerations"] = tolerations.clone();
        assert_eq!(server(&world.plan(), "edge").pool, nodes(expected), "{tolerations} {effect:?}");
    }
}

#[test]
fn a_taint_that_forbids_only_beginning_ends_nothing() {
    let mut world = World::isp();
    world.carrying("edge", &["n1"]);
    world.taint("n1", "video", TaintEffect::NoSchedule);
    assert_eq!(server(&world.plan(), "edge").active, nodes("n1 n2"), "Kubernetes leaves the pod where it is");
    world.taint("n1", "video", TaintEffect::NoExecute);
    assert_eq!(server(&world.plan(), "edge").active, nodes("n2"));
}

#[test]
fn the_address_type_says_which_address_is_meant() {
    let mut world = World::isp();
    world.spec("TunnelServer")["umtp"] = json!({ "addressType": "ExternalIP", "port": 10_200 });
    world.node("n2").external_ip = Some("192.0.2.2".parse().unwrap());
    let fleet = world.plan();
    assert_eq!(listens(&fleet, "edge"), ["n2 192.0.2.2:10200"]);
    let edge = server(&fleet, "edge");
    assert_eq!((edge.active.clone(), edge.wanted), (nodes("n2"), 2));
    assert_eq!(
        edge.problems["n1"],
        "node n1 has no ExternalIP of version 4 to listen on: name spec.umtp.address, or choose spec.umtp.addressType: InternalIP"
    );
}

#[test]
fn an_address_that_is_named_is_on_the_node_that_has_it() {
    let mut world = World::isp();
    world.spec("TunnelServer")["umtp"] = json!({ "address": "10.77.0.12" });
    let fleet = world.plan();
    assert_eq!(listens(&fleet, "edge"), ["n2 10.77.0.12:10100"]);
    assert_eq!(
        server(&fleet, "edge").problems["n1"],
        "spec.umtp.address 10.77.0.12 is on node n2, and can be on one node only: leave it out, so that every node uses its \
         own, or set spec.replicas to 1"
    );
    world.spec("TunnelServer")["replicas"] = json!(1);
    assert!(server(&world.plan(), "edge").problems.is_empty());
}

#[test]
fn two_servers_on_one_node_do_not_share_a_port() {
    let mut world = World::isp();
    let mut other = world.objects.iter().find(|object| object["kind"] == "TunnelServer").unwrap().clone();
    other["metadata"]["name"] = json!("another");
    world.objects.push(other.clone());
    world.carrying("edge", &["n1", "n2"]);
    let fleet = world.plan();
    assert_eq!(listens(&fleet, "edge").len(), 2, "who was there first keeps its place, whatever its name");
    assert_eq!(listens(&fleet, "another"), [""; 0]);
    assert_eq!(
        server(&fleet, "another").problems["n1"],
        "UDP 10.77.0.11:10100 of node n1 is taken: TunnelServer castgate/edge listens there"
    );
    world.objects.last_mut().unwrap()["spec"]["umtp"] = json!({ "port": 10_200 });
    assert_eq!(listens(&world.plan(), "another").len(), 2);
}

#[test]
fn a_pattern_is_sent_by_the_first_active_node_alone() {
    let mut world = World::isp();
    world.spec("ChannelBundle")["channels"][1]["pattern"] = json!("1Mbit");
    world.spec("TunnelServer")["replicas"] = json!(1);
    world.carrying("edge", &["n2"]);
    assert_eq!(patterns(&world.plan()), ["castgate/ts-edge@n2 239.1.2.4:5004"]);
    world.spec("TunnelServer").as_object_mut().unwrap().remove("replicas");
    assert_eq!(patterns(&world.plan()), ["castgate/ts-edge@n1 239.1.2.4:5004"]);
}

#[test]
fn a_pattern_with_a_source_is_sent_by_the_node_that_has_it_or_by_nobody() {
    let mut world = World::isp();
    let channel =
        json!({ "name": "news", "group": "232.1.2.3", "source": "10.77.0.12", "port": 5004, "pattern": "1Mbit" });
    world.spec("ChannelBundle")["channels"][0] = channel;
    assert_eq!(patterns(&world.plan()), ["castgate/ts-edge@n2 232.1.2.3@10.77.0.12:5004"]);
    world.spec("ChannelBundle")["channels"][0]["source"] = json!("10.77.0.100");
    let fleet = world.plan();
    assert_eq!(patterns(&fleet), [""; 0]);
    assert_eq!(listens(&fleet, "edge").len(), 2, "an agent that was told to send it would refuse everything else too");
    assert_eq!(
        server(&fleet, "edge").problems["n1"],
        "the pattern of channel tv/news is not sent: no active node is known to have its source 10.77.0.100"
    );
}

#[test]
fn a_namespace_that_forbids_the_network_of_nodes_gets_no_server() {
    for level in ["baseline", "restricted"] {
        let mut world = World::isp();
        world.facts.namespaces.get_mut("castgate").unwrap().enforce = Some(level.into());
        let fleet = world.plan();
        let refused = server(&fleet, "edge").refused.as_ref().unwrap();
        assert_eq!(refused.reason, "HostNetworkForbidden");
        assert_eq!(
            refused.message,
            format!(
                "namespace castgate enforces Pod Security \"{level}\", which forbids the network of the node (hostNetwork): \
                 label it pod-security.kubernetes.io/enforce=privileged, or put the TunnelServer into another namespace"
            )
        );
        assert!(!titles(&fleet).contains(&"DaemonSet ts-edge".to_owned()));
        assert!(titles(&fleet).contains(&"StatefulSet tdb-isp".to_owned()), "a database needs no node");
    }
    let mut world = World::isp();
    world.facts.namespaces.clear();
    assert!(server(&world.plan(), "edge").refused.is_none(), "a namespace without the label forbids nothing");
}

#[test]
fn a_mistake_leaves_everything_as_it_was() {
    let mut world = World::isp();
    let before = world.settle();
    world.spec("TunnelServer")["bundles"] = json!([{ "name": "vt" }]);
    let fleet = world.plan();
    assert!(fleet.held.contains(&("TunnelServer", name("edge"))));
    assert!(!fleet.servers.contains_key(&("TunnelServer", name("edge"))));
    assert_eq!(fleet.snapshots, before.snapshots, "its agents and the adapter go on as before");
    assert!(!titles(&fleet).contains(&"DaemonSet ts-edge".to_owned()), "what is held is not applied");
}

#[test]
fn an_object_that_nobody_knows_is_not_planned() {
    let world = World::isp();
    let fleet =
        castgate_planner::cluster::fleet(&world.judged(), &castgate_planner::cluster::Metas::new(), &world.facts);
    assert_eq!((fleet.workloads.len(), fleet.servers.len(), fleet.databases.len()), (0, 0, 0));
}

fn nodes(names: &str) -> Vec<String> {
    names.split_whitespace().map(str::to_owned).collect()
}

/// `node address` of every agent of a server that carries tunnels.
fn listens(fleet: &Fleet, server: &str) -> Vec<String> {
    let agents = fleet.snapshots.iter().filter_map(|(agent, snapshot)| {
        let node = agent.strip_prefix(&format!("castgate/ts-{server}@"))?;
        Some(format!("{node} {}", snapshot.server.as_ref()?.listen))
    });
    agents.collect()
}

fn patterns(fleet: &Fleet) -> Vec<String> {
    let of = |(agent, snapshot): (&String, &castgate_control::AgentSnapshot)| {
        let sent = snapshot.patterns.iter().map(|pattern| format!("{agent} {}", pattern.channel));
        sent.collect::<Vec<_>>()
    };
    fleet.snapshots.iter().flat_map(of).collect()
}
