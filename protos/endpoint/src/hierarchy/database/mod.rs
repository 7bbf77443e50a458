//! A tunnel database: who is registered, for how long, and who gets whom (draft-liefooghe-castgate-02 §4.1, §6).
//!
//! Owns the entries as soft state: an entry that is not refreshed for two update intervals is gone. Knows no HTTP, no
//! password, no disk: the driver authenticates, calls, and writes every [`Change`] to its store.
//!
//! ```text
//!   REGISTER ─▶ register ─▶ Registered │ Refusal ─┐
//!   BYE      ─▶ bye      ─▶ number     │ Refusal  ├─▶ poll_change: Put, Refresh, Delete ─▶ store
//!   time     ─▶ handle_timeout ───────────────────┤
//!   peers    ─▶ adopt    ─▶ Adoption ─────────────┘      store ─▶ restore
//!   QUERY    ─▶ query    ─▶ Answer                       TRANSFER ─▶ transfer_part ─▶ TransferPart
//!   what-if  ─▶ explain  ─▶ Explanation                  policies ─▶ set_policies
//! ```
//! Several databases may share one store instead, which then decides (`shared`).
//!
//! [`query`](Database::query) and [`transfer_part`](Database::transfer_part) change nothing that others see, so that any number of threads can
//! ask at one time. Made for a million networks, of less than 300 octets each, whether or not a server has several.
//!
//! ```text
//!   keys ─┐                      ┌─▶ logins: name, usage
//!   index ┼─▶ slot ─▶ held: Held ┘
//!   wheel ┘    trie of networks, bags of countries and of everybody
//! ```

mod bag;
mod doubt;
mod entry;
mod explain;
mod goodbye;
mod hold;
mod index;
mod keys;
mod logins;
mod matching;
mod shared;
pub(super) mod slab;
mod transfer;
pub(super) mod trie;
mod wheel;
mod words;

use std::collections::VecDeque;
use std::hash::Hasher as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use castgate_wire::registry::{Bye, Country, Prefix, Query, Register};
use siphasher::sip::SipHasher13;

pub use doubt::Doubt;
pub use entry::{Entry, Key, StoredEntry, StoredError};
pub use explain::{Considered, Explanation};
pub use matching::{ANSWER_SERVERS_MAX, Answer, Caller, Tier};
pub use shared::{Learned, Proposal};
pub use transfer::{Adoption, TransferPart};
pub use words::{Change, Config, Refusal, Registered};

use super::accounts::{Account, Accounts};
use super::clock::UnixMillis;
use super::policy::{Moved, Policies, Policy};
use doubt::Hearing;
use entry::Held;
use goodbye::Goodbyes;
use hold::{TICK_MILLIS, Until, tick_of};
use index::Index;
use keys::Keys;
use logins::Logins;
use slab::{Slab, Slot};
use wheel::{Tick, Wheel};

/// Intervals after which an entry that is not refreshed is gone.
const LIFETIME_INTERVALS: u32 = 2;
/// Timers touched by one [`Database::handle_timeout`]: about a millisecond, in which nobody is answered.
const EXPIRY_STEPS_MAX: usize = 512;

/// The state machine.
#[derive(Debug)]
pub struct Database {
    config: Config,
    accounts: Accounts,
    policies: Policies,
    held: Slab<Held>,
    keys: Keys,
    index: Index,
    logins: Logins,
    /// Who goes when. Every slot has a timer.
    wheel: Wheel,
    goodbyes: Goodbyes,
    changes: VecDeque<Change>,
    /// What deadlines count from: the first moment that we hear of.
    origin: Option<Instant>,
    hash_key: [u8; 16],
    synchronised: bool,
    hearing: Hearing,
    /// Entries that we know from peers only.
    hearsay: usize,
}

impl Database {
    /// An empty database. `key` is a secret of this process; see [`Accounts::new`].
    #[must_use]
    pub fn new(config: Config, accounts: Vec<Account>, key: [u8; 16]) -> Self {
        Self {
            config,
            accounts: Accounts::new(accounts, key),
            policies: Policies::default(),
            held: Slab::default(),
            keys: Keys::default(),
            index: Index::default(),
            logins: Logins::default(),
            wheel: Wheel::default(),
            goodbyes: Goodbyes::default(),
            changes: VecDeque::new(),
            origin: None,
            hash_key: key,
            synchronised: true,
            hearing: Hearing::default(),
            hearsay: 0,
        }
    }

    /// Takes an entry back from the store. It goes when it would have gone, but not before one update interval has passed:
    /// while we were down, its owner had no chance to refresh it. A moment that lies further ahead than two intervals (the
    /// wall clock was turned back) is cut to two.
    ///
    /// An entry that its account may no longer claim is not taken, and its deletion reported.
    pub fn restore(&mut self, now: Instant, wall: UnixMillis, entry: Entry, expires: UnixMillis) {
        let now = self.clock(now);
        let left = expires.since(wall).unwrap_or_default();
        let life = millis(left.clamp(self.config.update_interval, self.lifetime()));
        if self.may_stay(&entry.login, &entry.key, &entry.networks, &entry.countries) {
            let hash = self.hash(entry.key.source, entry.key.port);
            let vouched = now + millis(left).min(life);
            self.hold(entry, hash, Until { deadline: now + life, vouched, hearsay: false });
        } else {
            self.changes.push_back(Change::Delete(entry.key));
        }
    }

    /// Replaces bounds, regions and accounts. Entries that their account may no longer claim are gone at once; bounds and interval
    /// hold from the next REGISTER on, regions from the next QUERY.
    pub fn set(&mut self, config: Config, accounts: Vec<Account>) {
        self.config = config;
        let allowed = |accounts: &Accounts, login: &str| accounts.account(login).map(|account| account.allow().clone());
        let before: Vec<_> = self.logins.iter().map(|(id, login)| (id, allowed(&self.accounts, login))).collect();
        self.accounts.set(accounts);
        let changed =
            before.into_iter().filter(|(id, before)| *before != allowed(&self.accounts, self.logins.name(*id)));
        let changed: std::collections::HashSet<_> = changed.map(|(id, _)| id).collect();
        if changed.is_empty() {
            return;
        }
        let stays = |held: &Held| {
            !changed.contains(&held.login)
                || self.may_stay(self.logins.name(held.login), &held.key, &held.networks, held.countries())
        };
        let gone: Vec<Slot> = self.held.iter().filter(|(_, held)| !stays(held)).map(|(slot, _)| slot).collect();
        for slot in gone {
            self.drop_slot(slot);
        }
    }

    /// The accounts, to check a password.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The accounts, to note what came of a check.
    pub fn accounts_mut(&mut self) -> &mut Accounts {
        &mut self.accounts
    }

    /// How often an entry is to be refreshed.
    #[must_use]
    pub fn update_interval(&self) -> Duration {
        self.config.update_interval
    }

    /// Whether Region Transfer is finished, or there is nobody to transfer from.
    #[must_use]
    pub fn is_synchronised(&self) -> bool {
        self.synchronised
    }

    /// Region Transfer begins (false) or is finished. Meanwhile QUERY and TRANSFER are answered with 503 by the driver: a database
    /// is never asked while it does not know what its peers know (draft-liefooghe-castgate-02 §4.1.2). REGISTER and BYE are taken.
    pub fn set_synchronised(&mut self, synchronised: bool) {
        self.synchronised = synchronised;
    }

    /// REGISTER by an account whose password is proven.
    ///
    /// # Errors
    /// [`Refusal`]; the database is as it was.
    pub fn register(
        &mut self,
        now: Instant,
        wall: UnixMillis,
        login: &str,
        register: &Register,
    ) -> Result<Registered, Refusal> {
        self.handle_timeout(now);
        let now = self.clock(now);
        let entry = Entry::of_register(register, login);
        let hash = self.hash(entry.key.source, entry.key.port);
        let slot = self.live(now, hash, &entry.key);
        self.check(&entry, slot)?;
        self.hear(now, slot);
        let life = self.lifetime();
        let stored = entry.to_stored(wall.after(life));
        // What a peer told us may not be on disk yet.
        let known = slot.map(|slot| &self.held[slot]).is_some_and(|held| held.says(&entry) && !held.hearsay);
        let change = if known { Change::Refresh } else { Change::Put };
        self.changes.push_back(change(entry.key.clone(), stored));
        let deadline = now + millis(life);
        self.hold(entry, hash, Until { deadline, vouched: deadline, hearsay: false });
        Ok(Registered { is_new: slot.is_none(), interval: self.config.update_interval })
    }

    /// BYE by an account whose password is proven; returns how many entries are gone. An entry that is not there is none,
    /// and no error unless the caller is strict about it. For two intervals it is not taken over from peers either, which
    /// may not have heard of the BYE yet.
    ///
    /// # Errors
    /// [`Refusal::Foreign`] when all that match belong to others, [`Refusal::NoEntry`] for a strict BYE that matches none.
    pub fn bye(&mut self, now: Instant, login: &str, bye: &Bye) -> Result<usize, Refusal> {
        self.handle_timeout(now);
        let now = self.clock(now);
        if self.accounts.account(login).is_none() {
            return Err(Refusal::NoAccount);
        }
        let hash = self.hash(bye.source, bye.port);
        let matches = |slot: &Slot| {
            let held = &self.held[*slot];
            goodbye::matches(bye, &held.key) && held.deadline > now
        };
        let mut matching: Vec<Slot> = self.keys.of_hash(hash).filter(matches).collect();
        matching.sort_unstable_by(|one, other| self.held[*one].key.cmp(&self.held[*other].key));
        let id = self.logins.id(login);
        let own: Vec<Slot> = matching.iter().copied().filter(|slot| Some(self.held[*slot].login) == id).collect();
        if let ([first, ..], []) = (matching.as_slice(), own.as_slice()) {
            return Err(Refusal::Foreign(self.held[*first].key.clone()));
        }
        self.hear(now, None);
        self.goodbyes.remember(now, now + millis(self.lifetime()), login, bye);
        if matching.is_empty() && bye.strict {
            return Err(Refusal::NoEntry);
        }
        for slot in &own {
            self.drop_slot(*slot);
        }
        Ok(own.len())
    }

    /// QUERY, by anybody. Changes nothing but counts: what should have gone by now is passed over. Both clocks are needed, the
    /// one for what is registered, the other for rules that hold at some hours.
    #[must_use]
    pub fn query(&self, now: Instant, wall: UnixMillis, caller: Caller, query: &Query) -> Answer {
        self.find(self.millis_at(now), wall, caller, query)
    }

    /// Replaces the policies, which hold from the next QUERY on, in the order of the list. Rules that are still there count on.
    pub fn set_policies(&mut self, policies: Vec<Policy>) {
        let mut policies = Policies::new(policies);
        policies.count_on(&self.policies);
        self.policies = policies;
    }

    /// What each rule of the policies did.
    pub fn moved(&self) -> impl Iterator<Item = Moved> {
        self.policies.moved()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout): no later than the next entry goes by itself, up to a tick.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let (origin, tick) = (self.origin?, self.wheel.next()?);
        Some(origin + Duration::from_millis(u64::from(tick) * TICK_MILLIS))
    }

    /// Time has passed: entries that were not refreshed are gone. Early calls are harmless. One call does a bounded amount of
    /// work: when more is due, [`next_timeout`](Self::next_timeout) has passed already.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock(now);
        let tick = Tick::try_from(now / TICK_MILLIS).unwrap_or(Tick::MAX);
        let mut due = Vec::new();
        self.wheel.advance(tick, EXPIRY_STEPS_MAX, |slot| due.push(slot));
        for slot in due {
            // The wheel has an end; deadlines have none.
            if self.held[slot].deadline > now {
                self.wheel.set(slot, tick_of(self.held[slot].deadline));
            } else {
                self.expire(now, slot);
            }
        }
    }

    /// What the store has to follow, in order.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// All entries in the order of their keys, each with its deadline. Puts them in order first: not for every day.
    pub fn entries(&self) -> impl Iterator<Item = (Entry, Instant)> {
        let mut slots: Vec<Slot> = self.held.iter().map(|(slot, _)| slot).collect();
        slots.sort_unstable_by(|one, other| self.held[*one].key.cmp(&self.held[*other].key));
        slots.into_iter().filter_map(|slot| {
            let held = &self.held[slot];
            let deadline = self.origin? + Duration::from_millis(held.deadline);
            Some((held.to_entry(self.logins.name(held.login)), deadline))
        })
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nobody is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything that may stand against a REGISTER. `slot` is the entry of the same key, if there is one.
    fn check(&self, entry: &Entry, slot: Option<Slot>) -> Result<(), Refusal> {
        let Config { entries_max, entries_per_account_max, networks_per_entry_max, networks_per_account_max, .. } =
            self.config;
        let source = entry.key.source;
        let broadcast = matches!(source, IpAddr::V4(address) if address.is_broadcast());
        if source.is_unspecified() || source.is_multicast() || broadcast {
            return Err(Refusal::NotAHost(source));
        }
        if entry.networks.is_empty() && entry.countries.is_empty() {
            return Err(Refusal::ForNobody);
        }
        let networks = entry.networks.len();
        if networks > networks_per_entry_max {
            return Err(Refusal::TooManyNetworks(networks_per_entry_max, networks));
        }
        let account = self.accounts.account(&entry.login).ok_or(Refusal::NoAccount)?;
        account.allow().check(entry.key.entry_type, source, &entry.networks, &entry.countries)?;
        let before = slot.map(|slot| &self.held[slot]);
        if before.is_some_and(|before| **self.logins.name(before.login) != *entry.login) {
            return Err(Refusal::Foreign(entry.key.clone()));
        }
        if before.is_none() && self.held.len() >= entries_max {
            return Err(Refusal::Full(entries_max));
        }
        let usage = self.logins.usage(&entry.login);
        if before.is_none() && usage.entries >= entries_per_account_max {
            return Err(Refusal::AccountEntries(entries_per_account_max));
        }
        let others = usage.networks - before.map_or(0, |before| before.networks.len());
        if others + networks > networks_per_account_max {
            return Err(Refusal::AccountNetworks(networks_per_account_max));
        }
        Ok(())
    }

    fn may_stay(&self, login: &str, key: &Key, networks: &[Prefix], countries: &[Country]) -> bool {
        let account = self.accounts.account(login);
        account.is_some_and(|account| account.allow().check(key.entry_type, key.source, networks, countries).is_ok())
    }

    /// How long an entry lives that is not refreshed.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.config.update_interval * LIFETIME_INTERVALS
    }

    /// Milliseconds since the origin, which is now if there was none.
    fn clock(&mut self, now: Instant) -> u64 {
        self.origin.get_or_insert(now);
        self.millis_at(now)
    }

    fn millis_at(&self, now: Instant) -> u64 {
        self.origin.map_or(0, |origin| millis(now.saturating_duration_since(origin)))
    }

    /// Of a place or a caller. Keyed: nobody can choose addresses that meet.
    fn hash(&self, address: IpAddr, port: u16) -> u32 {
        let mut hasher = SipHasher13::new_with_key(&self.hash_key);
        match address {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        }
        hasher.write_u16(port);
        u32::try_from(hasher.finish() >> 32).expect("32 bits")
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
