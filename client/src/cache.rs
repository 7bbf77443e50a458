//! What the last walk down the hierarchy found, kept on disk so that the next one starts where it ended.
//!
//! One small file for each question (roots, country, protocol), because a machine that asks two hierarchies in turn must
//! not forget one for the other. The locator judges age and fit; a file that cannot be read or written is no error: the
//! cache only saves time.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use castgate_endpoint::hierarchy::address::DatabaseAddress;
use castgate_endpoint::hierarchy::locator::{Cache, Wanted};
use tracing::debug;

/// A file longer than this is none of ours: 256 servers take some 20 KB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where cached walks are kept.
#[derive(Debug, Clone, Default)]
pub struct CacheFolder {
    folder: Option<PathBuf>,
}

impl CacheFolder {
    /// Keeps nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Keeps the files in this folder, which is made when it is needed.
    #[must_use]
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()) }
    }

    /// `$XDG_CACHE_HOME/castgate`, or `~/.cache/castgate`; nothing when there is no home.
    #[must_use]
    pub fn of_user() -> Self {
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        Self { folder: base.map(|base| base.join("castgate")) }
    }

    /// What was kept for this question.
    #[must_use]
    pub fn load(&self, roots: &[DatabaseAddress], wanted: &Wanted) -> Option<Cache> {
        let path = self.path(roots, wanted)?;
        match read(&path) {
            Ok(cache) => Some(cache),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                debug!(path = %path.display(), %error, "the cached walk cannot be used");
                None
            }
        }
    }

    /// Keeps the outcome of a walk.
    pub fn store(&self, roots: &[DatabaseAddress], wanted: &Wanted, cache: &Cache) {
        let Some(path) = self.path(roots, wanted) else { return };
        if let Err(error) = write(&path, cache) {
            debug!(path = %path.display(), %error, "the walk was not cached");
        }
    }

    fn path(&self, roots: &[DatabaseAddress], wanted: &Wanted) -> Option<PathBuf> {
        let mut hasher = DefaultHasher::new();
        roots.hash(&mut hasher);
        wanted.country.as_ref().map(ToString::to_string).hash(&mut hasher);
        wanted.protocol.to_string().hash(&mut hasher);
        Some(self.folder.as_ref()?.join(format!("located-{:016x}.json", hasher.finish())))
    }
}

fn read(path: &Path) -> io::Result<Cache> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Written beside and renamed, so that a reader never sees half a file.
fn write(path: &Path, cache: &Cache) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
    fs::create_dir_all(folder)?;
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = fs::File::create(&beside)?;
    file.write_all(&serde_json::to_vec(cache)?)?;
    drop(file);
    fs::rename(&beside, path).inspect_err(|_| {
        // The rename's error is the one to tell.
        let _ = fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use castgate_endpoint::hierarchy::locator::{Answer, Locator, Step};
    use castgate_wire::registry::{EntryType, Protocol, ProtocolFilter, Scheme, Server};
    use std::time::SystemTime;

    #[test]
    fn a_walk_is_found_again_by_its_question_and_by_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CacheFolder::at(folder.path().join("made/when/needed"));
        let (roots, wanted) = question("127.0.4.1");
        let walk = walk(&roots, &wanted);
        assert_eq!(cache.load(&roots, &wanted), None);
        cache.store(&roots, &wanted, &walk);
        assert_eq!(cache.load(&roots, &wanted), Some(walk));
        assert_eq!(cache.load(&question("127.0.4.2").0, &wanted), None);
    }

    #[test]
    fn a_spoilt_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CacheFolder::at(folder.path());
        let (roots, wanted) = question("127.0.4.1");
        cache.store(&roots, &wanted, &walk(&roots, &wanted));
        let path = cache.path(&roots, &wanted).unwrap();
        fs::write(&path, b"{\"half\":").unwrap();
        assert_eq!(cache.load(&roots, &wanted), None);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_no_error() {
        let cache = CacheFolder::at("/dev/null/castgate");
        let (roots, wanted) = question("127.0.4.1");
        cache.store(&roots, &wanted, &walk(&roots, &wanted));
        assert_eq!(cache.load(&roots, &wanted), None);
    }

    fn question(root: &str) -> (Vec<DatabaseAddress>, Wanted) {
        (vec![root.parse().unwrap()], Wanted { country: None, protocol: ProtocolFilter::Only(Protocol::Udp) })
    }

    fn walk(roots: &[DatabaseAddress], wanted: &Wanted) -> Cache {
        let mut locator = Locator::new(roots.to_vec(), wanted.clone(), None, 1, SystemTime::now().into());
        let server = Server {
            address: "127.0.2.1".parse().unwrap(),
            port: 10100,
            entry_type: EntryType::TunnelServer,
            protocol: Some(Protocol::Udp),
            prefix_len: None,
            fed_by: Vec::new(),
            scheme: Scheme::Http,
        };
        let now = std::time::Instant::now();
        let Some(Step::Ask(ask)) = locator.poll(now) else { panic!("the only root is to be asked") };
        locator.handle_answer(ask.id, Ok(Answer { servers: vec![server], tier: None }));
        match locator.poll(now) {
            Some(Step::Found(found)) => found.cache,
            other => panic!("{other:?}"),
        }
    }
}
