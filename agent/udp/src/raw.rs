//! The two socket-option calls, and IPv4 addresses as the kernel writes them.
//!
//! Owns `setsockopt` and `getsockopt` for options that `socket2` has no name for.

#![expect(unsafe_code, reason = "socket options without a wrapper in socket2")]

use std::ffi::c_int;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd};

/// A value that is plain data for the kernel: no padding that matters, no pointer that outlives the call.
pub(crate) fn set_option<T>(socket: impl AsFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(mem::size_of::<T>()).expect("an option is a few octets long");
    // SAFETY: `value` is a live reference to `length` octets, which the kernel only reads during the call.
    let result =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an option that is one C integer.
pub(crate) fn int_option(socket: impl AsFd, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut length = libc::socklen_t::try_from(mem::size_of::<c_int>()).expect("four octets");
    // SAFETY: `value` and `length` are live and exclusive; the kernel writes at most `length` octets into `value`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_mut(&mut value).cast(),
            std::ptr::from_mut(&mut length),
        )
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Octets of a [`libc::sockaddr_in`].
#[expect(clippy::cast_possible_truncation, reason = "16")]
pub(crate) const SOCKADDR_BYTES: libc::socklen_t = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;

/// An address as `recvmmsg` and `sendmmsg` want it.
pub(crate) fn to_sockaddr(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("AF_INET is 2"),
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    }
}

/// The address in what the kernel filled in.
pub(crate) fn from_sockaddr(address: &libc::sockaddr_in) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes()), u16::from_be(address.sin_port))
}

/// An address in the roomy form of the protocol-independent multicast options.
pub(crate) fn to_storage(address: Ipv4Addr) -> libc::sockaddr_storage {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    // SAFETY: `sockaddr_storage` is at least as large as `sockaddr_in` and aligned for it; the place is exclusive.
    unsafe { storage.as_mut_ptr().cast::<libc::sockaddr_in>().write(to_sockaddr(SocketAddrV4::new(address, 0))) };
    // SAFETY: every octet was zeroed and then partly overwritten; all bit patterns are valid for this C structure.
    unsafe { storage.assume_init() }
}
