//! Integers that are read wide, so that an error names the range of the field and not the name of a machine type.

use std::fmt;
use std::marker::PhantomData;
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32, NonZeroU64};

use serde::de::{Deserializer, Error, Visitor};

/// An unsigned integer type with the range that a snapshot may use.
pub(crate) trait Bounded: Sized {
    const MIN: u64;
    const MAX: u64;
    /// `None` outside of `MIN..=MAX`.
    fn from_u64(value: u64) -> Option<Self>;
}

macro_rules! bounded_non_zero {
    ($($type:ty: $inner:ty),+) => {$(
        impl Bounded for $type {
            const MIN: u64 = 1;
            const MAX: u64 = <$inner>::MAX as u64;
            fn from_u64(value: u64) -> Option<Self> {
                <$inner>::try_from(value).ok().and_then(<$type>::new)
            }
        }
    )+};
}
bounded_non_zero!(NonZeroU8: u8, NonZeroU16: u16, NonZeroU32: u32, NonZeroU64: u64);

/// For `#[serde(deserialize_with)]`: an integer or an error such as `300 is not in 1..=255`.
pub(crate) fn read<'de, D: Deserializer<'de>, T: Bounded>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(Wide(PhantomData))
}

/// As [`read`], for a field that may be absent.
pub(crate) fn read_some<'de, D: Deserializer<'de>, T: Bounded>(deserializer: D) -> Result<Option<T>, D::Error> {
    read(deserializer).map(Some)
}

struct Wide<T>(PhantomData<T>);

impl<T: Bounded> Wide<T> {
    fn outside<E: Error>(value: impl fmt::Display) -> E {
        E::custom(format_args!("{value} is not in {}..={}", T::MIN, T::MAX))
    }
}

impl<T: Bounded> Visitor<'_> for Wide<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "an integer in {}..={}", T::MIN, T::MAX)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        T::from_u64(value).ok_or_else(|| Self::outside(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        u64::try_from(value).ok().and_then(T::from_u64).ok_or_else(|| Self::outside(value))
    }
}
