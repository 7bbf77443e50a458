//! Wall-clock time, only where something outlives the process: the database's store and the locator's cache.
//!
//! Deadlines inside one run use [`std::time::Instant`], which nobody can turn back.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// A moment as milliseconds since the UNIX epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The moment `span` later; the far future saturates.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The span from `earlier` to here; `None` when `earlier` lies in the future of this moment.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_millis)
    }
}

impl From<SystemTime> for UnixMillis {
    /// A clock before 1970 is as good as one that stands at 1970.
    fn from(time: SystemTime) -> Self {
        let span = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_back_in_time_is_none() {
        let noon = UnixMillis(1_000);
        assert_eq!(noon.after(Duration::from_secs(2)).since(noon), Some(Duration::from_secs(2)));
        assert_eq!(noon.since(noon.after(Duration::from_secs(2))), None);
    }
}
