//! Who changed what, from where, and when: a line of JSON for each change of an entry or of the accounts.
//!
//! Each line goes to the `tracing` target `castgate::audit` and to `audit.log` in the state directory. That file is only ever appended
//! to; when it is full it is put aside as `audit.log.1`, and the oldest of those put aside goes. Refreshes that change nothing
//! are no changes. A log that cannot be written is said once, and holds up nobody.
//!
//! Lines of changes that share a commit of the store share a write as well: they are held until just before it. Whatever is written at
//! once is written behind what was held, so that lines are in their order.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use castgate_endpoint::hierarchy::clock::UnixMillis;
use serde::Serialize;

/// Name of the file below the agent's state directory.
const FILE: &str = "audit.log";
/// Octets of a file: some ten thousand changes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Files put aside. With the one that is written, the log takes 80 MiB at most.
const OLD_FILES_MAX: u32 = 4;
/// Octets of lines that are held: far more than the connections of a database can bring before a commit.
const HELD_BYTES_MAX: usize = 1 << 20;

/// Who does something, and what.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Act<'a> {
    /// `register`, `bye`, `expire`, `transfer`, `adopt`, `accounts` or `login`.
    pub(super) action: &'static str,
    /// Whose account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) login: Option<&'a str>,
    /// Where the request came from; a peer's name for what is adopted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<IpAddr>,
}

#[derive(Serialize)]
struct Line<'a> {
    time_millis: UnixMillis,
    #[serde(flatten)]
    act: Act<'a>,
    /// Who did it, where no login says so: whoever edited the accounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
    /// What became of it: `put`, `gone`, `expired`, `refused`, `limited`, `done`, and of accounts `added`, `changed`, `removed`.
    outcome: &'a str,
    /// The entry, or what else it is about.
    about: &'a str,
}

/// The log while it is open.
#[derive(Debug)]
pub(super) struct Audit {
    path: PathBuf,
    held: Mutex<Vec<u8>>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    file: Option<File>,
    bytes: u64,
    failed: bool,
}

/// How much is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// It can wait for the store.
    Little,
    /// It is to be written now.
    Much,
}

impl Audit {
    /// The log in this folder, which need not be there yet.
    pub(super) fn new(folder: &Path) -> Self {
        Self { path: folder.join(FILE), held: Mutex::default(), open: Mutex::default() }
    }

    /// Writes one line.
    pub(super) fn write(&self, act: Act<'_>, outcome: &str, about: &str) {
        self.write_by(act, None, outcome, about);
    }

    /// Writes one line about something that was done behind the requests.
    pub(super) fn write_by(&self, act: Act<'_>, by: Option<&str>, outcome: &str, about: &str) {
        Self::tell(act, by, outcome, about);
        let _ = self.hold_by(act, by, outcome, about);
        self.flush();
    }

    /// Takes one line, which is written by the next [`flush`](Self::flush). [`tell`](Self::tell) tells of it.
    pub(super) fn hold(&self, act: Act<'_>, outcome: &str, about: &str) -> Held {
        self.hold_by(act, None, outcome, about)
    }

    fn hold_by(&self, act: Act<'_>, by: Option<&str>, outcome: &str, about: &str) -> Held {
        let line = Line { time_millis: SystemTime::now().into(), act, by, outcome, about };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_writer(&mut *held, &line).expect("texts and numbers can be written as JSON");
        held.push(b'\n');
        if held.len() < HELD_BYTES_MAX { Held::Little } else { Held::Much }
    }

    /// Tells of one line to whoever follows the log of the agent.
    pub(super) fn tell(act: Act<'_>, by: Option<&str>, outcome: &str, about: &str) {
        let Act { action, login, source } = act;
        let shown = source.map(tracing::field::display);
        tracing::info!(target: "castgate::audit", action, login, source = shown, by, outcome, about);
    }

    /// Writes what is held. When it returns, what was held before is in the file, whoever wrote it.
    pub(super) fn flush(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        if lines.is_empty() {
            return;
        }
        match self.append(&mut open, &lines) {
            Ok(()) => open.failed = false,
            Err(error) => {
                open.file = None;
                if !std::mem::replace(&mut open.failed, true) {
                    tracing::error!(file = %self.path.display(), %error, "the audit log cannot be written");
                }
            }
        }
    }

    fn append(&self, open: &mut Open, lines: &[u8]) -> std::io::Result<()> {
        if open.bytes >= FILE_BYTES_MAX {
            open.file = None;
            let old = |number: u32| self.path.with_extension(format!("log.{number}"));
            for number in (1..OLD_FILES_MAX).rev().filter(|number| old(*number).exists()) {
                std::fs::rename(old(number), old(number + 1))?;
            }
            std::fs::rename(&self.path, old(1))?;
        }
        let file = match &mut open.file {
            Some(file) => file,
            none => {
                let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
                open.bytes = file.metadata()?.len();
                none.insert(file)
            }
        };
        file.write_all(lines)?;
        open.bytes += lines.len() as u64;
        Ok(())
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_held_come_before_those_that_are_written_after_them() {
        let folder = tempfile::TempDir::new().unwrap();
        let audit = Audit::new(folder.path());
        let act = Act { action: "register", login: None, source: None };
        let abouts = || {
            let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap_or_default();
            let about = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["about"].clone();
            text.lines().map(about).collect::<Vec<_>>()
        };
        for about in ["1", "2"] {
            assert_eq!(audit.hold(act, "put", about), Held::Little);
        }
        assert!(abouts().is_empty());
        audit.write(act, "put", "3");
        assert_eq!(abouts(), ["1", "2", "3"]);
        assert_eq!(audit.hold(act, "put", &"4".repeat(HELD_BYTES_MAX)), Held::Much);
        audit.flush();
        audit.flush();
        assert_eq!(abouts().len(), 4);
        assert_eq!(audit.hold(act, "put", "5"), Held::Little);
        drop(audit);
        assert_eq!(abouts()[4], "5", "nothing is lost at the end");
    }

    #[test]
    fn a_change_is_one_line_of_json_and_a_full_file_is_put_aside() {
        let folder = tempfile::TempDir::new().unwrap();
        let audit = Audit::new(folder.path());
        let act = Act { action: "register", login: Some("be"), source: Some(IpAddr::from([192, 0, 2, 1])) };
        audit.write(act, "put", "TS 10.0.0.1 1 UDP");
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(
            (&line["action"], &line["login"], &line["source"]),
            (&"register".into(), &"be".into(), &"192.0.2.1".into())
        );
        assert_eq!((&line["outcome"], &line["about"]), (&"put".into(), &"TS 10.0.0.1 1 UDP".into()));
        assert!(line["time_millis"].is_u64());
        for round in 0..OLD_FILES_MAX + 2 {
            audit.open.lock().unwrap().bytes = FILE_BYTES_MAX;
            audit.write(act, "put", &round.to_string());
        }
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 1 + OLD_FILES_MAX as usize);
        let last = std::fs::read_to_string(folder.path().join("audit.log.1")).unwrap();
        assert!(last.contains(&format!("\"about\":\"{OLD_FILES_MAX}\"")), "{last}");
    }
}
