//! One process: the machines of a party, turned as the agent turns them, and what its disk holds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use castgate_endpoint::hierarchy::accounts::{Account, Allow};
use castgate_endpoint::hierarchy::address::{DatabaseAddress, Place};
use castgate_endpoint::hierarchy::clock::UnixMillis;
use castgate_endpoint::hierarchy::database::{self, Change, Database, StoredEntry};
use castgate_endpoint::hierarchy::discovery::Role;
use castgate_endpoint::hierarchy::peers::{Peers, Transferred};
use castgate_endpoint::hierarchy::registrar::{
    self, CallId, Discovery, Outcome, QuestionId, Registrar, Reply as Found, Standing,
};
use castgate_wire::registry::{EntryType, Request, Transfer, TransferEntry};

use crate::picture::{Kind, LATECOMERS, PARTIES, Party, roots};
use crate::random::Random;

/// How long a database waits for its peers before it answers without them.
pub const WAIT: Duration = Duration::from_secs(30);
/// How long an agent that ends says goodbye.
const GOODBYE_TIME: Duration = Duration::from_secs(3);

/// Key of an entry → the entry, as on a disk.
pub type Store = BTreeMap<String, StoredEntry>;

/// A process while it lives.
pub struct Life {
    party: &'static Party,
    pub database: Option<Database>,
    peers: Peers,
    registrar: Option<Registrar>,
    /// The peers that the registrar told the database.
    told: Option<Vec<DatabaseAddress>>,
    /// Until when it says goodbye.
    leaving: Option<Instant>,
}

/// What a process wants to send, and what the answer is handed back with.
pub struct Sending {
    pub back: Back,
    pub to: SocketAddr,
    pub login: String,
    pub request: Request,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    Call(CallId),
    Question(QuestionId),
    Transfer,
}

impl Life {
    /// Starts with what the disk holds.
    pub fn start(party: &'static Party, interval: Duration, store: &mut Store, now: Now, random: &mut Random) -> Self {
        let Now { now, wall } = now;
        let mut database = party.is_database().then(|| {
            let config = database::Config {
                update_interval: interval,
                own: vec![party.socket()],
                ..database::Config::default()
            };
            Database::new(config, accounts(), random.key())
        });
        let mut lost = Vec::new();
        if let Some(database) = &mut database {
            for (key, stored) in store.iter() {
                match stored.to_entry() {
                    Ok(entry) => database.restore(now, wall, entry, stored.expires()),
                    Err(_) => lost.push(key.clone()),
                }
            }
        }
        assert!(lost.is_empty(), "what a database wrote it cannot read: {lost:?}");
        let registrar = match party.kind {
            Kind::Root(_) => None,
            Kind::Database(role) => Some(role),
            Kind::Server => Some(Role::Peer),
        };
        let registrar = registrar.map(|role| {
            let config = registrar::Config { interval, ..registrar::Config::default() };
            let discovery = Discovery {
                roots: roots().into_iter().map(DatabaseAddress::of_socket).collect(),
                login: party.login().to_owned(),
                password: String::new(),
                ca: None,
                role,
                waits_for_peers: true,
            };
            Registrar::discovering(config, &[party.register()], discovery, random.next(), now)
        });
        let peers = match party.kind {
            Kind::Root(peer) => {
                let mut peers = Peers::new();
                peers.set_members(now, vec![DatabaseAddress::of_socket(Party::of(peer).socket())], WAIT);
                peers
            }
            Kind::Database(_) => Peers::searching(now, WAIT),
            Kind::Server => Peers::new(),
        };
        Self { party, database, peers, registrar, told: None, leaving: None }
    }

    /// Begins to say goodbye.
    pub fn leave(&mut self, now: Instant) {
        self.leaving = Some(now + GOODBYE_TIME);
        if let Some(registrar) = &mut self.registrar {
            registrar.shut_down(now);
        }
    }

    /// Whether it has said goodbye everywhere, or had enough.
    pub fn is_over(&self, now: Instant) -> bool {
        let is_finished = self.registrar.as_ref().is_none_or(Registrar::is_finished);
        self.leaving.is_some_and(|until| until <= now || is_finished)
    }

    /// Does what is due; returns what is to be sent.
    pub fn turn(&mut self, now: Instant, store: &mut Store) -> Vec<Sending> {
        let mut sendings = Vec::new();
        loop {
            let before = sendings.len();
            self.turn_database(now, store);
            self.turn_registrar(now, &mut sendings);
            self.turn_peers(now, &mut sendings);
            // It may have been told that it can be announced.
            self.turn_registrar(now, &mut sendings);
            if sendings.len() == before {
                return sendings;
            }
        }
    }

    fn turn_database(&mut self, now: Instant, store: &mut Store) {
        let Some(database) = &mut self.database else { return };
        while database.next_timeout().is_some_and(|at| at <= now) {
            database.handle_timeout(now);
        }
        while let Some(change) = database.poll_change() {
            match change {
                Change::Put(key, entry) | Change::Refresh(key, entry) => _ = store.insert(key.to_string(), entry),
                Change::Delete(key) | Change::Expire(key) => _ = store.remove(&key.to_string()),
            }
        }
    }

    fn turn_registrar(&mut self, now: Instant, sendings: &mut Vec<Sending>) {
        let Some(registrar) = &mut self.registrar else { return };
        if registrar.next_timeout().is_some_and(|at| at <= now) {
            registrar.handle_timeout(now);
        }
        while let Some(question) = registrar.poll_question() {
            let registrar::Lookup::Databases(ask) = question.lookup else { panic!("nobody here has a name") };
            let (_, pairs) = ask.target.split_once('?').expect("a question has pairs");
            let (request, _) = Request::parse(pairs).expect("we understand ourselves");
            sendings.push(Sending {
                back: Back::Question(question.id),
                to: ask.address,
                login: String::new(),
                request,
            });
        }
        while let Some(call) = registrar.poll_call() {
            let Place::Socket(to) = call.parent.address.place else { panic!("nobody here has a name") };
            let (back, login) = (Back::Call(call.id), call.parent.login);
            sendings.push(Sending { back, to, login, request: call.request });
        }
    }

    fn turn_peers(&mut self, now: Instant, sendings: &mut Vec<Sending>) {
        let Some(database) = &mut self.database else { return };
        let tells = |registrar: &&mut Registrar| {
            let is_news = self.told.as_deref().unwrap_or_default() != registrar.peers();
            is_news || (self.told.is_none() && registrar.knows_peers())
        };
        if let Some(registrar) = self.registrar.as_mut().filter(tells) {
            let found = registrar.peers().to_vec();
            self.peers.set_members(now, found.clone(), WAIT);
            registrar.set_synchronised(now, found.is_empty());
            self.told = Some(found);
        }
        database.set_has_peers(self.peers.has_members());
        self.peers.handle_doubt(now, database.doubt());
        self.peers.handle_timeout(now);
        database.set_synchronised(self.peers.is_synchronised());
        if self.peers.is_settled()
            && let Some(registrar) = &mut self.registrar
        {
            registrar.set_synchronised(now, true);
        }
        if let Some(peer) = self.peers.poll_transfer() {
            let Place::Socket(to) = peer.place else { panic!("nobody here has a name") };
            let request = Request::Transfer(Transfer::default());
            sendings.push(Sending { back: Back::Transfer, to, login: "peers".to_owned(), request });
        }
    }

    pub fn handle_outcome(&mut self, now: Instant, id: CallId, outcome: Outcome) {
        if let Some(registrar) = &mut self.registrar {
            registrar.handle_outcome(now, id, outcome);
        }
    }

    pub fn handle_reply(&mut self, now: Instant, id: QuestionId, reply: Found) {
        if let Some(registrar) = &mut self.registrar {
            registrar.handle_reply(now, id, reply);
        }
    }

    /// What a peer gave, or `None`.
    pub fn handle_transfer(&mut self, now: Now, given: Option<Vec<TransferEntry>>) {
        let Now { now, wall } = now;
        let Some(database) = &mut self.database else { return };
        let is_whole = given.is_some();
        database.adopt(now, wall, given.into_iter().flatten());
        let (interval, hearsay) = (database.update_interval(), database.hearsay());
        if self.peers.handle_transfer(now, Transferred { is_whole, interval, hearsay }) {
            let mut from = Some(0);
            while let Some(at) = from {
                from = database.settle(now, at);
            }
        }
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        let database = self.database.as_ref().and_then(Database::next_timeout);
        let registrar = self.registrar.as_ref().and_then(Registrar::next_timeout);
        [database, registrar, self.peers.next_timeout(), self.leaving].into_iter().flatten().min()
    }

    /// Whether it is registered wherever it wants to be, and in no doubt.
    pub fn is_settled(&self) -> bool {
        let registered = self.registrar.iter().flat_map(Registrar::statuses);
        let mut count = 0;
        let all = registered.inspect(|_| count += 1).all(|status| status.standing == Standing::Registered);
        let is_placed = count > 0 || matches!(self.party.kind, Kind::Root(_));
        let is_sure = |database: &Database| database.doubt() == database::Doubt::None;
        all && is_placed && self.peers.is_synchronised() && self.database.as_ref().is_none_or(is_sure)
    }
}

/// A moment, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub now: Instant,
    pub wall: UnixMillis,
}

/// Everybody has an account everywhere: what a login may claim is tested elsewhere.
fn accounts() -> Vec<Account> {
    let hash = "$argon2id$v=19$m=8,t=1,p=1$YSBzYWx0IGZvciB0ZXN0cw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let allow = Allow {
        types: vec![EntryType::TunnelServer, EntryType::TunnelDatabase],
        networks: vec!["0.0.0.0/0".parse().expect("a network")],
        countries: ["BE", "FR"].iter().map(|code| code.parse().expect("a country")).collect(),
        ..Allow::default()
    };
    let logins: std::collections::BTreeSet<_> = PARTIES.iter().chain(LATECOMERS).map(Party::login).collect();
    let account = |login: &str| Account::new(login.to_owned(), hash.to_owned(), allow.clone()).expect("an account");
    logins.into_iter().map(account).collect()
}
