//! Quantities that manifests write as text: spans of time (`60s`) and rates (`2Mbit`).
//!
//! The types keep the text, so that an object with a bad one can still be decoded, shown and reported; `parse` says what it
//! means. A rate is also what the command line takes after `pattern:`.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::schema::rule;

/// Longest span of time that is accepted: a day. Nothing here waits longer on purpose.
const SPAN_MAX: Duration = Duration::from_hours(24);
/// Fastest rate that is accepted.
const RATE_BITS_MAX: u64 = 100_000_000_000;

/// What a span of time looks like, for a schema.
pub const TIME_SPAN_PATTERN: &str = "^[0-9]{1,8}(ms|s|m|h)$";
/// Spans that CEL can compare: the form, without numbers of hours that overflow a duration.
pub(crate) const SPAN_IN_CEL: &str = "^([0-9]{1,8}(ms|s|m)|[0-9]{1,5}h)$";
/// What a rate looks like, for a schema.
pub const RATE_PATTERN: &str = "^[0-9]{1,12}(bit|kbit|Mbit|Gbit|pps)$";

/// A span of time as `500ms`, `60s`, `5m` or `1h`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimeSpan(String);

/// Why a text is no span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeSpanError {
    /// Not a whole number with a unit.
    #[error("\"{0}\" is not a span of time such as 500ms, 60s, 5m or 1h")]
    Form(String),
    /// Zero, or longer than a day.
    #[error("{0} is not between 1ms and 24h")]
    Range(String),
}

impl TimeSpan {
    /// Takes the text as it is; [`parse`](Self::parse) judges it.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the text.
    ///
    /// # Errors
    ///
    /// When the text is not a whole number with one of the units, or is zero or longer than a day.
    pub fn parse(&self) -> Result<Duration, TimeSpanError> {
        let form = || TimeSpanError::Form(self.0.clone());
        let (digits, unit) = split_number(&self.0).ok_or_else(form)?;
        let millis_per_unit: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(form()),
        };
        // Digits that overflow are a number out of range, not another form.
        Some(digits)
            .filter(|digits| digits.len() <= 8)
            .and_then(|digits| digits.parse::<u64>().ok())
            .and_then(|number| number.checked_mul(millis_per_unit))
            .map(Duration::from_millis)
            .filter(|span| !span.is_zero() && *span <= SPAN_MAX)
            .ok_or_else(|| TimeSpanError::Range(self.0.clone()))
    }
}

impl JsonSchema for TimeSpan {
    fn schema_name() -> Cow<'static, str> {
        "TimeSpan".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Only what has the form is looked at: what has not is refused by the form.
        let short = "!self.matches('^[0-9]{1,8}(ms|s|m|h)$') || (!self.matches('^[0-9]{6,}h$') && \
                     duration(self) > duration('0s') && duration(self) <= duration('24h'))";
        json_schema!({
            "type": "string", "pattern": TIME_SPAN_PATTERN, "maxLength": 10,
            "x-kubernetes-validations": [rule(short, "a span of time is between 1ms and 24h")],
        })
    }
}

/// How fast a pattern is sent, as written: `2Mbit`, `500kbit`, `100pps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RateText(String);

impl RateText {
    /// Takes the text as it is; [`parse`](Self::parse) judges it.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Reads the text.
    ///
    /// # Errors
    ///
    /// As [`Rate`]'s `FromStr`.
    pub fn parse(&self) -> Result<Rate, RateError> {
        self.0.parse()
    }
}

impl JsonSchema for RateText {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let most = [("pps", 10_000_000_u64), ("Gbit", 100), ("Mbit", 100_000), ("kbit", 100_000_000)];
        let number = |unit: &str, most: u64| {
            format!("int(self.replace('{unit}', '')) > 0 && int(self.replace('{unit}', '')) <= {most}")
        };
        let known = most.iter().fold(String::new(), |all, (unit, most)| {
            format!("{all}self.endsWith('{unit}') ? {} : ", number(unit, *most))
        });
        let in_range = format!("!self.matches('{RATE_PATTERN}') || ({known}{})", number("bit", RATE_BITS_MAX));
        json_schema!({
            "type": "string", "pattern": RATE_PATTERN, "maxLength": 16,
            "x-kubernetes-validations": [
                rule(&in_range, "a rate is between 1bit and 100Gbit, or 1pps and 10000000pps"),
            ],
        })
    }
}

/// A rate that can be sent.
///
/// # Units
///
/// Bits are those of the UDP payload, per second; k, M and G are powers of ten, as everywhere on a wire.
///
/// ```
/// use castgate_crds::units::Rate;
/// let rate: Rate = "2Mbit".parse().unwrap();
/// assert_eq!(rate.bits_per_second(1316), 2_000_000);
/// let rate: Rate = "100pps".parse().unwrap();
/// assert_eq!(rate.bits_per_second(1000), 800_000);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// So many payload bits a second.
    BitsPerSecond(u64),
    /// So many datagrams a second, whatever their size.
    PacketsPerSecond(u64),
}

/// Why a text is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Not a whole number with a unit.
    #[error("\"{0}\" is not a rate such as 2Mbit, 500kbit or 100pps")]
    Form(String),
    /// Zero or absurd.
    #[error("{0} is not between 1bit and 100Gbit, or 1pps and 10000000pps")]
    Range(String),
}

impl Rate {
    /// Returns the rate in payload bits per second when every datagram carries `payload_octets`.
    #[must_use]
    pub fn bits_per_second(self, payload_octets: u16) -> u64 {
        match self {
            Self::BitsPerSecond(bits) => bits,
            Self::PacketsPerSecond(packets) => packets.saturating_mul(u64::from(payload_octets) * 8),
        }
    }
}

impl std::str::FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let form = || RateError::Form(text.to_owned());
        let range = || RateError::Range(text.to_owned());
        let (digits, unit) = split_number(text).ok_or_else(form)?;
        let bits_per_unit: u64 = match unit {
            "bit" => 1,
            "kbit" => 1_000,
            "Mbit" => 1_000_000,
            "Gbit" => 1_000_000_000,
            "pps" => {
                let packets =
                    digits.parse().ok().filter(|packets| digits.len() <= 12 && (1..=10_000_000).contains(packets));
                return packets.map(Self::PacketsPerSecond).ok_or_else(range);
            }
            _ => return Err(form()),
        };
        Some(digits)
            .filter(|digits| digits.len() <= 12)
            .and_then(|digits| digits.parse::<u64>().ok())
            .and_then(|number| number.checked_mul(bits_per_unit))
            .filter(|bits| (1..=RATE_BITS_MAX).contains(bits))
            .map(Self::BitsPerSecond)
            .ok_or_else(range)
    }
}

/// Splits `60s` into `60` and `s`; both must be there.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    (end > 0).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_read_in_every_unit() {
        for (text, millis) in [("1ms", 1), ("60s", 60_000), ("5m", 300_000), ("24h", 86_400_000), ("060s", 60_000)] {
            assert_eq!(TimeSpan::new(text).parse(), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_span_of_time_is_named() {
        for text in ["", "60", "s", "60 s", "1.5s", "-1s", "60S", "1h30m", "1d"] {
            assert_eq!(TimeSpan::new(text).parse(), Err(TimeSpanError::Form(text.into())), "{text}");
        }
        for text in ["0s", "25h", "86400001ms", "000000060s", "99999999999999999999s"] {
            assert_eq!(TimeSpan::new(text).parse(), Err(TimeSpanError::Range(text.into())), "{text}");
        }
    }

    #[test]
    fn rates_are_read_in_every_unit() {
        for (text, bits) in
            [("1bit", 1), ("500kbit", 500_000), ("2Mbit", 2_000_000), ("100Gbit", 100_000_000_000), ("10pps", 80_000)]
        {
            assert_eq!(text.parse::<Rate>().map(|rate| rate.bits_per_second(1_000)), Ok(bits), "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_named() {
        for text in ["", "2", "Mbit", "2 Mbit", "2mbit", "2Mbps", "1.5Mbit", "-2Mbit"] {
            assert_eq!(text.parse::<Rate>(), Err(RateError::Form(text.into())), "{text}");
        }
        for text in ["0Mbit", "0pps", "101Gbit", "10000001pps", "99999999999999999999Gbit"] {
            assert_eq!(text.parse::<Rate>(), Err(RateError::Range(text.into())), "{text}");
        }
    }
}
