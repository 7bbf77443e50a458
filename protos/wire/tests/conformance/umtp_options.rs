//! Options: every code, and every rule of their list (draft-liefooghe-castgate-02 §5.4, castgate UMTP notes).

use castgate_wire::umtp::FlowId;
use castgate_wire::umtp::option::{OptionRepr, Options, ParseError, emit_list};
use proptest::prelude::*;

const CHALLENGE: &[u8; 16] = b"0123456789abcdef";

/// Every option with its octets.
fn all() -> [(&'static [u8], OptionRepr<'static>); 20] {
    [
        (b"\0\0\0\0", OptionRepr::End),
        (b"\0\x01\0\x02\x11\x69", OptionRepr::Magic(0x1169)),
        (b"\0\x02\0\0", OptionRepr::FlowId),
        (b"\0\x03\0\x02\x4a\x21", OptionRepr::FlowId0(FlowId(0x4a21))),
        (b"\0\x04\0\x02\x4a\x22", OptionRepr::FlowId1(FlowId(0x4a22))),
        (b"\0\x05\0\x01\x00", OptionRepr::Friendly(0)),
        (b"\0\x06\0\0", OptionRepr::Auth),
        (b"\0\x07\0\0", OptionRepr::Pap),
        (b"\0\x08\0\0", OptionRepr::Chap),
        (b"\0\x09\0\x04anna", OptionRepr::Login(b"anna")),
        (b"\0\x0a\0\x06secret", OptionRepr::PapPassword(b"secret")),
        (
            b"\0\x0b\0\x10\x03\xdc\x98\xc5\xa8\x32\x69\x2b\x49\xdf\x73\xcf\x48\xfc\xb4\xe9",
            OptionRepr::ChapPassword(b"\x03\xdc\x98\xc5\xa8\x32\x69\x2b\x49\xdf\x73\xcf\x48\xfc\xb4\xe9"),
        ),
        (b"\0\x0c\0\x100123456789abcdef", OptionRepr::ChapChallenge(CHALLENGE)),
        (b"\0\x0d\0\x01\x2a", OptionRepr::ChapId(0x2a)),
        (b"\0\x0e\0\0", OptionRepr::Overloaded),
        (b"\0\x0f\0\0", OptionRepr::ShuttingDown),
        (b"\0\x10\0\0", OptionRepr::Banned),
        (b"\0\x11\0\0", OptionRepr::OverLimit),
        (b"\0\x12\0\0", OptionRepr::NotSubscribed),
        (b"\0\x13\0\0", OptionRepr::ReceiveOnly),
    ]
}

fn parsed(head: &[u8]) -> Result<Vec<OptionRepr<'_>>, ParseError> {
    Options::new_checked(head).map(|options| options.iter().collect())
}

#[test]
fn every_option_holds_in_both_directions() {
    for (code, (bytes, option)) in all().into_iter().enumerate() {
        assert_eq!(usize::from(option.code()), code);
        let mut emitted = Vec::new();
        option.append_to(&mut emitted);
        assert_eq!(emitted, bytes);
        assert_eq!(OptionRepr::from_parts(option.code(), &bytes[4..]), option);
    }
}

#[test]
fn all_options_together_are_one_list_with_one_end() {
    let (bytes, options): (Vec<&[u8]>, Vec<_>) = all().into_iter().skip(1).unzip();
    let mut emitted = Vec::new();
    emit_list(&options, &mut emitted);
    assert_eq!(emitted, [&bytes.concat()[..], b"\0\0\0\0"].concat());
    assert_eq!(parsed(&emitted), Ok(options));
}

#[test]
fn no_octets_are_no_options_in_both_directions() {
    let mut emitted = Vec::new();
    emit_list(&[], &mut emitted);
    assert_eq!(emitted, b"");
    assert_eq!(parsed(b""), Ok(vec![]));
    assert!(Options::new_checked(b"").is_ok_and(|options| options.is_empty()));
}

#[test]
fn a_list_without_end_is_accepted_when_it_ends_exactly_at_the_trailer() {
    assert_eq!(parsed(b"\0\x01\0\x02\x11\x69\0\x02\0\0"), Ok(vec![OptionRepr::Magic(0x1169), OptionRepr::FlowId]));
}

#[test]
fn an_option_that_runs_into_the_trailer_makes_the_message_malformed() {
    let list = b"\0\x02\0\0\0\x01\0\x02\x11\x69";
    for cut in 1..list.len() {
        let offset = if cut < 4 { 0 } else { 4 };
        let expected = if cut == 4 { Ok(vec![OptionRepr::FlowId]) } else { Err(ParseError::Overrun(offset)) };
        assert_eq!(parsed(&list[..cut]), expected, "{cut} octets");
    }
    assert_eq!(parsed(b"\0\x09\xff\xffanna"), Err(ParseError::Overrun(0)));
}

#[test]
fn what_follows_the_end_is_ignored_whatever_it_is() {
    assert_eq!(parsed(b"\0\x02\0\0\0\0\0\0\0\x09\xff\xff"), Ok(vec![OptionRepr::FlowId]));
}

#[test]
fn of_a_repeated_option_the_first_counts() {
    let head = b"\0\x03\0\x02\x00\x01\0\x02\0\0\0\x03\0\x02\x00\x02\0\x02\0\0";
    assert_eq!(parsed(head), Ok(vec![OptionRepr::FlowId0(FlowId(1)), OptionRepr::FlowId]));
}

#[test]
fn unknown_codes_are_kept_and_passed_over() {
    let head = b"\0\x14\0\x03abc\xff\xff\0\0\0\x02\0\0";
    let expected = vec![
        OptionRepr::Unknown { code: 20, value: b"abc" },
        OptionRepr::Unknown { code: 0xffff, value: b"" },
        OptionRepr::FlowId,
    ];
    assert_eq!(parsed(head), Ok(expected));
}

#[test]
fn a_known_code_with_a_value_of_the_wrong_length_means_nothing() {
    for (bytes, option) in all().into_iter().skip(1) {
        let longer = [&bytes[4..], b"x"].concat();
        let code = option.code();
        let any_length = matches!(code, 9..=11);
        let unknown = OptionRepr::Unknown { code, value: &longer };
        assert_eq!(OptionRepr::from_parts(code, &longer) == unknown, !any_length, "{option:?}");
    }
}

#[test]
fn magic_counts_only_with_its_value_and_only_the_first_time() {
    let has_magic = |head: &[u8]| Options::new_checked(head).expect("well-formed").has_magic();
    assert!(has_magic(b"\0\x01\0\x02\x11\x69"));
    assert!(!has_magic(b"\0\x01\0\x02\x11\x68"));
    assert!(!has_magic(b"\0\x01\0\x03\x11\x69\0"));
    assert!(!has_magic(b"\0\x01\0\0\0\x01\0\x02\x11\x69"));
    assert!(!has_magic(b""));
}

#[test]
fn credentials_are_not_shown() {
    let shown = format!("{:?}", all().map(|(_, option)| option));
    assert!(shown.contains("anna") && !shown.contains("secret") && !shown.contains("cdef"), "{shown}");
}

proptest! {
    #[test]
    fn any_list_comes_back_as_it_was_written(
        picks in proptest::collection::vec((0_u16..40, proptest::collection::vec(any::<u8>(), 0..20)), 0..8),
    ) {
        let mut options: Vec<OptionRepr<'_>> =
            picks.iter().filter(|(code, _)| *code != 0).map(|(code, value)| OptionRepr::from_parts(*code, value)).collect();
        let mut seen = std::collections::HashSet::new();
        options.retain(|option| option.code() > 19 || seen.insert(option.code()));
        let mut head = Vec::new();
        emit_list(&options, &mut head);
        prop_assert_eq!(parsed(&head), Ok(options));
    }

    #[test]
    fn any_octets_are_options_or_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        castgate_wire::fuzzing::umtp_options(&bytes);
    }

    #[test]
    fn octets_that_look_like_options_are_options_or_a_refusal(
        bytes in proptest::collection::vec(prop_oneof![3 => Just(0_u8), 2 => 0_u8..24, 1 => any::<u8>()], 0..64),
    ) {
        castgate_wire::fuzzing::umtp_options(&bytes);
    }
}
