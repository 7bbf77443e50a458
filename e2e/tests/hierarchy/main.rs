//! The hierarchy of the draft's own picture, as processes: databases and servers of operators who do not know each other, that
//! find their places from the names of the roots alone.

mod faults;
mod judge;
mod parties;
mod picture;

use std::time::Duration;

/// For things that take a moment; a deadline that is reached means that they never happen.
const SOON: Duration = Duration::from_secs(20);
