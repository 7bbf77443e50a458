//! The fleet's own client: does what a user would do, from an address of its own, and says what it got.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use castgate_client::{
    CacheFolder, Dns, GroupName, Locator, ReceiverSettings, Report, Servers, Trust, TunnelSettings, Via,
};
use castgate_planner::ClientHints;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::reception::Reception;

/// Where the client stands on a machine whose server is on the loopback: an address that is nobody else's, so that the
/// rules against loops need no exception.
const LOOPBACK_CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 3, 1);
/// How long to wait before asking the databases again: servers register within moments of the start.
const RETRY: Duration = Duration::from_millis(250);
/// How often the counters are published.
const PUBLISH: Duration = Duration::from_millis(200);
/// How long a silent channel is borne.
const SILENCE: Duration = Duration::from_secs(2);

/// The running client.
#[derive(Debug)]
pub(super) struct OwnClient {
    state: watch::Receiver<ClientState>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// What the client has come to.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientState {
    /// Its counters, once it has joined.
    pub(super) report: Option<Report>,
    /// What happened last, or why nothing comes.
    pub(super) word: String,
}

impl OwnClient {
    /// Starts a client of the channel that the plan recommends, if it has one.
    pub(super) fn start(hints: &ClientHints) -> Self {
        let (publisher, state) = watch::channel(ClientState::default());
        let running = settings(hints).map(|settings| {
            let (stop, stopped) = oneshot::channel();
            (stop, tokio::spawn(run(settings, publisher, stopped)))
        });
        Self { state, running }
    }

    /// What it has come to by now.
    pub(super) fn state(&self) -> ClientState {
        self.state.borrow().clone()
    }

    /// Lets it leave its channel and waits until it has.
    pub(super) async fn stop(self) {
        if let Some((stop, task)) = self.running {
            drop(stop);
            // It ends by itself; were it to panic, the fleet still ends in order.
            let _ = task.await;
        }
    }
}

fn settings(hints: &ClientHints) -> Option<ReceiverSettings> {
    let local = hints.server.filter(|server| server.ip().is_loopback()).map(|_| LOOPBACK_CLIENT);
    let servers = match (&hints.tds, hints.server) {
        (Some(tds), _) => {
            let dns = Dns::from_environment().unwrap_or_default();
            // Nothing is remembered: the way from the root down is what this client is to show.
            let trust = hints.tds_ca.as_deref().and_then(Trust::only).unwrap_or_default();
            let locator = Locator::new(vec![tds.parse().ok()?], hints.country, dns, CacheFolder::none());
            Servers::Located(locator.trusting(trust))
        }
        (None, Some(server)) => Servers::Fixed(vec![server]),
        (None, None) => return None,
    };
    Some(ReceiverSettings {
        name: GroupName::new(hints.channel?),
        via: Via::Umtp,
        interface: None,
        tunnel: Some(TunnelSettings { servers, local, silence: Some(SILENCE) }),
        amt: None,
    })
}

async fn run(settings: ReceiverSettings, publisher: watch::Sender<ClientState>, mut stopped: oneshot::Receiver<()>) {
    let started = Instant::now();
    let mut reception = loop {
        let opened = tokio::select! {
            opened = Reception::open(settings.clone(), Vec::new(), started) => opened,
            _ = &mut stopped => return,
        };
        match opened {
            Ok(reception) => break reception,
            Err(error) => publisher.send_modify(|state| state.word = error.to_string()),
        }
        tokio::select! {
            () = sleep(RETRY) => {}
            _ = &mut stopped => return,
        }
    };
    let mut ticks = interval(PUBLISH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            turned = reception.turn() => match turned {
                Ok(Some(event)) => publisher.send_modify(|state| state.word = event.to_string()),
                Ok(None) => {}
                Err(error) => {
                    publisher.send_modify(|state| state.word = error.to_string());
                    break;
                }
            },
            _ = ticks.tick() => publish(&publisher, &reception),
            _ = &mut stopped => break,
        }
    }
    publish(&publisher, &reception);
    // It has no outputs, so nothing can be left unwritten.
    let _ = reception.close().await;
}

fn publish(publisher: &watch::Sender<ClientState>, reception: &Reception) {
    let report = reception.report();
    publisher.send_modify(|state| {
        if report.packets == 0 {
            state.word = reception.silence_reason();
        }
        state.report = Some(report);
    });
}
