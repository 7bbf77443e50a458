//! `castgate bench`: ours beside the ceiling, in one run.

use anyhow::{Context as _, Result, bail};
use castgate_dataplane::bench::{FanoutOptions, Row, fanout};
use serde_json::json;

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
    for row in &rows {
        print(row, args.json);
    }
    Ok(())
}

fn print(row: &Row, as_json: bool) {
    let Row { bench, case, ours, ceiling, unit, ratio } = row;
    if as_json {
        println!(
            "{}",
            json!({ "bench": bench, "case": case, "ours": ours, "ceiling": ceiling, "unit": unit, "ratio": ratio })
        );
    } else {
        println!("{bench}, {case}: {ours:.0} {unit}, ceiling {ceiling:.0}, ratio {ratio:.2}");
    }
}
