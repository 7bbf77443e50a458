//! Where payloads come from: each input is a task or thread of its own behind a short queue.
//!
//! ```text
//!   pattern:RATE ─ task, by the clock ──┐
//!   -            ─ thread, as it comes ─┼──▶ [ QUEUE payloads ] ──▶ sender
//!   file:P       ─ thread, paced ───────┤
//!   udp://G:P    ─ task, as it comes ───┘
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use castgate_client::output::UdpTarget;
use castgate_client::{GroupName, OutputSpec, Receiver as ChannelReceiver, ReceiverSettings, Via};
use castgate_crds::units::Rate;
use castgate_wire::pattern;
use castgate_wire::umtp::Channel;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, sleep_until};

use super::pace::Pace;
use crate::args;

/// Seven packets of an MPEG transport stream, the usual payload of video over UDP.
const PAYLOAD_BYTES: usize = 1_316;
/// Payloads that wait for the sender: a tenth of a second of a channel of 10 Mbit/s.
const QUEUE: usize = 64;

/// One payload, or why there are no more.
pub(super) type Payload = Result<Vec<u8>>;

/// An input as it is written.
#[derive(Debug, Clone)]
pub(super) enum InputSpec {
    Pattern(Rate),
    Stdin,
    File(PathBuf),
    Udp(UdpTarget),
}

impl FromStr for InputSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(rate) = text.strip_prefix("pattern:") {
            return args::rate(rate).map(Self::Pattern);
        }
        match text.parse::<OutputSpec>() {
            Ok(OutputSpec::Stdout) => Ok(Self::Stdin),
            Ok(OutputSpec::File(path)) => Ok(Self::File(path)),
            Ok(OutputSpec::Udp(target)) if target.ttl.is_some() => Err("an input has no ttl".to_owned()),
            Ok(OutputSpec::Udp(target)) if target.address.ip().is_multicast() => Ok(Self::Udp(target)),
            Ok(OutputSpec::Udp(target)) => Err(format!("{} is not a multicast group", target.address.ip())),
            Ok(OutputSpec::Stats | OutputSpec::Http(_)) | Err(_) => {
                Err("it is not one of pattern:RATE, -, file:P, udp://G:P[?iface=NAME|ADDRESS]".to_owned())
            }
        }
    }
}

/// Starts an input; it ends when the queue's end is dropped.
pub(super) async fn start(spec: &InputSpec, file_rate: Rate) -> Result<Receiver<Payload>> {
    let (queue, payloads) = channel(QUEUE);
    match spec {
        InputSpec::Pattern(rate) => {
            let bits = rate.bits_per_second(u16::try_from(PAYLOAD_BYTES).expect("1316 fits"));
            tokio::spawn(send_pattern(bits, queue));
        }
        InputSpec::Stdin => {
            thread::spawn(move || read_all(io::stdin(), "standard input", None, &queue));
        }
        InputSpec::File(path) => {
            let shown = path.display().to_string();
            let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
            let pace = Pace::new(file_rate.bits_per_second(u16::try_from(PAYLOAD_BYTES).expect("1316 fits")));
            thread::spawn(move || read_all(file, &shown, Some(pace), &queue));
        }
        InputSpec::Udp(target) => {
            let channel = Channel::any_source(*target.address.ip(), target.address.port());
            let settings = ReceiverSettings {
                name: GroupName::new(channel),
                via: Via::Native,
                interface: target.interface.clone(),
                tunnel: None,
                amt: None,
            };
            let receiver = ChannelReceiver::open(settings).await?;
            tokio::spawn(send_channel(receiver, queue));
        }
    }
    Ok(payloads)
}

/// Numbered, time-stamped datagrams by the clock: after a delay what is due comes at once, so that the rate holds.
async fn send_pattern(bits_per_second: u64, queue: Sender<Payload>) {
    let started = Instant::now();
    let stream = random_stream();
    for sequence in 0.. {
        sleep_until(started + due(sequence, bits_per_second)).await;
        let sent = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let sent_nanos = u64::try_from(sent.as_nanos()).unwrap_or(u64::MAX);
        let mut payload = vec![0; PAYLOAD_BYTES];
        pattern::Repr { stream, sequence, sent_nanos }.emit(&mut payload);
        if queue.send(Ok(payload)).await.is_err() {
            return;
        }
    }
}

/// How long after the start a datagram leaves.
fn due(sequence: u64, bits_per_second: u64) -> Duration {
    let nanos = u128::from(sequence) * PAYLOAD_BYTES as u128 * 8 * 1_000_000_000 / u128::from(bits_per_second);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// A stream id that no other start has: the time, mixed with the process.
fn random_stream() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// Reads in payloads of full length; a pace, where there is one, says when each may go.
fn read_all(mut source: impl Read, name: &str, mut pace: Option<Pace>, queue: &Sender<Payload>) {
    loop {
        let mut payload = Vec::with_capacity(PAYLOAD_BYTES);
        let read = source.by_ref().take(PAYLOAD_BYTES as u64).read_to_end(&mut payload);
        let sent = match read {
            Ok(0) => return,
            Ok(_) => {
                if let Some(pace) = &mut pace {
                    thread::sleep(pace.wait(&payload));
                }
                queue.blocking_send(Ok(payload))
            }
            Err(error) => {
                // Nobody may be there to hear it any more.
                let _ = queue.blocking_send(Err(error).with_context(|| format!("cannot read {name}")));
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// One datagram for one datagram.
async fn send_channel(mut source: ChannelReceiver, queue: Sender<Payload>) {
    loop {
        let outcome = source
            .receive(|datagram| {
                // A full queue loses the datagram, as a full socket buffer would.
                let _ = queue.try_send(Ok(datagram.payload.to_vec()));
            })
            .await;
        if let Err(error) = outcome {
            let _ = queue.send(Err(error.into())).await;
            return;
        }
        if queue.is_closed() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_is_read_and_anything_else_refused() {
        assert!(matches!("pattern:500k".parse(), Ok(InputSpec::Pattern(Rate::BitsPerSecond(500_000)))));
        assert!(matches!("-".parse(), Ok(InputSpec::Stdin)));
        assert!(matches!("file:a.ts".parse(), Ok(InputSpec::File(_))));
        assert!(matches!("udp://239.1.2.3:5004?iface=lo".parse(), Ok(InputSpec::Udp(_))));
        for text in ["pattern:fast", "stats", "http://:80", "udp://127.0.0.1:5004", "udp://239.1.2.3:5004?ttl=1", ""] {
            assert!(text.parse::<InputSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_keeps_its_rate_without_drifting() {
        let rate = 1_316 * 8 * 100;
        assert_eq!(due(0, rate), Duration::ZERO);
        assert_eq!(due(100, rate), Duration::from_secs(1));
        assert_eq!(due(8_640_000, rate), Duration::from_hours(24));
        assert_eq!(due(3, 1_316 * 8), Duration::from_secs(3));
    }

    #[tokio::test]
    async fn a_pattern_is_numbered_and_of_one_stream() {
        let spec = InputSpec::Pattern(Rate::BitsPerSecond(100_000_000));
        let mut payloads = start(&spec, Rate::PacketsPerSecond(1)).await.unwrap();
        let mut streams = Vec::new();
        for expected in 0..100 {
            let payload = payloads.recv().await.unwrap().unwrap();
            let repr = pattern::Repr::parse(&payload).unwrap();
            assert_eq!((repr.sequence, payload.len()), (expected, PAYLOAD_BYTES));
            streams.push(repr.stream);
        }
        assert!(streams.iter().all(|stream| *stream == streams[0]));
    }

    #[test]
    fn a_stream_of_octets_is_cut_into_full_payloads_and_ends() {
        let (queue, mut payloads) = channel(QUEUE);
        read_all(&[7_u8; PAYLOAD_BYTES * 2 + 5][..], "the test", None, &queue);
        let lengths: Vec<_> =
            std::iter::from_fn(|| payloads.try_recv().ok()).map(|payload| payload.unwrap().len()).collect();
        assert_eq!(lengths, [PAYLOAD_BYTES, PAYLOAD_BYTES, 5]);
    }
}
