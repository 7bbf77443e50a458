//! A server above by UMTP: one tunnel for all channels, on a thread of its own; what comes is a whole packet to the dataplane.
//!
//! A membership of AMT names no port and a UMTP channel does: an AMT endpoint's groups are joined at the ports that the rules
//! name. UMTP tells the source of source-specific channels only: packets of the others are the server's.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use castgate_client::{Dns, Event, Locator, Received, Servers, Tunnel, TunnelSettings};
use castgate_control::{ChannelRule, Discovery, Place, StaticDiscovery, UpstreamSnapshot};
use castgate_dataplane::Dataplane;
use castgate_endpoint::hierarchy::feed;
use castgate_endpoint::membership::Filter;
use castgate_wire::umtp::Channel;
use castgate_wire::{ipv4, udp};
use tokio::sync::watch;

use super::demand::Demand;
use super::{runtime, settings};
use crate::news::tell;
use crate::report::UpstreamReport;
use crate::roles::feeding::Feeding;

/// Where a tunnel server is when nobody says which port.
const PORT: u16 = 10100;
/// Between two searches for a server that all ended without one.
const RETRY: Duration = Duration::from_secs(5);
/// A tunnel that has no server for so long is given up: names and databases are asked again, which may know others by now.
const PATIENCE: Duration = Duration::from_secs(15);
/// Ports of one rule that are joined for an AMT endpoint, which names none.
const PORTS_MAX: usize = 64;
/// Sources that are asked for one by one.
const CHANNELS_MAX: usize = 1024;

/// The tunnel, as the control thread sees it.
#[derive(Debug)]
pub(super) struct UmtpAbove {
    rules: Vec<ChannelRule>,
    wanted: Option<watch::Sender<BTreeSet<Channel>>>,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    server: Option<SocketAddr>,
    is_up: bool,
    channels: usize,
    last_failure: Option<String>,
}

/// What the thread works with.
struct Worker {
    search: Search,
    avoid: Vec<SocketAddr>,
    feeding: Feeding,
    wanted: watch::Receiver<BTreeSet<Channel>>,
    state: Arc<Mutex<State>>,
    dataplane: Arc<Dataplane>,
}

enum Search {
    Hierarchy(Box<Locator>),
    Named(Vec<Place>, Dns),
}

impl UmtpAbove {
    pub(super) fn start(
        snapshot: &UpstreamSnapshot,
        feeding: &Feeding,
        rules: Vec<ChannelRule>,
        dataplane: &Arc<Dataplane>,
    ) -> io::Result<Self> {
        let search = match (settings::locator(snapshot), &snapshot.discovery) {
            (Some(locator), _) => Search::Hierarchy(Box::new(locator)),
            (None, Discovery::Static(StaticDiscovery { servers })) => {
                Search::Named(servers.clone(), settings::dns(snapshot))
            }
            // The snapshot's own check has refused it.
            (None, other) => {
                return Err(io::Error::other(format!("discovery.{} finds no tunnel server", other.word())));
            }
        };
        let (wanted, receiver) = watch::channel(BTreeSet::new());
        let state = Arc::new(Mutex::new(State::default()));
        let worker = Worker {
            search,
            avoid: snapshot.avoid.clone(),
            feeding: feeding.clone(),
            wanted: receiver,
            state: Arc::clone(&state),
            dataplane: Arc::clone(dataplane),
        };
        let thread = runtime::spawn("umtp-above", move || worker.run())?;
        Ok(Self { rules, wanted: Some(wanted), state, thread: Some(thread) })
    }

    pub(super) fn set_rules(&mut self, rules: Vec<ChannelRule>, demand: &Demand) {
        self.rules = rules;
        self.want(demand);
    }

    pub(super) fn want(&self, demand: &Demand) {
        let channels = channels(demand, &self.rules);
        if let Some(wanted) = &self.wanted {
            tell(wanted, channels);
        }
    }

    pub(super) fn look(&self) -> UpstreamReport {
        let State { server, is_up, channels, last_failure } = &*lock(&self.state);
        let state = match (server, is_up) {
            (Some(_), true) => "connected",
            (Some(_), false) => "connecting",
            (None, _) => "searching",
        };
        UpstreamReport {
            server: *server,
            protocol: "UMTP".to_owned(),
            state: state.to_owned(),
            channels: *channels as u64,
            last_failure: last_failure.clone(),
        }
    }

    /// Leaves every channel and waits until that is said.
    pub(super) fn end(self) {
        drop(self);
    }
}

impl Drop for UmtpAbove {
    fn drop(&mut self) {
        self.wanted = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Worker {
    /// Has a tunnel as long as something is wanted.
    async fn run(mut self) {
        while self.wanted.wait_for(|wanted| !wanted.is_empty()).await.is_ok() {
            let Err(trouble) = self.carry().await else { continue };
            tracing::warn!(%trouble, "no tunnel to a server above");
            self.feeding.set(Vec::new());
            *lock(&self.state) = State { last_failure: Some(trouble), ..State::default() };
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                closed = closed(&mut self.wanted) => closed,
            }
        }
    }

    /// One tunnel, until nothing is wanted any more.
    async fn carry(&mut self) -> Result<(), String> {
        let servers = self.servers().await?;
        let tunnel = TunnelSettings { servers, local: None, silence: Some(Duration::from_secs(2)) };
        let mut tunnel = Tunnel::open(tunnel).map_err(|error| error.to_string())?;
        let mut alone_since = Some(Instant::now());
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            if wanted.is_empty() || self.wanted.has_changed().is_err() {
                tunnel.shut_down().await;
                self.feeding.set(Vec::new());
                *lock(&self.state) = State::default();
                return Ok(());
            }
            let before: BTreeSet<Channel> = tunnel.channels().collect();
            before.difference(&wanted).for_each(|left| tunnel.leave(*left));
            wanted.difference(&before).for_each(|joined| tunnel.join(*joined));
            lock(&self.state).channels = wanted.len();
            self.receive(&mut tunnel, &mut alone_since).await?;
        }
    }

    /// Takes what comes until something else is wanted.
    async fn receive(&mut self, tunnel: &mut Tunnel, alone_since: &mut Option<Instant>) -> Result<(), String> {
        let mut room = Room::default();
        loop {
            let server = tunnel.server().map(|server| *server.ip());
            let dataplane = &self.dataplane;
            let sink = |received: Received<'_>| {
                if let Some(packet) = room.rebuild(server, &received) {
                    dataplane.inject(packet);
                }
            };
            let patience = alone_since.map_or(Duration::MAX, |since| PATIENCE.saturating_sub(since.elapsed()));
            tokio::select! {
                () = tokio::time::sleep(patience) => {
                    return Err(format!("no server above answers: {}", tunnel.silence_reason()));
                }
                changed = self.wanted.changed() => {
                    // Gone: the next look at what is wanted ends it.
                    let _ = changed;
                    return Ok(());
                }
                event = tunnel.receive(sink) => {
                    if let Some(event) = event.map_err(|error| error.to_string())? {
                        self.tell(&event);
                        let is_alone = tunnel.server().is_none();
                        *alone_since = is_alone.then(|| alone_since.unwrap_or_else(Instant::now));
                    }
                }
            }
        }
    }

    async fn servers(&self) -> Result<Servers, String> {
        let (places, dns) = match &self.search {
            // It passes over what is to be avoided by itself.
            Search::Hierarchy(locator) => return Ok(Servers::Located((**locator).clone())),
            Search::Named(places, dns) => (places, dns),
        };
        let mut found = Vec::new();
        for place in places {
            let port = place.port().map_or(PORT, std::num::NonZeroU16::get);
            match place.address() {
                Some(IpAddr::V4(address)) => found.push(SocketAddrV4::new(address, port)),
                Some(IpAddr::V6(_)) => {}
                None => match dns.servers(&format!("{}:{port}", place.host())).await {
                    Ok(servers) => found.extend(servers),
                    Err(error) => tracing::warn!(%error, "a server above is passed over"),
                },
            }
        }
        self.fit(found)
    }

    fn fit(&self, mut servers: Vec<SocketAddrV4>) -> Result<Servers, String> {
        servers.retain(|server| !settings::is_avoided(&self.avoid, SocketAddr::V4(*server)));
        if servers.is_empty() {
            return Err("no tunnel server is known that this relay may use".to_owned());
        }
        Ok(Servers::Fixed(servers))
    }

    fn tell(&self, event: &Event) {
        tracing::info!("{event}");
        let mut state = lock(&self.state);
        match event {
            Event::TunnelUp { server } | Event::HandOver { to: server, .. } => {
                let above = match &self.search {
                    Search::Hierarchy(locator) => locator.fed_by(*server),
                    Search::Named(..) => Vec::new(),
                };
                self.feeding.set(feed::chain(server.ip(), &above));
                *state = State { server: Some(*server), is_up: true, last_failure: None, ..*state };
            }
            Event::ServerLost { .. } => {
                self.feeding.set(Vec::new());
                *state = State { server: None, is_up: false, last_failure: Some(event.to_string()), ..*state };
            }
            Event::Refused { .. } | Event::LocateFailed(_) => state.last_failure = Some(event.to_string()),
            _ => {}
        }
    }
}

/// Ends when nobody can want anything any more.
async fn closed(wanted: &mut watch::Receiver<BTreeSet<Channel>>) {
    while wanted.changed().await.is_ok() {}
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is joined above: what UMTP clients have joined, and for AMT endpoints the ports that the rules name.
fn channels(demand: &Demand, rules: &[ChannelRule]) -> BTreeSet<Channel> {
    let mut channels: BTreeSet<Channel> = demand.channels().collect();
    for (group, filter) in demand.without_ports() {
        let IpAddr::V4(group) = group else { continue };
        for rule in rules.iter().filter(|rule| rule.group == group) {
            let ports = (rule.ports.first()..=rule.ports.last()).take(PORTS_MAX);
            for port in ports {
                channels.extend(of_port(group, port, filter, rule));
            }
        }
    }
    channels.into_iter().take(CHANNELS_MAX).collect()
}

fn of_port(group: Ipv4Addr, port: u16, filter: &Filter, rule: &ChannelRule) -> Vec<Channel> {
    match filter {
        Filter::Exclude(_) => vec![Channel::any_source(group, port)],
        Filter::Include(sources) => {
            let permitted = |source: &&IpAddr| rule.source.is_none_or(|only| only == **source);
            let channel = |source: &IpAddr| match source {
                IpAddr::V4(source) => Some(Channel::source_specific(*source, group, port)),
                IpAddr::V6(_) => None,
            };
            sources.iter().filter(permitted).filter_map(channel).collect()
        }
    }
}

/// Room for one packet.
#[derive(Debug, Default)]
struct Room {
    datagram: Vec<u8>,
    packet: Vec<u8>,
}

impl Room {
    /// The packet as its source sent it, as far as the tunnel tells; none where nobody can be its source.
    fn rebuild(&mut self, server: Option<Ipv4Addr>, received: &Received<'_>) -> Option<&[u8]> {
        let Received { channel, ttl, payload } = *received;
        let source = channel.source.or(server)?;
        let datagram = udp::Repr { source_port: channel.port, destination_port: channel.port, payload };
        self.datagram.resize(datagram.buffer_len(), 0);
        datagram.emit(&mut self.datagram, source, channel.group);
        let packet = ipv4::Repr {
            tos: 0,
            identification: 0,
            fragment: ipv4::Fragment::default(),
            ttl,
            protocol: ipv4::protocol::UDP,
            source,
            destination: channel.group,
            options: &[],
            payload: &self.datagram,
        };
        self.packet.resize(packet.buffer_len(), 0);
        packet.emit(&mut self.packet);
        Some(&self.packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(group: &str, source: Option<&str>, ports: &str) -> ChannelRule {
        ChannelRule {
            name: "news".to_owned(),
            group: group.parse::<IpAddr>().unwrap(),
            source: source.map(|source| source.parse().unwrap()),
            ports: ports.parse().unwrap(),
            send: false,
            ttl: 63.try_into().unwrap(),
        }
    }

    fn texts(demand: &Demand, rules: &[ChannelRule]) -> Vec<String> {
        channels(demand, rules).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_membership_without_ports_is_joined_at_those_of_the_rules() {
        let rules = [rule("232.1.2.3", Some("192.0.2.1"), "5004-5005"), rule("239.1.2.3", None, "9")];
        let mut demand = Demand::default();
        let sources = ["192.0.2.1", "192.0.2.2"].map(|source| source.parse::<IpAddr>().unwrap());
        demand.set_filter("232.1.2.3".parse().unwrap(), Some(Filter::include(sources)));
        assert_eq!(texts(&demand, &rules), ["232.1.2.3@192.0.2.1:5004", "232.1.2.3@192.0.2.1:5005"]);
        demand.set_filter("239.1.2.3".parse().unwrap(), Some(Filter::everything()));
        demand.add_channel("239.1.2.3:9".parse().unwrap());
        assert_eq!(texts(&demand, &rules[1..]), ["239.1.2.3:9"], "asked for twice, joined once");
        demand.set_filter("239.9.9.9".parse().unwrap(), Some(Filter::everything()));
        assert_eq!(texts(&demand, &rules[1..]), ["239.1.2.3:9"], "no rule names it");
    }

    #[test]
    fn what_came_through_the_tunnel_is_a_whole_packet_of_its_source() {
        let mut room = Room::default();
        let received = Received { channel: "232.1.2.3@192.0.2.1:5004".parse().unwrap(), ttl: 9, payload: b"picture" };
        let packet = room.rebuild(None, &received).unwrap();
        let header = ipv4::Repr::parse(packet).unwrap();
        assert_eq!((header.source, header.ttl), ("192.0.2.1".parse().unwrap(), 9));
        let datagram = udp::Repr::parse(header.payload, header.source, header.destination).unwrap();
        assert_eq!((datagram.destination_port, datagram.payload), (5004, &b"picture"[..]));
        let received = Received { channel: "239.1.2.3:5004".parse().unwrap(), ..received };
        assert!(room.rebuild(None, &received).is_none());
        let server = "192.0.2.9".parse().unwrap();
        assert_eq!(ipv4::Repr::parse(room.rebuild(Some(server), &received).unwrap()).unwrap().source, server);
    }
}
