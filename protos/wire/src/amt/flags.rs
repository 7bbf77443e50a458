//! The flag octets of Request and Membership Query, as they came.

/// The second octet of a Request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RequestFlags(pub u8);

impl RequestFlags {
    /// Asks for an `IGMPv3` General Query.
    pub const IGMP: Self = Self(0);
    /// P (RFC 7450 §5.1.3.4): asks for an `MLDv2` General Query.
    pub const MLD: Self = Self(0x01);
    /// E (RFC 9601): the gateway decapsulates ECN by RFC 6040.
    pub const ECN: Self = Self(0x02);
    /// P where the Linux kernel has it.
    pub const LINUX_MLD: Self = Self(0x80);

    /// Whether MLD is asked for, in either order of bits.
    #[must_use]
    pub const fn mld(self) -> bool {
        self.0 & (Self::MLD.0 | Self::LINUX_MLD.0) != 0
    }

    /// Whether the gateway decapsulates ECN by RFC 6040.
    #[must_use]
    pub const fn ecn(self) -> bool {
        self.0 & Self::ECN.0 != 0
    }

    /// Whether the flags are in the order of the Linux kernel; a Request for IGMP does not tell.
    #[must_use]
    pub const fn is_linux(self) -> bool {
        self.0 & Self::LINUX_MLD.0 != 0
    }

    /// These flags and those.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The second octet of a Membership Query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct QueryFlags(pub u8);

impl QueryFlags {
    /// Neither L nor G.
    pub const NONE: Self = Self(0);
    /// G (RFC 7450 §5.1.4.5): the address of the gateway follows the packet.
    pub const GATEWAY_ADDRESS: Self = Self(0x01);
    /// L (RFC 7450 §5.1.4.4): the relay takes no new tunnel endpoints.
    pub const LIMIT: Self = Self(0x02);
    /// L where the Linux kernel has it.
    pub const LINUX_LIMIT: Self = Self(0x40);
    /// G where the Linux kernel has it.
    pub const LINUX_GATEWAY_ADDRESS: Self = Self(0x80);

    /// Whether the relay takes no new tunnel endpoints, in either order of bits.
    #[must_use]
    pub const fn limit(self) -> bool {
        self.0 & (Self::LIMIT.0 | Self::LINUX_LIMIT.0) != 0
    }

    /// Whether the address of the gateway follows the packet, in either order of bits.
    #[must_use]
    pub const fn gateway_address(self) -> bool {
        self.0 & (Self::GATEWAY_ADDRESS.0 | Self::LINUX_GATEWAY_ADDRESS.0) != 0
    }

    /// Whether the flags are in the order of the Linux kernel; no flag at all does not tell.
    #[must_use]
    pub const fn is_linux(self) -> bool {
        self.0 & (Self::LINUX_LIMIT.0 | Self::LINUX_GATEWAY_ADDRESS.0) != 0
    }

    /// These flags and those.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is sent with an address of the gateway, or without one: G says the truth, the other bits stay.
    pub(super) const fn told(self, has_address: bool) -> Self {
        match (has_address, self.gateway_address()) {
            (true, true) | (false, false) => self,
            (true, false) => self.with(Self::GATEWAY_ADDRESS),
            (false, true) => Self(self.0 & !(Self::GATEWAY_ADDRESS.0 | Self::LINUX_GATEWAY_ADDRESS.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders_of_bits_are_understood_for_every_octet() {
        for octet in 0..=255 {
            let (request, query) = (RequestFlags(octet), QueryFlags(octet));
            assert_eq!(request.mld(), octet & 0x01 != 0 || octet & 0x80 != 0);
            assert_eq!(request.ecn(), octet & 0x02 != 0);
            assert_eq!(request.is_linux(), octet & 0x80 != 0);
            assert_eq!(query.gateway_address(), octet & 0x01 != 0 || octet & 0x80 != 0);
            assert_eq!(query.limit(), octet & 0x02 != 0 || octet & 0x40 != 0);
            assert_eq!(query.is_linux(), octet & 0xc0 != 0);
        }
    }

    #[test]
    fn what_is_sent_tells_the_truth_about_the_address_and_keeps_the_rest() {
        for octet in 0..=255 {
            let flags = QueryFlags(octet);
            assert!(flags.told(true).gateway_address() && !flags.told(false).gateway_address());
            assert_eq!((flags.told(true).0 & 0x7e, flags.told(false).0 & 0x7e), (octet & 0x7e, octet & 0x7e));
        }
        assert_eq!(QueryFlags::NONE.told(true), QueryFlags::GATEWAY_ADDRESS);
        assert_eq!(QueryFlags(0x80).told(true), QueryFlags(0x80));
    }
}
