//! Where a snapshot comes from and what is kept of it: the file, its changes, the operator's stream, and the last one that
//! was good.

pub mod diff;
pub mod file;
pub mod last_good;
pub mod stream;
pub mod watch;
