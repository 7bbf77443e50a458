//! The `castgate` command.

fn main() {}
