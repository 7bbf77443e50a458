//! A snapshot from a YAML file, and from others the accounts and the certificate of its database: no Kubernetes needed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use castgate_control::{AccountsFile, AgentSnapshot, SnapshotError, TlsFiles, TlsIdentity};

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
    /// The file with the accounts cannot be read.
    #[error("{}: {source}; `castgate tds account` makes and edits this file", path.display())]
    Accounts {
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

/// What a configuration file comes to.
#[derive(Debug)]
pub struct Loaded {
    /// The snapshot, or why there is none.
    pub snapshot: Result<AgentSnapshot, FileError>,
    /// The files that it names, whether or not they can be read: a change of one is one of the snapshot.
    pub also: Vec<PathBuf>,
}

/// Reads a snapshot from a file, and accounts and certificate of its database from the files that it names.
#[must_use]
pub fn load(path: &Path) -> Loaded {
    let mut snapshot = match load_one(path) {
        Ok(snapshot) => snapshot,
        Err(error) => return Loaded { snapshot: Err(error), also: Vec::new() },
    };
    let beside = |named: &Path| path.parent().unwrap_or(Path::new("")).join(named);
    let accounts = snapshot.database.as_mut().and_then(|database| database.accounts_file.take());
    let accounts = accounts.map(|named| beside(&named));
    let tls = snapshot.database.as_mut().and_then(|database| database.tls_files.take());
    let tls = tls.map(|TlsFiles { certificate, key }| [beside(&certificate), beside(&key)]);
    let also = accounts.iter().chain(tls.iter().flatten()).cloned().collect();
    let add = || {
        if let Some([certificate, key]) = &tls
            && let Some(database) = &mut snapshot.database
        {
            database.tls = Some(TlsIdentity { certificate: read(certificate)?, key: read(key)? });
        }
        match &accounts {
            Some(file) => add_accounts(snapshot, path, file),
            None if tls.is_some() => checked(snapshot, path),
            None => Ok(snapshot),
        }
    };
    Loaded { snapshot: add(), also }
}

/// Reads a snapshot from a file that names no other.
///
/// # Errors
/// One sentence that names the file and, when it could be read, the field.
pub fn load_one(path: &Path) -> Result<AgentSnapshot, FileError> {
    let text = read(path)?;
    AgentSnapshot::from_yaml(&text).map_err(|source| FileError::Snapshot { path: path.to_owned(), source })
}

fn add_accounts(mut snapshot: AgentSnapshot, config: &Path, path: &Path) -> Result<AgentSnapshot, FileError> {
    let text = read(path).map_err(|error| match error {
        FileError::Read { path, source } => FileError::Accounts { path, source },
        other => other,
    })?;
    let wrong = |path: &Path, source| FileError::Snapshot { path: path.to_owned(), source };
    let AccountsFile { changed_by, accounts } = AccountsFile::from_yaml(&text).map_err(|source| wrong(path, source))?;
    if let Some(database) = &mut snapshot.database {
        database.accounts.extend(accounts);
        database.accounts_changed_by = changed_by;
    }
    // A login may be both here and there.
    checked(snapshot, config)
}

fn checked(snapshot: AgentSnapshot, config: &Path) -> Result<AgentSnapshot, FileError> {
    let checked = snapshot.check();
    checked.map_err(|source| FileError::Snapshot { path: config.to_owned(), source })?;
    Ok(snapshot)
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
