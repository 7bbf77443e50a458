//! Every position of a client in the draft's picture gets exactly the list that the draft gives it, and everybody is registered where
//! the draft has him.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use castgate_endpoint::hierarchy::region::{Region, Regions};
use castgate_wire::registry::Country;

use crate::net::{Got, Net};
use crate::picture::{LATECOMERS, PARTIES, Party};

const INTERVAL: Duration = Duration::from_mins(5);

/// Addresses of clients, what finds the servers of those who say BE, and these servers. Each network with its first and its last
/// address, and with the neighbours of both.
const PLACES: &[(&[&str], &str, &str)] = &[
    (
        &["134.184.50.0", "134.184.50.7", "134.184.50.57", "134.184.50.255", "::ffff:134.184.50.7"],
        "network",
        "corpserver",
    ),
    (&["134.184.0.0", "134.184.7.7", "134.184.49.255", "134.184.51.0", "134.184.255.255"], "network", "campus"),
    (&["135.0.0.0", "135.0.5.5", "135.0.255.255", "::ffff:135.0.5.5"], "network", "ispserver"),
    (&["151.0.0.1"], "network", "nated"),
    (
        &[
            "134.183.255.255",
            "134.185.0.0",
            "134.255.255.255",
            "135.1.0.0",
            "151.0.0.0",
            "151.0.0.2",
            "133.0.0.1",
            "10.9.0.20",
            "192.0.2.1",
            "0.0.0.1",
            "255.255.255.254",
            "2001:db8::1",
            "64:ff9b::134.184.50.7",
        ],
        "country",
        "beserver",
    ),
];

/// What a country other than BE gets, wherever its client is: entries of the ISP and of its customer are for Belgium. The neighbours
/// of Belgium and of France are sent to one of the two.
fn of_country(country: Option<&str>) -> (&'static str, &'static [&'static str]) {
    let regions = Regions::default();
    let region = |code: &str| regions.of(code.parse::<Country>().expect("a country")).map(Region::name);
    match country {
        Some("FR") => ("country", &["frserver"]),
        Some(code) if region(code) == region("BE") => ("region", &["beserver", "frserver"]),
        _ => ("public", &["public"]),
    }
}

#[test]
fn hundreds_of_positions_get_exactly_the_list_that_the_draft_gives_them() {
    let mut net = Net::started(INTERVAL, 1);
    // Of every region some, of those around Belgium all, and one that does not know where it is.
    let countries: Vec<Option<&str>> = [
        "AT", "CH", "DE", "FR", "LI", "LU", "MC", "NL", "GB", "SE", "IE", "ES", "IT", "GR", "PL", "CZ", "RU", "US",
        "CA", "BR", "MX", "JM", "JP", "KR", "IN", "KZ", "SG", "TR", "ZA", "NG", "EG", "KE", "CM", "AU", "FJ", "PW",
        "WS", "AQ",
    ]
    .map(Some)
    .into_iter()
    .chain([None])
    .collect();
    let mut positions = 0;
    let mut regional = std::collections::BTreeSet::new();
    for (addresses, tier, server) in PLACES {
        for address in *addresses {
            let place: IpAddr = address.parse().expect("an address");
            // Whichever member of each set is asked.
            for _ in 0..8 {
                let got = net.locate(place, Some("BE"));
                assert_eq!(seen(&got), (Some(*tier), vec![*server]), "{address} in BE: {}", got.hops);
            }
            for country in &countries {
                let (tier, servers) = of_country(*country);
                let got = net.locate(place, *country);
                let (found_by, list) = seen(&got);
                let is_right = found_by == Some(tier) && matches!(list[..], [one] if servers.contains(&one));
                assert!(is_right, "{address} in {country:?} gets {list:?} by {found_by:?}: {}", got.hops);
                if tier == "region" {
                    regional.extend(list);
                }
                positions += 1;
            }
            positions += 1;
        }
    }
    assert!(positions > 1_000, "{positions}");
    assert_eq!(regional.len(), 2, "neighbours are spread over both countries");
}

#[test]
fn everybody_of_the_picture_is_registered_with_every_database_of_his_set_and_nowhere_else() {
    // In whatever order the databases of a set are drawn.
    for seed in 0..20 {
        let net = Net::started(INTERVAL, seed);
        everybody_is_in_his_place(&net).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// Who holds whom when all is well.
const HOMES: &[(&[&str], &[&str])] = &[
    (&["root1", "root2"], &["be1", "be2", "fr1", "fr2", "public"]),
    (&["be1", "be2"], &["isp1", "isp2", "beserver", "nated"]),
    (&["fr1", "fr2"], &["frserver"]),
    (&["isp1", "isp2"], &["corp1", "corp2", "ispserver"]),
    (&["corp1", "corp2"], &["corpserver", "campus"]),
];

/// Each database holds exactly those that belong to it.
pub fn everybody_is_in_his_place(net: &Net) -> Result<(), String> {
    for (databases, entries) in HOMES {
        let mut expected: Vec<SocketAddr> = entries.iter().map(|entry| Party::of(entry).socket()).collect();
        expected.sort_unstable();
        for database in *databases {
            let held = net.held(net.node(database));
            if held != expected {
                let names: Vec<&str> = held.iter().map(|address| name(*address)).collect();
                return Err(format!("{database} holds {names:?} and not {entries:?}"));
            }
        }
    }
    Ok(())
}

/// Who is there.
pub fn name(address: SocketAddr) -> &'static str {
    PARTIES.iter().chain(LATECOMERS).find(|party| party.socket() == address).map_or("a stranger", |party| party.name)
}

fn seen(got: &Got) -> (Option<&str>, Vec<&'static str>) {
    (got.tier.as_deref(), got.servers.iter().map(|address| name(*address)).collect())
}
