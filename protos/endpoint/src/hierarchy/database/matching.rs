//! Which entries a caller gets (draft-liefooghe-castgate-02 §4.1.2, §4.1.5 in the precise form of the castgate UMTP notes).
//!
//! ```text
//!   TYPE=TS   policy ─▶ longest network around the caller ─▶ its country ─▶ its region ─▶ public
//!   TYPE=TDS            longest network around the range  ─▶ its country
//! ```
//! The first tier that has an entry answers. Where it has both kinds, only its databases are named: who delegated a network
//! knows it best.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use castgate_wire::registry::{EntryType, ProtocolFilter, Query, Server};
use smallvec::{SmallVec, smallvec};

use super::Database;
use super::bag::{Kind, Member, Ticket};
use super::entry::{Held, Key};
use super::index::{Posting, host};
use super::slab::Slot;
use crate::hierarchy::clock::UnixMillis;
use crate::hierarchy::policy::{Client, Decision, Note, ServerPlace};

/// Servers in one answer: what a client can make use of, and far below the size it refuses to read.
pub const ANSWER_SERVERS_MAX: usize = 256;

/// By what the entries of an answer were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// A rule of a Tunnel Server Assignment Policy.
    Policy,
    /// The longest network around the caller.
    Network,
    /// The caller's country.
    Country,
    /// The neighbours of the caller's country.
    Region,
    /// For everybody.
    Public,
}

impl Tier {
    /// The word of `X-CastGate-Match`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Policy => "tsap",
            Self::Network => "network",
            Self::Country => "country",
            Self::Region => "region",
            Self::Public => "public",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Who asks, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Source address of the request.
    pub address: IpAddr,
    /// Our own address that it came to: an entry there is ourselves, and never part of an answer.
    pub asked_at: Option<SocketAddr>,
}

/// The list for a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Tunnel servers, or databases to ask, never both.
    pub servers: Vec<Server>,
    /// What found them; `None` for an empty list.
    pub tier: Option<Tier>,
}

/// A QUERY while it is answered.
pub(super) struct Ask<'a> {
    /// In milliseconds since the origin of the database: what should have gone by now is gone.
    now: u64,
    pub(super) caller: Caller,
    pub(super) query: &'a Query,
    /// What the policies say about the caller.
    pub(super) decision: Decision<'a>,
}

/// What a tier found.
pub(super) type Found = (Tier, Slots, Option<u8>);

/// Entries of an answer: most have a handful.
pub(super) type Slots = SmallVec<[Slot; 4]>;

impl Database {
    pub(super) fn find(&self, now: u64, wall: UnixMillis, caller: Caller, query: &Query) -> Answer {
        let mut ask = self.ask(now, wall, caller, query, &mut |_, _| {});
        ask.decision.count(caller.address);
        if let Some(servers) = ask.decision.servers.take() {
            return Answer { servers, tier: Some(Tier::Policy) };
        }
        let found = match query.entry_type {
            EntryType::TunnelServer => self.find_servers(&ask),
            EntryType::TunnelDatabase => self.find_databases(&ask),
        };
        self.answer(found)
    }

    /// Asks the policies, which say nothing about databases.
    pub(super) fn ask<'a>(
        &'a self,
        now: u64,
        wall: UnixMillis,
        caller: Caller,
        query: &'a Query,
        note: &mut Note<'_>,
    ) -> Ask<'a> {
        let client = Client { address: caller.address.to_canonical(), country: query.country, at: wall };
        let entry = |place: &ServerPlace, registers: bool| {
            let wanted = query.protocol.matches(Some(&place.protocol));
            if registers { self.registered(now, place).filter(|_| wanted) } else { wanted.then(|| place.to_server()) }
        };
        let decision = match query.entry_type {
            EntryType::TunnelServer => self.policies.decide(client, ANSWER_SERVERS_MAX, entry, note),
            EntryType::TunnelDatabase => Decision::default(),
        };
        Ask { now, caller, query, decision }
    }

    /// The server that is registered at a place.
    fn registered(&self, now: u64, place: &ServerPlace) -> Option<Server> {
        let (source, port) = (place.address.ip(), place.address.port());
        let key = Key { entry_type: EntryType::TunnelServer, source, port, protocol: place.protocol.clone() };
        let slot = self.keys.find(self.hash(source, port), |slot| self.held[slot].key == key)?;
        let held = &self.held[slot];
        (held.deadline > now).then(|| held.to_server(None))
    }

    pub(super) fn answer(&self, found: Option<Found>) -> Answer {
        match found {
            Some((tier, slots, prefix_len)) => {
                let servers = slots.into_iter().map(|slot| self.held[slot].to_server(prefix_len));
                Answer { servers: servers.collect(), tier: Some(tier) }
            }
            None => Answer { servers: Vec::new(), tier: None },
        }
    }

    /// TYPE=TS, where no policy decides: the other four tiers.
    pub(super) fn find_servers(&self, ask: &Ask<'_>) -> Option<Found> {
        self.by_network(ask)
            .map(|(_, slots)| (Tier::Network, slots))
            .or_else(|| self.by_country(ask).map(|slots| (Tier::Country, slots)))
            .or_else(|| self.by_region(ask).map(|slots| (Tier::Region, slots)))
            .or_else(|| self.public(ask).map(|slots| (Tier::Public, slots)))
            .map(|(tier, slots)| (tier, slots, None))
    }

    /// The entries of the longest network that has some, and its length.
    pub(super) fn by_network(&self, ask: &Ask<'_>) -> Option<(u8, Slots)> {
        let serves = |held: &Held| held.serves(ask.query.country);
        let mut around = self.index.around(host(ask.caller.address));
        around.find_map(|(len, posting)| Some((len, self.servers(ask, &[posting], serves)?)))
    }

    // A caller that does not know its country has no region either (castgate UMTP notes).
    pub(super) fn by_country(&self, ask: &Ask<'_>) -> Option<Slots> {
        self.servers(ask, &[Posting::Many(self.index.in_country(ask.query.country?)?)], |_| true)
    }

    pub(super) fn by_region(&self, ask: &Ask<'_>) -> Option<Slots> {
        let region = self.config.regions.of(ask.query.country?)?;
        let bags: Vec<Posting<'_>> = self.index.in_region(region).map(Posting::Many).collect();
        self.servers(ask, &bags, |_| true)
    }

    pub(super) fn public(&self, ask: &Ask<'_>) -> Option<Slots> {
        self.servers(ask, &[Posting::Many(self.index.public())], |_| true)
    }

    /// TYPE=TDS: who is responsible for a range. Public databases are never named, or everybody would register there.
    fn find_databases(&self, ask: &Ask<'_>) -> Option<Found> {
        let range = ask.query.network.unwrap_or_else(|| host(ask.caller.address));
        let by_network = self.index.around(range).find_map(|(len, posting)| {
            let serves = |held: &Held| held.serves(ask.query.country);
            self.pick(ask, &[posting], &[Kind::Database], serves).map(|slots| (Tier::Network, slots, Some(len)))
        });
        by_network.or_else(|| {
            let country = Posting::Many(self.index.in_country(ask.query.country?)?);
            self.pick(ask, &[country], &[Kind::Database], |_| true).map(|slots| (Tier::Country, slots, Some(0)))
        })
    }

    /// Where a tier has both kinds, only the databases count; `None` for a tier without entries.
    fn servers(&self, ask: &Ask<'_>, bags: &[Posting<'_>], accept: impl Fn(&Held) -> bool) -> Option<Slots> {
        self.pick(ask, bags, &[Kind::Database], &accept).or_else(|| {
            // PROTOCOL filters tunnel servers only: what a database below has, it says itself.
            let protocol = &ask.query.protocol;
            let kinds: &[Kind] = match protocol {
                ProtocolFilter::All => &[Kind::Udp, Kind::Tcp],
                ProtocolFilter::Only(protocol) => &[Kind::of_protocol(protocol)],
            };
            self.pick(ask, bags, kinds, |held| protocol.matches(Some(&held.key.protocol)) && accept(held))
        })
    }

    /// Entries of these kinds, without ourselves and without those whose time is up, in the order of their keys; no more than
    /// an answer may hold, those that follow the caller on the ring.
    fn pick(
        &self,
        ask: &Ask<'_>,
        bags: &[Posting<'_>],
        kinds: &[Kind],
        accept: impl Fn(&Held) -> bool,
    ) -> Option<Slots> {
        let wanted = |slot: Slot| {
            let held = &self.held[slot];
            let excluded = held.key.entry_type == EntryType::TunnelServer
                && ask.decision.excludes(SocketAddr::new(held.key.source, held.key.port));
            held.deadline > ask.now && !self.is_ourselves(&held.key, ask.caller) && !excluded && accept(held)
        };
        if let [Posting::One(slot)] = bags {
            // As most networks are: nothing to put in order.
            return (kinds.contains(&Kind::of(&self.held[*slot].key)) && wanted(*slot)).then(|| smallvec![*slot]);
        }
        // Where the caller stands on the ring of every bag.
        let start = Ticket::new(self.hash(ask.caller.address.to_canonical(), 0));
        let mut found: Vec<Member> = Vec::new();
        for bag in bags {
            match bag {
                Posting::One(slot) => {
                    let held = &self.held[*slot];
                    if kinds.contains(&Kind::of(&held.key)) && wanted(*slot) {
                        found.push(held.member(*slot));
                    }
                }
                Posting::Many(bag) => {
                    for kind in kinds {
                        let members = bag.of_kind(*kind, start).filter(|member| wanted(member.slot()));
                        found.extend(members.take(ANSWER_SERVERS_MAX));
                    }
                }
            }
        }
        // An entry may be for several countries of a region.
        found.sort_unstable_by_key(|member| (member.distance(start), *member));
        found.dedup();
        found.truncate(ANSWER_SERVERS_MAX);
        let mut slots: Slots = found.into_iter().map(Member::slot).collect();
        slots.sort_unstable_by(|one, other| self.held[*one].key.cmp(&self.held[*other].key));
        (!slots.is_empty()).then_some(slots)
    }

    fn is_ourselves(&self, key: &Key, caller: Caller) -> bool {
        let here = SocketAddr::new(key.source, key.port);
        key.entry_type == EntryType::TunnelDatabase
            && (caller.asked_at == Some(here) || self.config.own.contains(&here))
    }
}
