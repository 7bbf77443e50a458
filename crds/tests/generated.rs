//! The committed definitions are fresh, and an API server would take them.

use std::path::Path;

use serde_json::Value;

/// Refreshes the files when set: `CASTGATE_BLESS=1 cargo test -p castgate-crds`.
const BLESS: &str = "CASTGATE_BLESS";

#[test]
fn generated_files_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("generated");
    for (name, fresh) in castgate_crds::files() {
        let path = folder.join(&name);
        if std::env::var_os(BLESS).is_some() {
            std::fs::write(&path, &fresh).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == fresh,
            "crds/generated/{name} is stale: run `castgate crds --output crds/generated` (or this test with {BLESS}=1)"
        );
    }
    let committed = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(committed, castgate_crds::files().len(), "crds/generated holds a file of no kind");
}

#[test]
fn every_kind_has_the_names_of_the_house() {
    let names: Vec<_> = castgate_crds::all()
        .into_iter()
        .map(|definition| {
            let names = definition.spec.names;
            assert_eq!(definition.spec.group, castgate_crds::GROUP);
            assert_eq!(definition.spec.versions[0].name, castgate_crds::VERSION);
            assert_eq!(definition.spec.scope, "Namespaced");
            assert_eq!(names.categories.unwrap(), ["castgate"]);
            (names.kind, names.short_names.unwrap().join(","))
        })
        .collect();
    let expected =
        [("ChannelBundle", "cb"), ("TunnelAccount", "tacc"), ("TunnelDatabase", "tdb"), ("TunnelServer", "ts")];
    assert_eq!(names, expected.map(|(kind, short)| (kind.to_owned(), short.to_owned())));
}

/// What a structural schema may not hold, and what an API server warns about.
#[test]
fn schemas_hold_nothing_that_an_api_server_refuses() {
    let mut nodes = 0;
    for definition in castgate_crds::all() {
        let schema = definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        let schema = serde_json::to_value(schema).unwrap();
        walk(&schema, &definition.spec.names.kind, &mut |node, path| {
            nodes += 1;
            for keyword in ["anyOf", "oneOf", "allOf", "not", "additionalProperties", "nullable", "$ref"] {
                assert!(node.get(keyword).is_none(), "{path} has {keyword}");
            }
            let kind = node["type"].as_str().unwrap_or_else(|| panic!("{path} has no type"));
            match (kind, node.get("format").and_then(Value::as_str)) {
                ("integer", Some("int32" | "int64")) => {
                    assert!(node.get("minimum").is_some() && node.get("maximum").is_some(), "{path} has no range");
                }
                ("string", None | Some("ipv4" | "cidr")) | ("object" | "array" | "boolean", None) => {}
                (kind, format) => panic!("{path} is a {kind} of format {format:?}"),
            }
            if let Some(values) = node.get("enum") {
                assert!(values.as_array().unwrap().iter().all(Value::is_string), "{path} has null in its enum");
            }
            // Rules cost nothing only when what they look at is bounded.
            if kind == "array" {
                assert!(node.get("maxItems").is_some(), "{path} is an array without maxItems");
            }
            if kind == "string" && node.get("enum").is_none() {
                assert!(node.get("maxLength").is_some(), "{path} is a string without maxLength");
            }
            assert!(path.contains('.') || path == definition.spec.names.kind, "{path}");
        });
    }
    assert!(nodes > 60, "only {nodes} nodes were looked at");
}

#[test]
fn every_field_is_described() {
    for definition in castgate_crds::all() {
        let schema = definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        walk(&serde_json::to_value(schema).unwrap(), &definition.spec.names.kind, &mut |node, path| {
            assert!(path.ends_with("[]") || node.get("description").is_some(), "{path} has no description");
        });
    }
}

/// Visits every schema of a tree with its path.
fn walk(node: &Value, path: &str, visit: &mut impl FnMut(&Value, &str)) {
    visit(node, path);
    for (name, child) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(child, &format!("{path}.{name}"), visit);
    }
    if let Some(items) = node.get("items") {
        walk(items, &format!("{path}[]"), visit);
    }
}
