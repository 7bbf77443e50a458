//! The virtual world: processes on machines, an HTTP with delays between them, clients who ask, one clock.
//!
//! ```text
//!   process ──Sending──▶ Arrive ──▶ database ──▶ Return ──▶ process or client
//!                          │ down: refused   │ cut: nothing; the asker gives up after 10 s
//!                          │ frozen: kept until it goes on
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use castgate_endpoint::hierarchy::address::DatabaseAddress;
use castgate_endpoint::hierarchy::clock::UnixMillis;
use castgate_endpoint::hierarchy::database::{Caller, Database, Tier};
use castgate_endpoint::hierarchy::locator::{
    ANSWER_TIMEOUT, Answer, Cache, Found, Hop, HopOutcome, LocateError, Locator, Step, TaskId, Wanted,
};
use castgate_endpoint::hierarchy::registrar::{Outcome, Reply as Reported};
use castgate_wire::registry::{ProtocolFilter, Request, xml};

use crate::node::{Back, Life, Now, Sending, Store};
use crate::picture::{Kind, LATECOMERS, PARTIES, Party, roots};
use crate::random::Random;

impl Random {
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let index = usize::try_from(self.below(list.len() as u64)).expect("an index of this list fits usize");
        &list[index]
    }
}

/// The wall clock at the beginning.
const WALL: UnixMillis = UnixMillis(1_800_000_000_000);

/// A machine of the picture.
pub struct Node {
    pub party: &'static Party,
    pub life: Option<Life>,
    store: Store,
    /// Counts its processes: what belongs to an earlier one is nobody's.
    incarnation: u64,
    /// Nothing comes in or out.
    pub is_cut: bool,
    /// Its process does nothing.
    pub is_frozen: bool,
    /// It needs so long for each request.
    pub delay: Duration,
    backlog: Vec<Event>,
    wake: Option<Instant>,
}

#[derive(Debug)]
enum Event {
    Arrive(u64),
    Return(u64, Reply),
    GiveUp(u64),
    Wake(usize),
    Poll(u64),
}

#[derive(Debug)]
enum Reply {
    Servers {
        xml: String,
        tier: Option<Tier>,
    },
    Entries(String),
    Done {
        interval: Option<Duration>,
    },
    Status {
        status: u16,
        retry_after: Option<Duration>,
    },
    /// Refused, or too late.
    None(&'static str),
}

struct Exchange {
    /// `None`: it has given up.
    asker: Option<Asker>,
    /// Whose process has sent it.
    sender: Option<usize>,
    /// Where the request seems to come from.
    from: IpAddr,
    to: SocketAddr,
    login: String,
    request: Request,
}

#[derive(Debug, Clone, Copy)]
enum Asker {
    Process { node: usize, incarnation: u64, back: Back },
    Client(u64, TaskId),
}

struct Client {
    locator: Locator,
    place: IpAddr,
}

/// What a client got, as addresses with ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub servers: Vec<SocketAddr>,
    pub tier: Option<String>,
    pub cache: Option<Cache>,
    pub hops: String,
}

pub struct Net {
    pub start: Instant,
    pub now: Instant,
    pub interval: Duration,
    pub random: Random,
    pub nodes: Vec<Node>,
    events: BTreeMap<(Instant, u64), Event>,
    exchanges: BTreeMap<u64, Exchange>,
    /// When the last request from one place to another arrived: none overtakes it.
    lines: BTreeMap<(IpAddr, SocketAddr), Instant>,
    clients: BTreeMap<u64, Client>,
    got: BTreeMap<u64, Result<Found, LocateError>>,
    serial: u64,
}

impl Net {
    pub fn new(interval: Duration, seed: u64) -> Self {
        let now = Instant::now();
        let node = |party| Node {
            party,
            life: None,
            store: Store::new(),
            incarnation: 0,
            is_cut: false,
            is_frozen: false,
            delay: Duration::ZERO,
            backlog: Vec::new(),
            wake: None,
        };
        Self {
            start: now,
            now,
            interval,
            random: Random(seed),
            nodes: PARTIES.iter().chain(LATECOMERS).map(node).collect(),
            events: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            lines: BTreeMap::new(),
            clients: BTreeMap::new(),
            got: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Everybody starts, one after the other, and finds his place.
    pub fn started(interval: Duration, seed: u64) -> Self {
        let mut net = Self::new(interval, seed);
        let roots = PARTIES.iter().take_while(|party| matches!(party.kind, Kind::Root(_))).count();
        for (node, party) in PARTIES.iter().enumerate() {
            net.launch(node);
            // The roots wait for each other; whoever comes before the database of his country is up belongs to the roots.
            let end = net.now + interval;
            while node + 1 >= roots && !net.unsettled().iter().all(|name| net.node(name) > node) {
                assert!(net.now < end, "{} does not find its place", party.name);
                net.pass(Duration::from_secs(1));
            }
        }
        // Those who started early hear at the fourth update of those who came late.
        net.pass(interval * 5);
        net
    }

    pub fn node(&self, name: &str) -> usize {
        self.nodes.iter().position(|node| node.party.name == name).expect("a party of the picture")
    }

    fn clock(&self) -> Now {
        Now { now: self.now, wall: WALL.after(self.now - self.start) }
    }

    // Processes.

    pub fn launch(&mut self, node: usize) {
        let now = self.clock();
        let Self { nodes, random, interval, .. } = self;
        let Node { party, life, store, incarnation, .. } = &mut nodes[node];
        *incarnation += 1;
        *life = Some(Life::start(party, *interval, store, now, random));
        self.pump(node);
    }

    /// SIGKILL.
    pub fn kill(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.life = None;
        node.backlog.clear();
        node.is_frozen = false;
    }

    /// Its disk is gone.
    pub fn forget(&mut self, node: usize) {
        assert!(self.nodes[node].life.is_none(), "a process keeps its files open");
        self.nodes[node].store.clear();
    }

    pub fn freeze(&mut self, node: usize) {
        self.nodes[node].is_frozen = true;
    }

    pub fn thaw(&mut self, node: usize) {
        self.nodes[node].is_frozen = false;
        let backlog = std::mem::take(&mut self.nodes[node].backlog);
        for event in backlog {
            match event {
                // Whoever sent it may be gone: what came to a process that stood still is not carried out.
                Event::Arrive(id) => {
                    let busy = Reply::Status { status: 503, retry_after: Some(Duration::from_secs(1)) };
                    self.schedule(self.now, Event::Return(id, busy));
                }
                other => self.handle(other),
            }
        }
        self.pump(node);
    }

    /// Says goodbye and ends.
    pub fn leave(&mut self, node: usize) {
        if let Some(life) = &mut self.nodes[node].life {
            life.leave(self.now);
        }
        self.pump(node);
    }

    pub fn is_settled(&self) -> bool {
        self.unsettled().is_empty()
    }

    /// Whether every database hears itself from those who are registered with it.
    pub fn is_heard(&self) -> bool {
        let databases = self.nodes.iter().filter_map(|node| node.life.as_ref()?.database.as_ref());
        databases.map(Database::hearsay).sum::<usize>() == 0
    }

    pub fn unsettled(&self) -> Vec<&'static str> {
        let is_unsettled = |node: &&Node| !node.life.as_ref().is_some_and(Life::is_settled);
        self.nodes[..PARTIES.len()].iter().filter(is_unsettled).map(|node| node.party.name).collect()
    }

    /// Which process of a machine runs, if one does.
    pub fn process(&self, node: usize) -> Option<u64> {
        let node = &self.nodes[node];
        node.life.as_ref().map(|_| node.incarnation)
    }

    /// The tunnel servers and databases that a database holds, by their addresses.
    pub fn held(&self, node: usize) -> Vec<SocketAddr> {
        let database = self.nodes[node].life.as_ref().and_then(|life| life.database.as_ref());
        let entries = database.into_iter().flat_map(Database::entries);
        let mut held: Vec<SocketAddr> = entries
            .filter(|(_, deadline)| *deadline > self.now)
            .map(|(entry, _)| SocketAddr::new(entry.key.source, entry.key.port))
            .collect();
        held.sort_unstable();
        held
    }

    // Clients.

    /// Starts to look for servers; [`got`](Self::got) has what comes of it.
    pub fn ask(&mut self, place: IpAddr, country: Option<&str>, cache: Option<Cache>) -> u64 {
        let id = self.serial();
        let roots = roots().into_iter().map(DatabaseAddress::of_socket).collect();
        let wanted =
            Wanted { country: country.map(|code| code.parse().expect("a country")), protocol: ProtocolFilter::All };
        let locator = Locator::new(roots, wanted, cache, self.random.next(), self.clock().wall);
        self.clients.insert(id, Client { locator, place });
        self.poll(id);
        id
    }

    /// What came of it, once.
    pub fn got(&mut self, client: u64) -> Option<Got> {
        let result = self.got.remove(&client)?;
        let show = |hops: &[Hop]| {
            let lines: Vec<String> = hops.iter().map(|hop| format!("{}: {}", hop.asked, hop.outcome)).collect();
            lines.join("; ")
        };
        Some(match result {
            Ok(found) => {
                let mut servers: Vec<SocketAddr> =
                    found.servers.iter().map(|server| SocketAddr::new(server.address, server.port)).collect();
                servers.sort_unstable();
                let tier = found.hops.iter().rev().find_map(|hop| match &hop.outcome {
                    HopOutcome::Servers(_, tier) => tier.clone(),
                    _ => None,
                });
                Got { servers, tier, hops: show(&found.hops), cache: Some(found.cache) }
            }
            Err(error) => Got { servers: Vec::new(), tier: None, cache: None, hops: show(&error.hops) },
        })
    }

    /// Asks and waits for what comes of it.
    pub fn locate(&mut self, place: IpAddr, country: Option<&str>) -> Got {
        let client = self.ask(place, country, None);
        loop {
            if let Some(got) = self.got(client) {
                return got;
            }
            self.step();
        }
    }

    fn poll(&mut self, id: u64) {
        while let Some(client) = self.clients.get_mut(&id) {
            let place = client.place;
            match client.locator.poll(self.now) {
                None => {
                    if let Some(at) = client.locator.next_timeout() {
                        self.schedule(at, Event::Poll(id));
                    }
                    return;
                }
                Some(Step::Ask(ask)) => {
                    let (_, pairs) = ask.target.split_once('?').expect("a question has pairs");
                    let (request, _) = Request::parse(pairs).expect("we understand ourselves");
                    let exchange = Exchange {
                        asker: Some(Asker::Client(id, ask.id)),
                        sender: None,
                        from: place,
                        to: ask.address,
                        login: String::new(),
                        request,
                    };
                    self.send(exchange);
                }
                Some(Step::ResolveService { .. } | Step::ResolveAddress { .. }) => panic!("nobody here has a name"),
                Some(Step::Found(found)) => {
                    self.got.insert(id, Ok(found));
                    self.clients.remove(&id);
                }
                Some(Step::Failed(error)) => {
                    self.got.insert(id, Err(error));
                    self.clients.remove(&id);
                }
            }
        }
    }

    // Time.

    /// The next thing happens; returns false when nothing ever will.
    pub fn step(&mut self) -> bool {
        let Some(((at, _), event)) = self.events.pop_first() else { return false };
        self.now = at.max(self.now);
        self.handle(event);
        true
    }

    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.events.first_key_value().is_some_and(|((at, _), _)| *at <= end) {
            self.step();
        }
        self.now = end;
    }

    fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        let serial = self.serial();
        self.events.insert((at.max(self.now), serial), event);
    }

    fn send(&mut self, exchange: Exchange) {
        let is_cut = self.cut(&exchange);
        let way = Duration::from_millis(2 + self.random.below(40));
        let slow = self.target(&exchange).map_or(Duration::ZERO, |node| self.nodes[node].delay);
        let line = self.lines.entry((exchange.from, exchange.to)).or_insert(self.now);
        *line = (*line).max(self.now + way + slow);
        let at = *line;
        let id = self.serial();
        self.exchanges.insert(id, exchange);
        self.schedule(self.now + ANSWER_TIMEOUT, Event::GiveUp(id));
        if !is_cut {
            self.schedule(at, Event::Arrive(id));
        }
    }

    fn target(&self, exchange: &Exchange) -> Option<usize> {
        self.nodes.iter().position(|node| node.party.socket() == exchange.to)
    }

    fn cut(&self, exchange: &Exchange) -> bool {
        exchange.sender.is_some_and(|node| self.nodes[node].is_cut)
            || self.target(exchange).is_some_and(|node| self.nodes[node].is_cut)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Poll(client) => self.poll(client),
            Event::Wake(node) => {
                self.nodes[node].wake = None;
                self.pump(node);
            }
            Event::Arrive(id) => self.arrive(id),
            Event::Return(id, reply) => self.come_back(id, reply),
            Event::GiveUp(id) => self.give_up(id),
        }
    }

    fn arrive(&mut self, id: u64) {
        let Some(exchange) = self.exchanges.get(&id) else { return };
        if self.cut(exchange) {
            return;
        }
        let back = self.now + Duration::from_millis(2 + self.random.below(40));
        let Some(exchange) = self.exchanges.get(&id) else { return };
        let Some(target) = self.target(exchange) else {
            return self.schedule(back, Event::Return(id, Reply::None("connection refused")));
        };
        if self.nodes[target].life.is_none() || !self.nodes[target].party.is_database() {
            return self.schedule(back, Event::Return(id, Reply::None("connection refused")));
        }
        if self.nodes[target].is_frozen {
            self.nodes[target].backlog.push(Event::Arrive(id));
            return;
        }
        let reply = self.answer(target, id);
        self.schedule(back, Event::Return(id, reply));
        self.pump(target);
    }

    /// As the agent's service does it.
    fn answer(&mut self, target: usize, id: u64) -> Reply {
        let Now { now, wall } = self.clock();
        let exchange = &self.exchanges[&id];
        let life = self.nodes[target].life.as_mut().expect("it lives");
        let database = life.database.as_mut().expect("it is a database");
        let busy = Reply::Status { status: 503, retry_after: Some(Duration::from_secs(1)) };
        match &exchange.request {
            Request::Query(query) => {
                if !database.answers() {
                    database.notice_question();
                    return busy;
                }
                let caller = Caller { address: exchange.from, asked_at: Some(exchange.to) };
                let answer = database.query(now, wall, caller, query);
                Reply::Servers { xml: xml::emit_servers(&answer.servers), tier: answer.tier }
            }
            Request::Transfer(_) if !database.answers() => busy,
            Request::Transfer(transfer) => Reply::Entries(xml::emit_transfer(&database.transfer(now, transfer))),
            Request::Register(register) => match database.register(now, wall, &exchange.login, register) {
                Ok(registered) => Reply::Done { interval: Some(registered.interval) },
                Err(refusal) => Reply::Status { status: refusal.status(), retry_after: None },
            },
            Request::Bye(bye) => match database.bye(now, &exchange.login, bye) {
                Ok(_) => Reply::Done { interval: None },
                Err(refusal) => Reply::Status { status: refusal.status(), retry_after: None },
            },
        }
    }

    fn come_back(&mut self, id: u64, reply: Reply) {
        let Some(exchange) = self.exchanges.get(&id) else { return };
        if self.cut(exchange) {
            return;
        }
        if let Some(sender) = exchange.sender
            && self.nodes[sender].is_frozen
        {
            self.nodes[sender].backlog.push(Event::Return(id, reply));
            return;
        }
        if let Some(asker) = self.exchanges.remove(&id).and_then(|exchange| exchange.asker) {
            self.hand_over(asker, reply);
        }
    }

    /// What was sent may still arrive.
    fn give_up(&mut self, id: u64) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        if let Some(sender) = exchange.sender
            && self.nodes[sender].is_frozen
        {
            self.nodes[sender].backlog.push(Event::GiveUp(id));
            return;
        }
        if let Some(asker) = exchange.asker.take() {
            self.hand_over(asker, Reply::None("no answer in time"));
        }
    }

    fn hand_over(&mut self, asker: Asker, reply: Reply) {
        match asker {
            Asker::Client(client, task) => {
                if let Some(asking) = self.clients.get_mut(&client) {
                    asking.locator.handle_answer(task, list(reply));
                    self.poll(client);
                }
            }
            Asker::Process { node, incarnation, back } => {
                let now = self.clock();
                let Node { life, incarnation: current, .. } = &mut self.nodes[node];
                let Some(life) = life.as_mut().filter(|_| *current == incarnation) else { return };
                match back {
                    Back::Call(id) => life.handle_outcome(now.now, id, outcome(reply)),
                    Back::Question(id) => {
                        let answer = list(reply).map(|answer| answer.servers);
                        life.handle_reply(now.now, id, Reported::Databases(answer));
                    }
                    Back::Transfer => {
                        let given = match reply {
                            Reply::Entries(text) => Some(xml::parse_transfer(text.as_bytes()).expect("well-formed")),
                            _ => None,
                        };
                        life.handle_transfer(now, given);
                    }
                }
                self.pump(node);
            }
        }
    }

    /// Lets a process do what is due, and sends what it wants to send.
    fn pump(&mut self, node: usize) {
        let now = self.now;
        let Node { party, life, store, incarnation, is_frozen, .. } = &mut self.nodes[node];
        if *is_frozen {
            return;
        }
        let (party, incarnation) = (*party, *incarnation);
        let Some(living) = life else { return };
        let sendings = living.turn(now, store);
        if living.is_over(now) {
            *life = None;
        }
        for Sending { back, to, login, request } in sendings {
            let asker = Some(Asker::Process { node, incarnation, back });
            self.send(Exchange { asker, sender: Some(node), from: party.source(), to, login, request });
        }
        let Some(next) = self.nodes[node].life.as_ref().and_then(Life::next_timeout) else { return };
        if self.nodes[node].wake.is_none_or(|wake| next < wake) {
            self.nodes[node].wake = Some(next);
            self.schedule(next, Event::Wake(node));
        }
    }
}

fn list(reply: Reply) -> Result<Answer, String> {
    match reply {
        Reply::Servers { xml: text, tier } => {
            let servers = xml::parse_servers(text.as_bytes()).map_err(|error| error.to_string())?;
            Ok(Answer { servers, tier: tier.map(|tier| tier.word().to_owned()) })
        }
        Reply::Status { status, .. } => Err(format!("status {status}")),
        Reply::None(sentence) => Err(sentence.to_owned()),
        other => panic!("no answer to a QUERY: {other:?}"),
    }
}

fn outcome(reply: Reply) -> Outcome {
    match reply {
        Reply::Done { interval } => Outcome::Done { interval },
        Reply::Status { status, retry_after } => Outcome::Refused { sentence: format!("status {status}"), retry_after },
        Reply::None(sentence) => Outcome::Unreachable { sentence: sentence.to_owned() },
        other => panic!("no answer to a REGISTER: {other:?}"),
    }
}
