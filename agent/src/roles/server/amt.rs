//! The AMT relay on the control thread: moves values between `castgate_endpoint::amt::relay`, which decides, and the dataplane,
//! which carries, and announces the relay's anycast addresses while it takes gateways.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use castgate_control::{AmtSnapshot, ChannelRule};
use castgate_dataplane::{Dataplane, SourceFilter, TableBuilder};
use castgate_endpoint::amt::relay::{Config, Counters, Output, Permissions, Relay};
use castgate_endpoint::membership::Filter;

use super::anycast::{Anycast, AnycastError};
use super::settings;

/// What the relay of a snapshot is given.
#[derive(Debug)]
pub(super) struct AmtConfig {
    config: Config,
    permissions: Permissions,
}

/// The relay with what it needs of the kernel.
#[derive(Debug)]
pub(super) struct AmtRelay {
    relay: Relay,
    anycast: Option<Anycast>,
    /// Datagrams that wait for the table: from us, to whom, and their octets.
    sendings: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// What all endpoints together want otherwise than before: from the network, or from a server above.
    wants: Vec<(IpAddr, Option<Filter>)>,
    up_since: HashMap<SocketAddr, Instant>,
    refusals: NativeRefusals,
}

/// Group and interface, with what the kernel said when it refused.
pub(super) type NativeRefusals = BTreeMap<(IpAddr, String), String>;

/// What the relay sees at one moment.
#[derive(Debug)]
pub(super) struct AmtLook {
    pub(super) listen: Vec<SocketAddr>,
    pub(super) endpoints: usize,
    pub(super) groups: usize,
    pub(super) anycast: Vec<IpAddr>,
    pub(super) counters: Counters,
    pub(super) refusals: NativeRefusals,
}

impl AmtConfig {
    /// The words of the endpoint for a part of the snapshot.
    pub(super) fn new(snapshot: &AmtSnapshot, rules: &[ChannelRule]) -> Self {
        Self { config: settings::amt_config(snapshot), permissions: settings::amt_permissions(rules) }
    }
}

impl AmtRelay {
    /// A relay that serves nobody yet.
    ///
    /// # Errors
    /// [`AnycastError`] when its anycast addresses are not given to it.
    pub(super) fn new(snapshot: &AmtSnapshot, given: AmtConfig, key: [u8; 16]) -> Result<Self, AnycastError> {
        let AmtConfig { config, permissions } = given;
        let now = Instant::now();
        let mut relay = Relay::new(config, key, now);
        relay.set_permissions(permissions, now);
        let anycast = snapshot.anycast.as_ref().map(Anycast::open).transpose()?;
        Ok(Self {
            relay,
            anycast,
            sendings: Vec::new(),
            wants: Vec::new(),
            up_since: HashMap::new(),
            refusals: NativeRefusals::new(),
        })
    }

    /// Other times, limits and rules; what is no longer permitted is withdrawn.
    pub(super) fn set(&mut self, given: AmtConfig, now: Instant) {
        let AmtConfig { config, permissions } = given;
        self.relay.set_config(config);
        self.relay.set_permissions(permissions, now);
    }

    /// A control datagram came from `from` to our address `local`.
    pub(super) fn handle_datagram(&mut self, now: Instant, local: SocketAddr, from: SocketAddr, datagram: &[u8]) {
        tracing::trace!(%from, octets = datagram.len(), "AMT control datagram");
        self.relay.handle_datagram(now, local, from, datagram);
    }

    /// The kernel does not take a group in on an interface; whoever tried has warned, and goes on trying.
    pub(super) fn handle_refusal(&mut self, group: IpAddr, interface: String, reason: String) {
        self.refusals.insert((group, interface), reason);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.relay.handle_timeout(now);
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.relay.next_timeout()
    }

    /// No new gateways from now on, and anycast leads elsewhere.
    pub(super) fn end(&mut self) {
        self.relay.drain();
        self.announce();
    }

    /// Edits the table; says whether there was something to edit. What is to be sent waits for [`send`](Self::send).
    pub(super) fn edit(&mut self, now: Instant, table: &mut TableBuilder) -> bool {
        let mut is_edited = false;
        while let Some(output) = self.relay.poll_output() {
            is_edited |= self.edit_one(now, output, table);
        }
        self.announce();
        is_edited
    }

    fn edit_one(&mut self, now: Instant, output: Output, table: &mut TableBuilder) -> bool {
        match output {
            Output::Transmit { local, to, datagram } => {
                self.sendings.push((local, to, datagram));
                return false;
            }
            Output::EndpointUp { endpoint } => {
                tracing::info!(endpoint = %endpoint.remote, "AMT endpoint up");
                self.up_since.entry(endpoint.remote).or_insert(now);
                table.endpoint_up(endpoint.remote, endpoint.local, endpoint.ecn);
            }
            Output::EndpointDown { remote, reason } => {
                tracing::info!(endpoint = %remote, reason = reason.label(), "AMT endpoint down");
                self.up_since.remove(&remote);
                table.endpoint_down(remote);
            }
            Output::Filter { remote, group, filter } => {
                tracing::debug!(endpoint = %remote, %group, ?filter, "filter");
                table.filter(remote, group, filter.as_ref().map(source_filter));
            }
            Output::Upstream { group, filter } => {
                tracing::info!(%group, ?filter, "wanted by endpoints");
                if filter.is_none() {
                    self.refusals.retain(|(refused, _), _| *refused != group);
                }
                self.wants.push((group, filter));
                return false;
            }
        }
        true
    }

    /// What is wanted otherwise than when it was last asked.
    pub(super) fn wants(&mut self) -> Vec<(IpAddr, Option<Filter>)> {
        std::mem::take(&mut self.wants)
    }

    /// Sends what waited for the table: who is answered is in the table already.
    pub(super) fn send(&mut self, dataplane: &Dataplane) {
        for (local, to, datagram) in self.sendings.drain(..) {
            dataplane.transmit_amt(local, to, &datagram);
        }
    }

    /// What is there now. A refusal is over when the kernel took the group after all.
    pub(super) fn look(&mut self, dataplane: &Dataplane) -> AmtLook {
        for membership in dataplane.native_memberships() {
            self.refusals.remove(&(membership.group, membership.interface));
        }
        AmtLook {
            listen: dataplane.amt_listen().to_vec(),
            endpoints: self.relay.endpoints().len(),
            groups: self.relay.upstream().count(),
            anycast: self.anycast.iter().flat_map(Anycast::announced).collect(),
            counters: *self.relay.counters(),
            refusals: self.refusals.clone(),
        }
    }

    /// RFC 7450 §5.3.3.8: a relay that takes nobody is no destination of anycast.
    fn announce(&mut self) {
        if let Some(anycast) = &mut self.anycast
            && let Err(error) = anycast.announce(!self.relay.is_limited())
        {
            tracing::error!(%error, "anycast is not as it should be; it is tried again");
        }
    }
}

/// A filter as the dataplane compares it.
pub(super) fn source_filter(filter: &Filter) -> SourceFilter {
    let sources = filter.sources().iter().copied();
    if filter.is_exclude() { SourceFilter::exclude(sources) } else { SourceFilter::include(sources) }
}
