//! One received channel with everything around it: counted, handed on, reported. `receive` and `up` share it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use castgate_client::{Event, Output, OutputError, ReceiveError, Receiver, ReceiverSettings, Report, Statistics};

/// A channel that is being received.
#[derive(Debug)]
pub(crate) struct Reception {
    receiver: Receiver,
    statistics: Statistics,
    outputs: Vec<Output>,
}

/// Why a reception ends before it was told to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceptionError {
    /// The channel is lost for good.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// Nobody takes the payloads any more.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Reception {
    /// Joins; the clock for the time to the first packet has run since `started`.
    pub(crate) async fn open(
        settings: ReceiverSettings,
        outputs: Vec<Output>,
        started: Instant,
    ) -> Result<Self, ReceiveError> {
        let receiver = Receiver::open(settings).await?;
        Ok(Self { receiver, statistics: Statistics::new(started), outputs })
    }

    /// Waits for the next packets or event. Cancelling loses nothing.
    pub(crate) async fn turn(&mut self) -> Result<Option<Event>, ReceptionError> {
        let Self { receiver, statistics, outputs } = self;
        let mut broken = None;
        let event = receiver
            .receive(|datagram| {
                statistics.record(Instant::now(), unix_nanos(), datagram.payload);
                for output in outputs.iter_mut() {
                    if let Err(error) = output.write(datagram.payload) {
                        broken.get_or_insert(error);
                    }
                }
            })
            .await?;
        if let Some(error) = broken {
            return Err(error.into());
        }
        if matches!(event, Some(Event::HandOver { .. })) {
            statistics.hand_over();
        }
        Ok(event)
    }

    /// The counters now.
    pub(crate) fn report(&self) -> Report {
        let server = self.receiver.server().map(|server| server.to_string());
        self.statistics.report(Instant::now(), &self.receiver.name(), self.receiver.path(), server)
    }

    /// Why nothing came, as far as that is known.
    pub(crate) fn silence_reason(&self) -> String {
        self.receiver.silence_reason()
    }

    /// Leaves the channel and lets the outputs finish.
    pub(crate) async fn close(self) -> Result<(), OutputError> {
        self.receiver.close().await;
        let mut outcome = Ok(());
        for output in self.outputs {
            outcome = outcome.and(output.finish().await);
        }
        outcome
    }
}

/// Nanoseconds since 1970; a clock before that counts as 1970.
fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A report as a person reads it: `N packets, N lost, …`.
pub(crate) fn in_words(report: &Report) -> String {
    let mut words = vec![format!("{} packets", report.packets)];
    for (count, word) in [(report.lost, "lost"), (report.duplicated, "duplicated"), (report.reordered, "reordered")] {
        words.extend(count.map(|count| format!("{count} {word}")));
    }
    words.extend(report.longest_gap_ms.map(|gap| format!("longest gap {gap:.1} ms")));
    let delay = report.delay_ms;
    words
        .extend(delay.map(|delay| format!("delay {:.2} ms (99 %: {:.2}, max {:.2})", delay.p50, delay.p99, delay.max)));
    if report.handovers > 0 {
        words.push(format!("{} handovers", report.handovers));
    }
    words.extend(report.via.map(|via| match &report.server {
        Some(server) => format!("{via} from {server}"),
        None => via.to_string(),
    }));
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use castgate_client::Path;

    #[test]
    fn counts_that_are_not_known_are_not_told() {
        let name = "ham:ip:239.1.2.3:5004".parse().unwrap();
        let mut statistics = Statistics::new(Instant::now());
        statistics.record(Instant::now(), 0, b"plain");
        let report = statistics.report(Instant::now(), &name, Some(Path::Native), None);
        let words = in_words(&report);
        assert!(words.starts_with("1 packets, longest gap ") && words.ends_with(", native"), "{words}");
        assert!(!words.contains("lost") && !words.contains("delay"), "{words}");
    }
}
