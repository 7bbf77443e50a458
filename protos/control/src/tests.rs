//! A snapshot is read as it is written, and what is wrong with it is said in one sentence.

use std::net::{IpAddr, Ipv4Addr};
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
    assert_eq!(server.channels[0].source, Some(Ipv4Addr::new(127, 0, 1, 1)));
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
            group,
            source: Some(source),
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
    let listen = (hosts(), any::<u16>()).prop_map(|(address, port)| (address, port).into());
    let interface = "[a-z][a-z0-9.]{0,14}";
    (listen, any::<Option<NonZeroU8>>(), interface, loop_check, timers, limits, proptest::option::of(rule)).prop_map(
        |(listen, workers, interface, loop_check, timers, limits, rule): (std::net::SocketAddr, _, _, _, _, _, _)| {
            let std::net::SocketAddr::V4(listen) = listen else { unreachable!("made of an IPv4 address") };
            ServerSnapshot {
                listen,
                workers,
                interfaces: vec![interface],
                loop_check,
                timers,
                limits,
                channels: rule.into_iter().collect(),
            }
        },
    )
}

fn databases() -> impl Strategy<Value = DatabaseSnapshot> {
    let account = ("[^:\\p{C}]{1,12}", prefixes(), countries()).prop_map(|(login, network, country)| Account {
        login,
        password_hash: "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA".to_owned(),
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
            }
        })
}

fn registrars() -> impl Strategy<Value = RegistrarSnapshot> {
    let adapter = ("[a-z]{1,9}", any::<NonZeroU16>(), "[0-9a-f]{64}")
        .prop_map(|(host, port, key)| AdapterRef { endpoint: format!("https://{host}:{port}"), key });
    (registrations(), parents(), proptest::option::of(adapter), any::<[NonZeroU32; 2]>()).prop_map(
        |(entry, parent, adapter, [interval_seconds, retry_seconds])| RegistrarSnapshot {
            entries: vec![entry],
            parents: if adapter.is_some() { Vec::new() } else { vec![parent] },
            adapter,
            interval_seconds,
            retry_seconds,
        },
    )
}

fn adapters() -> impl Strategy<Value = AdapterSnapshot> {
    let pem = "-----BEGIN [A-Z]{3,9}-----\n[A-Za-z0-9+/]{64}\n-----END [A-Z]{3,9}-----\n";
    let client =
        ("[a-z]{1,8}/ts-[a-z]{1,8}@[a-z]{1,8}", "[0-9a-f]{64}", registrations(), parents(), any::<NonZeroU32>())
            .prop_map(|(agent, key, entry, parent, interval_seconds)| AdapterClient {
                agent,
                key,
                entries: vec![entry],
                parents: vec![parent],
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
