//! Notices that the configuration file, or one that it names, may have changed.
//!
//! The directory is watched, not the file: an editor renames a new file over the old one, and a mounted `ConfigMap` swaps a
//! symbolic link beside it. When the file is a link, the directory of its target is watched as well. Whether the text really
//! changed is found out by reading it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// A writer that is not atomic makes several events; the file is read when so long nothing more happened.
const SETTLE: Duration = Duration::from_millis(100);

/// Watches the place of a file, and of others that belong to it.
#[derive(Debug)]
pub struct Watch {
    inotify: AsyncFd<OwnedFd>,
    path: PathBuf,
    also: Vec<PathBuf>,
}

impl Watch {
    /// Starts watching; must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the kernel has no inotify instance left or the directory is not there.
    pub fn new(path: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for the sake of types other than OwnedFd, which keeps its descriptor"
        )]
        let inotify = AsyncFd::new(inotify)?;
        let watch = Self { inotify, path: path.to_owned(), also: Vec::new() };
        watch.add(directory_of(path))?;
        watch.follow_link(path);
        Ok(watch)
    }

    /// Watches the places of these files as well, which need not be there yet; of those that were named before no longer.
    pub fn also(&mut self, paths: Vec<PathBuf>) {
        // Their directories stay watched: what happens there is looked at in vain.
        self.also = paths;
        self.look_again();
    }

    /// Waits until something happened beside the file and has settled. Safe to drop half-way.
    ///
    /// # Errors
    /// When the kernel takes the watch away.
    pub async fn changed(&self) -> io::Result<()> {
        self.some_event().await?;
        while tokio::time::timeout(SETTLE, self.some_event()).await.is_ok() {}
        self.look_again();
        Ok(())
    }

    /// A link may point somewhere else now, and a directory that was replaced needs a new watch.
    fn look_again(&self) {
        for path in std::iter::once(&self.path).chain(&self.also) {
            let _ = self.add(directory_of(path));
            self.follow_link(path);
        }
    }

    async fn some_event(&self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            if self.drain()? {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    /// Takes all events; whether there was any.
    fn drain(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(self.inotify.get_ref(), &mut buffer);
        let mut any = false;
        loop {
            match events.next() {
                Ok(_) => any = true,
                Err(Errno::AGAIN) => return Ok(any),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn add(&self, directory: &Path) -> io::Result<()> {
        let interesting = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        inotify::add_watch(self.inotify.get_ref(), directory, interesting)?;
        Ok(())
    }

    fn follow_link(&self, path: &Path) {
        if let Ok(target) = path.canonicalize() {
            // A target that vanished in between is announced by the directory of the link.
            let _ = self.add(directory_of(&target));
        }
    }
}

/// Waits for a change; for ever when nothing is watched, or the kernel does not tell any more. `what` is watched, for the log.
pub(crate) async fn changed(watch: Option<&Watch>, what: &str) {
    if let Some(watch) = watch {
        match watch.changed().await {
            Ok(()) => return,
            Err(error) => tracing::error!(%error, "changes of {what} are no longer seen"),
        }
    }
    std::future::pending::<()>().await;
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Each way of changing a file that people and machines use.
    #[tokio::test]
    async fn a_change_is_seen_however_it_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.yaml");
        fs::write(&path, "one").unwrap();
        let watch = Watch::new(&path).unwrap();

        fs::write(&path, "two").unwrap();
        watch.changed().await.unwrap();

        fs::write(directory.path().join("new"), "three").unwrap();
        fs::rename(directory.path().join("new"), &path).unwrap();
        watch.changed().await.unwrap();

        fs::remove_file(&path).unwrap();
        watch.changed().await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_belongs_to_it_is_watched_as_well() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(here.path().join("agent.yaml"), "one").unwrap();
        let mut watch = Watch::new(&here.path().join("agent.yaml")).unwrap();
        let accounts = there.path().join("accounts.yaml");
        watch.also(vec![accounts.clone()]);
        // Not there yet.
        fs::write(&accounts, "one").unwrap();
        watch.changed().await.unwrap();
        fs::write(there.path().join("new"), "two").unwrap();
        fs::rename(there.path().join("new"), &accounts).unwrap();
        watch.changed().await.unwrap();
    }

    #[tokio::test]
    async fn the_swap_of_a_config_map_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("agent.yaml"), text).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/agent.yaml", at("agent.yaml")).unwrap();
        let watch = Watch::new(&at("agent.yaml")).unwrap();

        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        watch.changed().await.unwrap();
        assert_eq!(fs::read_to_string(at("agent.yaml")).unwrap(), "two");
    }

    #[tokio::test]
    async fn a_change_of_the_target_of_a_link_is_seen() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(there.path().join("real.yaml"), "one").unwrap();
        symlink(there.path().join("real.yaml"), here.path().join("agent.yaml")).unwrap();
        let watch = Watch::new(&here.path().join("agent.yaml")).unwrap();
        fs::write(there.path().join("real.yaml"), "two").unwrap();
        watch.changed().await.unwrap();
    }
}
