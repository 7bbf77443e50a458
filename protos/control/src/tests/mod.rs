//! A snapshot is read as it is written, and what is wrong with it is said in one sentence.

mod arbitrary;
mod hierarchy;
mod relay;

use std::net::IpAddr;
use std::num::NonZeroU8;

use castgate_wire::registry::{EntryType, Protocol};
use proptest::prelude::*;

use crate::*;
use arbitrary::snapshots;
use hierarchy::{ADAPTER, THROUGH_AN_ADAPTER};

const ONE_MACHINE: &str = r#"
generation: 7
agent: demo/server
server:
  listen: 127.0.2.1:10100
  interfaces: [lo]
  limits: { ttl: 32 }
  channels:
    - { name: bars, group: 232.1.2.3, source: 127.0.1.1, ports: 5004 }
    - { name: talk, group: 239.1.2.3, ports: 5004-5007, send: true, ttl: 8 }
database:
  listen: 127.0.4.1:5632
  accounts:
    - login: country
      passwordHash: $argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA
      allow: { types: [TS, TDS], networks: [127.0.0.0/8], countries: [BE] }
registrar:
  entries:
    - { type: TS, source: 127.0.2.1, port: 10100, protocol: UDP, networks: [127.0.0.0/8], country: BE }
  parents:
    - { url: "http://127.0.5.1:5632", login: server, password: "s3cret" }
patterns:
  - { channel: "232.1.2.3@127.0.1.1:5004", rateBitsPerSecond: 2000000, interface: lo }
"#;

#[test]
fn a_snapshot_by_hand_is_read_with_its_defaults() {
    let snapshot = AgentSnapshot::from_yaml(ONE_MACHINE).unwrap();
    assert_eq!((snapshot.generation, snapshot.agent.as_str()), (7, "demo/server"));
    let server = snapshot.server.unwrap();
    assert_eq!(server.limits, ServerLimits { ttl: NonZeroU8::new(32).unwrap(), ..ServerLimits::default() });
    assert_eq!(server.timers, ServerTimers::default());
    assert_eq!(server.loop_check, LoopCheck::Endpoint);
    assert_eq!(server.channels[0].source, Some(IpAddr::from([127, 0, 1, 1])));
    assert!(!server.channels[0].send);
    assert_eq!((server.channels[1].ports.first(), server.channels[1].ports.last()), (5004, 5007));
    let database = snapshot.database.unwrap();
    assert_eq!(database.update_interval_seconds.get(), 300);
    assert_eq!(database.accounts[0].allow.types, [EntryType::TunnelServer, EntryType::TunnelDatabase]);
    let registrar = snapshot.registrar.unwrap();
    assert_eq!(registrar.entries[0].protocol, Some(Protocol::Udp));
    assert_eq!(registrar.interval_seconds.get(), 300);
    assert_eq!(snapshot.patterns[0].payload_octets.get(), 1316);
}

#[test]
fn json_is_read_too() {
    let snapshot = AgentSnapshot::from_yaml(ONE_MACHINE).unwrap();
    let json = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(AgentSnapshot::from_yaml(&json).unwrap(), snapshot);
}

/// Each line: what is replaced, by what, and the sentence that follows.
#[test]
fn a_bad_field_is_named_in_one_sentence() {
    let cases = [
        ("ttl: 32", "ttl: 300", "server.limits.ttl: 300 is not in 1..=255"),
        ("ttl: 32", "ttl: 0", "server.limits.ttl: 0 is not in 1..=255"),
        ("ttl: 32", "ttl: -1", "server.limits.ttl: -1 is not in 1..=255"),
        ("ttl: 32", "hops: 32", "server.limits.hops: unknown field `hops`, expected one of"),
        ("limits: {", "limit: {", "server.limit: unknown field `limit`, expected one of"),
        ("group: 232.1.2.3", "group: 224.0.0.5", "server.channels[0].group: 224.0.0.5 is in 224.0.0.0/24"),
        ("group: 232.1.2.3", "group: 10.1.2.3", "server.channels[0].group: 10.1.2.3 is not a multicast group"),
        ("source: 127.0.1.1, ports", "ports", "server.channels[0].source: is missing, and 232.1.2.3 is in the source"),
        ("ports: 5004-5007", "ports: 5007-5004", "server.channels[1].ports: 5007-5004 ends before it begins"),
        ("ports: 5004-5007", "ports: 70000", "server.channels[1].ports: \"70000\" is not a port in 1..=65535"),
        ("ports: 5004-5007", "ports: 0", "server.channels[1].ports: \"0\" is not a port in 1..=65535"),
        ("name: talk", "name: bars", "server.channels[1].name: \"bars\" is the name of channels[0] too"),
        ("interfaces: [lo]", "interfaces: []", "server.interfaces: names no interface"),
        ("interfaces: [lo]", "interfaces: [lo, lo]", "server.interfaces[1]: \"lo\" is named twice"),
        (
            "interfaces: [lo]",
            "interfaces: [../lo]",
            "server.interfaces[0]: \"../lo\" cannot be the name of an interface",
        ),
        ("127.0.2.1:10100\n", "127.0.2.1\n", "server.listen: invalid IPv4 socket address syntax"),
        ("types: [TS, TDS]", "types: [TX]", "database.accounts[0].allow.types: \"TX\" is neither TS nor TDS"),
        ("networks: [127.0.0.0/8]", "networks: [127.0.0.0/33]", "database.accounts[0].allow.networks[0]: "),
        ("$argon2id$v=19", "plain", "database.accounts[0].passwordHash: is not a PHC string of argon2id"),
        (
            "  listen: 127.0.4.1:5632\n",
            "  listen: 127.0.4.1:5632\n  peers: { login: a, password: b, handOverSeconds: 301 }\n",
            "database.peers.handOverSeconds: 301 is not in 1..=300",
        ),
        ("port: 10100,", "port: 0,", "registrar.entries[0].port: 0 is not in 1..=65535"),
        ("protocol: UDP, ", "", "registrar.entries[0].protocol: is missing: a tunnel server names it"),
        ("country: BE }", "country: Belgium }", "registrar.entries[0].country: \"Belgium\" is not a country"),
        ("http://127.0.5.1:5632", "ftp://x", "registrar.parents[0].url: \"ftp://x\" is not http://HOST[:PORT]"),
        (
            "232.1.2.3@127.0.1.1:5004\"",
            "nonsense\"",
            "patterns[0].channel: channel \"nonsense\" does not end in a port",
        ),
        ("rateBitsPerSecond: 2000000", "rateBitsPerSecond: 0", "patterns[0].rateBitsPerSecond: 0 is not in 1..="),
        ("interface: lo }", "interface: lo, payloadOctets: 9 }", "patterns[0].payloadOctets: 9 is not in "),
        ("agent: demo/server", "agent: ''", "agent: is empty"),
        ("agent: demo/server\n", "", "missing field `agent`"),
    ];
    for (good, bad, sentence) in cases {
        assert!(ONE_MACHINE.contains(good), "the case {bad:?} replaces nothing");
        let error = AgentSnapshot::from_yaml(&ONE_MACHINE.replacen(good, bad, 1)).expect_err(bad).to_string();
        assert!(error.starts_with(sentence), "{bad}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_digest_is_that_of_what_is_asked_for_and_not_of_its_number() {
    let snapshot = AgentSnapshot::from_yaml(ONE_MACHINE).unwrap();
    let digest = snapshot.digest();
    assert_eq!(digest.len(), 32);
    assert_eq!(AgentSnapshot { generation: 9, ..snapshot.clone() }.digest(), digest);
    assert_eq!(AgentSnapshot::from_yaml(&snapshot.to_yaml()).unwrap().digest(), digest);
    for (good, bad) in
        [("ttl: 32", "ttl: 33"), ("s3cret", "secret"), ("demo/server", "demo/other"), ("[lo]", "[lo, eth0]")]
    {
        let other = AgentSnapshot::from_yaml(&ONE_MACHINE.replacen(good, bad, 1)).unwrap();
        assert_ne!(other.digest(), digest, "{bad}");
    }
}

#[test]
fn a_file_that_is_no_snapshot_at_all_is_refused_in_one_line() {
    for text in ["", "[]", "{", "agent: a\nagent: b\n", "a: *b", "\0"] {
        let error = AgentSnapshot::from_yaml(text).expect_err(text).to_string();
        assert!(!error.is_empty() && !error.contains('\n'), "{text:?}: {error:?}");
    }
}

#[test]
fn a_password_is_not_shown_by_debug() {
    let snapshot = AgentSnapshot::from_yaml(ONE_MACHINE).unwrap();
    assert!(!format!("{snapshot:?}").contains("s3cret"));
    for text in [ADAPTER, THROUGH_AN_ADAPTER] {
        let shown = format!("{:?}", AgentSnapshot::from_yaml(text).unwrap());
        assert!(!shown.contains("s3cret") && !shown.contains("k3y"), "{shown}");
    }
}

#[test]
fn a_store_is_read_in_both_forms_and_has_no_peers_beside_etcd() {
    let place = "  listen: 127.0.4.1:5632\n";
    let with = |lines: &str| AgentSnapshot::from_yaml(&ONE_MACHINE.replacen(place, &format!("{place}{lines}"), 1));
    let store = |lines: &str| with(lines).unwrap().database.unwrap().store;
    assert_eq!(store("  store: embedded\n"), StoreSnapshot::Embedded);
    let etcd = "  store: { etcd: { endpoints: [\"http://127.0.0.1:2379\"] } }\n";
    let expected = EtcdSnapshot::new(vec!["http://127.0.0.1:2379".to_owned()]);
    assert_eq!(store(etcd), StoreSnapshot::Etcd(Box::new(expected)));
    let peers = "  peers: { login: peer, password: s3cret }\n";
    let cases = [
        (format!("{etcd}{peers}"), "database.peers: are not for a database with store.etcd"),
        ("  store: { etcd: { endpoints: [] } }\n".to_owned(), "database.store.etcd.endpoints: there are 0"),
        ("  store: { etcd: { members: [] } }\n".to_owned(), "database.store.etcd.members: unknown field `members`"),
        ("  store: redis\n".to_owned(), "database.store: unknown variant `redis`"),
    ];
    for (lines, sentence) in cases {
        let error = with(&lines).unwrap_err().to_string();
        assert!(error.starts_with(sentence), "{error}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_the_same(snapshot in snapshots()) {
        prop_assert_eq!(snapshot.check(), Ok(()));
        prop_assert_eq!(AgentSnapshot::from_yaml(&snapshot.to_yaml()), Ok(snapshot));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        let _ = AgentSnapshot::from_yaml(&text);
    }
}
