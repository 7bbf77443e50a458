//! Reading a YAML text so that what is wrong is told with the path of its field.

use serde::de::DeserializeOwned;

use crate::SnapshotError;

/// Reads YAML, or JSON, which is YAML.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, SnapshotError> {
    let mut track = serde_path_to_error::Track::new();
    let read = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
        T::deserialize(serde_path_to_error::Deserializer::new(deserializer, &mut track))
    });
    read.map_err(|error| {
        let field = track.path().to_string();
        SnapshotError::new(if field == "." { String::new() } else { field }, reason(&error))
    })
}

/// What went wrong, without the excerpt of the file: the place is already named by its field.
fn reason(error: &serde_saphyr::Error) -> String {
    match error.without_snippet() {
        serde_saphyr::Error::Message { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}
