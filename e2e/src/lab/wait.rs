//! Waiting for something to be seen, with a deadline: never for time alone.

use anyhow::{Context, Result};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Between two looks. Short against everything that tests measure.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Looks again and again until `look` gives something.
///
/// # Errors
/// When that has not happened within `longest`; says what was awaited.
pub fn until<T>(what: &str, longest: Duration, look: impl FnMut() -> Option<T>) -> Result<T> {
    until_every(LOOK_AGAIN, what, longest, look)
}

/// The same with another pause between two looks, for looks that somebody counts.
///
/// # Errors
/// As [`until`].
pub fn until_every<T>(
    pause: Duration,
    what: &str,
    longest: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        // Asked once more after the deadline: a slow machine must not turn a thing that happened into one that did not.
        let late = start.elapsed() >= longest;
        match look() {
            Some(seen) => return Ok(seen),
            None if late => return None.with_context(|| format!("{what}: not seen within {longest:?}")),
            None => std::thread::sleep(pause),
        }
    }
}

/// Whether the text of `/proc/net/udp` lists a socket bound to this port (on any address).
pub(super) fn lists_port(proc_net: &str, port: u16) -> bool {
    let wanted = format!(":{port:04X}");
    proc_net.lines().skip(1).any(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&wanted)))
}

/// Whether the text of `/proc/net/tcp` lists a listening socket on this port.
pub(super) fn lists_listener(proc_net: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    proc_net.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&wanted)) && fields.nth(1) == Some(LISTEN)
    })
}

/// Whether the text of `/proc/net/tcp` lists an established connection to this port.
pub(super) fn lists_connection(proc_net: &str, port: u16) -> bool {
    const ESTABLISHED: &str = "01";
    let wanted = format!(":{port:04X}");
    proc_net.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|remote| remote.ends_with(&wanted)) && fields.next() == Some(ESTABLISHED)
    })
}

/// Whether the text of `/proc/net/igmp` lists this group.
pub(super) fn lists_group(proc_net: &str, group: Ipv4Addr) -> bool {
    // The kernel prints the address as one number of the machine's own byte order.
    let wanted = format!("{:08X}", u32::from_ne_bytes(group.octets()));
    proc_net.lines().any(|line| line.split_whitespace().next() == Some(&wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let udp = "  sl  local_address rem_address\n  12: 0200007F:2774 00000000:0000 07 00000000:00000000";
        assert!(lists_port(udp, 10_100) && !lists_port(udp, 10_101));
        let tcp = "  sl  local_address rem_address\n   0: 0100007F:1600 00000000:0000 0A 00000000\n   1: 0100007F:1601 0100007F:2000 01 0";
        assert!(lists_connection(tcp, 8_192) && !lists_connection(tcp, 0));
        assert!(lists_listener(tcp, 5_632) && !lists_listener(tcp, 5_633));
        let igmp = "Idx\tDevice\n2\tstudio    :     2      V3\n\t\t\t\t030201E8     1 0:00000000\t\t1\n";
        assert!(lists_group(igmp, Ipv4Addr::new(232, 1, 2, 3)) && !lists_group(igmp, Ipv4Addr::new(232, 1, 2, 4)));
    }

    #[test]
    fn what_never_comes_is_named() {
        let error = until::<()>("the parcel", Duration::ZERO, || None).unwrap_err();
        assert_eq!(error.to_string(), "the parcel: not seen within 0ns");
    }
}
