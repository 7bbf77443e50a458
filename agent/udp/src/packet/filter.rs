//! What a packet socket hears at all: the kernel runs this for every packet of the interface, before it copies anything.

use socket2::SockFilter;

/// IP multicast beyond the link that is neither IGMP nor marked with `mark`, in the interface's own LAN: packets of a VLAN
/// above it belong to the VLAN's interface.
pub(super) fn multicast_not_marked(mark: u32) -> Vec<SockFilter> {
    const KEEP: Step = Step::To("keep");
    const DROP: Step = Step::To("drop");
    assemble(&[
        Line::Load(BYTE, ancillary(libc::SKF_AD_VLAN_TAG_PRESENT)),
        Line::Test(EQUAL, 0, Step::Next, DROP),
        Line::Load(WORD, ancillary(libc::SKF_AD_MARK)),
        Line::Test(EQUAL, mark, DROP, Step::Next),
        Line::Load(HALF, ancillary(libc::SKF_AD_PROTOCOL)),
        Line::Test(EQUAL, 0x86dd, Step::To("ipv6"), Step::Next),
        Line::Test(EQUAL, 0x0800, Step::Next, DROP),
        // RFC 1112 §4: 224.0.0.0/4; RFC 5771 §4: 224.0.0.0/24 stays on its link.
        Line::Load(WORD, network(16)),
        Line::Test(AT_LEAST, 0xe000_0100, Step::Next, DROP),
        Line::Test(AT_LEAST, 0xf000_0000, DROP, Step::Next),
        // IGMP speaks of the link too, wherever it goes.
        Line::Load(BYTE, network(9)),
        Line::Test(EQUAL, 2, DROP, KEEP),
        // RFC 4291 §2.7: ff00::/8, of which the scopes 0 to 2 are reserved, the interface and the link.
        Line::Label("ipv6"),
        Line::Load(BYTE, network(24)),
        Line::Test(EQUAL, 0xff, Step::Next, DROP),
        Line::Load(BYTE, network(25)),
        Line::And(0x0f),
        Line::Test(AT_LEAST, 3, KEEP, DROP),
        Line::Label("keep"),
        Line::Return(u32::MAX),
        Line::Label("drop"),
        Line::Return(0),
    ])
}

/// IGMP, and IPv6 multicast with hop-by-hop options, which MLD has, in the interface's own LAN.
pub(super) fn membership_messages() -> Vec<SockFilter> {
    const KEEP: Step = Step::To("keep");
    const DROP: Step = Step::To("drop");
    assemble(&[
        Line::Load(BYTE, ancillary(libc::SKF_AD_VLAN_TAG_PRESENT)),
        Line::Test(EQUAL, 0, Step::Next, DROP),
        Line::Load(HALF, ancillary(libc::SKF_AD_PROTOCOL)),
        Line::Test(EQUAL, 0x86dd, Step::To("ipv6"), Step::Next),
        Line::Test(EQUAL, 0x0800, Step::Next, DROP),
        Line::Load(BYTE, network(9)),
        Line::Test(EQUAL, 2, KEEP, DROP),
        Line::Label("ipv6"),
        Line::Load(BYTE, network(24)),
        Line::Test(EQUAL, 0xff, Step::Next, DROP),
        Line::Load(BYTE, network(6)),
        Line::Test(EQUAL, 0, KEEP, DROP),
        Line::Label("keep"),
        Line::Return(u32::MAX),
        Line::Label("drop"),
        Line::Return(0),
    ])
}

enum Line {
    Load(u32, u32),
    And(u32),
    Test(u32, u32, Step, Step),
    Return(u32),
    Label(&'static str),
}

/// Where to go on.
#[derive(Clone, Copy)]
enum Step {
    Next,
    To(&'static str),
}

const BYTE: u32 = libc::BPF_B;
const HALF: u32 = libc::BPF_H;
const WORD: u32 = libc::BPF_W;
const EQUAL: u32 = libc::BPF_JEQ;
const AT_LEAST: u32 = libc::BPF_JGE;

/// What the kernel knows beside the octets.
const fn ancillary(what: i32) -> u32 {
    (libc::SKF_AD_OFF + what).cast_unsigned()
}

/// An octet counted from the IP header, whatever stands before it.
const fn network(offset: i32) -> u32 {
    (libc::SKF_NET_OFF + offset).cast_unsigned()
}

fn assemble(lines: &[Line]) -> Vec<SockFilter> {
    let is_code = |line: &&Line| !matches!(line, Line::Label(_));
    // The place of a label is the number of instructions before it.
    let place = |wanted: &str| {
        let before = lines.iter().take_while(|line| !matches!(line, Line::Label(label) if *label == wanted));
        before.filter(is_code).count()
    };
    let mut program = Vec::new();
    for line in lines.iter().filter(is_code) {
        let next = program.len() + 1;
        let distance = |step| match step {
            Step::Next => 0,
            Step::To(label) => u8::try_from(place(label) - next).expect("labels are near, and ahead"),
        };
        let (code, yes, no, k) = match *line {
            Line::Load(size, from) => (libc::BPF_LD | size | libc::BPF_ABS, 0, 0, from),
            Line::And(mask) => (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, mask),
            Line::Test(how, with, yes, no) => (libc::BPF_JMP | how | libc::BPF_K, distance(yes), distance(no), with),
            Line::Return(length) => (libc::BPF_RET | libc::BPF_K, 0, 0, length),
            Line::Label(_) => continue,
        };
        program.push(SockFilter::new(u16::try_from(code).expect("codes are 16 bits wide"), yes, no, k));
    }
    program
}
