//! The whole hierarchy under a clock that the tests turn: databases, those who register there, and clients, over a virtual HTTP.

mod cases;
mod faults;
mod judge;
mod net;
mod node;
mod picture;
mod positions;
#[path = "../common/random.rs"]
mod random;
