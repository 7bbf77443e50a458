//! The databases: what they know survives them, and what is gone is forgotten in time.

use crate::{SOON, SSM_RULE};
use anyhow::ensure;
use castgate_e2e::fleet::{Agent, Fleet, HOME, PASSWORD, PASSWORD_HASH, ServerConfig, fleet_country, fleet_root};
use castgate_e2e::lab::Scenario;
use castgate_e2e::peers::bind::{Bind, Zone};
use castgate_e2e::programs::program;
use castgate_e2e::registry;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SERVER: &str = "192.0.2.2";
const COUNTRY: &str = "192.0.2.11";

#[test]
fn a_database_that_was_killed_knows_its_entries_again() {
    Scenario::new(HOME).run(|lab| {
        let config = ServerConfig::home().permit(SSM_RULE);
        let mut fleet = Fleet::start(lab, &config)?;
        let asker = lab.host("home");
        // Without the server nobody can tell the database again what it forgot.
        fleet.server.kill()?;
        for (database, address) in [(fleet_country(lab), SERVER), (fleet_root(lab), COUNTRY)] {
            ensure!(registry::lists(asker, database, "TS", "BE", address)?, "{address} is not in {database}");
        }
        fleet.country.kill()?;
        fleet.root.kill()?;
        ensure!(registry::ask(asker, fleet_root(lab), "ACTION=QUERY&TYPE=TS&COUNTRY=BE").is_err());
        fleet.root.restart()?;
        // The country database is still dead: this the root remembers by itself.
        registry::wait_listed(asker, fleet_root(lab), "TS", "BE", COUNTRY, SOON)?;
        fleet.country.restart()?;
        registry::wait_listed(asker, fleet_country(lab), "TS", "BE", SERVER, SOON)?;
        Ok(())
    });
}

#[test]
fn a_server_that_stops_refreshing_is_gone_after_two_intervals() {
    const INTERVAL: Duration = Duration::from_secs(3);
    Scenario::new(HOME).run(|lab| {
        let interval = u32::try_from(INTERVAL.as_secs())?;
        let mut fleet = Fleet::start_with(lab, &ServerConfig::home().permit(SSM_RULE), interval)?;
        let asker = lab.host("home");
        // Two intervals of refreshes: it stays.
        registry::stays_listed(asker, fleet_country(lab), "TS", "BE", SERVER, INTERVAL * 2 + Duration::from_secs(1))?;
        fleet.server.kill()?;
        let killed = Instant::now();
        registry::wait_unlisted(asker, fleet_country(lab), "TS", "BE", SERVER, INTERVAL * 3)?;
        let after = killed.elapsed();
        // The last refresh was at most one interval (and its jitter of a tenth) before the end.
        ensure!(
            after >= INTERVAL.mul_f64(0.85) && after <= INTERVAL * 2 + Duration::from_secs(1),
            "gone after {after:?}"
        );
        // The database itself goes on being refreshed at its parent.
        ensure!(registry::lists(asker, fleet_root(lab), "TS", "BE", COUNTRY)?);
        Ok(())
    });
}

#[test]
fn a_server_that_says_goodbye_is_gone_at_once() {
    Scenario::new(HOME).run(|lab| {
        let mut fleet = Fleet::start(lab, &ServerConfig::home().permit(SSM_RULE))?;
        let asker = lab.host("home");
        let status = fleet.server.process().interrupt(SOON)?;
        ensure!(status.success(), "the agent ended with {status}");
        // At once: it was said before the agent ended.
        ensure!(!registry::lists(asker, fleet_country(lab), "TS", "BE", SERVER)?, "still listed after BYE");
        let status = fleet.country.process().interrupt(SOON)?;
        ensure!(status.success(), "the agent ended with {status}");
        ensure!(!registry::lists(asker, fleet_root(lab), "TS", "BE", COUNTRY)?, "still listed after BYE");
        Ok(())
    });
}

#[test]
fn nobody_registers_without_an_account() {
    Scenario::new(HOME).run(|lab| {
        let _fleet = Fleet::start(lab, &ServerConfig::home().permit(SSM_RULE))?;
        let asker = lab.host("home");
        let pairs = "TYPE=TS&SOURCE=192.0.2.66&PORT=10100&PROTOCOL=UDP&COUNTRY=BE";
        let register = registry::ask(asker, fleet_country(lab), &format!("ACTION=REGISTER&{pairs}"))?;
        ensure!(register.status == 401, "REGISTER without a login: {}", register.status);
        ensure!(!registry::lists(asker, fleet_country(lab), "TS", "BE", "192.0.2.66")?);
        let bye = registry::ask(asker, fleet_country(lab), &format!("ACTION=BYE&SOURCE={SERVER}&PORT=10100"))?;
        ensure!(bye.status == 401, "BYE without a login: {}", bye.status);
        ensure!(registry::lists(asker, fleet_country(lab), "TS", "BE", SERVER)?, "a stranger said BYE for the server");
        Ok(())
    });
}

#[test]
fn locate_shows_the_way_from_the_root_to_the_server() {
    Scenario::new(HOME).run(|lab| {
        let _fleet = Fleet::start(lab, &ServerConfig::home().permit(SSM_RULE))?;
        let client = lab.host("client");
        let mut locate = client.command(program("castgate")?);
        locate.args(["locate", "--tds", &fleet_root(lab).to_string(), "--country", "BE"]);
        locate.env("XDG_CACHE_HOME", client.folder()).env("HOME", client.folder());
        let text = client.run("castgate locate", locate, SOON)?;
        ensure!(text.contains("192.0.2.2:10100"), "castgate locate printed: {text}");
        // Nobody is there for another country, and the answer says so by its status.
        let mut nobody = client.command(program("castgate")?);
        nobody.args(["locate", "--tds", &fleet_root(lab).to_string(), "--country", "JP"]);
        nobody.env("XDG_CACHE_HOME", client.folder()).env("HOME", client.folder());
        ensure!(client.run("castgate locate", nobody, SOON).is_err(), "a server was located where there is none");
        Ok(())
    });
}

#[test]
fn a_parent_is_found_by_its_name_and_a_peer_of_a_bare_name_by_its_service_record() {
    let topology = "
        internet: names 192.0.2.53/24, country 192.0.2.11/24, peer 192.0.2.12/24, server 192.0.2.2/24, asker 192.0.2.30/24
    ";
    Scenario::new(topology).needs(&["named"]).run(|lab| {
        let at = |host: &str, port: u16| SocketAddr::from((lab.host(host).address("internet"), port));
        let (country, peer) = (at("country", 7_000), at("peer", 5_632));
        let records = format!("_castgate._tcp.be IN SRV 0 0 7000 tds.be\ntds.be IN A {}\n", country.ip());
        let zone = Zone { origin: "lab.example", records: &records };
        let bind = Bind::start(lab.host("names"), at("names", 53), &[zone])?;
        let start = |name: &str, roles: &str| {
            let snapshot = format!("generation: 1\nagent: lab/{name}\n{roles}");
            Agent::start_resolving(lab, lab.host(name), bind.address(), &snapshot)
        };
        let accounts = format!(
            "  accounts:\n    - {{ login: server, passwordHash: \"{PASSWORD_HASH}\", allow: {{ types: [TS], countries: [BE] }} }}\n"
        );
        let login = format!("login: peers, password: \"{PASSWORD}\", waitSeconds: 1");
        let _country =
            start("country", &format!("database:\n  listen: {country}\n  peers: {{ members: [], {login} }}\n{accounts}"))?;
        let _server = start(
            "server",
            &format!(
                "registrar:\n  entries:\n    - {{ type: TS, source: {SERVER}, port: 10100, protocol: UDP, country: BE }}\n  \
                 parents:\n    - {{ url: \"http://tds.be.lab.example:7000\", login: server, password: \"{PASSWORD}\" }}\n"
            ),
        )?;
        let asker = lab.host("asker");
        registry::wait_listed(asker, country, "TS", "BE", SERVER, SOON)?;
        let _peer = start(
            "peer",
            &format!("database:\n  listen: {peer}\n  peers: {{ members: [be.lab.example], {login} }}\n{accounts}"),
        )?;
        registry::wait_listed(asker, peer, "TS", "BE", SERVER, SOON)
    });
}
