//! What an API server refuses by the schema, `load` refuses too: no field has a form that only a cluster checks.

use castgate_planner::load;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value, json};

/// Has blanks, capitals and signs: no form of ours takes it.
const NONSENSE: &str = "No such thing!";

/// Every form in a schema, by field: the same field with nonsense in it is refused.
#[test]
fn every_form_that_a_schema_demands_is_demanded_here() {
    let mut tried = 0;
    for definition in castgate_crds::all() {
        let full = full_object(&definition);
        for pointer in forms(&spec_schema(&definition), "/spec") {
            let mut bad = full.clone();
            let leaf = bad.pointer_mut(&pointer).unwrap_or_else(|| panic!("{pointer} is not in the full object"));
            *leaf = json!(NONSENSE);
            let said = said_about(&bad);
            let field = as_field(&pointer);
            assert!(said.iter().any(|named| named.starts_with(&field)), "nothing is said about {field}: {said:?}");
            tried += 1;
        }
    }
    assert!(tried >= 25, "only {tried} forms were tried");
}

/// Every rule in CEL, by its sentence, with a change that breaks it and the field that is named here.
#[test]
fn every_rule_in_cel_is_a_rule_here() {
    let channel = |change: Value| json!({ "/spec/channels/0": change });
    let table = [
        ("224.0.0.0/24 belongs", json!({ "/spec/channels/0/group": "224.0.0.5" }), "spec.channels[0].group"),
        ("name either port or ports", channel(json!({ "name": "a", "group": "239.1.2.3" })), "spec.channels[0].port"),
        (
            "a group of 232.0.0.0/8 needs a source",
            channel(json!({ "name": "a", "group": "232.1.2.3", "port": 1 })),
            "spec.channels[0].source",
        ),
        (
            "a pattern is sent to one port",
            channel(
                json!({ "name": "a", "group": "239.1.2.3", "ports": { "first": 1, "last": 2 }, "pattern": "1Mbit" }),
            ),
            "spec.channels[0].pattern",
        ),
        ("first must not be above last", json!({ "/spec/channels/1/ports/first": 65535 }), "spec.channels[1].ports"),
        (
            "a prefix has no host bits",
            json!({ "/spec/hierarchy/networks/0": "192.0.2.1/24" }),
            "spec.hierarchy.networks[0]",
        ),
        ("a prefix has no host bits", json!({ "/spec/allow/networks/0": "192.0.2.1/24" }), "spec.allow.networks[0]"),
        ("a prefix has no host bits", json!({ "/spec/allow/sources/0": "192.0.2.1/24" }), "spec.allow.sources[0]"),
    ];
    let mut rules = Vec::new();
    for definition in castgate_crds::all() {
        let mut found = Vec::new();
        sentences(&spec_schema(&definition), &mut found);
        for (sentence, change, field) in &table {
            let (pointer, value) = change.as_object().unwrap().iter().next().unwrap();
            let mut bad = full_object(&definition);
            let Some(leaf) = bad.pointer_mut(pointer) else { continue };
            *leaf = value.clone();
            let said = said_about(&bad);
            assert!(said.iter().any(|named| named.starts_with(field)), "{sentence}: {field} is not named: {said:?}");
        }
        rules.extend(found);
    }
    for rule in rules {
        assert!(table.iter().any(|(sentence, ..)| rule.starts_with(sentence)), "no test breaks the rule \"{rule}\"");
    }
}

/// Fields that `load` names when it reads this one object.
fn said_about(object: &Value) -> Vec<String> {
    match load([("a.yaml", object.to_string())]) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .into_iter()
            // The object is alone: that what it names is not there says nothing about forms.
            .filter(|problem| !problem.message.starts_with("there is no "))
            .map(|problem| problem.field)
            .collect(),
    }
}

/// An object with every field of its kind, and nothing wrong by itself.
fn full_object(definition: &CustomResourceDefinition) -> Value {
    let hierarchy = json!({
        "parents": [
            { "url": "http://tds.example.net", "credentialsSecretRef": { "name": "s" } },
            { "databaseRef": { "name": "d" }, "credentialsSecretRef": { "name": "s" } },
        ],
        "networks": ["192.0.2.0/24"], "country": "BE", "updateInterval": "300s",
    });
    let spec = match definition.spec.names.kind.as_str() {
        "ChannelBundle" => json!({ "channels": [
            { "name": "a", "group": "239.1.2.3", "source": "192.0.2.1", "port": 1, "pattern": "1Mbit", "send": true,
              "ttl": 3, "description": "text" },
            { "name": "b", "group": "239.1.2.3", "ports": { "first": 2, "last": 3 } },
        ] }),
        "TunnelAccount" => json!({
            "databaseRef": { "name": "d" }, "login": "me", "passwordSecretRef": { "name": "s", "key": "password" },
            "allow": { "types": ["TS"], "networks": ["192.0.2.0/24"], "countries": ["BE"], "sources": ["192.0.2.0/24"] },
        }),
        "TunnelDatabase" => json!({
            "http": { "address": "192.0.2.1", "port": 5632 }, "hierarchy": hierarchy, "updateInterval": "300s",
        }),
        "TunnelServer" => json!({
            "umtp": { "address": "192.0.2.1", "port": 10100 }, "interfaces": [{ "name": "eth0" }],
            "bundles": [{ "name": "b" }], "hierarchy": hierarchy, "loopCheck": "Endpoint", "workers": 1,
            "limits": { "tunnels": 1, "channels": 1, "channelsPerTunnel": 1, "ttl": 1 },
            "timers": { "joinTimeout": "60s", "idleTimeout": "120s", "cookieEpoch": "1h", "answerInterval": "1s" },
        }),
        kind => panic!("{kind} has no full object here"),
    };
    json!({
        "apiVersion": castgate_crds::API_VERSION, "kind": definition.spec.names.kind,
        "metadata": { "name": "full", "namespace": "castgate" }, "spec": spec,
    })
}

fn spec_schema(definition: &CustomResourceDefinition) -> Value {
    let schema = definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
    serde_json::to_value(schema).unwrap()["properties"]["spec"].take()
}

/// Pointers to all leaves that must have a form: a pattern, a format, or one of some words.
fn forms(schema: &Value, pointer: &str) -> Vec<String> {
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let mut found: Vec<_> =
        properties.iter().flat_map(|(name, property)| forms(property, &format!("{pointer}/{name}"))).collect();
    if schema["items"].is_object() {
        found.extend(forms(&schema["items"], &format!("{pointer}/0")));
    }
    let formed = ["pattern", "format", "enum"].iter().any(|keyword| !schema[keyword].is_null());
    if schema["type"] == "string" && formed {
        found.push(pointer.to_owned());
    }
    found
}

/// The sentences of all rules in a schema.
fn sentences(schema: &Value, found: &mut Vec<String>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        found.push(rule["message"].as_str().unwrap().to_owned());
    }
    for property in schema["properties"].as_object().into_iter().flat_map(Map::values) {
        sentences(property, found);
    }
    if schema["items"].is_object() {
        sentences(&schema["items"], found);
    }
}

/// `/spec/channels/0/group` as problems spell it: `spec.channels[0].group`.
fn as_field(pointer: &str) -> String {
    pointer.split('/').skip(1).fold(String::new(), |field, part| match part.parse::<usize>() {
        Ok(index) => format!("{field}[{index}]"),
        Err(_) if field.is_empty() => part.to_owned(),
        Err(_) => format!("{field}.{part}"),
    })
}
