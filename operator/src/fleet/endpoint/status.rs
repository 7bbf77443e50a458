//! What the status of an endpoint should say of an agent. Pure.

use castgate_crds::tunnel_endpoint::{
    AmtStatus, Drop as DropCount, EndpointRole, PolicyRuleStatus, Registration, RotationStatus, StreamHolder,
    TunnelEndpointStatus, UpstreamStatus,
};
use castgate_rpc::v1::{self, State};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::super::registry::AgentView;

/// Reasons of drops shown; a dataplane has about twenty.
const DROPS_MAX: usize = 64;
/// Registrations shown; they are counted whatever their number.
const REGISTRATIONS_MAX: usize = 64;
/// Servers above that are shown.
const UPSTREAMS_MAX: usize = 64;
/// Rules of policies that are shown.
const RULES_MAX: usize = 256;
/// Accounts with two passwords that are shown.
const ROTATIONS_MAX: usize = 256;
/// Addresses of an AMT relay that are shown.
const ADDRESSES_MAX: usize = 16;
/// Longest text within a list: 64 times four of them still make a small object.
const WORD_MAX: usize = 256;
/// Longest sentence of a condition or refusal.
const SENTENCE_MAX: usize = 1024;

/// The status that follows from a view. `written` is what stands there now: times of conditions go on, and what the agent has
/// not said yet on this stream stays as it said it on the one before. While it settles, an agent that was ready stays so: a
/// change that it takes within moments is not worth a word.
pub(super) fn desired(
    view: &AgentView,
    written: &TunnelEndpointStatus,
    holder: StreamHolder,
    now: Timestamp,
    settling: bool,
) -> TunnelEndpointStatus {
    let carried = match view.state.as_deref() {
        Some(state) => carried(state, view.identity.role),
        None => written.clone(),
    };
    let before = written.conditions.iter().find(|condition| condition.type_ == "Ready");
    let ready = match (ready(view), before) {
        ((false, "NotReady", _), Some(before)) if settling && before.status == "True" => before.clone(),
        (verdict, _) => condition(written, "Ready", verdict, now),
    };
    TunnelEndpointStatus {
        conditions: vec![condition(written, "Connected", connected(view), now), ready],
        stream: Some(holder),
        version: (!view.version.is_empty()).then(|| view.version.clone()),
        pod: Some(view.identity.pod.clone()),
        snapshot_generation: number(view.generation),
        last_refusal: view.refusal.as_deref().map(short),
        ..carried
    }
}

/// The status of an agent that has not come back since its replica began again: what it said stays.
pub(super) fn written_off(
    written: &TunnelEndpointStatus,
    holder: StreamHolder,
    now: Timestamp,
) -> TunnelEndpointStatus {
    let verdict =
        || (false, "StreamLost", "the operator replica began again, and the agent has not come back".to_owned());
    TunnelEndpointStatus {
        conditions: vec![condition(written, "Connected", verdict(), now), condition(written, "Ready", verdict(), now)],
        stream: Some(holder),
        ..written.clone()
    }
}

/// Whether it says that nobody holds the agent's stream.
pub(super) fn is_lost(status: &TunnelEndpointStatus) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == "Connected" && condition.status != "True")
}

/// What the agent carries, in the words of the status.
fn carried(state: &State, role: EndpointRole) -> TunnelEndpointStatus {
    let bits: u64 = state.channels.iter().map(|channel| channel.bits_per_second).fold(0, u64::saturating_add);
    let packets = state.channels.iter().map(|channel| channel.packets).fold(0, u64::saturating_add);
    let dropped = state.drops.values().copied().fold(0, u64::saturating_add);
    let joined = state.channels.iter().filter(|channel| channel.tunnels > 0).count();
    let own = state.registrations.iter().map(|registration| (None, registration));
    let of_clients = state
        .clients
        .iter()
        .flat_map(|client| client.registrations.iter().map(|registration| (Some(client.agent.as_str()), registration)));
    let all: Vec<(Option<&str>, &v1::Registration)> = own.chain(of_clients).collect();
    let standing = all.iter().filter(|(_, registration)| stands(registration)).count();
    TunnelEndpointStatus {
        active: role == EndpointRole::Adapter || !state.listen.is_empty(),
        address: (!state.listen.is_empty()).then(|| short(&state.listen)),
        tunnels: number(state.tunnels),
        channels: i64::try_from(joined).unwrap_or(i64::MAX),
        megabits_per_second: matches!(role, EndpointRole::Server | EndpointRole::Relay).then(|| megabits(bits)),
        packets: number(packets),
        dropped: number(dropped),
        drops: state
            .drops
            .iter()
            .filter(|(_, count)| **count > 0)
            .take(DROPS_MAX)
            .map(|(reason, count)| DropCount { reason: word(reason), count: number(*count) })
            .collect(),
        entries: number(state.entries),
        registered: (!all.is_empty()).then(|| format!("{standing}/{}", all.len())),
        registrations: all
            .into_iter()
            // An adapter has those of a whole namespace: it lists what somebody must look at.
            .filter(|(agent, registration)| agent.is_none() || !stands(registration))
            .take(REGISTRATIONS_MAX)
            .map(|(agent, registration)| shown(agent, registration))
            .collect(),
        amt: state.amt.as_ref().map(amt),
        upstream: upstream(&state.upstreams),
        upstreams: state.upstreams.iter().take(UPSTREAMS_MAX).map(server_above).collect(),
        rules: state.rules.iter().take(RULES_MAX).map(rule).collect(),
        rotations: state.rotations.iter().take(ROTATIONS_MAX).filter_map(rotation).collect(),
        store_lost: state.store_lost,
        ..TunnelEndpointStatus::default()
    }
}

fn rule(row: &v1::RuleState) -> PolicyRuleStatus {
    let v1::RuleState { policy, rule, clients, answers } = row;
    PolicyRuleStatus { policy: word(policy), rule: word(rule), clients: number(*clients), answers: number(*answers) }
}

/// `None`: the agent's clock shows a time that nobody can write down.
fn rotation(row: &v1::Rotation) -> Option<RotationStatus> {
    let v1::Rotation { login, since, previous_shown } = row;
    let time = |seconds: u64| Timestamp::from_second(i64::try_from(seconds).ok()?).ok().map(Time);
    let previous_shown = if *previous_shown == 0 { None } else { time(*previous_shown) };
    Some(RotationStatus { login: word(login), since: time(*since)?, previous_shown })
}

fn amt(amt: &v1::Amt) -> AmtStatus {
    let v1::Amt { listen, endpoints, groups, anycast } = amt;
    let words = |texts: &[String]| texts.iter().take(ADDRESSES_MAX).map(|text| word(text)).collect();
    AmtStatus {
        addresses: words(listen),
        anycast: words(anycast),
        endpoints: number(*endpoints),
        groups: number(*groups),
    }
}

fn server_above(row: &v1::Upstream) -> UpstreamStatus {
    let v1::Upstream { server, protocol, state, channels, last_failure } = row;
    UpstreamStatus {
        server: word(server),
        protocol: word(protocol),
        state: word(state),
        channels: number(*channels),
        last_failure: (!last_failure.is_empty()).then(|| word(last_failure)),
    }
}

/// The servers above in a few words: where the first one is and how many more there are, else what is done to find one.
fn upstream(rows: &[v1::Upstream]) -> Option<String> {
    let mut connected = rows.iter().filter(|row| row.state == "connected");
    match (connected.next(), connected.count()) {
        (Some(first), 0) => Some(word(&first.server)),
        (Some(first), more) => Some(format!("{} +{more}", word(&first.server))),
        (None, _) => rows.first().map(|row| word(&row.state)),
    }
}

fn stands(registration: &v1::Registration) -> bool {
    registration.state == "registered"
}

fn shown(agent: Option<&str>, registration: &v1::Registration) -> Registration {
    let v1::Registration { parent, entry, state, last_refusal } = registration;
    Registration {
        agent: agent.map(word),
        parent: word(parent),
        entry: word(entry),
        state: word(state),
        last_refusal: (!last_refusal.is_empty()).then(|| word(last_refusal)),
    }
}

/// Status, reason, message of a condition.
type Verdict = (bool, &'static str, String);

fn connected(view: &AgentView) -> Verdict {
    if view.connected {
        (true, "Connected", "the agent's stream is here".to_owned())
    } else {
        (false, "StreamLost", "the agent's stream is lost; it goes on with what it has".to_owned())
    }
}

fn ready(view: &AgentView) -> Verdict {
    let no = |reason, message: &str| (false, reason, short(message));
    if !view.connected {
        return no("StreamLost", "the agent's stream is lost");
    }
    let Some(published) = &view.published else {
        return no("NotReady", "nothing is planned for this agent");
    };
    if let Some(refusal) = &view.refusal {
        return no("AgentRefused", refusal);
    }
    if published.digest != view.digest {
        return no("NotReady", "the agent has not taken its snapshot yet");
    }
    match view.state.as_deref() {
        None => no("NotReady", "the agent has not reported yet"),
        Some(state) if published.listens && state.listen.is_empty() => no("NotReady", "the agent does not listen yet"),
        Some(_) if !published.listens && view.identity.role != EndpointRole::Adapter => {
            (true, "Ready", "the agent stands by".to_owned())
        }
        Some(_) => (true, "Ready", "the agent does what is planned".to_owned()),
    }
}

/// A condition whose time is that of its last flip.
fn condition(
    written: &TunnelEndpointStatus,
    type_: &str,
    (status, reason, message): Verdict,
    now: Timestamp,
) -> Condition {
    let status = if status { "True" } else { "False" };
    let before = written.conditions.iter().find(|condition| condition.type_ == type_);
    let since = before.filter(|before| before.status == status).map(|before| before.last_transition_time.clone());
    Condition {
        last_transition_time: since.unwrap_or(Time(now)),
        message,
        observed_generation: None,
        reason: reason.to_owned(),
        status: status.to_owned(),
        type_: type_.to_owned(),
    }
}

/// As in `12.5`.
fn megabits(bits: u64) -> String {
    let tenths = bits / 100_000 + u64::from(bits % 100_000 >= 50_000);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn short(text: &str) -> String {
    text.chars().take(SENTENCE_MAX).collect()
}

fn word(text: &str) -> String {
    text.chars().take(WORD_MAX).collect()
}

#[cfg(test)]
mod tests;
