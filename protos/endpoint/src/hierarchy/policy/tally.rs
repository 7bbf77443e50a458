//! How many clients a rule moved: an estimate in a kilobyte, whatever the number (P. Flajolet and others, `HyperLogLog`).
//!
//! Counted while questions are answered, by any number of threads at one time and without a lock.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::choose::ClientKey;

/// Registers, as a power of two: the error is about 3 %.
const REGISTER_BITS: u32 = 10;
const REGISTERS: usize = 1 << REGISTER_BITS;

/// Counts of one rule.
#[derive(Debug)]
pub(super) struct Tally {
    answers: AtomicU64,
    /// Of the clients that came to each register: the most zeros that a draw began with, plus one.
    zeros: Box<[AtomicU8]>,
}

impl Default for Tally {
    fn default() -> Self {
        Self { answers: AtomicU64::new(0), zeros: (0..REGISTERS).map(|_| AtomicU8::new(0)).collect() }
    }
}

impl Tally {
    pub(super) fn count(&self, client: ClientKey) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        let draw = client.draw("tally");
        let register = usize::try_from(draw >> (u64::BITS - REGISTER_BITS)).expect("ten bits");
        let zeros = (draw << REGISTER_BITS).leading_zeros().min(u64::BITS - REGISTER_BITS) + 1;
        self.zeros[register].fetch_max(u8::try_from(zeros).expect("at most 55"), Ordering::Relaxed);
    }

    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// About how many clients there were.
    pub(super) fn clients(&self) -> u64 {
        let (mut sum, mut empty) = (0.0, 0_u16);
        for register in &self.zeros {
            let zeros = register.load(Ordering::Relaxed);
            empty += u16::from(zeros == 0);
            sum += (-f64::from(zeros)).exp2();
        }
        let registers = f64::from(1_u16 << REGISTER_BITS);
        let estimate = 0.7213 / (1.0 + 1.079 / registers) * registers * registers / sum;
        // Few clients leave registers empty, which tells more.
        let estimate = if estimate <= 2.5 * registers && empty > 0 {
            registers * (registers / f64::from(empty)).ln()
        } else {
            estimate
        };
        whole(estimate)
    }
}

/// The nearest whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate is positive and far below 2^64"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn clients_are_counted_once_however_often_they_ask() {
        let tally = Tally::default();
        assert_eq!(tally.clients(), 0);
        let mut known = 0_u32;
        for (number, tolerance) in [(1_u32, 0), (10, 0), (1_000, 50), (100_000, 9_000)] {
            for client in (0..number).chain(0..number.min(10)) {
                tally.count(ClientKey::new(IpAddr::V4((0x0a00_0000 + client).into())));
                known += 1;
            }
            let clients = tally.clients();
            assert!(clients.abs_diff(number.into()) <= tolerance, "{clients} of {number}");
        }
        assert_eq!(tally.answers(), u64::from(known));
    }
}
