//! Three databases on an etcd of three members, all of which may die.
//!
//! ```text
//!   client ─▶ one, two, three (castgate databases) ─▶ etcd1 ═ etcd2 ═ etcd3
//!               └─▶ root (a database with a store of its own)
//! ```

use crate::SOON;
use anyhow::{Context, Result, ensure};
use castgate_e2e::fleet::{Agent, DATABASE_PORT, PASSWORD, PASSWORD_HASH};
use castgate_e2e::lab::{Lab, Scenario, wait};
use castgate_e2e::peers::etcd::{CLIENT_PORT, Etcd};
use castgate_e2e::registry::{self, Answer};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const TOPOLOGY: &str = "
    site: etcd1 10.5.0.1/24, etcd2 10.5.0.2/24, etcd3 10.5.0.3/24, one 10.5.0.11/24, two 10.5.0.12/24, three 10.5.0.13/24, \
        root 10.5.0.14/24, client 10.5.0.20/24
";
const DATABASES: [&str; 3] = ["one", "two", "three"];
const ETCDS: [&str; 3] = ["etcd1", "etcd2", "etcd3"];
/// Beyond what any of these tests takes: nothing goes because it is not refreshed.
const LONG_INTERVAL: u32 = 300;
/// Between two questions of one address, as far as a database puts up with.
const ASK_AGAIN: Duration = Duration::from_millis(200);

#[test]
fn no_entry_is_lost_and_none_comes_back_whichever_member_or_database_dies() {
    Scenario::new(TOPOLOGY).run(|lab| {
        let mut etcd = etcd(lab)?;
        etcd.start_all()?;
        let mut site = Site::start(lab, LONG_INTERVAL)?;

        // What one was told, it knows when it answers, and the others a moment later.
        site.register("one", 1)?;
        ensure!(site.holds("one")? == [1]);
        site.everybody_holds(&[1])?;

        // Each member once, the leader among them.
        for (number, port) in [(0, 2), (1, 3), (2, 4)] {
            etcd.kill(number)?;
            for database in DATABASES {
                ensure!(site.holds(database)?.contains(&1), "{database} forgot when a member died");
            }
            site.register(DATABASES[number], port)?;
            let expected: Vec<u16> = (1..=port).collect();
            site.everybody_holds(&expected)?;
            etcd.start([number])?;
            etcd.wait_serving(number)?;
        }

        // A member that nobody reaches any more, while its connections stand.
        lab.host("etcd1").nft(&format!(
            "table inet cut {{\n\
             chain input {{ type filter hook input priority 0; tcp dport {CLIENT_PORT} drop\n}}\n\
             chain output {{ type filter hook output priority 0; tcp sport {CLIENT_PORT} drop\n}}\n}}"
        ))?;
        for (database, port) in DATABASES.into_iter().zip(5..) {
            site.register(database, port)?;
        }
        site.everybody_holds(&[1, 2, 3, 4, 5, 6, 7])?;
        lab.host("etcd1").nft("delete table inet cut")?;

        // All of them: what is known is answered, and nothing is promised.
        (0..3).try_for_each(|number| etcd.kill(number))?;
        for database in DATABASES {
            let refused = site.tell(database, "REGISTER", 8)?;
            ensure!(refused.status == 503, "{refused:?}");
            ensure!(refused.header.to_lowercase().contains("\r\nretry-after: "), "{refused:?}");
            ensure!(site.tell(database, "BYE", 1)?.status == 503);
            ensure!(site.holds(database)? == [1, 2, 3, 4, 5, 6, 7]);
        }
        etcd.start_all()?;
        site.everybody_holds(&[1, 2, 3, 4, 5, 6, 7])?;
        site.register("two", 8)?;

        // A database that lost its disk has everything again.
        site.start_empty("two")?;
        site.everybody_holds(&[1, 2, 3, 4, 5, 6, 7, 8])?;

        // A BYE at one of them is a BYE at all, and stays one for those who start after it.
        ensure!(site.tell("one", "BYE", 3)?.status == 200);
        ensure!(site.holds("one")? == [1, 2, 4, 5, 6, 7, 8]);
        site.everybody_holds(&[1, 2, 4, 5, 6, 7, 8])?;
        site.start_empty("three")?;
        site.everybody_holds(&[1, 2, 4, 5, 6, 7, 8])?;

        // Registered at one and said goodbye to at the next at once.
        site.register("one", 9)?;
        ensure!(site.tell("two", "BYE", 9)?.status == 200);
        site.everybody_holds(&[1, 2, 4, 5, 6, 7, 8])
    });
}

#[test]
fn an_entry_goes_when_nobody_refreshes_it_and_stays_when_anybody_does_without_a_new_revision() {
    Scenario::new(TOPOLOGY).run(|lab| {
        let mut etcd = etcd(lab)?;
        etcd.start_all()?;
        let site = Site::start(lab, 3)?;
        site.register("one", 1)?;
        site.register("one", 2)?;
        site.everybody_holds(&[1, 2])?;
        let revision = revision(&etcd)?;
        // Three lives of an entry, refreshed wherever it happens to be.
        let start = Instant::now();
        let mut round = DATABASES.iter().cycle();
        let gone = wait::until_every(Duration::from_secs(1), "two lives of an entry", SOON * 2, || {
            let database = round.next().expect("a cycle has no end");
            if let Err(error) = site.register(database, 2) {
                return Some(Err(error));
            }
            (start.elapsed() > Duration::from_secs(20)).then_some(Ok(()))
        });
        gone??;
        site.everybody_holds(&[2])?;
        ensure!(self::revision(&etcd)? == revision + 1, "the end of one entry is all that was written");
        // And what it says may change.
        let answer = site.tell_about("three", "REGISTER", 2, "&NETWORKS=10.5.0.0/24&COUNTRY=BE")?;
        ensure!(answer.status == 200, "{answer:?}");
        ensure!(self::revision(&etcd)? == revision + 2);
        Ok(())
    });
}

#[test]
fn nobody_is_answered_and_nobody_announced_before_etcd_was_read() {
    Scenario::new(TOPOLOGY).run(|lab| {
        let mut etcd = etcd(lab)?;
        let (client, root) = (lab.host("client"), SocketAddr::from((lab.host("root").address("site"), DATABASE_PORT)));
        let _root = Agent::start(lab, lab.host("root"), &root_snapshot(root))?;
        lab.host("root").wait_tcp(DATABASE_PORT, SOON)?;
        let site = Site::start(lab, LONG_INTERVAL)?;
        for action in ["REGISTER", "BYE"] {
            let answer = site.tell("one", action, 1)?;
            ensure!(answer.status == 503 && answer.body.contains("has not read etcd yet"), "{answer:?}");
        }
        let answer = site.query("one")?;
        ensure!(answer.status == 503 && answer.header.to_lowercase().contains("\r\nretry-after: "), "{answer:?}");
        let start = Instant::now();
        wait::until_every(ASK_AGAIN, "a second without announcements", SOON, || {
            match registry::lists(client, root, "TDS", "BE", "10.5.0.11") {
                Ok(true) => Some(Err(anyhow::anyhow!("a database that has read nothing is announced"))),
                Ok(false) => (start.elapsed() > Duration::from_secs(1)).then_some(Ok(())),
                Err(error) => Some(Err(error)),
            }
        })??;
        etcd.start_all()?;
        registry::wait_listed(client, root, "TDS", "BE", "10.5.0.11", SOON)?;
        site.everybody_holds(&[])?;
        // Nothing of what was refused comes in late.
        site.register("one", 2)?;
        site.everybody_holds(&[2])
    });
}

/// The databases, and who talks to them.
struct Site<'a> {
    lab: &'a Lab,
    interval_seconds: u32,
    agents: Vec<Agent<'a>>,
}

impl<'a> Site<'a> {
    fn start(lab: &'a Lab, interval_seconds: u32) -> Result<Self> {
        let mut site = Self { lab, interval_seconds, agents: Vec::new() };
        for database in DATABASES {
            site.agents.push(site.agent(database)?);
        }
        Ok(site)
    }

    fn agent(&self, name: &str) -> Result<Agent<'a>> {
        let endpoints = ETCDS.map(|etcd| format!("\"http://{}:{CLIENT_PORT}\"", self.lab.host(etcd).address("site")));
        let snapshot = format!(
            "generation: 1
agent: lab/{name}
database:
  listen: {}
  updateIntervalSeconds: {}
  requestsPerMinuteMax: 100000
  store: {{ etcd: {{ endpoints: [{}], prefix: /castgate/lab/ }} }}
  accounts:
    - {{ login: be, passwordHash: \"{PASSWORD_HASH}\", allow: {{ types: [TS], networks: [0.0.0.0/0], countries: [BE] }} }}
",
            self.address(name),
            self.interval_seconds,
            endpoints.join(", ")
        );
        let snapshot = if name == "one" {
            let (one, root) = (self.lab.host("one").address("site"), self.lab.host("root").address("site"));
            format!(
                "{snapshot}registrar:
  entries: [{{ type: TDS, source: {one}, port: {DATABASE_PORT}, country: BE }}]
  parents: [{{ url: \"http://{root}:{DATABASE_PORT}\", login: be, password: \"{PASSWORD}\" }}]
  retrySeconds: 1
"
            )
        } else {
            snapshot
        };
        let host = self.lab.host(name);
        let mut agent = Agent::start(self.lab, host, &snapshot)?;
        let stands = host.wait_tcp(DATABASE_PORT, SOON);
        stands.with_context(|| format!("{name} said: {}", agent.process().stderr()))?;
        Ok(agent)
    }

    fn address(&self, name: &str) -> SocketAddr {
        SocketAddr::from((self.lab.host(name).address("site"), DATABASE_PORT))
    }

    /// Kills a database, takes its disk away and starts it.
    fn start_empty(&mut self, name: &str) -> Result<()> {
        let number = DATABASES.iter().position(|database| *database == name).context("no database of this site")?;
        self.agents[number].kill()?;
        std::fs::remove_dir_all(self.lab.folder().join(format!("{name}-state")))?;
        self.agents[number] = self.agent(name)?;
        Ok(())
    }

    fn tell(&self, database: &str, action: &str, port: u16) -> Result<Answer> {
        self.tell_about(database, action, port, if action == "REGISTER" { "&COUNTRY=BE" } else { "" })
    }

    fn tell_about(&self, database: &str, action: &str, port: u16, more: &str) -> Result<Answer> {
        let pairs = format!("ACTION={action}&TYPE=TS&PROTOCOL=UDP&SOURCE=192.0.2.1&PORT={port}{more}");
        registry::tell(self.lab.host("client"), self.address(database), "be", PASSWORD, &pairs)
    }

    /// Registers, and comes again when it is told to.
    fn register(&self, database: &str, port: u16) -> Result<()> {
        let what = format!("{database} takes port {port}");
        wait::until_every(Duration::from_secs(1), &what, SOON, || match self.tell(database, "REGISTER", port) {
            Ok(answer) if answer.status == 200 => Some(Ok(())),
            Ok(answer) if answer.status == 503 => None,
            Ok(answer) => Some(Err(anyhow::anyhow!("{database} answers {answer:?}"))),
            Err(error) => Some(Err(error)),
        })?
    }

    fn query(&self, database: &str) -> Result<Answer> {
        let pairs = "ACTION=QUERY&TYPE=TS&PROTOCOL=UDP&COUNTRY=BE";
        registry::ask(self.lab.host("client"), self.address(database), pairs)
    }

    /// The ports of what a database answers with, in order.
    fn holds(&self, database: &str) -> Result<Vec<u16>> {
        let answer = self.query(database)?;
        ensure!(answer.status == 200, "{database} answers {answer:?}");
        let ports = answer.body.split("<PORT>").skip(1).filter_map(|rest| rest.split('<').next()?.trim().parse().ok());
        let mut ports: Vec<u16> = ports.collect();
        ports.sort_unstable();
        Ok(ports)
    }

    fn everybody_holds(&self, expected: &[u16]) -> Result<()> {
        for database in DATABASES {
            let mut seen = String::new();
            let what = format!("{expected:?} at {database}");
            let holds = wait::until_every(ASK_AGAIN, &what, SOON, || {
                let held = self.holds(database);
                seen = format!("{held:?}");
                held.ok().filter(|held| held == expected).map(drop)
            });
            holds.with_context(|| format!("the last answer was {seen}"))?;
        }
        Ok(())
    }
}

/// A database above, with a store of its own.
fn root_snapshot(listen: SocketAddr) -> String {
    format!(
        "generation: 1
agent: lab/root
database:
  listen: {listen}
  accounts: [{{ login: be, passwordHash: \"{PASSWORD_HASH}\", allow: {{ types: [TDS], countries: [BE] }} }}]
"
    )
}

fn etcd(lab: &Lab) -> Result<Etcd<'_>> {
    Etcd::new(&ETCDS.map(|host| lab.host(host)), "site", &[])
}

/// The newest revision.
fn revision(etcd: &Etcd) -> Result<i64> {
    let answer = etcd.post(0, "/v3/kv/range", r#"{"key":"AA==","limit":"1"}"#)?;
    let (_, rest) = answer.split_once("\"revision\":\"").context("an answer without a revision")?;
    Ok(rest.split('"').next().unwrap_or_default().parse()?)
}
