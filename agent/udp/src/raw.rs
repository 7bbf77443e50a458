//! The two socket-option calls, and addresses as the kernel writes them.
//!
//! Owns `setsockopt` and `getsockopt` for options that `socket2` has no name for.
//!
//! ```text
//!   0        2      4             8                              24         28
//!   | family | port | IPv4 address | zeros                     | ..                sockaddr_in
//!   | family | port | flow label   | IPv6 address              | scope    |        sockaddr_in6
//! ```

#![expect(unsafe_code, reason = "socket options without a wrapper in socket2")]

use std::ffi::c_int;
use std::io;
use std::mem::{self, offset_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
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

/// `ifreq`: the name of an interface and whatever an ioctl takes or gives beside it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    value: [u8; mem::size_of::<libc::ifreq>() - libc::IFNAMSIZ],
}

const _: () = assert!(mem::size_of::<InterfaceRequest>() == mem::size_of::<libc::ifreq>());

impl InterfaceRequest {
    /// For the interface of this name.
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an interface's name has 1 to 15 octets"));
        }
        let mut request = Self { name: [0; _], value: [0; _] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        Ok(request)
    }

    /// `in6_ifreq`, which takes the place of an `ifreq` at sockets of IPv6.
    pub(crate) fn ipv6_address(address: Ipv6Addr, prefix_len: u8, interface: u32) -> Self {
        let mut request = Self { name: address.octets(), value: [0; _] };
        request.value[..4].copy_from_slice(&u32::from(prefix_len).to_ne_bytes());
        request.value[4..8].copy_from_slice(&interface.to_ne_bytes());
        request
    }

    /// Puts an address of IPv4 into the value, as `sockaddr_in`.
    pub(crate) fn set_address(&mut self, address: Ipv4Addr) {
        self.value[..2].copy_from_slice(&INET.to_ne_bytes());
        self.value[2..4].fill(0);
        self.value[4..8].copy_from_slice(&address.octets());
    }

    /// The beginning of the value, as it stands in memory.
    pub(crate) fn value<const N: usize>(&self) -> [u8; N] {
        *self.value.first_chunk().expect("values are a few octets long")
    }

    pub(crate) fn set_value<const N: usize>(&mut self, octets: [u8; N]) {
        self.value[..N].copy_from_slice(&octets);
    }

    /// An `ioctl` that reads and writes an `ifreq`. Its number is of another type in each C library: 32 bits of it count.
    pub(crate) fn apply(&mut self, file: impl AsFd, request: u64) -> io::Result<()> {
        // SAFETY: every request of this crate that comes here takes a whole `ifreq`, which `self` is laid out as; it is
        // exclusive and outlives the call.
        let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), request as libc::Ioctl, std::ptr::from_mut(self)) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// `_IOW('T', 202, int)`, as wide as the numbers of other requests are in every C library.
pub(crate) const TUNSETIFF: u64 = 0x4004_54ca;

/// An address of either family as `recvmmsg` and `sendmmsg` want it: `sockaddr_in` and `sockaddr_in6` laid over each other.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Name {
    family: libc::sa_family_t,
    /// In network order.
    port: u16,
    /// `sin_addr`, or `sin6_flowinfo`.
    v4_or_flow: [u8; 4],
    /// `sin6_addr`; `sin_zero` is its beginning.
    v6: [u8; 16],
    scope: u32,
}

#[expect(clippy::cast_possible_truncation, reason = "2 and 10")]
const INET: libc::sa_family_t = libc::AF_INET as libc::sa_family_t;
#[expect(clippy::cast_possible_truncation, reason = "2 and 10")]
const INET6: libc::sa_family_t = libc::AF_INET6 as libc::sa_family_t;
#[expect(clippy::cast_possible_truncation, reason = "16")]
const V4_BYTES: libc::socklen_t = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
#[expect(clippy::cast_possible_truncation, reason = "28")]
const V6_BYTES: libc::socklen_t = mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t;

const _: () = {
    assert!(mem::size_of::<Name>() == mem::size_of::<libc::sockaddr_in6>());
    assert!(mem::align_of::<Name>() >= mem::align_of::<libc::sockaddr_in6>());
    assert!(offset_of!(Name, family) == offset_of!(libc::sockaddr_in, sin_family));
    assert!(offset_of!(Name, family) == offset_of!(libc::sockaddr_in6, sin6_family));
    assert!(offset_of!(Name, port) == offset_of!(libc::sockaddr_in, sin_port));
    assert!(offset_of!(Name, port) == offset_of!(libc::sockaddr_in6, sin6_port));
    assert!(offset_of!(Name, v4_or_flow) == offset_of!(libc::sockaddr_in, sin_addr));
    assert!(offset_of!(Name, v4_or_flow) == offset_of!(libc::sockaddr_in6, sin6_flowinfo));
    assert!(offset_of!(Name, v6) == offset_of!(libc::sockaddr_in6, sin6_addr));
    assert!(offset_of!(Name, scope) == offset_of!(libc::sockaddr_in6, sin6_scope_id));
};

impl Name {
    /// Octets of a place for either family.
    pub(crate) const BYTES_MAX: libc::socklen_t = V6_BYTES;
    /// 0.0.0.0:0.
    pub(crate) const NOBODY: Self = Self { family: INET, port: 0, v4_or_flow: [0; 4], v6: [0; 16], scope: 0 };

    /// Octets of this address.
    pub(crate) fn bytes(&self) -> libc::socklen_t {
        if self.family == INET6 { V6_BYTES } else { V4_BYTES }
    }
}

impl From<SocketAddr> for Name {
    fn from(address: SocketAddr) -> Self {
        let port = address.port().to_be();
        match address {
            SocketAddr::V4(v4) => Self { port, v4_or_flow: v4.ip().octets(), ..Self::NOBODY },
            SocketAddr::V6(v6) => {
                Self { family: INET6, port, v4_or_flow: [0; 4], v6: v6.ip().octets(), scope: v6.scope_id() }
            }
        }
    }
}

impl From<&Name> for SocketAddr {
    fn from(name: &Name) -> Self {
        let port = u16::from_be(name.port);
        if name.family == INET6 {
            SocketAddrV6::new(Ipv6Addr::from(name.v6), port, 0, name.scope).into()
        } else {
            SocketAddrV4::new(Ipv4Addr::from(name.v4_or_flow), port).into()
        }
    }
}

/// Has a packet socket hear every protocol of one interface from now on; tells the type of its hardware (`ARPHRD_*`).
pub(crate) fn bind_packet_socket(socket: impl AsFd, interface: u32) -> io::Result<u16> {
    #[expect(clippy::cast_possible_truncation, reason = "17 and 3")]
    const FAMILY_AND_PROTOCOL: (u16, u16) = (libc::AF_PACKET as u16, libc::ETH_P_ALL as u16);
    let mut name = libc::sockaddr_ll {
        sll_family: FAMILY_AND_PROTOCOL.0,
        sll_protocol: FAMILY_AND_PROTOCOL.1.to_be(),
        sll_ifindex: c_int::try_from(interface).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let mut length = libc::socklen_t::try_from(mem::size_of_val(&name)).expect("20 octets");
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `name` is a live socket address of `length` octets, which the kernel only reads.
    if unsafe { libc::bind(fd, std::ptr::from_ref(&name).cast(), length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `name` and `length` are live and exclusive; the kernel writes at most `length` octets into `name`.
    if unsafe { libc::getsockname(fd, std::ptr::from_mut(&mut name).cast(), &raw mut length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(name.sll_hatype)
}

/// `sockaddr_storage`, the roomy form of the protocol-independent multicast options.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Storage {
    name: Name,
    rest: [u8; mem::size_of::<libc::sockaddr_storage>() - mem::size_of::<Name>()],
}

/// `group_req`.
#[repr(C)]
pub(crate) struct GroupRequest {
    pub(crate) interface: u32,
    pub(crate) group: Storage,
}

/// `group_source_req`.
#[repr(C)]
pub(crate) struct GroupSourceRequest {
    pub(crate) interface: u32,
    pub(crate) group: Storage,
    pub(crate) source: Storage,
}

const _: () = {
    assert!(mem::size_of::<Storage>() == mem::size_of::<libc::sockaddr_storage>());
    assert!(mem::size_of::<GroupRequest>() == mem::size_of::<libc::group_req>());
    assert!(offset_of!(GroupRequest, group) == offset_of!(libc::group_req, gr_group));
    assert!(mem::size_of::<GroupSourceRequest>() == mem::size_of::<libc::group_source_req>());
    assert!(offset_of!(GroupSourceRequest, group) == offset_of!(libc::group_source_req, gsr_group));
    assert!(offset_of!(GroupSourceRequest, source) == offset_of!(libc::group_source_req, gsr_source));
};

impl From<IpAddr> for Storage {
    fn from(address: IpAddr) -> Self {
        Self { name: SocketAddr::new(address, 0).into(), rest: [0; _] }
    }
}

/// The level of the options of this family: `IPPROTO_IP` or `IPPROTO_IPV6`.
pub(crate) fn level_of(address: IpAddr) -> c_int {
    if address.is_ipv6() { libc::IPPROTO_IPV6 } else { libc::IPPROTO_IP }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_survive_the_way_to_the_kernel_s_form_and_back() {
        for text in ["192.0.2.7:2268", "[2001:db8::7]:2268", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().unwrap();
            let name = Name::from(address);
            assert_eq!(SocketAddr::from(&name), address);
            assert_eq!(name.bytes(), if address.is_ipv4() { 16 } else { 28 });
        }
        let scoped = SocketAddrV6::new(Ipv6Addr::from(0xfe80 << 112), 5, 0, 3);
        assert_eq!(SocketAddr::from(&Name::from(SocketAddr::V6(scoped))), SocketAddr::V6(scoped));
    }
}
