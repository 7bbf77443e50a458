//! A network namespace for one thread and what it starts: interfaces, routes and sockets that nobody else sees.
//!
//! Owns the one system call. The namespace has no name and disappears with the last thread, socket and interface in it, so
//! a test that fails leaves nothing behind.

#![expect(unsafe_code, reason = "unshare has no safe wrapper: a thread may not leave what others count on")]

use crate::raw::InterfaceRequest;
use std::io;
use std::process::Command;

/// Does `work` on a thread of its own in a new network namespace, whose loopback interface is up. Threads and programs that
/// `work` starts live there too. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// What the kernel says: usually that it takes more rights.
///
/// # Panics
/// When `work` does.
pub fn isolated<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // SAFETY: a network namespace changes what later calls of this thread see, and nothing that Rust knows of.
            let outcome = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            if outcome < 0 {
                return Err(io::Error::last_os_error());
            }
            set_up("lo")?;
            Ok(work())
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether [`isolated`] works for this user; if not, the running test is counted as skipped, with the reason.
///
/// # Panics
/// When the file of `cargo xtask test` cannot be written.
#[must_use]
pub fn require() -> bool {
    match isolated(|| ()) {
        Ok(()) => true,
        Err(error) => {
            let thread = std::thread::current();
            let line = format!("{}: a network namespace needs root: {error}", thread.name().unwrap_or("a test"));
            eprintln!("SKIPPED: {line}");
            // The file of `cargo xtask test`: what skipped itself is not counted as passed.
            if let Some(path) = std::env::var_os("CASTGATE_SKIP_FILE") {
                let file = std::fs::OpenOptions::new().append(true).open(path);
                let written = file.and_then(|mut file| io::Write::write_all(&mut file, format!("{line}\n").as_bytes()));
                written.expect("a skipped test that is not counted would pass for one that ran");
            }
            false
        }
    }
}

/// A test that needs a namespace: does `work` inside, or says that it cannot.
///
/// # Panics
/// When `work` does.
pub fn isolated_test(work: impl FnOnce() + Send) {
    if require() {
        isolated(work).expect("it worked a moment ago");
    }
}

/// Runs `ip` of iproute2 with these words in the namespace of the calling thread, for tests.
///
/// # Panics
/// When it is not there or does not like what it is told.
pub fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim());
}

/// Sets an interface of the calling thread's namespace up.
///
/// # Errors
/// What the kernel says: there is no such interface, or it takes more rights.
pub fn set_up(name: &str) -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    let mut request = InterfaceRequest::new(name)?;
    request.apply(&socket, libc::SIOCGIFFLAGS)?;
    let up = i16::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    request.set_value((i16::from_ne_bytes(request.value()) | up).to_ne_bytes());
    request.apply(&socket, libc::SIOCSIFFLAGS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_isolated_thread_sees_a_loopback_interface_of_its_own_that_is_up() {
        isolated_test(|| {
            let seen = crate::interfaces().unwrap();
            assert_eq!(seen.len(), 1);
            std::net::UdpSocket::bind("127.0.0.1:2268").unwrap();
        });
    }
}
