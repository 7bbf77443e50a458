//! Objects to what runs: one snapshot per agent, and what a client should be told.
//!
//! The place is one machine, that of `castgate up`: every object has its agent here, so addresses must not collide, and whoever
//! names no address registers with that of the machine.

pub(crate) mod agents;
mod hints;
mod password;
pub(crate) mod policies;

pub use hints::{ClientHints, PlannedChannel};
pub use password::password_hash;

use std::net::{Ipv4Addr, Ipv6Addr};

use castgate_control::AgentSnapshot;

use crate::check::listeners;
use crate::objects::Objects;
use crate::problem::{Problem, Problems};

/// What shall run on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One snapshot per agent: databases from the root down, then servers, then relays. Every generation is 1; who publishes counts on.
    pub agents: Vec<AgentSnapshot>,
    /// Databases that register nowhere, as `HOST:PORT` to ask; without any, the parents that servers register with.
    pub roots: Vec<String>,
    /// Every channel that can be joined through some server, sorted by bundle, in the order of the bundle.
    pub channels: Vec<PlannedChannel>,
    /// What a client of these manifests would be started with.
    pub client: ClientHints,
}

/// The machine that everything shall run on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// The address under which others reach it: what listens everywhere registers with it. `None`: nobody else reaches it,
    /// and 127.0.0.1 will do.
    pub address: Option<Ipv4Addr>,
    /// The same of version 6. `None`: AMT is served over version 4 alone, where no address is named.
    pub address6: Option<Ipv6Addr>,
}

/// Plans all objects onto one machine.
///
/// # Errors
///
/// What cannot be on one machine: two listeners on one port.
pub fn plan(objects: &Objects, machine: &Machine) -> Result<Plan, Problems> {
    let mut problems: Vec<Problem> = Vec::new();
    listeners(objects, machine.address6, &mut problems, |_| true);
    let agents = agents::agents(objects, machine, &mut problems);
    match Problems::new(problems) {
        Some(problems) => Err(problems),
        None => Ok(Plan {
            agents,
            roots: hints::roots(objects),
            channels: hints::channels(objects),
            client: hints::client(objects),
        }),
    }
}
