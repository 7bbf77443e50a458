//! What is wrong with a set of manifests: sentences that name file, object and field.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One thing that is wrong. Shown as `FILE: KIND NAMESPACE/NAME: FIELD: what is wrong`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as the caller named it.
    pub file: String,
    /// The object, as `TunnelServer castgate/brussels`; empty when the file could not be read that far.
    pub object: String,
    /// Path of the field, as `spec.channels[0].group`; empty when it is about the whole.
    pub field: String,
    /// What is wrong, without a full stop.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let Self { file, object, field, message } = self;
        for part in [file, object, field] {
            if !part.is_empty() {
                write!(formatter, "{part}: ")?;
            }
        }
        formatter.write_str(message)
    }
}

/// Everything that is wrong, sorted; never empty. Shown as one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Sorts `problems`; `None` when there is none.
    pub(crate) fn new(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort();
        problems.dedup();
        (!problems.is_empty()).then_some(Self(problems))
    }

    /// Looks at them in order.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// What was taken out of an object because it was wrong, so that the rest could be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pruned {
    /// Lists that lost rows: which rows, by their number in the manifest, are left.
    pub(crate) rows: BTreeMap<String, Vec<usize>>,
    /// Fields that are there in the manifest.
    pub(crate) fields: BTreeSet<String>,
}

impl Pruned {
    /// The path of a field in the manifest, where a list has rows that the object has not.
    fn path_in_manifest(&self, path: String) -> String {
        let Some((list, rest)) = path.split_once('[') else { return path };
        let Some((index, rest)) = rest.split_once(']') else { return path };
        let row = self.rows.get(list).zip(index.parse::<usize>().ok()).and_then(|(kept, index)| kept.get(index));
        row.map_or_else(|| path.clone(), |row| format!("{list}[{row}]{rest}"))
    }
}

/// Collects what is wrong with one object.
pub(crate) struct Reporter<'a> {
    file: &'a str,
    object: &'a str,
    pruned: Option<&'a Pruned>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reporter<'a> {
    pub(crate) fn new(file: &'a str, object: &'a str, problems: &'a mut Vec<Problem>) -> Self {
        Self { file, object, pruned: None, problems }
    }

    /// The same for an object that lost parts: paths are still those of the manifest.
    pub(crate) fn pruned<'b>(&'b mut self, pruned: &'b Pruned) -> Reporter<'b> {
        Reporter { file: self.file, object: self.object, pruned: Some(pruned), problems: self.problems }
    }

    /// Whether a field was taken out: then it is not missing.
    pub(crate) fn was_pruned(&self, field: &str) -> bool {
        self.pruned.is_some_and(|pruned| pruned.fields.contains(field))
    }

    /// Notes that `field` is wrong.
    pub(crate) fn report(&mut self, field: impl Into<String>, message: impl fmt::Display) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            object: one_line(self.object),
            field: one_line(&match self.pruned {
                Some(pruned) => pruned.path_in_manifest(field.into()),
                None => field.into(),
            }),
            message: one_line(&message.to_string()),
        });
    }
}

/// What a person wrote may be quoted anywhere in a sentence: whatever it holds, the sentence stays one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
