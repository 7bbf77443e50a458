//! `castgate bench`: ours beside the ceiling, in one run.

mod joins;
mod lookup;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use castgate_dataplane::bench::{self as dataplane, Encap, FanoutOptions, fanout};
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
    Lookup(LookupArgs),
    /// The other side of `lookup`
    #[command(hide = true, after_help = "Example:\n  castgate bench serve bare --state /tmp/answer")]
    Serve(lookup::ServeArgs),
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

/// QUERYs a second of a full database, beside a bare hyper server with one answer; REGISTERs, memory and restart of the same
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  castgate bench lookup --json\n  \
    castgate bench lookup --networks 10000 --servers 1000 --state /var/tmp/bench")]
struct LookupArgs {
    /// Networks that are registered, 1 to 256 for each server
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(2..))]
    networks: u32,
    /// Servers that register them
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(2..))]
    servers: u32,
    /// Connections that ask
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    connections: u16,
    /// Turns of each server; the best counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Milliseconds of a turn
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=50_000))]
    round_ms: u64,
    /// Folder for the entries, on a disk: a new folder is made in it, and removed. By default the system's for temporary files
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
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

/// A row as `--json` writes it.
#[derive(Debug, Serialize)]
struct Row {
    bench: &'static str,
    case: String,
    ours: f64,
    /// What is possible, where that can be measured.
    ceiling: Option<f64>,
    unit: &'static str,
    /// Higher is better, 1 is the ceiling.
    ratio: Option<f64>,
}

impl From<dataplane::Row> for Row {
    fn from(row: dataplane::Row) -> Self {
        let dataplane::Row { bench, case, ours, ceiling, unit, ratio } = row;
        Self { bench, case, ours, ceiling: Some(ceiling), unit, ratio: Some(ratio) }
    }
}

/// Runs one bench.
pub(crate) fn run(args: &Args) -> Result<()> {
    if cfg!(debug_assertions) && !matches!(args.bench, Bench::Serve(_)) {
        eprintln!("this program was built without optimisation: cargo castgate bench builds one that counts");
    }
    match &args.bench {
        Bench::Fanout(args) => run_fanout(args),
        Bench::Joins(args) => print(&joins::joins(args.encap, args.clients, args.channels)?.into(), args.json),
        Bench::Lookup(args) => on_a_thread(|| run_lookup(args)),
        Bench::Serve(args) => on_a_thread(|| lookup::serve(args)),
    }
}

/// Runs what has a runtime or a processor of its own.
fn on_a_thread(work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    std::thread::scope(|scope| scope.spawn(work).join().expect("it does not panic"))
}

fn run_lookup(args: &LookupArgs) -> Result<()> {
    castgate_agent::limits::raise_open_files();
    let LookupArgs { networks, servers, connections, rounds, round_ms, state, json } = args;
    let options = lookup::Options {
        networks: *networks,
        servers: *servers,
        connections: (*connections).into(),
        rounds: *rounds,
        time: Duration::from_millis(*round_ms),
    };
    let parent = state.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::TempDir::new_in(&parent).with_context(|| format!("--state: {}", parent.display()))?;
    lookup::lookup(&options, folder.path(), &mut |row| print(row, *json))
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
    rows.into_iter().try_for_each(|row| print(&row.into(), args.json))
}

fn print(row: &Row, as_json: bool) -> Result<()> {
    let line = if as_json { serde_json::to_string(row)? } else { row.to_string() };
    writeln!(std::io::stdout(), "{line}").context("standard output is closed")
}

impl std::fmt::Display for Row {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bench, case, ours, ceiling, unit, ratio } = self;
        let digits = |value: f64| if value < 100.0 { 2 } else { 0 };
        write!(formatter, "{bench}, {case}: {ours:.*} {unit}", digits(*ours))?;
        if let (Some(ceiling), Some(ratio)) = (ceiling, ratio) {
            write!(formatter, ", ceiling {ceiling:.*}, ratio {ratio:.2}", digits(*ceiling))?;
        }
        Ok(())
    }
}
