//! Finding a network interface by what a user calls it: its name or one of its addresses.

use std::io;
use std::net::Ipv4Addr;

use castgate_udp::Interface;

/// The interface of this name or address.
///
/// # Errors
/// `NotFound` with a sentence that lists the interfaces there are, or what the kernel says.
pub fn find_interface(name: &str) -> io::Result<Interface> {
    let all = castgate_udp::interfaces()?;
    let address: Option<Ipv4Addr> = name.parse().ok();
    let fits = |interface: &Interface| match address {
        Some(address) => interface.addresses.contains(&address),
        None => interface.name == name,
    };
    let names: Vec<_> = all.iter().map(|interface| interface.name.clone()).collect();
    all.into_iter().find(fits).ok_or_else(|| {
        let sentence = format!("there is no interface {name}; this host has {}", names.join(", "));
        io::Error::new(io::ErrorKind::NotFound, sentence)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_found_by_name_and_by_address() {
        let by_name = find_interface("lo").unwrap();
        assert_eq!(find_interface("127.0.0.1").unwrap(), by_name);
        assert!(by_name.loopback);
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_right_ones() {
        let sentence = find_interface("lo77").unwrap_err().to_string();
        assert!(sentence.starts_with("there is no interface lo77; ") && sentence.contains(" lo"), "{sentence}");
    }
}
