//! A link with hosts and routers: real packets, a clock that the test turns, losses out of one seed.

use crate::model::Model;
use crate::random::Random;
use castgate_endpoint::membership::Filter;
use castgate_endpoint::membership::host::{self, Host};
use castgate_endpoint::membership::querier::{self, Output, Querier};
use castgate_wire::membership::{Family, Message, Record, RecordType, emit, parse};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub trait Millis {
    fn millis(self) -> Duration;
}

impl Millis for u64 {
    fn millis(self) -> Duration {
        Duration::from_millis(self)
    }
}

/// One nanosecond earlier.
pub trait JustBefore {
    fn just_before(self) -> Self;
}

impl JustBefore for Duration {
    fn just_before(self) -> Self {
        self.checked_sub(Duration::from_nanos(1)).expect("a time after zero")
    }
}

impl JustBefore for Instant {
    fn just_before(self) -> Self {
        self.checked_sub(Duration::from_nanos(1)).expect("not the first of all times")
    }
}

pub fn group(family: Family) -> IpAddr {
    numbered_group(family, 1)
}

pub fn numbered_group(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([232, 1, 1, number]),
        Family::V6 => IpAddr::from([0xff3e, 0, 0, 0, 0, 0, 0, u16::from(number)]),
    }
}

pub fn source(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([192, 0, 2, number]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)]),
    }
}

/// An address on the link; the lower the number, the lower the address.
pub fn neighbour(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 0, 0, number]),
        Family::V6 => IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, u16::from(number)]),
    }
}

pub fn report(kind: RecordType, group: IpAddr, sources: Vec<IpAddr>) -> Message {
    Message::Report(vec![Record { kind, group, sources }])
}

/// A router and what its driver was told.
pub struct Routed {
    pub querier: Querier,
    pub address: IpAddr,
    pub is_alive: bool,
    pub filters: BTreeMap<IpAddr, Filter>,
    pub elections: Vec<(u64, IpAddr)>,
    /// When it asked, in milliseconds, and whether for a group.
    pub asked: Vec<(u64, bool)>,
}

pub struct Lan {
    pub family: Family,
    pub start: Instant,
    pub now: Instant,
    pub random: Random,
    pub loss_permille: u64,
    pub hosts: Vec<Host>,
    pub routers: Vec<Routed>,
    pub model: Model<usize>,
    /// Since when each host has wanted a source of a group without a break.
    wanted_since: BTreeMap<(usize, IpAddr, IpAddr), Instant>,
    under_way: BTreeMap<(Instant, u64), (IpAddr, Vec<u8>)>,
    carried: u64,
    /// Whether nobody may go without what he wants, as on a link that loses nothing.
    pub is_watched: bool,
}

const DELAY: Duration = Duration::from_millis(2);
const GROUPS: u8 = 2;
const SOURCES: u8 = 4;

impl Lan {
    pub fn new(family: Family, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            family,
            start: now,
            now,
            random: Random(seed),
            loss_permille: 0,
            hosts: Vec::new(),
            routers: Vec::new(),
            model: Model::new(),
            wanted_since: BTreeMap::new(),
            under_way: BTreeMap::new(),
            carried: 0,
            is_watched: false,
        }
    }

    pub fn millis(&self) -> u64 {
        u64::try_from((self.now - self.start).as_millis()).unwrap()
    }

    pub fn add_router(&mut self, config: querier::Config, address: u8) -> usize {
        let address = neighbour(self.family, address);
        let querier = Querier::new(config, address, self.now);
        self.routers.push(Routed {
            querier,
            address,
            is_alive: true,
            filters: BTreeMap::new(),
            elections: Vec::new(),
            asked: Vec::new(),
        });
        self.gather();
        self.routers.len() - 1
    }

    pub fn add_host(&mut self, config: host::Config) -> usize {
        let host = Host::new(config, self.family, self.random.key());
        self.hosts.push(host);
        self.hosts.len() - 1
    }

    pub fn set(&mut self, host: usize, group: IpAddr, filter: &Filter) {
        self.hosts[host].set(self.now, group, filter.clone()).unwrap();
        self.model.set(host, group, filter);
        for number in 0..=SOURCES {
            let source = source(self.family, number + 1);
            if filter.admits(source) {
                self.wanted_since.entry((host, group, source)).or_insert(self.now);
            } else {
                self.wanted_since.remove(&(host, group, source));
            }
        }
        self.gather();
    }

    /// A filter of a few sources.
    pub fn draw_filter(&mut self) -> Filter {
        let bits = self.random.below(1 << SOURCES);
        let sources = (0..SOURCES).filter(|number| bits & (1 << number) != 0);
        let sources = sources.map(|number| source(self.family, number + 1));
        if self.random.below(2) == 0 { Filter::include(sources) } else { Filter::exclude(sources) }
    }

    pub fn draw_group(&mut self) -> IpAddr {
        let number = u8::try_from(self.random.below(u64::from(GROUPS))).unwrap();
        numbered_group(self.family, number + 1)
    }

    /// Everything that anybody has to say goes onto the link.
    fn gather(&mut self) {
        let mut said = Vec::new();
        for (number, host) in self.hosts.iter_mut().enumerate() {
            let address = neighbour(self.family, 100 + u8::try_from(number).unwrap());
            said.extend(std::iter::from_fn(|| host.poll_output()).map(|message| (address, message)));
        }
        let millis = self.millis();
        for router in self.routers.iter_mut().filter(|router| router.is_alive) {
            while let Some(output) = router.querier.poll_output() {
                match output {
                    Output::Query(query) => {
                        router.asked.push((millis, query.group.is_some()));
                        said.push((router.address, Message::Query(query)));
                    }
                    Output::Changed { group, filter: Some(filter) } => {
                        router.filters.insert(group, filter);
                    }
                    Output::Changed { group, filter: None } => {
                        assert!(router.filters.remove(&group).is_some(), "what ends was there");
                    }
                    Output::Elected { querier } => router.elections.push((millis, querier)),
                    Output::OtherVersion { .. } => {}
                }
            }
        }
        for (from, message) in said {
            for packet in emit(&message, from) {
                self.carried += 1;
                self.under_way.insert((self.now + DELAY, self.carried), (from, packet));
            }
        }
    }

    fn deliver(&mut self, from: IpAddr, packet: &[u8]) {
        let received = parse(packet).expect("we send what we can read");
        assert_eq!(received.source, from);
        let mut is_lost = || self.loss_permille > 0 && self.random.below(1000) < self.loss_permille;
        for (number, host) in self.hosts.iter_mut().enumerate() {
            let is_own = from == neighbour(self.family, 100 + u8::try_from(number).unwrap());
            if !is_own && !is_lost() {
                host.handle_message(self.now, from, &received.message);
            }
        }
        for router in &mut self.routers {
            if router.is_alive && router.address != from && !is_lost() {
                router.querier.handle_message(self.now, from, &received.message);
            }
        }
    }

    /// Lets so much time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let packet = self.under_way.keys().next().map(|(at, _)| *at);
            let hosts = self.hosts.iter().filter_map(Host::next_timeout);
            let alive = self.routers.iter().filter(|router| router.is_alive);
            let routers = alive.filter_map(|router| router.querier.next_timeout());
            let Some(next) = packet.into_iter().chain(hosts).chain(routers).min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (from, packet) = entry.remove();
                self.deliver(from, &packet);
            }
            for host in &mut self.hosts {
                host.handle_timeout(self.now);
            }
            for router in self.routers.iter_mut().filter(|router| router.is_alive) {
                router.querier.handle_timeout(self.now);
            }
            self.gather();
            self.watch();
        }
        self.now = end;
    }

    /// Nobody goes without what he has wanted for longer than his report needs to arrive.
    fn watch(&self) {
        if !self.is_watched {
            return;
        }
        for ((host, group, source), since) in &self.wanted_since {
            if *since + 2 * DELAY < self.now {
                for router in self.routers.iter().filter(|router| router.is_alive) {
                    let admits = router.filters.get(group).is_some_and(|filter| filter.admits(*source));
                    assert!(admits, "host {host} goes without {source} of {group} at {} ms", self.millis());
                }
            }
        }
    }

    /// What every router forwards is what the model says.
    #[track_caller]
    pub fn assert_equals_model(&self) {
        for router in self.routers.iter().filter(|router| router.is_alive) {
            for number in 0..GROUPS {
                let group = numbered_group(self.family, number + 1);
                self.model.assert_equals(group, router.filters.get(&group), &format!("router {}", router.address));
                assert_eq!(router.filters.get(&group), router.querier.router().filter(group).as_ref());
            }
        }
    }
}
