//! The control thread of a tunnel server: moves values between the endpoints, which decide, and the dataplane, which carries.
//!
//! ```text
//!   Events (known first) ─┐                                    ┌─▶ transmit, multicast
//!   commands ─────────────┼─▶ Server, Relay ─▶ poll_output ────┤
//!   next_timeout ─────────┘   (UMTP)  (AMT)                    └─▶ table builder ─▶ publish, once a turn
//! ```
//! One turn takes a bounded number of events, so that a flood delays neither a timer nor the table.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddrV4;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use castgate_control::ChannelRule;
use castgate_dataplane::{Cookies, Dataplane, Event, Events, Interface, Joined, StartError, TableBuilder};
use castgate_endpoint::umtp::server::{self, Output, Server};
use castgate_wire::umtp::Channel;

use super::above::Above;
use super::amt::{AmtConfig, AmtLook, AmtRelay, source_filter};
use crate::report::UpstreamReport;

/// Events taken before the outputs are carried out and the table is published. Large enough that a thousand clients that
/// return at once cost few tables, small enough that a client waits for its first packet some milliseconds at most.
const EVENTS_PER_TURN_MAX: usize = 256;
/// The longest sleep without a timer: it only bounds the sum with the present time.
const SLEEP_MAX: Duration = Duration::from_mins(1);

/// What the agent asks of the thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Other times, limits, rules and interfaces; channels that are no longer permitted are withdrawn. When an interface
    /// is refused, nothing changes.
    Reconfigure(Box<Reconfigure>),
    /// A look at everything.
    Look(SyncSender<Look>),
    /// `TEAR_DOWN` to everybody, and the end.
    Stop,
}

/// What a running server may be given anew.
#[derive(Debug)]
pub(super) struct Reconfigure {
    pub(super) config: server::Config,
    pub(super) permissions: server::Permissions,
    /// For the AMT relay, which is there or not since the start.
    pub(super) amt: Option<AmtConfig>,
    pub(super) rules: Vec<ChannelRule>,
    pub(super) interfaces: Vec<Interface>,
    pub(super) answer: SyncSender<Result<(), StartError>>,
}

/// What the thread sees at one moment.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    /// With the age of each.
    pub(super) tunnels: Vec<(Duration, server::TunnelReport)>,
    pub(super) endpoint: server::Counters,
    pub(super) channels: Vec<castgate_dataplane::ChannelReport>,
    /// Interfaces on which the kernel refuses a channel, and why.
    pub(super) refusals: Refusals,
    pub(super) dataplane: castgate_dataplane::Counters,
    pub(super) amt: Option<AmtLook>,
    /// The servers above, for a relay.
    pub(super) upstreams: Vec<UpstreamReport>,
}

/// Channel and interface, with what the kernel said.
pub(super) type Refusals = BTreeMap<(Channel, String), String>;

/// Everything the thread owns.
pub(super) struct Driver {
    server: Server,
    amt: Option<AmtRelay>,
    /// For a relay, which takes nothing from the network.
    above: Option<Above>,
    dataplane: Arc<Dataplane>,
    events: Events,
    commands: Receiver<Command>,
    table: TableBuilder,
    /// Whether the table was edited since it was last published.
    is_edited: bool,
    /// What waits for the table; as long as one turn makes it.
    sendings: Vec<Sending>,
    up_since: HashMap<SocketAddrV4, Instant>,
    refusals: Refusals,
}

enum Sending {
    Unicast { to: SocketAddrV4, datagram: Vec<u8> },
    Multicast { channel: Channel, ttl: u8, payload: Vec<u8> },
}

impl Driver {
    pub(super) fn new(
        (config, permissions, key): (server::Config, server::Permissions, [u8; 16]),
        (amt, above): (Option<AmtRelay>, Option<Above>),
        (dataplane, events): (Arc<Dataplane>, Events),
        commands: Receiver<Command>,
    ) -> Self {
        let table = dataplane.table();
        let server = Server::new(config.clone(), permissions.clone(), key, Instant::now());
        let mut driver = Self {
            server,
            amt,
            above,
            dataplane,
            events,
            commands,
            table,
            is_edited: false,
            sendings: Vec::new(),
            up_since: HashMap::new(),
            refusals: Refusals::new(),
        };
        driver.set(config, permissions);
        driver
    }

    /// Runs until it is told to stop, or whoever could tell is gone.
    pub(super) fn run(mut self) {
        // What there is to do before anybody has said anything: anycast leads here from now on.
        self.carry_out(Instant::now());
        loop {
            self.take_events();
            let now = Instant::now();
            self.server.handle_timeout(now);
            if let Some(amt) = &mut self.amt {
                amt.handle_timeout(now);
            }
            if let Some(above) = &mut self.above {
                above.handle_timeout(now, &self.dataplane);
            }
            let stops = self.obey(now).is_break();
            self.carry_out(now);
            if stops {
                break;
            }
        }
        if let Some(above) = self.above.take() {
            above.end(Instant::now(), &self.dataplane);
        }
        // The last one who holds the dataplane: its workers end with it.
    }

    /// Sleeps until there is something to do and takes what is there, within bounds.
    fn take_events(&mut self) {
        let now = Instant::now();
        let timers = [
            self.server.next_timeout(),
            self.amt.as_ref().and_then(AmtRelay::next_timeout),
            self.above.as_ref().and_then(Above::next_timeout),
        ];
        let next = timers.into_iter().flatten().min();
        let until_timer = next.map_or(SLEEP_MAX, |at| at.saturating_duration_since(now));
        let mut next = self.events.recv_timeout(until_timer.min(SLEEP_MAX));
        // What has just arrived may be later than the time read before the sleep.
        let now = Instant::now();
        for _ in 1..EVENTS_PER_TURN_MAX {
            let Some(event) = next else { return };
            self.handle(now, event);
            next = self.events.try_recv();
        }
        if let Some(event) = next {
            self.handle(now, event);
        }
    }

    fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::Control { from, datagram, known } => {
                tracing::trace!(%from, octets = datagram.len(), known, "control datagram");
                self.server.handle_datagram(now, from, &datagram);
            }
            Event::Loop { channel, source } => {
                tracing::debug!(%channel, %source, "native packet from a client's address");
                self.server.handle_loop(now, channel, source);
            }
            Event::JoinFailed { channel, interface, error } => {
                // The worker that tried has warned; it goes on trying.
                self.refusals.insert((channel, interface), error.to_string());
            }
            Event::Activity { tunnel } => self.server.handle_activity(now, tunnel),
            Event::Amt { local, from, datagram, known: _ } => {
                if let Some(amt) = &mut self.amt {
                    amt.handle_datagram(now, local, from, &datagram);
                }
            }
            Event::NativeRefused { group, interface, error } => {
                if let Some(amt) = &mut self.amt {
                    amt.handle_refusal(group, interface, error.to_string());
                }
            }
            Event::IngressRefused { interface, error } => {
                tracing::warn!(interface, %error, "no packets for AMT from this interface; it is tried again every second");
            }
            Event::Gateway { gateway, from, datagram } => {
                if let Some(above) = &mut self.above {
                    above.handle_datagram(now, gateway, from, &datagram);
                }
            }
            Event::GatewayData { gateway, source, group } => {
                if let Some(above) = &mut self.above {
                    above.handle_data(now, gateway, source, group);
                }
            }
        }
    }

    fn obey(&mut self, now: Instant) -> ControlFlow<()> {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Reconfigure(new)) => {
                    let Reconfigure { config, permissions, amt, rules, interfaces, answer } = *new;
                    let taken = self.dataplane.set_interfaces(&interfaces);
                    if taken.is_ok() {
                        self.set(config, permissions);
                        if let (Some(relay), Some(given)) = (&mut self.amt, amt) {
                            relay.set(given, now);
                        }
                        if let Some(above) = &mut self.above {
                            above.set_rules(now, &self.dataplane, &rules);
                        }
                    }
                    drop(answer.try_send(taken));
                }
                // Who asked may have given up waiting.
                Ok(Command::Look(answer)) => drop(answer.try_send(self.look(now))),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                    self.server.tear_down_all();
                    if let Some(amt) = &mut self.amt {
                        amt.end();
                    }
                    return ControlFlow::Break(());
                }
                Err(TryRecvError::Empty) => return ControlFlow::Continue(()),
            }
        }
    }

    fn set(&mut self, config: server::Config, permissions: server::Permissions) {
        self.table.set_loop_check(config.loop_check != server::LoopCheck::Off);
        self.is_edited = true;
        self.server.set_config(config);
        self.server.set_permissions(permissions);
    }

    /// Edits and publishes the table first and sends then: who is answered is in the table already, and what he does next is
    /// not lost on a worker that has not heard of him.
    fn carry_out(&mut self, now: Instant) {
        while let Some(output) = self.server.poll_output() {
            self.carry_out_one(now, output);
        }
        if let Some(amt) = &mut self.amt {
            self.is_edited |= amt.edit(now, &mut self.table);
            for (group, filter) in amt.wants() {
                match &mut self.above {
                    Some(above) => above.want_filter(now, group, filter),
                    None => self.dataplane.native_filter(group, filter.as_ref().map(source_filter)),
                }
            }
        }
        if let Some(above) = &mut self.above {
            above.carry_out(now, &self.dataplane);
        }
        if std::mem::take(&mut self.is_edited) {
            self.dataplane.publish(self.table.build());
        }
        for sending in self.sendings.drain(..) {
            match sending {
                Sending::Unicast { to, datagram } => self.dataplane.transmit(to, &datagram),
                Sending::Multicast { channel, ttl, payload } => self.dataplane.multicast(&channel, ttl, &payload),
            }
        }
        if let Some(amt) = &mut self.amt {
            amt.send(&self.dataplane);
        }
    }

    fn carry_out_one(&mut self, now: Instant, output: Output) {
        self.is_edited |= edits_the_table(&output);
        match output {
            Output::Transmit { to, datagram } => self.sendings.push(Sending::Unicast { to, datagram }),
            Output::Multicast { channel, ttl, payload } => {
                self.sendings.push(Sending::Multicast { channel, ttl, payload });
            }
            Output::TunnelUp { tunnel, cookies } => {
                tracing::info!(%tunnel, "tunnel up");
                self.up_since.insert(tunnel, now);
                self.table.tunnel_up(tunnel, table_cookies(cookies));
            }
            Output::Cookies { tunnel, cookies } => self.table.cookies(tunnel, table_cookies(cookies)),
            Output::TunnelDown { tunnel, reason } => {
                tracing::info!(%tunnel, reason = reason.label(), "tunnel down");
                self.up_since.remove(&tunnel);
                self.table.tunnel_down(tunnel);
            }
            // The workers are told every TTL by the kernel: the one of the JOIN is never needed.
            Output::Attach { tunnel, channel, ttl: _, ttl_max, may_send } => {
                tracing::debug!(%tunnel, %channel, may_send, "joined");
                self.table.attach(tunnel, channel, may_send, ttl_max);
            }
            Output::Detach { tunnel, channel } => {
                tracing::debug!(%tunnel, %channel, "left");
                self.table.detach(tunnel, channel);
            }
            // The workers join and leave by themselves, each for its own tunnels: see the table.
            Output::JoinNative(channel) => {
                tracing::info!(%channel, "channel taken");
                if let Some(above) = &mut self.above {
                    above.want_channel(now, channel);
                }
            }
            Output::LeaveNative(channel) => {
                if let Some(above) = &mut self.above {
                    above.leave_channel(now, channel);
                }
                tracing::info!(%channel, "channel left");
                self.refusals.retain(|(refused, _), _| *refused != channel);
            }
        }
    }

    fn look(&mut self, now: Instant) -> Look {
        let channels = self.dataplane.channels();
        // A refusal may have been told after its channel was left, and is never taken back by whoever told it.
        self.refusals.retain(|(refused, _), _| channels.iter().any(|carried| carried.channel == *refused));
        for Joined { channel, interface, workers: _ } in self.dataplane.joined() {
            self.refusals.remove(&(channel, interface));
        }
        let age_of = |tunnel: &SocketAddrV4| {
            self.up_since.get(tunnel).map_or(Duration::ZERO, |up| now.saturating_duration_since(*up))
        };
        Look {
            at: now,
            tunnels: self.server.tunnels().map(|report| (age_of(&report.tunnel), report)).collect(),
            endpoint: *self.server.counters(),
            channels,
            refusals: self.refusals.clone(),
            dataplane: self.dataplane.counters(),
            amt: self.amt.as_mut().map(|amt| amt.look(&self.dataplane)),
            upstreams: self.above.as_ref().map(Above::look).unwrap_or_default(),
        }
    }
}

fn edits_the_table(output: &Output) -> bool {
    match output {
        Output::Transmit { .. } | Output::Multicast { .. } | Output::JoinNative(_) | Output::LeaveNative(_) => false,
        Output::TunnelUp { .. }
        | Output::Cookies { .. }
        | Output::TunnelDown { .. }
        | Output::Attach { .. }
        | Output::Detach { .. } => true,
    }
}

fn table_cookies(cookies: server::Cookies) -> Cookies {
    let server::Cookies { local, local_previous, remote } = cookies;
    Cookies { local, previous: Some(local_previous), remote }
}
