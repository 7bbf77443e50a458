//! Each check against a cluster of a few objects.

use super::super::Verdict;
use super::*;
use crate::cluster::fleet;
use serde_json::json;

/// A cluster on which all is well.
fn healthy() -> Facts {
    let mut facts: BTreeMap<String, Vec<Value>> =
        serde_json::from_str(include_str!("../../fixtures/cluster.json")).expect("the fixture is JSON");
    let mut take = |name: &str| facts.remove(name).expect("the fixture has it");
    let isp = fleet::tests::isp();
    let mut fleet = Fleet { databases: isp.databases, ..Fleet::default() };
    fleet.servers.extend(isp.servers.into_iter().take(1));
    fleet.endpoints.extend(isp.endpoints.into_iter().filter(fleet::Endpoint::is_ready));
    let definitions = castgate_crds::all().into_iter().map(|definition| {
        let mut value = serde_json::to_value(definition).unwrap();
        value["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
        value
    });
    Facts {
        definitions: Some(Ok(definitions.collect())),
        operators: Some(Ok(take("operators"))),
        operator_pods: Some(Ok(take("operator_pods"))),
        leases: Some(Ok(take("leases"))),
        fleet: Some(Ok(fleet)),
        config_maps: Some(Ok(take("config_maps"))),
        workloads: Some(Ok(take("workloads"))),
        pods: Some(Ok(take("pods"))),
        services: Some(Ok(take("services"))),
        slices: Some(Ok(take("slices"))),
        now: "2026-11-26T11:00:10Z".parse::<Timestamp>().unwrap().as_second(),
    }
}

/// The one check that is not well.
fn failure(facts: &Facts) -> Check {
    let failed: Vec<_> = checks(facts).into_iter().filter(|check| check.verdict == Verdict::Failed).collect();
    assert_eq!(failed.len(), 1, "{failed:#?}");
    failed.into_iter().next().unwrap()
}

fn edit(list: &mut Option<Listed>) -> &mut Vec<Value> {
    list.as_mut().unwrap().as_mut().unwrap()
}

fn fleet_of(facts: &mut Facts) -> &mut Fleet {
    facts.fleet.as_mut().unwrap().as_mut().unwrap()
}

#[test]
fn a_healthy_cluster_passes_every_check() {
    let checks = checks(&healthy());
    assert!(checks.iter().all(|check| check.verdict == Verdict::Ok), "{checks:#?}");
    assert_eq!(checks.len(), 10);
}

#[test]
fn a_kind_that_is_missing_or_older_is_named() {
    let mut facts = healthy();
    edit(&mut facts.definitions).retain(|found| text(found, "/spec/names/kind") != "TunnelServer");
    assert_eq!(failure(&facts).says, "TunnelServer is missing");
    let mut facts = healthy();
    for found in edit(&mut facts.definitions) {
        let properties =
            found.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap();
        properties.as_object_mut().unwrap().remove("bundles");
    }
    assert!(failure(&facts).says.contains("TunnelServer is of another version: it has no spec.bundles"));
}

#[test]
fn an_operator_that_is_not_ready_tells_why_its_pod_is_not() {
    let mut facts = healthy();
    edit(&mut facts.operators)[0]["status"]["readyReplicas"] = 1.into();
    edit(&mut facts.operator_pods)[1]["status"] = json!({
        "phase": "Pending",
        "conditions": [{"type": "Ready", "status": "False"}, {"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}],
    });
    let says = failure(&facts).says;
    assert!(says.starts_with("castgate-system/castgate-operator: 1 of 2 replicas Ready"), "{says}");
    assert!(says.contains("ImagePullBackOff no such image"), "{says}");
    let mut facts = healthy();
    edit(&mut facts.operators)[0]["spec"]["replicas"] = 0.into();
    assert_eq!(failure(&facts).says, "castgate-system/castgate-operator is scaled to 0");
    edit(&mut facts.operators).clear();
    assert!(failure(&facts).advice.unwrap().contains("helm install"));
}

#[test]
fn a_lease_that_was_left_is_told_from_one_that_is_held() {
    let mut facts = healthy();
    facts.now += 600;
    assert!(failure(&facts).says.contains("has not renewed it for 605 s"), "{}", failure(&facts).says);
    let mut facts = healthy();
    edit(&mut facts.leases)[0]["spec"]["holderIdentity"] = "castgate-operator-gone".into();
    assert!(failure(&facts).says.contains("no such pod"));
    edit(&mut facts.leases)[0]["spec"]["holderIdentity"] = "".into();
    assert_eq!(failure(&facts).says, "nobody holds it");
    edit(&mut facts.leases).clear();
    assert!(failure(&facts).says.contains("ever"));
}

#[test]
fn a_namespace_whose_agents_trust_nobody_is_named() {
    let mut facts = healthy();
    edit(&mut facts.config_maps)[0]["data"] = json!({});
    assert!(failure(&facts).says.contains("in castgate: agents there trust nobody"));
}

#[test]
fn an_agent_that_cannot_be_placed_tells_what_the_scheduler_said() {
    let mut facts = healthy();
    edit(&mut facts.workloads)[0]["status"]["numberReady"] = 1.into();
    edit(&mut facts.pods)[0]["status"] = json!({
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: port taken"}],
    });
    let says = failure(&facts).says;
    assert!(says.contains("DaemonSet castgate/ts-brussels: 1 of 2 Ready"), "{says}");
    assert!(says.contains("0/3 nodes are available: port taken"), "{says}");
}

#[test]
fn what_agents_report_is_told_with_the_agent() {
    let lost = fleet::tests::isp().endpoints.into_iter().find(|endpoint| !endpoint.is_ready()).unwrap();
    let mut facts = healthy();
    fleet_of(&mut facts).endpoints.push(lost);
    let failed: Vec<_> = checks(&facts).into_iter().filter(|check| check.verdict == Verdict::Failed).collect();
    assert_eq!(failed.iter().map(|check| check.name).collect::<Vec<_>>(), ["streams", "registrations"]);
    assert!(failed[0].says.contains("castgate/ts-brussels-n2 on n2: StreamLost"));
    assert!(failed[1].says.ends_with("is refused: 403 the account may not register 192.0.2.2"), "{}", failed[1].says);
    let mut facts = healthy();
    fleet_of(&mut facts).endpoints[0].status.last_refusal = Some("server.listen: address in use".to_owned());
    assert_eq!(failure(&facts).says, "castgate/ts-brussels-n1: server.listen: address in use");
}

#[test]
fn a_database_behind_which_nothing_answers_is_named() {
    let mut facts = healthy();
    edit(&mut facts.slices)[0]["endpoints"][0]["conditions"]["ready"] = false.into();
    assert_eq!(failure(&facts).says, "nothing answers behind Service castgate/tdb-root");
    edit(&mut facts.services).clear();
    assert_eq!(failure(&facts).says, "castgate/root has no Service tdb-root");
}

#[test]
fn what_one_may_not_see_is_skipped_with_the_reason() {
    let mut facts = healthy();
    facts.definitions = Some(Err("you may not list customresourcedefinitions".to_owned()));
    let check = &checks(&facts)[0];
    assert_eq!((check.verdict, check.says.as_str()), (Verdict::Skipped, "you may not list customresourcedefinitions"));
}
