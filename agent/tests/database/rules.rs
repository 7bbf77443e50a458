//! Accounts, policies, route tables and bounds, and what happens when they change.

use std::num::NonZeroU32;
use std::path::Path;

use castgate_agent::roles::database::DatabaseError;
use castgate_control::{
    DatabaseSnapshot, MatchSnapshot, PolicySnapshot, PoolServerSnapshot, PoolSnapshot, Protocol, RoutesSnapshot,
    RuleSnapshot, ServerPlaceSnapshot,
};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::raw_http::Reply;
use crate::room::{BY_COUNTRY, LONG, QUERY, Room, hash, snapshot};

#[tokio::test]
async fn another_snapshot_changes_accounts_and_bounds_without_a_restart() {
    let mut room = Room::new().await;
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    let mut changed = snapshot();
    changed.accounts[0].password_hash = hash("n3w");
    changed.update_interval_seconds = NonZeroU32::new(60).unwrap();
    room.database.apply(changed.clone()).await.unwrap();
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 401, "the old password is forgotten at once");
    let refreshed = room.get(BY_COUNTRY, Some("be:n3w")).await;
    assert_eq!((refreshed.status, refreshed.field("x-castgate-update-interval")), (200, Some("60")));

    let mut broken = changed.clone();
    broken.accounts[1].password_hash = "$argon2id$nonsense".to_owned();
    let error = room.database.apply(broken).await.unwrap_err().to_string();
    assert!(error.starts_with("accounts: account `fr`: the password hash is not a PHC string"), "{error}");
    let mut moved = changed.clone();
    moved.listen.set_port(1);
    assert!(matches!(room.database.apply(moved).await, Err(DatabaseError::Moved(_))));
    assert_eq!(room.database.report().entries, 1);

    changed.accounts.remove(0);
    room.database.apply(changed).await.unwrap();
    assert_eq!(room.database.report().entries, 0, "entries go with their account");
}

#[tokio::test]
async fn a_password_is_changed_without_turning_anybody_away() {
    let mut room = Room::new().await;
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    let mut both = snapshot();
    both.accounts[0].previous_password_hash =
        Some(std::mem::replace(&mut both.accounts[0].password_hash, hash("fresh")));
    room.database.apply(both.clone()).await.unwrap();
    let told = |room: &Room| room.database.report().rotations.into_iter().next().map(|row| row.previous_shown);
    assert_eq!(room.get(BY_COUNTRY, Some("be:fresh")).await.status, 200);
    assert_eq!(told(&room), Some(None), "nobody showed the one before");
    for password in ["s3cret", "fresh", "s3cret"] {
        assert_eq!(room.get(BY_COUNTRY, Some(&format!("be:{password}"))).await.status, 200);
    }
    let since = room.database.report().rotations[0].since;
    assert!(told(&room).flatten().is_some_and(|shown| shown >= since), "{:?}", room.database.report().rotations);
    both.accounts[0].previous_password_hash = None;
    room.database.apply(both).await.unwrap();
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 401);
    assert_eq!(room.get(BY_COUNTRY, Some("be:fresh")).await.status, 200);
    assert_eq!((room.database.report().entries, told(&room)), (1, None));
}

#[tokio::test]
async fn a_policy_change_moves_a_client_with_its_next_query_and_is_counted() {
    let mut room = Room::new().await;
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    let other = "ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.2&PORT=10100&PROTOCOL=UDP&NETWORKS=134.184.1.0/24";
    assert_eq!(room.get(other, Some("be:s3cret")).await.status, 200);
    let found = |reply: &Reply| {
        let servers = castgate_wire::registry::xml::parse_servers(reply.body.as_bytes()).unwrap();
        let places: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
        (reply.field("x-castgate-match").map(str::to_owned), places.join(" "))
    };
    let tier = |tier: &str, server: &str| (Some(tier.to_owned()), server.to_owned());
    assert_eq!(found(&room.get(QUERY, None).await), tier("country", "127.0.2.1"));
    let routes = room.state.path().join("routes.csv");
    std::fs::write(&routes, "127.0.0.0/8,64500\n").unwrap();
    let with = |server: &str| DatabaseSnapshot { policies: vec![policy(&routes, server)], ..snapshot() };
    room.database.apply(with("127.0.2.2:10100")).await.unwrap();
    assert_eq!(found(&room.get(QUERY, None).await), tier("tsap", "127.0.2.2"));
    assert_eq!(found(&room.get(QUERY, None).await), tier("tsap", "127.0.2.2"));
    let report = room.database.report();
    let rule = &report.rules[0];
    assert_eq!((rule.policy.as_str(), rule.rule.as_str(), rule.clients, rule.answers), ("p", "customer", 1, 2));
    room.database.apply(with("127.0.2.9:10100")).await.unwrap();
    assert_eq!(found(&room.get(QUERY, None).await), tier("country", "127.0.2.1"), "who is not registered gets nobody");
    std::fs::write(&routes, "127.0.0.0/8;64500\n# and longer\n").unwrap();
    let error = room.database.apply(with("127.0.2.2:10100")).await.unwrap_err().to_string();
    assert!(error.starts_with("policies[0].routes.file: ") && error.contains("line 1"), "{error}");
    room.database.apply(snapshot()).await.unwrap();
    assert_eq!(found(&room.get(QUERY, None).await), tier("country", "127.0.2.1"));
    assert!(room.database.report().rules.is_empty());
}

#[tokio::test]
async fn an_account_of_an_autonomous_system_registers_what_the_route_table_gives_it() {
    let state = TempDir::new().unwrap();
    let table = state.path().join("routes.csv");
    std::fs::write(&table, "134.184.0.0/16,64500\n134.185.0.0/16,64500\n134.186.0.0/16,64501\n").unwrap();
    let mut snapshot = snapshot();
    snapshot.routes = Some(RoutesSnapshot { file: Some(table.clone()), rows: Vec::new() });
    let allow = &mut snapshot.accounts[0].allow;
    (allow.networks, allow.asns) = (Vec::new(), vec![64_500]);
    let room = Room::start(snapshot, state).await;
    let register = |third: u8| {
        format!("ACTION=REGISTER&TYPE=TS&SOURCE=134.184.1.{third}&PORT=1&PROTOCOL=UDP&NETWORKS=134.{third}.0.0/16")
    };
    for third in [184, 185] {
        assert_eq!(room.get(&register(third), Some("be:s3cret")).await.status, 200);
    }
    let refused = room.get(&register(186), Some("be:s3cret")).await;
    assert_eq!(
        (refused.status, refused.body.trim()),
        (403, "this account may not register network 134.186.0.0/16, which is of AS 64501 and not of AS 64500")
    );

    // Another table is in force without a restart, and what it does not give any more is gone.
    let mut entries = room.database.entries();
    let fresh = room.state.path().join("fresh.csv");
    std::fs::write(&fresh, "134.184.0.0/16,64500\n134.186.0.0/16,64500\n").unwrap();
    std::fs::rename(&fresh, &table).unwrap();
    timeout(LONG, entries.wait_for(|entries| *entries == 1)).await.unwrap().unwrap();
    assert_eq!(room.get(&register(185), Some("be:s3cret")).await.status, 403);
    assert_eq!(room.get(&register(186), Some("be:s3cret")).await.status, 200);
    let audit = std::fs::read_to_string(room.state.path().join("audit.log")).unwrap();
    for (outcome, about) in [("changed", "route table"), ("gone", "TS 134.184.1.185 1 UDP")] {
        let line = format!("\"outcome\":\"{outcome}\",\"about\":\"{about}\"");
        assert!(audit.contains(&line), "{line}: {audit}");
    }

    // One that cannot be read changes nothing.
    std::fs::write(&fresh, "134.184.0.0;16\n").unwrap();
    std::fs::rename(&fresh, &table).unwrap();
    std::fs::write(&fresh, "134.184.0.0/16,64500\n").unwrap();
    std::fs::rename(&fresh, &table).unwrap();
    timeout(LONG, entries.wait_for(|entries| *entries == 1)).await.unwrap().unwrap();
    assert_eq!(room.database.report().entries, 1, "what the second table gave went with the third");
}

#[tokio::test]
async fn a_strict_database_refuses_networks_elsewhere_and_other_regions_hold_with_the_next_query() {
    let mut room = Room::new().await;
    let apart = "ACTION=REGISTER&TYPE=TS&SOURCE=10.0.0.1&PORT=1&PROTOCOL=UDP&NETWORKS=134.184.1.0/24";
    assert_eq!(room.get(apart, Some("be:s3cret")).await.status, 200);
    assert_eq!(room.get(BY_COUNTRY, Some("be:s3cret")).await.status, 200);
    let of_ireland = "ACTION=QUERY&TYPE=TS&COUNTRY=IE";
    assert_eq!(room.get(of_ireland, None).await.field("x-castgate-match"), Some("none"));
    let countries = ["BE", "IE"].map(|code| code.parse().unwrap()).to_vec();
    let regions = [("Channel".to_owned(), countries)].into();
    room.database.apply(DatabaseSnapshot { strict_source: true, regions, ..snapshot() }).await.unwrap();
    assert_eq!(room.database.report().entries, 1, "what is not allowed any more is gone");
    let refused = room.get(apart, Some("be:s3cret")).await;
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("network 134.184.1.0/24 with source 10.0.0.1: strictSource"), "{}", refused.body);
    assert_eq!(room.get(of_ireland, None).await.field("x-castgate-match"), Some("region"));
    let twice = [("A", "BE"), ("B", "BE")].map(|(name, code)| (name.to_owned(), vec![code.parse().unwrap()]));
    let error = room.database.apply(DatabaseSnapshot { regions: twice.into(), ..snapshot() }).await.unwrap_err();
    assert_eq!(error.to_string(), "regions.B: BE is in \"A\" already");
}

/// Clients of AS 64500 to one server that registers here.
fn policy(routes: &Path, server: &str) -> PolicySnapshot {
    let place = ServerPlaceSnapshot { address: server.parse().unwrap(), protocol: Protocol::Udp };
    let server = PoolServerSnapshot {
        name: "s".to_owned(),
        places: vec![place],
        registers: true,
        down: false,
        load_percent: None,
    };
    let pool = PoolSnapshot { name: "all".to_owned(), weight: 1, load_percent_max: 100, servers: vec![server] };
    let matches = MatchSnapshot { asns: vec![64_500], ..MatchSnapshot::default() };
    let rule = RuleSnapshot { name: "customer".to_owned(), matches, pools: vec![pool], exclude: Vec::new() };
    let routes = Some(RoutesSnapshot { file: Some(routes.to_owned()), rows: Vec::new() });
    PolicySnapshot { name: "p".to_owned(), rules: vec![rule], routes }
}
