//! The last snapshot that was put in force, kept on disk: an agent that finds its configuration broken starts with this one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use castgate_control::AgentSnapshot;

use super::file::{self, FileError};

const FILE_NAME: &str = "last-good.yaml";

/// The place of the last good snapshot in a state directory.
#[derive(Debug, Clone)]
pub struct LastGood {
    directory: PathBuf,
}

impl LastGood {
    /// The one of `state_dir`; nothing is touched yet.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self { directory: state_dir.to_owned() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.join(FILE_NAME)
    }

    /// Reads it; `None` when there is none yet.
    ///
    /// # Errors
    /// When it is there and cannot be read or is no snapshot.
    pub fn load(&self) -> Result<Option<AgentSnapshot>, FileError> {
        let path = self.path();
        match file::load_one(&path) {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces it in one step: whenever the machine stops, the old or the new one is there, whole.
    ///
    /// # Errors
    /// What the file system said; the old one is then still there.
    pub fn store(&self, snapshot: &AgentSnapshot) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let fresh = self.directory.join(format!(".{FILE_NAME}.new"));
        // It holds the passwords of the parents: nobody else reads it.
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(snapshot.to_yaml().as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, self.path())?;
        File::open(&self.directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_loaded_and_the_newer_one_wins() {
        let directory = tempfile::tempdir().unwrap();
        let last_good = LastGood::new(&directory.path().join("state"));
        assert!(last_good.load().unwrap().is_none());
        for generation in [1, 2] {
            let snapshot = AgentSnapshot { generation, agent: "demo/one".to_owned(), ..AgentSnapshot::default() };
            last_good.store(&snapshot).unwrap();
            assert_eq!(last_good.load().unwrap(), Some(snapshot));
        }
    }

    #[test]
    fn a_broken_one_is_an_error_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let last_good = LastGood::new(directory.path());
        fs::write(last_good.path(), "agent: [").unwrap();
        let error = last_good.load().unwrap_err().to_string();
        assert!(error.contains(FILE_NAME), "{error}");
    }

    #[test]
    fn nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let last_good = LastGood::new(directory.path());
        last_good.store(&AgentSnapshot { agent: "a".to_owned(), ..AgentSnapshot::default() }).unwrap();
        assert_eq!(fs::metadata(last_good.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
