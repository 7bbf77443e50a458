//! Manifests as a user names them: files and folders, or the example that is part of the program.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The example of one machine, so that `castgate up` works wherever the program is.
const ONE_MACHINE: [(&str, &str); 5] = [
    ("one-machine/00-namespace.yaml", include_str!("../../examples/one-machine/00-namespace.yaml")),
    ("one-machine/10-databases.yaml", include_str!("../../examples/one-machine/10-databases.yaml")),
    ("one-machine/20-server.yaml", include_str!("../../examples/one-machine/20-server.yaml")),
    ("one-machine/30-accounts.yaml", include_str!("../../examples/one-machine/30-accounts.yaml")),
    ("one-machine/40-channels.yaml", include_str!("../../examples/one-machine/40-channels.yaml")),
];

/// File names and contents; of a folder every `.yaml`, `.yml` and `.json` in it, sorted. Nothing named is the example.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<(String, String)>> {
    if paths.is_empty() {
        return Ok(ONE_MACHINE.map(|(file, text)| (file.to_owned(), text.to_owned())).to_vec());
    }
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let found = in_folder(path)?;
            if found.is_empty() {
                bail!("there is no manifest in the folder {}", path.display());
            }
            files.extend(found);
        } else {
            files.push(path.clone());
        }
    }
    let text = |file: &Path| fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
    files.iter().map(|file| Ok((file.display().to_string(), text(file)?))).collect()
}

fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read the folder {}", folder.display()))?.path();
        let manifest =
            path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
        if manifest && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_in_the_program_is_the_whole_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/one-machine");
        let on_disk: Vec<_> =
            in_folder(&folder).unwrap().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        let embedded: Vec<_> = read(&[]).unwrap().into_iter().map(|(_, text)| text).collect();
        assert_eq!(embedded, on_disk);
    }

    #[test]
    fn a_folder_without_manifests_and_a_missing_file_are_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes.txt"), "").unwrap();
        let error = read(&[folder.path().to_owned()]).unwrap_err();
        assert!(error.to_string().contains("no manifest"), "{error}");
        let error = read(&["/nowhere.yaml".into()]).unwrap_err();
        assert!(error.to_string().contains("/nowhere.yaml"), "{error}");
    }
}
