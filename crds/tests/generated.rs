//! The committed definitions are fresh, and an API server would take them.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

/// Refreshes the files when set: `CASTGATE_BLESS=1 cargo test -p castgate-crds`.
const BLESS: &str = "CASTGATE_BLESS";

#[test]
fn generated_files_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/castgate-crds/templates");
    for (name, fresh) in castgate_crds::files() {
        let path = folder.join(&name);
        if std::env::var_os(BLESS).is_some() {
            std::fs::write(&path, &fresh).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == fresh,
            "charts/castgate-crds/templates/{name} is stale: run `cargo xtask gen` (or this test with {BLESS}=1)"
        );
    }
    let committed = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(committed, castgate_crds::files().len(), "charts/castgate-crds/templates holds a file of no kind");
}

/// What Helm makes of a template without values is what `castgate crds` prints, and it is kept when the chart is removed.
#[test]
fn a_template_is_the_definition_with_annotations() {
    for ((_, template), definition) in castgate_crds::files().into_iter().zip(castgate_crds::all()) {
        let (before, rest) = template.split_once("metadata:\n").unwrap();
        let (annotations, after) = rest.split_once("    {{- end }}\n").unwrap();
        let bare = format!("{before}metadata:\n{after}");
        let (_, bare) = bare.split_once('\n').unwrap();
        assert_eq!(bare.replace("{{ `{{` }}", "{{"), castgate_crds::to_yaml(&definition));
        assert!(annotations.starts_with("  annotations:\n    helm.sh/resource-policy: keep\n"), "{annotations}");
        let braces = bare.replace("{{ `{{` }}", "");
        assert!(!braces.contains("{{"), "a brace of ours would be taken for a template's");
    }
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
    let expected = [
        ("ChannelBundle", "cb"),
        ("TunnelAccount", "tacc"),
        ("TunnelAssignmentPolicy", "tap"),
        ("TunnelDatabase", "tdb"),
        ("TunnelEndpoint", "tep"),
        ("TunnelRelay", "tr"),
        ("TunnelServer", "ts"),
    ];
    assert_eq!(names, expected.map(|(kind, short)| (kind.to_owned(), short.to_owned())));
}

/// What a structural schema may not hold, and what an API server warns about.
#[test]
fn schemas_hold_nothing_that_an_api_server_refuses() {
    let mut nodes = 0;
    for definition in castgate_crds::all() {
        walk(&schema(&definition), &definition.spec.names.kind, &mut |node, path| {
            nodes += 1;
            for keyword in ["anyOf", "oneOf", "allOf", "not", "$ref"] {
                assert!(node.get(keyword).is_none(), "{path} has {keyword}");
            }
            let kind = node["type"].as_str().unwrap_or_else(|| panic!("{path} has no type"));
            // Nobody but the operator writes a status, and no rule looks at one.
            let written_by_people = !path.contains(".status");
            match (kind, node.get("format").and_then(Value::as_str)) {
                ("integer", Some("int32" | "int64")) => {
                    let bounded = node.get("minimum").is_some() && node.get("maximum").is_some();
                    assert!(bounded || !written_by_people, "{path} has no range");
                }
                ("string", None | Some("ipv4" | "cidr" | "date-time")) | ("object" | "array" | "boolean", None) => {}
                (kind, format) => panic!("{path} is a {kind} of format {format:?}"),
            }
            if let Some(values) = node.get("enum") {
                assert!(values.as_array().unwrap().iter().all(Value::is_string), "{path} has null in its enum");
            }
            assert!(node.get("nullable").is_none() || !written_by_people, "{path} may be null");
            if !written_by_people {
                assert!(node.get("x-kubernetes-validations").is_none(), "{path} has a rule");
                return;
            }
            // Rules cost nothing only when what they look at is bounded.
            let bounded = |keyword: &str| assert!(node.get(keyword).is_some(), "{path} is a {kind} without {keyword}");
            match kind {
                "array" => bounded("maxItems"),
                "object" if node.get("additionalProperties").is_some() => bounded("maxProperties"),
                "string" if node.get("enum").is_none() => bounded("maxLength"),
                _ => {}
            }
        });
    }
    assert!(nodes > 60, "only {nodes} nodes were looked at");
}

#[test]
fn every_kind_has_a_status_with_conditions_that_several_may_write() {
    for definition in castgate_crds::all() {
        let kind = &definition.spec.names.kind;
        let version = &definition.spec.versions[0];
        assert!(version.subresources.as_ref().is_some_and(|sub| sub.status.is_some()), "{kind} has no status");
        let conditions = &schema(&definition)["properties"]["status"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map", "{kind}");
        assert_eq!(conditions["x-kubernetes-list-map-keys"], serde_json::json!(["type"]), "{kind}");
    }
}

/// Columns, selectable fields and the paths of scale lead somewhere.
#[test]
fn every_path_is_a_path_of_the_schema() {
    let mut looked_at = BTreeSet::new();
    for definition in castgate_crds::all() {
        let kind = &definition.spec.names.kind;
        let version = &definition.spec.versions[0];
        let columns = version.additional_printer_columns.iter().flatten().map(|column| column.json_path.clone());
        let selectable = version.selectable_fields.iter().flatten().map(|field| field.json_path.clone());
        let scale = version.subresources.iter().filter_map(|sub| sub.scale.as_ref());
        let scale = scale.flat_map(|scale| {
            let selector = scale.label_selector_path.clone();
            [scale.spec_replicas_path.clone(), scale.status_replicas_path.clone()].into_iter().chain(selector)
        });
        for path in columns.chain(selectable).chain(scale) {
            // A column shows only the first of several values.
            assert!(!path.contains("[*]"), "{kind} has a column of a list: {path}");
            if path.starts_with(".metadata.") {
                continue;
            }
            let of_condition = |kind: &str| format!("[?(@.type==\"{kind}\")]");
            let kinds = ["Ready", "Accepted", "PreviousPasswordInUse"].map(of_condition);
            let plain = kinds.iter().fold(path.clone(), |path, kind| path.replace(kind, "[*]"));
            let end = plain.split('.').skip(1).fold(schema(&definition), |node, part| {
                let child = node["properties"][part.trim_end_matches("[*]")].clone();
                if part.ends_with("[*]") { child["items"].clone() } else { child }
            });
            assert!(end.is_object(), "{kind} has no {path}");
            looked_at.insert((kind.clone(), path));
        }
    }
    assert!(looked_at.len() > 40, "only {} paths", looked_at.len());
}

#[test]
fn every_field_is_described() {
    for definition in castgate_crds::all() {
        walk(&schema(&definition), &definition.spec.names.kind, &mut |node, path| {
            assert!(path.ends_with(']') || node.get("description").is_some(), "{path} has no description");
        });
    }
}

fn schema(definition: &castgate_crds::Definition) -> Value {
    let schema = definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
    serde_json::to_value(schema).unwrap()
}

/// Visits every schema of a tree with its path.
fn walk(node: &Value, path: &str, visit: &mut impl FnMut(&Value, &str)) {
    visit(node, path);
    for (name, child) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(child, &format!("{path}.{name}"), visit);
    }
    for (keyword, suffix) in [("items", "[]"), ("additionalProperties", "[*]")] {
        if let Some(row) = node.get(keyword) {
            walk(row, &format!("{path}{suffix}"), visit);
        }
    }
}
