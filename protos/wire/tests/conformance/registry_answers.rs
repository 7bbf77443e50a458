//! Answers: the three documents that draft-liefooghe-castgate-02 §6.5 prints, as it prints them.

use castgate_wire::registry::xml::{emit_servers, emit_transfer, parse_servers, parse_transfer};
use castgate_wire::registry::{EntryType, Protocol, Scheme, Server, TransferEntry};

fn server(address: &str, port: u16, entry_type: EntryType, protocol: Protocol, prefix_len: Option<u8>) -> Server {
    let address = address.parse().expect("an address");
    Server { address, port, entry_type, protocol: Some(protocol), prefix_len, fed_by: Vec::new(), scheme: Scheme::Http }
}

/// Two databases. The second has an empty PROTOCOL more in the draft, which nobody writes on purpose.
const DATABASES: &str = r#"<?xml version="1.0"?>
<SERVERS>
<SERVER>
<ADDRESS>134.184.50.57</ADDRESS>
<PORT>5632</PORT>
<TYPE>1</TYPE>
<PROTOCOL>TCP</PROTOCOL>
<PREFIXLEN>16</PREFIXLEN>
</SERVER>
<SERVER>
<ADDRESS>134.184.1.23</ADDRESS>
<PORT>3456</PORT>
<TYPE>1</TYPE>
<PROTOCOL>TCP</PROTOCOL>
<PROTOCOL></PROTOCOL>
<PREFIXLEN>16</PREFIXLEN>
</SERVER>
</SERVERS>
"#;

const TUNNEL_SERVERS: &str = r#"<?xml version="1.0"?>
<SERVERS>
<SERVER>
<ADDRESS>134.184.40.80</ADDRESS>
<PORT>8080</PORT>
<TYPE>0</TYPE>
<PROTOCOL>TCP</PROTOCOL>
</SERVER>
<SERVER>
<ADDRESS>134.184.1.24</ADDRESS>
<PORT>10100</PORT>
<TYPE>0</TYPE>
<PROTOCOL>UDP</PROTOCOL>
</SERVER>
<SERVER>
<ADDRESS>134.184.1.24</ADDRESS>
<PORT>8080</PORT>
<TYPE>0</TYPE>
<PROTOCOL>TCP</PROTOCOL>
</SERVER>
</SERVERS>
"#;

const TRANSFER: &str = r#"<?xml version="1.0"?>
<SERVERS>
<SERVER>
<ADDRESS>134.184.1.95</ADDRESS>
<PORT>6777</PORT>
<TYPE>1</TYPE>
<PROTOCOL>TCP</PROTOCOL>
<LOGIN>as2026u1</LOGIN>
<PASSWORD>u12!56D</PASSWORD>
<COUNTRIES>
<COUNTRY>BE</COUNTRY>
</COUNTRIES>
<NETWORKS>
<NETWORK>134.184.1.0/24</NETWORK>
<NETWORK>134.184.5.0/24</NETWORK>
<NETWORK>134.184.50.0/24</NETWORK>
</NETWORKS>
</SERVER>
</SERVERS>
"#;

#[test]
fn the_databases_of_the_draft_hold_in_both_directions() {
    let databases = [
        server("134.184.50.57", 5632, EntryType::TunnelDatabase, Protocol::Tcp, Some(16)),
        server("134.184.1.23", 3456, EntryType::TunnelDatabase, Protocol::Tcp, Some(16)),
    ];
    assert_eq!(parse_servers(DATABASES.as_bytes()).as_deref(), Ok(&databases[..]));
    assert_eq!(emit_servers(&databases), DATABASES.replace("<PROTOCOL></PROTOCOL>\n", ""));
}

#[test]
fn the_tunnel_servers_of_the_draft_hold_in_both_directions() {
    let servers = [
        server("134.184.40.80", 8080, EntryType::TunnelServer, Protocol::Tcp, None),
        server("134.184.1.24", 10100, EntryType::TunnelServer, Protocol::Udp, None),
        server("134.184.1.24", 8080, EntryType::TunnelServer, Protocol::Tcp, None),
    ];
    assert_eq!(parse_servers(TUNNEL_SERVERS.as_bytes()).as_deref(), Ok(&servers[..]));
    assert_eq!(emit_servers(&servers), TUNNEL_SERVERS);
}

#[test]
fn the_transfer_of_the_draft_holds_in_both_directions() {
    let entries = [TransferEntry {
        server: server("134.184.1.95", 6777, EntryType::TunnelDatabase, Protocol::Tcp, None),
        login: "as2026u1".into(),
        password: "u12!56D".into(),
        countries: vec!["BE".parse().expect("a country")],
        networks: ["134.184.1.0/24", "134.184.5.0/24", "134.184.50.0/24"]
            .map(|net| net.parse().expect("a net"))
            .to_vec(),
        expires_in_seconds: None,
    }];
    assert_eq!(parse_transfer(TRANSFER.as_bytes()).as_deref(), Ok(&entries[..]));
    assert_eq!(emit_transfer(&entries), TRANSFER);
}

#[test]
fn a_transfer_read_as_an_answer_to_query_has_no_credentials() {
    let expected = server("134.184.1.95", 6777, EntryType::TunnelDatabase, Protocol::Tcp, None);
    assert_eq!(parse_servers(TRANSFER.as_bytes()), Ok(vec![expected]));
}

#[test]
fn a_transfer_without_protocol_as_the_draft_declares_it_is_read() {
    let declared = TRANSFER.replace("<PROTOCOL>TCP</PROTOCOL>\n", "");
    let entries = parse_transfer(declared.as_bytes()).expect("a transfer");
    assert_eq!(entries[0].server.protocol, None);
}

#[test]
fn a_country_match_has_prefix_length_zero() {
    let database = server("134.184.50.57", 5632, EntryType::TunnelDatabase, Protocol::Tcp, Some(0));
    let document = emit_servers(std::slice::from_ref(&database));
    assert!(document.contains("<PREFIXLEN>0</PREFIXLEN>"));
    assert_eq!(parse_servers(document.as_bytes()), Ok(vec![database]));
}

#[test]
fn a_password_hash_passes_through() {
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA";
    let document = TRANSFER.replace("u12!56D", hash);
    let entries = parse_transfer(document.as_bytes()).expect("a transfer");
    assert_eq!(entries[0].password, hash);
    assert_eq!(emit_transfer(&entries), document);
}
