//! `castgate send`: put a pattern, a stream, a file or a local channel into a channel.

mod input;
mod pace;

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use castgate_client::{GroupName, SendError, SendTo, Sender, SenderSettings, Via};
use castgate_crds::units::Rate;
use serde::Serialize;
use tokio::sync::mpsc::Receiver;

use crate::args::{self, TunnelArgs};
use crate::stop::Stop;
use input::{InputSpec, Payload};

/// Send into a channel, upstream through a tunnel or natively
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  castgate send ham:ip:239.1.2.3:5004 --tds 127.0.4.1 --country BE --input pattern:500kbit --for 10s
  castgate send ham:ip:239.1.2.3:5004 --server 192.0.2.1:10100 --input file:film.ts
  ffmpeg … -f mpegts - | castgate send ham:ip:239.1.2.3:5004 --server 192.0.2.1:10100 --input -
  castgate send ham:ip:239.1.2.3:5004 --server 192.0.2.1:10100 --input udp://239.9.9.9:5004?iface=eth0

auto sends natively when --interface is given, and through a tunnel otherwise.")]
pub(crate) struct Args {
    #[arg(help = "The channel: ham:ip:GROUP[@SOURCE]:PORT")]
    name: GroupName,
    #[arg(
        long,
        value_name = "INPUT",
        help = "What to send: pattern:RATE, - (standard input), file:P, udp://G:P[?iface=NAME|ADDRESS]"
    )]
    input: InputSpec,
    /// The path: auto, native or umtp
    #[arg(long, default_value = "auto", value_parser = args::via)]
    via: Via,
    /// Interface for the native path, by name or address
    #[arg(long, value_name = "NAME|ADDRESS")]
    interface: Option<String>,
    #[command(flatten)]
    tunnel: TunnelArgs,
    /// TTL of each packet, as an application sets it
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..))]
    ttl: u8,
    /// Rate of a file that is no MPEG transport stream; such a stream goes by its own clock
    #[arg(long, value_name = "RATE", default_value = "2Mbit", value_parser = args::rate)]
    rate: Rate,
    /// End after this time
    #[arg(long = "for", value_name = "SPAN", value_parser = args::span)]
    span: Option<Duration>,
    /// Report the total as one JSON object
    #[arg(long)]
    json: bool,
}

/// What was sent.
#[derive(Debug, Serialize)]
struct Total {
    name: String,
    via: castgate_client::Path,
    server: Option<String>,
    packets: u64,
    bytes: u64,
    not_sent: u64,
}

/// Sends until the input ends or it is told to stop.
pub(crate) async fn run(mut args: Args) -> Result<()> {
    args.tunnel.settle_country();
    let mut stop = Stop::after(args.span)?;
    let to = match (args.via, &args.interface, args.tunnel.settings().await?) {
        (Via::Native, interface, _) | (Via::Auto, interface @ Some(_), _) => SendTo::Native(interface.clone()),
        (Via::Auto | Via::Umtp, _, Some(tunnel)) => SendTo::Tunnel(tunnel),
        (Via::Auto, None, None) => bail!(
            "nothing says where {} is to be sent: name a tunnel database, a tunnel server, or an interface",
            args.name
        ),
        (Via::Amt, ..) => bail!("nobody sends through AMT: take auto, native or umtp"),
        (Via::Umtp, _, None) => bail!("nothing says which tunnel server to use: name a tunnel database or a server"),
    };
    let opening = Sender::open(SenderSettings { name: args.name, ttl: args.ttl, to });
    let mut sender = tokio::select! {
        opened = opening => opened?,
        () = stop.wait() => bail!("nothing was sent to {}: no path was found in time", args.name),
    };
    let mut total =
        Total { name: args.name.to_string(), via: sender.path(), server: None, packets: 0, bytes: 0, not_sent: 0 };
    let outcome = send_all(&args, &mut sender, &mut stop, &mut total).await;
    let reason = sender.silence_reason();
    sender.close().await;
    outcome?;
    let line = if args.json {
        serde_json::to_string(&total)?
    } else {
        format!("{} packets, {} octets sent, {} not sent", total.packets, total.bytes, total.not_sent)
    };
    writeln!(std::io::stdout(), "{line}").context("standard output is closed")?;
    if total.packets == 0 {
        bail!("nothing was sent to {}: {reason}", args.name);
    }
    Ok(())
}

async fn send_all(args: &Args, sender: &mut Sender, stop: &mut Stop, total: &mut Total) -> Result<()> {
    // Nothing is read before there is somebody to send it to: a pipe or a file waits.
    while !sender.is_ready() {
        tokio::select! {
            event = sender.drive(|_| {}) => tell(event?),
            () = stop.wait() => return Ok(()),
        }
    }
    let mut payloads: Receiver<Payload> = input::start(&args.input, args.rate).await?;
    loop {
        tokio::select! {
            event = sender.drive(|_| {}) => tell(event?),
            payload = payloads.recv() => match payload {
                Some(payload) => send(sender, &payload?, total)?,
                None => return Ok(()),
            },
            () = stop.wait() => return Ok(()),
        }
    }
}

fn send(sender: &mut Sender, payload: &[u8], total: &mut Total) -> Result<()> {
    match sender.send(payload) {
        Ok(()) => {
            total.packets += 1;
            total.bytes += payload.len() as u64;
            total.server = sender.server().map(|server| server.to_string());
        }
        // The server is being changed, or a buffer is full: what is live goes on with the next packet.
        Err(SendError::Payload(_)) => total.not_sent += 1,
        Err(SendError::Native { error, .. }) if error.kind() == std::io::ErrorKind::WouldBlock => total.not_sent += 1,
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn tell(event: Option<castgate_client::Event>) {
    if let Some(event) = event {
        eprintln!("{event}");
    }
}
