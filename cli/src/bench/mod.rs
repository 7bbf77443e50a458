//! `castgate bench`: ours beside the ceiling, in one run.

mod joins;

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};
use castgate_dataplane::bench::{Encap, FanoutOptions, Row, fanout};
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
    Joins(JoinsArgs),
}

/// Packets a second from one thread to many tunnels, beside a bare loop of sendmmsg with UDP GSO
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  castgate bench fanout --destinations 1000 --json\n  castgate bench fanout --encap amt"
)]
struct FanoutArgs {
    /// Tunnels
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    destinations: u32,
    /// What goes into the tunnels
    #[arg(long, value_name = "PROTOCOL", default_value = "umtp")]
    encap: EncapArg,
    /// One JSON object a row: bench, case, ours, ceiling, unit, ratio
    #[arg(long)]
    json: bool,
}

/// Joins a second that one control thread takes in, beside the bare reading of the same datagrams
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  castgate bench joins --encap amt --json")]
struct JoinsArgs {
    /// Clients that join
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// Channels that each of them joins, one datagram each
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    channels: u32,
    /// The protocol of the joins
    #[arg(long, value_name = "PROTOCOL", default_value = "umtp")]
    encap: EncapArg,
    /// One JSON object a row: bench, case, ours, ceiling, unit, ratio
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum EncapArg {
    /// UMTP: payloads with trailers, JOIN
    Umtp,
    /// AMT: whole IP packets, Membership Update
    Amt,
}

/// Runs one bench.
pub(crate) fn run(args: &Args) -> Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("this program was built without optimisation: cargo castgate bench builds one that counts");
    }
    match &args.bench {
        Bench::Fanout(args) => run_fanout(args),
        Bench::Joins(args) => print(&joins::joins(args.encap, args.clients, args.channels)?, args.json),
    }
}

fn run_fanout(args: &FanoutArgs) -> Result<()> {
    let destinations = usize::try_from(args.destinations).expect("at most 60000");
    let encap = match args.encap {
        EncapArg::Umtp => Encap::Umtp,
        EncapArg::Amt => Encap::Amt,
    };
    let options = FanoutOptions { encap, destinations, ..FanoutOptions::default() };
    let rows = fanout(&options).context("the kernel does not send")?;
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
