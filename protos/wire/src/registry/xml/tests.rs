use super::*;
use crate::registry::Prefix;
use proptest::prelude::*;

fn server(address: &str, port: u16, entry_type: EntryType, protocol: Protocol, prefix_len: Option<u8>) -> Server {
    Server {
        address: address.parse().unwrap(),
        port,
        entry_type,
        protocol: Some(protocol),
        prefix_len,
        fed_by: Vec::new(),
        scheme: Scheme::Http,
    }
}

/// One SERVER with these children, read as the answer to a QUERY.
fn one(children: &str) -> Result<Server, ParseError> {
    let document = format!("<SERVERS><SERVER>{children}</SERVER></SERVERS>");
    parse_servers(document.as_bytes()).map(|mut servers| servers.pop().expect("one server"))
}

const PLAIN: &str = "<ADDRESS>192.0.2.1</ADDRESS><PORT>10100</PORT><TYPE>0</TYPE><PROTOCOL>UDP</PROTOCOL>";

fn plain() -> Server {
    server("192.0.2.1", 10100, EntryType::TunnelServer, Protocol::Udp, None)
}

#[test]
fn an_empty_list_is_an_empty_list() {
    assert_eq!(emit_servers(&[]), "<?xml version=\"1.0\"?>\n<SERVERS/>\n");
    assert_eq!(emit_transfer(&[]), emit_servers(&[]));
    for document in ["<SERVERS/>", "<SERVERS></SERVERS>", "<SERVERS> <!-- none --> </SERVERS>\n"] {
        assert_eq!(parse_servers(document.as_bytes()), Ok(vec![]));
    }
}

#[test]
fn byte_order_mark_declaration_comments_instructions_and_attributes_are_passed_over() {
    let document = format!(
        "\u{feff}<?xml version='1.0' encoding='utf-8' standalone='yes'?><!-- a --><?pi x?>\n\
         <SERVERS version=\"2\" xmlns='urn:x'><!-- b --><SERVER id='1'>{PLAIN}<!-- c --></SERVER></SERVERS><!-- d -->"
    );
    assert_eq!(parse_servers(document.as_bytes()), Ok(vec![plain()]));
}

#[test]
fn names_are_read_in_any_case_and_children_in_any_order() {
    let document = "<servers><Server><Type>ts</Type><protocol>udp</protocol>\
                    <Port> 10100\n</Port><address>\t192.0.2.1 </address></Server></servers>";
    assert_eq!(parse_servers(document.as_bytes()), Ok(vec![plain()]));
}

#[test]
fn unknown_children_are_skipped_with_all_that_is_in_them() {
    assert_eq!(one(&format!("<COLOUR>red</COLOUR><X><PORT>1</PORT><ADDRESS/></X>{PLAIN}")), Ok(plain()));
    assert_eq!(one(&format!("{PLAIN}<LOGIN>a</LOGIN><PASSWORD>b</PASSWORD>")), Ok(plain()));
}

#[test]
fn known_elements_in_the_wrong_place_say_nothing() {
    let document = format!("<SERVERS><PORT>1</PORT><X><SERVER>{PLAIN}</SERVER></X></SERVERS>");
    assert_eq!(parse_servers(document.as_bytes()), Ok(vec![]));
}

#[test]
fn of_repeated_children_the_first_that_is_not_empty_counts() {
    let twice = PLAIN.replace("<PROTOCOL>", "<PROTOCOL></PROTOCOL><PROTOCOL> </PROTOCOL><PROTOCOL>");
    assert_eq!(one(&format!("{twice}<PROTOCOL>TCP</PROTOCOL><PORT>1</PORT>")), Ok(plain()));
}

#[test]
fn a_server_without_protocol_is_accepted_and_written_with_an_empty_one() {
    let without = Server { protocol: None, ..plain() };
    assert_eq!(one(&PLAIN.replace("<PROTOCOL>UDP</PROTOCOL>", "")).as_ref(), Ok(&without));
    let document = emit_servers(std::slice::from_ref(&without));
    assert!(document.contains("<PROTOCOL></PROTOCOL>"));
    assert_eq!(parse_servers(document.as_bytes()), Ok(vec![without]));
}

#[test]
fn the_chain_that_feeds_a_relay_stands_behind_what_the_draft_has() {
    let fed_by = vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    let relay = Server { fed_by, ..plain() };
    let document = emit_servers(std::slice::from_ref(&relay));
    assert!(document.contains("</PROTOCOL>\n<FEDBY>192.0.2.7,2001:db8::7</FEDBY>\n</SERVER>"), "{document}");
    assert_eq!(parse_servers(document.as_bytes()), Ok(vec![relay]));
    assert!(!emit_servers(&[plain()]).contains("FEDBY"));
    let error = one(&format!("{PLAIN}<FEDBY>192.0.2.7,relay</FEDBY>")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "FEDBY has the value \"192.0.2.7,relay\", which is not a list of at most 16 IP addresses."
    );
}

#[test]
fn a_database_over_https_says_so_behind_what_the_draft_has_and_one_over_http_says_nothing() {
    let secure = Server { entry_type: EntryType::TunnelDatabase, scheme: Scheme::Https, ..plain() };
    let document = emit_servers(std::slice::from_ref(&secure));
    assert!(document.contains("</PROTOCOL>\n<SCHEME>https</SCHEME>\n</SERVER>"), "{document}");
    assert_eq!(parse_servers(document.as_bytes()), Ok(vec![secure]));
    assert!(!emit_servers(&[plain()]).contains("SCHEME"));
    for text in ["http", " HTTP ", ""] {
        assert_eq!(one(&format!("{PLAIN}<scheme>{text}</scheme>")), Ok(plain()), "{text:?}");
    }
    let error = one(&format!("{PLAIN}<SCHEME>gopher</SCHEME>")).unwrap_err();
    assert_eq!(error.to_string(), "SCHEME has the value \"gopher\", which is not http or https.");
}

#[test]
fn a_document_type_is_refused() {
    let bomb = "<!DOCTYPE SERVERS [<!ENTITY a 'aaaa'>]><SERVERS/>";
    assert_eq!(parse_servers(bomb.as_bytes()), Err(ParseError::Doctype));
    assert_eq!(parse_servers(b"<!doctype SERVERS><SERVERS/>"), Err(ParseError::Doctype));
}

#[test]
fn entities_of_ones_own_are_refused_also_where_nothing_is_read() {
    assert_eq!(one("<PORT>&port;</PORT>"), Err(ParseError::Entity("port".into())));
    assert_eq!(one("<X>&port;</X>"), Err(ParseError::Entity("port".into())));
}

#[test]
fn characters_that_xml_does_not_have_are_refused() {
    for children in
        ["<PORT>&#0;</PORT>", "<PORT>&#1;</PORT>", "<PORT>\u{1}</PORT>", "<PORT>\u{fffe}</PORT>", "<X>\0</X>"]
    {
        assert!(matches!(one(children), Err(ParseError::IllFormed(_))), "{children:?}");
    }
}

#[test]
fn the_five_entities_of_xml_character_references_and_cdata_are_text() {
    let children = format!(
        "{PLAIN}<LOGIN>&lt;&gt;&amp;&apos;&quot;</LOGIN><PASSWORD>&#x41;&#66;<![CDATA[<&>]]><X>no</X>c</PASSWORD>"
    );
    let document = format!("<SERVERS><SERVER>{children}</SERVER></SERVERS>");
    let entries = parse_transfer(document.as_bytes()).unwrap();
    assert_eq!((entries[0].login.as_str(), entries[0].password.as_str()), ("<>&'\"", "AB<&>c"));
}

#[test]
fn what_is_longer_than_a_mebibyte_is_refused_unread() {
    let mut document = b"<SERVERS/>".to_vec();
    document.resize(LEN_MAX, b' ');
    assert_eq!(parse_servers(&document), Ok(vec![]));
    document.push(b' ');
    assert_eq!(parse_servers(&document), Err(ParseError::TooLong(LEN_MAX + 1)));
}

#[test]
fn what_is_deeper_than_eight_is_refused() {
    let nested = |depth: usize| {
        let (open, close) = ("<X>".repeat(depth - 1), "</X>".repeat(depth - 1));
        parse_servers(format!("<SERVERS>{open}{close}</SERVERS>").as_bytes())
    };
    assert_eq!(nested(DEPTH_MAX), Ok(vec![]));
    assert_eq!(nested(DEPTH_MAX + 1), Err(ParseError::TooDeep));
    assert_eq!(nested(100_000), Err(ParseError::TooDeep));
}

#[test]
fn what_is_not_well_formed_is_refused() {
    for document in [
        "",
        "hello",
        "<SERVERS>",
        "<SERVERS><SERVER></SERVERS>",
        "<SERVERS/><SERVERS/>",
        "<SERVERS/>x",
        "<SERVERS/>&lt;",
        "<SERVERS",
        "<SERVERS>a & b</SERVERS>",
        "</SERVERS>",
    ] {
        assert!(matches!(parse_servers(document.as_bytes()), Err(ParseError::IllFormed(_))), "{document}");
    }
    assert_eq!(parse_servers(b"<html></html>"), Err(ParseError::NotServers("html".into())));
    assert_eq!(parse_servers(b"<SERVERS>\xff</SERVERS>"), Err(ParseError::NotUtf8));
    assert_eq!(parse_servers(b"\xff\xfe<\0S\0/\0>\0"), Err(ParseError::NotUtf8));
}

#[test]
fn a_bad_element_is_named_with_its_value_in_one_sentence() {
    let sentence = |children: &str| one(children).unwrap_err().to_string();
    assert_eq!(sentence(""), "A SERVER has no ADDRESS.");
    assert_eq!(
        sentence(&PLAIN.replace("10100", "0")),
        "PORT has the value \"0\", which is not a port from 1 to 65535."
    );
    assert_eq!(
        sentence(&PLAIN.replace("192.0.2.1", "here")),
        "ADDRESS has the value \"here\", which is not an IP address."
    );
    assert_eq!(sentence(&PLAIN.replace("<TYPE>0", "<TYPE>2")), "TYPE has the value \"2\", which is not 0 or 1.");
    assert_eq!(
        sentence(&format!("{PLAIN}<PREFIXLEN>129</PREFIXLEN>")),
        "PREFIXLEN has the value \"129\", which is not a prefix length."
    );
}

#[test]
fn unknown_countries_are_left_out_and_aliases_mapped() {
    let document = format!(
        "<SERVERS><SERVER>{PLAIN}<COUNTRIES><COUNTRY>uk</COUNTRY><COUNTRY>ZZ</COUNTRY><COUNTRY/></COUNTRIES>\
         <NETWORKS><NETWORK>134.184.1.9/24</NETWORK><NETWORK>192.0.2.1</NETWORK></NETWORKS></SERVER></SERVERS>"
    );
    let entries = parse_transfer(document.as_bytes()).unwrap();
    assert_eq!(entries[0].countries, ["GB".parse().unwrap()]);
    let networks: Vec<Prefix> = vec!["134.184.1.0/24".parse().unwrap(), "192.0.2.1/32".parse().unwrap()];
    assert_eq!(entries[0].networks, networks);
}

#[test]
fn what_xml_cannot_write_is_replaced_and_markup_escaped() {
    let entry = TransferEntry {
        server: plain(),
        login: "<&>]]>\u{1}\r\n".into(),
        password: "  a b\t".into(),
        countries: vec![],
        networks: vec![],
        expires_in_seconds: None,
    };
    let document = emit_transfer(std::slice::from_ref(&entry));
    assert!(document.contains("<LOGIN>&lt;&amp;&gt;]]&gt;\u{fffd}&#13;&#10;</LOGIN>"), "{document}");
    assert!(document.contains("<PASSWORD>&#32;&#32;a b&#9;</PASSWORD>"), "{document}");
    let again = parse_transfer(document.as_bytes()).unwrap();
    assert_eq!(again[0].password, entry.password);
}

#[test]
fn a_transfer_is_read_part_by_part_however_long_it_is_and_a_bad_entry_loses_itself_alone() {
    let entry = |port| TransferEntry {
        server: Server { port, ..plain() },
        login: "be".into(),
        password: String::new(),
        countries: vec![],
        networks: vec!["134.184.0.0/16".parse().unwrap(); 40],
        expires_in_seconds: Some(7),
    };
    let mut document = TRANSFER_BEGIN.to_owned();
    for port in 1..=1_000 {
        emit_transfer_entries(&mut document, &[entry(port)]);
    }
    document.push_str("<SERVER><PORT>0</PORT></SERVER>");
    emit_transfer_entries(&mut document, &[entry(1_001)]);
    document.push_str(TRANSFER_END);
    assert!(document.len() > LEN_MAX);
    let (mut good, mut bad) = (Vec::new(), 0);
    // A source that gives a little at a time, as a connection does.
    read_transfer(std::io::BufReader::with_capacity(7, document.as_bytes()), |read| match read {
        Ok(read) => good.push(read),
        Err(_) => bad += 1,
    })
    .unwrap();
    assert_eq!((good.len(), bad), (1_001, 1));
    assert!(good.iter().zip(1..).all(|(read, port)| *read == entry(port)));

    let cut = &document.as_bytes()[..document.len() / 2];
    let mut before = 0;
    assert!(read_transfer(cut, |_| before += 1).is_err());
    assert!(before > 400, "what came before the end is good");
}

#[test]
fn one_server_of_a_transfer_is_bounded_too() {
    let long = format!("{TRANSFER_BEGIN}<SERVER><LOGIN>{}", "x".repeat(TRANSFER_SERVER_LEN_MAX));
    let error = read_transfer(std::io::BufReader::new(long.as_bytes()), |_| {}).unwrap_err();
    assert_eq!(error, ParseError::TooLong(TRANSFER_SERVER_LEN_MAX));
    let nothing_but_blanks = std::io::BufReader::new(std::io::Read::take(std::io::repeat(b' '), 1 << 21));
    assert!(read_transfer(nothing_but_blanks, |_| {}).is_err());
}

fn any_server() -> impl Strategy<Value = Server> {
    let protocol = prop_oneof![
        Just(None),
        Just(Some(Protocol::Udp)),
        Just(Some(Protocol::Tcp)),
        Just(Some(Protocol::Amt)),
        "[B-S][A-Z0-9&<>-]{1,8}[0-9]".prop_map(|word| Some(Protocol::Unknown(word))),
    ];
    let entry_type = prop_oneof![Just(EntryType::TunnelServer), Just(EntryType::TunnelDatabase)];
    let fed_by = proptest::collection::vec(any::<std::net::IpAddr>(), 0..=16);
    let prefix_len = proptest::option::of(0_u8..=128);
    let scheme = prop_oneof![Just(Scheme::Http), Just(Scheme::Https)];
    (any::<std::net::IpAddr>(), 1_u16.., entry_type, protocol, prefix_len, fed_by, scheme).prop_map(
        |(address, port, entry_type, protocol, prefix_len, fed_by, scheme)| Server {
            address,
            port,
            entry_type,
            protocol,
            prefix_len,
            fed_by,
            scheme,
        },
    )
}

/// Every character that XML can write.
fn any_text() -> impl Strategy<Value = String> {
    "[\t\n\r -~\u{80}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]{0,12}"
}

proptest! {
    #[test]
    fn servers_come_back_as_they_were_written(servers in proptest::collection::vec(any_server(), 0..5)) {
        prop_assert_eq!(parse_servers(emit_servers(&servers).as_bytes()), Ok(servers));
    }

    #[test]
    fn servers_are_written_as_formatting_writes_them(server in any_server(), seconds in any::<u32>()) {
        let Server { address, port, entry_type, protocol, prefix_len, fed_by, scheme } = server.clone();
        let word = protocol.as_ref().map_or("", Protocol::word);
        let word = word.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let prefix_len = prefix_len.map(|len| format!("<PREFIXLEN>{len}</PREFIXLEN>\n")).unwrap_or_default();
        let fed_by: Vec<String> = fed_by.iter().map(ToString::to_string).collect();
        let fed_by =
            if fed_by.is_empty() { String::new() } else { format!("<FEDBY>{}</FEDBY>\n", fed_by.join(",")) };
        let head = format!(
            "<?xml version=\"1.0\"?>\n<SERVERS>\n<SERVER>\n<ADDRESS>{address}</ADDRESS>\n<PORT>{port}</PORT>\n<TYPE>{}</TYPE>\n\
             <PROTOCOL>{word}</PROTOCOL>\n",
            entry_type.digit()
        );
        let scheme = if scheme.is_http() { "" } else { "<SCHEME>https</SCHEME>\n" };
        let tail = format!("{fed_by}{scheme}</SERVER>\n</SERVERS>\n");
        prop_assert_eq!(emit_servers(std::slice::from_ref(&server)), format!("{head}{prefix_len}{tail}"));
        let entry = TransferEntry {
            server,
            login: String::new(),
            password: String::new(),
            countries: Vec::new(),
            networks: Vec::new(),
            expires_in_seconds: Some(seconds),
        };
        let written = emit_transfer(std::slice::from_ref(&entry));
        let expires = format!("<LOGIN></LOGIN>\n<PASSWORD></PASSWORD>\n<EXPIRES>{seconds}</EXPIRES>\n");
        prop_assert_eq!(written, format!("{head}{expires}{tail}"));
    }

    #[test]
    fn transfers_come_back_as_they_were_written(
        server in any_server(),
        login in any_text(),
        password in any_text(),
        countries in proptest::collection::vec("[A-D][A-Z]", 0..3),
        networks in proptest::collection::vec((any::<std::net::Ipv4Addr>(), 0_u8..=32), 0..4),
        expires_in_seconds in proptest::option::of(any::<u32>()),
    ) {
        let entry = TransferEntry {
            server: Server { prefix_len: None, ..server },
            login,
            password,
            countries: countries.iter().map(|country| country.parse().unwrap()).collect(),
            networks: networks
                .iter()
                .map(|(address, len)| Prefix::new((*address).into(), *len).unwrap().trunc())
                .collect(),
            expires_in_seconds,
        };
        let document = emit_transfer(std::slice::from_ref(&entry));
        prop_assert_eq!(parse_transfer(document.as_bytes()), Ok(vec![entry]));
    }

    #[test]
    fn any_text_is_a_list_or_a_refusal(text in "(<|>|/|SERVERS?|PORT|[&;#x0-9 !-]|\\PC){0,40}") {
        let _ = parse_servers(text.as_bytes());
        let _ = parse_transfer(text.as_bytes());
    }
}
