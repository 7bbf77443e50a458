//! What an API server refuses, `load` refuses too: no form and no rule is one that only a cluster checks.

#[path = "common/full.rs"]
mod full;

use castgate_planner::load;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_cel::{ErrorKind, Validator};
use serde_json::{Map, Value, json};

/// Has blanks, capitals and signs: no form of ours takes it.
const NONSENSE: &str = "No such thing!";
/// Made by the operator: no manifest holds it.
const NEVER_WRITTEN: &str = "TunnelEndpoint";

/// A rule and a change that breaks it.
struct Broken {
    kind: &'static str,
    /// How the sentence of the rule starts.
    sentence: &'static str,
    /// Where the full object is changed.
    pointer: &'static str,
    /// To what; `null` removes the field.
    value: Value,
    /// What the rule blames.
    place: &'static str,
}

#[test]
fn the_full_objects_break_no_rule() {
    for definition in castgate_crds::all() {
        let kind = definition.spec.names.kind.as_str();
        for object in full::objects(kind) {
            assert_eq!(broken_rules(&definition, &object, Some(&object)), Vec::new(), "{object}");
            if kind != NEVER_WRITTEN {
                assert_eq!(said_about(&object), [""; 0], "{object}");
            }
        }
    }
}

/// Every form in a schema, by field: the same field with nonsense in it is refused.
#[test]
fn every_form_that_a_schema_demands_is_demanded_here() {
    let mut tried = 0;
    for definition in castgate_crds::all() {
        if definition.spec.names.kind == NEVER_WRITTEN {
            continue;
        }
        let objects = full::objects(&definition.spec.names.kind);
        for pointer in forms(&schema(&definition)["properties"]["spec"], "/spec") {
            let holder = objects.iter().find_map(|object| Some((object, in_object(object, &pointer)?)));
            let (object, pointer) = holder.unwrap_or_else(|| panic!("{pointer} is in no full object"));
            let mut bad = object.clone();
            *bad.pointer_mut(&pointer).unwrap() = json!(NONSENSE);
            let said = said_about(&bad);
            let field = as_field(&pointer);
            let names = |named: &String| named.replace("[pool]", ".pool").starts_with(&field);
            assert!(said.iter().any(names), "nothing is said about {field}: {said:?}");
            tried += 1;
        }
    }
    assert!(tried >= 70, "only {tried} forms were tried");
}

/// Every rule has an example here that breaks it; the rule speaks, and so does `load`.
#[test]
fn every_rule_in_cel_speaks_when_it_is_broken() {
    let table = broken();
    for definition in castgate_crds::all() {
        let kind = definition.spec.names.kind.as_str();
        let object = full::object(kind);
        for Broken { kind: _, sentence, pointer, value, place } in table.iter().filter(|row| row.kind == kind) {
            let mut bad = object.clone();
            put(&mut bad, pointer, value);
            let spoke = broken_rules(&definition, &bad, Some(&object));
            let speaks = |(path, message): &(String, String)| path == place && message.starts_with(sentence);
            assert!(spoke.iter().any(speaks), "{kind} {pointer}: {place}: {sentence}: {spoke:?}");
            if !sentence.contains("never change") {
                assert_ne!(said_about(&bad), [""; 0], "{kind} {pointer}: nothing is said about {sentence}");
            }
        }
        for sentence in sentences(&schema(&definition)) {
            let tried = table.iter().any(|row| row.kind == kind && sentence.starts_with(row.sentence));
            assert!(tried, "no example breaks the rule of {kind} \"{sentence}\"");
        }
    }
}

/// A mistake that `check` has a sentence for is not told a second time in the words of the rule.
#[test]
fn a_mistake_is_told_once() {
    let bundle = |group: &str| {
        let mut object = full::object("ChannelBundle");
        put(&mut object, "/spec/channels/2/group", &json!(group));
        said_about(&object)
    };
    assert_eq!(bundle("224.0.0.5"), ["spec.channels[2].group"]);
    assert_eq!(bundle("232.1.2.3"), ["spec.channels[2].source"]);
    let mut account = full::object("TunnelAccount");
    put(&mut account, "/spec/allow/networks", &json!(["192.0.2.1/24"]));
    assert_eq!(said_about(&account), ["spec.allow.networks[0]"]);
    let mut server = full::object("TunnelServer");
    put(&mut server, "/spec/replicas", &json!(2));
    assert_eq!(said_about(&server), ["spec.replicas"]);
    // Two mistakes in one object are two sentences.
    put(&mut server, "/spec/timers/joinTimeout", &json!("25h"));
    assert_eq!(said_about(&server), ["spec.replicas", "spec.timers.joinTimeout"]);
}

#[test]
fn a_bundle_of_256_channels_and_32_ranges_breaks_no_rule() {
    let definition = castgate_crds::all().into_iter().find(|one| one.spec.names.kind == "ChannelBundle").unwrap();
    let channel = |index: u32| match index {
        0..32 => json!({ "name": format!("c{index}"), "group": "239.1.2.3",
                         "ports": { "first": 2000 + 10 * index, "last": 2009 + 10 * index } }),
        _ => json!({ "name": format!("c{index}"), "group": "239.1.2.3", "port": 5000 + index }),
    };
    let mut object = full::object("ChannelBundle");
    object["spec"]["channels"] = (0..256).map(channel).collect();
    assert_eq!(broken_rules(&definition, &object, None), Vec::new());
    object["spec"]["channels"][255]["port"] = json!(2319);
    assert_eq!(broken_rules(&definition, &object, None).len(), 1);
}

/// The lines of `broken-rules.txt`.
fn broken() -> Vec<Broken> {
    let lines = include_str!("broken-rules.txt").lines().filter(|line| !line.starts_with('#'));
    let rows = lines.map(|line| {
        let parts: Vec<_> = line.split('|').map(str::trim).collect();
        let [kind, sentence, pointer, value, place] = parts[..] else { panic!("{line} has {} parts", parts.len()) };
        let value = serde_json::from_str(value).unwrap_or_else(|error| panic!("{line}: {error}"));
        Broken { kind, sentence, pointer, value, place }
    });
    rows.collect()
}

/// What the rules say about an object that was another one before: places and sentences.
fn broken_rules(
    definition: &CustomResourceDefinition,
    object: &Value,
    before: Option<&Value>,
) -> Vec<(String, String)> {
    let Err(broken) = Validator::new().validate(&schema(definition), object, before) else { return Vec::new() };
    broken
        .into_iter()
        .map(|rule| {
            assert_eq!(rule.kind, ErrorKind::ValidationFailure, "{rule}");
            (rule.field_path, rule.message)
        })
        .collect()
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

fn schema(definition: &CustomResourceDefinition) -> Value {
    let schema = definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
    serde_json::to_value(schema).unwrap()
}

/// Sets a field, also one that is not there; `null` removes it.
fn put(object: &mut Value, pointer: &str, value: &Value) {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("there is no {parent}"));
    match parent {
        Value::Array(rows) => rows[field.parse::<usize>().unwrap()] = value.clone(),
        Value::Object(fields) if value.is_null() => drop(fields.remove(field)),
        Value::Object(fields) => drop(fields.insert(field.to_owned(), value.clone())),
        other => panic!("{other} has no fields"),
    }
}

/// Where a full object holds a leaf: a list may have it in its second row only.
fn in_object(object: &Value, pointer: &str) -> Option<String> {
    let second = pointer.rfind("/0/").map(|at| format!("{}/1/{}", &pointer[..at], &pointer[at + 3..]));
    [Some(pointer.to_owned()), second].into_iter().flatten().find(|pointer| object.pointer(pointer).is_some())
}

/// Pointers to all leaves that must have a form: a pattern, a format, or one of some words.
fn forms(schema: &Value, pointer: &str) -> Vec<String> {
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let mut found: Vec<_> =
        properties.iter().flat_map(|(name, property)| forms(property, &format!("{pointer}/{name}"))).collect();
    for (keyword, part) in [("items", "0"), ("additionalProperties", "pool")] {
        if schema[keyword].is_object() {
            found.extend(forms(&schema[keyword], &format!("{pointer}/{part}")));
        }
    }
    let formed = ["pattern", "format", "enum"].iter().any(|keyword| !schema[keyword].is_null());
    if schema["type"] == "string" && formed {
        found.push(pointer.to_owned());
    }
    found
}

/// The sentences of all rules in a schema.
fn sentences(schema: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    let mut found: Vec<_> = rules.map(|rule| rule["message"].as_str().unwrap().to_owned()).collect();
    for property in schema["properties"].as_object().into_iter().flat_map(Map::values) {
        found.extend(sentences(property));
    }
    for keyword in ["items", "additionalProperties"] {
        if schema[keyword].is_object() {
            found.extend(sentences(&schema[keyword]));
        }
    }
    found
}

/// `/spec/channels/0/group` as problems spell it: `spec.channels[0].group`.
fn as_field(pointer: &str) -> String {
    pointer.split('/').skip(1).fold(String::new(), |field, part| match part.parse::<usize>() {
        Ok(index) => format!("{field}[{index}]"),
        Err(_) if field.is_empty() => part.to_owned(),
        Err(_) => format!("{field}.{part}"),
    })
}
