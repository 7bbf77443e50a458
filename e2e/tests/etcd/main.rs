//! A real etcd: our client of it, and databases that share one.

mod client;
mod databases;

use std::time::Duration;

/// For things that take a moment; a deadline that is reached means that they never happen.
const SOON: Duration = Duration::from_secs(30);
