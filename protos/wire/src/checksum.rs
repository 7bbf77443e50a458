//! The Internet checksum (RFC 1071).

use std::net::IpAddr;

/// Adds octets, and folds at the end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Checksum {
    // 64 bits hold the sum of any 65535 octets, and of 2^33 times as many.
    sum: u64,
}

impl Checksum {
    /// Adds octets that start at an even offset; a last odd one is followed by a zero in thought.
    pub(crate) fn add(mut self, octets: &[u8]) -> Self {
        let (pairs, last) = octets.as_chunks::<2>();
        for pair in pairs {
            self.sum += u64::from(u16::from_be_bytes(*pair));
        }
        if let [last] = last {
            self.sum += u64::from(*last) << 8;
        }
        self
    }

    /// Adds the pseudo header of an upper-layer packet of `len` octets (RFC 768; RFC 8200 §8.1). The numbers stand in other
    /// places with IPv6, but always at even ones, and zeros add nothing.
    pub(crate) fn pseudo_header(self, source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Self {
        let with = |sum: Self, address: IpAddr| match address {
            IpAddr::V4(address) => sum.add(&address.octets()),
            IpAddr::V6(address) => sum.add(&address.octets()),
        };
        let sum = with(with(self, source), destination).add(&[0, protocol]);
        Self { sum: sum.sum + len as u64 }
    }

    /// The checksum to be sent; 0 for octets that hold their right checksum already.
    pub(crate) fn finish(self) -> u16 {
        let mut sum = self.sum;
        while let carry @ 1.. = sum >> 16 {
            sum = (sum & 0xffff) + carry;
        }
        !u16::try_from(sum).expect("folded to 16 bits")
    }
}

/// The checksum of octets of which one aligned pair changes.
///
/// # Source
/// RFC 1624 §3, equation 3.
pub(crate) fn adjusted(checksum: u16, old: [u8; 2], new: [u8; 2]) -> u16 {
    Checksum::default()
        .add(&(!checksum).to_be_bytes())
        .add(&(!u16::from_be_bytes(old)).to_be_bytes())
        .add(&new)
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 §3.
    #[test]
    fn the_example_of_the_rfc_holds() {
        assert_eq!(Checksum::default().add(b"\x00\x01\xf2\x03\xf4\xf5\xf6\xf7").finish(), !0xddf2);
    }

    #[test]
    fn an_odd_octet_counts_as_the_high_half() {
        assert_eq!(Checksum::default().add(b"\x01").finish(), Checksum::default().add(b"\x01\x00").finish());
        assert_eq!(Checksum::default().finish(), 0xffff);
    }

    #[test]
    fn sums_that_carry_twice_are_folded_twice() {
        assert_eq!(Checksum::default().add(&vec![0xff; 131_072]).finish(), 0);
        assert_eq!(Checksum::default().add(b"\xff\xff\xff\xff\x00\x01").finish(), !1);
    }
}
