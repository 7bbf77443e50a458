//! The network interfaces of this host: name, index, IPv4 addresses.

#![expect(unsafe_code, reason = "the list of getifaddrs has no safe wrapper here")]

use crate::raw::from_sockaddr;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::net::Ipv4Addr;
use std::ptr;

/// A network interface as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The kernel's number for it.
    pub index: u32,
    /// Its IPv4 addresses, the primary one first.
    pub addresses: Vec<Ipv4Addr>,
    /// Whether what it sends comes back to this host and never leaves it.
    pub loopback: bool,
}

/// Lists the interfaces of the network namespace that this thread is in, by name.
///
/// # Errors
/// What the kernel says.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut found = BTreeMap::<String, (Vec<Ipv4Addr>, bool)>::new();
    let list = List::new()?;
    for entry in list.iter() {
        // SAFETY: the kernel library ends each name with a zero; it lives as long as `list`.
        let name = unsafe { CStr::from_ptr(entry.ifa_name) };
        let name = name.to_string_lossy();
        // An address with a label has it for a name: eth0:1 is an address of eth0.
        let name = name.split_once(':').map_or(&*name, |(interface, _label)| interface).to_owned();
        let (addresses, loopback) = found.entry(name).or_default();
        *loopback |= entry.ifa_flags & libc::IFF_LOOPBACK.cast_unsigned() != 0;
        addresses.extend(ipv4_of(entry));
    }
    let any_socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    Ok(found
        .into_iter()
        // One that vanished since the list was made has no number any more.
        .filter_map(|(name, (addresses, loopback))| {
            let index = rustix::net::netdevice::name_to_index(&any_socket, &name).ok()?;
            Some(Interface { name, index, addresses, loopback })
        })
        .collect())
}

fn ipv4_of(entry: &libc::ifaddrs) -> Option<Ipv4Addr> {
    if entry.ifa_addr.is_null() {
        return None;
    }
    // SAFETY: not null, so it points to a socket address whose family field is always there.
    let family = unsafe { (*entry.ifa_addr).sa_family };
    if i32::from(family) != libc::AF_INET {
        return None;
    }
    // SAFETY: the family says that it is a `sockaddr_in`; it is copied, whatever its alignment.
    let address = unsafe { ptr::read_unaligned(entry.ifa_addr.cast::<libc::sockaddr_in>()) };
    Some(*from_sockaddr(&address).ip())
}

/// The linked list of `getifaddrs`, freed at the end.
struct List(*mut libc::ifaddrs);

impl List {
    fn new() -> io::Result<Self> {
        let mut first = ptr::null_mut();
        // SAFETY: `first` is a valid place for one pointer.
        match unsafe { libc::getifaddrs(&raw mut first) } {
            0 => Ok(Self(first)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &libc::ifaddrs> {
        // SAFETY: the list is valid until `self` is dropped, its end is null, and nobody changes it.
        let at = |pointer: *mut libc::ifaddrs| unsafe { pointer.as_ref() };
        std::iter::successors(at(self.0), move |entry| at(entry.ifa_next))
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: it came from `getifaddrs` and is freed once.
        unsafe { libc::freeifaddrs(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_there_with_its_number_and_address() {
        let all = interfaces().unwrap();
        let lo = all.iter().find(|interface| interface.name == "lo").unwrap();
        assert_eq!((lo.index, lo.loopback), (1, true));
        assert_eq!(lo.addresses.first(), Some(&Ipv4Addr::LOCALHOST));
    }
}
