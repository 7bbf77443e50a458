//! A thread with a runtime of its own for what waits: names, databases, the socket of a UMTP tunnel.

use std::io;
use std::thread::{self, JoinHandle};

/// Runs `work` until it ends.
///
/// # Errors
/// When there is no thread or no runtime.
pub(super) fn spawn<F>(name: &str, work: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<()>>
where
    F: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(work()))
}
