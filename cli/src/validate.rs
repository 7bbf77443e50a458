//! `castgate validate`: everything that is wrong with manifests, without a cluster and without starting anything.

use std::path::PathBuf;

use anyhow::{Result, bail};
use castgate_planner::Problems;
use serde_json::json;

use crate::manifests;

/// Check manifests without a cluster
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  castgate validate -f examples/one-machine")]
pub(crate) struct Args {
    /// File or folder of manifests; again for several
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR", required = true)]
    files: Vec<PathBuf>,
    /// Report as one JSON object
    #[arg(long)]
    json: bool,
}

/// Says everything that is wrong, one sentence a line, or what there is.
pub(crate) fn run(args: &Args) -> Result<()> {
    let files = manifests::read(&args.files)?;
    let validation = castgate_planner::validate(files);
    let problems: Vec<_> = validation.problems.iter().flat_map(Problems::iter).collect();
    if args.json {
        let rows: Vec<_> = problems
            .iter()
            .map(|problem| {
                json!({
                    "file": problem.file, "object": problem.object, "field": problem.field, "message": problem.message,
                })
            })
            .collect();
        println!("{}", json!({ "valid": rows.is_empty(), "counts": validation.counts, "problems": rows }));
    } else {
        for problem in &problems {
            eprintln!("{problem}");
        }
        if problems.is_empty() {
            let counts: Vec<_> = validation.counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            println!("valid: {}", counts.join(", "));
        }
    }
    match problems.len() {
        0 => Ok(()),
        1 => bail!("the manifests have 1 problem"),
        count => bail!("the manifests have {count} problems"),
    }
}
