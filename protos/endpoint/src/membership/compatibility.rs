//! Which protocol version is spoken while older systems are there: RFC 3376 §7, RFC 3810 §8.

use std::time::Instant;

/// A protocol version by its place in history: what a host speaks on a link, and a router for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Compatibility {
    /// `IGMPv1`: nobody ever leaves, and no source is blocked.
    First,
    /// `IGMPv2` and `MLDv1`: no source is blocked.
    Second,
    /// `IGMPv3` and `MLDv2`.
    #[default]
    Current,
}

impl Compatibility {
    /// The version by its number in IGMP or MLD.
    #[must_use]
    pub const fn of(is_ipv4: bool, version: u8) -> Self {
        match (is_ipv4, version) {
            (true, 0 | 1) => Self::First,
            (true, 2) | (false, 0 | 1) => Self::Second,
            (true, 3..) | (false, 2..) => Self::Current,
        }
    }

    /// Its number in IGMP or MLD. MLD has nothing as old as `IGMPv1`.
    #[must_use]
    pub const fn version(self, is_ipv4: bool) -> u8 {
        match (is_ipv4, self) {
            (true, Self::First) | (false, Self::First | Self::Second) => 1,
            (true, Self::Second) | (false, Self::Current) => 2,
            (true, Self::Current) => 3,
        }
    }
}

/// The Older Version Present timers: one of `IGMPv1`, and one of `IGMPv2` or `MLDv1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Older([Option<Instant>; 2]);

impl Older {
    /// Somebody of that version was heard, and counts as present until then.
    pub(super) fn hear(&mut self, version: Compatibility, until: Instant) {
        match version {
            Compatibility::First => self.0[0] = Some(until),
            Compatibility::Second => self.0[1] = Some(until),
            Compatibility::Current => {}
        }
    }

    /// The oldest version that is present at `now`.
    pub(super) fn compatibility(&self, now: Instant) -> Compatibility {
        let [is_first, is_second] = self.0.map(|until| until.is_some_and(|until| until > now));
        match (is_first, is_second) {
            (true, _) => Compatibility::First,
            (false, true) => Compatibility::Second,
            (false, false) => Compatibility::Current,
        }
    }

    /// When the next of the timers that run at `now` ends.
    pub(super) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        self.0.into_iter().flatten().filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_oldest_version_present_is_spoken_to_the_nanosecond() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut older = Older::default();
        older.hear(Compatibility::Second, after(20));
        older.hear(Compatibility::First, after(10));
        older.hear(Compatibility::Current, after(99));
        let just_before = Duration::from_nanos(9_999_999_999);
        assert_eq!(older.compatibility(start + just_before), Compatibility::First);
        assert_eq!(older.next_timeout(start), Some(after(10)));
        assert_eq!(older.compatibility(after(10)), Compatibility::Second);
        assert_eq!(older.next_timeout(after(10)), Some(after(20)));
        assert_eq!(older.compatibility(after(20)), Compatibility::Current);
        assert_eq!(older.next_timeout(after(20)), None);
    }

    #[test]
    fn versions_have_the_numbers_of_their_protocol() {
        for (is_ipv4, version) in [(true, 1), (true, 2), (true, 3), (false, 1), (false, 2)] {
            assert_eq!(Compatibility::of(is_ipv4, version).version(is_ipv4), version);
        }
        assert_eq!(Compatibility::of(false, 1), Compatibility::Second);
        assert_eq!(Compatibility::of(true, 200), Compatibility::Current);
    }
}
