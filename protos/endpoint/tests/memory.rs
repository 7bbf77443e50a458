//! What an entry of a database costs, by the memory of this process: alone in its file, so that no other test takes any meanwhile.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use castgate_endpoint::hierarchy::accounts::{Account, Allow};
use castgate_endpoint::hierarchy::clock::UnixMillis;
use castgate_endpoint::hierarchy::database::{Caller, Config, Database, Tier};
use castgate_wire::registry::{EntryType, Prefix, Protocol, ProtocolFilter, Query, Register, Scheme};

/// A fifth of what a database is made for: it costs the same for each network.
const NETWORKS: u32 = 200_000;

#[test]
fn a_network_costs_less_than_300_octets_whether_or_not_its_server_has_others() {
    // Kept to the end: memory given back would be used again and not seen.
    let mut databases = Vec::new();
    for servers in [NETWORKS, NETWORKS / 10] {
        let before = resident_bytes();
        let database = filled(servers);
        let used = resident_bytes() - before;
        let each = used / u64::from(NETWORKS);
        println!("{servers} servers: {each} octets a network");
        assert!(each < 300, "{servers} servers: {each} octets a network");
        let query =
            Query { entry_type: EntryType::TunnelServer, country: None, protocol: ProtocolFilter::All, network: None };
        let caller = Caller { address: network(7).addr(), asked_at: None };
        let answer = database.query(Instant::now(), UnixMillis(0), caller, &query);
        assert_eq!((answer.tier, answer.servers.len()), (Some(Tier::Network), 1));
        databases.push(database);
    }
}

fn filled(servers: u32) -> Database {
    let hash = "$argon2id$v=19$m=8,t=1,p=1$YSBzYWx0IGZvciB0ZXN0cw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let allow = Allow {
        types: vec![EntryType::TunnelServer],
        networks: vec!["0.0.0.0/0".parse().unwrap()],
        ..Allow::default()
    };
    let account = Account::new("be".to_owned(), hash.to_owned(), allow).unwrap();
    let config = Config {
        entries_max: usize::MAX,
        entries_per_account_max: usize::MAX,
        networks_per_account_max: usize::MAX,
        ..Config::default()
    };
    let mut database = Database::new(config, vec![account], [7; 16]);
    let (now, share) = (Instant::now(), NETWORKS / servers);
    for server in 0..servers {
        let register = Register {
            source: IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + server)),
            port: 10_100,
            entry_type: EntryType::TunnelServer,
            protocol: Some(Protocol::Udp),
            networks: (server * share..(server + 1) * share).map(network).collect(),
            country: None,
            fed_by: Vec::new(),
            scheme: Scheme::Http,
        };
        database.register(now, UnixMillis(0), "be", &register).unwrap();
        while database.poll_change().is_some() {}
    }
    database
}

/// A /24 of its own for each number, all over the space of addresses as real ones are.
fn network(number: u32) -> Prefix {
    let spread = number.wrapping_mul(0x9e37_79b1) >> 8;
    Prefix::new(IpAddr::V4(Ipv4Addr::from(spread << 8)), 24).unwrap()
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
