//! A request to a database by its name: whichever of its addresses answers.

use std::net::IpAddr;

use castgate_endpoint::hierarchy::address::{DatabaseAddress, Place};
use castgate_wire::registry::Request;

use super::{Credentials, Exchange, HttpError, Opened};
use crate::dns::Dns;
use crate::tls::Trust;

/// A request to a database, at the first of its addresses that answers at all.
#[derive(Debug, Clone, Copy)]
pub struct DatabaseRequest<'a> {
    /// Whom to ask.
    pub database: &'a DatabaseAddress,
    /// Another name than that of [`database`](Self::database) to ask and believe it under, where that is an address.
    pub authority: Option<&'a str>,
    /// Whose certificates are believed, where it is over https.
    pub trust: &'a Trust,
    /// What to ask.
    pub request: &'a Request,
    /// The address to connect from, where it matters.
    pub local: Option<IpAddr>,
    /// Who asks, where the database wants to know.
    pub credentials: Option<&'a Credentials>,
}

impl DatabaseRequest<'_> {
    /// Sends the request and waits for the head of the answer.
    ///
    /// # Errors
    /// [`HttpError`]: the database has no address, or what the last of its addresses made of the request.
    pub async fn open(&self, dns: &Dns) -> Result<Opened, HttpError> {
        let Self { database, trust, local, credentials, .. } = *self;
        let found = dns.databases(database).await.map_err(HttpError::Name)?;
        let target = format!("{}?{}", database.path, self.request.emit());
        let mut last = HttpError::NoAddress { database: database.to_string() };
        for (peer, authority) in found {
            let authority = match (&database.place, self.authority) {
                (Place::Socket(_), Some(authority)) => authority,
                _ => &authority,
            };
            let (scheme, trust) = (database.scheme, Some(trust));
            let exchange = Exchange { scheme, trust, local, credentials, ..Exchange::new(peer, authority, &target) };
            match exchange.open(dns).await {
                Ok(opened) => return Ok(opened),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
