//! `castgate-agent` as a process of its own, with a configuration file and a state directory that vanish with it.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use castgate_control::AgentSnapshot;
use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;

/// A running agent.
pub struct Program {
    child: Child,
    directory: Arc<tempfile::TempDir>,
    said: Arc<(Mutex<VecDeque<String>>, Condvar)>,
}

impl Program {
    /// Starts an agent with this snapshot and waits until it runs.
    pub fn start(snapshot: &AgentSnapshot) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        fs::write(directory.path().join("agent.yaml"), snapshot.to_yaml()).unwrap();
        let program = Self::start_in(directory);
        program.wait_for("in force");
        program
    }

    /// Starts an agent on what is there; whether it comes up is for the caller to see.
    pub fn start_in(directory: Arc<tempfile::TempDir>) -> Self {
        let config = directory.path().join("agent.yaml");
        Self::launch(directory, &["--config", config.to_str().unwrap()])
    }

    /// Starts an agent with these arguments; its state and its socket are in the directory.
    pub fn launch(directory: Arc<tempfile::TempDir>, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_castgate-agent"))
            .args(arguments)
            .arg("--socket")
            .arg(directory.path().join("agent.sock"))
            .arg("--state")
            .arg(directory.path().join("state"))
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::<(Mutex<VecDeque<String>>, Condvar)>::default();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listener = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                listener.0.lock().unwrap().push_back(line);
                listener.1.notify_all();
            }
        });
        Self { child, directory, said }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn directory(&self) -> Arc<tempfile::TempDir> {
        Arc::clone(&self.directory)
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join("agent.yaml")
    }

    /// Replaces the configuration as an editor does: a new file under the old name.
    pub fn configure(&self, text: &str) {
        let fresh = self.directory.path().join("agent.yaml.new");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, self.config()).unwrap();
    }

    /// Waits for the next line of the log that contains `words`, and gives it; lines before it are forgotten.
    pub fn wait_for(&self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut skipped = Vec::new();
        let mut said = self.said.0.lock().unwrap();
        loop {
            while let Some(line) = said.pop_front() {
                if line.contains(words) {
                    return line;
                }
                skipped.push(line);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nobody said {words:?}, but: {skipped:#?}");
            said = self.said.1.wait_timeout(said, left).unwrap().0;
        }
    }

    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// What `castgate-agent ask TOPIC` gives: whether it says yes, and what it says.
    pub fn ask(&self, topic: &str) -> (bool, String) {
        let asked = Command::new(env!("CARGO_BIN_EXE_castgate-agent"))
            .args(["ask", topic, "--socket"])
            .arg(self.directory.path().join("agent.sock"))
            .output()
            .unwrap();
        let said = if asked.status.success() { asked.stdout } else { asked.stderr };
        (asked.status.success(), String::from_utf8(said).unwrap().trim().to_owned())
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Resident memory.
    pub fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
