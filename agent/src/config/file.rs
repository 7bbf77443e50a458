//! A snapshot from a YAML file, and from others the accounts of its database and the certificates: no Kubernetes needed.

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

/// Reads a snapshot from a file, and the accounts of its database and certificates from the files that it names.
#[must_use]
pub fn load(path: &Path) -> Loaded {
    let mut snapshot = match load_one(path) {
        Ok(snapshot) => snapshot,
        Err(error) => return Loaded { snapshot: Err(error), also: Vec::new() },
    };
    let beside = |named: &Path| path.parent().unwrap_or(Path::new("")).join(named);
    let accounts = snapshot.database.as_mut().and_then(|database| database.accounts_file.take());
    let accounts = accounts.map(|named| beside(&named));
    // Whatever speaks https, in the order of the roles.
    let ports = [
        snapshot.database.as_mut().map(|database| (&mut database.tls, &mut database.tls_files)),
        snapshot.front.as_mut().map(|front| (&mut front.tls, &mut front.tls_files)),
    ];
    let mut also: Vec<PathBuf> = accounts.iter().cloned().collect();
    let mut missing = Ok(());
    for (tls, files) in ports.into_iter().flatten() {
        let Some(TlsFiles { certificate, key }) = files.take() else { continue };
        let [certificate, key] = [beside(&certificate), beside(&key)];
        match identity(&certificate, &key) {
            Ok(read) => *tls = Some(read),
            Err(error) => missing = missing.and(Err(error)),
        }
        also.extend([certificate, key]);
    }
    let add = || {
        missing?;
        match &accounts {
            Some(file) => add_accounts(snapshot, path, file),
            None if also.is_empty() => Ok(snapshot),
            None => checked(snapshot, path),
        }
    };
    Loaded { snapshot: add(), also }
}

fn identity(certificate: &Path, key: &Path) -> Result<TlsIdentity, FileError> {
    Ok(TlsIdentity { certificate: read(certificate)?, key: read(key)? })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_of_all_ports_are_read_and_all_files_are_followed_whether_or_not_they_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = "agent: demo/both\n\
            database: {listen: '127.0.4.1:5632', tlsFiles: {certificate: a.crt, key: a.key}}\n\
            front: {listen: '127.0.4.2:5632', upstream: {endpoint: 'https://adapter:8444', key: k}, \
            tlsFiles: {certificate: b.crt, key: b.key}}\n";
        std::fs::write(at("agent.yaml"), text).unwrap();
        let all = ["a.crt", "a.key", "b.crt", "b.key"].map(at);
        let Loaded { snapshot, also } = load(&at("agent.yaml"));
        assert_eq!(also, all);
        let sentence = snapshot.unwrap_err().to_string();
        assert!(sentence.starts_with(&at("a.crt").display().to_string()), "{sentence}");

        for name in ["a", "b"] {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            std::fs::write(at(&format!("{name}.crt")), made.cert.pem()).unwrap();
            std::fs::write(at(&format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
        }
        let Loaded { snapshot, also } = load(&at("agent.yaml"));
        let snapshot = snapshot.unwrap();
        assert_eq!(also, all);
        let (database, front) = (snapshot.database.unwrap(), snapshot.front.unwrap());
        assert_eq!(database.tls.unwrap().certificate, std::fs::read_to_string(at("a.crt")).unwrap());
        assert_eq!(front.tls.unwrap().key, std::fs::read_to_string(at("b.key")).unwrap());
        assert!(database.tls_files.is_none() && front.tls_files.is_none());

        std::fs::write(at("b.key"), "nonsense").unwrap();
        let sentence = load(&at("agent.yaml")).snapshot.unwrap_err().to_string();
        assert!(sentence.ends_with("front.tls.key: holds no private key in PEM"), "{sentence}");
    }
}
