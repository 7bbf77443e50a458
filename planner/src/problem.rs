//! What is wrong with a set of manifests: sentences that name file, object and field.

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

/// Collects what is wrong with one object.
pub(crate) struct Reporter<'a> {
    file: &'a str,
    object: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reporter<'a> {
    pub(crate) fn new(file: &'a str, object: &'a str, problems: &'a mut Vec<Problem>) -> Self {
        Self { file, object, problems }
    }

    /// Notes that `field` is wrong.
    pub(crate) fn report(&mut self, field: impl Into<String>, message: impl fmt::Display) {
        // A value that a person wrote may be quoted in the message: whatever it holds, the sentence stays one line.
        let message = message.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        self.problems.push(Problem {
            file: self.file.to_owned(),
            object: self.object.to_owned(),
            field: field.into(),
            message,
        });
    }

    /// How many there are, of this object and all before it.
    pub(crate) fn count(&self) -> usize {
        self.problems.len()
    }
}
