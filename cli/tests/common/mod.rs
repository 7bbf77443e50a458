//! Running the built program as a user does, each test on loopback addresses of its own.

// Each test file is a program of its own and uses its own part of this.
#![allow(dead_code, reason = "shared by several test programs")]

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(30);

/// The program with these words; what it remembers, the tests of one process have for themselves.
pub fn castgate(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_castgate"));
    let cache = format!("{}/cache-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    command.args(words).env("XDG_CACHE_HOME", cache).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(words: &[&str]) -> Output {
    castgate(words).output().unwrap()
}

/// Standard output as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The example of one machine, moved to 127.`place`.x.x so that no two tests meet.
pub fn manifests(place: u8) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/one-machine");
    for entry in std::fs::read_dir(example).unwrap() {
        let entry = entry.unwrap();
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let moved = text
            .replace("127.0.0.0/8", "127/8")
            .replace("127.0.", &format!("127.{place}."))
            .replace("127/8", "127.0.0.0/8")
            .replace("232.1.2.3", &format!("232.1.{place}.3"))
            .replace("239.1.2.3", &format!("239.1.{place}.3"));
        std::fs::write(folder.path().join(entry.file_name()), moved).unwrap();
    }
    folder
}

/// A program that runs, its lines read as they come; killed at the end.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = read_lines(child.stdout.take().unwrap());
        let errors = read_lines(child.stderr.take().unwrap());
        Self { child, lines, errors }
    }

    /// A fleet of these manifests.
    pub fn up(folder: &TempDir, words: &[&str]) -> Self {
        let mut command = castgate(&["up", "-f"]);
        command.arg(folder.path()).args(words);
        Self::start(command)
    }

    /// The first line of standard output that `wanted` makes something of.
    pub fn line<T>(&self, what: &str, wanted: impl FnMut(&str) -> Option<T>) -> T {
        find(&self.lines, what, wanted)
    }

    /// The same of standard error.
    pub fn error_line<T>(&self, what: &str, wanted: impl FnMut(&str) -> Option<T>) -> T {
        find(&self.errors, what, wanted)
    }

    /// The words of the line to type next, without the program.
    pub fn typed(&self) -> Vec<String> {
        self.line("the line to type next", |line| {
            let words = line.split_once("castgate receive ")?.1;
            Some(std::iter::once("receive").chain(words.split_whitespace()).map(str::to_owned).collect())
        })
    }

    /// Presses Ctrl-C and waits for the end.
    pub fn interrupt(&mut self) -> ExitStatus {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + LONG;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the program does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What is left on standard output.
    pub fn rest(&self) -> Vec<String> {
        self.lines.iter().collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn find<T>(lines: &Receiver<String>, what: &str, mut wanted: impl FnMut(&str) -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    let mut seen = Vec::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let Ok(line) = lines.recv_timeout(left) else { panic!("no {what} among {seen:#?}") };
        if let Some(found) = wanted(&line) {
            return found;
        }
        seen.push(line);
    }
}
