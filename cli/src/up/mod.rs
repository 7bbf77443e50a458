//! `castgate up`: the fleet of some manifests on this machine, and a client that proves it.
//!
//! ```text
//!   manifests ──▶ planner ──▶ Fleet: agents as tasks ──────reports──┐
//!                    └─hints─▶ OwnClient: root ▶ country ▶ tunnel ──┴──▶ view (terminal) or plain lines
//! ```
//! Everything ends in the order in which nobody is sent to somebody who is gone: the client leaves, servers say BYE and
//! tear their tunnels down, databases say BYE to those above them.

mod fleet;
mod log;
mod own_client;
mod plain;
mod status;
mod view;

use std::io::IsTerminal as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use castgate_planner::Machine;

use crate::args;
use crate::manifests;
use crate::stop::Stop;
use fleet::Fleet;
use own_client::OwnClient;
use status::{Status, receive_line};

/// Start the fleet of some manifests on this machine, and a client that receives from it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  castgate up                                 a hierarchy, a server and a test channel on the loopback; no root needed
  castgate up -f manifests/ --state /var/lib/castgate

In a terminal it shows channels, tunnels, registrations and what its own client receives, until q or Ctrl-C.
Elsewhere it prints a line a second, among them the `castgate receive` line to type next.")]
pub(crate) struct Args {
    /// File or folder of manifests; again for several [default: the built-in example of one machine]
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
    /// End after this time; an error when the own client has received nothing by then
    #[arg(long = "for", value_name = "SPAN", value_parser = args::span)]
    span: Option<Duration>,
    /// Folder for what agents keep between runs [default: a new one that is removed at the end]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print one JSON object a line, also in a terminal
    #[arg(long)]
    json: bool,
}

/// What the own client went through, and whether that is what was asked for.
struct Outcome {
    packets: u64,
    reason: String,
    has_client: bool,
}

/// File with what vouches for the root, where the manifests say, for the line that receives the channel.
const AUTHORITY: &str = "tds-ca.crt";

/// Plans, starts, shows, stops.
pub(crate) async fn run(args: Args) -> Result<()> {
    let files = manifests::read(&args.files)?;
    let machine = Machine { address: address(), ..Machine::default() };
    let objects = castgate_planner::load(files);
    let plan = objects.and_then(|objects| castgate_planner::plan(&objects, &machine));
    let plan = match plan {
        Ok(plan) => plan,
        Err(problems) => {
            eprintln!("{problems}");
            bail!("nothing was started: the manifests have {} problems", problems.iter().count());
        }
    };
    let in_terminal = std::io::stdout().is_terminal() && !args.json;
    let log = log::start(in_terminal);
    let mut stop = Stop::after(args.span)?;
    let fleet = tokio::select! {
        started = Fleet::start(plan.agents, args.state) => started?,
        () = stop.wait() => bail!("stopped while starting"),
    };
    let authority = plan.client.tds_ca.as_deref().map(|ca| fleet.put(AUTHORITY, ca)).transpose()?;
    let line = receive_line(&plan.client, authority.as_deref());
    let client = OwnClient::start(&plan.client);
    let status = || Status { agents: fleet.reports(), client: client.state(), line: line.clone() };
    let shown = match in_terminal.then(view::open) {
        Some(Ok(terminal)) => view::run(terminal, &status, &log, &mut stop).await,
        // A terminal that cannot be drawn on still takes lines.
        Some(Err(_)) | None => plain::run(&status, args.json, &mut stop).await,
    };
    let state = client.state();
    let outcome = Outcome {
        packets: state.report.as_ref().map_or(0, |report| report.packets),
        reason: state.word,
        has_client: line.is_some(),
    };
    let ending = async {
        client.stop().await;
        fleet.stop().await;
    };
    tokio::select! {
        () = ending => {}
        () = stop.wait_impatience() => bail!("ended at once: databases and clients will notice by themselves"),
    }
    shown?;
    finish(&outcome, args.span)
}

/// The first address under which others reach this machine; `None`: there is none.
fn address() -> Option<Ipv4Addr> {
    let interfaces = castgate_udp::interfaces().unwrap_or_default();
    let outer = interfaces.into_iter().filter(|interface| !interface.loopback);
    outer.flat_map(|interface| interface.addresses).next()
}

/// A fleet that was to run for a while has to have shown something by then; one that somebody ended has not.
fn finish(outcome: &Outcome, span: Option<Duration>) -> Result<()> {
    if span.is_some() && outcome.has_client && outcome.packets == 0 {
        bail!("the client of this fleet received nothing: {}", outcome.reason);
    }
    Ok(())
}
