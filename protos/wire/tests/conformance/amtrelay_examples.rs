//! The examples of RFC 8777 §4.3.2 and appendix A. The data of the third was computed again by another program, as the RFC
//! leaves out the root of the name and counts one octet too few.

use crate::hex::octets;
use castgate_wire::amtrelay::{MNEMONIC, Record, Relay, TYPE, reverse_name};

#[track_caller]
fn holds(text: &str, hex: &str) {
    let record: Record = text.parse().expect("well-formed");
    assert_eq!(record.to_string(), text);
    assert_eq!(record.to_vec(), octets(hex));
    assert_eq!(Record::parse(&octets(hex)), Ok(record.clone()));
    let generic = format!(r"\# {} {}", octets(hex).len(), hex.replace(' ', ""));
    assert_eq!(record.to_generic(), generic);
    assert_eq!(generic.parse(), Ok(record));
}

#[test]
fn an_ipv4_relay() {
    holds("10 0 1 203.0.113.15", "0a 01 cb00710f");
}

#[test]
fn an_ipv6_relay() {
    holds("10 0 2 2001:db8::15", "0a 02 20010db8 00000000 00000000 00000015");
}

#[test]
fn a_relay_by_name() {
    let name = "09616d7472656c617973 076578616d706c65 03636f6d 00";
    holds("128 1 3 amtrelays.example.com.", &format!("80 83 {name}"));
    holds("128 0 3 amtrelays.example.com.", &format!("80 03 {name}"));
}

#[test]
fn no_relay_for_this_source() {
    holds("0 0 0 .", "00 00");
}

#[test]
fn the_short_form_of_the_rfc_is_accepted_and_never_written() {
    let text = r"\# 24 80 83 09616d7472656c617973076578616d706c6503636f6d";
    let record: Record = text.parse().expect("accepted");
    assert_eq!(record.to_string(), "128 1 3 amtrelays.example.com.");
    assert_eq!(record.to_vec().len(), 25);
}

#[test]
fn the_discovery_optional_bit_is_apart_from_the_type() {
    for second in 0..=255_u8 {
        let relay: &[u8] = match second & 0x7f {
            1 => &[203, 0, 113, 15],
            2 => &[0; 16],
            3 => &[0],
            _ => &[],
        };
        let record = Record::parse(&[&[10, second][..], relay].concat()).expect("of the right length");
        assert_eq!((record.precedence, record.discovery_optional), (10, second & 0x80 != 0));
        assert_eq!(record.relay.kind(), second & 0x7f);
        // RFC 8777 §4.2.3: types without a meaning are not considered, but by whom is not for the codec to say.
        assert_eq!(matches!(record.relay, Relay::Unknown(..)), second & 0x7f > 3);
    }
}

#[test]
fn compressed_names_are_refused() {
    assert!(Record::parse(&octets("0a 03 09616d7472656c617973 c00c")).is_err());
}

#[test]
fn the_type_has_the_number_and_the_name_of_the_rfc() {
    assert_eq!((TYPE, MNEMONIC), (260, "AMTRELAY"));
}

#[test]
fn the_source_of_the_example_is_found_under_the_name_of_the_example() {
    assert_eq!(reverse_name("198.51.100.12".parse().unwrap()).as_str(), "12.100.51.198.in-addr.arpa.");
}
