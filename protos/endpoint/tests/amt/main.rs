//! AMT endpoints against each other and against what others do: real relays and gateways, a clock that the test turns, a network that
//! the test damages.

mod access;
mod attacks;
mod bed;
mod finding;
mod fuzz;
mod linux;
mod loss;
#[path = "../common/random.rs"]
mod random;
mod roaming;
