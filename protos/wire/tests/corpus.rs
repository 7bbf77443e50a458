//! Replays the committed inputs of the fuzz targets: what the fuzzer once found is looked at in every test run.

use castgate_wire::fuzzing::TARGETS;
use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The names in a folder, without what editors and fuzzers hide.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let names = entries.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"));
    names.filter(|name| !name.starts_with('.')).collect()
}

#[test]
fn every_input_of_every_corpus_is_harmless() {
    for (target, body) in TARGETS {
        let corpus = fuzz().join("corpus").join(target);
        let inputs = names(&corpus);
        assert!(!inputs.is_empty(), "target {target} has no corpus");
        for input in inputs {
            // Names the input when the body panics.
            println!("{target}/{input}");
            body(&fs::read(corpus.join(&input)).expect("readable"));
        }
    }
}

#[test]
fn every_target_has_a_wrapper_and_every_wrapper_a_target() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(target, _)| format!("{target}.rs")).collect();
    assert_eq!(names(&fuzz().join("fuzz_targets")), targets);
    let corpora: BTreeSet<String> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    assert_eq!(names(&fuzz().join("corpus")), corpora);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("readable");
    for (target, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not in the manifest");
    }
}

#[test]
fn every_corpus_holds_something_that_parses() {
    let parses = |target: &str, bytes: &[u8]| match target {
        "umtp" => castgate_wire::umtp::Repr::parse(bytes).is_ok(),
        "umtp_options" => castgate_wire::umtp::option::Options::new_checked(bytes).is_ok_and(|list| !list.is_empty()),
        "amt" => castgate_wire::amt::Repr::parse(bytes).is_ok(),
        "amtrelay" => castgate_wire::amtrelay::Record::parse(bytes).is_ok(),
        "amtrelay_text" => String::from_utf8_lossy(bytes).parse::<castgate_wire::amtrelay::Record>().is_ok(),
        "membership" => castgate_wire::membership::parse(bytes).is_ok(),
        "igmp" => castgate_wire::igmp::parse(bytes).is_ok(),
        "mld" => castgate_wire::mld::parse(bytes, Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED).is_ok(),
        "ip" | "icmp" => castgate_wire::ip::Packet::new_checked(bytes).is_ok(),
        "ipv6" => castgate_wire::ipv6::Packet::new_checked(bytes).is_ok(),
        "ipv4_fragment" => bytes.split_first_chunk::<2>().is_some_and(|([m0, m1], packet)| {
            castgate_wire::ipv4::fragment(packet, u16::from_be_bytes([*m0, *m1]).into()).is_ok()
        }),
        "ipv4" => castgate_wire::ipv4::Repr::parse(bytes).is_ok(),
        "udp" => bytes.split_at_checked(8).is_some_and(|(addresses, datagram)| {
            let address = |at: usize| {
                std::net::Ipv4Addr::new(addresses[at], addresses[at + 1], addresses[at + 2], addresses[at + 3])
            };
            castgate_wire::udp::Repr::parse(datagram, address(0), address(4)).is_ok()
        }),
        "registry_query" => castgate_wire::registry::Request::parse(&String::from_utf8_lossy(bytes)).is_ok(),
        "registry_xml_servers" => castgate_wire::registry::xml::parse_servers(bytes).is_ok_and(|list| !list.is_empty()),
        "registry_xml_transfer" => {
            castgate_wire::registry::xml::parse_transfer(bytes).is_ok_and(|list| !list.is_empty())
        }
        "pattern" => castgate_wire::pattern::Repr::parse(bytes).is_some(),
        "rtp" => castgate_wire::rtp::Repr::parse(bytes).is_some(),
        other => panic!("{other} is new here"),
    };
    for (target, _) in TARGETS {
        let corpus = fuzz().join("corpus").join(target);
        let one = names(&corpus).iter().any(|input| parses(target, &fs::read(corpus.join(input)).expect("readable")));
        assert!(one, "target {target} only ever sees refusals");
    }
}
