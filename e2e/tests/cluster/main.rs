//! castgate on a real Kubernetes of three nodes, as an ISP's platform engineer sees it.
//!
//! Not the usual test program: all scenarios share one cluster and run in this order; see `cluster::runner`.

mod bad_manifests;
mod basics;
mod charts;
mod commands;
mod docs;
mod etcd;
mod farewell;
mod hierarchy;
mod losses;
mod outages;
mod policies;
mod relays;
mod security;
mod serve;
mod stage;
mod tls;

use castgate_e2e::cluster::runner::{self, Scenario};
use std::process::ExitCode;

/// Every scenario, in the order in which they run.
const SCENARIOS: &[&[Scenario]] = &[
    basics::SCENARIOS,
    serve::SCENARIOS,
    security::SCENARIOS,
    bad_manifests::SCENARIOS,
    charts::SCENARIOS,
    commands::SCENARIOS,
    relays::SCENARIOS,
    policies::SCENARIOS,
    tls::SCENARIOS,
    hierarchy::SCENARIOS,
    etcd::SCENARIOS,
    outages::SCENARIOS,
    losses::SCENARIOS,
    farewell::SCENARIOS,
    docs::SCENARIOS,
];

fn main() -> ExitCode {
    runner::main(SCENARIOS)
}
