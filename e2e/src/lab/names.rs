//! Names of namespaces: they say whose they are, so that nobody's lab is taken for an orphan and no orphan stays.
//!
//! `castgate-<pid>-<start of that process>-<lab>-<host>`: the start time tells a process from a later one with its number.

use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "castgate-";

/// The process to which a lab belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pid: u32,
    /// Clock ticks from boot to the start of the process, as in `/proc/PID/stat`.
    started: u64,
}

impl Owner {
    /// This process.
    pub(crate) fn me() -> Self {
        let pid = std::process::id();
        Self { pid, started: started(pid).unwrap_or(0) }
    }

    /// A running process; `None` when there is none of that number.
    pub(crate) fn of_pid(pid: u32) -> Option<Self> {
        Some(Self { pid, started: started(pid)? })
    }

    /// What [`Display`](std::fmt::Display) wrote.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, started: started.parse().ok()? })
    }

    /// Its number.
    pub(crate) fn pid(self) -> u32 {
        self.pid
    }

    /// The owner that a namespace's name tells; `None` when it is no lab's.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let mut words = name.strip_prefix(PREFIX)?.splitn(4, '-');
        let (pid, started) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        words.next()?.parse::<u32>().ok()?;
        words.next().filter(|host| !host.is_empty())?;
        Some(Self { pid, started })
    }

    /// Whether that very process still runs.
    pub(crate) fn is_alive(self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// What every namespace of this process starts with.
    pub(crate) fn prefix(self) -> String {
        format!("{PREFIX}{}-{}-", self.pid, self.started)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} {}", self.pid, self.started)
    }
}

/// A prefix that no other lab has, of this process or another.
pub(crate) fn lab_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}{}-", Owner::me().prefix(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// When a process started; `None` when there is none of that number, or only its remains.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may hold anything; the third is the state.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_living_owner() {
        let name = format!("{}home-router", lab_prefix());
        assert_eq!(Owner::of_name(&name), Some(Owner::me()));
        assert!(Owner::me().is_alive());
    }

    #[test]
    fn a_later_process_with_the_same_number_is_another() {
        let earlier = Owner { started: Owner::me().started - 1, ..Owner::me() };
        assert!(!earlier.is_alive());
        assert!(!Owner { pid: u32::MAX, started: 1 }.is_alive());
    }

    #[test]
    fn names_of_others_have_no_owner() {
        for name in ["cni-1234", "castgate-x-1-0-a", "castgate-1-2-3-", "castgate-1-2-host", "castgate-"] {
            assert_eq!(Owner::of_name(name), None, "{name}");
        }
    }
}
