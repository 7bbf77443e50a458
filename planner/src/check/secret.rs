//! A Secret by itself: `data` in base64, `stringData` as it is.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::load::only_known;
use crate::objects::Secret;
use crate::problem::Reporter;

/// What a Secret may hold at the top.
const FIELDS: [&str; 7] = ["apiVersion", "data", "immutable", "kind", "metadata", "stringData", "type"];

pub(crate) fn secret(body: &Map<String, Value>, reporter: &mut Reporter) -> Secret {
    only_known(body, &FIELDS, reporter);
    let mut values = BTreeMap::new();
    for (key, text) in texts(body, "data", reporter) {
        // kubectl takes the line breaks that `base64` makes.
        let compact: String = text.split_whitespace().collect();
        match STANDARD.decode(compact) {
            Ok(octets) => drop(values.insert(key, octets)),
            // The value itself is not shown: it may be the password, put under the wrong field.
            Err(_) => reporter.report(format!("data.{key}"), "is not base64: plain text belongs in stringData"),
        }
    }
    // As in Kubernetes, what stands in stringData wins.
    values.extend(texts(body, "stringData", reporter).into_iter().map(|(key, text)| (key, text.into_bytes())));
    Secret { values }
}

pub(super) fn texts(body: &Map<String, Value>, field: &str, reporter: &mut Reporter) -> Vec<(String, String)> {
    let rows = match body.get(field) {
        None => return Vec::new(),
        Some(Value::Object(rows)) => rows,
        Some(_) => {
            reporter.report(field, "is not a set of fields");
            return Vec::new();
        }
    };
    let text = |(key, value): (&String, &Value)| {
        if !value.is_string() {
            reporter.report(format!("{field}.{key}"), "is not a text: write it in quotes");
        }
        Some((key.clone(), value.as_str()?.to_owned()))
    };
    rows.iter().filter_map(text).collect()
}
