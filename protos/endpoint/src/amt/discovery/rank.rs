//! Which of two addresses is tried first, where nobody has said so (RFC 6724 §6).
//!
//! Only the rules that can be judged without the routing table of the host: the policy table (rule 6) and the smaller scope (rule
//! 8). Addresses that cannot be used at all (rule 1) are left out before.

use std::net::{IpAddr, Ipv6Addr};

/// The sort key of an address: less is better.
pub(super) fn rank(address: IpAddr) -> (u8, u8) {
    (u8::MAX - precedence(address), scope(address))
}

/// The precedence of the default policy table (RFC 6724 §2.1).
fn precedence(address: IpAddr) -> u8 {
    let IpAddr::V6(address) = address else { return 35 };
    let [first, second, ..] = address.segments();
    match address {
        Ipv6Addr::LOCALHOST => 50,
        _ if address.to_ipv4_mapped().is_some() => 35,
        _ if first == 0x2002 => 30,
        _ if first == 0x2001 && second == 0 => 5,
        _ if first & 0xfe00 == 0xfc00 => 3,
        _ if first & 0xffc0 == 0xfec0 || first == 0x3ffe => 1,
        _ if address.octets()[..12] == [0; 12] => 1,
        _ => 40,
    }
}

/// The scope of a unicast address (RFC 6724 §3.1, §3.2).
fn scope(address: IpAddr) -> u8 {
    const LINK_LOCAL: u8 = 0x2;
    const SITE_LOCAL: u8 = 0x5;
    const GLOBAL: u8 = 0xe;
    match address {
        IpAddr::V4(address) if address.is_loopback() || address.is_link_local() => LINK_LOCAL,
        IpAddr::V6(address) if address.is_loopback() || address.segments()[0] & 0xffc0 == 0xfe80 => LINK_LOCAL,
        IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfec0 => SITE_LOCAL,
        IpAddr::V4(_) | IpAddr::V6(_) => GLOBAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_table_of_rfc_6724_decides() {
        let mut addresses: Vec<IpAddr> =
            ["3ffe::1", "fd00::1", "2001::1", "2002::1", "192.0.2.1", "2001:db8::1", "::1"]
                .map(|text| text.parse().unwrap())
                .into();
        let expected: Vec<IpAddr> = addresses.iter().rev().copied().collect();
        addresses.sort_by_key(|address| rank(*address));
        assert_eq!(addresses, expected);
    }

    #[test]
    fn the_smaller_scope_is_better() {
        let rank = |text: &str| rank(text.parse().unwrap());
        assert!(rank("169.254.0.1") < rank("192.0.2.1"));
        assert!(rank("fe80::1") < rank("2001:db8::1"));
    }
}
