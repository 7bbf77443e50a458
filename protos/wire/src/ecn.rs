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

/// How odd a combination of inner and outer field is that no tunnel makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anomaly {
    /// "(!)" of the table: possibly dangerous.
    Possible,
    /// "(!!!)" of the table: always potentially dangerous.
    Certain,
}

impl Anomaly {
    /// That of a packet that leaves a tunnel; `None` for combinations in use. To be counted, so that somebody can look.
    ///
    /// # Source
    /// RFC 6040 §4.2, figure 4.
    #[must_use]
    pub const fn of(inner: Ecn, outer: Ecn) -> Option<Self> {
        match (inner, outer) {
            (Ecn::NotEct, Ecn::Ect0 | Ecn::Ect1 | Ecn::Ce) | (Ecn::Ce, Ecn::Ect1) => Some(Self::Certain),
            (Ecn::Ect1, Ecn::Ect0) => Some(Self::Possible),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns and rows of the RFC's figures.
    const ORDER: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce];

    /// RFC 3168 §5: 01 is ECT(1), 10 is ECT(0).
    #[test]
    fn the_bits_are_those_of_the_rfc_whatever_stands_above_them() {
        assert_eq!(ORDER.map(Ecn::bits), [0b00, 0b10, 0b01, 0b11]);
        for octet in 0..=255_u8 {
            let ecn = Ecn::of_traffic_class(octet);
            assert_eq!(ecn.bits(), octet & 3);
            for other in Ecn::ALL {
                assert_eq!(other.applied_to(octet), octet & 0xfc | other.bits());
            }
        }
    }

    #[test]
    fn the_field_is_copied_outwards_in_normal_mode_and_cleared_in_compatibility_mode() {
        for inner in ORDER {
            assert_eq!(encapsulate(inner, Ingress::Normal), inner);
            assert_eq!(encapsulate(inner, Ingress::Compatibility), Ecn::NotEct);
        }
    }

    #[test]
    fn the_table_of_decapsulation_is_that_of_the_rfc() {
        let (not, e0, e1, ce) = (Some(Ecn::NotEct), Some(Ecn::Ect0), Some(Ecn::Ect1), Some(Ecn::Ce));
        let table = [[not, not, not, None], [e0, e0, e1, ce], [e1, e1, e1, ce], [ce, ce, ce, ce]];
        assert_eq!(ORDER.map(|inner| ORDER.map(|outer| decapsulate(inner, outer))), table);
    }

    #[test]
    fn the_combinations_that_no_tunnel_makes_are_those_of_the_rfc() {
        let (possible, certain) = (Some(Anomaly::Possible), Some(Anomaly::Certain));
        let table = [
            [None, certain, certain, certain],
            [None, None, None, None],
            [None, possible, None, None],
            [None, None, certain, None],
        ];
        assert_eq!(ORDER.map(|inner| ORDER.map(|outer| Anomaly::of(inner, outer))), table);
    }
}
