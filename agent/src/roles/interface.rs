//! Interfaces by name: their number and the address that is ours there.

use std::io;
use std::net::Ipv4Addr;

use castgate_udp::Interface;

/// Why an interface cannot be used: one sentence that names it.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// There is none of that name.
    #[error("interface {0:?} does not exist")]
    Missing(String),
    /// It has no IPv4 address from which something could be sent.
    #[error("interface {0:?} has no IPv4 address")]
    NoAddress(String),
    /// The kernel does not tell.
    #[error("interfaces cannot be listed: {0}")]
    List(#[from] io::Error),
}

/// Finds an interface of this host.
///
/// # Errors
/// When there is none of that name.
pub fn find(name: &str) -> Result<Interface, InterfaceError> {
    let all = castgate_udp::interfaces()?;
    all.into_iter().find(|interface| interface.name == name).ok_or_else(|| InterfaceError::Missing(name.to_owned()))
}

/// The address that the kernel prefers on an interface.
///
/// # Errors
/// When it has none.
pub fn first_address(interface: &Interface) -> Result<Ipv4Addr, InterfaceError> {
    interface.addresses.first().copied().ok_or_else(|| InterfaceError::NoAddress(interface.name.clone()))
}

/// The address from which a server that listens at `listen` sends on this interface: `listen` itself when that is one of its
/// addresses, which on a loopback interface all of 127/8 are; otherwise the interface's own.
///
/// # Errors
/// When the interface has no address.
pub fn address_for(interface: &Interface, listen: Ipv4Addr) -> Result<Ipv4Addr, InterfaceError> {
    let is_its_own = interface.addresses.contains(&listen) || (interface.loopback && listen.is_loopback());
    if is_its_own { Ok(listen) } else { first_address(interface) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lo() -> Interface {
        Interface { name: "lo".to_owned(), index: 1, addresses: vec![Ipv4Addr::LOCALHOST], loopback: true }
    }

    fn lan() -> Interface {
        let addresses = vec![Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        Interface { name: "lan".to_owned(), index: 2, addresses, loopback: false }
    }

    #[test]
    fn on_loopback_a_server_sends_from_where_it_listens() {
        let listen = Ipv4Addr::new(127, 0, 2, 1);
        assert_eq!(address_for(&lo(), listen).unwrap(), listen);
        assert_eq!(address_for(&lo(), Ipv4Addr::UNSPECIFIED).unwrap(), Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn elsewhere_it_sends_from_an_address_of_that_interface() {
        assert_eq!(address_for(&lan(), Ipv4Addr::new(192, 0, 2, 2)).unwrap(), Ipv4Addr::new(192, 0, 2, 2));
        assert_eq!(address_for(&lan(), Ipv4Addr::new(198, 51, 100, 1)).unwrap(), Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(address_for(&lan(), Ipv4Addr::new(127, 0, 2, 1)).unwrap(), Ipv4Addr::new(192, 0, 2, 1));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(find("nosuch0").unwrap_err().to_string(), "interface \"nosuch0\" does not exist");
        let bare = Interface { addresses: Vec::new(), ..lan() };
        assert_eq!(
            address_for(&bare, Ipv4Addr::UNSPECIFIED).unwrap_err().to_string(),
            "interface \"lan\" has no IPv4 address"
        );
    }
}
