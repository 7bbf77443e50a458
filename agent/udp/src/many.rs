//! `sendmmsg` and `recvmmsg` as the kernel has them, whatever the C library: musl's `sendmmsg` is a loop of one call a message,
//! and its structures name the lengths of the kernel by narrower types with padding beside them.

#![expect(unsafe_code, reason = "system calls without a wrapper")]

use std::ffi::{c_int, c_long};
use std::fmt::Debug;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Hands messages to the kernel, and says how many it took.
///
/// # Safety
/// Every header points at live memory of the lengths it names, which nobody writes during the call, and its padding is zero.
pub(crate) unsafe fn send_many(socket: impl AsFd, headers: &mut [libc::mmsghdr], flags: c_int) -> io::Result<usize> {
    let count = libc::c_uint::try_from(headers.len()).unwrap_or(libc::c_uint::MAX);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `count` headers are live and exclusive; the caller answers for what they point at. The kernel keeps no pointer.
    let result = unsafe { libc::syscall(libc::SYS_sendmmsg, fd, headers.as_mut_ptr(), count, flags) };
    taken(result)
}

/// Takes what has arrived, and says how many messages that are.
///
/// # Safety
/// Every header points at live, exclusive memory of the lengths it names, and its padding is zero.
pub(crate) unsafe fn receive_many(socket: impl AsFd, headers: &mut [libc::mmsghdr], flags: c_int) -> io::Result<usize> {
    let count = libc::c_uint::try_from(headers.len()).unwrap_or(libc::c_uint::MAX);
    let fd = socket.as_fd().as_raw_fd();
    let no_timeout = std::ptr::null_mut::<libc::timespec>();
    // SAFETY: `count` headers are live and exclusive; the caller answers for what they point at. The kernel keeps no pointer.
    let result = unsafe { libc::syscall(libc::SYS_recvmmsg, fd, headers.as_mut_ptr(), count, flags, no_timeout) };
    taken(result)
}

fn taken(result: c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_negative| io::Error::last_os_error())
}

/// What the kernel wrote into a length of whatever type.
pub(crate) fn fit<T>(length: T) -> usize
where
    usize: TryFrom<T>,
{
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// A length in the type that this C library has for it. All of ours are small.
pub(crate) fn length<T: TryFrom<usize, Error: Debug>>(length: usize) -> T {
    T::try_from(length).expect("buffers and control messages are far below 2 GiB")
}
