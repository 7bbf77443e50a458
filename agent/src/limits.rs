//! What the kernel lets this process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of open files to what the administrator allows: every twenty groups are one more socket a worker, and
/// the usual soft limit of 1024 dates from `select`.
pub fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(before = ?current, now = ?maximum, "open files"),
        Err(error) => tracing::warn!(limit = ?current, %error, "the number of open files stays as it is"),
    }
}
