//! A snapshot is read as it is written, and what is wrong with it is said in one sentence.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32, NonZeroU64};

use castgate_wire::pattern::HEADER_LEN;
use castgate_wire::registry::{Country, EntryType, Protocol};
use castgate_wire::umtp::Channel;
use proptest::prelude::*;

use crate::*;

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

const RELAY: &str = r#"
agent: demo/tr-one@node-1
server:
  listen: 192.0.2.1:10100
  channels:
    - { name: news, group: 232.1.2.3, source: 198.51.100.1, ports: 5004 }
    - { name: six, group: "ff3e::8000:1", source: "2001:db8::1", ports: 5004 }
  amt:
    listen: ["192.0.2.1:2268", "[2001:db8::2]:2268"]
    anycast: { addresses: [192.52.193.1, "2001:3::1"] }
    timers: { queryIntervalMs: 5000, queryResponseIntervalMs: 1000 }
  upstream:
    protocol: amt
    discovery: { static: { servers: ["relay.example.net", "[2001:db8::3]:2269"] } }
    resolvers: ["192.0.2.53:53"]
    avoid: ["192.0.2.1:2268"]
    gateway: { silenceMs: 500 }
    delivery: { interfaces: [eth1], tun: amt0 }
"#;

#[test]
fn a_relay_is_read_with_its_defaults() {
    let server = AgentSnapshot::from_yaml(RELAY).unwrap().server.unwrap();
    let amt = server.amt.unwrap();
    let own = AmtSnapshot::new(amt.listen.clone());
    let timers = AmtTimers {
        query_interval_ms: NonZeroU32::new(5_000).unwrap(),
        query_response_interval_ms: NonZeroU32::new(1_000).unwrap(),
        ..AmtTimers::default()
    };
    assert_eq!(amt.anycast.as_ref().map(|anycast| anycast.table.get()), Some(2268));
    assert_eq!(amt, AmtSnapshot { anycast: amt.anycast.clone(), timers, ..own });
    assert_eq!((amt.teardown, amt.zero_checksum, amt.mtu), (true, false, None));
    let upstream = server.upstream.unwrap();
    let Discovery::Static(StaticDiscovery { servers }) = &upstream.discovery else { panic!("{upstream:?}") };
    let servers: Vec<_> = servers.iter().map(|place| place.clone().or_port(AMT_PORT).to_string()).collect();
    assert_eq!(servers, ["relay.example.net:2268", "[2001:db8::3]:2269"]);
    let silence_ms = NonZeroU32::new(500).unwrap();
    assert_eq!(upstream.gateway, GatewaySnapshot { silence_ms, ..GatewaySnapshot::default() });
    assert_eq!(AgentSnapshot::from_yaml(ONE_MACHINE).unwrap().server.unwrap().amt, None, "who asks for none gets none");
}

#[test]
fn every_way_to_find_a_server_is_read() {
    let given = "{ static: { servers: [\"relay.example.net\", \"[2001:db8::3]:2269\"] } }";
    for (way, word) in [
        ("{ hierarchy: { tds: [tds.example.net], country: BE } }", "hierarchy"),
        ("{ driad: {} }", "driad"),
        ("{ driad: { dnsSd: [example.net], anycast: true } }", "driad"),
        ("{ anycast: {} }", "anycast"),
        ("{ anycast: { relays: [amt.example.net] } }", "anycast"),
        ("{ map: { rows: [{ group: 232.0.0.0/8, source: 198.51.100.0/24, relays: [192.0.2.7] }] } }", "map"),
    ] {
        assert!(RELAY.contains(given));
        let snapshot = AgentSnapshot::from_yaml(&RELAY.replace(given, way)).unwrap_or_else(|error| panic!("{error}"));
        let upstream = snapshot.server.as_ref().unwrap().upstream.as_ref().unwrap();
        assert_eq!(upstream.discovery.word(), word);
        assert_eq!(AgentSnapshot::from_yaml(&snapshot.to_yaml()), Ok(snapshot), "{way}");
    }
    let Discovery::Anycast(AnycastDiscovery { relays }) = Discovery::Anycast(AnycastDiscovery::default()) else {
        unreachable!()
    };
    let relays: Vec<_> = relays.iter().map(ToString::to_string).collect();
    assert_eq!(relays, ["192.52.193.1", "2001:3::1"], "RFC 7450 section 7.1");
}

#[test]
fn a_row_of_a_map_covers_what_lies_within_both_prefixes() {
    let row = |group: Option<&str>, source: Option<&str>| MapRow {
        group: group.map(|prefix| prefix.parse().unwrap()),
        source: source.map(|prefix| prefix.parse().unwrap()),
        relays: Vec::new(),
    };
    let (group, source) = (IpAddr::from([232, 1, 2, 3]), Some(IpAddr::from([198, 51, 100, 1])));
    assert!(row(Some("232.0.0.0/8"), Some("198.51.100.0/24")).covers(group, source));
    assert!(row(None, Some("198.51.100.0/24")).covers(group, source));
    assert!(!row(None, Some("198.51.101.0/24")).covers(group, source));
    assert!(!row(Some("239.0.0.0/8"), None).covers(group, source));
    assert!(row(Some("232.0.0.0/8"), None).covers(group, None));
    assert!(!row(None, Some("0.0.0.0/0")).covers(group, None), "any source is no source within a prefix");
}

#[test]
fn a_bad_field_of_amt_is_named_in_one_sentence() {
    all_refused(&[
        ("\"192.0.2.1:2268\", \"[2001:db8::2]:2268\"", "", "server.amt.listen: names no address"),
        ("[2001:db8::2]:2268", "[ff3e::1]:2268", "server.amt.listen[1]: ff3e::1 is not an address of a host"),
        ("[2001:db8::2]:2268", "[::]:0", "server.amt.listen[1]: has port 0"),
        ("[2001:db8::2]:2268", "0.0.0.0:2268", "server.amt.listen[1]: 0.0.0.0:2268 is taken by 192.0.2.1:2268"),
        ("192.0.2.1:2268\", \"[", "192.0.2.1:10100\", \"[", "server.amt.listen[0]: 192.0.2.1:10100 is taken by listen"),
        (
            "192.0.2.1:2268\", \"[2001:db8::2]:2268\"]",
            "0.0.0.0:10100\", \"[2001:db8::2]:2268\"]\n    advertise: [192.0.2.1]",
            "server.amt.listen[0]: 0.0.0.0:10100 is taken by listen",
        ),
        (
            "  anycast:",
            "  advertise: [224.0.0.1]\n    anycast:",
            "server.amt.advertise[0]: 224.0.0.1 is not the address",
        ),
        (
            "  anycast:",
            "  advertise: [192.0.2.2, 192.0.2.3]\n    anycast:",
            "server.amt.advertise[1]: 192.0.2.3 is the second address of its family",
        ),
        (
            ", \"[2001:db8::2]:2268\"]",
            "]\n    advertise: [\"2001:db8::2\"]",
            "server.amt.advertise[0]: 2001:db8::2 is of a family without an address in listen",
        ),
        (
            ", \"[2001:db8::2]:2268\"]",
            "]",
            "server.amt.anycast.addresses[1]: 2001:3::1 needs an address of its family in advertise",
        ),
        ("[2001:db8::2]:2268", "[::]:2268", "server.amt.anycast.addresses[1]: 2001:3::1 needs an address"),
        ("192.52.193.1", "127.0.0.1", "server.amt.anycast.addresses[0]: 127.0.0.1 is not an address that others"),
        ("192.52.193.1", "192.0.2.1", "server.amt.anycast.addresses[0]: 192.0.2.1 is an address of this relay alone"),
        ("192.52.193.1", "\"2001:3::1\"", "server.amt.anycast.addresses[1]: 2001:3::1 is named twice"),
        ("[192.52.193.1, \"2001:3::1\"]", "[]", "server.amt.anycast.addresses: names no address"),
        ("\"2001:3::1\"] }", "\"2001:3::1\"], table: 0 }", "server.amt.anycast.table: 0 is not in 1..=4294967295"),
        ("\"2001:3::1\"] }", "\"2001:3::1\"], table: 254 }", "server.amt.anycast.table: 254 is a table of the kernel"),
        ("  anycast:", "  mtu: 575\n    anycast:", "server.amt.mtu: 575 is not in 576..=65505"),
        (
            "queryIntervalMs: 5000",
            "queryIntervalMs: 999",
            "server.amt.timers.queryResponseIntervalMs: 1000 is not below",
        ),
        ("queryIntervalMs: 5000", "queryIntervalMs: 31744001", "server.amt.timers.queryIntervalMs: 31744001 is more"),
        ("queryIntervalMs: 5000", "robustness: 8", "server.amt.timers.robustness: 8 is not in 1..=7"),
        ("queryIntervalMs: 5000", "secretLifetimeMs: 7200001", "server.amt.timers.secretLifetimeMs: 7200001 is not in"),
        ("  timers: {", "  limits: { endpoints: 0 }\n    timers: {", "server.amt.limits.endpoints: 0 is not in 1..="),
        ("ff3e::8000:1", "ff02::1", "server.channels[1].group: ff02::1 has a scope that never leaves its link"),
        ("ff3e::8000:1", "2001:db8::1", "server.channels[1].group: 2001:db8::1 is not a multicast group"),
        (
            ", source: \"2001:db8::1\"",
            "",
            "server.channels[1].source: is missing, and ff3e::8000:1 is in the source-spec",
        ),
        ("\"2001:db8::1\",", "192.0.2.1,", "server.channels[1].source: 192.0.2.1 is not of the family of ff3e::8000:1"),
        ("\"2001:db8::1\",", "\"2001:db8::1\", send: true,", "server.channels[1].send: is for channels of version 4"),
    ]);
}

#[test]
fn a_bad_field_of_an_upstream_is_named_in_one_sentence() {
    let here = "{ static: { servers: [\"relay.example.net\", \"[2001:db8::3]:2269\"] } }";
    all_refused(&[
        ("  channels:", "  interfaces: [eth0]\n  channels:", "server.interfaces: is there beside upstream"),
        ("protocol: amt", "protocol: ip", "server.upstream.protocol: unknown variant `ip`"),
        (here, "{ static: { servers: [] } }", "server.upstream.discovery.static.servers: lists nothing"),
        (here, "{ static: { server: [] } }", "server.upstream.discovery.static.server: unknown field `server`"),
        (here, "{ hierarchy: { tds: [] } }", "server.upstream.discovery.hierarchy.tds: lists nothing"),
        (
            here,
            "{ driad: { dnsSd: [192.0.2.1] } }",
            "server.upstream.discovery.driad.dnsSd[0]: \"192.0.2.1\" is not a domain",
        ),
        (here, "{ anycast: { relays: [] } }", "server.upstream.discovery.anycast.relays: lists nothing"),
        (here, "{ map: { rows: [] } }", "server.upstream.discovery.map.rows: lists nothing"),
        (
            here,
            "{ map: { rows: [{ relays: [a] }] } }",
            "server.upstream.discovery.map.rows[0].group: is missing, and source",
        ),
        (
            here,
            "{ map: { rows: [{ group: 232.0.0.0/8, source: \"2001:db8::/32\", relays: [a] }] } }",
            "server.upstream.discovery.map.rows[0].source: 2001:db8::/32 is not of the family of 232.0.0.0/8",
        ),
        (
            here,
            "{ map: { rows: [{ group: 192.0.2.0/24, relays: [a] }] } }",
            "server.upstream.discovery.map.rows[0].group: 192.0.2.0/24 does not lie within 224.0.0.0/4",
        ),
        (
            here,
            "{ map: { rows: [{ source: \"ff3e::/32\", relays: [a] }] } }",
            "server.upstream.discovery.map.rows[0].source: ff3e::/32 holds groups, not sources",
        ),
        (
            here,
            "{ map: { rows: [{ group: 232.0.0.0/8, relays: [] }] } }",
            "server.upstream.discovery.map.rows[0].relays: lists nothing",
        ),
        ("relay.example.net", "relay.example.net:0", "server.upstream.discovery.static.servers[0]: \"0\" is no port"),
        ("192.0.2.53:53", "0.0.0.0:53", "server.upstream.resolvers[0]: 0.0.0.0:53 is not the place of a name server"),
        ("silenceMs: 500", "maximumTimeoutMs: 999", "server.upstream.gateway.maximumTimeoutMs: 999 is below"),
        ("{ interfaces: [eth1], tun: amt0 }", "{}", "server.upstream.delivery.interfaces: names no interface, and"),
        ("[eth1], ", "[eth1, eth1], ", "server.upstream.delivery.interfaces[1]: \"eth1\" is named twice"),
        ("tun: amt0", "tun: eth1", "server.upstream.delivery.tun: \"eth1\" is one of interfaces too"),
        ("tun: amt0", "tun: a/b", "server.upstream.delivery.tun: \"a/b\" cannot be the name of an interface"),
    ]);
    // Those that find AMT relays find no servers of UMTP.
    for way in ["{ driad: {} }", "{ anycast: {} }", "{ map: { rows: [{ group: 232.0.0.0/8, relays: [a] }] } }"] {
        let text = RELAY.replace(here, way).replace("protocol: amt", "protocol: umtp");
        let error = AgentSnapshot::from_yaml(&text).expect_err(way).to_string();
        assert!(error.ends_with("finds AMT relays only, and protocol is umtp"), "{way}: {error}");
    }
}

/// Each line: what is replaced in [`RELAY`], by what, and the sentence that follows.
fn all_refused(cases: &[(&str, &str, &str)]) {
    for (good, bad, sentence) in cases {
        assert!(RELAY.contains(good), "the case {bad:?} replaces nothing");
        let error = AgentSnapshot::from_yaml(&RELAY.replacen(good, bad, 1)).expect_err(bad).to_string();
        assert!(error.starts_with(sentence), "{bad}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

const ADAPTER: &str = r#"
agent: demo/adapter@node-1
adapter:
  listen: 0.0.0.0:8444
  tls: { certificate: public, key: "tls k3y" }
  clients:
    - agent: demo/ts-one@node-2
      key: k3y-of-ts-one-0123456789abcdef0123456789abcdef
      entries:
        - { type: TS, source: 192.0.2.1, port: 10100, protocol: UDP }
      parents:
        - { url: "http://db.example", login: one, password: "s3cret" }
    - { agent: demo/tdb-two@node-1, key: k3y-of-tdb-two-0123456789abcdef0123456789abcdef, entries: [], parents: [] }
"#;

const FOUND_FROM_THE_ROOTS: &str = r#"
agent: demo/tdb-one@node-2
registrar:
  entries:
    - { type: TDS, source: 192.0.2.1, port: 5632, networks: [10.0.0.0/8] }
  discovery: { roots: [roots.example, "http://192.0.2.9:5632"], login: me, password: s3cret, role: customer }
"#;

const THROUGH_AN_ADAPTER: &str = r#"
agent: demo/ts-one@node-2
registrar:
  entries:
    - { type: TS, source: 192.0.2.1, port: 10100, protocol: UDP }
  adapter: { endpoint: "https://castgate-adapter.demo.svc:8444", key: k3y-of-ts-one }
"#;

#[test]
fn an_adapter_is_read_with_its_defaults() {
    let adapter = AgentSnapshot::from_yaml(ADAPTER).unwrap().adapter.unwrap();
    assert_eq!(adapter.grace_seconds.get(), 15);
    assert_eq!(adapter.clients[0].interval_seconds.get(), 300);
    assert_eq!(adapter.clients[0].entries[0].protocol, Some(Protocol::Udp));
    let registrar = AgentSnapshot::from_yaml(THROUGH_AN_ADAPTER).unwrap().registrar.unwrap();
    assert!(registrar.parents.is_empty());
    assert_eq!(registrar.adapter.unwrap().endpoint, "https://castgate-adapter.demo.svc:8444");
}

#[test]
fn a_registrar_that_finds_its_parents_is_read_and_shows_no_password() {
    let registrar = AgentSnapshot::from_yaml(FOUND_FROM_THE_ROOTS).unwrap().registrar.unwrap();
    let discovery = registrar.discovery.clone().unwrap();
    assert_eq!((discovery.roots.len(), discovery.role), (2, DatabaseRole::Customer));
    assert_eq!(discovery.password, "s3cret");
    assert!(!format!("{registrar:?}").contains("s3cret"));
    let peer = FOUND_FROM_THE_ROOTS.replace(", role: customer", "");
    let registrar = AgentSnapshot::from_yaml(&peer).unwrap().registrar.unwrap();
    assert_eq!(registrar.discovery.unwrap().role, DatabaseRole::Peer);
}

#[test]
fn a_bad_field_of_discovery_is_named_in_one_sentence() {
    let many = (0..=255).map(|n| format!("10.{n}.0.0/16")).chain(["11.0.0.0/16".to_owned()]).collect::<Vec<_>>();
    let many = format!("networks: [{}]", many.join(", "));
    let cases = [
        ("roots: [roots.example, \"http://192.0.2.9:5632\"]", "roots: []", "registrar.discovery.roots: is empty"),
        ("roots.example", "'a b'", "registrar.discovery.roots[0]: \"a b\" is not http://HOST[:PORT] or HOST[:PORT]"),
        (
            "roots.example",
            "\"http://192.0.2.9:5632\"",
            "registrar.discovery.roots[1]: http://192.0.2.9:5632 is there twice",
        ),
        ("login: me", "login: 'a:b'", "registrar.discovery.login: \"a:b\" cannot be a login"),
        ("role: customer", "role: child", "registrar.discovery.role: "),
        (
            "networks: [10.0.0.0/8]",
            many.as_str(),
            "registrar.entries: have 257 networks; discovery looks for 256 at most",
        ),
        (
            "  discovery:",
            "  parents: [{ url: \"http://db\", login: a, password: b }]\n  discovery:",
            "registrar.parents: are there beside discovery: they are either named or found",
        ),
        (
            "  discovery:",
            "  adapter: { endpoint: \"https://a:1\", key: k }\n  discovery:",
            "registrar.discovery: is there beside an adapter: one of the two announces",
        ),
        (
            "  discovery: { roots: [roots.example, \"http://192.0.2.9:5632\"], login: me, password: s3cret, role: customer }",
            "",
            "registrar.parents: is empty: name the databases that are told, an adapter that tells them, or discovery",
        ),
    ];
    for (good, bad, sentence) in cases {
        assert!(FOUND_FROM_THE_ROOTS.contains(good), "the case {bad:?} replaces nothing");
        let error = AgentSnapshot::from_yaml(&FOUND_FROM_THE_ROOTS.replacen(good, bad, 1)).expect_err(bad).to_string();
        assert!(error.starts_with(sentence), "{bad}: {error}");
    }
    let found = "discovery: { roots: [r.example], login: one, password: x }";
    let text = ADAPTER.replacen("      parents:", &format!("      {found}\n      parents:"), 1);
    let error = AgentSnapshot::from_yaml(&text).unwrap_err().to_string();
    assert!(error.starts_with("adapter.clients[0].parents: are there beside discovery"), "{error}");
}

#[test]
fn a_bad_field_of_an_adapter_is_named_in_one_sentence() {
    let adapter = [
        ("k3y-of-ts-one-0123456789abcdef0123456789abcdef", "short", "adapter.clients[0].key: is shorter than 32 char"),
        ("agent: demo/tdb-two@node-1", "agent: ''", "adapter.clients[1].agent: is empty"),
        ("demo/tdb-two@node-1", "demo/ts-one@node-2", "adapter.clients: demo/ts-one@node-2 is there twice"),
        ("192.0.2.1", "0.0.0.0", "adapter.clients[0].entries[0].source: 0.0.0.0 is not the address of a host"),
        ("http://db.example", "db.example", "adapter.clients[0].parents[0].url: \"db.example\" is not http://HOST"),
        ("listen: 0.0.0.0:8444", "listen: here", "adapter.listen: "),
        ("tls: {", "tls: { ca: x, ", "adapter.tls.ca: unknown field `ca`"),
    ];
    let through = [
        (
            "https://castgate",
            "http://castgate",
            "registrar.adapter.endpoint: \"http://castgate-adapter.demo.svc:8444\" is",
        ),
        ("key: k3y-of-ts-one", "key: ''", "registrar.adapter.key: is empty"),
        (
            "  adapter:",
            "  parents: [{ url: \"http://db\", login: a, password: b }]\n  adapter:",
            "registrar.parents: are there beside an adapter",
        ),
    ];
    let cases = adapter.map(|case| (ADAPTER, case)).into_iter().chain(through.map(|case| (THROUGH_AN_ADAPTER, case)));
    for (text, (good, bad, sentence)) in cases {
        assert!(text.contains(good), "the case {bad:?} replaces nothing");
        let error = AgentSnapshot::from_yaml(&text.replacen(good, bad, 1)).expect_err(bad).to_string();
        assert!(error.starts_with(sentence), "{bad}: {error}");
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

fn snapshots() -> impl Strategy<Value = AgentSnapshot> {
    (
        any::<u64>(),
        "[a-z]{1,8}/[a-z]{1,8}",
        proptest::option::of(servers()),
        proptest::option::of(databases()),
        proptest::option::of(registrars()),
        proptest::option::of(adapters()),
        proptest::option::of(patterns()),
    )
        .prop_map(|(generation, agent, server, database, registrar, adapter, pattern)| AgentSnapshot {
            generation,
            agent,
            server,
            database,
            registrar,
            adapter,
            patterns: pattern.into_iter().collect(),
        })
}

fn servers() -> impl Strategy<Value = ServerSnapshot> {
    let rule = ("\\PC{1,20}", groups(), hosts(), any::<(NonZeroU16, NonZeroU16, bool, NonZeroU8)>()).prop_map(
        |(name, group, source, (one, other, send, ttl))| ChannelRule {
            name: format!("channel {name}"),
            group: group.into(),
            source: Some(source.into()),
            ports: Ports::new(one.min(other), one.max(other)).unwrap(),
            send,
            ttl,
        },
    );
    let timers = any::<[NonZeroU32; 7]>().prop_map(|[join, idle, epoch, answer, window, ignore, again]| ServerTimers {
        join_timeout_ms: join,
        idle_timeout_ms: idle,
        cookie_epoch_ms: epoch,
        answer_interval_ms: answer,
        wrong_cookie_window_ms: window,
        ignore_for_ms: ignore,
        loop_interval_ms: again,
    });
    let limits = any::<([NonZeroU32; 4], NonZeroU8)>().prop_map(
        |([tunnels, channels, channels_per_tunnel, wrong_cookies], ttl)| ServerLimits {
            tunnels,
            channels,
            channels_per_tunnel,
            ttl,
            wrong_cookies,
        },
    );
    let loop_check = prop_oneof![Just(LoopCheck::Off), Just(LoopCheck::Endpoint), Just(LoopCheck::Address)];
    let listen = (hosts(), any::<u16>()).prop_map(|(address, port)| SocketAddr::from((address, port)));
    let interface = "[a-z][a-z0-9.]{0,14}";
    let amt = proptest::option::of(relays());
    let from =
        prop_oneof![interface.prop_map(|name| (vec![name], None)), upstreams().prop_map(|up| (vec![], Some(up)))];
    (listen, any::<Option<NonZeroU8>>(), from, loop_check, timers, limits, proptest::option::of(rule), amt)
        .prop_map(|(listen, workers, (interfaces, upstream), loop_check, timers, limits, rule, amt)| {
            let SocketAddr::V4(listen) = listen else { unreachable!("made of an IPv4 address") };
            let channels = rule.into_iter().collect();
            ServerSnapshot { listen, workers, interfaces, loop_check, timers, limits, channels, amt, upstream }
        })
        .prop_filter("each port once", |server| {
            server.amt.iter().flat_map(|amt| &amt.listen).all(|place| place.port() != server.listen.port())
        })
}

fn relays() -> impl Strategy<Value = AmtSnapshot> {
    let timers =
        (2..=31_744_000_u32, any::<u32>(), 1..=7_u8, 1..=7_200_000_u32).prop_map(|(interval, late, rv, secret)| {
            AmtTimers {
                query_interval_ms: NonZeroU32::new(interval).unwrap(),
                query_response_interval_ms: NonZeroU32::new(late % (interval - 1) + 1).unwrap(),
                robustness: NonZeroU8::new(rv).unwrap(),
                secret_lifetime_ms: NonZeroU32::new(secret).unwrap(),
            }
        });
    let limits = any::<[NonZeroU32; 3]>().prop_map(|[endpoints, groups_per_endpoint, sources_per_group]| AmtLimits {
        endpoints,
        groups_per_endpoint,
        sources_per_group,
    });
    let listen = (proptest::option::of(hosts()), 2..=u16::MAX, any::<bool>());
    let mtu = proptest::option::of((576..=65_505_u16).prop_map(|mtu| NonZeroU16::new(mtu).unwrap()));
    (listen, any::<(bool, bool, u8)>(), mtu, timers, limits, 1..=u16::MAX).prop_map(
        |((address, anycast, six), (teardown, zero_checksum, table), mtu, timers, limits, port)| AmtSnapshot {
            listen: std::iter::once((address.unwrap_or(Ipv4Addr::UNSPECIFIED), port).into())
                .chain(six.then_some((Ipv6Addr::UNSPECIFIED, port).into()))
                .collect(),
            advertise: six.then_some("2001:db8::1".parse().unwrap()).into_iter().collect(),
            anycast: six.then(|| AnycastSnapshot {
                addresses: vec![Ipv6Addr::new(0x2001, 3, 0, 0, 0, 0, 0, anycast).into()],
                table: NonZeroU32::new(2268 + u32::from(table)).unwrap(),
            }),
            teardown,
            mtu,
            zero_checksum,
            timers,
            limits,
        },
    )
}

fn upstreams() -> impl Strategy<Value = UpstreamSnapshot> {
    let host = prop_oneof![
        "[a-z]{1,9}(\\.[a-z]{1,9}){0,2}(:[1-9][0-9]{0,3})?",
        Just("[2001:db8::1]:2268".to_owned()),
        Just("2001:db8::2".to_owned()),
    ];
    let places = || proptest::collection::vec(host.clone().prop_map(|text| text.parse::<Place>().unwrap()), 1..4);
    let row = (places(), proptest::option::of(prefixes())).prop_map(|(relays, source)| {
        let group = source.map_or(Some("232.0.0.0/8".parse().unwrap()), |_| None);
        MapRow { group, source, relays }
    });
    let row = row.prop_filter("sources", |row| row.source.is_none_or(|prefix| !prefix.addr().is_multicast()));
    let discovery = prop_oneof![
        (places(), proptest::option::of(countries()))
            .prop_map(|(tds, country)| Discovery::Hierarchy(HierarchyDiscovery { tds, country })),
        any::<bool>()
            .prop_map(|anycast| Discovery::Driad(DriadDiscovery { dns_sd: vec!["example.net".to_owned()], anycast })),
        places().prop_map(|servers| Discovery::Static(StaticDiscovery { servers })),
        places().prop_map(|relays| Discovery::Anycast(AnycastDiscovery { relays })),
        row.prop_map(|row| Discovery::Map(MapDiscovery { rows: vec![row] })),
    ];
    let gateway = any::<(bool, bool, [NonZeroU32; 5])>().prop_map(|(ipv6, ecn, [a, b, silence, hold, full])| {
        let (initial_timeout_ms, maximum_timeout_ms) = (a.min(b), a.max(b));
        let (silence_ms, hold_down_ms, full_hold_down_ms) = (silence, hold, full);
        GatewaySnapshot {
            ipv6,
            ecn,
            initial_timeout_ms,
            maximum_timeout_ms,
            silence_ms,
            hold_down_ms,
            full_hold_down_ms,
        }
    });
    let delivery = prop_oneof![
        Just(None),
        Just(Some(DeliverySnapshot { interfaces: vec!["eth1".to_owned()], tun: None })),
        Just(Some(DeliverySnapshot { interfaces: Vec::new(), tun: Some("amt0".to_owned()) })),
    ];
    (discovery, gateway, delivery, hosts()).prop_map(|(discovery, gateway, delivery, host)| {
        let place = SocketAddr::from((host, 53));
        let (resolvers, avoid) = (vec![place], vec![place]);
        UpstreamSnapshot {
            resolvers,
            avoid,
            gateway,
            delivery,
            ..UpstreamSnapshot::new(UpstreamProtocol::Amt, discovery)
        }
    })
}

fn databases() -> impl Strategy<Value = DatabaseSnapshot> {
    let account = ("[^:\\p{C}]{1,12}", prefixes(), countries()).prop_map(|(login, network, country)| Account {
        login,
        password_hash: "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA".to_owned(),
        previous_password_hash: Some("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$b2xk".to_owned()),
        allow: Allow {
            types: vec![EntryType::TunnelDatabase],
            networks: vec![network],
            countries: vec![country],
            sources: vec![network],
        },
    });
    (any::<std::net::SocketAddr>(), proptest::option::of(account), any::<[NonZeroU32; 4]>(), prefixes())
        .prop_filter("an address of a host", |(listen, ..)| {
            !listen.ip().is_multicast() && listen.ip() != IpAddr::from([255, 255, 255, 255])
        })
        .prop_map(|(mut listen, account, [interval, entries, per_account, requests], proxy)| {
            // Scope and flow label are no part of what is written.
            if let std::net::SocketAddr::V6(address) = &mut listen {
                address.set_flowinfo(0);
                address.set_scope_id(0);
            }
            DatabaseSnapshot {
                listen,
                accounts: account.into_iter().collect(),
                update_interval_seconds: interval,
                entries_max: entries,
                entries_per_account_max: per_account,
                requests_per_minute_max: requests,
                trusted_proxies: vec![proxy],
                peers: Some(PeersSnapshot::new(
                    vec!["192.0.2.1:5632".to_owned()],
                    "peer".to_owned(),
                    "s3cret".to_owned(),
                )),
            }
        })
}

fn registrars() -> impl Strategy<Value = RegistrarSnapshot> {
    let adapter = ("[a-z]{1,9}", any::<NonZeroU16>(), "[0-9a-f]{64}")
        .prop_map(|(host, port, key)| AdapterRef { endpoint: format!("https://{host}:{port}"), key });
    let adapter = proptest::option::of(adapter);
    let discovery = proptest::option::of(discoveries());
    (registrations(), parents(), adapter, discovery, any::<[NonZeroU32; 2]>()).prop_map(
        |(entry, parent, adapter, discovery, [interval_seconds, retry_seconds])| RegistrarSnapshot {
            entries: vec![entry],
            parents: if adapter.is_some() || discovery.is_some() { Vec::new() } else { vec![parent] },
            discovery: discovery.filter(|_| adapter.is_none()),
            adapter,
            interval_seconds,
            retry_seconds,
        },
    )
}

fn discoveries() -> impl Strategy<Value = RegistrarDiscovery> {
    let role = prop_oneof![Just(DatabaseRole::Peer), Just(DatabaseRole::Customer)];
    ("[a-z]{1,9}", "\\PC{0,20}", role).prop_map(|(root, password, role)| RegistrarDiscovery {
        roots: vec![root],
        login: "me".to_owned(),
        password,
        role,
    })
}

fn adapters() -> impl Strategy<Value = AdapterSnapshot> {
    let pem = "-----BEGIN [A-Z]{3,9}-----\n[A-Za-z0-9+/]{64}\n-----END [A-Z]{3,9}-----\n";
    let client =
        ("[a-z]{1,8}/ts-[a-z]{1,8}@[a-z]{1,8}", "[0-9a-f]{64}", registrations(), registrars(), any::<NonZeroU32>())
            .prop_map(|(agent, key, entry, registrar, interval_seconds)| AdapterClient {
                agent,
                key,
                entries: vec![entry],
                parents: registrar.parents,
                discovery: registrar.discovery,
                interval_seconds,
            });
    ((hosts(), any::<u16>()), pem, pem, proptest::option::of(client), any::<NonZeroU32>()).prop_map(
        |(listen, certificate, key, client, grace_seconds)| AdapterSnapshot {
            listen: listen.into(),
            tls: TlsIdentity { certificate, key },
            clients: client.into_iter().collect(),
            grace_seconds,
        },
    )
}

fn registrations() -> impl Strategy<Value = Registration> {
    let protocol = prop_oneof![Just(Protocol::Udp), Just(Protocol::Tcp), Just(Protocol::Amt)];
    (hosts(), any::<NonZeroU16>(), protocol, prefixes(), countries()).prop_map(
        |(source, port, protocol, network, country)| Registration {
            entry_type: EntryType::TunnelServer,
            source: source.into(),
            port,
            protocol: Some(protocol),
            networks: vec![network],
            country: Some(country),
        },
    )
}

fn parents() -> impl Strategy<Value = Parent> {
    "\\PC{0,20}".prop_map(|password| Parent {
        url: "http://db.example:5632".to_owned(),
        login: "me".to_owned(),
        password,
    })
}

fn patterns() -> impl Strategy<Value = PatternSource> {
    let least = u16::try_from(HEADER_LEN).unwrap();
    (groups(), hosts(), any::<NonZeroU16>(), any::<NonZeroU64>(), least..=1456, any::<NonZeroU8>()).prop_map(
        |(group, source, port, rate_bits_per_second, payload, ttl)| PatternSource {
            channel: Channel { group, source: Some(source), port: port.get() },
            rate_bits_per_second,
            payload_octets: NonZeroU16::new(payload).unwrap(),
            interface: "eth0".to_owned(),
            ttl,
        },
    )
}

fn groups() -> impl Strategy<Value = Ipv4Addr> {
    (225u8..=239, any::<[u8; 3]>()).prop_map(|(first, [b, c, d])| Ipv4Addr::new(first, b, c, d))
}

fn hosts() -> impl Strategy<Value = Ipv4Addr> {
    (1u8..=223, any::<[u8; 3]>()).prop_map(|(first, [b, c, d])| Ipv4Addr::new(first, b, c, d))
}

fn prefixes() -> impl Strategy<Value = ipnet::IpNet> {
    (any::<IpAddr>(), 0u8..=32).prop_map(|(address, len)| ipnet::IpNet::new(address, len).unwrap().trunc())
}

fn countries() -> impl Strategy<Value = Country> {
    prop_oneof![Just("BE"), Just("NL"), Just("GB"), Just("NO")].prop_map(|code| code.parse().unwrap())
}
