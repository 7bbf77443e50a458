//! Objects of a cluster: a bad one takes only those with it that need it.

use castgate_planner::{Judged, judge};
use serde_json::{Value, json};

#[test]
fn good_objects_are_all_there() {
    let judged = judge(fleet());
    assert_eq!(said(&judged), [""; 0]);
    let objects = &judged.objects;
    let counts = (objects.servers().len(), objects.databases().len(), objects.accounts().len());
    assert_eq!((counts, objects.bundles().len(), objects.secrets().len()), ((1, 2, 2), 1, 2));
}

#[test]
fn what_an_api_server_adds_is_no_mistake() {
    let dressed = fleet().into_iter().map(|mut object| {
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.insert("uid".into(), json!("c0ffee"));
        metadata.insert("generation".into(), json!(3));
        metadata.insert("managedFields".into(), json!([{ "manager": "kubectl", "operation": "Apply" }]));
        metadata.insert("somethingOfNextYear".into(), json!(true));
        if object["apiVersion"] == "castgate.dev/v1alpha1" {
            object["status"] = json!({ "conditions": [{ "type": "Ready" }], "whatever": 1 });
        }
        object
    });
    assert_eq!(judge(dressed), judge(fleet()));
}

/// Whatever one object holds, only it and those that need it have a problem.
#[test]
fn one_object_with_nonsense_never_stops_the_others() {
    let nonsense =
        [json!(null), json!(7), json!("x"), json!([]), json!({}), json!({ "channels": [null, 3, { "group": {} }] })];
    for spec in nonsense {
        for kind in ["ChannelBundle", "TunnelAccount", "TunnelDatabase", "TunnelServer"] {
            let bad = json!({
                "apiVersion": "castgate.dev/v1alpha1", "kind": kind,
                "metadata": { "name": "bad", "namespace": "castgate" }, "spec": spec,
            });
            let judged = judge(fleet().into_iter().chain([bad]));
            // A database with nothing in its spec is a good one.
            if kind == "TunnelDatabase" && spec.is_object() && spec == json!({}) {
                assert_eq!(judged.problems.len(), 0, "{:?}", said(&judged));
                continue;
            }
            let named: Vec<_> = judged.problems.keys().map(|(kind, name)| (*kind, name.name.as_str())).collect();
            assert_eq!(named, [(kind, "bad")], "{spec}: {:?}", said(&judged));
            assert_eq!(judged.objects, judge(fleet()).objects, "{kind} {spec}");
        }
    }
}

#[test]
fn what_is_no_object_of_ours_is_passed_over() {
    let strange = [
        json!(null),
        json!([]),
        json!({ "kind": "TunnelServer" }),
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a", "namespace": "castgate" } }),
        json!({ "apiVersion": "castgate.dev/v1beta7", "kind": "TunnelServer", "metadata": { "name": "a" } }),
    ];
    assert_eq!(judge(strange), Judged::default());
}

#[test]
fn who_names_a_bad_object_has_a_problem_and_so_on_upward() {
    let judged = judge(changed("TunnelDatabase/root", "/spec/updateInterval", json!("soon")));
    let expected = [
        "TunnelAccount castgate/at-root: spec.databaseRef.name: TunnelDatabase castgate/root has a problem itself",
        "TunnelAccount castgate/at-belgium: spec.databaseRef.name: TunnelDatabase castgate/belgium has a problem itself",
        "TunnelDatabase castgate/belgium: spec.hierarchy.parents[0].databaseRef.name: TunnelDatabase castgate/root has a problem itself",
        "TunnelDatabase castgate/root: spec.updateInterval: \"soon\" is not a span of time such as 500ms, 60s, 5m or 1h",
        "TunnelServer castgate/brussels: spec.hierarchy.parents[0].databaseRef.name: TunnelDatabase castgate/belgium has a problem itself",
    ];
    let mut said = said(&judged);
    said.sort();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(said, expected);
    assert_eq!(judged.objects.bundles().len(), 1, "the bundle needs nobody");
}

#[test]
fn a_server_of_a_bad_bundle_has_a_problem() {
    let judged = judge(changed("ChannelBundle/demo", "/spec/channels/0/group", json!("10.1.2.3")));
    assert_eq!(
        said(&judged),
        [
            "ChannelBundle castgate/demo: spec.channels[0].group: 10.1.2.3 is not a multicast group: those are 224.0.0.0/4 and ff00::/8",
            "TunnelServer castgate/brussels: spec.bundles[0].name: ChannelBundle castgate/demo has a problem itself",
        ]
    );
}

#[test]
fn a_bad_account_leaves_its_database_alone_and_stops_who_logs_in_with_it() {
    let judged = judge(changed("TunnelAccount/at-belgium", "/spec/allow/networks", json!(["10.0.0.1/8"])));
    assert_eq!(
        said(&judged),
        [
            "TunnelAccount castgate/at-belgium: spec.allow.networks[0]: 10.0.0.1/8 has host bits: 10.0.0.0/8 is meant",
            "TunnelServer castgate/brussels: spec.hierarchy.parents[0].credentialsSecretRef.name: \
             TunnelAccount castgate/at-belgium, whose login this is, has a problem itself",
        ]
    );
    assert_eq!(judged.objects.databases().len(), 2);
}

#[test]
fn a_login_without_an_account_is_a_problem_of_who_registers() {
    let without: Vec<_> = fleet().into_iter().filter(|object| object["metadata"]["name"] != "at-belgium").collect();
    assert_eq!(
        said(&judge(without)),
        ["TunnelServer castgate/brussels: spec.hierarchy.parents[0].credentialsSecretRef.name: \
          login \"brussels\" has no TunnelAccount at TunnelDatabase castgate/belgium"]
    );
}

#[test]
fn a_secret_that_is_not_there_yet_is_a_problem_until_it_is() {
    let without: Vec<_> = fleet().into_iter().filter(|object| object["metadata"]["name"] != "brussels").collect();
    let judged = judge(without);
    let expected = "there is no Secret castgate/brussels";
    let mine: Vec<_> = judged.problems.values().flatten().filter(|problem| problem.message == expected).collect();
    let fields: Vec<_> = mine.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["spec.passwordSecretRef.name"], "{:?}", said(&judged));
    assert_eq!(said(&judge(fleet())), [""; 0]);
}

#[test]
fn a_circle_of_references_is_named_at_every_database_in_it() {
    let mut objects = changed(
        "TunnelDatabase/root",
        "/spec",
        json!({ "hierarchy": { "country": "BE", "parents": [
            { "databaseRef": { "name": "belgium" }, "credentialsSecretRef": { "name": "brussels" } },
        ] } }),
    );
    let mut account = objects.iter().find(|object| object["metadata"]["name"] == "at-belgium").unwrap().clone();
    account["spec"]["allow"]["types"] = json!(["TS", "TDS"]);
    objects.retain(|object| object["metadata"]["name"] != "at-belgium");
    objects.push(account);
    let said = said(&judge(objects));
    for sentence in [
        "TunnelDatabase castgate/root: spec.hierarchy.parents[0].databaseRef.name: \"belgium\" leads back to this database",
        "TunnelDatabase castgate/belgium: spec.hierarchy.parents[0].databaseRef.name: \"root\" leads back to this database",
    ] {
        assert!(said.iter().any(|line| line == sentence), "{sentence}\n{said:#?}");
    }
}

#[test]
fn a_name_that_only_kubernetes_would_take_is_a_problem() {
    let judged = judge(changed("ChannelBundle/demo", "/metadata/name", json!("demo.tv")));
    let field = |kind| judged.problems.iter().find(|((other, _), _)| *other == kind).map(|(_, said)| &said[0].field);
    assert_eq!(field("ChannelBundle").map(String::as_str), Some("metadata.name"));
    assert_eq!(field("TunnelServer").map(String::as_str), Some("spec.bundles[0].name"));
}

#[test]
fn databases_in_pods_are_not_in_each_others_way_and_servers_on_nodes_are() {
    let mut objects = fleet();
    for (index, object) in objects.clone().into_iter().enumerate() {
        match object["kind"].as_str().unwrap() {
            "TunnelDatabase" => objects[index]["spec"]["http"] = json!({ "address": "127.0.4.1" }),
            "TunnelServer" => {
                objects[index]["spec"]["umtp"] = json!({ "address": "192.0.2.1" });
                let mut twin = objects[index].clone();
                twin["metadata"]["name"] = json!("twin");
                objects.push(twin);
            }
            _ => {}
        }
    }
    assert_eq!(
        said(&judge(objects)),
        ["TunnelServer castgate/twin: spec.umtp: UDP 192.0.2.1:10100 is taken: \
          TunnelServer castgate/brussels listens on 192.0.2.1:10100"]
    );
}

/// A root, a country below it, a server below that, with all that they need.
fn fleet() -> Vec<Value> {
    let ours = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": "castgate.dev/v1alpha1", "kind": kind,
            "metadata": { "name": name, "namespace": "castgate" }, "spec": spec,
        })
    };
    let secret = |name: &str, login: &str, password: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": "castgate" },
            "type": "Opaque", "data": { "login": login, "password": password },
        })
    };
    let account = |database: &str, login: &str, types: Value| {
        json!({
            "databaseRef": { "name": database }, "login": login, "passwordSecretRef": { "name": login },
            "allow": { "types": types, "countries": ["BE"], "networks": ["10.0.0.0/8"] },
        })
    };
    let parent = |database: &str, secret: &str| json!([{ "databaseRef": { "name": database }, "credentialsSecretRef": { "name": secret } }]);
    vec![
        ours("TunnelDatabase", "root", json!({})),
        ours(
            "TunnelDatabase",
            "belgium",
            json!({ "hierarchy": { "country": "BE", "parents": parent("root", "belgium") } }),
        ),
        ours("TunnelAccount", "at-root", account("root", "belgium", json!(["TDS"]))),
        ours("TunnelAccount", "at-belgium", account("belgium", "brussels", json!(["TS"]))),
        ours("ChannelBundle", "demo", json!({ "channels": [{ "name": "a", "group": "239.1.2.3", "port": 5004 }] })),
        ours(
            "TunnelServer",
            "brussels",
            json!({
                "interfaces": [{ "name": "eth0" }], "bundles": [{ "name": "demo" }],
                "nodeSelector": { "castgate.dev/pool": "brussels" },
                "hierarchy": { "networks": ["10.0.0.0/8"], "parents": parent("belgium", "brussels") },
            }),
        ),
        secret("belgium", "YmVsZ2l1bQ==", "c2VjcmV0"),
        secret("brussels", "YnJ1c3NlbHM=", "c2VjcmV0"),
    ]
}

/// The fleet with one value replaced: `KIND/NAME`, where, what.
fn changed(object: &str, pointer: &str, value: Value) -> Vec<Value> {
    let mut objects = fleet();
    let place = objects.iter_mut().find_map(|candidate| {
        let title = format!("{}/{}", candidate["kind"].as_str()?, candidate["metadata"]["name"].as_str()?);
        // A field that is not there is put there.
        if title == object && candidate.pointer(pointer).is_none() {
            let (parent, field) = pointer.rsplit_once('/')?;
            candidate.pointer_mut(parent)?[field] = Value::Null;
        }
        (title == object).then(|| candidate.pointer_mut(pointer))?
    });
    *place.unwrap_or_else(|| panic!("{object} has no {pointer}")) = value;
    objects
}

fn said(judged: &Judged) -> Vec<String> {
    judged.problems.values().flatten().map(ToString::to_string).collect()
}
