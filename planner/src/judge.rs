//! Objects of a cluster to those that are good and to what is wrong with the others.
//!
//! ```text
//!   objects ─▶ schema of the kind ─▶ each by itself ─▶ those that are left together ─┬─▶ good ones
//!                   └──── problems ───────┘                    ▲      └── bad ones ──┤
//!                                                              └─── taken out ◀──────┘
//! ```
//! In manifests one mistake stops everything, because whoever wrote them is there to correct it. In a cluster objects come and
//! go one by one, written by several people: a bad one stops itself and those that need it, and nobody else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::check;
use crate::document::{self, Kind, is_label, not_a_label};
use crate::load::{Documents, Key, Schemas, take};
use crate::objects::{ObjectName, Objects};
use crate::problem::{Problem, Problems, Reporter};

/// What [`judge`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    /// The objects without a problem; all that they name is among them.
    pub objects: Objects,
    /// What is wrong with the others, by kind and name, sorted; no list is empty.
    pub problems: BTreeMap<(&'static str, ObjectName), Vec<Problem>>,
}

/// Judges objects as an API server returns them, with `kind`, `apiVersion` and whatever it has added.
///
/// Objects of other kinds are passed over. A Secret need not be there: who needs it has a problem until it is.
///
/// ```
/// # use serde_json::json;
/// let server = json!({
///     "apiVersion": "castgate.dev/v1alpha1", "kind": "TunnelServer",
///     "metadata": { "name": "brussels", "namespace": "castgate", "uid": "0b9a" },
///     "spec": { "interfaces": [{ "name": "eth0" }], "bundles": [{ "name": "demo" }] },
/// });
/// let judged = castgate_planner::judge([server]);
/// let (_, problems) = judged.problems.first_key_value().unwrap();
/// assert_eq!(
///     problems[0].to_string(),
///     "TunnelServer castgate/brussels: spec.bundles[0].name: there is no ChannelBundle castgate/demo"
/// );
/// ```
pub fn judge(objects: impl IntoIterator<Item = Value>) -> Judged {
    let documents: Documents = objects
        .into_iter()
        .filter_map(document::given)
        .map(|document| ((document.kind, document.name.clone()), document))
        .collect();
    let mut judge = Judge::new(&documents);
    judge.each_by_itself();
    judge.together();
    let problems = judge.problems.into_iter().map(|((kind, name), problems)| {
        let sorted = Problems::new(problems).into_iter().flatten().collect();
        ((kind.name(), name), sorted)
    });
    Judged { objects: judge.objects, problems: problems.collect() }
}

struct Judge<'a> {
    documents: &'a Documents,
    /// Objects by the name that problems give them.
    titles: BTreeMap<String, &'a Key>,
    /// Those that are good as far as is known.
    objects: Objects,
    problems: BTreeMap<Key, Vec<Problem>>,
}

impl<'a> Judge<'a> {
    fn new(documents: &'a Documents) -> Self {
        let titles = documents.iter().map(|(key, document)| (document.title(), key));
        Self { documents, titles: titles.collect(), objects: Objects::default(), problems: BTreeMap::new() }
    }

    fn each_by_itself(&mut self) {
        let schemas = Schemas::new();
        let mut found = Vec::new();
        for document in self.documents.values() {
            // Kubernetes allows dots and more letters; names of ours become parts of other names.
            if !is_label(&document.name.name) && !matches!(document.kind, Kind::Secret | Kind::ConfigMap) {
                let title = document.title();
                let mut reporter = Reporter::new("", &title, &mut found);
                reporter.report("metadata.name", not_a_label(&document.name.name));
            }
            take(document, &schemas, &mut self.objects, &mut found);
        }
        check::resolve(&mut self.objects, &mut found);
        self.take_out(found);
    }

    /// Looks at those that are left until nobody is left who needs one that was taken out.
    fn together(&mut self) {
        loop {
            let bad: BTreeSet<Key> = self.problems.keys().cloned().collect();
            let mut found = Vec::new();
            check::left_together(self.documents, &self.objects, &bad, &mut found);
            if found.is_empty() {
                return;
            }
            self.take_out(found);
        }
    }

    fn take_out(&mut self, found: Vec<Problem>) {
        for problem in found {
            let Some(key) = self.titles.get(&problem.object).copied() else {
                debug_assert!(false, "a problem of no object: {problem}");
                continue;
            };
            self.objects.remove(key.0, &key.1);
            self.problems.entry(key.clone()).or_default().push(problem);
        }
    }
}
