//! Explicit congestion notification through tunnels (RFC 6040).
//!
//! Owns the two bits of a traffic class and what becomes of them where a packet enters and leaves a tunnel. Called by whoever
//! encapsulates or decapsulates; the bits themselves are read and set by [`ip`](crate::ip).

/// The low two bits of type of service and traffic class.
pub const MASK: u8 = 0x03;

/// The ECN field (RFC 3168 §5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ecn {
    /// 00: the transport does not know ECN.
    #[default]
    NotEct,
    /// 01: ECN-capable, the second code.
    Ect1,
    /// 10: ECN-capable, the first code.
    Ect0,
    /// 11: congestion was met.
    Ce,
}

impl Ecn {
    /// All codes, by their bits.
    pub const ALL: [Self; 4] = [Self::NotEct, Self::Ect1, Self::Ect0, Self::Ce];

    /// The field of a type of service or traffic class.
    #[must_use]
    pub const fn of_traffic_class(octet: u8) -> Self {
        match octet & MASK {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// The two bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotEct => 0,
            Self::Ect1 => 1,
            Self::Ect0 => 2,
            Self::Ce => 3,
        }
    }

    /// The type of service or traffic class with this field in it.
    #[must_use]
    pub const fn applied_to(self, traffic_class: u8) -> u8 {
        traffic_class & !MASK | self.bits()
    }
}

/// How a tunnel ingress treats the field (RFC 6040 §4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Ingress {
    /// The egress propagates congestion: the field is copied outwards.
    Normal,
    /// Nothing is known about the egress: the outer field is Not-ECT.
    #[default]
    Compatibility,
}

/// The outer field of a packet that enters a tunnel.
///
/// # Source
/// RFC 6040 §4.1, figure 3.
#[must_use]
pub const fn encapsulate(inner: Ecn, ingress: Ingress) -> Ecn {
    match ingress {
        Ingress::Normal => inner,
        Ingress::Compatibility => Ecn::NotEct,
    }
}

/// The field of a packet that leaves a tunnel; `None` when it has to be dropped, as it met congestion and its transport could
/// not be told otherwise.
///
/// # Source
/// RFC 6040 §4.2, figure 4.
#[must_use]
pub const fn decapsulate(inner: Ecn, outer: Ecn) -> Option<Ecn> {
    Some(match (inner, outer) {
        (Ecn::NotEct, Ecn::Ce) => return None,
        (Ecn::NotEct, Ecn::NotEct | Ecn::Ect0 | Ecn::Ect1) => Ecn::NotEct,
        (Ecn::Ect0, Ecn::NotEct | Ecn::Ect0) => Ecn::Ect0,
        (Ecn::Ect0, Ecn::Ect1) | (Ecn::Ect1, Ecn::NotEct | Ecn::Ect0 | Ecn::Ect1) => Ecn::Ect1,
        (Ecn::Ect0 | Ecn::Ect1, Ecn::Ce) | (Ecn::Ce, _) => Ecn::Ce,
    })
}
