//! Files to [`Objects`], or to everything that is wrong with them.
//!
//! ```text
//!   text ─▶ documents ─▶ schema of the kind ─▶ each object by itself ─▶ objects together ─▶ Objects
//!                └──────────────┴──────── problems ───────┴──────────────────┘
//! ```
//! No step stops the next: a part that is wrong is reported and left out, so that one look shows all.

use std::collections::BTreeMap;

use castgate_crds::{
    ChannelBundleSpec, TunnelAccountSpec, TunnelAssignmentPolicySpec, TunnelDatabaseSpec, TunnelRelaySpec,
    TunnelServerSpec,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::check;
use crate::document::{self, Document, Kind, unknown};
use crate::objects::{Entry, ObjectName, Objects};
use crate::problem::{Problem, Problems, Pruned, Reporter};
use crate::rules::Rules;
use crate::schema::prune;

/// What [`validate`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validation {
    /// Objects found, by kind; kinds without any are left out.
    pub counts: BTreeMap<&'static str, usize>,
    /// What is wrong; `None` when nothing is.
    pub problems: Option<Problems>,
}

/// Reads manifests: pairs of a name to call the file by and its text, which holds any number of YAML documents.
///
/// # Errors
///
/// Everything that is wrong, sorted. Nothing is returned half.
pub fn load<P: AsRef<str>, T: AsRef<str>>(files: impl IntoIterator<Item = (P, T)>) -> Result<Objects, Problems> {
    let (objects, _, problems) = read(files);
    Problems::new(problems).map_or(Ok(objects), Err)
}

/// Reads manifests as [`load`] does, counts the objects, and says what is wrong.
pub fn validate<P: AsRef<str>, T: AsRef<str>>(files: impl IntoIterator<Item = (P, T)>) -> Validation {
    let (_, counts, problems) = read(files);
    Validation { counts, problems: Problems::new(problems) }
}

fn read<P: AsRef<str>, T: AsRef<str>>(
    files: impl IntoIterator<Item = (P, T)>,
) -> (Objects, BTreeMap<&'static str, usize>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut documents = Vec::new();
    for (file, text) in files {
        documents.extend(document::read(file.as_ref(), text.as_ref(), &mut problems));
    }
    let mut counts = BTreeMap::new();
    for document in &documents {
        *counts.entry(document.kind.name()).or_insert(0) += 1;
    }
    let documents = without_doubles(documents, &mut problems);
    let schemas = Schemas::new();
    let mut objects = Objects::default();
    let rules = Rules::new();
    for document in documents.values() {
        let before = problems.len();
        take(document, &schemas, &mut objects, &mut problems);
        rules.check(document, before, &mut problems);
    }
    check::resolve(&mut objects, &mut problems);
    check::together(&documents, &objects, &mut problems);
    (objects, counts, problems)
}

/// Documents by kind and name. The order is that of the map, so nothing below depends on the order of the files.
pub(crate) type Documents = BTreeMap<Key, Document>;
/// Which object.
pub(crate) type Key = (Kind, ObjectName);

fn without_doubles(mut documents: Vec<Document>, problems: &mut Vec<Problem>) -> Documents {
    // Of two objects with one name the one in the first file by name is kept, whatever order they came in.
    documents.sort_by(|a, b| a.file.cmp(&b.file));
    let mut kept = Documents::new();
    for document in documents {
        let key = (document.kind, document.name.clone());
        match kept.get(&key) {
            // Several folders may each bring the namespace along.
            Some(_) if document.kind == Kind::Namespace => {}
            Some(first) if first.file == document.file => Reporter::new(&document.file, &document.title(), problems)
                .report("metadata.name", "this file holds it twice"),
            Some(first) => Reporter::new(&document.file, &document.title(), problems)
                .report("metadata.name", format_args!("{} holds it too", first.file)),
            None => {
                kept.insert(key, document);
            }
        }
    }
    kept
}

/// Checks one object by itself and puts what is left of it among the others.
pub(crate) fn take(document: &Document, schemas: &Schemas, objects: &mut Objects, problems: &mut Vec<Problem>) {
    let title = document.title();
    let mut reporter = Reporter::new(&document.file, &title, problems);
    let reporter = &mut reporter;
    let (name, file) = (document.name.clone(), document.file.clone());
    match document.kind {
        // Nothing in it means anything to us.
        Kind::Namespace => {}
        Kind::Secret => {
            let object = check::secret(&document.body, reporter);
            objects.secrets.insert(name, Entry { file, object, pruned: Pruned::default() });
        }
        Kind::ConfigMap => {
            let object = check::config(&document.body, reporter);
            objects.configs.insert(name, Entry { file, object, pruned: Pruned::default() });
        }
        Kind::ChannelBundle => {
            if let Some((spec, pruned)) = spec_of::<ChannelBundleSpec>(document, schemas, reporter) {
                let object = check::bundle(&spec, &mut reporter.pruned(&pruned));
                objects.bundles.insert(name, Entry { file, object, pruned });
            }
        }
        Kind::TunnelAccount => {
            if let Some((spec, pruned)) = spec_of::<TunnelAccountSpec>(document, schemas, reporter) {
                let object = check::account(&spec, &mut reporter.pruned(&pruned));
                objects.accounts.insert(name, Entry { file, object, pruned });
            }
        }
        Kind::TunnelAssignmentPolicy => {
            if let Some((spec, pruned)) = spec_of::<TunnelAssignmentPolicySpec>(document, schemas, reporter) {
                let object = check::policy(&spec, &mut reporter.pruned(&pruned));
                objects.policies.insert(name, Entry { file, object, pruned });
            }
        }
        Kind::TunnelRelay => {
            if let Some((spec, pruned)) = spec_of::<TunnelRelaySpec>(document, schemas, reporter) {
                let object = check::relay(&spec, &mut reporter.pruned(&pruned));
                objects.relays.insert(name, Entry { file, object, pruned });
            }
        }
        Kind::TunnelDatabase => {
            if let Some((spec, pruned)) = spec_of::<TunnelDatabaseSpec>(document, schemas, reporter) {
                let object = check::database(&spec, &mut reporter.pruned(&pruned));
                objects.databases.insert(name, Entry { file, object, pruned });
            }
        }
        Kind::TunnelServer => {
            if let Some((spec, pruned)) = spec_of::<TunnelServerSpec>(document, schemas, reporter) {
                let mut object = check::server(&spec, &mut reporter.pruned(&pruned));
                object.labels = document.labels();
                objects.servers.insert(name, Entry { file, object, pruned });
            }
        }
    }
}

/// Checks a document against the schema of its kind and decodes what is left of the spec.
fn spec_of<T: DeserializeOwned>(
    document: &Document,
    schemas: &Schemas,
    reporter: &mut Reporter,
) -> Option<(T, Pruned)> {
    const FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];
    // What `kubectl get -o yaml` shows can be given back.
    for field in document.body.keys().filter(|field| *field != "status" && !FIELDS.contains(&field.as_str())) {
        reporter.report(field, unknown(field, FIELDS.into_iter()));
    }
    let Some(spec) = document.body.get("spec") else {
        reporter.report("spec", "is missing");
        return None;
    };
    let (spec, pruned) = prune(schemas.spec(document.kind), spec, "spec", reporter);
    match serde_json::from_value(spec?) {
        Ok(spec) => Some((spec, pruned)),
        Err(error) => {
            // Schema and type come from one source: this is for the day they do not.
            reporter.report("spec", error);
            None
        }
    }
}

/// The schema of each kind's spec.
pub(crate) struct Schemas(BTreeMap<String, JSONSchemaProps>);

impl Schemas {
    pub(crate) fn new() -> Self {
        let specs = castgate_crds::all().into_iter().map(|definition| {
            let schema = definition.spec.versions.into_iter().next().and_then(|version| version.schema);
            let root = schema.and_then(|schema| schema.open_api_v3_schema).expect("every definition has a schema");
            let spec = root.properties.and_then(|mut properties| properties.remove("spec"));
            (definition.spec.names.kind, spec.expect("every kind has a spec"))
        });
        Self(specs.collect())
    }

    fn spec(&self, kind: Kind) -> &JSONSchemaProps {
        self.0.get(kind.name()).expect("only kinds of ours are asked for")
    }
}

/// The fields of a core object that has no schema here.
pub(crate) fn only_known(body: &serde_json::Map<String, Value>, known: &[&str], reporter: &mut Reporter) {
    for field in body.keys().filter(|field| !known.contains(&field.as_str())) {
        reporter.report(field, unknown(field, known.iter().copied()));
    }
}
