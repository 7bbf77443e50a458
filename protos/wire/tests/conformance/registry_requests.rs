//! Requests: liberal in, strict out (draft-liefooghe-castgate-02 §6, castgate UMTP notes).

use castgate_wire::registry::{
    Bye, EntryType, Login, ParseError, Prefix, Protocol, ProtocolFilter, Query, Register, Request, Scheme, Transfer,
};
use proptest::prelude::*;

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

fn parsed(pairs: &str) -> Request {
    Request::parse(pairs).unwrap_or_else(|error| panic!("{pairs}: {error}")).0
}

fn refused(pairs: &str) -> String {
    Request::parse(pairs).expect_err(pairs).to_string()
}

fn register() -> Register {
    Register {
        source: "134.184.1.24".parse().expect("an address"),
        port: 10100,
        entry_type: EntryType::TunnelServer,
        protocol: Some(Protocol::Udp),
        networks: vec![prefix("134.184.1.0/24")],
        country: Some("BE".parse().expect("a country")),
        fed_by: Vec::new(),
        scheme: Scheme::Http,
    }
}

fn query() -> Query {
    Query {
        entry_type: EntryType::TunnelServer,
        country: Some("BE".parse().expect("a country")),
        protocol: ProtocolFilter::All,
        network: None,
    }
}

const REGISTER: &str =
    "ACTION=REGISTER&TYPE=TS&SOURCE=134.184.1.24&PORT=10100&PROTOCOL=UDP&NETWORKS=134.184.1.0/24&COUNTRY=BE";

#[test]
fn the_requests_of_the_example_session_hold_in_both_directions() {
    let discovery = Query { entry_type: EntryType::TunnelDatabase, network: Some(prefix("134.184.0.0/16")), ..query() };
    for (pairs, request) in [
        ("ACTION=QUERY&TYPE=TDS&COUNTRY=BE&NETWORK=134.184.0.0/16", Request::Query(discovery)),
        (REGISTER, Request::Register(register())),
        ("ACTION=QUERY&TYPE=TS&COUNTRY=BE&PROTOCOL=ALL", Request::Query(query())),
    ] {
        assert_eq!(Request::parse(pairs), Ok((request.clone(), None)));
        assert_eq!(request.emit(), pairs);
    }
}

#[test]
fn a_database_over_https_says_so_and_one_over_http_need_not() {
    let secure = Register { scheme: Scheme::Https, ..register() };
    let pairs = format!("{REGISTER}&SCHEME=https");
    assert_eq!(Request::parse(&pairs), Ok((Request::Register(secure.clone()), None)));
    assert_eq!(Request::Register(secure).emit(), pairs);
    assert_eq!(Request::parse(&format!("{REGISTER}&scheme=HTTP")), Ok((Request::Register(register()), None)));
    let error = Request::parse(&format!("{REGISTER}&SCHEME=ftp")).expect_err("no scheme of ours");
    assert_eq!(error.to_string(), "Parameter SCHEME has the value \"ftp\", which is not http or https.");
}

#[test]
fn a_relay_names_the_chain_that_feeds_it() {
    let chain = ["192.0.2.7", "2001:db8::7"].map(|address| address.parse().expect("an address"));
    let relay = Register { fed_by: chain.to_vec(), ..register() };
    let pairs = format!("{REGISTER}&FEDBY=192.0.2.7,2001:db8::7");
    assert_eq!(Request::parse(&pairs), Ok((Request::Register(relay.clone()), None)));
    assert_eq!(Request::Register(relay).emit(), pairs);
    let endless = format!("{REGISTER}&FEDBY={}", "192.0.2.7,".repeat(17));
    assert!(refused(&endless).ends_with("is not a list of at most 16 IP addresses."));
}

#[test]
fn bye_and_transfer_hold_in_both_directions() {
    let Register { source, port, .. } = register();
    let bye = Bye { source, port, entry_type: None, protocol: None, strict: false };
    let one =
        Bye { entry_type: Some(EntryType::TunnelServer), protocol: Some(Protocol::Tcp), strict: true, ..bye.clone() };
    let narrow = Transfer { network: Some(prefix("2001:db8::/32")), country: register().country };
    for (pairs, request) in [
        ("ACTION=BYE&SOURCE=134.184.1.24&PORT=10100", Request::Bye(bye)),
        ("ACTION=BYE&TYPE=TS&SOURCE=134.184.1.24&PORT=10100&PROTOCOL=TCP&STRICT=1", Request::Bye(one)),
        ("ACTION=TRANSFER", Request::Transfer(Transfer::default())),
        ("ACTION=TRANSFER&NETWORK=2001:db8::/32&COUNTRY=BE", Request::Transfer(narrow)),
    ] {
        assert_eq!(Request::parse(pairs), Ok((request.clone(), None)));
        assert_eq!(request.emit(), pairs);
    }
}

#[test]
fn every_liberal_spelling_of_a_registration_is_read_the_same() {
    for pairs in [
        // Names and keywords in any case, digits for words, the other word for the action.
        "action=register&type=ts&source=134.184.1.24&port=10100&protocol=udp&networks=134.184.1.0/24&country=be",
        "ACTION=REGISTRATION&TYPE=0&SOURCE=134.184.1.24&PORT=10100&PROTOCOL=UDP&NETWORKS=134.184.1.0/24&COUNTRY=BE",
        // Semicolons, any order, unknown parameters, empty values and pairs.
        "COUNTRY=BE;PROTOCOL=UDP;;X=1;NETWORKS=134.184.1.0/24;PORT=10100;SOURCE=;SOURCE=134.184.1.24;TYPE=TS;ACTION=REGISTER;",
        // Escapes and plus, quotes as the draft prints them, blanks around everything.
        "ACTION=REGISTER&TYPE=TS&SOURCE=%22134.184.1.24%22&PORT='10100'&PROTOCOL=%55DP&NETWORKS=\"134.184.1.0%2f24\"&COUNTRY=\"BE\"",
        "ACTION=+REGISTER+&TYPE=TS&SOURCE=+134.184.1.24&PORT=10100+&PROTOCOL=UDP&NETWORKS=+134.184.1.0/24+,+&COUNTRY=BE",
        // Host bits.
        "ACTION=REGISTER&TYPE=TS&SOURCE=134.184.1.24&PORT=10100&PROTOCOL=UDP&NETWORKS=134.184.1.77/24&COUNTRY=BE",
        // The first of a repeated parameter counts.
        "ACTION=REGISTER&TYPE=TS&SOURCE=134.184.1.24&PORT=10100&PROTOCOL=UDP&NETWORKS=134.184.1.0/24&COUNTRY=BE&PORT=1&TYPE=TDS",
    ] {
        assert_eq!(parsed(pairs), Request::Register(register()), "{pairs}");
    }
}

#[test]
fn repeated_networks_are_one_list_and_a_bare_address_stands_for_itself() {
    let pairs = "ACTION=REGISTER&TYPE=TS&SOURCE=10.0.0.1&PORT=1&NETWORKS=192.0.2.0/25, 192.0.2.200&NETWORKS=2001:db8::1&NETWORKS=";
    let Request::Register(register) = parsed(pairs) else { panic!("a registration") };
    assert_eq!(register.networks, ["192.0.2.0/25", "192.0.2.200/32", "2001:db8::1/128"].map(prefix));
}

#[test]
fn sixty_four_kibibytes_of_networks_are_read() {
    let networks: Vec<String> = (0..=255).flat_map(|a| (0..20).map(move |b| format!("10.{a}.{b}.0/24"))).collect();
    let pairs = format!("ACTION=REGISTER&TYPE=TS&SOURCE=10.0.0.1&PORT=1&NETWORKS={}", networks.join(","));
    assert!(pairs.len() > 64 * 1024, "{}", pairs.len());
    let Request::Register(register) = parsed(&pairs) else { panic!("a registration") };
    assert_eq!(register.networks.len(), networks.len());
}

#[test]
fn what_is_not_said_has_the_meaning_of_the_draft() {
    let expected = Query { country: None, ..query() };
    for pairs in ["ACTION=QUERY&TYPE=TS", "ACTION=QUERY&TYPE=TS&COUNTRY=&PROTOCOL=", "ACTION=QUERY&TYPE=TS&COUNTRY=zz"]
    {
        assert_eq!(parsed(pairs), Request::Query(expected.clone()), "{pairs}");
    }
    // The country is mandatory, so who does not know says so.
    assert_eq!(Request::Query(expected).emit(), "ACTION=QUERY&TYPE=TS&COUNTRY=ZZ&PROTOCOL=ALL");
}

#[test]
fn the_united_kingdom_and_greece_are_found_under_their_other_codes() {
    for (said, meant) in [("UK", "GB"), ("el", "GR"), ("GB", "GB")] {
        let Request::Query(query) = parsed(&format!("ACTION=QUERY&TYPE=TS&COUNTRY={said}")) else { panic!("a query") };
        assert_eq!(query.country.expect("a country").as_str(), meant);
    }
}

#[test]
fn a_query_may_ask_for_amt_and_for_what_nobody_knows_yet() {
    let protocol = |word| match parsed(&format!("ACTION=QUERY&TYPE=TS&PROTOCOL={word}")) {
        Request::Query(query) => query.protocol,
        other => panic!("{other:?}"),
    };
    assert_eq!(protocol("amt"), ProtocolFilter::Only(Protocol::Amt));
    assert_eq!(protocol("quic"), ProtocolFilter::Only(Protocol::Unknown("QUIC".into())));
    assert_eq!(protocol("all"), ProtocolFilter::All);
}

#[test]
fn one_network_may_come_under_the_name_of_the_list() {
    let expected = Query { network: Some(prefix("134.184.0.0/16")), entry_type: EntryType::TunnelDatabase, ..query() };
    assert_eq!(parsed("ACTION=QUERY&TYPE=TDS&COUNTRY=BE&NETWORKS=134.184.0.0/16"), Request::Query(expected));
    assert_eq!(
        refused("ACTION=QUERY&TYPE=TDS&NETWORKS=134.184.0.0/16,10.0.0.0/8"),
        "Parameter NETWORKS has the value \"134.184.0.0/16,10.0.0.0/8\", which is not a single network."
    );
}

#[test]
fn credentials_among_the_pairs_are_returned_beside_the_request() {
    let (_, login) = Request::parse(&format!("{REGISTER}&LOGIN=as2026u1&PASSWORD=u12%2156D")).expect("a registration");
    let login = login.expect("a login");
    assert_eq!((login.login.as_str(), login.password.as_str()), ("as2026u1", "u12!56D"));
    assert!(!format!("{login:?}").contains("u12"));
    assert!(!Request::Register(register()).emit().contains("LOGIN"));
}

#[test]
fn a_password_keeps_its_blanks_and_signs() {
    let (_, login) = Request::parse("ACTION=TRANSFER&LOGIN=a&PASSWORD=+a%26b%3B%3D%25+").expect("a transfer");
    assert_eq!(login, Some(Login { login: "a".into(), password: " a&b;=% ".into() }));
}

#[test]
fn a_bad_parameter_is_refused_in_one_sentence_with_its_name_and_value() {
    let base = "ACTION=REGISTER&TYPE=TS&SOURCE=10.0.0.1&PORT=1";
    for (changed, sentence) in [
        ("SOURCE=here", "Parameter SOURCE has the value \"here\", which is not an IP address."),
        ("PORT=0", "Parameter PORT has the value \"0\", which is not a port from 1 to 65535."),
        ("PORT=65536", "Parameter PORT has the value \"65536\", which is not a port from 1 to 65535."),
        ("PORT=%2B1", "Parameter PORT has the value \"+1\", which is not a port from 1 to 65535."),
        ("TYPE=TSS", "Parameter TYPE has the value \"TSS\", which is not TS or TDS."),
        ("PROTOCOL=ALL", "Parameter PROTOCOL has the value \"ALL\", which is not UDP or TCP."),
        ("PROTOCOL=U/DP", "Parameter PROTOCOL has the value \"U/DP\", which is not UDP or TCP."),
        ("COUNTRY=BEL", "Parameter COUNTRY has the value \"BEL\", which is not a country of two letters such as BE."),
        (
            "NETWORKS=10.0.0.0/8,10.0.0.0/33",
            "Parameter NETWORKS has the value \"10.0.0.0/33\", which is not a network such as 134.184.0.0/16.",
        ),
        ("ACTION=HELLO", "Parameter ACTION has the value \"HELLO\", which is not REGISTER, BYE, QUERY or TRANSFER."),
        ("SOURCE=%ff", "Parameter SOURCE is not UTF-8 text without control characters."),
        ("LOGIN=a%00&PASSWORD=b", "Parameter LOGIN is not UTF-8 text without control characters."),
        ("PASSWORD=secret", "Parameter LOGIN is missing."),
        ("LOGIN=a", "Parameter PASSWORD is missing."),
    ] {
        // In front, because the first counts.
        assert_eq!(refused(&format!("{changed}&{base}")), sentence);
    }
    let odd = "ACTION=BYE&SOURCE=10.0.0.1&PORT=1&STRICT=maybe";
    assert_eq!(refused(odd), "Parameter STRICT has the value \"maybe\", which is not 0 or 1.");
}

#[test]
fn a_missing_parameter_is_refused_by_its_name() {
    for (pairs, name) in [
        ("", "ACTION"),
        ("TYPE=TS", "ACTION"),
        ("ACTION=REGISTER&TYPE=TS&PORT=1", "SOURCE"),
        ("ACTION=REGISTER&TYPE=TS&SOURCE=10.0.0.1", "PORT"),
        ("ACTION=REGISTER&SOURCE=10.0.0.1&PORT=1", "TYPE"),
        ("ACTION=BYE&SOURCE=10.0.0.1", "PORT"),
        ("ACTION=QUERY&COUNTRY=BE", "TYPE"),
    ] {
        assert_eq!(Request::parse(pairs), Err(ParseError::Missing { name }), "{pairs}");
    }
}

#[test]
fn a_long_value_is_cut_in_the_sentence() {
    let sentence = refused(&format!("ACTION=QUERY&TYPE={}", "é".repeat(10_000)));
    assert!(sentence.len() < 200 && sentence.contains('…'), "{sentence}");
}

prop_compose! {
    fn any_prefix()(address: std::net::IpAddr, len: u8) -> Prefix {
        let max = if address.is_ipv4() { 32 } else { 128 };
        Prefix::new(address, len % (max + 1)).expect("not too long").trunc()
    }
}

fn any_protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![
        Just(Protocol::Udp),
        Just(Protocol::Tcp),
        Just(Protocol::Amt),
        "[B-S][A-Z0-9._-]{1,8}[0-9]".prop_map(Protocol::Unknown),
    ]
}

fn any_type() -> impl Strategy<Value = EntryType> {
    prop_oneof![Just(EntryType::TunnelServer), Just(EntryType::TunnelDatabase)]
}

fn any_request() -> impl Strategy<Value = Request> {
    let country = || proptest::option::of("[A-D][A-Z]".prop_map(|code| code.parse().expect("a country")));
    let protocol = || proptest::option::of(any_protocol());
    let network = || proptest::option::of(any_prefix());
    let networks = proptest::collection::vec(any_prefix(), 0..5);
    let fed_by = proptest::collection::vec(any::<std::net::IpAddr>(), 0..=16);
    let register =
        (any::<std::net::IpAddr>(), 1_u16.., any_type(), protocol(), networks, country(), fed_by, any_scheme());
    let bye = (any::<std::net::IpAddr>(), 1_u16.., proptest::option::of(any_type()), protocol(), any::<bool>());
    prop_oneof![
        register.prop_map(|(source, port, entry_type, protocol, networks, country, fed_by, scheme)| {
            Request::Register(Register { source, port, entry_type, protocol, networks, country, fed_by, scheme })
        }),
        bye.prop_map(|(source, port, entry_type, protocol, strict)| {
            Request::Bye(Bye { source, port, entry_type, protocol, strict })
        }),
        (any_type(), country(), protocol(), network()).prop_map(|(entry_type, country, protocol, network)| {
            let protocol = protocol.map_or(ProtocolFilter::All, ProtocolFilter::Only);
            Request::Query(Query { entry_type, country, protocol, network })
        }),
        (network(), country()).prop_map(|(network, country)| Request::Transfer(Transfer { network, country })),
    ]
}

proptest! {
    #[test]
    fn any_request_comes_back_as_it_was_written(request in any_request()) {
        prop_assert_eq!(Request::parse(&request.emit()), Ok((request, None)));
    }

    #[test]
    fn any_text_is_a_request_or_a_refusal(
        text in "((ACTION|TYPE|SOURCE|PORT|PROTOCOL|NETWORKS?|COUNTRY|LOGIN|x)=([A-Z0-9./:,%+\"']{0,8}|QUERY|TS|\\PC{0,4})[&;]){0,6}",
    ) {
        castgate_wire::fuzzing::registry_query(text.as_bytes());
    }
}

fn any_scheme() -> impl Strategy<Value = Scheme> {
    prop_oneof![Just(Scheme::Http), Just(Scheme::Https)]
}
