//! The AMTRELAY zone of a plan (RFC 8777): for every source of its channels, the relays next to it, as text for a name server.
//!
//! ```text
//!   snapshots of servers with `amt` ──▶ source ─▶ relays ──▶ 10.0.1.10.in-addr.arpa.  300  IN  AMTRELAY  10 1 1 192.0.2.1
//! ```
//! Relays that take their channels through a tunnel are not in it: whoever finds a relay by a source wants the one next to the
//! source, and a relay that looks for one must not find itself. Pure, and equal plans give equal text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

pub use castgate_control::amtrelay::{Name, Record, Relay};

use castgate_control::amtrelay::{MNEMONIC, TYPE, reverse_name};
use castgate_control::{AMT_PORT, AgentSnapshot};

/// How records are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How long a resolver may keep a record, in seconds.
    pub ttl_seconds: u32,
    /// Precedence of every record: lower is tried first. Relays of one precedence are tried in random order.
    pub precedence: u8,
    /// Whether a gateway may do without a Relay Discovery (the D bit). Our addresses are those of one machine each, so it may.
    pub discovery_optional: bool,
    /// Whether records are written in the form for unknown types (RFC 3597), for name servers that do not know this one.
    pub generic: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { ttl_seconds: 300, precedence: 10, discovery_optional: true, generic: false }
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The source.
    pub source: IpAddr,
    /// The name under which gateways ask for it.
    pub owner: Name,
    /// What they are told.
    pub record: Record,
}

/// What a plan has to say about its sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zone {
    /// The records, sorted by source and relay.
    pub rows: Vec<Row>,
    /// One sentence for every relay that cannot be in it.
    pub left_out: Vec<String>,
}

/// Collects the records of some agents.
pub fn zone<'a>(snapshots: impl IntoIterator<Item = &'a AgentSnapshot>, options: &Options) -> Zone {
    let mut relays: BTreeMap<IpAddr, BTreeSet<IpAddr>> = BTreeMap::new();
    let mut left_out = Vec::new();
    for snapshot in snapshots {
        let Some(server) = snapshot.server.as_ref().filter(|server| server.upstream.is_none()) else { continue };
        let Some(amt) = &server.amt else { continue };
        let (fit, odd): (Vec<SocketAddr>, Vec<_>) = amt.listen.iter().partition(|place| place.port() == AMT_PORT.get());
        if let Some(place) = odd.first() {
            left_out.push(format!(
                "{} listens on port {}: a record has no port, and gateways use {AMT_PORT}",
                snapshot.agent,
                place.port()
            ));
        }
        let own: BTreeSet<IpAddr> = fit
            .iter()
            .flat_map(|place| {
                let named = Some(place.ip()).filter(|address| !address.is_unspecified());
                let told = amt.advertise.iter().copied().filter(|address| address.is_ipv4() == place.is_ipv4());
                named.into_iter().chain(told.filter(move |_| named.is_none()))
            })
            .collect();
        for source in server.channels.iter().filter_map(|channel| channel.source) {
            relays.entry(source).or_default().extend(&own);
        }
    }
    let rows = relays.into_iter().flat_map(|(source, relays)| {
        relays.into_iter().map(move |relay| Row {
            source,
            owner: reverse_name(source),
            record: Record {
                precedence: options.precedence,
                discovery_optional: options.discovery_optional,
                relay: match relay {
                    IpAddr::V4(address) => Relay::V4(address),
                    IpAddr::V6(address) => Relay::V6(address),
                },
            },
        })
    });
    Zone { rows: rows.collect(), left_out }
}

impl Zone {
    /// The records with absolute names: what `$INCLUDE` brings into the reverse zones of the sources.
    #[must_use]
    pub fn records(&self, options: &Options) -> String {
        self.rows.iter().fold(String::new(), |text, row| text + &row.line(options))
    }

    /// A whole zone file for one reverse zone, with the records within it. `name_server` answers for it, `serial` grows with
    /// every change.
    #[must_use]
    pub fn file(&self, origin: &Name, name_server: &Name, serial: u32, options: &Options) -> String {
        let ttl = options.ttl_seconds;
        let mut text = format!("$TTL {ttl}\n");
        let _ = writeln!(
            text,
            "{origin} IN SOA {name_server} hostmaster.{origin} {serial} 3600 600 604800 {ttl}\n{origin} IN NS {name_server}"
        );
        self.rows.iter().filter(|row| row.is_within(origin)).fold(text, |text, row| text + &row.line(options))
    }
}

impl Row {
    /// Whether its name lies in a zone.
    #[must_use]
    pub fn is_within(&self, origin: &Name) -> bool {
        let (owner, origin) = (self.owner.as_str().to_ascii_lowercase(), origin.as_str().to_ascii_lowercase());
        owner == origin || origin == "." || owner.ends_with(&format!(".{origin}"))
    }

    fn line(&self, options: &Options) -> String {
        let Self { source: _, owner, record } = self;
        let ttl = options.ttl_seconds;
        if options.generic {
            format!("{owner} {ttl} IN TYPE{TYPE} {}\n", record.to_generic())
        } else {
            format!("{owner} {ttl} IN {MNEMONIC} {record}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use castgate_control::{
        AmtSnapshot, ChannelRule, Discovery, DriadDiscovery, ServerSnapshot, UpstreamProtocol, UpstreamSnapshot,
    };

    use super::*;

    #[test]
    fn every_source_gets_one_record_for_each_relay_next_to_it() {
        let agents = [
            agent("a", &["192.0.2.1:2268", "[2001:db8::1]:2268"], &[Some("10.1.0.10"), Some("10.1.0.10"), None]),
            agent("b", &["192.0.2.2:2268"], &[Some("10.1.0.10"), Some("2001:db8::a")]),
        ];
        let text = zone(&agents, &Options::default()).records(&Options::default());
        let six = "a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.";
        let expected = format!(
            "10.0.1.10.in-addr.arpa. 300 IN AMTRELAY 10 1 1 192.0.2.1\n\
             10.0.1.10.in-addr.arpa. 300 IN AMTRELAY 10 1 1 192.0.2.2\n\
             10.0.1.10.in-addr.arpa. 300 IN AMTRELAY 10 1 2 2001:db8::1\n\
             {six} 300 IN AMTRELAY 10 1 1 192.0.2.2\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn precedence_and_the_d_bit_are_those_asked_for() {
        let options = Options { ttl_seconds: 60, precedence: 128, discovery_optional: false, generic: false };
        let agents = [agent("a", &["192.0.2.1:2268"], &[Some("10.1.0.10")])];
        assert_eq!(
            zone(&agents, &options).records(&options),
            "10.0.1.10.in-addr.arpa. 60 IN AMTRELAY 128 0 1 192.0.2.1\n"
        );
        let generic = Options { generic: true, ..options };
        assert_eq!(
            zone(&agents, &generic).records(&generic),
            "10.0.1.10.in-addr.arpa. 60 IN TYPE260 \\# 6 8001c0000201\n"
        );
    }

    #[test]
    fn a_relay_that_listens_everywhere_is_known_by_what_it_advertises() {
        let mut everywhere = agent("a", &["0.0.0.0:2268"], &[Some("10.1.0.10")]);
        assert_eq!(zone([&everywhere], &Options::default()).rows, []);
        amt(&mut everywhere).advertise = vec!["192.0.2.9".parse().unwrap()];
        let relays: Vec<_> =
            zone([&everywhere], &Options::default()).rows.into_iter().map(|row| row.record.relay).collect();
        assert_eq!(relays, [Relay::V4([192, 0, 2, 9].into())]);
    }

    #[test]
    fn who_is_far_from_the_source_or_speaks_no_amt_is_in_no_zone() {
        let mut relay = agent("a", &["192.0.2.1:2268"], &[Some("10.1.0.10")]);
        let discovery = Discovery::Driad(DriadDiscovery::default());
        relay.server.as_mut().unwrap().upstream = Some(UpstreamSnapshot::new(UpstreamProtocol::Amt, discovery));
        let mut umtp = agent("b", &["192.0.2.2:2268"], &[Some("10.1.0.10")]);
        umtp.server.as_mut().unwrap().amt = None;
        assert_eq!(zone([&relay, &umtp, &AgentSnapshot::default()], &Options::default()), Zone::default());
    }

    #[test]
    fn a_port_that_no_record_can_name_is_said() {
        let zone = zone(&[agent("a", &["192.0.2.1:2300"], &[Some("10.1.0.10")])], &Options::default());
        assert_eq!(zone.rows, []);
        assert_eq!(zone.left_out, ["n/ts-a listens on port 2300: a record has no port, and gateways use 2268"]);
    }

    #[test]
    fn a_file_holds_what_lies_in_its_zone_and_no_more() {
        let agents = [agent("a", &["192.0.2.1:2268"], &[Some("10.1.0.10"), Some("10.2.0.10")])];
        let options = Options::default();
        let name = |text: &str| text.parse::<Name>().unwrap();
        let file = zone(&agents, &options).file(&name("1.10.in-addr.arpa."), &name("ns.example.net."), 7, &options);
        let expected = "$TTL 300\n\
                        1.10.in-addr.arpa. IN SOA ns.example.net. hostmaster.1.10.in-addr.arpa. 7 3600 600 604800 300\n\
                        1.10.in-addr.arpa. IN NS ns.example.net.\n\
                        10.0.1.10.in-addr.arpa. 300 IN AMTRELAY 10 1 1 192.0.2.1\n";
        assert_eq!(file, expected);
    }

    fn agent(name: &str, listen: &[&str], sources: &[Option<&str>]) -> AgentSnapshot {
        let mut server = ServerSnapshot::new("192.0.2.1:10100".parse().unwrap(), vec!["eth0".to_owned()]);
        server.amt = Some(AmtSnapshot::new(listen.iter().map(|place| place.parse().unwrap()).collect()));
        let rule = |(index, source): (usize, Option<&str>)| {
            let source = source.map(|source| source.parse::<IpAddr>().unwrap());
            let six = source.is_some_and(|source| source.is_ipv6());
            ChannelRule {
                name: format!("channel {index}"),
                group: if six { "ff3e::8000:1" } else { "239.1.2.3" }.parse().unwrap(),
                source,
                ports: "5004".parse().unwrap(),
                send: false,
                ttl: 63.try_into().unwrap(),
            }
        };
        server.channels = sources.iter().copied().enumerate().map(rule).collect();
        AgentSnapshot { agent: format!("n/ts-{name}"), server: Some(server), ..AgentSnapshot::default() }
    }

    fn amt(agent: &mut AgentSnapshot) -> &mut AmtSnapshot {
        agent.server.as_mut().and_then(|server| server.amt.as_mut()).unwrap()
    }
}
