//! `castgate locate`: which servers this place would get, tier by tier, and whether they answer.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, bail};
use castgate_client::{CacheFolder, DatabaseAddress, Dns, LocateError, Locator, locate, probe};
use castgate_endpoint::hierarchy::locator::{Hop, HopOutcome};
use castgate_wire::registry::Country;
use serde_json::{Value, json};

use crate::args;

/// Show which tunnel servers this place would get, tier by tier
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  castgate locate --tds 127.0.4.1 --country BE

Asks from the roots down, whatever an earlier walk has left in the cache, and probes every server once.")]
pub(crate) struct Args {
    #[arg(
        long,
        value_name = "TDS",
        required = true,
        help = "Tunnel database to start at: URL, HOST[:PORT], or a name with SRV records; again for another root"
    )]
    tds: Vec<DatabaseAddress>,
    /// Country of this place, two letters
    #[arg(long, value_name = "CC", value_parser = args::country)]
    country: Option<Country>,
    /// Address of this host to ask from, which is what databases match
    #[arg(long, value_name = "ADDRESS")]
    local: Option<Ipv4Addr>,
    /// Report as one JSON object
    #[arg(long)]
    json: bool,
}

/// Walks and probes.
pub(crate) async fn run(args: Args) -> Result<()> {
    let locator = Locator::new(args.tds, args.country, Dns::from_environment()?, CacheFolder::none());
    let outcome = locator.from_address(args.local.map(IpAddr::V4)).locate().await;
    let hops: &[Hop] = match &outcome {
        Ok(found) => &found.hops,
        Err(LocateError::Walk(error)) => &error.hops,
        Err(LocateError::NoIpv4(_)) => &[],
    };
    if !args.json {
        for hop in hops {
            println!("{}{}: {}", "  ".repeat(hop.depth), hop.asked, hop.outcome);
        }
    }
    let mut servers = Vec::new();
    for server in outcome.as_ref().map(locate::ipv4_servers).unwrap_or_default() {
        let answer = probe(server, args.local).await.map(|span| (span.as_secs_f64() * 1e6).round() / 1e3);
        if !args.json {
            match &answer {
                Ok(millis) => println!("{server}: answers after {millis} ms"),
                Err(error) => println!("{server}: {error}"),
            }
        }
        servers.push(json!({
            "server": server.to_string(),
            "answer_ms": answer.as_ref().ok(),
            "error": answer.as_ref().err().map(ToString::to_string),
        }));
    }
    if args.json {
        let hops: Vec<_> = hops.iter().map(as_json).collect();
        println!("{}", json!({ "hops": hops, "servers": servers }));
    }
    let found = outcome?;
    if servers.is_empty() {
        bail!(LocateError::NoIpv4(found.servers.len()));
    }
    Ok(())
}

fn as_json(hop: &Hop) -> Value {
    let tier = match &hop.outcome {
        HopOutcome::Databases(_, tier) | HopOutcome::Servers(_, tier) => tier.clone(),
        HopOutcome::Resolved(_) | HopOutcome::Nothing | HopOutcome::Failed(_) => None,
    };
    json!({ "asked": hop.asked, "depth": hop.depth, "outcome": hop.outcome.to_string(), "tier": tier })
}
