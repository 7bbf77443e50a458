//! Who is registered in the database that is measured, and what is sent to it: numbers to addresses and octets.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use anyhow::{Result, bail};
use castgate_control::{Account, Allow, DatabaseSnapshot, EntryType};
use castgate_wire::registry::{Prefix, Protocol, Register, Request, Scheme};

/// The account of every server. The password is that of an example and guards nothing; its hash costs what any hash costs.
const LOGIN: &str = "brussels";
const AUTHORIZATION: &str = "YnJ1c3NlbHM6ZXhhbXBsZS1vbmx5LWJydXNzZWxz";
const PASSWORD_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$575th42nIBS3iXH3Uto+VQ$cLYLXh5urQV1VOvIIQWJ8ztQfxOw2rKSpxPOCUO24S8";
/// An update interval that no run outlives.
const INTERVAL_SECONDS: NonZeroU32 = NonZeroU32::new(86_400).expect("not 0");
/// More than any machine answers.
const REQUESTS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(1_000_000_000).expect("not 0");
/// Networks of one server: a REGISTER with so many is short enough for a GET.
const SHARE_MAX: u32 = 256;
/// So many networks of length 24 there are.
const NETWORKS_MAX: u32 = 1 << 24;

/// How much is registered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    servers: u32,
    /// Networks of each server.
    share: u32,
}

impl Size {
    /// As many networks for each server.
    pub(super) fn new(networks: u32, servers: u32) -> Result<Self> {
        if !networks.is_multiple_of(servers) || !(1..=SHARE_MAX).contains(&(networks / servers)) {
            bail!("--networks {networks} is not 1 to {SHARE_MAX} times --servers {servers}");
        }
        if networks >= NETWORKS_MAX {
            bail!("--networks {networks} is more than there are of length 24");
        }
        Ok(Self { servers, share: networks / servers })
    }

    pub(super) fn servers(self) -> u32 {
        self.servers
    }

    pub(super) fn networks(self) -> u32 {
        self.servers * self.share
    }

    /// A database that takes it.
    pub(super) fn snapshot(self, listen: SocketAddr) -> DatabaseSnapshot {
        let bound = |value: u32| NonZeroU32::new(value).expect("a server is registered");
        let allow = Allow {
            types: vec![EntryType::TunnelServer],
            networks: vec!["0.0.0.0/0".parse().expect("a network")],
            ..Allow::default()
        };
        let account = Account {
            login: LOGIN.to_owned(),
            password_hash: PASSWORD_HASH.to_owned(),
            previous_password_hash: None,
            allow,
        };
        DatabaseSnapshot {
            accounts: vec![account],
            update_interval_seconds: INTERVAL_SECONDS,
            entries_max: bound(self.servers),
            entries_per_account_max: bound(self.servers),
            networks_per_account_max: bound(self.networks()),
            requests_per_minute_max: REQUESTS_PER_MINUTE,
            trusted_proxies: vec!["127.0.0.0/24".parse().expect("a network")],
            ..DatabaseSnapshot::new(listen)
        }
    }

    /// The REGISTER of a server.
    pub(super) fn write_register(self, server: u32, octets: &mut Vec<u8>) {
        let networks = (server * self.share..(server + 1) * self.share)
            .map(|number| Prefix::new(network(number).into(), 24).expect("a length of IPv4"));
        let register = Request::Register(Register {
            source: address(server).into(),
            port: 10_100,
            entry_type: EntryType::TunnelServer,
            protocol: Some(Protocol::Udp),
            networks: networks.collect(),
            country: None,
            fed_by: Vec::new(),
            scheme: Scheme::Http,
        });
        write(octets, &register.emit(), format_args!("Authorization: Basic {AUTHORIZATION}\r\n"));
    }

    /// The QUERY of a client in one of the networks, all of which get their turn in no order.
    pub(super) fn write_query(self, number: u64, octets: &mut Vec<u8>) {
        // A prime that divides no size: neighbours in time are strangers in the tables.
        let number = u32::try_from(number * 982_451_653 % u64::from(self.networks())).expect("below the networks");
        let client = Ipv4Addr::from(u32::from(network(number)) + 7);
        write(octets, "ACTION=QUERY&TYPE=TS&COUNTRY=BE&PROTOCOL=ALL", format_args!("X-Forwarded-For: {client}\r\n"));
    }
}

fn write(octets: &mut Vec<u8>, pairs: &str, field: std::fmt::Arguments<'_>) {
    let path = castgate_wire::registry::PATH;
    write!(octets, "GET {path}?{pairs} HTTP/1.1\r\nHost: 127.0.0.1\r\n{field}\r\n").expect("a Vec takes everything");
}

/// A /24 of its own for each number, all over the space of addresses as real ones are.
fn network(number: u32) -> Ipv4Addr {
    Ipv4Addr::from((number + 1).wrapping_mul(0x9e37_79b1) << 8)
}

/// The address of a server: each as long as the others, so that all answers are.
fn address(server: u32) -> Ipv4Addr {
    let digits = |place: u32| 100 + u8::try_from(server / 100_u32.pow(place) % 100).expect("below 100");
    Ipv4Addr::new(digits(3), digits(2), digits(1), digits(0))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_server_and_every_network_is_there_once() {
        let networks: HashSet<_> = (0..200_000).map(network).collect();
        assert_eq!(networks.len(), 200_000);
        let servers: HashSet<_> = (0..20_000).map(address).collect();
        assert_eq!(servers.len(), 20_000);
        assert!(servers.iter().all(|server| server.to_string().len() == 15));
    }

    #[test]
    fn as_many_networks_for_each_server_and_no_more_than_a_line_takes() {
        for (networks, servers) in [(10, 3), (2, 3), (1_000, 1), (NETWORKS_MAX, NETWORKS_MAX)] {
            assert!(Size::new(networks, servers).is_err(), "{networks} {servers}");
        }
        let size = Size::new(1_000, 100).unwrap();
        assert_eq!((size.networks(), size.servers()), (1_000, 100));
        let mut octets = Vec::new();
        Size::new(256, 1).unwrap().write_register(0, &mut octets);
        assert!(octets.len() < 8_000, "{}", octets.len());
    }
}
