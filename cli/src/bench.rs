//! `castgate bench`: ours beside the ceiling, in one run.

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};
use castgate_dataplane::bench::{FanoutOptions, Row, fanout};
use serde::Serialize;

/// Measure beside the ceiling, in one run
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  castgate bench fanout --json")]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, clap::Subcommand)]
enum Bench {
    Fanout(FanoutArgs),
}

/// Packets a second from one thread to many tunnels, beside a bare loop of sendmmsg with UDP GSO
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  castgate bench fanout --destinations 1000 --json")]
struct FanoutArgs {
    /// Tunnels
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    destinations: u32,
    /// One JSON object a row: bench, case, ours, ceiling, unit, ratio
    #[arg(long)]
    json: bool,
}

/// Runs one bench.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Bench::Fanout(args) = &args.bench;
    if cfg!(debug_assertions) {
        eprintln!("this program was built without optimisation: cargo castgate bench fanout builds one that counts");
    }
    let destinations = usize::try_from(args.destinations).expect("at most 60000");
    let rows =
        fanout(&FanoutOptions { destinations, ..FanoutOptions::default() }).context("the kernel does not send")?;
    if rows.is_empty() {
        bail!("nothing was measured");
    }
    rows.iter().try_for_each(|row| print(row, args.json))
}

/// A row as `--json` writes it.
#[derive(Serialize)]
struct JsonRow<'a> {
    bench: &'a str,
    case: &'a str,
    ours: f64,
    ceiling: f64,
    unit: &'a str,
    ratio: f64,
}

fn print(row: &Row, as_json: bool) -> Result<()> {
    let Row { bench, case, ours, ceiling, unit, ratio } = row;
    let line = if as_json {
        let row = JsonRow { bench, case, ours: *ours, ceiling: *ceiling, unit, ratio: *ratio };
        serde_json::to_string(&row)?
    } else {
        format!("{bench}, {case}: {ours:.0} {unit}, ceiling {ceiling:.0}, ratio {ratio:.2}")
    };
    writeln!(std::io::stdout(), "{line}").context("standard output is closed")
}
