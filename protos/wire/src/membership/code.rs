//! Times as floating-point codes, which count further than their width (RFC 3376 §4.1.1 and §4.1.7, RFC 3810 §5.1.3 and §5.1.9).
//!
//! ```text
//!   8 bits    0vvvvvvv = v      1eeemmmm = (mmmm | 0x10) << (eee + 3)
//!   16 bits   0v...v   = v      1eeem..m = (m..m | 0x1000) << (eee + 3)     with 12 bits of m
//! ```

/// The value of an 8-bit code.
pub(crate) const fn decode_octet(code: u8) -> u32 {
    decode(code as u32, 4)
}

/// The 8-bit code of a value, or of the next smaller one that has a code.
pub(crate) fn encode_octet(value: u64) -> u8 {
    u8::try_from(encode(value, 4)).expect("eight bits")
}

/// The value of a 16-bit code.
pub(crate) const fn decode_short(code: u16) -> u32 {
    decode(code as u32, 12)
}

/// The 16-bit code of a value, or of the next smaller one that has a code.
pub(crate) fn encode_short(value: u64) -> u16 {
    u16::try_from(encode(value, 12)).expect("sixteen bits")
}

const fn decode(code: u32, mantissa_bits: u32) -> u32 {
    if code >> (mantissa_bits + 3) == 0 {
        return code;
    }
    let mantissa = code & ((1 << mantissa_bits) - 1);
    let exponent = code >> mantissa_bits & 7;
    (mantissa | 1 << mantissa_bits) << (exponent + 3)
}

const fn encode(value: u64, mantissa_bits: u32) -> u64 {
    let first_float = 1 << (mantissa_bits + 3);
    if value < first_float {
        return value;
    }
    // The highest bit of the value stands for that of the code, the bits below it are the mantissa.
    let exponent = value.ilog2() - mantissa_bits - 3;
    if exponent > 7 {
        return (first_float << 1) - 1;
    }
    let mantissa = value >> (exponent + 3) & ((1 << mantissa_bits) - 1);
    first_float | (exponent as u64) << mantissa_bits | mantissa
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_values_stand_for_themselves_and_large_ones_follow_the_formula() {
        assert_eq!([0, 1, 127].map(decode_octet), [0, 1, 127]);
        assert_eq!([0x80, 0x81, 0x8f, 0x90, 0xff].map(decode_octet), [128, 136, 248, 256, 31_744]);
        assert_eq!([0, 10_000, 32_767].map(decode_short), [0, 10_000, 32_767]);
        assert_eq!([0x8000, 0x8001, 0x9000, 0xffff].map(decode_short), [32_768, 32_776, 65_536, 8_387_584]);
    }

    #[test]
    fn every_code_comes_back() {
        for code in 0..=u8::MAX {
            assert_eq!(encode_octet(decode_octet(code).into()), code);
        }
        for code in 0..=u16::MAX {
            assert_eq!(encode_short(decode_short(code).into()), code);
        }
    }

    #[test]
    fn what_is_too_large_becomes_the_largest() {
        for value in [31_745, 32_768, u64::MAX] {
            assert_eq!(encode_octet(value), 0xff);
        }
        for value in [8_387_585, 8_388_608, u64::MAX] {
            assert_eq!(encode_short(value), 0xffff);
        }
    }

    proptest! {
        #[test]
        fn a_value_is_rounded_down_to_the_nearest_code(value in 0_u32..8_400_000) {
            let octet = encode_octet(value.into());
            prop_assert!(decode_octet(octet) <= value);
            prop_assert!(octet == u8::MAX || decode_octet(octet + 1) > value);
            let short = encode_short(value.into());
            prop_assert!(decode_short(short) <= value);
            prop_assert!(short == u16::MAX || decode_short(short + 1) > value);
        }
    }
}
