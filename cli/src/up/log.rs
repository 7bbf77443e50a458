//! Where log lines go: to standard error, or, while the terminal is drawn on, into the view's last lines.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that the view can show.
const LINES_MAX: usize = 50;

/// The latest log lines, empty when they go to standard error.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    /// The last of them is still being written.
    lines: Arc<Mutex<VecDeque<String>>>,
}

/// Starts logging: warnings, or what `RUST_LOG` says.
pub(super) fn start(in_view: bool) -> Log {
    let log = Log::default();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    // A second start in one process keeps the first: only tests do that.
    let _ = if in_view {
        builder.with_ansi(false).with_writer(log.clone()).try_init()
    } else {
        builder.with_writer(io::stderr).try_init()
    };
    log
}

impl Log {
    /// The last lines, oldest first.
    pub(super) fn tail(&self, count: usize) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = lines.len().saturating_sub(1);
        lines.iter().take(whole).skip(whole.saturating_sub(count)).cloned().collect()
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, part) in String::from_utf8_lossy(octets).split('\n').enumerate() {
            match lines.back_mut().filter(|_| index == 0) {
                Some(unfinished) => unfinished.push_str(part),
                None => lines.push_back(part.to_owned()),
            }
        }
        let surplus = lines.len().saturating_sub(LINES_MAX + 1);
        lines.drain(..surplus);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_lines_are_kept() {
        let mut log = Log::default();
        for number in 0..LINES_MAX + 7 {
            writeln!(log, "line {number}").unwrap();
        }
        assert_eq!(log.tail(2), [format!("line {}", LINES_MAX + 5), format!("line {}", LINES_MAX + 6)]);
        assert_eq!(log.tail(1_000).len(), LINES_MAX);
    }
}
