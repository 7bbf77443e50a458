//! Membership against the tables of the RFCs, against a naive model, and hosts against routers under a clock that the test turns.

mod bed;
mod converge;
mod election;
mod host;
mod hostile;
mod merge;
mod model;
mod older;
#[path = "../common/random.rs"]
mod random;
mod tables;
mod timers;
