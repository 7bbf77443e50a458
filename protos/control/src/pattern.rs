//! A source of numbered, time-stamped datagrams: something to receive where nothing else is sent.

use std::num::{NonZeroU8, NonZeroU16, NonZeroU64};

use castgate_wire::pattern::HEADER_LEN;
use castgate_wire::umtp::Channel;
use serde::{Deserialize, Serialize};

use crate::server::{check_group, check_interface, is_source_specific};
use crate::{SnapshotError, integer, words};

/// Largest payload that still fits an Ethernet frame after a tunnel server added its trailer: 1500 - 20 - 8 - 16.
const PAYLOAD_OCTETS_MAX: u16 = 1456;

/// One channel that this agent feeds natively.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatternSource {
    /// Group, port and, for a source-specific channel, the source address, which must then be ours.
    #[serde(with = "words::one")]
    pub channel: Channel,
    /// Rate of the UDP payloads.
    #[serde(deserialize_with = "integer::read")]
    pub rate_bits_per_second: NonZeroU64,
    /// Size of each UDP payload. Default: 1316, seven packets of an MPEG transport stream.
    #[serde(default = "default_payload_octets", deserialize_with = "integer::read")]
    pub payload_octets: NonZeroU16,
    /// Where it is sent.
    pub interface: String,
    /// TTL it is sent with. Default: 16.
    #[serde(default = "default_ttl", deserialize_with = "integer::read")]
    pub ttl: NonZeroU8,
}

impl PatternSource {
    /// A source with the default payload and TTL.
    #[must_use]
    pub fn new(channel: Channel, rate_bits_per_second: NonZeroU64, interface: String) -> Self {
        Self { channel, rate_bits_per_second, payload_octets: default_payload_octets(), interface, ttl: default_ttl() }
    }

    pub(crate) fn check(&self) -> Result<(), SnapshotError> {
        check_group(self.channel.group.into()).map_err(|reason| SnapshotError::new("channel", reason))?;
        if self.channel.port == 0 {
            return Err(SnapshotError::new("channel", "has port 0"));
        }
        if self.channel.source.is_none() && is_source_specific(self.channel.group.into()) {
            let reason = format!("{} is in the source-specific range 232.0.0.0/8 and names no source", self.channel);
            return Err(SnapshotError::new("channel", reason));
        }
        let least = u16::try_from(HEADER_LEN).expect("the header of a pattern is a few octets");
        if !(least..=PAYLOAD_OCTETS_MAX).contains(&self.payload_octets.get()) {
            let reason = format!("{} is not in {least}..={PAYLOAD_OCTETS_MAX}", self.payload_octets);
            return Err(SnapshotError::new("payloadOctets", reason));
        }
        check_interface(&self.interface).map_err(|reason| SnapshotError::new("interface", reason))
    }
}

const fn default_payload_octets() -> NonZeroU16 {
    NonZeroU16::new(1316).expect("1316 is not zero")
}

const fn default_ttl() -> NonZeroU8 {
    NonZeroU8::new(16).expect("16 is not zero")
}
