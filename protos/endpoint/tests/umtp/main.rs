//! UMTP endpoints against each other: real servers and clients, a clock that the test turns, a network that the test damages.

mod bed;
mod failover;
mod flood;
mod fuzz;
mod healing;
mod joining;
#[path = "../common/random.rs"]
mod random;
mod rebinding;
mod scale;
mod upstream;
