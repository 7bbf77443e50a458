//! A database whose entries are kept elsewhere, for several databases at one time: that store decides what there is and for how
//! long, and this is its copy in memory, to answer from.
//!
//! ```text
//!   REGISTER ─▶ propose ─▶ Proposal │ Refusal        (nothing has changed yet)
//!                  └─▶ store ─▶ every database: learn, forget
//! ```
//! Owns what such a copy takes in. An entry here has no deadline of its own: whoever registered it may refresh it at another database,
//! and only the store sees all of that.

use std::time::Instant;

use castgate_wire::registry::{Bye, Register};

use super::entry::{Entry, Key, StoredEntry};
use super::goodbye;
use super::{Database, Refusal, Registered, UnixMillis, Until};

/// Entries that are taken in beyond the bound of this database: others promised them at the same moment.
const OVER_BOUND_MAX: usize = 1_024;
/// Deadline of an entry that has none, in milliseconds: 34 years.
const NEVER: u64 = 1 << 40;

/// What a REGISTER asks the store for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Its key.
    pub key: Key,
    /// What the store is to hold.
    pub stored: StoredEntry,
    /// Our copy says the same already: the entry only has to live for longer.
    pub is_known: bool,
    /// What the caller is told when the store has it.
    pub registered: Registered,
}

/// What became of an entry of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// It was not here.
    New,
    /// It said something else.
    Changed,
    /// It is as it was.
    Same,
    /// Its account may not claim it, as far as this database knows; it is not part of any answer.
    Refused,
    /// There is no room.
    Full,
}

impl Database {
    /// What a REGISTER by an account whose password is proven asks the store for. Nothing changes here.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn propose(&self, wall: UnixMillis, login: &str, register: &Register) -> Result<Proposal, Refusal> {
        let entry = Entry::of_register(register, login);
        let hash = self.hash(entry.key.source, entry.key.port);
        let slot = self.keys.find(hash, |slot| self.held[slot].key == entry.key);
        self.check(&entry, slot)?;
        let is_known = slot.is_some_and(|slot| self.held[slot].says(&entry));
        let stored = entry.to_stored(wall.after(self.lifetime()));
        let registered = Registered { is_new: slot.is_none(), interval: self.config.update_interval };
        Ok(Proposal { key: entry.key, stored, is_known, registered })
    }

    /// Whether a BYE by an account whose password is proven may take this entry of the store away; `None`: it is not about it.
    ///
    /// # Errors
    /// [`Refusal::Foreign`] when it belongs to another account.
    pub fn may_take_away(&self, login: &str, bye: &Bye, entry: &Entry) -> Result<bool, Refusal> {
        if self.accounts.account(login).is_none() {
            return Err(Refusal::NoAccount);
        }
        match goodbye::matches(bye, &entry.key) {
            true if entry.login == login => Ok(true),
            true => Err(Refusal::Foreign(entry.key.clone())),
            false => Ok(false),
        }
    }

    /// The store holds this entry. It stays until [`forget`](Self::forget).
    pub fn learn(&mut self, now: Instant, entry: Entry) -> Learned {
        self.clock(now);
        let entry = entry.tidied();
        let hash = self.hash(entry.key.source, entry.key.port);
        let slot = self.keys.find(hash, |slot| self.held[slot].key == entry.key);
        if !self.may_stay(&entry.login, &entry.key, &entry.networks, &entry.countries)
            || entry.networks.len() > self.config.networks_per_entry_max
        {
            self.forget(&entry.key);
            return Learned::Refused;
        }
        let learned = match slot.map(|slot| &self.held[slot]) {
            Some(held) if **self.logins.name(held.login) == *entry.login && held.says(&entry) => return Learned::Same,
            Some(_) => Learned::Changed,
            None if self.held.len() >= self.config.entries_max.saturating_add(OVER_BOUND_MAX) => return Learned::Full,
            None => Learned::New,
        };
        self.hold(entry, hash, Until { deadline: NEVER, vouched: NEVER, hearsay: false });
        learned
    }

    /// The store does not hold this entry any more; returns whether it was here.
    pub fn forget(&mut self, key: &Key) -> bool {
        let hash = self.hash(key.source, key.port);
        let slot = self.keys.find(hash, |slot| self.held[slot].key == *key);
        slot.map(|slot| self.take_out(slot)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use castgate_wire::registry::{EntryType, Query, Request};

    use super::super::tests::WALL;
    use super::*;
    use crate::hierarchy::accounts::{Account, Allow};
    use crate::hierarchy::database::{Caller, Config};

    #[test]
    fn a_proposal_changes_nothing_and_what_is_learned_of_it_is_found_for_ever() {
        let mut database = database(&["be", "fr"]);
        let now = Instant::now();
        let proposal = database.propose(WALL, "be", &register("SOURCE=10.0.0.1&PORT=1&COUNTRY=BE")).unwrap();
        assert!(database.is_empty() && proposal.registered.is_new && !proposal.is_known);
        assert_eq!(proposal.registered.interval, Duration::from_mins(5));

        let entry = proposal.stored.to_entry().unwrap();
        assert_eq!(database.learn(now, entry.clone()), Learned::New);
        assert_eq!(database.learn(now, entry), Learned::Same);
        let later = now + Duration::from_secs(1_000_000);
        database.handle_timeout(later);
        assert_eq!(found(&database, later), 1, "only the store says when it goes");
        assert_eq!(database.entries().count(), 1);
        assert!(database.poll_change().is_none(), "the store knows already");

        let again = database.propose(WALL, "be", &register("SOURCE=10.0.0.1&PORT=1&COUNTRY=BE")).unwrap();
        assert!(again.is_known && !again.registered.is_new);
        let other = database.propose(WALL, "be", &register("SOURCE=10.0.0.1&PORT=1&COUNTRY=FR")).unwrap();
        assert!(!other.is_known && !other.registered.is_new);
        assert_eq!(database.learn(later, other.stored.to_entry().unwrap()), Learned::Changed);
        assert!(database.forget(&other.key) && !database.forget(&other.key));
        assert_eq!(found(&database, later), 0);
        assert!(database.poll_change().is_none());
    }

    #[test]
    fn what_may_not_be_registered_is_not_proposed() {
        let mut database = database(&["be", "fr"]);
        let entry = register("SOURCE=10.0.0.1&PORT=1&COUNTRY=BE");
        let proposal = database.propose(WALL, "be", &entry).unwrap();
        database.learn(Instant::now(), proposal.stored.to_entry().unwrap());
        let refusal = |login: &str, register: &Register| database.propose(WALL, login, register).unwrap_err().label();
        assert_eq!(refusal("fr", &entry), "foreign_entry");
        assert_eq!(refusal("nl", &entry), "no_account");
        assert_eq!(refusal("be", &register("SOURCE=10.0.0.1&PORT=1&COUNTRY=JP")), "claim_country");
        assert_eq!(refusal("be", &register("SOURCE=10.0.0.2&PORT=1&COUNTRY=BE")), "account_entries");
        assert_eq!(refusal("fr", &register("SOURCE=224.0.0.1&PORT=1&COUNTRY=BE")), "not_a_host");
    }

    #[test]
    fn an_entry_that_no_account_of_ours_covers_waits_for_one() {
        let other = database(&["be", "nl"]);
        let entry = other.propose(WALL, "nl", &register("SOURCE=10.0.0.1&PORT=1&COUNTRY=BE")).unwrap().stored;
        let entry = entry.to_entry().unwrap();
        let mut ours = database(&["be"]);
        assert_eq!(ours.learn(Instant::now(), entry.clone()), Learned::Refused);
        assert!(ours.is_empty() && ours.poll_change().is_none(), "it is not ours to delete");
        ours.set(config(), accounts(&["be", "nl"]));
        assert_eq!(ours.learn(Instant::now(), entry.clone()), Learned::New);
        ours.set(config(), accounts(&["be"]));
        assert!(matches!(ours.poll_change(), Some(super::super::Change::Delete(key)) if key == entry.key));
    }

    #[test]
    fn what_others_promised_at_the_same_moment_finds_room_and_a_flood_does_not() {
        let mut database = database(&["be"]);
        let template = database.propose(WALL, "be", &register("SOURCE=10.0.0.1&PORT=1&COUNTRY=BE")).unwrap();
        let mut entry = template.stored.to_entry().unwrap();
        let mut refused = 0;
        for port in 1..=5_000 {
            entry.key.port = port;
            refused += usize::from(database.learn(Instant::now(), entry.clone()) == Learned::Full);
        }
        assert_eq!((database.len(), refused), (4 + OVER_BOUND_MAX, 5_000 - 4 - OVER_BOUND_MAX));
    }

    #[test]
    fn a_goodbye_takes_what_it_names_from_its_owner_alone() {
        let database = database(&["be", "fr"]);
        let entry = database.propose(WALL, "be", &register("SOURCE=10.0.0.1&PORT=1&COUNTRY=BE")).unwrap().stored;
        let entry = entry.to_entry().unwrap();
        let bye = |text: &str| {
            let Ok((Request::Bye(bye), _)) = Request::parse(&format!("ACTION=BYE&SOURCE=10.0.0.1&{text}")) else {
                panic!()
            };
            bye
        };
        assert_eq!(database.may_take_away("be", &bye("PORT=1"), &entry), Ok(true));
        assert_eq!(database.may_take_away("be", &bye("PORT=1&TYPE=TDS"), &entry), Ok(false));
        assert_eq!(database.may_take_away("be", &bye("PORT=2"), &entry), Ok(false));
        assert_eq!(database.may_take_away("fr", &bye("PORT=1"), &entry).unwrap_err().status(), 403);
        assert_eq!(database.may_take_away("nl", &bye("PORT=1"), &entry).unwrap_err().status(), 401);
    }

    fn database(logins: &[&str]) -> Database {
        Database::new(config(), accounts(logins), [7; 16])
    }

    fn config() -> Config {
        Config { entries_max: 4, entries_per_account_max: 1, ..Config::default() }
    }

    fn accounts(logins: &[&str]) -> Vec<Account> {
        let hash = "$argon2id$v=19$m=8,t=1,p=1$YSBzYWx0IGZvciB0ZXN0cw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let countries = vec!["BE".parse().unwrap(), "FR".parse().unwrap()];
        let allow = Allow { types: vec![EntryType::TunnelServer], countries, ..Allow::default() };
        let account = |login: &&str| Account::new((*login).to_owned(), hash.to_owned(), allow.clone()).unwrap();
        logins.iter().map(account).collect()
    }

    fn register(text: &str) -> Register {
        let Ok((Request::Register(register), _)) = Request::parse(&format!("ACTION=REGISTER&TYPE=TS&{text}")) else {
            panic!()
        };
        register
    }

    fn found(database: &Database, now: Instant) -> usize {
        let Ok((Request::Query(query), _)) = Request::parse("ACTION=QUERY&TYPE=TS&COUNTRY=BE") else { panic!() };
        let query: Query = query;
        let caller = Caller { address: "192.0.2.1".parse().unwrap(), asked_at: None };
        database.query(now, WALL, caller, &query).servers.len()
    }
}
