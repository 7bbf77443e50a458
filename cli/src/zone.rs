//! `castgate zone`: what name servers shall tell of the AMT relays of some manifests (RFC 8777).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use castgate_planner::Machine;
use castgate_planner::zone::{Name, Options, zone};

use crate::manifests;

/// Print the AMTRELAY records of the sources that these manifests relay, for a name server
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  castgate zone -f examples/driad > amtrelay.inc     # $INCLUDE it in the reverse zones\n  \
                        castgate zone -f examples/driad --zone 1.0.127.in-addr.arpa --ns ns.example.net"
)]
pub(crate) struct Args {
    /// File or folder of manifests; again for several
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR", required = true)]
    files: Vec<PathBuf>,
    /// Print a whole zone file for this reverse zone
    #[arg(long, value_name = "ZONE", value_parser = name, requires = "ns")]
    zone: Option<Name>,
    /// The name server of that zone
    #[arg(long, value_name = "NAME", value_parser = name, requires = "zone")]
    ns: Option<Name>,
    /// Serial number of that zone [default: the time in seconds]
    #[arg(long, value_name = "NUMBER", requires = "zone")]
    serial: Option<u32>,
    /// Address of servers that name none
    #[arg(long, value_name = "IPV4")]
    address: Option<Ipv4Addr>,
    /// The same of version 6
    #[arg(long, value_name = "IPV6")]
    address6: Option<Ipv6Addr>,
    /// How long a resolver may keep a record, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = Options::default().ttl_seconds)]
    ttl: u32,
    /// Precedence of every record: lower is tried first
    #[arg(long, value_name = "0..255", default_value_t = Options::default().precedence)]
    precedence: u8,
    /// Clear the D bit: gateways have to begin with a Relay Discovery
    #[arg(long)]
    discovery_mandatory: bool,
    /// Write records in the form for unknown types (RFC 3597)
    #[arg(long)]
    generic: bool,
}

/// Plans the manifests onto one machine and prints the records.
pub(crate) fn run(args: &Args) -> Result<()> {
    let options = Options {
        ttl_seconds: args.ttl,
        precedence: args.precedence,
        discovery_optional: !args.discovery_mandatory,
        generic: args.generic,
    };
    let machine = Machine { address: args.address, address6: args.address6 };
    let plan = castgate_planner::load(manifests::read(&args.files)?)
        .and_then(|objects| castgate_planner::plan(&objects, &machine));
    let plan = match plan {
        Ok(plan) => plan,
        Err(problems) => {
            eprintln!("{problems}");
            bail!("there is no zone: the manifests have {} problems", problems.iter().count());
        }
    };
    let zone = zone(&plan.agents, &options);
    for sentence in &zone.left_out {
        eprintln!("{sentence}: it is left out");
    }
    if zone.rows.is_empty() {
        bail!("there is no zone: no TunnelServer with spec.amt carries a channel that names its source");
    }
    match (&args.zone, &args.ns) {
        (Some(origin), Some(name_server)) => {
            let serial = args.serial.map_or_else(now, Ok)?;
            print!("{}", zone.file(origin, name_server, serial, &options));
        }
        _ => print!("{}", zone.records(&options)),
    }
    Ok(())
}

/// A serial number that grows: seconds, which fit until 2106.
fn now() -> Result<u32> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    u32::try_from(seconds).context("the clock is after 2106: name a serial number")
}

/// A name of the DNS; people leave the last dot out.
fn name(text: &str) -> Result<Name, String> {
    let absolute = if text.ends_with('.') { text.to_owned() } else { format!("{text}.") };
    absolute.parse().map_err(|error| format!("{text} is no name: {error}"))
}
