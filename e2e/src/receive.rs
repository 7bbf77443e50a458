//! `castgate receive` in the lab: started as a user types it, its JSON lines read.

use crate::lab::{Host, Process, wait};
use crate::programs::program;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;

/// How long one that nobody waits for has to leave.
const LEAVES: Duration = Duration::from_secs(2);

/// A `castgate receive --json` that runs.
#[derive(Debug)]
pub struct Receive {
    process: Process,
}

/// What one JSON line reports; fields as the command prints them.
#[derive(Debug, Clone, PartialEq)]
pub struct Report(Value);

impl Receive {
    /// Types `castgate receive NAME --json` with these further words on a host.
    ///
    /// # Errors
    /// When the program is not built or does not start.
    pub fn start(host: &Host, name: &str, words: &[&str]) -> Result<Self> {
        let mut command = host.command(program("castgate")?);
        command.args(["receive", name, "--json"]).args(words);
        // A cache of its own: what another test located is not here.
        command.env("XDG_CACHE_HOME", host.folder()).env("HOME", host.folder());
        Ok(Self { process: host.spawn("castgate receive", command)? })
    }

    /// The latest line that reports packets.
    #[must_use]
    pub fn latest(&self) -> Option<Report> {
        self.reports().pop()
    }

    /// Every line that reports packets, in order.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        let text = self.process.stdout();
        let values = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        values.filter(|value| value.get("packets").is_some()).map(Report).collect()
    }

    /// Waits until at least so many packets are reported, and gives that report.
    ///
    /// # Errors
    /// When they are not in time, or the command has ended.
    pub fn wait_packets(&mut self, packets: u64, longest: Duration) -> Result<Report> {
        self.wait_report(&format!("{packets} packets"), longest, |report| report.packets() >= packets)
    }

    /// Waits for a report that `is_it` likes.
    ///
    /// # Errors
    /// When none comes in time, or the command has ended.
    pub fn wait_report(&mut self, what: &str, longest: Duration, is_it: impl Fn(&Report) -> bool) -> Result<Report> {
        let found = wait::until(&format!("{what} at castgate receive"), longest, || {
            let ended = self.process.is_ended();
            let found = self.latest().filter(|report| is_it(report));
            (found.is_some() || ended).then_some(found)
        })
        .with_context(|| format!("the last report was {:?}", self.latest()))?;
        found.with_context(|| format!("castgate receive ended: {}", self.process.stderr()))
    }

    /// The running program.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Presses Ctrl-C and gives the total, which is the last line.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn finish(mut self) -> Result<Report> {
        let status = self.process.interrupt(Duration::from_secs(10))?;
        ensure!(status.success(), "castgate receive ended with {status}: {}", self.process.stderr());
        self.latest().context("castgate receive printed no total")
    }
}

/// A scenario that fails leaves as its user would: a server keeps the tunnel of one that was killed for minutes, and the
/// scenarios after it would count that tunnel.
impl Drop for Receive {
    fn drop(&mut self) {
        if !self.process.is_ended() {
            // One that does not end is killed with its process.
            self.process.interrupt(LEAVES).ok();
        }
    }
}

impl Report {
    /// A count or time of the report.
    ///
    /// # Panics
    /// When the field is missing or null: a test that asks knows that it must be there.
    #[must_use]
    pub fn number(&self, field: &str) -> u64 {
        let value = self.0.get(field).and_then(|value| value.as_u64().or_else(|| as_whole(value)));
        value.unwrap_or_else(|| panic!("no number `{field}` in {}", self.0))
    }

    /// Packets received.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.number("packets")
    }

    /// Packets that never came, by their numbers.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.number("lost")
    }

    /// Packets that came again.
    #[must_use]
    pub fn duplicated(&self) -> u64 {
        self.number("duplicated")
    }

    /// The server it came through, as printed.
    #[must_use]
    pub fn server(&self) -> &str {
        self.0.get("server").and_then(Value::as_str).unwrap_or_default()
    }

    /// The whole line.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.0
    }
}

/// Times may be printed with a fraction; the tests compare whole milliseconds.
fn as_whole(value: &Value) -> Option<u64> {
    let number = value.as_f64().filter(|number| *number >= 0.0)?;
    format!("{number:.0}").parse().ok()
}
