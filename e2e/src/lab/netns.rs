//! Network namespaces: made, entered, left, removed.

use super::names::Owner;
use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where iproute2 keeps the names of namespaces.
pub(crate) const DIRECTORY: &str = "/run/netns";

/// A namespace that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn named(name: String) -> Self {
        Self { name }
    }

    /// The name by which `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does `work` inside: sockets and interfaces that it opens belong to the namespace for as long as they live. `work`
    /// has a thread of its own, since a namespace is a property of a thread.
    ///
    /// # Errors
    /// When the namespace is gone.
    ///
    /// # Panics
    /// When `work` does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let namespace = File::open(self.path()).with_context(|| format!("namespace {} is gone", self.name))?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            });
            match inside.join() {
                Ok(outcome) => outcome.map_err(|error: rustix::io::Errno| {
                    anyhow::Error::new(error).context(format!("namespace {} cannot be entered", self.name))
                }),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// A program that will run inside and dies with the thread that starts it, however that ends.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "setpriv", "--pdeathsig", "KILL"]).arg(program.as_ref());
        // What they print is read by tests: no colours.
        command.env("NO_COLOR", "1");
        command
    }

    /// Applies lines of `ip` commands inside.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn ip(&self, lines: &str) -> Result<()> {
        ip_batch(&["-n", &self.name], lines)
    }

    /// Writes a kernel setting of the namespace, such as `ipv4/ip_forward`.
    pub(crate) fn set(&self, setting: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{setting}");
        self.enter(|| std::fs::write(&path, value))?.with_context(|| format!("{path} cannot be set in {}", self.name))
    }

    fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }
}

/// Runs lines of `ip` commands in our own namespace.
pub(crate) fn ip_batch(options: &[&str], lines: &str) -> Result<()> {
    feed(Command::new("ip").args(options).args(["-batch", "-"]), lines)
}

/// Runs a program with a text on its standard input.
pub(crate) fn feed(command: &mut Command, text: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{}` does not start", command.get_program().display()))?;
    let mut stdin = child.stdin.take().expect("standard input was piped");
    stdin.write_all(text.as_bytes()).context("the program does not read its input")?;
    drop(stdin);
    let output = child.wait_with_output().context("the program cannot be waited for")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}\ngiven:\n{text}", command.get_program().display(), complaint.trim());
    Ok(())
}

/// A line of `ip` for each namespace: the command and its name.
pub(crate) fn each<'a>(command: &str, namespaces: impl Iterator<Item = &'a Namespace>) -> String {
    let lines: Vec<String> = namespaces.map(|namespace| format!("{command} {}\n", namespace.name)).collect();
    lines.concat()
}

/// Names of every namespace whose name `pick` likes.
pub(crate) fn list(pick: impl Fn(&str) -> bool) -> Vec<Namespace> {
    let Ok(entries) = std::fs::read_dir(DIRECTORY) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| pick(name)).collect();
    names.sort_unstable();
    names.into_iter().map(Namespace::named).collect()
}

/// Ends every process inside and removes the namespaces; interfaces go with them. Says what could not be done.
pub(crate) fn remove(namespaces: &[Namespace]) -> Result<()> {
    for namespace in namespaces {
        for pid in pids(namespace) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
    }
    let removed = ip_batch(&["-force"], &each("netns del", namespaces.iter()));
    // A reaper, or another sweep, may have been at the same ones: what counts is that they are gone.
    if namespaces.iter().any(|namespace| namespace.path().exists()) {
        return removed.context("namespaces cannot be removed");
    }
    Ok(())
}

/// Removes what labs of dead test programs left behind.
///
/// # Errors
/// When a namespace stays.
pub fn sweep() -> Result<()> {
    let orphans = list(|name| Owner::of_name(name).is_some_and(|owner| !owner.is_alive()));
    if orphans.is_empty() { Ok(()) } else { remove(&orphans) }
}

fn pids(namespace: &Namespace) -> Vec<rustix::process::Pid> {
    let Ok(output) = Command::new("ip").args(["netns", "pids", &namespace.name]).output() else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?)).collect()
}
