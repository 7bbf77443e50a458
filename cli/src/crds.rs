//! `castgate crds`: the definitions of the custom resources.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// Print the custom resource definitions
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  castgate crds | kubectl apply -f -\n  castgate crds --output charts/castgate-crds/templates"
)]
pub(crate) struct Args {
    /// Write one file per kind into this folder instead
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Prints or writes the definitions.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Some(folder) = &args.output else {
        return write!(std::io::stdout(), "{}", castgate_crds::all_to_yaml()).context("standard output is closed");
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    for (name, text) in castgate_crds::files() {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
