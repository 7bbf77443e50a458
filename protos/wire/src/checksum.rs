//! The Internet checksum (RFC 1071).

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

    /// The checksum to be sent; 0 for octets that hold their right checksum already.
    pub(crate) fn finish(self) -> u16 {
        let mut sum = self.sum;
        while let carry @ 1.. = sum >> 16 {
            sum = (sum & 0xffff) + carry;
        }
        !u16::try_from(sum).expect("folded to 16 bits")
    }
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
