//! The fleet in lines, for pipes, logs and tests: one a second, and once the line to type next.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::status::Status;
use crate::stop::Stop;

/// How often a line is printed.
const LINE: Duration = Duration::from_secs(1);
/// How often the first packet is looked for, since the line to type next waits for it.
const LOOK: Duration = Duration::from_millis(100);
/// The line to type next is printed by then, packets or not.
const PATIENCE: Duration = Duration::from_secs(4);

/// Prints until it is time to stop.
pub(super) async fn run(status: &impl Fn() -> Status, json: bool, stop: &mut Stop) -> Result<()> {
    let started = Instant::now();
    let mut printed = started;
    let mut told = false;
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = stop.wait() => return print(&status(), json),
        }
        if !told && !json && (status().packets() > 0 || started.elapsed() >= PATIENCE) {
            told = true;
            if let Some(line) = status().line {
                write_line("to receive the channel in another terminal, type:")?;
                write_line(&line)?;
            }
        }
        if printed.elapsed() >= LINE {
            printed += LINE;
            print(&status(), json)?;
        }
    }
}

fn print(status: &Status, json: bool) -> Result<()> {
    let line = if json { status.as_json().to_string() } else { status.in_words() };
    write_line(&line)
}

fn write_line(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("standard output is closed")
}
