//! One process after the other is killed, loses its disk, is cut off, freezes, is slow or leaves, while clients ask. Whatever happens:
//! a client gets a list that is right, or was right two intervals ago; an entry that said BYE does not come back; at the end everybody
//! is where he belongs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use castgate_endpoint::hierarchy::locator::Cache;

use crate::judge::{Audit, Judge, POSITIONS, Presence};
use crate::net::Net;
use crate::picture::{PARTIES, Party};
use crate::positions::{everybody_is_in_his_place, name};

const INTERVAL: Duration = Duration::from_mins(5);
const SEEDS: u64 = 36;
const FAULTS: usize = 14;
/// A walk that takes longer is one that hangs.
const ANSWER_MAX: Duration = Duration::from_mins(2);

#[test]
fn whatever_fails_clients_are_told_what_is_right_or_was_two_intervals_ago() {
    if let Ok(seed) = std::env::var("CASTGATE_SEED") {
        return Trial::new(seed.parse().expect("a number")).run();
    }
    let lanes: Vec<Vec<u64>> = (0..2).map(|lane| (0..SEEDS).filter(|seed| seed % 2 == lane).collect()).collect();
    std::thread::scope(|scope| {
        for lane in lanes {
            scope.spawn(move || lane.into_iter().for_each(|seed| Trial::new(seed).run()));
        }
    });
}

/// What is done to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    /// Killed, and its disk is lost.
    Empty,
    Freeze,
    Cut,
    /// Every request takes so many seconds.
    Slow(u64),
    /// It says BYE and ends.
    Leave,
}

struct Trial {
    seed: u64,
    net: Net,
    judge: Judge,
    audit: Audit,
    /// Servers that said BYE and are not back.
    away: Vec<usize>,
    /// Who asks at this moment: position, since when.
    asking: BTreeMap<u64, (usize, Instant)>,
    caches: Vec<Option<Cache>>,
    answers: usize,
    log: Vec<String>,
}

impl Trial {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            net: Net::started(INTERVAL, seed),
            judge: Judge::new(INTERVAL),
            audit: Audit::default(),
            away: Vec::new(),
            asking: BTreeMap::new(),
            caches: vec![None; POSITIONS.len()],
            answers: 0,
            log: Vec::new(),
        }
    }

    fn run(mut self) {
        let begin = self.net.now;
        for _ in 0..FAULTS {
            self.one_after_the_other();
        }
        self.pass(INTERVAL * 5);
        if let Err(error) = everybody_is_in_his_place(&self.net) {
            self.fail(&error);
        }
        let took = self.net.now - begin;
        assert!(took > Duration::from_mins(10) && self.answers > 500, "{took:?}, {} answers", self.answers);
    }

    fn one_after_the_other(&mut self) {
        let node = usize::try_from(self.net.random.below(PARTIES.len() as u64)).expect("small");
        let party = &PARTIES[node];
        let fault = self.draw(party);
        let part = *self.net.random.pick(&[5, 20, 60, 150, 300, 330, 450, 700, 1_300]);
        let time = Duration::from_millis(part * (800 + self.net.random.below(400)));
        self.say(&format!("{} {fault:?} for {} s", party.name, time.as_secs()));
        self.begin(node, fault);
        let begun = self.net.now;
        // Now and then a server leaves while a database is not itself.
        let leaver = (party.is_database() && self.net.random.below(3) == 0).then(|| self.leaver());
        match leaver {
            Some(leaver) => {
                self.pass(time / 2);
                self.say(&format!("{} leaves meanwhile", PARTIES[leaver].name));
                self.begin(leaver, Fault::Leave);
                self.pass(time / 2);
            }
            None => self.pass(time),
        }
        self.end(node, fault);
        if fault == Fault::Freeze {
            self.judge.note_thaw(self.net.now, self.net.now - begun);
        }
        if let Some(leaver) = leaver {
            let rest = Duration::from_secs(self.net.random.below(1_200));
            self.pass(rest);
            self.say(&format!("{} is back", PARTIES[leaver].name));
            self.end(leaver, Fault::Leave);
        }
        let patience = self.net.now + INTERVAL * 12;
        while !(self.net.is_settled() && self.net.is_heard()) {
            if self.net.now > patience {
                let who = self.net.unsettled();
                self.fail(&format!("{who:?} do not come to rest"));
            }
            self.pass(Duration::from_secs(5));
        }
        self.say("settled");
        for party in PARTIES.iter().filter(|party| !party.is_database()) {
            self.judge.note(self.net.now, party.name, Presence::There);
        }
        let rest = Duration::from_secs(self.net.random.below(400));
        self.pass(rest);
    }

    fn draw(&mut self, party: &Party) -> Fault {
        let slow = Fault::Slow(1 + self.net.random.below(15));
        if party.is_database() {
            *self.net.random.pick(&[Fault::Kill, Fault::Empty, Fault::Freeze, Fault::Cut, slow])
        } else {
            *self.net.random.pick(&[Fault::Kill, Fault::Freeze, Fault::Cut, Fault::Leave, Fault::Leave])
        }
    }

    fn leaver(&mut self) -> usize {
        let servers: Vec<usize> = (0..PARTIES.len()).filter(|node| !PARTIES[*node].is_database()).collect();
        *self.net.random.pick(&servers)
    }

    fn begin(&mut self, node: usize, fault: Fault) {
        let presence = match fault {
            Fault::Kill | Fault::Empty | Fault::Leave => Presence::Gone,
            Fault::Freeze | Fault::Cut | Fault::Slow(_) => Presence::Unsure,
        };
        match fault {
            Fault::Kill => self.net.kill(node),
            Fault::Empty => {
                self.net.kill(node);
                self.net.forget(node);
            }
            Fault::Freeze => self.net.freeze(node),
            Fault::Cut => self.net.nodes[node].is_cut = true,
            Fault::Slow(seconds) => self.net.nodes[node].delay = Duration::from_secs(seconds),
            Fault::Leave => {
                self.net.leave(node);
                self.away.push(node);
            }
        }
        self.judge.note(self.net.now, PARTIES[node].name, presence);
    }

    fn end(&mut self, node: usize, fault: Fault) {
        let party = &PARTIES[node];
        match fault {
            Fault::Kill | Fault::Empty | Fault::Leave => {
                self.away.retain(|other| *other != node);
                self.audit.returned(party.socket());
                // It may still say goodbye.
                while self.net.nodes[node].life.is_some() {
                    self.pass(Duration::from_secs(1));
                }
                if party.is_database() {
                    self.judge.note_restart(self.net.now);
                }
                self.net.launch(node);
            }
            Fault::Freeze => self.net.thaw(node),
            Fault::Cut => self.net.nodes[node].is_cut = false,
            Fault::Slow(_) => self.net.nodes[node].delay = Duration::ZERO,
        }
        self.judge.note(self.net.now, party.name, Presence::Unsure);
        self.say(&format!("{} is healed", party.name));
    }

    /// Time passes; every few seconds somebody asks, and everything is looked at.
    fn pass(&mut self, time: Duration) {
        let end = self.net.now + time;
        while self.net.now < end {
            let step = Duration::from_millis(500 + self.net.random.below(9_000)).min(end - self.net.now);
            self.net.pass(step);
            self.look();
            let position = usize::try_from(self.net.random.below(POSITIONS.len() as u64)).expect("small");
            let place: IpAddr = POSITIONS[position].address.parse().expect("an address");
            let cache = self.caches[position].clone().filter(|_| self.net.random.below(2) == 0);
            let client = self.net.ask(place, POSITIONS[position].country, cache);
            self.asking.insert(client, (position, self.net.now));
        }
    }

    fn look(&mut self) {
        let now = self.net.now;
        for (client, (position, asked)) in std::mem::take(&mut self.asking) {
            let Some(got) = self.net.got(client) else {
                if now - asked > ANSWER_MAX {
                    self.fail(&format!("a client waits since {:?}", now - asked));
                }
                self.asking.insert(client, (position, asked));
                continue;
            };
            let list: Vec<&str> = got.servers.iter().map(|address| name(*address)).collect();
            if !self.judge.allows(asked, now, &POSITIONS[position], &list) {
                self.fail(&format!("{:?} gets {list:?}: {}", POSITIONS[position], got.hops));
            }
            self.answers += 1;
            self.caches[position] = got.cache.or(self.caches[position].take());
        }
        for server in self.away.clone() {
            // A goodbye is under way for a moment.
            if self.net.nodes[server].life.is_some() {
                continue;
            }
            let Some(since) = self.judge.gone_since(PARTIES[server].name) else { continue };
            let socket = PARTIES[server].socket();
            let is_over = now - since > self.judge.age_max(now);
            for database in (0..PARTIES.len()).filter(|node| PARTIES[*node].is_database()) {
                let Some(process) = self.net.process(database) else { continue };
                let is_held = self.net.held(database).contains(&socket);
                let (server, database_name) = (PARTIES[server].name, PARTIES[database].name);
                if !self.audit.look(now, (database, process), socket, is_held) {
                    self.fail(&format!("{server}, which said BYE, is back at {database_name}"));
                }
                if is_held && is_over {
                    self.fail(&format!("{server} said BYE {:?} ago and is still at {database_name}", now - since));
                }
            }
        }
    }

    fn say(&mut self, what: &str) {
        let at = (self.net.now - self.net.start).as_secs();
        self.log.push(format!("{at:>6} s  {what}"));
    }

    fn fail(&mut self, what: &str) -> ! {
        self.say(what);
        panic!("CASTGATE_SEED={}\n{}", self.seed, self.log.join("\n"));
    }
}
