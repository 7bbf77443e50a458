//! What a relay has counted: traffic, and every refusal by its reason.

use crate::reasons::{Tally, reasons};
use castgate_wire::amt::ParseError;

reasons! {
    /// Why something that arrived was not done, or not done in whole.
    pub enum Reason {
        /// Too short for what it says to be.
        Malformed = "malformed",
        /// An AMT version other than 0.
        Version = "version",
        /// A type that RFC 7450 does not have.
        UnknownType = "unknown_type",
        /// A message that only gateways take, or a Teardown where teardown is off.
        Unexpected = "unexpected",
        /// From an address or port that nobody can be answered at.
        BadSender = "bad_sender",
        /// A Relay Discovery at an anycast address of a family for which no unicast address is configured.
        NoAddress = "no_address",
        /// An answer that was not sent for the rate of its source.
        SourceRate = "source_rate",
        /// An answer that was not sent for the rate of all sources.
        TotalRate = "total_rate",
        /// The Response MAC is none that was given to this address and port, or too old.
        WrongMac = "wrong_mac",
        /// The packet inside is no report: truncated, a wrong checksum, another protocol, a query.
        NotReport = "not_report",
        /// A group that is no multicast address or never leaves its link.
        UnfitGroup = "unfit_group",
        /// A source that is not the address of a host.
        UnfitSource = "unfit_source",
        /// No rule permits the group with that source.
        NotPermitted = "not_permitted",
        /// A group for source-specific use was asked for with any source.
        SsmWithoutSource = "ssm_without_source",
        /// A new endpoint while the relay takes no new ones.
        Limited = "limited",
        /// The relay has as many endpoints as it may have.
        EndpointsMax = "endpoints_max",
        /// The address has as many endpoints as it may have.
        EndpointsPerAddressMax = "endpoints_per_address_max",
        /// The endpoint has as many groups as it may have.
        GroupsPerEndpointMax = "groups_per_endpoint_max",
        /// The group has as many sources as it may have at this endpoint.
        SourcesPerGroupMax = "sources_per_group_max",
        /// The relay has as many groups as it may have.
        GroupsMax = "groups_max",
    }
}

impl From<ParseError> for Reason {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Truncated(_) | ParseError::AdvertisementLength(_) => Self::Malformed,
            ParseError::Version(_) => Self::Version,
            ParseError::UnknownType(_) => Self::UnknownType,
        }
    }
}

/// Counts since the relay was made; they only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Control datagrams that arrived.
    pub datagrams_in: u64,
    /// Octets of those datagrams.
    pub bytes_in: u64,
    /// Control datagrams handed out to be sent.
    pub datagrams_out: u64,
    /// Octets of those datagrams.
    pub bytes_out: u64,
    /// Relay Discovery that arrived.
    pub discoveries: u64,
    /// Relay Advertisement sent.
    pub advertisements: u64,
    /// Requests that arrived.
    pub requests: u64,
    /// Membership Queries sent.
    pub queries: u64,
    /// Membership Queries among them without L and G for a gateway that drops queries with flags.
    pub plain_queries: u64,
    /// Membership Updates with a valid Response MAC.
    pub updates: u64,
    /// Teardowns with a valid Response MAC.
    pub teardowns: u64,
    /// Endpoints that came up.
    pub endpoints_up: u64,
    /// Endpoints that went down because their timer ran out.
    pub expiries: u64,
    /// What was not done, by its reason.
    pub drops: Tally<Reason, { Reason::ALL.len() }>,
}
