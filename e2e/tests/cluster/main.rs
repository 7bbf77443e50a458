//! castgate on a real Kubernetes of three nodes, as an ISP's platform engineer sees it.
//!
//! Not the usual test program: all scenarios share one cluster and run in this order; see `cluster::runner`.

mod basics;

use castgate_e2e::cluster::runner::{self, Scenario};
use std::process::ExitCode;

/// Every scenario, in the order in which they run.
const SCENARIOS: &[&[Scenario]] = &[basics::SCENARIOS];

fn main() -> ExitCode {
    runner::main(SCENARIOS)
}
