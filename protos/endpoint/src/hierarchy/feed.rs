//! Who feeds whom: keeps a relay from taking its channels from itself or from what it feeds.
//!
//! ```text
//!   source ──▶ S ──▶ R1 ──▶ R2 ──▶ R3          R3 announces FEDBY=R2,R1,S
//!                    ▲              │          R1, in search of a server above, is told of R3, sees its own address in there,
//!                    └── never ─────┘          and passes R3 over
//! ```
//! A relay announces the chain it is fed by with its own entry (FEDBY, an extension of ours that readers of the draft skip), and
//! databases hand it out with the entry. A stranger's relay announces nothing: against that one there are only our own addresses,
//! and UMTP's way of noticing packets that come back.
//!
//! Owns the rule; knows neither registrar nor locator. Addresses are compared, not ports: a chain names machines.

use std::net::{IpAddr, SocketAddr};

use castgate_wire::registry::{FED_BY_MAX, Server};

/// Whether a relay that is reached at `own` may take channels from this server.
#[must_use]
pub fn may_feed(server: &Server, own: &[SocketAddr]) -> bool {
    let canonical = |socket: &SocketAddr| (socket.ip().to_canonical(), socket.port());
    let itself = (server.address.to_canonical(), server.port);
    let is_itself = own.iter().any(|own| canonical(own) == itself);
    // A place that stands for every address names no machine.
    let own = own.iter().map(|own| own.ip().to_canonical()).filter(|own| !own.is_unspecified());
    !is_itself && !own.into_iter().any(|own| server.fed_by.iter().any(|above| above.to_canonical() == own))
}

/// What a relay announces that is fed by a server, which itself is fed by `above`: nearest first, nobody twice.
#[must_use]
pub fn chain(server: IpAddr, above: &[IpAddr]) -> Vec<IpAddr> {
    let mut chain: Vec<IpAddr> = Vec::with_capacity(FED_BY_MAX);
    for address in std::iter::once(server).chain(above.iter().copied()).map(|address| address.to_canonical()) {
        if chain.len() < FED_BY_MAX && !chain.contains(&address) {
            chain.push(address);
        }
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use castgate_wire::registry::{EntryType, Protocol, Register, Request, Scheme, xml};

    #[test]
    fn two_relays_that_would_feed_each_other_do_not() {
        let mut world = World::default();
        world.register("192.0.2.1", &[]);
        // One takes from the other, which then may not take from it.
        assert!(world.may_feed("192.0.2.2", "192.0.2.1"));
        world.register("192.0.2.2", &world.chain_of("192.0.2.1"));
        assert!(!world.may_feed("192.0.2.1", "192.0.2.2"));
        // When it takes from elsewhere, it may.
        world.register("192.0.2.2", &chain("192.0.2.9".parse().unwrap(), &[]));
        assert!(world.may_feed("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn a_chain_of_three_does_not_close() {
        let mut world = World::default();
        world.register("192.0.2.1", &[]);
        world.register("192.0.2.2", &world.chain_of("192.0.2.1"));
        world.register("192.0.2.3", &world.chain_of("192.0.2.2"));
        assert_eq!(world.server("192.0.2.3").fed_by, ["192.0.2.2", "192.0.2.1"].map(address));
        assert!(!world.may_feed("192.0.2.1", "192.0.2.3"));
        assert!(!world.may_feed("192.0.2.2", "192.0.2.3"));
        assert!(!world.may_feed("192.0.2.1", "192.0.2.2"));
        assert!(world.may_feed("192.0.2.3", "192.0.2.1"), "the chain may become shorter");
        assert!(world.may_feed("192.0.2.4", "192.0.2.3"), "and longer");
    }

    #[test]
    fn nobody_feeds_itself_also_where_it_is_written_otherwise() {
        let mut world = World::default();
        world.register("192.0.2.1", &[address("::ffff:192.0.2.7")]);
        let server = world.server("192.0.2.1");
        for (own, may) in [
            ("192.0.2.1:10100", false),
            ("[::ffff:192.0.2.1]:10100", false),
            ("192.0.2.1:10101", true),
            ("192.0.2.7:1", false),
            ("0.0.0.0:10100", true),
        ] {
            assert_eq!(may_feed(&server, &[own.parse().unwrap()]), may, "{own}");
        }
        assert!(may_feed(&server, &[]), "who has no address is nobody's server");
    }

    #[test]
    fn a_chain_is_bounded_and_names_nobody_twice() {
        let far: Vec<IpAddr> = (0..40).map(|number| IpAddr::from([10, 0, 0, number])).collect();
        let chain = chain(far[3], &far);
        assert_eq!(chain.len(), FED_BY_MAX);
        assert_eq!(chain[..4], [far[3], far[0], far[1], far[2]]);
    }

    /// What is registered, and how it is told: over the wire both ways.
    #[derive(Default)]
    struct World(Vec<Register>);

    impl World {
        fn register(&mut self, source: &str, fed_by: &[IpAddr]) {
            let register = Register {
                source: address(source),
                port: 10_100,
                entry_type: EntryType::TunnelServer,
                protocol: Some(Protocol::Udp),
                networks: Vec::new(),
                country: None,
                fed_by: fed_by.to_vec(),
                scheme: Scheme::Http,
            };
            let Ok((Request::Register(register), None)) = Request::parse(&Request::Register(register).emit()) else {
                panic!("a REGISTER stays one");
            };
            self.0.retain(|before| before.source != register.source);
            self.0.push(register);
        }

        fn server(&self, source: &str) -> Server {
            let server = |register: &Register| Server {
                address: register.source,
                port: register.port,
                entry_type: register.entry_type,
                protocol: register.protocol.clone(),
                prefix_len: None,
                fed_by: register.fed_by.clone(),
                scheme: register.scheme,
            };
            let document = xml::emit_servers(&self.0.iter().map(server).collect::<Vec<_>>());
            let servers = xml::parse_servers(document.as_bytes()).unwrap();
            servers.into_iter().find(|server| server.address == address(source)).unwrap()
        }

        /// What a relay announces that takes from this server.
        fn chain_of(&self, source: &str) -> Vec<IpAddr> {
            let server = self.server(source);
            chain(server.address, &server.fed_by)
        }

        fn may_feed(&self, own: &str, source: &str) -> bool {
            may_feed(&self.server(source), &[SocketAddr::new(address(own), 10_100)])
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
}
