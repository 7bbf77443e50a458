//! A `ConfigMap` by itself: texts, and what else it holds is nobody's business here.

use serde_json::{Map, Value};

use super::secret::texts;
use crate::load::only_known;
use crate::objects::ConfigMap;
use crate::problem::Reporter;

/// What a `ConfigMap` may hold at the top.
const FIELDS: [&str; 6] = ["apiVersion", "binaryData", "data", "immutable", "kind", "metadata"];

pub(crate) fn config(body: &Map<String, Value>, reporter: &mut Reporter) -> ConfigMap {
    only_known(body, &FIELDS, reporter);
    ConfigMap { values: texts(body, "data", reporter).into_iter().collect() }
}
