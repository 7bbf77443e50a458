//! `castgate receive`: join a channel, count it, hand it on.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use castgate_client::{GroupName, Output, OutputSpec, ReceiverSettings, Report, Via, output};
use tokio::time::{MissedTickBehavior, interval_at};

use crate::args::{self, TunnelArgs};
use crate::reception::{Reception, in_words};
use crate::relays::RelayArgs;
use crate::stop::Stop;

/// How often the counters are reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Receive a channel, whatever the network between here and there can do
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  castgate receive ham:ip:232.1.2.3@127.0.1.1:5004 --tds 127.0.4.1 --country BE
  castgate receive ham:ip:239.1.2.3:5004 --server 192.0.2.1:10100 --output udp://239.1.2.3:5004?iface=eth0
  castgate receive ham:ip:239.1.2.3:5004 --tds tds.example.net --output http://:8000
  castgate receive ham:ip:239.1.2.3:5004 --via native --interface eth0 --for 10s --json
  castgate receive ham:ip:232.1.2.3@192.0.2.10:5004 --via amt --relay relay.example.net
  castgate receive ham:ip:[ff3e::8000:1]@[2001:db8::1]:5004 --via amt --find driad

auto listens natively for 1.5 s when --interface is given, and takes a tunnel when it hears nothing:
AMT for IPv6 and where --relay or --find is given, UMTP otherwise. amt alone asks the anycast
addresses and looks for AMTRELAY records of the source (RFC 8777).
A database that does not answer is asked again, as long as --for allows.
A report comes each second; the last is the total. With --json it is one object a line.")]
pub(crate) struct Args {
    #[arg(help = "The channel: ham:ip:GROUP[@SOURCE]:PORT")]
    name: GroupName,
    /// The path: auto, native, amt or umtp
    #[arg(long, default_value = "auto", value_parser = args::via)]
    via: Via,
    /// Interface for the native path, by name or address
    #[arg(long, value_name = "NAME|ADDRESS")]
    interface: Option<String>,
    #[command(flatten)]
    tunnel: TunnelArgs,
    #[command(flatten)]
    relays: RelayArgs,
    #[arg(
        long,
        value_name = "OUTPUT",
        default_value = "stats",
        help = "Where payloads go: stats, -, file:P, udp://G:P[?iface=NAME|ADDRESS&ttl=N], http://:PORT; again for several"
    )]
    output: Vec<OutputSpec>,
    /// End after this time
    #[arg(long = "for", value_name = "SPAN", value_parser = args::span)]
    span: Option<Duration>,
    /// Report as JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// Receives until it is told to stop.
pub(crate) async fn run(mut args: Args) -> Result<()> {
    args.tunnel.settle_country();
    let started = Instant::now();
    let mut stop = Stop::after(args.span)?;
    let outputs = open_outputs(&args).await?;
    let reporter = Reporter { json: args.json, to_stderr: args.output.contains(&OutputSpec::Stdout) };
    let settings = settings(&args).await?;
    let opening = Reception::open(settings, outputs, started);
    let mut reception = tokio::select! {
        opened = opening => opened?,
        () = stop.wait() => bail!("no packet of {} came: no path was found in time", args.name),
    };
    let mut ticks = interval_at((started + REPORT_INTERVAL).into(), REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let outcome = loop {
        tokio::select! {
            turned = reception.turn() => match turned {
                Ok(Some(event)) => eprintln!("{event}"),
                Ok(None) => {}
                Err(error) => break Err(error),
            },
            _ = ticks.tick() => reporter.report(&reception.report())?,
            () = stop.wait() => break Ok(()),
        }
    };
    let (total, reason) = (reception.report(), reception.silence_reason());
    reporter.total(&total)?;
    let closed = reception.close().await;
    outcome?;
    closed?;
    if total.packets == 0 {
        bail!("no packet of {} came: {reason}", args.name);
    }
    Ok(())
}

/// Which paths may be taken.
async fn settings(args: &Args) -> Result<ReceiverSettings> {
    let Args { name, via, interface, tunnel, relays, .. } = args;
    if relays.are_named() && matches!(via, Via::Native | Via::Umtp) {
        bail!("--relay and --find are about AMT: take --via amt, or leave them out");
    }
    if *via == Via::Amt && tunnel.has_server() {
        bail!("--server names a UMTP server: name an AMT relay by --relay");
    }
    // A channel that a network has natively is not looked for elsewhere unless somebody says where.
    let is_amt_at_hand =
        relays.are_named() || name.channel().is_none() && (interface.is_none() || !tunnel.tds.is_empty());
    let takes_amt = *via == Via::Amt || *via == Via::Auto && is_amt_at_hand;
    let takes_umtp = *via == Via::Umtp || *via == Via::Auto && !takes_amt;
    Ok(ReceiverSettings {
        name: *name,
        via: *via,
        interface: interface.clone(),
        tunnel: if takes_umtp { tunnel.settings().await? } else { None },
        amt: if takes_amt { Some(relays.settings(tunnel)?) } else { None },
    })
}

async fn open_outputs(args: &Args) -> Result<Vec<Output>> {
    let mut outputs = Vec::new();
    for spec in &args.output {
        if args.via == Via::Native || args.via == Via::Auto && args.interface.is_some() {
            output::refuse_loop(spec, &args.name)?;
        }
        let output = Output::open(spec).await?;
        if let Some(address) = output.listen_address() {
            eprintln!("players open http://{address}/");
        }
        outputs.push(output);
    }
    Ok(outputs)
}

/// Where reports go and what they look like.
struct Reporter {
    json: bool,
    /// Standard output belongs to the payloads.
    to_stderr: bool,
}

impl Reporter {
    fn report(&self, report: &Report) -> Result<()> {
        self.print(report, "")
    }

    fn total(&self, report: &Report) -> Result<()> {
        self.print(report, "total: ")
    }

    fn print(&self, report: &Report, mark: &str) -> Result<()> {
        let line = if self.json { serde_json::to_string(report)? } else { format!("{mark}{}", in_words(report)) };
        if self.to_stderr {
            eprintln!("{line}");
            return Ok(());
        }
        writeln!(std::io::stdout(), "{line}").context("standard output is closed")
    }
}
