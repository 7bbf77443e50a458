//! `castgate locate`: which servers this place would get, tier by tier, and whether they answer.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use castgate_client::{CacheFolder, DatabaseAddress, Dns, LocateError, Locator, locate, probe};
use castgate_endpoint::hierarchy::locator::{Hop, HopOutcome};
use serde_json::{Value, json};

use crate::args::{CountryArg, TrustArg};

/// Show which tunnel servers this place would get, tier by tier
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  castgate locate --tds 127.0.4.1 --country BE

Asks from the roots down, whatever an earlier walk has left in the cache, and probes every server once.
Only when no database answers, the servers of the last time are shown, with their age.")]
pub(crate) struct Args {
    #[arg(
        long,
        value_name = "TDS",
        required = true,
        help = "Tunnel database to start at: URL, HOST[:PORT], or a name with SRV records; again for another root"
    )]
    tds: Vec<DatabaseAddress>,
    #[command(flatten)]
    trust: TrustArg,
    #[command(flatten)]
    country: CountryArg,
    /// Address of this host to ask from, which is what databases match
    #[arg(long, value_name = "ADDRESS")]
    local: Option<IpAddr>,
    #[arg(
        long,
        value_name = "DIR",
        help = "Folder for what is remembered between runs [default: $XDG_CACHE_HOME/castgate]"
    )]
    state: Option<PathBuf>,
    /// Report as one JSON object
    #[arg(long)]
    json: bool,
}

/// Walks and probes.
pub(crate) async fn run(mut args: Args) -> Result<()> {
    let country = args.country.settle();
    if !args.json {
        println!("{}", country.in_words());
    }
    let cache = args.state.map_or_else(CacheFolder::of_user, CacheFolder::at);
    let locator = Locator::new(args.tds, country.country, Dns::from_environment()?, cache).from_the_roots();
    let locator = locator.trusting(args.trust.trust());
    let outcome = locator.from_address(args.local).locate().await;
    let hops: &[Hop] = match &outcome {
        Ok(found) => &found.hops,
        Err(LocateError::Walk(error)) => &error.hops,
        Err(LocateError::NoIpv4(_) | LocateError::OnlyLoops(_)) => &[],
    };
    if !args.json {
        for hop in hops {
            println!("{}{}: {}", "  ".repeat(hop.depth), hop.asked, hop.outcome);
        }
    }
    let age = outcome.as_ref().ok().filter(|found| found.from_cache).map(|found| found.age);
    if let (Some(age), false) = (age, args.json) {
        println!("from the cache, {} old", in_words(age));
    }
    let local = match args.local {
        Some(IpAddr::V4(local)) => Some(local),
        Some(IpAddr::V6(_)) | None => None,
    };
    let mut servers = Vec::new();
    for server in outcome.as_ref().map(locate::ipv4_servers).unwrap_or_default() {
        let answer = probe(server, local).await.map(|span| (span.as_secs_f64() * 1e6).round() / 1e3);
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
        let country = json!({ "code": country.country.map(|country| country.to_string()), "why": country.why });
        let age = age.map(|age| age.as_secs());
        println!("{}", json!({ "country": country, "hops": hops, "servers": servers, "cache_age_seconds": age }));
    }
    let found = outcome?;
    if servers.is_empty() {
        bail!(LocateError::NoIpv4(found.servers.len()));
    }
    Ok(())
}

/// A span in its largest unit: `3 h`.
fn in_words(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

fn as_json(hop: &Hop) -> Value {
    let tier = match &hop.outcome {
        HopOutcome::Databases(_, tier) | HopOutcome::Servers(_, tier) => tier.clone(),
        HopOutcome::Resolved(_) | HopOutcome::Nothing | HopOutcome::Failed(_) | HopOutcome::Overtaken => None,
    };
    json!({ "asked": hop.asked, "depth": hop.depth, "outcome": hop.outcome.to_string(), "tier": tier })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_its_largest_unit() {
        for (seconds, words) in [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3_599, "59 min"), (11_000, "3 h")] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }
}
