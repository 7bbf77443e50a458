//! A program that runs in the lab: started, watched, signalled by its own id, ended.

use super::wait;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    label: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    status: Option<ExitStatus>,
}

/// Where the programs of a lab print, for the moment when something fails.
#[derive(Debug)]
pub(crate) struct Outputs {
    folder: PathBuf,
    files: Mutex<Vec<(String, PathBuf)>>,
}

impl Process {
    pub(crate) fn spawn(label: &str, mut command: Command, stdin: Stdio, outputs: &Outputs) -> Result<Self> {
        let [stdout, stderr] = outputs.reserve(label);
        let file = |path: &Path| File::create(path).with_context(|| format!("{} cannot be made", path.display()));
        command.stdin(stdin).stdout(file(&stdout)?).stderr(file(&stderr)?);
        let child = command.spawn().with_context(|| format!("{label} does not start"))?;
        Ok(Self { label: label.to_owned(), child, stdout, stderr, status: None })
    }

    /// The process id. The program took it over from the tools that put it into its namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything printed so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout_bytes()).into_owned()
    }

    /// Everything printed so far, as it is.
    #[must_use]
    pub fn stdout_bytes(&self) -> Vec<u8> {
        std::fs::read(&self.stdout).unwrap_or_default()
    }

    /// Everything complained so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// Waits for a whole line on either stream for which `pick` gives something.
    ///
    /// # Errors
    /// When none has come in time, or the program ended without one.
    pub fn wait_line<T>(&mut self, what: &str, longest: Duration, pick: impl Fn(&str) -> Option<T>) -> Result<T> {
        let what = format!("{what} from {}", self.label);
        let found = wait::until(&what, longest, || {
            // Asked first: what it printed before it ended is in the files by then.
            let ended = self.is_ended();
            let text = [self.stdout(), self.stderr()];
            let lines = text.iter().flat_map(|text| text.split_inclusive('\n'));
            let mut lines = lines.filter(|line| line.ends_with('\n'));
            let line = lines.find_map(|line| pick(line.trim_end()));
            (line.is_some() || ended).then_some(line)
        })?;
        let Some(line) = found else {
            bail!("{what}: it ended with {:?}: {}", self.status, self.stderr().trim());
        };
        Ok(line)
    }

    /// Sends a signal to this process alone.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.is_ended() {
            bail!("{} has ended with {:?}: {}", self.label, self.status, self.stderr().trim());
        }
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("{} cannot be signalled", self.label))
    }

    /// Kills it as a power cut would (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(5)).map(drop)
    }

    /// Ends it as Ctrl-C would (SIGINT) and gives its status.
    ///
    /// # Errors
    /// When it had ended before or does not end in time.
    pub fn interrupt(&mut self, longest: Duration) -> Result<ExitStatus> {
        self.signal(Signal::INT)?;
        self.wait(longest)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs.
    pub fn wait(&mut self, longest: Duration) -> Result<ExitStatus> {
        let what = format!("end of {}", self.label);
        wait::until(&what, longest, || if self.is_ended() { self.status } else { None })
    }

    /// Whether it has ended.
    pub fn is_ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status.is_some()
    }

    /// Memory that it holds, in octets.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_octets(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let text = std::fs::read_to_string(&path).with_context(|| format!("{} has ended", self.label))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it has no memory any more")?;
        let kilobytes = line.split_whitespace().next().context("VmRSS has no number")?;
        Ok(kilobytes.parse::<u64>().context("VmRSS is no number")? * 1_024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_ended() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

impl Outputs {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, files: Mutex::default() }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Files for the standard output and error of a new program.
    fn reserve(&self, label: &str) -> [PathBuf; 2] {
        let mut files = self.files.lock().expect("nobody panics while he adds a name");
        ["stdout", "stderr"].map(|stream| {
            let path = self.folder.join(format!("{}-{stream}", files.len()));
            files.push((format!("{label} {stream}"), path.clone()));
            path
        })
    }

    /// Prints the last lines of every program.
    pub(crate) fn show(&self) {
        eprint!("{}", self.text_since(0));
    }

    /// How many there are: what comes later is [`text_since`](Self::text_since) then.
    pub(crate) fn mark(&self) -> usize {
        self.files.lock().map_or(0, |files| files.len())
    }

    /// The last lines of every program that was started since.
    pub(crate) fn text_since(&self, mark: usize) -> String {
        const SHOWN_LINES: usize = 30;
        let Ok(files) = self.files.lock() else { return String::new() };
        let mut shown = String::new();
        for (name, path) in files.iter().skip(mark) {
            let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            if !lines.is_empty() {
                let last = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
                writeln!(shown, "--- {name} ({} lines)\n{last}", lines.len()).expect("a string takes everything");
            }
        }
        shown
    }
}
