//! The network interfaces of this host: name, index, IPv4 addresses.

#![expect(unsafe_code, reason = "the list of getifaddrs has no safe wrapper here")]

use crate::raw::InterfaceRequest;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
        let name = name_of(entry);
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

/// The longest IP packet that the interface takes by which packets from `local` to `to` leave, in octets.
///
/// # Errors
/// What the kernel says: there is no way to `to`, or no interface has the address.
pub fn interface_mtu(local: IpAddr, to: SocketAddr) -> io::Result<usize> {
    let own = if local.is_unspecified() { crate::address_towards(to)? } else { local };
    let list = List::new()?;
    let has_it = |entry: &&libc::ifaddrs| address_of(entry) == Some(own);
    // Every address of 127/8 is the loopback interface's, and it names one.
    let is_loopback =
        |entry: &&libc::ifaddrs| own.is_loopback() && entry.ifa_flags & libc::IFF_LOOPBACK.cast_unsigned() != 0;
    let entry = list.iter().find(has_it).or_else(|| list.iter().find(is_loopback));
    let entry = entry.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
    let mut request = InterfaceRequest::new(&name_of(entry))?;
    let any_socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    request.apply(&any_socket, libc::SIOCGIFMTU)?;
    Ok(usize::try_from(i32::from_ne_bytes(request.value())).unwrap_or_default())
}

fn name_of(entry: &libc::ifaddrs) -> String {
    // SAFETY: the C library ends each name with a zero; it lives as long as the list that `entry` is borrowed from.
    let name = unsafe { CStr::from_ptr(entry.ifa_name) };
    let name = name.to_string_lossy();
    // An address with a label has it for a name: eth0:1 is an address of eth0.
    name.split_once(':').map_or(&*name, |(interface, _label)| interface).to_owned()
}

fn ipv4_of(entry: &libc::ifaddrs) -> Option<Ipv4Addr> {
    match address_of(entry)? {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn address_of(entry: &libc::ifaddrs) -> Option<IpAddr> {
    if entry.ifa_addr.is_null() {
        return None;
    }
    // SAFETY: not null, so it points to a socket address whose family field is always there.
    let family = unsafe { (*entry.ifa_addr).sa_family };
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a `sockaddr_in`; it is copied, whatever its alignment.
            let address = unsafe { ptr::read_unaligned(entry.ifa_addr.cast::<libc::sockaddr_in>()) };
            Some(IpAddr::from(address.sin_addr.s_addr.to_ne_bytes()))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that it is a `sockaddr_in6`; it is copied, whatever its alignment.
            let address = unsafe { ptr::read_unaligned(entry.ifa_addr.cast::<libc::sockaddr_in6>()) };
            Some(IpAddr::from(address.sin6_addr.s6_addr))
        }
        _ => None,
    }
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

    #[test]
    fn the_limit_of_the_interface_on_the_way_is_told() {
        let mtu: usize = std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap().trim().parse().unwrap();
        for (local, to) in [("127.9.8.7", "127.0.0.1:9"), ("0.0.0.0", "127.0.0.1:9"), ("::1", "[::1]:9")] {
            assert_eq!(interface_mtu(local.parse().unwrap(), to.parse().unwrap()).unwrap(), mtu, "{local}");
        }
    }
}
