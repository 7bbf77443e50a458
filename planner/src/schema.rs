//! A document against the schema of its kind: unknown fields, missing fields, types, ranges, words, lengths, doubles.
//!
//! The same schema is what an API server checks, so both refuse the same; here every field is looked at and the sentence is
//! for a person. Patterns and formats are left to [`check`](crate::check), which knows what they stand for.

use std::collections::HashSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Map, Value};

use crate::document::unknown;
use crate::problem::Reporter;

/// Checks `value`, reports all that is wrong, and returns what is left when the wrong parts are taken out.
///
/// What is left lets the later checks go on, so that one look shows every problem. A row of a list goes as a whole: half a
/// channel would be blamed for what it lacks. `None` when a part that must be there had to go.
pub(crate) fn prune(schema: &JSONSchemaProps, value: &Value, path: &str, reporter: &mut Reporter) -> Option<Value> {
    match (schema.type_.as_deref(), value) {
        (_, Value::Null) => reporter.report(path, "is empty: give it a value or remove it"),
        (Some("object"), Value::Object(fields)) => return prune_object(schema, fields, path, reporter),
        (Some("array"), Value::Array(rows)) => return Some(prune_array(schema, rows, path, reporter)),
        (Some("integer"), Value::Number(_)) => return prune_integer(schema, value, path, reporter),
        (Some("string"), Value::String(text)) => return prune_text(schema, text, path, reporter),
        (Some("boolean"), Value::Bool(_)) => return Some(value.clone()),
        (Some("string"), Value::Bool(_)) => {
            reporter.report(path, format_args!("YAML takes this for {value}: write it in quotes"));
        }
        (Some("string"), Value::Number(_)) => {
            reporter.report(path, format_args!("{value} is a number, not a text: write it in quotes"));
        }
        (Some(wanted), _) => {
            reporter.report(path, format_args!("is {}, not {}", name_of(value), name_of_type(wanted)));
        }
        (None, _) => return Some(value.clone()),
    }
    None
}

fn prune_object(
    schema: &JSONSchemaProps,
    fields: &Map<String, Value>,
    path: &str,
    reporter: &mut Reporter,
) -> Option<Value> {
    let properties = schema.properties.as_ref();
    // Free keys: labels, data of a Secret.
    if properties.is_none() {
        if let Some(JSONSchemaPropsOrBool::Schema(row)) = &schema.additional_properties {
            let kept = fields
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), prune(row, value, &join(path, name), reporter)?)));
            return Some(Value::Object(kept.collect()));
        }
        return Some(Value::Object(fields.clone()));
    }
    let known = || properties.into_iter().flat_map(|properties| properties.keys().map(String::as_str));
    let mut kept = Map::new();
    for (name, value) in fields {
        match properties.and_then(|properties| properties.get(name)) {
            Some(property) => {
                if let Some(value) = prune(property, value, &join(path, name), reporter) {
                    kept.insert(name.clone(), value);
                }
            }
            None => reporter.report(join(path, name), unknown(name, known())),
        }
    }
    let required = schema.required.iter().flatten();
    for name in required.clone().filter(|name| !fields.contains_key(*name)) {
        reporter.report(join(path, name), "is missing");
    }
    required.clone().all(|name| kept.contains_key(name)).then_some(Value::Object(kept))
}

fn prune_array(schema: &JSONSchemaProps, rows: &[Value], path: &str, reporter: &mut Reporter) -> Value {
    if let Some(least) = schema.min_items.filter(|least| rows.len() < usize::try_from(*least).unwrap_or(0)) {
        let what = if least == 1 { "nothing".to_owned() } else { format!("fewer than {least}") };
        reporter.report(path, format_args!("lists {what}"));
    }
    if let Some(most) = schema.max_items.filter(|most| rows.len() > usize::try_from(*most).unwrap_or(usize::MAX)) {
        reporter.report(path, format_args!("lists {}, more than {most}", rows.len()));
    }
    let Some(JSONSchemaPropsOrArray::Schema(row)) = &schema.items else { return Value::Array(rows.to_vec()) };
    let mut kept = Vec::new();
    let mut seen = HashSet::new();
    for (index, value) in rows.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let before = reporter.count();
        let pruned = prune(row, value, &path, reporter);
        if let Some((key, suffix)) = identity(schema, value)
            && !seen.insert(key.clone())
        {
            reporter.report(format!("{path}{suffix}"), format_args!("{key} is listed twice"));
        }
        if reporter.count() == before {
            kept.extend(pruned);
        }
    }
    Value::Array(kept)
}

/// What makes a row of a set or of a map-like list the same as another, and where that stands in the row.
fn identity(schema: &JSONSchemaProps, row: &Value) -> Option<(String, String)> {
    match schema.x_kubernetes_list_type.as_deref() {
        Some("set") => Some((row.to_string(), String::new())),
        Some("map") => {
            let key = schema.x_kubernetes_list_map_keys.as_ref()?.first()?;
            Some((row.get(key)?.to_string(), format!(".{key}")))
        }
        _ => None,
    }
}

fn prune_integer(schema: &JSONSchemaProps, value: &Value, path: &str, reporter: &mut Reporter) -> Option<Value> {
    // Bounds of ours are whole and far below 2^53, where a double is exact.
    #[expect(clippy::cast_possible_truncation, reason = "see above")]
    let bound = |bound: Option<f64>, open: i64| bound.map_or(open, |bound| bound as i64);
    let (first, last) = (bound(schema.minimum, i64::MIN), bound(schema.maximum, i64::MAX));
    match value.as_i64() {
        Some(number) if (first..=last).contains(&number) => return Some(value.clone()),
        None if !value.is_u64() => reporter.report(path, format_args!("{value} is not a whole number")),
        Some(_) | None => reporter.report(path, format_args!("{value} is not in {first}..={last}")),
    }
    None
}

fn prune_text(schema: &JSONSchemaProps, text: &str, path: &str, reporter: &mut Reporter) -> Option<Value> {
    if let Some(words) = &schema.enum_ {
        let words: Vec<_> = words.iter().filter_map(|word| word.0.as_str()).collect();
        if !words.contains(&text) {
            reporter.report(path, format_args!("\"{text}\" is not one of {}", words.join(", ")));
            return None;
        }
    }
    // What has a form of its own is better named by its form than by its length.
    let free = schema.pattern.is_none() && schema.format.is_none();
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if let Some(most) = schema.max_length.filter(|most| free && length > *most) {
        reporter.report(path, format_args!("is longer than {most} characters"));
        return None;
    }
    Some(Value::String(text.to_owned()))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a set of fields",
    }
}

fn name_of_type(kind: &str) -> &'static str {
    match kind {
        "object" => "a set of fields",
        "array" => "a list",
        "integer" => "a whole number",
        "boolean" => "true or false",
        _ => "a text",
    }
}
