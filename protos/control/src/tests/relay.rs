//! Relays, gateways, and what is above a server.

use std::net::IpAddr;
use std::num::NonZeroU32;

use super::ONE_MACHINE;
use crate::*;

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
