//! What the registrar's walks have to know: service records, addresses, and what databases name.
//!
//! Owns nothing but the way to the answer; whom to ask is the state machine's.

use castgate_client::{Dns, Trust};
use castgate_endpoint::hierarchy::registrar::{Lookup, Reply};

use crate::http::client;

/// Finds out one thing. Everything that can happen is a reply.
pub(crate) async fn find_out(dns: &Dns, trust: &Trust, lookup: Lookup) -> Reply {
    let reply = match &lookup {
        Lookup::Services(name) => Reply::Services(dns.services(name).await.map_err(|error| error.to_string())),
        Lookup::Addresses(name) => Reply::Addresses(dns.addresses(name).await.map_err(|error| error.to_string())),
        Lookup::Databases(ask) => Reply::Databases(client::ask(dns, ask, trust).await),
    };
    tracing::debug!(?lookup, ?reply, "looked up");
    reply
}
