//! Secrets as the API server carries them: values in base64.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde_json::{Value, json};

/// The values of a Secret. What is not base64 is no value: the API server takes no such thing.
#[must_use]
pub fn decode(secret: &Value) -> BTreeMap<String, Vec<u8>> {
    let rows = secret["data"].as_object().into_iter().flatten();
    let value = |(key, value): (&String, &Value)| {
        let octets: ByteString = serde_json::from_value(value.clone()).ok()?;
        Some((key.clone(), octets.0))
    };
    rows.filter_map(value).collect()
}

/// The `data` of a Secret.
#[must_use]
pub fn encode(values: &BTreeMap<String, Vec<u8>>) -> Value {
    let rows = values.iter().map(|(key, value)| (key.clone(), json!(ByteString(value.clone()))));
    Value::Object(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let values = BTreeMap::from([("a".to_owned(), vec![0, 255, 7]), ("b".to_owned(), Vec::new())]);
        assert_eq!(decode(&json!({ "data": encode(&values) })), values);
    }
}
