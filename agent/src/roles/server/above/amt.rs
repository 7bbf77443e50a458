//! Relays above by AMT: moves values between `castgate_endpoint::amt::access`, which decides, the gateways of the dataplane,
//! which carry, and the thread that looks names up.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use castgate_client::Locator;
use castgate_client::amt::{Answered, Lookups};
use castgate_control::UpstreamSnapshot;
use castgate_dataplane::{Dataplane, GatewayId, Waker};
use castgate_endpoint::amt::access::{Access, Event, Output};
use castgate_endpoint::amt::discovery::{AttemptId, NoRelay, Question, QuestionId};
use castgate_endpoint::hierarchy::feed;
use castgate_endpoint::membership::Filter;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::super::amt::source_filter;
use super::{runtime, settings};
use crate::report::UpstreamReport;
use crate::roles::feeding::Feeding;

/// How long the last goodbye may take: it is said again after a second (RFC 7450 §5.2.3.7.2).
const FAREWELL_MAX: Duration = Duration::from_millis(1_100);

/// All that goes on with relays above.
#[derive(Debug)]
pub(super) struct AmtAbove {
    access: Access,
    avoid: Vec<SocketAddr>,
    feeding: Feeding,
    /// Knows who feeds the relays that the hierarchy names.
    locator: Option<Locator>,
    gateways: BTreeMap<AttemptId, GatewayId>,
    connections: HashMap<GatewayId, AttemptId>,
    lookups: Resolver,
    /// Why a relay was last given up or none was found.
    last_failure: Option<String>,
}

/// The thread that looks names up, as the control thread sees it.
#[derive(Debug)]
struct Resolver {
    questions: Option<UnboundedSender<(QuestionId, Question)>>,
    answers: Receiver<Answered>,
    thread: Option<JoinHandle<()>>,
}

impl AmtAbove {
    pub(super) fn start(
        snapshot: &UpstreamSnapshot,
        feeding: &Feeding,
        waker: Waker,
        key: [u8; 16],
    ) -> io::Result<Self> {
        let locator = settings::locator(snapshot);
        Ok(Self {
            access: Access::new(settings::discovery(snapshot), settings::gateway(snapshot), key),
            avoid: snapshot.avoid.clone(),
            feeding: feeding.clone(),
            locator: locator.clone(),
            gateways: BTreeMap::new(),
            connections: HashMap::new(),
            lookups: Resolver::start(snapshot, locator, waker)?,
            last_failure: None,
        })
    }

    pub(super) fn want(&mut self, now: Instant, group: IpAddr, filter: Option<&Filter>) {
        self.access.want(group, filter, now);
    }

    pub(super) fn handle_datagram(&mut self, now: Instant, gateway: GatewayId, from: SocketAddr, datagram: &[u8]) {
        if let Some(connection) = self.connections.get(&gateway) {
            // Data is the workers': what they left to us is none that anybody wants.
            let _data = self.access.handle_datagram(*connection, from, datagram, now);
        }
    }

    pub(super) fn handle_data(&mut self, now: Instant, gateway: GatewayId, source: IpAddr, group: IpAddr) {
        if let Some(connection) = self.connections.get(&gateway) {
            self.access.handle_data(*connection, source, group, now);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Ok(Answered { id, answer, trouble }) = self.lookups.answers.try_recv() {
            if let Some(trouble) = trouble {
                tracing::debug!(%trouble, "asked in vain");
                self.last_failure = Some(trouble);
            }
            self.access.handle_answer(id, answer, now);
        }
        self.access.handle_timeout(now);
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.access.next_timeout()
    }

    pub(super) fn carry_out(&mut self, now: Instant, dataplane: &Dataplane) {
        while let Some(output) = self.access.poll_output() {
            match output {
                Output::Resolve { id, question } => self.lookups.ask(id, question),
                Output::Open { connection, relay } => self.open(now, dataplane, connection, relay),
                Output::Relay { connection, relay } => self.use_relay(now, dataplane, connection, relay),
                Output::Filter { connection, group, filter } => {
                    if let Some(gateway) = self.gateways.get(&connection) {
                        dataplane.gateway_filter(*gateway, group, filter.as_ref().map(source_filter));
                    }
                }
                Output::Transmit { connection, to, datagram } => {
                    let Some(gateway) = self.gateways.get(&connection) else { continue };
                    // AMT repeats whatever matters: only without a way to the relay the next one gets its turn.
                    if let Err(error) = dataplane.transmit_gateway(*gateway, to, &datagram)
                        && is_unreachable(&error)
                    {
                        self.fail(now, dataplane, connection, &format!("{to} cannot be reached: {error}"));
                    }
                }
                Output::Close { connection } => self.close(dataplane, connection),
                Output::Event(event) => {
                    self.tell(&event);
                    self.tell_chain();
                }
            }
        }
    }

    /// Whoever feeds us is announced, with whoever feeds that one; several relays at a time are all told.
    fn tell_chain(&self) {
        let above: Vec<SocketAddr> = self
            .access
            .connections()
            .filter(|connection| connection.is_connected)
            .map(|connection| connection.relay)
            .collect();
        let of = |relay: &SocketAddr| self.locator.as_ref().map(|locator| locator.fed_by(*relay)).unwrap_or_default();
        let chains: Vec<IpAddr> = above.iter().skip(1).map(SocketAddr::ip).chain(above.iter().flat_map(of)).collect();
        self.feeding.set(above.first().map(|first| feed::chain(first.ip(), &chains)).unwrap_or_default());
    }

    fn open(&mut self, now: Instant, dataplane: &Dataplane, connection: AttemptId, relay: SocketAddr) {
        let any = match relay {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        match dataplane.attach_gateway(SocketAddr::new(any, 0)) {
            Ok(gateway) => {
                tracing::debug!(%relay, "asks a relay above");
                self.gateways.insert(connection, gateway);
                self.connections.insert(gateway, connection);
            }
            Err(error) => self.fail(now, dataplane, connection, &format!("no socket for {relay}: {error}")),
        }
    }

    fn use_relay(&mut self, now: Instant, dataplane: &Dataplane, connection: AttemptId, relay: SocketAddr) {
        if settings::is_avoided(&self.avoid, relay) {
            let reason = format!("{relay} takes its channels from the same place as this relay");
            return self.fail(now, dataplane, connection, &reason);
        }
        if let Some(gateway) = self.gateways.get(&connection) {
            dataplane.set_relay(*gateway, Some(relay));
        }
    }

    fn fail(&mut self, now: Instant, dataplane: &Dataplane, connection: AttemptId, reason: &str) {
        tracing::info!(reason, "a relay above is passed over");
        self.last_failure = Some(reason.to_owned());
        self.close(dataplane, connection);
        self.access.handle_failed(connection, now);
    }

    fn close(&mut self, dataplane: &Dataplane, connection: AttemptId) {
        if let Some(gateway) = self.gateways.remove(&connection) {
            self.connections.remove(&gateway);
            dataplane.detach_gateway(gateway);
        }
    }

    fn tell(&mut self, event: &Event) {
        match event {
            Event::Using { channel, relay, method } => {
                tracing::info!(group = %channel.group, %relay, found = method.label(), "taken from a relay above");
                self.last_failure = None;
            }
            Event::FirstData { source, group, relay } => tracing::debug!(%source, %group, %relay, "first packet"),
            Event::RelayLost { relay, reason } => {
                tracing::warn!(%relay, reason = reason.label(), "a relay above is given up");
                self.last_failure = Some(format!("{relay}: {}", reason.label()));
            }
            Event::RelayLimited { relay } => {
                tracing::info!(%relay, "a relay above takes no new gateways");
                self.last_failure = Some(format!("{relay} takes no new gateways"));
            }
            Event::NoRelay { channel, reason } => {
                let why = match reason {
                    NoRelay::NotFound => "nobody names a relay of",
                    NoRelay::NotConnected => "no relay that is named answers for",
                    NoRelay::NoneForSource => "the source publishes that there is no relay of",
                };
                let failure = format!("{why} {channel}");
                tracing::warn!(failure, "no relay above");
                self.last_failure = Some(failure);
            }
        }
    }

    pub(super) fn look(&self) -> Vec<UpstreamReport> {
        let row = |server, state: &str, channels| UpstreamReport {
            server,
            protocol: "AMT".to_owned(),
            state: state.to_owned(),
            channels,
            last_failure: self.last_failure.clone(),
        };
        let rows: Vec<_> = self
            .access
            .connections()
            .map(|connection| {
                let state = if connection.is_connected { "connected" } else { "connecting" };
                row(Some(connection.relay), state, connection.channels as u64)
            })
            .collect();
        if rows.is_empty() { vec![row(None, "searching", 0)] } else { rows }
    }

    pub(super) fn end(mut self, now: Instant, dataplane: &Dataplane) {
        let end = now + FAREWELL_MAX;
        self.access.shut_down(now);
        self.carry_out(now, dataplane);
        while let Some(at) = self.access.next_timeout().filter(|at| *at < end && !self.access.is_finished()) {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            let now = Instant::now();
            self.access.handle_timeout(now);
            self.carry_out(now, dataplane);
        }
    }
}

impl Resolver {
    fn start(snapshot: &UpstreamSnapshot, locator: Option<Locator>, waker: Waker) -> io::Result<Self> {
        let (questions, asked) = unbounded_channel();
        let (say, answers) = mpsc::channel();
        let dns = settings::dns(snapshot);
        let answer = move |answered| {
            if say.send(answered).is_ok() {
                waker.wake();
            }
        };
        let thread = runtime::spawn("amt-lookups", move || resolve(Lookups::new(dns, locator), asked, answer))?;
        Ok(Self { questions: Some(questions), answers, thread: Some(thread) })
    }

    /// As many questions are open at a time as discovery allows.
    fn ask(&self, id: QuestionId, question: Question) {
        if let Some(questions) = &self.questions {
            // A thread that is gone has panicked, which was printed; discovery gives the question up in time.
            let _ = questions.send((id, question));
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.questions = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks until nobody is left to ask for.
async fn resolve(
    mut lookups: Lookups,
    mut asked: UnboundedReceiver<(QuestionId, Question)>,
    answer: impl Fn(Answered),
) {
    loop {
        tokio::select! {
            question = asked.recv() => match question {
                Some((id, question)) => lookups.ask(id, question),
                None => return,
            },
            answered = lookups.answer() => answer(answered),
        }
    }
}

/// Whether there is no way at all, now.
fn is_unreachable(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::AddrNotAvailable
            | ErrorKind::PermissionDenied
            | ErrorKind::NetworkDown
    )
}
