//! Snapshots of every kind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32, NonZeroU64};

use castgate_wire::pattern::HEADER_LEN;
use castgate_wire::registry::{Country, EntryType, Protocol};
use castgate_wire::umtp::Channel;
use proptest::prelude::*;

use crate::*;

pub(super) fn snapshots() -> impl Strategy<Value = AgentSnapshot> {
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
            front: None,
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
    let database = ("(https?://)?", host.clone())
        .prop_filter_map("a database", |(scheme, host)| format!("{scheme}{host}").parse::<DatabaseAddress>().ok());
    let databases = proptest::collection::vec(database, 1..4);
    let row = (places(), proptest::option::of(prefixes())).prop_map(|(relays, source)| {
        let group = source.map_or(Some("232.0.0.0/8".parse().unwrap()), |_| None);
        MapRow { group, source, relays }
    });
    let row = row.prop_filter("sources", |row| row.source.is_none_or(|prefix| !prefix.addr().is_multicast()));
    let discovery = prop_oneof![
        (databases, proptest::option::of(countries()), proptest::option::of(authorities()))
            .prop_map(|(tds, country, ca)| Discovery::Hierarchy(HierarchyDiscovery { tds, ca, country })),
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
            asns: vec![64_500],
            countries: vec![country],
            sources: vec![network],
            strict_source: true,
        },
    });
    (any::<std::net::SocketAddr>(), proptest::option::of(account), any::<[NonZeroU32; 5]>(), prefixes())
        .prop_filter("an address of a host", |(listen, ..)| {
            !listen.ip().is_multicast() && listen.ip() != IpAddr::from([255, 255, 255, 255])
        })
        .prop_map(|(mut listen, account, [interval, entries, per_account, networks, requests], proxy)| {
            // Scope and flow label are no part of what is written.
            if let std::net::SocketAddr::V6(address) = &mut listen {
                address.set_flowinfo(0);
                address.set_scope_id(0);
            }
            DatabaseSnapshot {
                listen,
                tls: proxy.addr().is_ipv4().then(identity),
                tls_files: None,
                accounts: account.into_iter().collect(),
                accounts_file: None,
                accounts_changed_by: None,
                update_interval_seconds: interval,
                entries_max: entries,
                entries_per_account_max: per_account,
                networks_per_account_max: networks,
                requests_per_minute_max: requests,
                trusted_proxies: vec![proxy],
                peers: Some(PeersSnapshot {
                    hand_over_seconds: NonZeroU32::new(interval.get().min(300)),
                    ..PeersSnapshot::new(vec!["192.0.2.1:5632".to_owned()], "peer".to_owned(), "s3cret".to_owned())
                }),
                policies: Vec::new(),
                routes: Some(RoutesSnapshot { file: None, rows: vec!["192.0.2.0/24,64500".to_owned()] }),
                strict_source: true,
                regions: [("Benelux".to_owned(), ["BE", "NL", "LU"].map(|code| code.parse().unwrap()).to_vec())].into(),
                store: StoreSnapshot::Embedded,
            }
        })
        .prop_flat_map(|database| prop_oneof![Just(database.clone()), Just(in_etcd(database))])
}

fn identity() -> TlsIdentity {
    let pem = |what: &str| format!("-----BEGIN {what}-----\nAAAA\n-----END {what}-----\n");
    TlsIdentity { certificate: pem("CERTIFICATE"), key: pem("PRIVATE KEY") }
}

fn authorities() -> impl Strategy<Value = String> {
    "[A-Za-z0-9+/]{64}".prop_map(|line| format!("-----BEGIN CERTIFICATE-----\n{line}\n-----END CERTIFICATE-----\n"))
}

/// The same with its entries in etcd, where it has no peers.
fn in_etcd(database: DatabaseSnapshot) -> DatabaseSnapshot {
    let pem = || "-----BEGIN CERTIFICATE-----".to_owned();
    let etcd = EtcdSnapshot {
        prefix: "/castgate/isp/be/".to_owned(),
        ca: Some(pem()),
        identity: Some(TlsIdentity { certificate: pem(), key: pem() }),
        login: Some("castgate".to_owned()),
        password: Some("s3cret".to_owned()),
        ..EtcdSnapshot::new(vec!["https://etcd-0:2379".to_owned(), "https://etcd-1:2379".to_owned()])
    };
    DatabaseSnapshot { peers: None, store: StoreSnapshot::Etcd(Box::new(etcd)), ..database }
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
            systems: adapter.is_none().then(|| SystemsSnapshot {
                asns: vec![64_500],
                routes: RoutesSnapshot { file: Some("/var/lib/rib.gz".into()), rows: Vec::new() },
            }),
            adapter,
            interval_seconds,
            retry_seconds,
        },
    )
}

fn discoveries() -> impl Strategy<Value = RegistrarDiscovery> {
    let role = prop_oneof![Just(DatabaseRole::Peer), Just(DatabaseRole::Customer)];
    let ca = proptest::option::of(authorities());
    ("[a-z]{1,9}", "\\PC{0,20}", role, ca).prop_map(|(root, password, role, ca)| RegistrarDiscovery {
        roots: vec![root],
        login: "me".to_owned(),
        password,
        ca,
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
                peers: None,
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
            scheme: Scheme::Http,
        },
    )
}

fn parents() -> impl Strategy<Value = Parent> {
    ("\\PC{0,20}", proptest::option::of(authorities())).prop_map(|(password, ca)| Parent {
        url: if ca.is_some() { "https://db.example:5632" } else { "http://db.example:5632" }.to_owned(),
        login: "me".to_owned(),
        password,
        ca,
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
