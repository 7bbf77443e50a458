//! The servers above a relay: what its clients want is asked for there, once however many want it.
//!
//! ```text
//!   AMT relay: filters ──┐                     ┌─ amt:  Access ─▶ gateways of the dataplane ═▶ clients
//!                        ├─▶ Demand: merged ──▶┤
//!   UMTP server: channels┤   one a group       └─ umtp: a client's tunnel on a thread of its own ═▶ dataplane ═▶ clients
//!   hosts of a delivery ─┘
//! ```
//! Owns what is wanted and by whom. How a server above is found and when it is left decide `castgate_endpoint::amt::access` and
//! `castgate_endpoint::umtp::client`.

mod amt;
mod demand;
mod hosts;
mod runtime;
mod settings;
mod umtp;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use castgate_control::{ChannelRule, UpstreamProtocol, UpstreamSnapshot};
use castgate_dataplane::{Dataplane, GatewayId, Waker};
use castgate_endpoint::membership::Filter;
use castgate_wire::umtp::Channel;

use self::amt::AmtAbove;
use self::demand::Demand;
pub(super) use self::hosts::Places;
use self::hosts::{Change, Hosts};
use self::umtp::UmtpAbove;
use super::amt::source_filter;
use crate::report::UpstreamReport;
use crate::roles::feeding::Feeding;

/// What a relay wants from above, and who brings it.
#[derive(Debug)]
pub(super) struct Above {
    demand: Demand,
    source: Source,
    /// Those that are delivered to natively.
    hosts: Option<Hosts>,
    /// What hosts asked for, permitted or not.
    asked: BTreeMap<(usize, IpAddr), Filter>,
    rules: Vec<ChannelRule>,
}

#[derive(Debug)]
enum Source {
    Amt(Box<AmtAbove>),
    Umtp(UmtpAbove),
}

impl Above {
    /// Begins to listen to what is wanted; asks nobody before something is.
    ///
    /// # Errors
    /// When a thread or random numbers are not to be had.
    pub(super) fn start(
        (snapshot, feeding): (&UpstreamSnapshot, &Feeding),
        rules: &[ChannelRule],
        places: Option<Places>,
        dataplane: &Arc<Dataplane>,
        waker: impl Fn() -> Waker,
        key: [u8; 16],
    ) -> io::Result<Self> {
        let hosts = places.map(|places| Hosts::start(places, waker())).transpose()?;
        let source = match snapshot.protocol {
            UpstreamProtocol::Amt => Source::Amt(Box::new(AmtAbove::start(snapshot, feeding, waker(), key)?)),
            UpstreamProtocol::Umtp => Source::Umtp(UmtpAbove::start(snapshot, feeding, rules.to_vec(), dataplane)?),
        };
        Ok(Self { demand: Demand::default(), source, hosts, asked: BTreeMap::new(), rules: rules.to_vec() })
    }

    /// Other rules. What tunnels may no longer have, whoever serves them takes back.
    pub(super) fn set_rules(&mut self, now: Instant, dataplane: &Dataplane, rules: &[ChannelRule]) {
        self.rules = rules.to_vec();
        for (place, group) in self.asked.keys().copied().collect::<Vec<_>>() {
            self.settle_hosts(now, dataplane, place, group);
        }
        if let Source::Umtp(above) = &mut self.source {
            above.set_rules(rules.to_vec(), &self.demand);
        }
    }

    /// What all AMT endpoints together want of a group.
    pub(super) fn want_filter(&mut self, now: Instant, group: IpAddr, filter: Option<Filter>) {
        if self.demand.set_filter(group, filter) {
            self.ask(now, group);
        }
    }

    /// Some UMTP client wants a channel.
    pub(super) fn want_channel(&mut self, now: Instant, channel: Channel) {
        if self.demand.add_channel(channel) {
            self.ask(now, channel.group.into());
        }
    }

    /// No UMTP client wants it any more.
    pub(super) fn leave_channel(&mut self, now: Instant, channel: Channel) {
        if self.demand.remove_channel(channel) {
            self.ask(now, channel.group.into());
        }
    }

    /// Hosts get what they asked for as far as the rules permit it.
    fn settle_hosts(&mut self, now: Instant, dataplane: &Dataplane, place: usize, group: IpAddr) {
        let asked = self.asked.get(&(place, group));
        let filter = asked.and_then(|filter| permitted(&self.rules, group, filter));
        dataplane.delivery_filter(place, group, filter.as_ref().map(source_filter).as_ref());
        if self.demand.set_hosts(place, group, filter) {
            self.ask(now, group);
        }
    }

    fn ask(&mut self, now: Instant, group: IpAddr) {
        match &mut self.source {
            Source::Amt(above) => above.want(now, group, self.demand.filter(group)),
            Source::Umtp(above) => above.want(&self.demand),
        }
    }

    /// A datagram came to a gateway.
    pub(super) fn handle_datagram(&mut self, now: Instant, gateway: GatewayId, from: SocketAddr, datagram: &[u8]) {
        if let Source::Amt(above) = &mut self.source {
            above.handle_datagram(now, gateway, from, datagram);
        }
    }

    /// Data of a channel came to a gateway and was forwarded.
    pub(super) fn handle_data(&mut self, now: Instant, gateway: GatewayId, source: IpAddr, group: IpAddr) {
        if let Source::Amt(above) = &mut self.source {
            above.handle_data(now, gateway, source, group);
        }
    }

    /// Takes what hosts have said and the answers that have come, and does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant, dataplane: &Dataplane) {
        while let Some(Ok(Change { place, group, filter })) = self.hosts.as_ref().map(|hosts| hosts.changes.try_recv())
        {
            match filter {
                Some(filter) => drop(self.asked.insert((place, group), filter)),
                None => drop(self.asked.remove(&(place, group))),
            }
            self.settle_hosts(now, dataplane, place, group);
        }
        if let Source::Amt(above) = &mut self.source {
            above.handle_timeout(now);
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match &self.source {
            Source::Amt(above) => above.next_timeout(),
            Source::Umtp(_) => None,
        }
    }

    /// Has the dataplane do what was decided.
    pub(super) fn carry_out(&mut self, now: Instant, dataplane: &Dataplane) {
        if let Source::Amt(above) = &mut self.source {
            above.carry_out(now, dataplane);
        }
    }

    /// The servers above as they are now; while one is wanted and there is none, one row that says why.
    pub(super) fn look(&self) -> Vec<UpstreamReport> {
        if self.demand.is_empty() {
            return Vec::new();
        }
        match &self.source {
            Source::Amt(above) => above.look(),
            Source::Umtp(above) => vec![above.look()],
        }
    }

    /// Says goodbye above.
    pub(super) fn end(self, now: Instant, dataplane: &Dataplane) {
        match self.source {
            Source::Amt(above) => above.end(now, dataplane),
            Source::Umtp(above) => above.end(),
        }
    }
}

/// What of a filter the rules permit; nothing where no rule names the group.
fn permitted(rules: &[ChannelRule], group: IpAddr, filter: &Filter) -> Option<Filter> {
    let sources: Option<Vec<IpAddr>> =
        rules.iter().filter(|rule| rule.group == group).map(|rule| rule.source).collect();
    match sources {
        // A rule without a source permits all.
        None => Some(filter.clone()),
        Some(sources) => Filter::include(sources.into_iter().filter(|source| filter.admits(*source))).into_option(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(group: &str, source: Option<&str>) -> ChannelRule {
        ChannelRule {
            name: "news".to_owned(),
            group: group.parse().unwrap(),
            source: source.map(|source| source.parse().unwrap()),
            ports: "5004".parse().unwrap(),
            send: false,
            ttl: 63.try_into().unwrap(),
        }
    }

    #[test]
    fn hosts_get_of_what_they_ask_for_what_a_rule_permits() {
        let rules =
            [rule("232.1.2.3", Some("192.0.2.1")), rule("232.1.2.3", Some("192.0.2.2")), rule("239.1.2.3", None)];
        let [ssm, asm, other] = ["232.1.2.3", "239.1.2.3", "239.9.9.9"].map(|group| group.parse().unwrap());
        let [one, two, three] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|source| source.parse().unwrap());
        let of = |group, filter| permitted(&rules, group, &filter);
        assert_eq!(of(ssm, Filter::everything()), Some(Filter::include([one, two])));
        assert_eq!(of(ssm, Filter::include([two, three])), Some(Filter::include([two])));
        assert_eq!(of(ssm, Filter::include([three])), None);
        assert_eq!(of(asm, Filter::include([three])), Some(Filter::include([three])));
        assert_eq!(of(asm, Filter::everything()), Some(Filter::everything()));
        assert_eq!(of(other, Filter::everything()), None);
    }
}
