//! A QUERY told: tier by tier, what was considered and why. The tiers are those of [`matching`](super::matching), not a copy.

use std::time::Instant;

use castgate_wire::registry::{EntryType, Query};

use super::Database;
use super::index::host;
use super::matching::{Answer, Ask, Caller, Found, Slots, Tier};
use crate::hierarchy::clock::UnixMillis;

/// What a caller would get, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The tiers that were looked at, in order; the last one answers, if any does.
    pub considered: Vec<Considered>,
    /// The answer.
    pub answer: Answer,
}

/// What one tier had to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    /// Which one.
    pub tier: Tier,
    /// One sentence each, and how far it is indented.
    pub notes: Vec<(usize, String)>,
}

impl Database {
    /// Answers QUERY `TYPE=TS` as [`query`](Self::query) would, counts nothing, and says why.
    #[must_use]
    pub fn explain(&self, now: Instant, wall: UnixMillis, caller: Caller, query: &Query) -> Explanation {
        let query = Query { entry_type: EntryType::TunnelServer, ..query.clone() };
        let mut notes = Vec::new();
        let mut ask = self
            .ask(self.millis_at(now), wall, caller, &query, &mut |depth, note| notes.push((depth, note.to_string())));
        if notes.is_empty() {
            notes.push((0, "no policy".to_owned()));
        }
        let mut considered = vec![Considered { tier: Tier::Policy, notes }];
        if let Some(servers) = ask.decision.servers.take() {
            return Explanation { considered, answer: Answer { servers, tier: Some(Tier::Policy) } };
        }
        let found = self.lower_tiers(&ask, &mut considered);
        Explanation { considered, answer: self.answer(found) }
    }

    fn lower_tiers(&self, ask: &Ask<'_>, considered: &mut Vec<Considered>) -> Option<Found> {
        type Look = fn(&Database, &Ask<'_>) -> (Option<Slots>, String);
        let looks: [(Tier, Look); 4] = [
            (Tier::Network, Self::look_at_networks),
            (Tier::Country, Self::look_at_country),
            (Tier::Region, Self::look_at_region),
            (Tier::Public, |database, ask| noted(database.public(ask), "servers for everybody".to_owned())),
        ];
        looks.into_iter().find_map(|(tier, look)| {
            let (slots, note) = look(self, ask);
            considered.push(Considered { tier, notes: vec![(0, note)] });
            Some((tier, slots?, None))
        })
    }

    fn look_at_networks(&self, ask: &Ask<'_>) -> (Option<Slots>, String) {
        let address = ask.caller.address.to_canonical();
        if let Some((len, slots)) = self.by_network(ask) {
            return (Some(slots), format!("the longest network around {address} with servers for it has length {len}"));
        }
        match self.index.around(host(address)).count() {
            0 => (None, format!("no network is around {address}")),
            _ => noted(None, format!("networks around {address}")),
        }
    }

    fn look_at_country(&self, ask: &Ask<'_>) -> (Option<Slots>, String) {
        match ask.query.country {
            Some(country) => noted(self.by_country(ask), country.to_string()),
            None => (None, "the country is not known".to_owned()),
        }
    }

    fn look_at_region(&self, ask: &Ask<'_>) -> (Option<Slots>, String) {
        let Some(country) = ask.query.country else { return (None, "without a country there is no region".to_owned()) };
        match self.config.regions.of(country) {
            Some(region) => noted(self.by_region(ask), region.name().to_owned()),
            None => (None, format!("{country} is in no region")),
        }
    }
}

fn noted(slots: Option<Slots>, place: String) -> (Option<Slots>, String) {
    let note = if slots.is_some() { place } else { format!("{place}: no server for this client") };
    (slots, note)
}
