//! Golden octets, each in both directions. Cookies are those of the worked example of draft-finlayson-umtp-09: A has 914,
//! B has 1442, and A first guesses 2207.

use castgate_wire::umtp::option::{self, OptionRepr};
use castgate_wire::umtp::{Channel, Command, Cookie, FlowId, Packet, Repr, Trailer, frame};
use std::net::Ipv4Addr;

const A: Cookie = Cookie(914);
const B: Cookie = Cookie(1442);
const GUESS: Cookie = Cookie(2207);

fn channel(text: &str) -> Channel {
    text.parse().expect("a channel")
}

fn from_a(command: Command, channel: Channel, ttl: u8) -> Trailer {
    Trailer { source_cookie: A, destination_cookie: B, channel, ttl, command }
}

fn from_b(command: Command, channel: Channel, ttl: u8) -> Trailer {
    Trailer { source_cookie: B, destination_cookie: A, channel, ttl, command }
}

/// Hexadecimal digits with blanks and dots between them.
fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    assert_eq!(hex.chars().filter(char::is_ascii_alphanumeric).count(), digits.len());
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("two digits")).collect()
}

#[track_caller]
fn holds(hex: &str, repr: Repr<'_>) {
    let bytes = octets(hex);
    assert_eq!(Repr::parse(&bytes), Ok(repr));
    assert_eq!(Packet::new_checked(&bytes).expect("parses").repr(), repr);
    let mut dirty = vec![0xff; repr.buffer_len()];
    repr.emit(&mut dirty);
    assert_eq!(dirty, bytes);
    assert_eq!(repr.to_vec(), bytes);
}

#[track_caller]
fn command(hex: &str, head: &[u8], trailer: Trailer) {
    holds(hex, Repr::Command { trailer, head });
    let mut appended = head.to_vec();
    trailer.append_to(&mut appended);
    assert_eq!(appended, octets(hex));
}

#[track_caller]
fn with_options(hex: &str, options: &[OptionRepr<'_>], trailer: Trailer) {
    let mut head = Vec::new();
    option::emit_list(options, &mut head);
    command(hex, &head, trailer);
    let bytes = octets(hex);
    let list = Repr::parse(&bytes).expect("parses").options().expect("well-formed");
    assert!(list.iter().eq(options.iter().copied()));
}

#[test]
fn probe() {
    command("0392 089f 00000000 0000 00 05", b"", Trailer::without_channel(Command::Probe, A, GUESS));
}

#[test]
fn probe_ack() {
    command("05a2 0392 00000000 0000 00 06", b"", Trailer::without_channel(Command::ProbeAck, B, A));
}

#[test]
fn probe_nack() {
    command("089f 0392 00000000 0000 00 07", b"", Trailer::without_channel(Command::ProbeNack, GUESS, A));
}

#[test]
fn join_group() {
    let trailer = from_a(Command::JoinGroup, channel("224.2.127.254:9875"), 127);
    command("0392 05a2 e0027ffe 2693 7f 02", b"", trailer);
}

#[test]
fn data() {
    let trailer = from_b(Command::Data, channel("224.2.127.254:9875"), 126);
    command("6869 05a2 0392 e0027ffe 2693 7e 01", b"hi", trailer);
}

#[test]
fn leave_group() {
    let trailer = from_a(Command::LeaveGroup, channel("224.2.127.254:9875"), 0);
    command("0392 05a2 e0027ffe 2693 00 03", b"", trailer);
}

#[test]
fn tear_down() {
    command("0392 05a2 00000000 0000 00 04", b"", Trailer::without_channel(Command::TearDown, A, B));
}

#[test]
fn source_specific_commands_set_the_flag_on_the_codes_of_live555() {
    let ssm = channel("232.1.2.3@192.0.2.10:5004");
    for (command, last) in [
        (Command::Data, "81"),
        (Command::JoinGroup, "82"),
        (Command::LeaveGroup, "83"),
        (Command::JoinRtpGroup, "88"),
        (Command::LeaveRtpGroup, "89"),
        (Command::JoinAck, "8a"),
        (Command::JoinNack, "8b"),
    ] {
        let hex = format!("c000020a 0392 05a2 e8010203 138c 40 {last}");
        self::command(&hex, b"", from_a(command, ssm, 64));
    }
}

#[test]
fn any_source_rtp_join_and_leave() {
    let rtp = channel("224.2.127.254:9874");
    command("0392 05a2 e0027ffe 2692 7f 08", b"", from_a(Command::JoinRtpGroup, rtp, 127));
    command("0392 05a2 e0027ffe 2692 00 09", b"", from_a(Command::LeaveRtpGroup, rtp, 0));
}

#[test]
fn probe_with_magic_and_flow_id() {
    with_options(
        "0001 0002 1169 · 0002 0000 · 0000 0000 · 0392 089f 00000000 0000 00 05",
        &[OptionRepr::Magic(option::MAGIC), OptionRepr::FlowId],
        Trailer::without_channel(Command::Probe, A, GUESS),
    );
}

#[test]
fn join_ack_of_an_rtp_join() {
    with_options(
        "0003 0002 4a21 · 0004 0002 4a22 · 0000 0000 · 05a2 0392 e0027ffe 2692 7f 0a",
        &[OptionRepr::FlowId0(FlowId(0x4a21)), OptionRepr::FlowId1(FlowId(0x4a22))],
        from_b(Command::JoinAck, channel("224.2.127.254:9874"), 127),
    );
}

#[test]
fn join_nack_for_want_of_a_subscription() {
    with_options(
        "0012 0000 · 0000 0000 · 05a2 0392 e0027ffe 2693 7f 0b",
        &[OptionRepr::NotSubscribed],
        from_b(Command::JoinNack, channel("224.2.127.254:9875"), 127),
    );
}

#[test]
fn join_of_the_test_channel() {
    let trailer = from_a(Command::JoinGroup, channel("239.255.67.71:4457"), 1);
    command("0392 05a2 efff4347 1169 01 02", b"", trailer);
}

#[test]
fn raw_join_has_port_zero() {
    let trailer = from_a(Command::JoinGroup, channel("224.2.127.254:0"), 127);
    command("0392 05a2 e0027ffe 0000 7f 02", b"", trailer);
}

#[test]
fn flow_data() {
    holds("6869 4a21 7e 0c", Repr::Flow { flow: FlowId(0x4a21), ttl: 126, payload: b"hi" });
    holds("4a21 00 0c", Repr::Flow { flow: FlowId(0x4a21), ttl: 0, payload: b"" });
}

#[test]
fn proxy_names_its_target_in_the_channel_fields() {
    let target = Channel::any_source(Ipv4Addr::new(192, 0, 2, 55), 10100);
    let trailer = Trailer { channel: target, ..Trailer::without_channel(Command::Proxy, Cookie(0), Cookie(0)) };
    command("0000 0000 c0000237 2774 00 0d", b"", trailer);
}

#[test]
fn probe_over_http() {
    let bytes = octets("000c 0392 089f 000000000000 0005");
    let probe = Trailer::without_channel(Command::Probe, A, GUESS);
    let frame::Frame { datagram, rest } = frame::split_first(&bytes).expect("well-formed").expect("complete");
    assert_eq!(Repr::parse(datagram), Ok(Repr::Command { trailer: probe, head: b"" }));
    assert!(rest.is_empty());
    let mut framed = Vec::new();
    frame::append(&probe.to_octets(), &mut framed);
    assert_eq!(framed, bytes);
}

#[test]
fn a_probe_ack_that_answers_a_source_specific_join_has_twelve_octets() {
    let trailer = from_b(Command::ProbeAck, channel("232.1.2.3@192.0.2.10:5004"), 64);
    assert_eq!(trailer.to_octets()[..], octets("05a2 0392 e8010203 138c 40 06"));
    assert_eq!(trailer.buffer_len(), 12);
}
