//! Two minutes in which one process of the picture after the other is killed, loses its disk, is stopped, is cut off or leaves, while
//! clients ask all the time. Each answer is right, or was within two intervals; who said BYE does not come back; at the end everybody
//! is where he belongs.

use crate::SOON;
use crate::judge::{Judge, Presence};
use crate::parties::{Kind, Party};
use crate::picture::{PARTIES, TOPOLOGY, everybody_gets_his_list, start};
use anyhow::{Context, Result, bail, ensure};
use castgate_e2e::fleet::{Agent, DATABASE_PORT, PASSWORD, TUNNEL_PORT};
use castgate_e2e::lab::{Lab, Scenario, random::Random, wait};
use castgate_e2e::programs::program;
use castgate_e2e::registry;
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Short, so that entries come and go within the test.
const INTERVAL: Duration = Duration::from_secs(3);
const TEST: Duration = Duration::from_mins(2);
/// Longest time until a fault is forgotten: a registrar that was refused for a while tries again within 8 s, a request that nobody
/// answers takes 10.
const CONVERGE: Duration = Duration::from_mins(1);
/// Who asks at one time.
const ASKERS: usize = 2;
/// Longest run of `castgate locate`: ten seconds for each of a few databases that do not answer.
const LOCATE: Duration = Duration::from_mins(1);

/// A client: host, country, the ways to its servers, the right one first. A way is the parties without a peer that it leads through,
/// with the server at its end. The neighbour of two countries is sent to either.
type Position = (&'static str, &'static str, &'static [&'static [&'static str]], bool);

const POSITIONS: &[Position] = &[
    ("japan", "JP", &[&["public"]], false),
    ("belgium", "none", &[&["public"]], false),
    ("netherlands", "NL", &[&["beserver"], &["fr", "frserver"]], true),
    ("belgium", "BE", &[&["beserver"]], false),
    // France has one database. While it is away its people hear nothing, and when the roots have forgotten it they get a neighbour's.
    ("france", "FR", &[&["fr", "frserver"], &["beserver"]], false),
    ("subscriber", "BE", &[&["ispserver"]], false),
    ("office", "BE", &[&["corpserver"], &["campus"]], false),
    ("branch", "BE", &[&["campus"]], false),
    ("sofa", "BE", &[&["nated"], &["beserver"]], false),
];

/// Who is registered where when all is well.
const HOMES: &[(&[&str], &[&str])] = &[
    (&["root1", "root2"], &["be1", "be2", "fr", "public"]),
    (&["be1", "be2"], &["isp1", "isp2", "beserver", "nated"]),
    (&["fr"], &["frserver"]),
    (&["isp1", "isp2"], &["corp1", "corp2", "ispserver"]),
    (&["corp1", "corp2"], &["corpserver", "campus"]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    /// Killed, and its disk is lost.
    Empty,
    /// SIGSTOP, at last SIGCONT.
    Stop,
    /// Stopped for most of every second.
    Slow,
    /// Nothing comes in or out.
    Cut,
    /// It says BYE and ends.
    Leave,
}

#[test]
fn whatever_process_fails_clients_are_told_what_is_right_or_was_two_intervals_ago() {
    Scenario::new(TOPOLOGY).run(|lab| {
        let seed = std::env::var("CASTGATE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        let agents = start(lab, INTERVAL)?;
        let mut trial = Trial::new(lab, agents, seed);
        trial.run().with_context(|| format!("CASTGATE_SEED={seed}\n{}", trial.told()))
    });
}

struct Trial<'a> {
    lab: &'a Lab,
    agents: BTreeMap<&'static str, Agent<'a>>,
    random: Random,
    begin: Instant,
    log: Mutex<Vec<String>>,
    faults: usize,
    /// Databases, each with its process, that have not had a server since it said BYE.
    without: BTreeSet<(&'static str, u32, &'static str)>,
}

impl<'a> Trial<'a> {
    fn new(lab: &'a Lab, agents: BTreeMap<&'static str, Agent<'a>>, seed: u64) -> Self {
        Self {
            lab,
            agents,
            random: Random::new(seed),
            begin: Instant::now(),
            log: Mutex::default(),
            faults: 0,
            without: BTreeSet::new(),
        }
    }

    fn run(&mut self) -> Result<()> {
        let lab = self.lab;
        let (is_over, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
        // The askers have these two in common with us.
        let judge = &Mutex::new(Judge::new(INTERVAL));
        let wrong: Mutex<Option<String>> = Mutex::default();
        let outcome = std::thread::scope(|scope| {
            for asker in 0..ASKERS {
                let (is_over, answers, wrong) = (&is_over, &answers, &wrong);
                scope.spawn(move || {
                    let mine = POSITIONS.iter().skip(asker).step_by(ASKERS).cycle();
                    for position in mine.take_while(|_| !is_over.load(Ordering::Relaxed)) {
                        match ask(lab, judge, position) {
                            Ok(()) => _ = answers.fetch_add(1, Ordering::Relaxed),
                            Err(error) => _ = lock(wrong).get_or_insert_with(|| format!("{error:#}")),
                        }
                    }
                });
            }
            let outcome = self.fail_one_after_the_other(judge, &wrong);
            is_over.store(true, Ordering::Relaxed);
            outcome
        });
        if let Some(wrong) = lock(&wrong).take() {
            bail!("{wrong}");
        }
        outcome?;
        let (faults, answers) = (self.faults, answers.into_inner());
        println!("{faults} faults, {answers} answers, all of them right");
        ensure!(faults >= 6 && answers >= 50, "{faults} faults, {answers} answers: too few to tell anything");
        everybody_gets_his_list(lab)
    }

    fn fail_one_after_the_other(&mut self, judge: &Mutex<Judge>, wrong: &Mutex<Option<String>>) -> Result<()> {
        while self.begin.elapsed() < TEST {
            let party = &PARTIES[self.below(PARTIES.len())];
            let fault = self.draw(party);
            let part = [300, 1_000, 2_000, 3_000, 5_000, 9_000][self.below(6)];
            self.say(&format!("{} {fault:?} for {part} ms", party.name));
            self.begin(party, fault, judge)?;
            self.watch(party, fault, Duration::from_millis(part), judge, wrong)?;
            self.end(party, fault, judge)?;
            self.say(&format!("{} is healed", party.name));
            self.converge(wrong)?;
            lock(judge).note(party.name, Presence::There);
            self.faults += 1;
            self.say("everybody is in his place");
        }
        Ok(())
    }

    fn draw(&mut self, party: &Party) -> Fault {
        let of_databases = [Fault::Kill, Fault::Empty, Fault::Stop, Fault::Slow, Fault::Cut];
        let of_servers = [Fault::Kill, Fault::Leave, Fault::Leave, Fault::Stop, Fault::Cut];
        let fault = self.below(of_databases.len());
        match (party.kind, of_databases[fault]) {
            (Kind::Server, _) => of_servers[fault],
            // There is nobody who could tell it what it has lost.
            (Kind::Database { .. }, Fault::Empty) if party.name == "fr" => Fault::Kill,
            (_, fault) => fault,
        }
    }

    fn begin(&mut self, party: &Party, fault: Fault, judge: &Mutex<Judge>) -> Result<()> {
        let host = self.lab.host(party.name);
        let agent = self.agents.get_mut(party.name).context("it runs")?;
        let presence = match fault {
            Fault::Kill | Fault::Empty | Fault::Leave => Presence::Gone,
            Fault::Stop | Fault::Slow | Fault::Cut => Presence::Unsure,
        };
        // Its goodbye is heard before it has ended.
        lock(judge).note(party.name, if fault == Fault::Leave { Presence::Unsure } else { presence });
        match fault {
            Fault::Kill => agent.kill()?,
            Fault::Empty => {
                agent.kill()?;
                agent.forget()?;
            }
            Fault::Stop | Fault::Slow => agent.process().signal(Signal::STOP)?,
            Fault::Cut => host.nft(
                "table inet fault {
                    chain in { type filter hook input priority -10; iifname != \"lo\" drop; }
                    chain out { type filter hook output priority -10; oifname != \"lo\" drop; }
                }",
            )?,
            Fault::Leave => {
                ensure!(agent.process().interrupt(SOON)?.success(), "{} does not end well", party.name);
                lock(judge).note(party.name, presence);
            }
        }
        Ok(())
    }

    /// While it lasts, goodbyes are audited.
    fn watch(
        &mut self,
        party: &Party,
        fault: Fault,
        time: Duration,
        judge: &Mutex<Judge>,
        wrong: &Mutex<Option<String>>,
    ) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            ensure!(lock(wrong).is_none(), "somebody was told what is wrong");
            if fault == Fault::Leave {
                self.audit(party, judge)?;
            }
            if fault == Fault::Slow {
                let process = self.agents.get_mut(party.name).context("it runs")?.process();
                process.signal(Signal::CONT)?;
                std::thread::sleep(Duration::from_millis(150));
                process.signal(Signal::STOP)?;
            }
            let left = end.saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(Duration::from_millis(700)));
        }
        Ok(())
    }

    fn end(&mut self, party: &Party, fault: Fault, judge: &Mutex<Judge>) -> Result<()> {
        let host = self.lab.host(party.name);
        let agent = self.agents.get_mut(party.name).context("it runs")?;
        self.without.retain(|(_, _, server)| *server != party.name);
        lock(judge).note(party.name, Presence::Unsure);
        match fault {
            Fault::Kill | Fault::Empty | Fault::Leave => {
                agent.restart()?;
                match party.kind {
                    Kind::Server => host.wait_udp(TUNNEL_PORT, SOON)?,
                    Kind::Root(_) | Kind::Database { .. } => {
                        lock(judge).note_restart();
                        host.wait_tcp(DATABASE_PORT, SOON)?;
                    }
                }
            }
            Fault::Stop | Fault::Slow => agent.process().signal(Signal::CONT)?,
            Fault::Cut => host.nft("delete table inet fault")?,
        }
        Ok(())
    }

    /// Until every database holds those that belong to it, and nobody else.
    fn converge(&self, wrong: &Mutex<Option<String>>) -> Result<()> {
        let mut last = String::new();
        let lab = self.lab;
        let converged = wait::until_every(Duration::from_millis(300), "everybody in his place", CONVERGE, || {
            if lock(wrong).is_some() {
                return Some(());
            }
            everybody_is_in_his_place(lab).map_err(|error| last = format!("{error:#}")).ok()
        });
        ensure!(lock(wrong).is_none(), "somebody was told what is wrong");
        converged.with_context(|| last)
    }

    /// A database that has let a server go that said BYE does not get it back.
    fn audit(&mut self, server: &Party, judge: &Mutex<Judge>) -> Result<()> {
        let address = IpAddr::from(server.address(self.lab));
        for party in PARTIES.iter().filter(|party| party.kind != Kind::Server) {
            let process = self.agents.get_mut(party.name).context("it runs")?.process().pid();
            let is_held = held(self.lab, party.name)?.contains(&address);
            let key = (party.name, process, server.name);
            ensure!(
                !(is_held && self.without.contains(&key)),
                "{} said BYE and is back at {}",
                server.name,
                party.name
            );
            let since = lock(judge).gone_since(server.name).map(|since| since.elapsed()).unwrap_or_default();
            let age_max = lock(judge).age_max();
            ensure!(!is_held || since < age_max, "{} said BYE {since:?} ago and is at {}", server.name, party.name);
            if !is_held {
                self.without.insert(key);
            }
        }
        Ok(())
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.random.bits16()) % end
    }

    fn say(&self, what: &str) {
        lock(&self.log).push(format!("{:>6.1} s  {what}", self.begin.elapsed().as_secs_f64()));
    }

    fn told(&self) -> String {
        lock(&self.log).join("\n")
    }
}

/// One client asks; what it is told is judged.
fn ask(lab: &Lab, judge: &Mutex<Judge>, (host, country, ways, any): &Position) -> Result<()> {
    let client = lab.host(host);
    let mut locate = client.command(program("castgate")?);
    locate.args(["locate", "--json", "--country", country]);
    for root in ["root1", "root2"] {
        locate.args(["--tds", &lab.host(root).address("internet").to_string()]);
    }
    locate.env("XDG_CACHE_HOME", client.folder()).env("HOME", client.folder());
    let asked = Instant::now();
    let mut process = client.spawn("castgate locate", locate)?;
    // It fails where there are no servers; that is an answer as well.
    process.wait(LOCATE)?;
    let text = process.stdout();
    let answer: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("castgate locate printed {text}{}", process.stderr()))?;
    let servers = answer["servers"].as_array().context("no list of servers")?;
    let servers = servers.iter().filter_map(|server| server["server"].as_str());
    let list: Vec<&str> = servers.map(|server| name(lab, server)).collect();
    let is_right = lock(judge).allows(asked, ways, *any, &list);
    ensure!(is_right, "{host} in {country} gets {list:?}: {text}");
    Ok(())
}

/// The party that has a tunnel server there.
fn name(lab: &Lab, server: &str) -> &'static str {
    let is_it = |party: &&Party| format!("{}:{TUNNEL_PORT}", party.address(lab)) == server;
    PARTIES.iter().find(is_it).map_or("a stranger", |party| party.name)
}

fn everybody_is_in_his_place(lab: &Lab) -> Result<()> {
    for (databases, entries) in HOMES {
        let address = |entry: &&str| {
            let party = PARTIES.iter().find(|party| party.name == *entry).expect("a party");
            IpAddr::from(party.address(lab))
        };
        let expected: BTreeSet<IpAddr> = entries.iter().map(address).collect();
        for database in *databases {
            let held = held(lab, database)?;
            ensure!(held == expected, "{database} holds {held:?}, not {expected:?}");
            let place = SocketAddr::from((lab.host(database).address("internet"), DATABASE_PORT));
            let answer = registry::ask(lab.host("japan"), place, "ACTION=QUERY&TYPE=TS")?;
            ensure!(answer.status == 200, "{database} answers {}: {}", answer.status, answer.body);
        }
    }
    Ok(())
}

fn held(lab: &Lab, database: &str) -> Result<BTreeSet<IpAddr>> {
    let place = SocketAddr::from((lab.host(database).address("internet"), DATABASE_PORT));
    registry::held(lab.host("sweden"), place, "peers", PASSWORD)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
