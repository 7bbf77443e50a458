//! Adapters, and registrars that find their parents.

use castgate_wire::registry::Protocol;

use crate::*;

pub(super) const ADAPTER: &str = r#"
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

pub(super) const THROUGH_AN_ADAPTER: &str = r#"
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
        (
            "roots.example",
            "'a b'",
            "registrar.discovery.roots[0]: \"a b\" is not http://HOST[:PORT], https://HOST[:PORT] or HOST[:PORT]",
        ),
        (
            "roots.example",
            "\"http://192.0.2.9:5632\"",
            "registrar.discovery.roots[1]: http://192.0.2.9:5632 is there twice",
        ),
        ("login: me", "login: me, ca: x", "registrar.discovery.ca: holds no certificate in PEM"),
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
        (
            "url: \"http://db.example",
            "ca: \"-----BEGIN CERTIFICATE-----\", url: \"http://db.example",
            "adapter.clients[0].parents[0].ca: is for https, and the url is one of http",
        ),
        (
            "url: \"http://db.example",
            "ca: x, url: \"https://db.example",
            "adapter.clients[0].parents[0].ca: holds no certificate in PEM",
        ),
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
