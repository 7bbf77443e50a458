//! A TUN interface: IP packets of a virtual interface as reads and writes of a file.
//!
//! The interface lives in the network namespace of the thread that opened it and disappears with the value.

use crate::raw::{self, InterfaceRequest};
use rustix::net::{AddressFamily, SocketType, socket};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

const DEVICE: &str = "/dev/net/tun";

/// A non-blocking TUN interface. Needs `CAP_NET_ADMIN`.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: String,
}

impl Tun {
    /// Creates the interface `name` in the namespace of the calling thread; it is still down.
    ///
    /// # Errors
    /// When the kernel has no TUN/TAP, refuses the privilege, or the name is too long or taken.
    pub fn create(name: &str) -> io::Result<Self> {
        let mut request = InterfaceRequest::new(name)?;
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE)?;
        let flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).map_err(io::Error::other)?;
        request.set_value(flags.to_ne_bytes());
        request.apply(&file, raw::TUNSETIFF)?;
        Ok(Self { file, name: name.to_owned() })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel's number for it.
    ///
    /// # Errors
    /// What the kernel says: it was taken away.
    pub fn index(&self) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(&any_socket(AddressFamily::INET)?, &self.name)?)
    }

    /// Sets the longest packet that it takes, in octets.
    ///
    /// # Errors
    /// What the kernel says: less than 68 octets, or more than 65535.
    pub fn set_mtu(&self, mtu: u16) -> io::Result<()> {
        let mut request = InterfaceRequest::new(&self.name)?;
        request.set_value(i32::from(mtu).to_ne_bytes());
        request.apply(any_socket(AddressFamily::INET)?, libc::SIOCSIFMTU)
    }

    /// Gives it an address. A second one of IPv4 takes the place of the first.
    ///
    /// # Errors
    /// What the kernel says; `InvalidInput` for a prefix that the family does not have.
    pub fn add_address(&self, address: IpAddr, prefix_len: u8) -> io::Result<()> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        match address {
            IpAddr::V4(address) => {
                let host_bits = 32_u32.checked_sub(prefix_len.into()).ok_or_else(invalid)?;
                let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
                let socket = any_socket(AddressFamily::INET)?;
                let mut request = InterfaceRequest::new(&self.name)?;
                request.set_address(address);
                request.apply(&socket, libc::SIOCSIFADDR)?;
                request.set_address(Ipv4Addr::from(mask));
                request.apply(&socket, libc::SIOCSIFNETMASK)
            }
            IpAddr::V6(_) if prefix_len > 128 => Err(invalid()),
            IpAddr::V6(address) => {
                let mut request = InterfaceRequest::ipv6_address(address, prefix_len, self.index()?);
                request.apply(any_socket(AddressFamily::INET6)?, libc::SIOCSIFADDR)
            }
        }
    }

    /// Sets it up.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_up(&self) -> io::Result<()> {
        crate::netns::set_up(&self.name)
    }

    /// Reads one packet.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    /// Writes one packet: the interface receives it.
    ///
    /// # Errors
    /// When the interface is down or the packet is none.
    pub fn write(&self, packet: &[u8]) -> io::Result<usize> {
        (&self.file).write(packet)
    }
}

fn any_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(socket(family, SocketType::DGRAM, None)?)
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ready::wait_readable;
    use crate::{Options, RecvBatch, UdpSocket, netns};

    #[test]
    fn what_is_written_is_heard_by_members_at_the_interface_with_its_source() {
        netns::isolated_test(|| {
            std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
            let tun = Tun::create("amt0").unwrap();
            tun.set_mtu(1400).unwrap();
            tun.add_address(Ipv4Addr::new(198, 51, 100, 1).into(), 24).unwrap();
            tun.add_address("2001:db8::1".parse().unwrap(), 64).unwrap();
            tun.set_up().unwrap();
            let own = crate::interfaces().unwrap().into_iter().find(|interface| interface.name == "amt0").unwrap();
            assert_eq!((own.index, own.addresses), (tun.index().unwrap(), vec![Ipv4Addr::new(198, 51, 100, 1)]));
            let v6 = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
            assert!(v6.lines().any(|line| line.starts_with("20010db8") && line.contains(" 40 ")), "{v6}");
            // 198.51.100.7 sends to 232.1.2.3, port 5004: the checksum of the header by hand, none at UDP.
            let packet = b"\x45\x00\x00\x1d\x00\x07\x40\x00\x09\x11\x5d\x8a\xc6\x33\x64\x07\xe8\x01\x02\x03\
                \x13\x8c\x13\x8c\x00\x09\x00\x00x";
            let group = Ipv4Addr::new(232, 1, 2, 3);
            let member = UdpSocket::bind(&Options::new(std::net::SocketAddrV4::new(group, 5004))).unwrap();
            member.join(group.into(), Some(Ipv4Addr::new(198, 51, 100, 7).into()), tun.index().unwrap()).unwrap();
            tun.write(packet).unwrap();
            let mut batch = RecvBatch::new(4, 64);
            batch.receive(&member).unwrap();
            let heard = batch.iter().next().unwrap();
            assert_eq!((heard.source, heard.payload), ("198.51.100.7:5004".parse().unwrap(), &b"x"[..]));
            // What is routed there is read; the first packets may be the kernel's own.
            let sender = std::net::UdpSocket::bind("198.51.100.1:0").unwrap();
            sender.send_to(b"hello", "198.51.100.9:9").unwrap();
            let mut buffer = [0; 2048];
            loop {
                assert!(wait_readable(&tun, Some(std::time::Duration::from_secs(10))).unwrap());
                let length = tun.read(&mut buffer).unwrap();
                if buffer[..length].ends_with(b"hello") {
                    break;
                }
            }
        });
    }

    #[test]
    fn a_name_that_no_interface_can_have_is_refused() {
        for name in ["", "sixteen-octets--"] {
            assert_eq!(Tun::create(name).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
