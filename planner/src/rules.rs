//! The rules in CEL that the definitions hold, evaluated without an API server.
//!
//! Most mistakes have a sentence of [`check`](crate::check) that says more than a rule can. A rule speaks only when nothing
//! else was said about its place, so each mistake is reported once, and nothing that a cluster refuses is passed over here.
//! Rules about changes need the object as it was before, which only a cluster has.

use std::collections::BTreeMap;

use kube_cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use serde_json::Value;

use crate::document::Document;
use crate::problem::{Problem, Reporter};

/// The rules of every kind.
pub(crate) struct Rules {
    validator: Validator,
    kinds: BTreeMap<String, CompiledSchema>,
}

impl Rules {
    pub(crate) fn new() -> Self {
        let kinds = castgate_crds::all().into_iter().filter_map(|definition| {
            let schema = definition.spec.versions.first()?.schema.as_ref()?.open_api_v3_schema.as_ref()?;
            Some((definition.spec.names.kind, compile_schema(&serde_json::to_value(schema).ok()?)))
        });
        Self { validator: Validator::new(), kinds: kinds.collect() }
    }

    /// Evaluates the rules of one document. The problems from `before` on are those that it has already.
    pub(crate) fn check(&self, document: &Document, before: usize, problems: &mut Vec<Problem>) {
        let Some(schema) = self.kinds.get(document.kind.name()) else { return };
        let object = Value::Object(document.body.clone());
        let Err(broken) = self.validator.validate_compiled(schema, &object, None) else { return };
        let known: Vec<String> = problems[before..].iter().map(|problem| problem.field.clone()).collect();
        let title = document.title();
        let mut reporter = Reporter::new(&document.file, &title, problems);
        for rule in broken {
            // A rule that cannot be evaluated met something that the schema refuses, and that has been said.
            if rule.kind != ErrorKind::ValidationFailure && !known.is_empty() {
                continue;
            }
            // The rules of a whole object are about its name.
            let field = if rule.field_path.is_empty() { "metadata.name".to_owned() } else { rule.field_path };
            if !known.iter().any(|known| concerns(known, &field)) {
                reporter.report(field, rule.message);
            }
        }
    }
}

/// Whether a problem at `known` may be what a rule at `field` complains of: it is that place, or above it, or in it.
fn concerns(known: &str, field: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    within(known, field) || within(field, known)
}
