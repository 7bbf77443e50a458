//! What a relay has counted: traffic, and every refusal by its reason.

use castgate_wire::amt::ParseError;

/// Why something that arrived was not done, or not done in whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Too short for what it says to be.
    Malformed,
    /// An AMT version other than 0.
    Version,
    /// A type that RFC 7450 does not have.
    UnknownType,
    /// A message that only gateways take, or a Teardown where teardown is off.
    Unexpected,
    /// From an address or port that nobody can be answered at.
    BadSender,
    /// A Relay Discovery at an anycast address of a family for which no unicast address is configured.
    NoAddress,
    /// An answer that was not sent for the rate of its source.
    SourceRate,
    /// An answer that was not sent for the rate of all sources.
    TotalRate,
    /// The Response MAC is none that was given to this address and port, or too old.
    WrongMac,
    /// The packet inside is no report: truncated, a wrong checksum, another protocol, a query.
    NotReport,
    /// A group that is no multicast address or never leaves its link.
    UnfitGroup,
    /// A source that is not the address of a host.
    UnfitSource,
    /// No rule permits the group with that source.
    NotPermitted,
    /// A group for source-specific use was asked for with any source.
    SsmWithoutSource,
    /// A new endpoint while the relay takes no new ones.
    Limited,
    /// The relay has as many endpoints as it may have.
    EndpointsMax,
    /// The address has as many endpoints as it may have.
    EndpointsPerAddressMax,
    /// The endpoint has as many groups as it may have.
    GroupsPerEndpointMax,
    /// The group has as many sources as it may have at this endpoint.
    SourcesPerGroupMax,
    /// The relay has as many groups as it may have.
    GroupsMax,
}

impl Reason {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 20] = [
        Self::Malformed,
        Self::Version,
        Self::UnknownType,
        Self::Unexpected,
        Self::BadSender,
        Self::NoAddress,
        Self::SourceRate,
        Self::TotalRate,
        Self::WrongMac,
        Self::NotReport,
        Self::UnfitGroup,
        Self::UnfitSource,
        Self::NotPermitted,
        Self::SsmWithoutSource,
        Self::Limited,
        Self::EndpointsMax,
        Self::EndpointsPerAddressMax,
        Self::GroupsPerEndpointMax,
        Self::SourcesPerGroupMax,
        Self::GroupsMax,
    ];

    /// The reason as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::UnknownType => "unknown_type",
            Self::Unexpected => "unexpected",
            Self::BadSender => "bad_sender",
            Self::NoAddress => "no_address",
            Self::SourceRate => "source_rate",
            Self::TotalRate => "total_rate",
            Self::WrongMac => "wrong_mac",
            Self::NotReport => "not_report",
            Self::UnfitGroup => "unfit_group",
            Self::UnfitSource => "unfit_source",
            Self::NotPermitted => "not_permitted",
            Self::SsmWithoutSource => "ssm_without_source",
            Self::Limited => "limited",
            Self::EndpointsMax => "endpoints_max",
            Self::EndpointsPerAddressMax => "endpoints_per_address_max",
            Self::GroupsPerEndpointMax => "groups_per_endpoint_max",
            Self::SourcesPerGroupMax => "sources_per_group_max",
            Self::GroupsMax => "groups_max",
        }
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
    dropped: [u64; Reason::ALL.len()],
}

impl Counters {
    /// How often this happened.
    #[must_use]
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.dropped[reason as usize]
    }

    /// All reasons with their counts.
    pub fn drops(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().zip(self.dropped)
    }

    pub(super) fn drop(&mut self, reason: Reason) {
        self.drop_many(reason, 1);
    }

    pub(super) fn drop_many(&mut self, reason: Reason, count: u64) {
        self.dropped[reason as usize] += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place_and_label() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
        let labels: std::collections::BTreeSet<_> = Reason::ALL.map(Reason::label).into();
        assert_eq!(labels.len(), Reason::ALL.len());
    }
}
