//! A program of the cluster that runs until it is stopped, also when whoever started it is another process.

use super::layout;
use crate::lab::names::Owner;
use crate::lab::wait;
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long the kernel may take to clear away a process that it was told to kill.
const LONGEST_DEATH: Duration = Duration::from_secs(10);

/// Known by its files: `NAME.pid` says which process it is, `NAME.log` has what it printed.
#[derive(Debug, Clone)]
pub(super) struct Daemon {
    name: String,
    folder: PathBuf,
}

impl Daemon {
    pub(super) fn new(folder: &Path, name: &str) -> Self {
        Self { name: name.to_owned(), folder: folder.to_path_buf() }
    }

    /// What it printed.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    /// Starts it; gives its process id.
    pub(super) fn start(&self, mut command: Command) -> Result<u32> {
        let path = self.log();
        std::fs::create_dir_all(&self.folder).with_context(|| format!("{} cannot be made", self.folder.display()))?;
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("{} cannot be written", path.display()))?;
        let errors = log.try_clone().context("a log has two writers")?;
        // A group of its own: Ctrl-C is for us, and what it started ends with us.
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        let mut child = command.spawn().with_context(|| format!("{} does not start", self.name))?;
        let pid = child.id();
        let owner = Owner::of_pid(pid).with_context(|| format!("{} ended at once: {}", self.name, path.display()))?;
        layout::write(&self.pid_file(), &owner.to_string())?;
        // Somebody has to take its exit status, or its remains would stay.
        std::thread::spawn(move || child.wait());
        Ok(pid)
    }

    /// Its process id while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        let owner = Owner::of_text(&std::fs::read_to_string(self.pid_file()).ok()?)?;
        owner.is_alive().then_some(owner.pid())
    }

    /// Kills it and waits until it is gone.
    pub(super) fn kill(&self) -> Result<()> {
        let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) else { return Ok(()) };
        kill_process(pid, Signal::KILL).ok();
        wait::until(&format!("end of {}", self.name), LONGEST_DEATH, || self.pid().is_none().then_some(()))
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join(format!("{}.pid", self.name))
    }
}
