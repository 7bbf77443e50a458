//! Region Transfer: what a peer gets of us, and what we take over from a peer (draft-liefooghe-castgate-02 §4.1.2, §6.4).
//!
//! ```text
//!   theirs ─▶ account known, claim allowed? ─▶ said BYE? ─▶ ours newer? ─▶ held, as hearsay
//!                refused                         gone         known         taken
//! ```
//! Owns the merge. An entry that a peer tells us about is hearsay until its owner registers here. It lives as long as the peer said,
//! which is what we tell further. So an entry that nobody refreshes goes everywhere, however often databases tell each other about it.

use std::time::{Duration, Instant};

use castgate_wire::registry::{Prefix, Server, Transfer, TransferEntry};

use super::entry::{Entry, Held, Key};
use super::slab::Slot;
use super::{Change, Database, Doubt, UnixMillis, Until, millis};

/// Places of the table that one part of a transfer looks at: while it does, nothing is registered.
const PLACES_PER_PART: Slot = 2_048;

/// A part of the answer to a TRANSFER.
#[derive(Debug)]
pub struct TransferPart {
    /// Entries, in no order.
    pub entries: Vec<TransferEntry>,
    /// Where the next part begins; `None` after the last.
    pub next: Option<u32>,
}

/// What became of the entries of a peer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Adoption {
    /// Taken over, or held for longer because the peer knows of a refresh that we missed.
    pub taken: usize,
    /// As new or newer with us.
    pub known: usize,
    /// Not taken: they said BYE here.
    pub gone: usize,
    /// Not taken: no such account here, a claim beyond it, another account's entry, or no room.
    pub refused: usize,
}

impl std::ops::AddAssign for Adoption {
    fn add_assign(&mut self, Self { taken, known, gone, refused }: Self) {
        self.taken += taken;
        self.known += known;
        self.gone += gone;
        self.refused += refused;
    }
}

impl Database {
    /// A part of what a peer gets; `from` is 0 or the `next` of the part before. Entries that come or go between two parts may be
    /// in it or not: the peer hears of them from their owners.
    ///
    /// Whoever calls it has made sure that the caller is a peer: passwords are in it, as hashes.
    #[must_use]
    pub fn transfer_part(&self, now: Instant, request: &Transfer, from: u32) -> TransferPart {
        let now = self.millis_at(now);
        let end = from.saturating_add(PLACES_PER_PART).min(self.held.end());
        let held = (from..end).filter_map(|slot| self.held.get(slot));
        // What nobody vouches for any more is here for its owner to come back, not to be spread.
        let wanted = held.filter(|held| held.vouched > now && held.deadline > now && is_wanted(held, request));
        let entries = wanted.filter_map(|held| self.to_transfer(now, held)).collect();
        TransferPart { entries, next: (end < self.held.end()).then_some(end) }
    }

    /// All that a peer gets, at once.
    #[must_use]
    pub fn transfer(&self, now: Instant, request: &Transfer) -> Vec<TransferEntry> {
        let mut all = Vec::new();
        let mut from = Some(0);
        while let Some(at) = from {
            let part = self.transfer_part(now, request, at);
            all.extend(part.entries);
            from = part.next;
        }
        all
    }

    /// Takes over what a peer holds. Never touches what is newer with us, and never brings back what said BYE here.
    pub fn adopt(
        &mut self,
        now: Instant,
        wall: UnixMillis,
        entries: impl IntoIterator<Item = TransferEntry>,
    ) -> Adoption {
        self.handle_timeout(now);
        let now = self.clock(now);
        let mut adoption = Adoption::default();
        for entry in entries {
            let counter = match self.adopt_one(now, wall, entry) {
                Fate::Taken => &mut adoption.taken,
                Fate::Known => &mut adoption.known,
                Fate::Gone => &mut adoption.gone,
                Fate::Refused => &mut adoption.refused,
            };
            *counter += 1;
        }
        adoption
    }

    /// How many entries we know from peers only. While there are any, their owners cannot reach us.
    #[must_use]
    pub fn hearsay(&self) -> usize {
        self.hearsay
    }

    fn to_transfer(&self, now: u64, held: &Held) -> Option<TransferEntry> {
        let login = self.logins.name(held.login);
        let left = held.vouched.saturating_sub(now) / 1_000;
        Some(TransferEntry {
            server: held.to_server(None),
            login: login.to_string(),
            password: self.accounts.account(login)?.password_hash().to_owned(),
            countries: held.countries().to_vec(),
            networks: held.networks.to_vec(),
            expires_in_seconds: Some(u32::try_from(left).unwrap_or(u32::MAX)),
        })
    }

    fn adopt_one(&mut self, now: u64, wall: UnixMillis, theirs: TransferEntry) -> Fate {
        let TransferEntry { server, login, password: _, countries, networks, expires_in_seconds } = theirs;
        let Server { address, port, entry_type, protocol, prefix_len: _, fed_by, scheme } = server;
        let key = Key {
            entry_type,
            source: address,
            port,
            protocol: protocol.unwrap_or_else(|| Key::usual_protocol(entry_type)),
        };
        let entry = Entry { key, login, networks, countries, fed_by, scheme }.tidied();
        let hash = self.hash(entry.key.source, entry.key.port);
        let slot = self.live(now, hash, &entry.key);
        if self.check(&entry, slot).is_err() {
            return Fate::Refused;
        }
        let (interval, lifetime) = (self.config.update_interval, self.lifetime());
        let left = expires_in_seconds.map_or(interval, |seconds| Duration::from_secs(seconds.into()).min(lifetime));
        let vouched = now + millis(left);
        if let Some(ours) = slot.map(|slot| &self.held[slot]) {
            // Owners refresh peers at different moments of an interval; only more than that means that we missed a refresh, unless we
            // know that we may have. A peer that does not say how long an entry lives cannot know better than its owner.
            let is_doubtful = ours.hearsay || ours.vouched <= now || self.doubt() != Doubt::None;
            let missed = if is_doubtful { 0 } else { millis(interval) + millis(interval) / 4 };
            let newer = vouched > ours.vouched.saturating_add(missed);
            if !newer || (expires_in_seconds.is_none() && !ours.hearsay) {
                return Fate::Known;
            }
        }
        if self.goodbyes.cover(now, &entry.login, &entry.key) {
            return Fate::Gone;
        }
        let stored = entry.to_stored(wall.after(Duration::from_millis(vouched - now)));
        self.changes.push_back(Change::Refresh(entry.key.clone(), stored));
        self.hold(entry, hash, Until { deadline: vouched, vouched, hearsay: true });
        Fate::Taken
    }
}

/// What became of an entry of a peer.
enum Fate {
    Taken,
    Known,
    Gone,
    Refused,
}

fn is_wanted(held: &Held, Transfer { network, country }: &Transfer) -> bool {
    let inside = |range: &Prefix| held.networks.iter().any(|network| range.contains(network));
    network.as_ref().is_none_or(inside) && country.is_none_or(|country| held.countries().contains(&country))
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
