//! AMT endpoints without sockets and clocks: RFC 7450, with RFC 8777 for finding relays and RFC 9601 for ECN.
//!
//! ```text
//!                 ┌───────────── driver: owns the sockets and the clock ────────────┐
//!   datagram ─────▶ handle_datagram(now, local, from, octets)     poll_output() ────▶ datagrams, table edits, events
//!   time ─────────▶ handle_timeout(now)                           next_timeout() ───▶ when to wake
//!                 └─────────────────────────────────────────────────────────────────┘
//! ```
//! [`relay::Relay`] serves any number of gateways; [`gateway::Gateway`] is one of them at one relay;
//! [`discovery::Discovery`] says which relay that is, and [`access::Access`] joins the two for whoever wants channels. What groups and sources mean is decided in [`crate::membership`], the same for
//! all of them.
//!
//! The contract is that of [`crate::umtp`]: whatever depends on time takes `now`; after each call, `poll_output` until it
//! returns `None`; then sleep until `next_timeout` at the latest and call `handle_timeout`. Nothing that comes from the network
//! panics, and nothing that an unproven address sends makes state grow. Multicast Data is the driver's: a relay never sees it, and a
//! gateway judges it by [`gateway::Gateway::takes`].

pub mod access;
pub mod discovery;
pub mod gateway;
mod random;
pub mod relay;
mod table;

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Why a group or a source can never cross a tunnel, whoever asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unfit {
    /// The group is no multicast address.
    #[error("group {0} is not a multicast address")]
    NotMulticast(IpAddr),
    /// The group stays on its link, or on its host.
    #[error("group {0} never leaves its link")]
    LinkLocal(IpAddr),
    /// The group is for source-specific use, and no source was named.
    #[error("group {0} is for source-specific multicast and needs a source")]
    SsmWithoutSource(IpAddr),
    /// The source is not the address of a host of the group's family.
    #[error("source {0} is not the address of a host")]
    BadSource(IpAddr),
}

impl Unfit {
    /// The group itself, or the reason why it is refused.
    ///
    /// # Errors
    /// [`Unfit::NotMulticast`] and [`Unfit::LinkLocal`].
    pub fn check_group(group: IpAddr) -> Result<IpAddr, Self> {
        if !group.is_multicast() {
            return Err(Self::NotMulticast(group));
        }
        let stays = match group {
            IpAddr::V4(group) => group.octets()[..3] == [224, 0, 0],
            // Scopes 0, 1 and 2: reserved, interface-local, link-local (RFC 4291 §2.7).
            IpAddr::V6(group) => group.octets()[1] & 0x0f <= 2,
        };
        if stays { Err(Self::LinkLocal(group)) } else { Ok(group) }
    }

    /// The source itself, or the reason why it is refused for `group`.
    ///
    /// # Errors
    /// [`Unfit::BadSource`].
    pub fn check_source(group: IpAddr, source: IpAddr) -> Result<IpAddr, Self> {
        let is_host = match source {
            IpAddr::V4(source) => group.is_ipv4() && !source.is_broadcast(),
            IpAddr::V6(_) => group.is_ipv6(),
        };
        if !is_host || source.is_multicast() || source.is_unspecified() {
            return Err(Self::BadSource(source));
        }
        Ok(source)
    }
}

/// Whether a group is for source-specific multicast only: 232.0.0.0/8 or `ff3x::/32` (RFC 4607 §1).
#[must_use]
pub fn is_ssm(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.octets()[0] == 232,
        IpAddr::V6(group) => {
            let [first, second, third, fourth, ..] = group.octets();
            first == 0xff && second >> 4 == 3 && third == 0 && fourth == 0
        }
    }
}

/// One spelling for one peer: an IPv4 address that a dual-stack socket wrote into IPv6 is IPv4, and a flow label is no part of an
/// address.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, scope(v6)).into(),
        },
    }
}

/// The scope of an address that has no meaning without one.
fn scope(address: SocketAddrV6) -> u32 {
    if is_link_local(*address.ip()) { address.scope_id() } else { 0 }
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_cross_a_tunnel_is_refused_with_its_reason() {
        let check = |text: &str| Unfit::check_group(text.parse().unwrap());
        for fit in ["224.0.1.1", "232.1.2.3", "239.255.255.255", "ff05::1", "ff3e::8000:d", "ff0e::1"] {
            assert!(check(fit).is_ok(), "{fit}");
        }
        for link in ["224.0.0.0", "224.0.0.22", "224.0.0.255", "ff00::1", "ff01::1", "ff02::16", "ff32::1"] {
            assert_eq!(check(link), Err(Unfit::LinkLocal(link.parse().unwrap())));
        }
        for host in ["192.0.2.1", "240.0.0.1", "2001:db8::1"] {
            assert_eq!(check(host), Err(Unfit::NotMulticast(host.parse().unwrap())));
        }
        let source =
            |group: &str, source: &str| Unfit::check_source(group.parse().unwrap(), source.parse().unwrap()).is_ok();
        assert!(source("232.1.1.1", "192.0.2.1") && source("ff3e::1", "2001:db8::1"));
        for bad in ["0.0.0.0", "255.255.255.255", "239.1.1.1", "2001:db8::1"] {
            assert!(!source("232.1.1.1", bad), "{bad}");
        }
        assert!(!source("ff3e::1", "::") && !source("ff3e::1", "ff0e::1") && !source("ff3e::1", "192.0.2.1"));
    }

    #[test]
    fn groups_of_rfc_4607_need_a_source() {
        let is_ssm = |text: &str| is_ssm(text.parse().unwrap());
        assert!(is_ssm("232.0.0.1") && is_ssm("232.255.255.255") && is_ssm("ff3e::8000:d") && is_ssm("ff35::1"));
        assert!(!is_ssm("231.0.0.1") && !is_ssm("233.0.0.1") && !is_ssm("ff0e::1") && !is_ssm("ff3e:1::1"));
    }

    #[test]
    fn a_peer_has_one_spelling() {
        let canonical = |text: &str| canonical(text.parse().unwrap()).to_string();
        assert_eq!(canonical("[::ffff:192.0.2.1]:7"), "192.0.2.1:7");
        assert_eq!(canonical("[2001:db8::1%3]:7"), "[2001:db8::1]:7");
        assert_eq!(canonical("[fe80::1%3]:7"), "[fe80::1%3]:7");
    }
}
