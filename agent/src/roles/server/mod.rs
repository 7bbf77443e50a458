//! The tunnel server of an agent: sockets and threads made from its part of the snapshot.
//!
//! Owns the dataplane and the control thread. Decides nothing about the protocol: that is `castgate_endpoint::umtp::server`.

mod above;
mod amt;
mod anycast;
mod driver;
mod rates;
mod settings;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use castgate_control::{AmtSnapshot, ChannelRule, ServerSnapshot, UpstreamSnapshot};
use castgate_dataplane::{AmtSettings, Dataplane, Events, Flows, Interface, Settings, StartError, Traffic, Waker};
use castgate_wire::umtp::Channel;

use self::above::{Above, Places};
use self::amt::{AmtConfig, AmtLook, AmtRelay};
use self::driver::{Command, Driver, Look, Reconfigure, Refusals};
use self::rates::Rates;
use super::interface::{self, InterfaceError};
use crate::report::{AmtReport, ChannelReport, Report, TunnelReport};
use crate::roles::feeding::Feeding;

/// The control thread answers within one turn; a machine on which that takes longer is in trouble that we must not add to.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a tunnel server cannot run: one sentence that names the address or the interface.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An interface is not there or has no address.
    #[error("interfaces: {0}")]
    Interface(#[from] InterfaceError),
    /// The sockets cannot be made.
    #[error(transparent)]
    Dataplane(#[from] castgate_dataplane::StartError),
    /// An anycast address is not given to us.
    #[error(transparent)]
    Anycast(#[from] self::anycast::AnycastError),
    /// No key for the cookies, or no thread.
    #[error("control thread: {0}")]
    Control(io::Error),
    /// The control thread is gone or overwhelmed.
    #[error("control thread does not answer")]
    Silent,
    /// Who looks for servers above cannot begin.
    #[error("upstream: {0}")]
    Above(io::Error),
}

/// A running tunnel server; it ends with `TEAR_DOWN` to everybody when stopped or dropped.
#[derive(Debug)]
pub struct ServerRole {
    listen: SocketAddrV4,
    rules: Vec<ChannelRule>,
    commands: Sender<Command>,
    waker: Waker,
    rates: Mutex<Rates>,
    thread: Option<JoinHandle<()>>,
}

impl ServerRole {
    /// Opens the sockets and starts to serve.
    ///
    /// # Errors
    /// When an interface or the address is not ours, or the kernel refuses.
    pub fn start(snapshot: &ServerSnapshot) -> Result<Self, ServerError> {
        Self::start_telling(snapshot, &Feeding::default())
    }

    /// The same; tells the board who feeds it, when it is a relay.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_telling(snapshot: &ServerSnapshot, feeding: &Feeding) -> Result<Self, ServerError> {
        let interfaces = interfaces(snapshot)?;
        let config = settings::config(snapshot, own_addresses(*snapshot.listen.ip(), &interfaces));
        let mut settings = Settings::new(snapshot.listen, interfaces);
        if let Some(workers) = snapshot.workers {
            settings.workers = NonZeroUsize::from(workers);
        }
        let permissions = settings::permissions(&snapshot.channels);
        // Before its sockets: they are bound to the anycast addresses too.
        let relay = |amt: &AmtSnapshot| -> Result<_, ServerError> {
            Ok(AmtRelay::new(amt, AmtConfig::new(amt, &snapshot.channels), random_key()?)?)
        };
        let amt = snapshot.amt.as_ref().map(relay).transpose()?;
        settings.amt = snapshot.amt.as_ref().map(settings::amt_settings);

        let delivery = snapshot.upstream.as_ref().and_then(|upstream| upstream.delivery.as_ref());
        let places = delivery.map(Places::open).transpose().map_err(ServerError::Above)?;
        settings.deliver = places.as_ref().map(Places::deliveries).unwrap_or_default();

        let (dataplane, events) = start_dataplane(settings, &snapshot.channels)?;
        let key = random_key()?;
        let listen = dataplane.listen();
        let waker = events.waker();
        let dataplane = Arc::new(dataplane);
        let above = |upstream: &UpstreamSnapshot| -> Result<_, ServerError> {
            let key = random_key()?;
            Above::start((upstream, feeding), &snapshot.channels, places, &dataplane, || events.waker(), key)
                .map_err(ServerError::Above)
        };
        let above = snapshot.upstream.as_ref().map(above).transpose()?;
        let (commands, received) = mpsc::channel();
        let driver = Driver::new((config, permissions, key), (amt, above), (dataplane, events), received);
        let thread = thread::Builder::new()
            .name("umtp-control".to_owned())
            .spawn(move || driver.run())
            .map_err(ServerError::Control)?;
        tracing::info!(%listen, interfaces = ?snapshot.interfaces, "tunnel server listens");
        Ok(Self {
            listen,
            rules: snapshot.channels.clone(),
            commands,
            waker,
            rates: Mutex::default(),
            thread: Some(thread),
        })
    }

    /// Takes other times, limits, rules and interfaces. What sockets are made of stays: see [`crate::config::diff`].
    ///
    /// # Errors
    /// When an interface is not ours; everything is then as before.
    pub fn apply(&mut self, snapshot: &ServerSnapshot) -> Result<(), ServerError> {
        let interfaces = interfaces(snapshot)?;
        let config = settings::config(snapshot, own_addresses(*snapshot.listen.ip(), &interfaces));
        let permissions = settings::permissions(&snapshot.channels);
        let amt = snapshot.amt.as_ref().map(|amt| AmtConfig::new(amt, &snapshot.channels));
        let (answer, taken) = mpsc::sync_channel(1);
        let rules = snapshot.channels.clone();
        self.command(Command::Reconfigure(Box::new(Reconfigure {
            config,
            permissions,
            amt,
            rules,
            interfaces,
            answer,
        })));
        taken.recv_timeout(ANSWER_TIMEOUT).map_err(|_| ServerError::Silent)??;
        self.rules.clone_from(&snapshot.channels);
        Ok(())
    }

    /// Adds what this server carries to a report.
    pub fn report(&self, report: &mut Report) {
        report.listen = Some(self.listen);
        let (answer, look) = mpsc::sync_channel(1);
        self.command(Command::Look(answer));
        let Ok(look) = look.recv_timeout(ANSWER_TIMEOUT) else { return };
        let Look { at, tunnels, endpoint, channels, refusals, dataplane, amt, upstreams } = look;
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.sample(at, channels.iter().map(|channel| (channel.channel, taken(channel).bytes)));
        report.channels.extend(channels.iter().map(|channel| ChannelReport {
            name: settings::name_of(&self.rules, channel.channel),
            channel: channel.channel,
            tunnels: channel.tunnels as u64,
            packets: taken(channel).packets,
            bytes: taken(channel).bytes,
            bits_per_second: rates.of(channel.channel),
            not_joined: refusals_of(&refusals, channel.channel),
        }));
        report.tunnels.extend(tunnels.into_iter().map(|(age, tunnel)| TunnelReport {
            address: tunnel.tunnel,
            channels: tunnel.channels,
            age_seconds: age.as_secs(),
        }));
        let of_amt =
            amt.iter().flat_map(|amt| amt.counters.drops.counts()).map(|(reason, count)| (reason.label(), count));
        let drops = endpoint.drops.counts().map(|(reason, count)| (reason.label(), count)).chain(of_amt);
        for (reason, count) in drops.chain(dataplane.drops().map(|(reason, count)| (reason.label(), count))) {
            if count > 0 {
                *report.drops.entry(reason.to_owned()).or_default() += count;
            }
        }
        report.amt = amt.map(amt_report);
        report.upstreams = upstreams;
    }

    /// Says goodbye to every client and waits until the sockets are closed.
    pub fn stop(self) {
        drop(self);
    }

    fn command(&self, command: Command) {
        // A thread that is gone has panicked, which was printed; there is nobody to tell.
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }
}

impl Drop for ServerRole {
    fn drop(&mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What was taken for a channel, natively and from tunnels.
fn taken(channel: &castgate_dataplane::ChannelReport) -> Traffic {
    let Flows { native_in, tunnels_in, tunnels_out: _, native_out: _ } = channel.flows;
    Traffic { packets: native_in.packets + tunnels_in.packets, bytes: native_in.bytes + tunnels_in.bytes }
}

fn refusals_of(refusals: &Refusals, channel: Channel) -> Vec<String> {
    let of_channel = refusals.iter().filter(|((refused, _), _)| *refused == channel);
    of_channel.map(|((_, interface), reason)| format!("{interface}: {reason}")).collect()
}

/// Starts the dataplane. A program that may not see whole packets has them rebuilt where that is possible.
fn start_dataplane(settings: Settings, rules: &[ChannelRule]) -> Result<(Dataplane, Events), ServerError> {
    let fallback = settings.amt.as_ref().and_then(|amt| {
        let ingress = settings::rebuilt(rules)?;
        Some(Settings { amt: Some(AmtSettings { ingress, ..amt.clone() }), ..settings.clone() })
    });
    match (Dataplane::start(settings), fallback) {
        (Err(StartError::WholePackets(error)), Some(fallback)) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::warn!("without CAP_NET_RAW packets for AMT are rebuilt: options and fragments are not kept");
            Ok(Dataplane::start(fallback)?)
        }
        (started, _) => Ok(started?),
    }
}

fn random_key() -> Result<[u8; 16], ServerError> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|error| ServerError::Control(io::Error::other(error.to_string())))?;
    Ok(key)
}

fn amt_report(look: AmtLook) -> AmtReport {
    let AmtLook { listen, endpoints, groups, anycast, counters: _, refusals } = look;
    AmtReport {
        listen,
        endpoints: endpoints as u64,
        groups: groups as u64,
        anycast,
        not_joined: refusals
            .iter()
            .map(|((group, interface), reason)| format!("{group} on {interface}: {reason}"))
            .collect(),
    }
}

fn interfaces(snapshot: &ServerSnapshot) -> Result<Vec<Interface>, InterfaceError> {
    let listen = *snapshot.listen.ip();
    let resolve = |name: &String| {
        let interface = interface::find(name)?;
        let address = interface::address_for(&interface, listen)?;
        Ok(Interface { name: interface.name, index: interface.index, address })
    };
    snapshot.interfaces.iter().map(resolve).collect()
}

/// What a native packet from us has for a source: where we listen, when that is one address, and what we send from.
fn own_addresses(listen: Ipv4Addr, interfaces: &[Interface]) -> Vec<Ipv4Addr> {
    let listen = (!listen.is_unspecified()).then_some(listen);
    let mut addresses: Vec<_> =
        listen.into_iter().chain(interfaces.iter().map(|interface| interface.address)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
