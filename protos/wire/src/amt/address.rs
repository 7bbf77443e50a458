//! A gateway's address and port inside a message, 18 octets (RFC 7450 §5.1.4.9).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Octets of port and address.
pub(super) const LEN: usize = 18;
/// Octets of the port.
const PORT_LEN: usize = 2;

/// Reads port and address.
pub(super) fn parse(octets: &[u8; LEN]) -> SocketAddr {
    let [p0, p1, address @ ..] = octets;
    SocketAddr::new(from_field(*address), u16::from_be_bytes([*p0, *p1]))
}

/// Writes port and address; every octet of `buffer` is overwritten.
pub(super) fn emit(address: SocketAddr, buffer: &mut [u8]) {
    let (port, field) = buffer.split_at_mut(PORT_LEN);
    port.copy_from_slice(&address.port().to_be_bytes());
    field.copy_from_slice(&to_field(address.ip()));
}

/// An IPv4 address stands as an IPv4-compatible IPv6 address, behind 96 zero bits; one that is written as IPv4-mapped is
/// taken for what is meant.
fn from_field(octets: [u8; 16]) -> IpAddr {
    let address = Ipv6Addr::from(octets);
    let v4 = match octets {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, v4 @ ..] => Some(v4.into()),
        _ => address.to_ipv4_mapped(),
    };
    v4.filter(|v4| stands_as_compatible(*v4)).map_or(address.into(), IpAddr::V4)
}

fn to_field(address: IpAddr) -> [u8; 16] {
    let v4 = match address {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped().filter(|v4| stands_as_compatible(*v4)) {
            Some(v4) => v4,
            None => return v6.octets(),
        },
    };
    let mut field = [0; 16];
    field[12..].copy_from_slice(&v4.octets());
    field
}

/// Behind 96 zero bits, these two are `::` and `::1`, which are IPv6; no gateway has them as IPv4.
const fn stands_as_compatible(address: Ipv4Addr) -> bool {
    !matches!(address.octets(), [0, 0, 0, 0 | 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn there_and_back(text: &str) -> ([u8; LEN], SocketAddr) {
        let mut dirty = [0xff; LEN];
        emit(text.parse().unwrap(), &mut dirty);
        (dirty, parse(&dirty))
    }

    #[test]
    fn an_ipv4_address_stands_behind_96_zero_bits() {
        let (octets, read) = there_and_back("198.51.100.9:40000");
        assert_eq!(octets, *b"\x9c\x40\0\0\0\0\0\0\0\0\0\0\0\0\xc6\x33\x64\x09");
        assert_eq!(read, "198.51.100.9:40000".parse().unwrap());
    }

    #[test]
    fn an_ipv4_mapped_address_means_ipv4_and_is_never_written() {
        let mapped = *b"\x9c\x40\0\0\0\0\0\0\0\0\0\0\xff\xff\xc6\x33\x64\x09";
        assert_eq!(parse(&mapped), "198.51.100.9:40000".parse().unwrap());
        assert_eq!(there_and_back("[::ffff:198.51.100.9]:40000").0, there_and_back("198.51.100.9:40000").0);
    }

    #[test]
    fn ipv6_addresses_stay_ipv6_even_the_loopback_address() {
        for text in ["[2001:db8::9]:40000", "[::1]:2268", "[::]:0", "[fe80::1]:65535"] {
            assert_eq!(there_and_back(text).1, text.parse().unwrap());
        }
    }

    proptest! {
        #[test]
        fn what_was_read_is_written_and_read_again_the_same(
            octets: [u8; LEN],
            prefix in prop_oneof![Just([0; 12]), Just([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), any::<[u8; 12]>()],
            zeros in 0_usize..4,
        ) {
            let mut octets = octets;
            octets[PORT_LEN..][..12].copy_from_slice(&prefix);
            octets[PORT_LEN + 12..][..zeros].fill(0);
            octets[LEN - 1] %= 3;
            let address = parse(&octets);
            let mut dirty = [0xff; LEN];
            emit(address, &mut dirty);
            prop_assert_eq!(parse(&dirty), address);
        }
    }
}
