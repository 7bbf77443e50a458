//! AMT among others: what the real peers of the lab do, first without castgate, then with it.
//!
//! A test of a peer alone keeps the others honest: when one with castgate fails beside it, the peer is not to blame.

mod attacks;
mod chain;
mod delivery;
mod finding;
mod gateway;
mod hierarchy;
mod kernels;
mod messages;
mod names;
mod receive;
mod relay;
mod routers;
mod storm;

use castgate_e2e::lab::impair::{Link, Way};
use castgate_wire::amt::MessageType;
use std::time::{Duration, Instant};

/// For things that take a moment; a deadline that is reached means that they never happen.
const SOON: Duration = Duration::from_secs(20);
/// The slowest peer is a whole machine without acceleration.
const LATE: Duration = Duration::from_mins(1);

/// How many AMT messages of a type went one way over a link, and when the last did.
fn passed(link: &Link, way: Way, kind: MessageType) -> (usize, Option<Instant>) {
    let times: Vec<Instant> = link.pick(|passage| {
        let datagram = passage.udp().filter(|_| passage.way == way)?;
        (MessageType::of(datagram.payload) == Ok(kind)).then_some(passage.at)
    });
    (times.len(), times.last().copied())
}
