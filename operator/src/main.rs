//! `castgate-operator`: custom resources to running agents.

fn main() {}
