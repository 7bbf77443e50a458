//! A tunnel database: who is registered, for how long, and who gets whom (draft-liefooghe-castgate-02 §4.1, §6).
//!
//! Owns the entries as soft state: an entry that is not refreshed for two update intervals is gone. Knows no HTTP, no
//! password, no disk: the driver authenticates, calls, and writes every [`Change`] to its store.
//!
//! ```text
//!   REGISTER ─▶ register ─▶ Registered │ Refusal ─┐
//!   BYE      ─▶ bye      ─▶ number     │ Refusal  ├─▶ poll_change: Put, Delete ─▶ store
//!   time     ─▶ handle_timeout ───────────────────┘
//!   QUERY    ─▶ query    ─▶ Answer                       store ─▶ restore
//! ```

mod entry;
mod index;
mod matching;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use castgate_wire::registry::{Bye, EntryType, Protocol, Query, Register};

pub use entry::{Entry, Key, StoredEntry, StoredError};
pub use matching::{ANSWER_SERVERS_MAX, Answer, Caller, Tier};

use super::accounts::{Account, Accounts, Claim};
use super::clock::UnixMillis;
use index::{Index, Slot};

/// Intervals after which an entry that is not refreshed is gone.
const LIFETIME_INTERVALS: u32 = 2;

/// Bounds and timing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How often an entry is to be refreshed.
    pub update_interval: Duration,
    /// Entries at one time.
    pub entries_max: usize,
    /// Entries of one account.
    pub entries_per_account_max: usize,
    /// Networks of one entry.
    pub networks_per_entry_max: usize,
    /// Networks of all entries of one account: each costs memory, however few entries they are spread over.
    pub networks_per_account_max: usize,
    /// Addresses of this database: an entry there is ourselves, and never part of an answer.
    pub own: Vec<SocketAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            update_interval: Duration::from_mins(5),
            entries_max: 100_000,
            entries_per_account_max: 10_000,
            networks_per_entry_max: 8_192,
            networks_per_account_max: 262_144,
            own: Vec::new(),
        }
    }
}

/// What the store has to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The entry is there, until then.
    Put(Key, StoredEntry),
    /// The entry is gone.
    Delete(Key),
}

/// A REGISTER was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// False for a refresh.
    pub is_new: bool,
    /// When the next one is expected (`X-CastGate-Update-Interval`).
    pub interval: Duration,
}

/// Why a REGISTER or BYE is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The login has no account (any more).
    #[error("there is no such account")]
    NoAccount,
    /// The account may not claim this.
    #[error(transparent)]
    Claim(#[from] Claim),
    /// Another account registered this entry.
    #[error("entry {0} belongs to another account")]
    Foreign(Key),
    /// SOURCE is not the address of a host.
    #[error("SOURCE {0} is not the address of a host")]
    NotAHost(IpAddr),
    /// The entry could never be part of an answer.
    #[error("neither NETWORKS nor COUNTRY says whose clients the entry is for")]
    ForNobody,
    /// More networks than an entry may have.
    #[error("an entry may have {0} networks, this one has {1}")]
    TooManyNetworks(usize, usize),
    /// More entries than an account may have.
    #[error("the account holds {0} entries, which is all it may")]
    AccountEntries(usize),
    /// More networks than an account may have.
    #[error("the entries of the account would hold more than {0} networks")]
    AccountNetworks(usize),
    /// The database is full.
    #[error("the database holds {0} entries, which is all it can")]
    Full(usize),
    /// A strict BYE for an entry that is not there.
    #[error("there is no such entry")]
    NoEntry,
}

impl Refusal {
    /// The HTTP status (castgate UMTP notes).
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::NotAHost(_) | Self::ForNobody => 400,
            Self::NoAccount => 401,
            Self::Claim(_)
            | Self::Foreign(_)
            | Self::TooManyNetworks(..)
            | Self::AccountEntries(_)
            | Self::AccountNetworks(_) => 403,
            Self::NoEntry => 404,
            Self::Full(_) => 503,
        }
    }

    /// The cause as a metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoAccount => "no_account",
            Self::Claim(Claim::Type(_)) => "claim_type",
            Self::Claim(Claim::Network(_)) => "claim_network",
            Self::Claim(Claim::Country(_)) => "claim_country",
            Self::Claim(Claim::Source(_)) => "claim_source",
            Self::Foreign(_) => "foreign_entry",
            Self::NotAHost(_) => "not_a_host",
            Self::ForNobody => "for_nobody",
            Self::TooManyNetworks(..) => "too_many_networks",
            Self::AccountEntries(_) => "account_entries",
            Self::AccountNetworks(_) => "account_networks",
            Self::Full(_) => "full",
            Self::NoEntry => "no_entry",
        }
    }
}

/// The state machine.
#[derive(Debug)]
pub struct Database {
    config: Config,
    accounts: Accounts,
    held: HashMap<Slot, Held>,
    slots: BTreeMap<Key, Slot>,
    index: Index,
    /// Who goes when, the first first. Each slot is in it once.
    deadlines: BTreeSet<(Instant, Slot)>,
    usage: HashMap<String, Usage>,
    changes: VecDeque<Change>,
    next_slot: Slot,
}

#[derive(Debug)]
struct Held {
    entry: Entry,
    deadline: Instant,
}

/// What an account holds.
#[derive(Debug, Default, Clone, Copy)]
struct Usage {
    entries: usize,
    networks: usize,
}

impl Database {
    /// An empty database. `key` is a secret of this process; see [`Accounts::new`].
    #[must_use]
    pub fn new(config: Config, accounts: Vec<Account>, key: [u8; 16]) -> Self {
        Self {
            config,
            accounts: Accounts::new(accounts, key),
            held: HashMap::new(),
            slots: BTreeMap::new(),
            index: Index::default(),
            deadlines: BTreeSet::new(),
            usage: HashMap::new(),
            changes: VecDeque::new(),
            next_slot: 0,
        }
    }

    /// Takes an entry back from the store. It goes when it would have gone, but not before one update interval has passed:
    /// while we were down, its owner had no chance to refresh it. A moment that lies further ahead than two intervals (the
    /// wall clock was turned back) is cut to two.
    ///
    /// An entry that its account may no longer claim is not taken, and its deletion reported.
    pub fn restore(&mut self, now: Instant, wall: UnixMillis, entry: Entry, expires: UnixMillis) {
        let left = expires.since(wall).unwrap_or_default();
        let life = left.clamp(self.config.update_interval, self.config.update_interval * LIFETIME_INTERVALS);
        if self.may_stay(&entry) {
            self.hold(entry, now + life);
        } else {
            self.changes.push_back(Change::Delete(entry.key));
        }
    }

    /// Replaces bounds and accounts. Entries that their account may no longer claim are gone at once; bounds and interval
    /// hold from the next REGISTER on.
    pub fn set(&mut self, config: Config, accounts: Vec<Account>) {
        self.config = config;
        self.accounts.set(accounts);
        let gone: Vec<Slot> =
            self.held.iter().filter(|(_, held)| !self.may_stay(&held.entry)).map(|(slot, _)| *slot).collect();
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
        let entry = Entry::of_register(register, login);
        let slot = self.slots.get(&entry.key).copied();
        self.check(&entry, slot)?;
        let life = self.config.update_interval * LIFETIME_INTERVALS;
        self.changes.push_back(Change::Put(entry.key.clone(), entry.to_stored(wall.after(life))));
        self.hold(entry, now + life);
        Ok(Registered { is_new: slot.is_none(), interval: self.config.update_interval })
    }

    /// BYE by an account whose password is proven; returns how many entries are gone. An entry that is not there is none,
    /// and no error unless the caller is strict about it.
    ///
    /// # Errors
    /// [`Refusal::Foreign`] when all that match belong to others, [`Refusal::NoEntry`] for a strict BYE that matches none.
    pub fn bye(&mut self, now: Instant, login: &str, bye: &Bye) -> Result<usize, Refusal> {
        self.handle_timeout(now);
        if self.accounts.account(login).is_none() {
            return Err(Refusal::NoAccount);
        }
        let kinds = [EntryType::TunnelServer, EntryType::TunnelDatabase];
        let kinds = kinds.into_iter().filter(|kind| bye.entry_type.is_none_or(|wanted| wanted == *kind));
        let matching: Vec<(Key, Slot)> = kinds
            .flat_map(|entry_type| {
                // UDP is the first protocol in order: from there on, all of this source and port.
                let first = Key { entry_type, source: bye.source, port: bye.port, protocol: Protocol::Udp };
                let same =
                    move |key: &Key| (key.entry_type, key.source, key.port) == (entry_type, bye.source, bye.port);
                self.slots.range(first..).take_while(move |(key, _)| same(key))
            })
            .filter(|(key, _)| bye.protocol.as_ref().is_none_or(|wanted| *wanted == key.protocol))
            .map(|(key, slot)| (key.clone(), *slot))
            .collect();
        let own: Vec<Slot> =
            matching.iter().map(|(_, slot)| *slot).filter(|slot| self.held[slot].entry.login == login).collect();
        match (matching.into_iter().next(), own.len()) {
            (None, _) if bye.strict => Err(Refusal::NoEntry),
            (Some((key, _)), 0) => Err(Refusal::Foreign(key)),
            (_, number) => {
                for slot in own {
                    self.drop_slot(slot);
                }
                Ok(number)
            }
        }
    }

    /// QUERY, by anybody.
    pub fn query(&mut self, now: Instant, caller: Caller, query: &Query) -> Answer {
        self.handle_timeout(now);
        self.find(caller, query)
    }

    /// When the next entry goes by itself.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Time has passed: entries that were not refreshed are gone. Early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((deadline, slot)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.drop_slot(slot);
        }
    }

    /// What the store has to follow, in order.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// All entries in the order of their keys, each with its deadline.
    pub fn entries(&self) -> impl Iterator<Item = (&Entry, Instant)> {
        self.slots.values().map(|slot| {
            let held = &self.held[slot];
            (&held.entry, held.deadline)
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
        self.held.is_empty()
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
        let before = slot.map(|slot| &self.held[&slot].entry);
        if before.is_some_and(|before| before.login != entry.login) {
            return Err(Refusal::Foreign(entry.key.clone()));
        }
        if before.is_none() && self.held.len() >= entries_max {
            return Err(Refusal::Full(entries_max));
        }
        let usage = self.usage.get(&entry.login).copied().unwrap_or_default();
        if before.is_none() && usage.entries >= entries_per_account_max {
            return Err(Refusal::AccountEntries(entries_per_account_max));
        }
        let others = usage.networks - before.map_or(0, |before| before.networks.len());
        if others + networks > networks_per_account_max {
            return Err(Refusal::AccountNetworks(networks_per_account_max));
        }
        Ok(())
    }

    fn may_stay(&self, Entry { key, login, networks, countries, fed_by: _ }: &Entry) -> bool {
        let account = self.accounts.account(login);
        account.is_some_and(|account| account.allow().check(key.entry_type, key.source, networks, countries).is_ok())
    }

    /// Puts or replaces an entry. A refresh that changes nothing touches its deadline alone.
    fn hold(&mut self, entry: Entry, deadline: Instant) {
        if let Some(slot) = self.slots.get(&entry.key).copied() {
            let held = self.held.get_mut(&slot).expect("every slot is held");
            self.deadlines.remove(&(held.deadline, slot));
            if held.entry == entry {
                held.deadline = deadline;
                self.deadlines.insert((deadline, slot));
                return;
            }
            self.take_out(slot);
        }
        let slot = self.next_slot;
        self.next_slot += 1;
        let usage = self.usage.entry(entry.login.clone()).or_default();
        usage.entries += 1;
        usage.networks += entry.networks.len();
        self.index.insert(slot, &entry);
        self.slots.insert(entry.key.clone(), slot);
        self.deadlines.insert((deadline, slot));
        self.held.insert(slot, Held { entry, deadline });
    }

    fn drop_slot(&mut self, slot: Slot) {
        let entry = self.take_out(slot);
        self.changes.push_back(Change::Delete(entry.key));
    }

    fn take_out(&mut self, slot: Slot) -> Entry {
        let Held { entry, deadline } = self.held.remove(&slot).expect("every slot is held");
        self.index.remove(slot, &entry);
        self.slots.remove(&entry.key);
        self.deadlines.remove(&(deadline, slot));
        if let Some(usage) = self.usage.get_mut(&entry.login) {
            usage.entries -= 1;
            usage.networks -= entry.networks.len();
            if usage.entries == 0 {
                self.usage.remove(&entry.login);
            }
        }
        entry
    }
}

#[cfg(test)]
mod tests;
