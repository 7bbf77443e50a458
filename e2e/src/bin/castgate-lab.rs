//! Builds the lab of a topology file and keeps it until Ctrl-C, for trying things by hand:
//!
//! ```text
//! castgate-lab home.lab
//! ip netns exec castgate-…-0-client castgate receive …
//! ```

use anyhow::{Context, Result};
use castgate_e2e::lab::Lab;

fn main() -> Result<()> {
    let path = std::env::args().nth(1).context("usage: castgate-lab TOPOLOGY-FILE")?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
    let lab = Lab::build(&text)?;
    for host in lab.hosts() {
        println!("{}: ip netns exec {} …", host.name(), host.namespace().name());
    }
    println!("ready: Ctrl-C removes it");
    // Ctrl-C ends us without ado; the reaper removes the lab.
    loop {
        std::thread::park();
    }
}
