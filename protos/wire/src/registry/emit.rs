//! How a request is written: one spelling only, in the order of the draft's examples.

use super::request::{ACTION, COUNTRY, FEDBY, NETWORK, NETWORKS, PORT, PROTOCOL, SCHEME, SOURCE, STRICT, TYPE};
use super::{Bye, EntryType, ProtocolFilter, Query, Register, Request, Transfer};
use super::{country, entry, pairs};

impl Request {
    /// The pairs, to stand after `?` or in a POST body of `application/x-www-form-urlencoded`.
    #[must_use]
    pub fn emit(&self) -> String {
        let mut pairs = String::new();
        let mut put = |(_, name): (usize, &str), value: &str| pairs::append(&mut pairs, name, value);
        match self {
            Self::Register(Register { source, port, entry_type, protocol, networks, country, fed_by, scheme }) => {
                put(ACTION, "REGISTER");
                put(TYPE, entry_type.word());
                put(SOURCE, &source.to_string());
                put(PORT, &port.to_string());
                if let Some(protocol) = protocol {
                    put(PROTOCOL, protocol.word());
                }
                if !networks.is_empty() {
                    let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
                    put(NETWORKS, &networks.join(","));
                }
                if let Some(country) = country {
                    put(COUNTRY, country.as_str());
                }
                if !fed_by.is_empty() {
                    put(FEDBY, &entry::emit_fed_by(fed_by));
                }
                if !scheme.is_http() {
                    put(SCHEME, scheme.word());
                }
            }
            Self::Bye(Bye { source, port, entry_type, protocol, strict }) => {
                put(ACTION, "BYE");
                if let Some(entry_type) = entry_type {
                    put(TYPE, entry_type.word());
                }
                put(SOURCE, &source.to_string());
                put(PORT, &port.to_string());
                if let Some(protocol) = protocol {
                    put(PROTOCOL, protocol.word());
                }
                if *strict {
                    put(STRICT, "1");
                }
            }
            Self::Query(Query { entry_type, country, protocol, network }) => {
                put(ACTION, "QUERY");
                put(TYPE, entry_type.word());
                // draft-liefooghe-castgate-02 §6.3: mandatory. Who does not know says so.
                put(COUNTRY, country.as_ref().map_or(country::UNKNOWN, |country| country.as_str()));
                // Databases have no protocol to filter by.
                if *entry_type == EntryType::TunnelServer || *protocol != ProtocolFilter::All {
                    put(PROTOCOL, protocol.word());
                }
                if let Some(network) = network {
                    put(NETWORK, &network.to_string());
                }
            }
            Self::Transfer(Transfer { network, country }) => {
                put(ACTION, "TRANSFER");
                if let Some(network) = network {
                    put(NETWORK, &network.to_string());
                }
                if let Some(country) = country {
                    put(COUNTRY, country.as_str());
                }
            }
        }
        pairs
    }
}
