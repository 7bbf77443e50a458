//! The file of the accounts: read whole, changed, replaced in one step, by one at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use castgate_control::AccountsFile;

/// Some hundred thousand accounts; what is larger is no file of accounts.
const BYTES_MAX: u64 = 64 << 20;

/// The file while it is ours alone.
#[derive(Debug)]
pub(super) struct Locked {
    /// Where the file really is, when a link led to it.
    path: PathBuf,
    content: AccountsFile,
    /// Held until we are dropped.
    _lock: File,
}

/// Reads the file; another edit that goes on meanwhile is seen whole or not at all.
pub(super) fn read(path: &Path) -> Result<AccountsFile> {
    match read_if_any(path)? {
        Some(content) => Ok(content),
        None => bail!("{} is not there; `castgate tds account add` makes it", path.display()),
    }
}

impl Locked {
    /// Waits until nobody else edits the file, and reads it. One that is not there has no accounts.
    pub(super) fn open(path: &Path) -> Result<Self> {
        // The link stays, and what it leads to is edited.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let place = beside(&path, "lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&place);
        let lock = lock.with_context(|| format!("cannot lock {}: {}", path.display(), place.display()))?;
        lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        let content = read_if_any(&path)?.unwrap_or_default();
        Ok(Self { path, content, _lock: lock })
    }

    /// What is in it.
    pub(super) fn content(&mut self) -> &mut AccountsFile {
        &mut self.content
    }

    /// Replaces the file in one step: whenever the machine stops, the old or the new one is there, whole. It belongs to whom it
    /// belonged before, or to whom its folder belongs: the agent may be somebody else than we are.
    pub(super) fn save(self) -> Result<()> {
        let path = &self.path;
        self.content.check().with_context(|| format!("{} would not be read again", path.display()))?;
        self.replace().with_context(|| format!("cannot write {}", path.display()))
    }

    fn replace(&self) -> io::Result<()> {
        let folder = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let fresh = beside(&self.path, "new");
        // One of an edit that was broken off; nobody else writes it while we hold the lock.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        let owner = fs::metadata(&self.path).or_else(|_| fs::metadata(folder))?;
        let ours = file.metadata()?;
        if (owner.uid(), owner.gid()) != (ours.uid(), ours.gid()) {
            // Only root can; for anybody else the file becomes his own.
            match fchown(&file, Some(owner.uid()), Some(owner.gid())) {
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
                _ => {}
            }
        }
        file.write_all(self.content.to_yaml().as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        File::open(folder)?.sync_all()
    }
}

fn read_if_any(path: &Path) -> Result<Option<AccountsFile>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut text = String::new();
    let read = file.take(BYTES_MAX + 1).read_to_string(&mut text);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if text.len() as u64 > BYTES_MAX {
        bail!("{} is larger than {BYTES_MAX} bytes", path.display());
    }
    AccountsFile::from_yaml(&text).map(Some).with_context(|| format!("{} is no file of accounts", path.display()))
}

/// `.accounts.yaml.lock` beside `accounts.yaml`.
fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use castgate_control::{Account, Allow};

    use super::*;

    #[test]
    fn a_file_is_made_replaced_whole_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.yaml");
        assert!(read(&path).unwrap_err().to_string().ends_with("`castgate tds account add` makes it"));
        add(&path, "be");
        add(&path, "nl");
        let logins: Vec<_> = read(&path).unwrap().accounts.into_iter().map(|account| account.login).collect();
        assert_eq!(logins, ["be", "nl"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!beside(&path, "new").exists());
    }

    #[test]
    fn edits_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.yaml");
        std::thread::scope(|scope| {
            for number in 0..16 {
                let path = &path;
                scope.spawn(move || add(path, &format!("login-{number}")));
            }
        });
        assert_eq!(read(&path).unwrap().accounts.len(), 16);
    }

    #[test]
    fn what_a_link_leads_to_is_edited_and_what_was_left_over_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real.yaml"), folder.path().join("link.yaml"));
        add(&real, "be");
        symlink("real.yaml", &link).unwrap();
        fs::write(beside(&real, "new"), "half of").unwrap();
        add(&link, "nl");
        assert!(link.is_symlink());
        assert_eq!(read(&real).unwrap().accounts.len(), 2);
    }

    #[test]
    fn what_is_no_file_of_accounts_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.yaml");
        fs::write(&path, "agent: demo\n").unwrap();
        let error = format!("{:#}", Locked::open(&path).unwrap_err());
        assert!(error.contains("accounts.yaml is no file of accounts: agent: unknown field"), "{error}");
        let missing = folder.path().join("missing").join("accounts.yaml");
        let nowhere = format!("{:#}", Locked::open(&missing).unwrap_err());
        assert!(nowhere.contains("cannot lock ") && nowhere.contains("missing/accounts.yaml"), "{nowhere}");
    }

    fn add(path: &Path, login: &str) {
        let mut file = Locked::open(path).unwrap();
        file.content().accounts.push(Account {
            login: login.to_owned(),
            password_hash: "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA".to_owned(),
            previous_password_hash: None,
            allow: Allow::default(),
        });
        file.save().unwrap();
    }
}
