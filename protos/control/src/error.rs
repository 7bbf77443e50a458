//! The one sentence that says which field of a snapshot is wrong and why.

use std::fmt::Display;

/// A snapshot that is not one: the field and what is wrong with it, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{reason}", .field, if .field.is_empty() { "" } else { ": " })]
pub struct SnapshotError {
    /// Path of the field, as in `server.channels[2].group`; empty when the text is not even a snapshot.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl SnapshotError {
    /// Says that `field` is wrong because of `reason`.
    pub fn new(field: impl Into<String>, reason: impl Display) -> Self {
        Self { field: field.into(), reason: one_line(&reason.to_string()) }
    }

    /// The same error seen from the structure that holds the field.
    #[must_use]
    pub(crate) fn within(self, outer: &str) -> Self {
        Self { field: format!("{outer}.{}", self.field), ..self }
    }
}

/// A reason may quote the file: whatever stands there, the error stays one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
