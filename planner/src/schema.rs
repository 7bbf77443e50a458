//! A document against the schema of its kind: unknown fields, missing fields, types, ranges, words, lengths, doubles.
//!
//! The same schema is what an API server checks, so both refuse the same; here every field is looked at and the sentence is
//! for a person. Patterns and formats are left to [`check`](crate::check), which knows what they stand for.

use std::collections::HashSet;

use castgate_crds::units::{RATE_PATTERN, TIME_SPAN_PATTERN};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Map, Value};

use crate::document::unknown;
use crate::problem::{Pruned, Reporter};

/// Checks `value`, reports all that is wrong, and returns what is left when the wrong parts are taken out.
///
/// What is left lets the later checks go on, so that one look shows every problem. A row of a list goes as a whole: half a
/// channel would be blamed for what it lacks. `None` when a part that must be there had to go.
pub(crate) fn prune(
    schema: &JSONSchemaProps,
    value: &Value,
    path: &str,
    reporter: &mut Reporter,
) -> (Option<Value>, Pruned) {
    let mut pruner = Pruner { reporter, pruned: Pruned::default(), in_row: false };
    let left = pruner.any(schema, value, path);
    (left, pruner.pruned)
}

struct Pruner<'a, 'b> {
    reporter: &'a mut Reporter<'b>,
    pruned: Pruned,
    /// Whether what is looked at is part of a row.
    in_row: bool,
}

impl Pruner<'_, '_> {
    fn any(&mut self, schema: &JSONSchemaProps, value: &Value, path: &str) -> Option<Value> {
        let report = &mut |what: &dyn std::fmt::Display| self.reporter.report(path, what);
        match (schema.type_.as_deref(), value) {
            (_, Value::Null) => report(&"is empty: give it a value or remove it"),
            (Some("object"), Value::Object(fields)) => {
                return match &schema.additional_properties {
                    Some(JSONSchemaPropsOrBool::Schema(row)) => Some(self.map(schema, row, fields, path)),
                    Some(JSONSchemaPropsOrBool::Bool(_)) | None => self.object(schema, fields, path),
                };
            }
            (Some("array"), Value::Array(rows)) => return Some(self.array(schema, rows, path)),
            (Some("integer"), Value::Number(_)) => return integer(schema, value, path, self.reporter),
            (Some("string"), Value::String(word)) => return text(schema, word, path, self.reporter),
            (Some("boolean"), Value::Bool(_)) | (None, _) => return Some(value.clone()),
            (Some("string"), Value::Bool(_)) => {
                report(&format_args!("YAML takes this for {value}: write it in quotes"));
            }
            (Some("string"), Value::Number(_)) => match schema.pattern.as_deref() {
                Some(TIME_SPAN_PATTERN) => report(&format_args!("{value} has no unit, as in 60s")),
                Some(RATE_PATTERN) => report(&format_args!("{value} has no unit, as in 2Mbit")),
                _ => report(&format_args!("{value} is a number, not a text: write it in quotes")),
            },
            (Some(wanted), _) => report(&format_args!("is {}, not {}", name_of(value), name_of_type(wanted))),
        }
        self.pruned.fields.insert(path.to_owned());
        None
    }

    fn object(&mut self, schema: &JSONSchemaProps, fields: &Map<String, Value>, path: &str) -> Option<Value> {
        let properties = schema.properties.as_ref()?;
        let mut kept = Map::new();
        let mut whole = true;
        for (name, value) in fields {
            let path = format!("{path}.{name}");
            match properties.get(name) {
                Some(property) => match self.any(property, value, &path) {
                    Some(value) => drop(kept.insert(name.clone(), value)),
                    None => whole = false,
                },
                None => self.reporter.report(path, unknown(name, properties.keys().map(String::as_str))),
            }
        }
        let required = schema.required.iter().flatten();
        for name in required.clone().filter(|name| !fields.contains_key(*name)) {
            self.reporter.report(format!("{path}.{name}"), "is missing");
        }
        let complete = required.clone().all(|name| kept.contains_key(name));
        (complete && (whole || !self.in_row)).then_some(Value::Object(kept))
    }

    /// A set of fields whose names are free, such as labels.
    fn map(
        &mut self,
        schema: &JSONSchemaProps,
        row: &JSONSchemaProps,
        fields: &Map<String, Value>,
        path: &str,
    ) -> Value {
        let most = schema.max_properties.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        if fields.len() > most {
            self.reporter.report(path, format_args!("has {} fields, more than {most}", fields.len()));
        }
        let kept = fields.iter().filter_map(|(name, value)| {
            let left = self.any(row, value, &format!("{path}[{name}]"))?;
            Some((name.clone(), left))
        });
        Value::Object(kept.collect())
    }

    fn array(&mut self, schema: &JSONSchemaProps, rows: &[Value], path: &str) -> Value {
        let bound = |bound: Option<i64>, open| bound.map_or(open, |bound| usize::try_from(bound).unwrap_or(open));
        if rows.len() < bound(schema.min_items, 0) {
            // The only least number among our lists is one.
            self.reporter.report(path, "lists nothing");
        }
        let most = bound(schema.max_items, usize::MAX);
        if rows.len() > most {
            self.reporter.report(path, format_args!("lists {}, more than {most}", rows.len()));
        }
        let Some(JSONSchemaPropsOrArray::Schema(row)) = &schema.items else { return Value::Array(rows.to_vec()) };
        let outside = std::mem::replace(&mut self.in_row, true);
        let mut kept = Vec::new();
        let mut kept_indexes = Vec::new();
        let mut seen = HashSet::new();
        for (index, value) in rows.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let left = self.any(row, value, &path);
            if let Some((key, suffix)) = identity(schema, value)
                && !seen.insert(key.clone())
            {
                self.reporter.report(format!("{path}{suffix}"), format_args!("{key} is listed twice"));
            } else if let Some(left) = left {
                kept.push(left);
                kept_indexes.push(index);
            }
        }
        self.in_row = outside;
        if kept.len() < rows.len() {
            self.pruned.rows.insert(path.to_owned(), kept_indexes);
        }
        Value::Array(kept)
    }
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

fn integer(schema: &JSONSchemaProps, value: &Value, path: &str, reporter: &mut Reporter) -> Option<Value> {
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

fn text(schema: &JSONSchemaProps, text: &str, path: &str, reporter: &mut Reporter) -> Option<Value> {
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
