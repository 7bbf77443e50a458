//! A TAP interface: Ethernet frames of a virtual interface as reads and writes of a file.
//!
//! Owns the one ioctl that creates it. The interface lives in the network namespace of the thread that opened it and
//! disappears with the value. Offloads stay off: the kernel hands out frames that are segmented and carry checksums.

use crate::raw::{self, InterfaceRequest};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

const DEVICE: &str = "/dev/net/tun";

/// A non-blocking TAP interface. Needs `CAP_NET_ADMIN`.
#[derive(Debug)]
pub struct Tap {
    file: File,
}

impl Tap {
    /// Creates the interface `name` in the namespace of the calling thread; it is still down.
    ///
    /// # Errors
    /// When the kernel has no TUN/TAP, refuses the privilege, or the name is too long or taken.
    pub fn create(name: &str) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE)?;
        let mut request = InterfaceRequest::new(name)?;
        let flags = i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI).map_err(io::Error::other)?;
        request.set_value(flags.to_ne_bytes());
        request.apply(&file, raw::TUNSETIFF)?;
        Ok(Self { file })
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    /// Writes one frame: the interface receives it.
    ///
    /// # Errors
    /// When the interface is down or the frame is none.
    pub fn write(&self, frame: &[u8]) -> io::Result<usize> {
        (&self.file).write(frame)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_interface_can_have_is_refused() {
        for name in ["", "sixteen-octets--"] {
            // Without the device or the right to open it there is nothing to refuse either.
            if let Err(error) = Tap::create(name) {
                let expected = [io::ErrorKind::InvalidInput, io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied];
                assert!(expected.contains(&error.kind()), "{error}");
            } else {
                panic!("`{name}` was taken");
            }
        }
    }
}
