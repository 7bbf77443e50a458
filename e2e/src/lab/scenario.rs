//! What surrounds a test: the tools it needs, its turn on this machine, its lab, what to show when it fails.

use super::Lab;
use anyhow::Result;
use std::io::Write;
use std::path::Path;
use std::sync::RwLock;

/// Tests that measure share the machine; one that loads it to the limit has it alone.
static MACHINE: RwLock<()> = RwLock::new(());

/// A test in a lab of its own.
#[derive(Debug)]
pub struct Scenario<'a> {
    topology: &'a str,
    tools: &'a [&'a str],
    alone: bool,
}

impl<'a> Scenario<'a> {
    /// A test in the lab that the text describes.
    #[must_use]
    pub fn new(topology: &'a str) -> Self {
        Self { topology, tools: &[], alone: false }
    }

    /// Names programs beyond `ip`, `nft` and `setpriv` that it uses.
    #[must_use]
    pub fn needs(self, tools: &'a [&'a str]) -> Self {
        Self { tools, ..self }
    }

    /// Keeps others from running beside it.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// Runs the test, or says why it cannot run here.
    ///
    /// # Panics
    /// When the test fails; the outputs of its programs are shown before.
    pub fn run(self, test: impl FnOnce(&Lab) -> Result<()>) {
        let tools = ["ip", "nft", "setpriv"].iter().chain(self.tools);
        if !tools.copied().all(require) || !require_root() {
            return;
        }
        // A test that failed while it held the machine did not break it.
        let (_shared, _alone);
        if self.alone {
            _alone = MACHINE.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        } else {
            _shared = MACHINE.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        let lab = Lab::build(self.topology).unwrap_or_else(|error| panic!("the lab does not stand: {error:#}"));
        if let Err(error) = test(&lab) {
            lab.show_outputs();
            // Removed before the panic: its drop would show the outputs once more.
            drop(lab);
            panic!("{error:#}");
        }
    }
}

/// Whether a program is there; if not, the running test is counted as skipped, with the reason.
#[must_use]
pub fn require(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !there {
        skip(&format!("the program `{program}` is missing (e2e/tools.txt names its package)"));
    }
    there
}

fn require_root() -> bool {
    let root = rustix::process::geteuid().is_root() && Path::new("/dev/net/tun").exists();
    if !root {
        skip("network namespaces need root and /dev/net/tun");
    }
    root
}

/// Says it to whoever reads along, and to the test command that counts.
fn skip(reason: &str) {
    let thread = std::thread::current();
    skip_named(thread.name().unwrap_or("a test"), reason);
}

/// The same for a test that has no thread of its own.
pub(crate) fn skip_named(test: &str, reason: &str) {
    let line = format!("{test}: {reason}");
    eprintln!("SKIPPED: {line}");
    if let Some(path) = std::env::var_os("CASTGATE_SKIP_FILE") {
        let file = std::fs::OpenOptions::new().append(true).open(path);
        let written = file.and_then(|mut file| writeln!(file, "{line}"));
        written.expect("a skipped test that is not counted would pass for one that ran");
    }
}
