//! Files of this repository, for every test.

use std::path::{Path, PathBuf};

/// A path inside this crate.
pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// The manifests of a folder, sorted by name: what `-f DIR` reads.
pub fn folder(relative: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(path(relative))
        .unwrap_or_else(|error| panic!("{relative}: {error}"))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}
