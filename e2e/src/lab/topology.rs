//! The text that describes a lab, as values.
//!
//! ```text
//!   studio:   source 10.1.0.10/24, server 10.1.0.2/24       # a LAN: its members and their addresses in it
//!   internet: server 192.0.2.2/24, home 192.0.2.20/24
//!   sofa:     home 10.2.0.1/24, client 10.2.0.11/24
//!   nat home: internet                                      # home routes, and masquerades what leaves to the internet
//!   router core: backbone                                   # the same without masquerading
//!   link home internet: loss=2% delay=20ms seed=7           # this attachment goes through our own impairment
//! ```
//! A host is whoever is a member of a LAN; in several LANs it has an interface in each, named after the LAN. Members of a
//! LAN that has a router (other than the router's uplink) use him as their default gateway.

use super::impair::Impairment;
use anyhow::{Context, Result, bail, ensure};
use std::net::Ipv4Addr;

/// An interface's name is a LAN's name: the kernel's limit without its closing zero.
const LAN_NAME_LEN_MAX: usize = 15;

/// Everything a topology text says.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// The LANs in the order of the text.
    pub lans: Vec<Lan>,
    /// Hosts that forward between their LANs.
    pub routers: Vec<Router>,
    /// Attachments that are impaired.
    pub links: Vec<LinkSpec>,
}

/// A broadcast domain: multicast sent by one member reaches every other.
#[derive(Debug, Clone, PartialEq)]
pub struct Lan {
    /// Also the name of the members' interfaces.
    pub name: String,
    /// Who is attached.
    pub members: Vec<Member>,
}

/// A host's attachment to a LAN.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The host.
    pub host: String,
    /// Its address in the LAN.
    pub address: Ipv4Addr,
    /// Length of the LAN's prefix.
    pub prefix_len: u8,
}

/// A host that forwards unicast between its LANs.
#[derive(Debug, Clone, PartialEq)]
pub struct Router {
    /// The host.
    pub host: String,
    /// The LAN behind which everything else lies.
    pub uplink: String,
    /// Whether what leaves through the uplink takes the router's address there.
    pub masquerade: bool,
}

/// An attachment that goes through our own shuttle instead of a veth pair.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkSpec {
    /// The host at one end.
    pub host: String,
    /// The LAN at the other.
    pub lan: String,
    /// What happens to frames, in both directions.
    pub impairment: Impairment,
}

impl Topology {
    /// Reads a topology text.
    ///
    /// # Errors
    /// One sentence with the line and what is wrong in it.
    pub fn parse(text: &str) -> Result<Self> {
        let mut topology = Self { lans: Vec::new(), routers: Vec::new(), links: Vec::new() };
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                topology.line(line).with_context(|| format!("topology line {}: `{line}`", number + 1))?;
            }
        }
        topology.check()?;
        Ok(topology)
    }

    /// Every host once, in the order of first mention.
    #[must_use]
    pub fn hosts(&self) -> Vec<&str> {
        let mut hosts: Vec<&str> = Vec::new();
        for member in self.lans.iter().flat_map(|lan| &lan.members) {
            if !hosts.contains(&member.host.as_str()) {
                hosts.push(&member.host);
            }
        }
        hosts
    }

    /// The router that a host uses for everything it has no interface to, and the LAN it stands in.
    #[must_use]
    pub fn gateway(&self, host: &str) -> Option<(Ipv4Addr, &str)> {
        let lans = self.lans.iter().filter(|lan| lan.members.iter().any(|member| member.host == host));
        lans.flat_map(|lan| self.routers.iter().map(move |router| (lan, router)))
            .filter(|(lan, router)| router.uplink != lan.name && router.host != host)
            .find_map(|(lan, router)| {
                let member = lan.members.iter().find(|member| member.host == router.host)?;
                Some((member.address, lan.name.as_str()))
            })
    }

    fn line(&mut self, line: &str) -> Result<()> {
        let (left, right) = line.split_once(':').context("has no colon")?;
        let words: Vec<&str> = left.split_whitespace().collect();
        match words.as_slice() {
            ["nat", host] => self.routers.push(router(host, right, true)),
            ["router", host] => self.routers.push(router(host, right, false)),
            ["link", host, lan] => {
                let impairment = right.parse()?;
                self.links.push(LinkSpec { host: (*host).to_owned(), lan: (*lan).to_owned(), impairment });
            }
            [lan] => {
                let members = right.split(',').map(member).collect::<Result<_>>()?;
                self.lans.push(Lan { name: (*lan).to_owned(), members });
            }
            _ => bail!("starts neither a LAN nor `nat`, `router` or `link`"),
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        for (index, lan) in self.lans.iter().enumerate() {
            let name = &lan.name;
            ensure!(name.len() <= LAN_NAME_LEN_MAX, "LAN `{name}` has a name of more than {LAN_NAME_LEN_MAX} octets");
            ensure!(!self.lans[..index].iter().any(|other| other.name == *name), "LAN `{name}` is there twice");
            ensure!(!self.hosts().contains(&name.as_str()), "`{name}` is a LAN and a host");
            for (place, member) in lan.members.iter().enumerate() {
                let host = &member.host;
                ensure!(!lan.members[..place].iter().any(|other| other.host == *host), "`{host}` is twice in `{name}`");
            }
        }
        for router in &self.routers {
            self.check_attached(&router.host, &router.uplink)?;
        }
        self.links.iter().try_for_each(|link| self.check_attached(&link.host, &link.lan))
    }

    fn check_attached(&self, host: &str, lan: &str) -> Result<()> {
        let found = self.lans.iter().find(|candidate| candidate.name == lan).context(format!("no LAN `{lan}`"))?;
        ensure!(found.members.iter().any(|member| member.host == host), "`{host}` is not a member of `{lan}`");
        Ok(())
    }
}

fn router(host: &str, uplink: &str, masquerade: bool) -> Router {
    Router { host: host.to_owned(), uplink: uplink.trim().to_owned(), masquerade }
}

fn member(text: &str) -> Result<Member> {
    let (host, address) = text.trim().split_once(char::is_whitespace).context("a member is `host address/length`")?;
    let (address, prefix_len) = address.trim().split_once('/').context("an address needs its prefix length")?;
    Ok(Member {
        host: host.to_owned(),
        address: address.parse().with_context(|| format!("`{address}` is not an IPv4 address"))?,
        prefix_len: prefix_len.parse().with_context(|| format!("`{prefix_len}` is not a prefix length"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "
        studio:   source 10.1.0.10/24, server 10.1.0.2/24
        internet: server 192.0.2.2/24, home 192.0.2.20/24   # no gateway here
        sofa:     home 10.2.0.1/24, client 10.2.0.11/24
        nat home: internet
        link home internet: loss=2% delay=20ms
    ";

    #[test]
    fn a_text_becomes_lans_routers_and_links() {
        let topology = Topology::parse(HOME).unwrap();
        assert_eq!(topology.hosts(), ["source", "server", "home", "client"]);
        assert_eq!(topology.routers, [router("home", "internet", true)]);
        assert_eq!(topology.links[0].lan, "internet");
        assert_eq!(topology.lans[2].members[1].address, Ipv4Addr::new(10, 2, 0, 11));
    }

    #[test]
    fn the_gateway_is_the_router_of_ones_lan_but_not_beyond_its_uplink() {
        let topology = Topology::parse(HOME).unwrap();
        assert_eq!(topology.gateway("client"), Some((Ipv4Addr::new(10, 2, 0, 1), "sofa")));
        assert_eq!(topology.gateway("server"), None);
        assert_eq!(topology.gateway("home"), None);
    }

    #[test]
    fn a_wrong_line_is_named() {
        let wrong = |line: &str| format!("{:#}", Topology::parse(&format!("a: x 10.0.0.1/24\n{line}")).unwrap_err());
        assert!(wrong("a: y 10.0.0.2/24").contains("twice"));
        assert!(wrong("b: y 10.0.0.2").contains("topology line 2"));
        assert!(wrong("nat x: b").contains("no LAN `b`"));
        assert!(wrong("link z a: loss=1%").contains("not a member"));
        assert!(wrong("link x a: loss=101%").contains("101"));
        assert!(wrong("b y 10.0.0.2/24").contains("no colon"));
    }
}
