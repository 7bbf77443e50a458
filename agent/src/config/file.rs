//! A snapshot from a YAML file: no Kubernetes needed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use castgate_control::{AgentSnapshot, SnapshotError};

/// A snapshot of many thousand channels is a few megabytes; what is larger is not a snapshot.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Why a file gives no snapshot: one sentence that names the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It is larger than any snapshot.
    #[error("{}: is larger than {FILE_BYTES_MAX} bytes", .0.display())]
    TooLarge(PathBuf),
    /// It can be read, but a field is wrong.
    #[error("{}: {source}", path.display())]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// The field and what is wrong with it.
        source: SnapshotError,
    },
}

/// Reads a snapshot from a file.
///
/// # Errors
/// One sentence that names the file and, when it could be read, the field.
pub fn load(path: &Path) -> Result<AgentSnapshot, FileError> {
    let text = read(path)?;
    AgentSnapshot::from_yaml(&text).map_err(|source| FileError::Snapshot { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<String, FileError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() as u64 > FILE_BYTES_MAX => Err(FileError::TooLarge(path.to_owned())),
        Ok(_) => Ok(text),
        Err(source) => Err(FileError::Read { path: path.to_owned(), source }),
    }
}
