//! `#[serde(with)]` for a [`Scheme`], as its word.

use castgate_wire::registry::Scheme;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference to the field")]
pub(super) fn serialize<S: Serializer>(scheme: &Scheme, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(scheme.word())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Scheme, D::Error> {
    let word = String::deserialize(deserializer)?;
    Scheme::parse(&word).ok_or_else(|| D::Error::custom(format_args!("{word:?} is neither http nor https")))
}
