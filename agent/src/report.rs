//! What an agent says about itself: one value, as it is at that moment.
//!
//! Made by [`Agent::report`](crate::Agent::report); shown by `castgate up`, written as JSON by whoever asks, sent to the
//! operator as [`v1::State`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use castgate_rpc::v1;
use castgate_wire::umtp::Channel;
use serde::Serialize;

pub use crate::roles::database::{DatabaseReport, RotationReport, RuleReport};

/// The whole report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Generation of the snapshot that is in force.
    pub generation: u64,
    /// Whose report it is: `namespace/name`.
    pub agent: String,
    /// Address of the tunnel server, when there is one.
    pub listen: Option<SocketAddrV4>,
    /// Channels that some tunnel has joined.
    pub channels: Vec<ChannelReport>,
    /// Tunnels.
    pub tunnels: Vec<TunnelReport>,
    /// What was dropped since the start, by reason; a reason that never occurred is absent.
    pub drops: BTreeMap<String, u64>,
    /// Where this agent is registered.
    pub registrations: Vec<RegistrationReport>,
    /// The tunnel database, when there is one.
    pub database: Option<DatabaseReport>,
    /// Where the adapter listens, when there is one.
    pub adapter: Option<SocketAddr>,
    /// Where the front listens, when there is one.
    pub front: Option<SocketAddr>,
    /// For an adapter: how the registrations of its agents stand.
    pub clients: Vec<ClientReport>,
    /// Pattern sources.
    pub patterns: Vec<PatternReport>,
    /// The AMT relay, when there is one.
    pub amt: Option<AmtReport>,
    /// For a relay: the servers above that are in use or tried; while there is none, one row without a server.
    pub upstreams: Vec<UpstreamReport>,
}

/// One channel that is carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChannelReport {
    /// Its name in the snapshot; the channel itself when no rule names it any more.
    pub name: String,
    /// The channel.
    #[serde(serialize_with = "as_text")]
    pub channel: Channel,
    /// Tunnels that have joined it.
    pub tunnels: u64,
    /// Datagrams taken for it since it was joined, natively or from a tunnel.
    pub packets: u64,
    /// Octets of their payloads.
    pub bytes: u64,
    /// Rate between this report and the one before, or shortly before.
    pub bits_per_second: u64,
    /// Interfaces on which the kernel refuses to take it, each with the reason; it is tried again every second.
    pub not_joined: Vec<String>,
}

/// One tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TunnelReport {
    /// The client's address as we see it.
    pub address: SocketAddrV4,
    /// What it has joined.
    #[serde(serialize_with = "as_texts")]
    pub channels: Vec<Channel>,
    /// How long it has been there.
    pub age_seconds: u64,
}

/// One entry at one parent of the registrar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegistrationReport {
    /// The database above.
    pub parent: String,
    /// What is announced there, as in `TS 127.0.2.1:10100 UDP`.
    pub entry: String,
    /// `registered`, `trying`, `refused` or `leaving`.
    pub state: String,
    /// What the parent said when it last refused.
    pub last_refusal: Option<String>,
}

/// One agent that an adapter works for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientReport {
    /// Its name.
    pub agent: String,
    /// Whether it has a stream.
    pub connected: bool,
    /// How its entries stand at its parents.
    pub registrations: Vec<RegistrationReport>,
}

/// One pattern source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PatternReport {
    /// The channel it feeds.
    #[serde(serialize_with = "as_text")]
    pub channel: Channel,
    /// Datagrams sent since it began.
    pub packets: u64,
    /// Octets of their payloads.
    pub bytes: u64,
}

/// An AMT relay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AmtReport {
    /// Where gateways reach it.
    pub listen: Vec<SocketAddr>,
    /// Gateways.
    pub endpoints: u64,
    /// Groups that some gateway has joined.
    pub groups: u64,
    /// Anycast addresses that the kernel routes to us now.
    pub anycast: Vec<IpAddr>,
    /// Groups that the kernel refuses to take, with interface and reason; they are tried again every second.
    pub not_joined: Vec<String>,
}

/// One server above a relay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UpstreamReport {
    /// Where it is; absent: none is known.
    pub server: Option<SocketAddr>,
    /// `AMT` or `UMTP`.
    pub protocol: String,
    /// `connected`, `connecting`, `searching` or `held`.
    pub state: String,
    /// Channels that come from it.
    pub channels: u64,
    /// Why it was last given up.
    pub last_failure: Option<String>,
}

impl Report {
    /// The report as the operator gets it: tunnels and pattern sources are numbers there.
    #[must_use]
    pub fn to_state(&self) -> v1::State {
        let Self { generation, agent: _, listen, channels, tunnels, drops, registrations, .. } = self;
        let Self { database, adapter, clients, patterns: _, amt, upstreams, .. } = self;
        let listen = match (listen, database, adapter) {
            (Some(listen), ..) => listen.to_string(),
            (None, Some(database), _) => database.listen.to_string(),
            (None, None, Some(adapter)) => adapter.to_string(),
            (None, None, None) => String::new(),
        };
        v1::State {
            generation: *generation,
            listen,
            tunnels: tunnels.len() as u64,
            channels: channels.iter().map(ChannelReport::to_message).collect(),
            drops: drops.clone(),
            registrations: registrations.iter().map(RegistrationReport::to_message).collect(),
            entries: database.as_ref().map_or(0, |database| database.entries),
            clients: clients.iter().map(ClientReport::to_message).collect(),
            amt: amt.as_ref().map(AmtReport::to_message),
            upstreams: upstreams.iter().map(UpstreamReport::to_message).collect(),
            rules: database.iter().flat_map(|database| &database.rules).map(rule_message).collect(),
            rotations: database.iter().flat_map(|database| &database.rotations).map(rotation_message).collect(),
            store_lost: database.as_ref().is_some_and(|database| database.store_lost),
        }
    }
}

impl ChannelReport {
    fn to_message(&self) -> v1::Channel {
        let Self { name, channel, tunnels, packets, bytes, bits_per_second, not_joined } = self.clone();
        v1::Channel { name, channel: channel.to_string(), tunnels, packets, bytes, bits_per_second, not_joined }
    }
}

impl RegistrationReport {
    /// The registration as it travels.
    #[must_use]
    pub fn to_message(&self) -> v1::Registration {
        let Self { parent, entry, state, last_refusal } = self.clone();
        v1::Registration { parent, entry, state, last_refusal: last_refusal.unwrap_or_default() }
    }
}

impl ClientReport {
    fn to_message(&self) -> v1::ClientState {
        let Self { agent, connected, registrations } = self;
        let registrations = registrations.iter().map(RegistrationReport::to_message).collect();
        v1::ClientState { agent: agent.clone(), connected: *connected, registrations }
    }
}

impl AmtReport {
    fn to_message(&self) -> v1::Amt {
        let Self { listen, endpoints, groups, anycast, not_joined: _ } = self;
        v1::Amt {
            listen: listen.iter().map(ToString::to_string).collect(),
            endpoints: *endpoints,
            groups: *groups,
            anycast: anycast.iter().map(ToString::to_string).collect(),
        }
    }
}

impl UpstreamReport {
    fn to_message(&self) -> v1::Upstream {
        let Self { server, protocol, state, channels, last_failure } = self.clone();
        v1::Upstream {
            server: server.map(|server| server.to_string()).unwrap_or_default(),
            protocol,
            state,
            channels,
            last_failure: last_failure.unwrap_or_default(),
        }
    }
}

fn rule_message(report: &RuleReport) -> v1::RuleState {
    let RuleReport { policy, rule, clients, answers } = report.clone();
    v1::RuleState { policy, rule, clients, answers }
}

fn rotation_message(report: &RotationReport) -> v1::Rotation {
    let RotationReport { login, since, previous_shown } = report.clone();
    v1::Rotation { login, since, previous_shown: previous_shown.unwrap_or_default() }
}

impl From<v1::Registration> for RegistrationReport {
    fn from(message: v1::Registration) -> Self {
        let v1::Registration { parent, entry, state, last_refusal } = message;
        Self { parent, entry, state, last_refusal: Some(last_refusal).filter(|refusal| !refusal.is_empty()) }
    }
}

fn as_text<S: serde::Serializer>(channel: &Channel, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(channel)
}

fn as_texts<S: serde::Serializer>(channels: &[Channel], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(channels.iter().map(ToString::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_written_by_its_name() {
        let report = TunnelReport {
            address: "127.0.3.1:4000".parse().unwrap(),
            channels: vec!["232.1.2.3@127.0.1.1:5004".parse().unwrap()],
            age_seconds: 3,
        };
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"address":"127.0.3.1:4000","channels":["232.1.2.3@127.0.1.1:5004"],"age_seconds":3}"#
        );
    }
}
