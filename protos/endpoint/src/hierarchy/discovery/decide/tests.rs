//! Every row of the table above, by name, and hundreds of paths that nobody thought of.

use std::collections::HashSet;
use std::net::SocketAddr;

use castgate_wire::registry::{EntryType, Prefix};
use proptest::prelude::*;

use super::super::{Member, PathStep, Role, Subject};
use super::*;

const ROOTS: &[&str] = &["127.0.4.1:5632", "127.0.4.2:5632"];
const COUNTRY: &[&str] = &["127.0.5.1:5632", "127.0.5.2:5632"];
const ISP: &[&str] = &["127.0.6.1:5632", "127.0.6.2:5632"];
const CUSTOMER: &[&str] = &["10.1.2.3:5632"];

#[test]
fn nobody_known_at_the_roots_means_registering_with_the_roots() {
    for subject in [server(), database("10.1.0.0/16"), country_database()] {
        decides(&[(ROOTS, None)], &subject, ROOTS, &[]);
    }
}

#[test]
fn a_server_registers_with_all_of_the_last_step_and_takes_nothing_over() {
    decides(&[(ROOTS, None), (COUNTRY, Some(0))], &server(), COUNTRY, &[]);
    decides(&[(ROOTS, None), (COUNTRY, Some(0)), (ISP, Some(16))], &server(), ISP, &[]);
    decides(&[(ROOTS, None), (COUNTRY, Some(0)), (ISP, Some(8))], &server(), ISP, &[]);
}

#[test]
fn a_database_below_a_wider_network_has_no_peers() {
    decides(&[(ROOTS, None), (COUNTRY, Some(0)), (ISP, Some(8))], &database("10.1.0.0/16"), ISP, &[]);
}

#[test]
fn a_second_database_of_a_range_takes_over_from_the_first_and_registers_above_it() {
    decides(&[(ROOTS, None), (COUNTRY, Some(0)), (ISP, Some(16))], &database("10.1.0.0/16"), COUNTRY, ISP);
    decides(&[(ROOTS, None), (ISP, Some(16))], &database("10.1.0.0/16"), ROOTS, ISP);
}

#[test]
fn the_inner_one_of_two_with_the_same_range_is_a_peer_of_the_customer() {
    let inner = Subject { own: vec![address("10.1.2.9:5632")], ..database("10.1.0.0/16") };
    let path: &[(&[&str], _)] = &[(ROOTS, None), (COUNTRY, Some(0)), (ISP, Some(16)), (CUSTOMER, Some(16))];
    decides(path, &inner, ISP, CUSTOMER);
}

#[test]
fn the_outer_one_of_two_with_the_same_range_is_a_peer_of_the_isp() {
    let path: &[(&[&str], _)] = &[(ROOTS, None), (COUNTRY, Some(0)), (ISP, Some(16)), (CUSTOMER, Some(16))];
    decides(path, &database("10.1.0.0/16"), COUNTRY, ISP);
    let path: &[(&[&str], _)] = &[(ROOTS, None), (ISP, Some(16)), (CUSTOMER, Some(16))];
    decides(path, &database("10.1.0.0/16"), ROOTS, ISP);
}

#[test]
fn the_first_customer_of_an_isp_with_the_same_range_is_its_child_when_it_says_so_and_lives_there() {
    let path: &[(&[&str], _)] = &[(ROOTS, None), (COUNTRY, Some(0)), (ISP, Some(16))];
    let customer = Subject { own: vec![address("10.1.2.9:5632")], role: Role::Customer, ..database("10.1.0.0/16") };
    decides(path, &customer, ISP, &[]);
    let peer = Subject { role: Role::Peer, ..customer.clone() };
    decides(path, &peer, COUNTRY, ISP);
    let elsewhere = Subject { own: vec![address("192.0.2.9:5632")], ..customer };
    decides(path, &elsewhere, COUNTRY, ISP);
}

#[test]
fn a_step_that_is_not_there_is_the_roots() {
    // Found by our very range without anything above it: no answer of ours looks like this, a caller's may.
    decides(&[(ISP, Some(16))], &database("10.1.0.0/16"), ISP, ISP);
    decides(&[(ISP, Some(16)), (CUSTOMER, Some(16))], &database("10.1.0.0/16"), ISP, ISP);
    assert_eq!(decide(&[], &database("10.1.0.0/16")), Decision::default());
}

#[test]
fn a_second_database_of_a_country_takes_over_from_the_first_and_registers_at_the_roots() {
    decides(&[(ROOTS, None), (COUNTRY, Some(0))], &country_database(), ROOTS, COUNTRY);
}

#[test]
fn a_database_of_a_network_in_a_known_country_registers_with_the_country() {
    decides(&[(ROOTS, None), (COUNTRY, Some(0))], &database("10.1.0.0/16"), COUNTRY, &[]);
}

#[test]
fn networks_do_not_lead_a_country_anywhere() {
    let path: &[(&[&str], _)] = &[(ROOTS, None), (COUNTRY, Some(0)), (ISP, Some(16))];
    decides(path, &country_database(), ROOTS, COUNTRY);
    let public = Subject { range: Some("0.0.0.0/0".parse().unwrap()), ..country_database() };
    decides(path, &public, ROOTS, COUNTRY);
}

#[test]
fn who_has_a_smaller_network_than_ours_is_not_above_us() {
    let path: &[(&[&str], _)] = &[(ROOTS, None), (COUNTRY, Some(0)), (CUSTOMER, Some(24)), (ISP, Some(16))];
    decides(path, &database("10.1.0.0/16"), COUNTRY, &[]);
}

#[test]
fn we_are_neither_our_parent_nor_our_peer() {
    let own = address("127.0.6.1:5632");
    let subject = Subject { own: vec![own], ..database("10.1.0.0/16") };
    decides(&[(ROOTS, None), (ISP, Some(16))], &subject, ROOTS, &ISP[1..]);
    decides(&[(ROOTS, None), (ISP, Some(8))], &subject, &ISP[1..], &[]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn nobody_registers_with_itself_or_with_whom_it_takes_over_from(
        lengths in prop::collection::vec(0_u8..=32, 0..16),
        range in prop::option::of(0_u8..=32),
        is_server: bool,
        is_customer: bool,
        own in 0_usize..20,
    ) {
        let (path, subject) = generated(&lengths, range, is_server, is_customer, own);
        let decision = decide(&path, &subject);
        let of = |members: &[Member]| members.iter().map(|member| member.address).collect::<HashSet<_>>();
        let (register, transfer) = (of(&decision.register), of(&decision.transfer));
        prop_assert!(register.is_disjoint(&transfer));
        prop_assert!(subject.own.iter().all(|own| !register.contains(own) && !transfer.contains(own)));
        prop_assert!(!is_server || transfer.is_empty());
        prop_assert!(!register.is_empty(), "each step has two members, of which one at most is ourselves");
        // What we register with is one whole step, and those that we take over from are the step below it.
        let whole = |step: usize| {
            of(&path[step].members).into_iter().filter(|address| !subject.own.contains(address)).collect::<HashSet<_>>()
        };
        prop_assert_eq!(register, whole(decision.step));
        if !transfer.is_empty() {
            prop_assert_eq!(transfer, whole(decision.step + 1));
        }
    }

    #[test]
    fn only_an_equal_range_or_the_same_country_makes_peers(
        lengths in prop::collection::vec(0_u8..=32, 1..16),
        range in prop::option::of(0_u8..=32),
        is_customer: bool,
        own in 0_usize..20,
    ) {
        let (path, subject) = generated(&lengths, range, false, is_customer, own);
        let decision = decide(&path, &subject);
        if !decision.transfer.is_empty() {
            prop_assert_eq!(path[decision.step + 1].matched, Some(range.unwrap_or(0)));
        }
    }

    #[test]
    fn what_lies_below_somebody_who_is_not_above_us_changes_nothing(
        lengths in prop::collection::vec(0_u8..=16, 0..8),
        below in prop::collection::vec(0_u8..=32, 0..8),
        is_server: bool,
    ) {
        let (path, subject) = generated(&lengths, Some(16), is_server, false, 19);
        let longer: Vec<u8> = lengths.iter().copied().chain([17]).chain(below).collect();
        let (longer, _) = generated(&longer, Some(16), is_server, false, 19);
        prop_assert_eq!(decide(&path, &subject), decide(&longer, &subject));
    }
}

/// A path of two members a step, in which `own` is the number of a member: ourselves.
fn generated(
    lengths: &[u8],
    range: Option<u8>,
    is_server: bool,
    is_customer: bool,
    own: usize,
) -> (Vec<PathStep>, Subject) {
    let member = |number: usize| address(&format!("10.0.{}.{}:5632", number / 2, number % 2));
    let step = |(number, matched): (usize, Option<u8>)| PathStep {
        members: [2 * number, 2 * number + 1].map(|number| Member::of_socket(member(number))).to_vec(),
        matched,
    };
    let matched = [None].into_iter().chain(lengths.iter().map(|length| Some(*length)));
    let subject = Subject {
        entry_type: if is_server { EntryType::TunnelServer } else { EntryType::TunnelDatabase },
        range: range.map(|length| Prefix::new("10.0.0.0".parse().unwrap(), length).unwrap().trunc()),
        country: None,
        own: vec![member(own)],
        role: if is_customer { Role::Customer } else { Role::Peer },
    };
    (matched.enumerate().map(step).collect(), subject)
}

#[track_caller]
fn decides(path: &[(&[&str], Option<u8>)], subject: &Subject, register: &[&str], transfer: &[&str]) {
    let path: Vec<PathStep> =
        path.iter().map(|(set, matched)| PathStep { members: members(set), matched: *matched }).collect();
    let decision = decide(&path, subject);
    assert_eq!((decision.register, decision.transfer), (members(register), members(transfer)));
}

fn server() -> Subject {
    Subject { entry_type: EntryType::TunnelServer, ..database("10.1.0.0/16") }
}

fn database(range: &str) -> Subject {
    Subject {
        entry_type: EntryType::TunnelDatabase,
        range: Some(range.parse().unwrap()),
        country: Some("BE".parse().unwrap()),
        own: vec![address("192.0.2.9:5632")],
        role: Role::Peer,
    }
}

fn country_database() -> Subject {
    Subject { range: None, ..database("10.1.0.0/16") }
}

fn members(addresses: &[&str]) -> Vec<Member> {
    addresses.iter().map(|text| Member::of_socket(address(text))).collect()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
