//! The draft's picture, and what every client position in it gets.
//!
//! ```text
//!   root1 ═ root2 ── public                                         0.0.0.0/0
//!     ├── be1 ═ be2 ── be-server, nated (behind NAT)                 BE
//!     │     └── isp1 ═ isp2 ── isp-server                            134.184.0.0/16 and 135.0.0.0/16 in BE
//!     │            └── corp1 ═ corp2 ── corp-server, campus          134.184.0.0/16 again: the ISP's customer
//!     └── fr ── fr-server                                            FR
//! ```
//! `═` is a peer. Nobody but the roots is named in a configuration: everybody finds his place from there.

use crate::SOON;
use crate::parties::{Kind, Party};
use anyhow::{Context, Result, ensure};
use castgate_e2e::fleet::{Agent, DATABASE_PORT};
use castgate_e2e::lab::{Lab, Scenario, wait};
use castgate_e2e::programs::program;
use castgate_e2e::registry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Everything from 128.0.0.0 to 191.255.255.255 is one LAN.
pub const TOPOLOGY: &str = "
    internet: root1 130.0.0.1/2, root2 130.0.0.2/2, public 140.0.0.1/2, be1 131.0.0.1/2, be2 131.0.0.2/2, \
        beserver 131.0.1.1/2, fr 132.0.0.1/2, frserver 132.0.1.1/2, isp1 135.0.0.1/2, isp2 135.0.0.2/2, \
        ispserver 135.0.1.1/2, corp1 134.184.50.57/2, corp2 134.184.50.58/2, corpserver 134.184.50.80/2, \
        campus 134.184.60.80/2, door 151.0.0.1/2, japan 160.0.0.1/2, netherlands 150.0.0.1/2, sweden 150.0.1.1/2, \
        belgium 133.0.0.1/2, france 133.1.0.1/2, subscriber 135.0.5.5/2, office 134.184.50.7/2, branch 134.184.7.7/2
    flat: door 10.9.0.1/24, nated 10.9.0.10/24, sofa 10.9.0.20/24
    nat door: internet
";

/// In the order in which they start.
pub const PARTIES: &[Party] = &[
    party("root1", Kind::Root(&["root2"]), &[], None),
    party("root2", Kind::Root(&["root1"]), &[], None),
    party("be1", database(&["isp", "beserver", "nated"]), &[], Some("BE")),
    party("be2", database(&["isp", "beserver", "nated"]), &[], Some("BE")),
    party("fr", database(&["frserver"]), &[], Some("FR")),
    party("isp1", database(&["corp", "ispserver"]), &["134.184.0.0/16", "135.0.0.0/16"], Some("BE")),
    // The customer before the ISP's second database: that one has to see through who is whose peer.
    party("corp1", customer(&["corpserver", "campus"]), &["134.184.0.0/16"], Some("BE")),
    party("isp2", database(&["corp", "ispserver"]), &["134.184.0.0/16", "135.0.0.0/16"], Some("BE")),
    party("corp2", customer(&["corpserver", "campus"]), &["134.184.0.0/16"], Some("BE")),
    party("public", Kind::Server, &["0.0.0.0/0"], None),
    party("beserver", Kind::Server, &[], Some("BE")),
    party("nated", Kind::Server, &["151.0.0.1/32"], Some("BE")),
    party("frserver", Kind::Server, &[], Some("FR")),
    party("ispserver", Kind::Server, &["135.0.0.0/16"], Some("BE")),
    party("corpserver", Kind::Server, &["134.184.50.0/24"], Some("BE")),
    party("campus", Kind::Server, &["134.184.0.0/16"], Some("BE")),
];

const fn party(
    name: &'static str,
    kind: Kind,
    networks: &'static [&'static str],
    country: Option<&'static str>,
) -> Party {
    Party { name, kind, networks, country }
}

const fn database(grants: &'static [&'static str]) -> Kind {
    Kind::Database { customer: false, grants }
}

const fn customer(grants: &'static [&'static str]) -> Kind {
    Kind::Database { customer: true, grants }
}

/// A client: where it is, what country it says, which of these lists it gets. (A neighbour of Belgium and of France is sent to
/// one of the two.)
const POSITIONS: &[(&str, &str, &[&[&str]])] = &[
    ("japan", "JP", &[&["public"]]),
    ("belgium", "none", &[&["public"]]),
    ("sweden", "SE", &[&["public"]]),
    ("netherlands", "NL", &[&["beserver"], &["frserver"]]),
    ("belgium", "BE", &[&["beserver"]]),
    ("france", "FR", &[&["frserver"]]),
    ("subscriber", "BE", &[&["ispserver"]]),
    // A subscriber on a journey says where he is; the ISP's entries are for Belgium.
    ("subscriber", "FR", &[&["frserver"]]),
    ("office", "BE", &[&["corpserver"]]),
    ("branch", "BE", &[&["campus"]]),
    // Behind the same NAT the private address is right.
    ("sofa", "BE", &[&["nated"]]),
];

/// Every party is up when the entries that it depends on are where they belong.
pub fn start(lab: &Lab, interval: Duration) -> Result<BTreeMap<&'static str, Agent<'_>>> {
    let roots: Vec<IpAddr> = ["root1", "root2"].iter().map(|root| lab.host(root).address("internet").into()).collect();
    let mut agents = BTreeMap::new();
    for party in PARTIES {
        agents.insert(party.name, party.start(lab, &roots, interval)?);
        for (database, entry_type, network, country) in homes(party.name) {
            // One that does not run yet is told by the fourth update at the latest.
            if !agents.contains_key(database) {
                continue;
            }
            listed(lab, database, entry_type, network, country, &party.address(lab).to_string())?;
        }
    }
    // The servers register last; they are where they belong when every client gets his list.
    wait::until_every(Duration::from_millis(500), "every list", SOON, || everybody_gets_his_list(lab).ok())
        .or_else(|_| everybody_gets_his_list(lab))?;
    Ok(agents)
}

/// Databases that hold a party once everybody has found his place, and the question that shows it.
fn homes(party: &str) -> Vec<(&'static str, &'static str, &'static str, &'static str)> {
    let both = |databases: [&'static str; 2], network, country| {
        databases.map(|database| (database, "TDS", network, country)).to_vec()
    };
    let be = |network| both(["be1", "be2"], network, "BE");
    match party {
        "be1" | "be2" => both(["root1", "root2"], "", "BE"),
        "fr" => both(["root1", "root2"], "", "FR"),
        "isp1" | "isp2" => [be("134.184.0.0/16"), be("135.0.0.0/16")].concat(),
        "corp1" | "corp2" => both(["isp1", "isp2"], "134.184.0.0/16", "BE"),
        _ => Vec::new(),
    }
}

/// Waits until a database lists an address.
fn listed(lab: &Lab, database: &str, entry_type: &str, network: &str, country: &str, address: &str) -> Result<()> {
    let asker = lab.host("japan");
    let place = SocketAddr::from((lab.host(database).address("internet"), DATABASE_PORT));
    let network = if network.is_empty() { String::new() } else { format!("&NETWORK={network}") };
    let pairs = format!("ACTION=QUERY&TYPE={entry_type}&COUNTRY={country}{network}");
    let wanted = format!("<ADDRESS>{address}</ADDRESS>");
    wait::until_every(Duration::from_millis(100), &format!("{address} at {database}"), SOON, || {
        registry::ask(asker, place, &pairs).ok().filter(|answer| answer.body.contains(&wanted)).map(drop)
    })
}

/// What `castgate locate` finds from a host, as addresses.
fn located(lab: &Lab, host: &str, country: &str) -> Result<BTreeSet<String>> {
    let client = lab.host(host);
    let mut locate = client.command(program("castgate")?);
    locate.args(["locate", "--json", "--country", country]);
    for root in ["root1", "root2"] {
        locate.args(["--tds", &lab.host(root).address("internet").to_string()]);
    }
    locate.env("XDG_CACHE_HOME", client.folder()).env("HOME", client.folder());
    let text = client.run("castgate locate", locate, SOON)?;
    let answer: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("castgate locate printed {text}"))?;
    let servers = answer["servers"].as_array().context("no list of servers")?;
    Ok(servers.iter().filter_map(|server| server["server"].as_str()).map(ToOwned::to_owned).collect())
}

/// Each position gets its list.
pub fn everybody_gets_his_list(lab: &Lab) -> Result<()> {
    for (host, country, lists) in POSITIONS {
        let found = located(lab, host, country)?;
        let wanted: Vec<BTreeSet<String>> = lists.iter().map(|list| addresses(lab, list)).collect();
        ensure!(wanted.contains(&found), "{host} in {country} gets {found:?}, not one of {wanted:?}");
    }
    Ok(())
}

fn addresses(lab: &Lab, names: &[&str]) -> BTreeSet<String> {
    let of = |name: &&str| PARTIES.iter().find(|party| party.name == *name).expect("a party").address(lab);
    names.iter().map(|name| format!("{}:10100", of(name))).collect()
}

#[test]
fn every_client_of_the_draft_s_picture_gets_exactly_the_list_that_the_draft_gives_it() {
    Scenario::new(TOPOLOGY).run(|lab| {
        let _agents = start(lab, Duration::from_mins(5))?;
        // Whichever member of each set is asked.
        for _ in 0..4 {
            everybody_gets_his_list(lab)?;
        }
        Ok(())
    });
}
