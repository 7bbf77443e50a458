//! The `castgate-agent` program.

fn main() {}
