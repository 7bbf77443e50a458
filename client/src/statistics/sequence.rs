//! Loss, duplication and reordering of one numbered stream, by distinct sequence numbers.
//!
//! ```text
//!      first            highest - WINDOW                highest
//!        │                     │ 1 bit a number            │
//!   ─────┴─────────────────────┴───────────────────────────┴──▶ sequence
//!          older: counted as seen       lost = highest - first + 1 - distinct
//! ```
//! The window has a fixed size: a number that has left it and comes once more counts as a duplicate.

/// Sequence numbers that are remembered one by one: 3 s of a stream of 20 000 packets a second.
const WINDOW: u64 = 65_536;
const WORD_BITS: u64 = 64;

/// What one stream has lost so far. Nothing before its first and after its last packet counts.
#[derive(Debug, Clone)]
pub(crate) struct Sequence {
    first: u64,
    highest: u64,
    distinct: u64,
    duplicated: u64,
    reordered: u64,
    seen: Box<[u64]>,
}

impl Sequence {
    /// Starts with the first packet of a stream.
    pub(crate) fn new(number: u64) -> Self {
        let seen = vec![0; usize::try_from(WINDOW / WORD_BITS).expect("1024 fits any index")].into_boxed_slice();
        let mut sequence = Self { first: number, highest: number, distinct: 1, duplicated: 0, reordered: 0, seen };
        sequence.mark(number);
        sequence
    }

    /// Counts one more packet.
    pub(crate) fn record(&mut self, number: u64) {
        if number > self.highest {
            self.forget(number);
            self.highest = number;
            self.mark(number);
            self.distinct += 1;
        } else if self.highest - number >= WINDOW || self.is_marked(number) {
            self.duplicated += 1;
        } else {
            self.mark(number);
            self.distinct += 1;
            self.reordered += 1;
            self.first = self.first.min(number);
        }
    }

    /// The highest number so far.
    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    /// Packets of this stream, repeated ones included.
    pub(crate) fn packets(&self) -> u64 {
        self.distinct + self.duplicated
    }

    /// Numbers between the first and the last that never came.
    pub(crate) fn lost(&self) -> u64 {
        // A forged number can be u64::MAX with a first of 0: the span then is one more than a u64 holds.
        (self.highest - self.first).saturating_add(1) - self.distinct
    }

    /// Numbers that came more than once, each repetition counted.
    pub(crate) fn duplicated(&self) -> u64 {
        self.duplicated
    }

    /// Numbers that came after a higher one.
    pub(crate) fn reordered(&self) -> u64 {
        self.reordered
    }

    /// Makes room in the window up to `number`.
    fn forget(&mut self, number: u64) {
        if number - self.highest >= WINDOW {
            self.seen.fill(0);
            return;
        }
        for passed in self.highest + 1..=number {
            let (word, bit) = place(passed);
            self.seen[word] &= !bit;
        }
    }

    fn mark(&mut self, number: u64) {
        let (word, bit) = place(number);
        self.seen[word] |= bit;
    }

    fn is_marked(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.seen[word] & bit != 0
    }
}

fn place(number: u64) -> (usize, u64) {
    let slot = number % WINDOW;
    (usize::try_from(slot / WORD_BITS).expect("below 1024"), 1 << (slot % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(numbers: impl IntoIterator<Item = u64>) -> (u64, u64, u64) {
        let mut numbers = numbers.into_iter();
        let mut sequence = Sequence::new(numbers.next().unwrap());
        numbers.for_each(|number| sequence.record(number));
        (sequence.lost(), sequence.duplicated(), sequence.reordered())
    }

    #[test]
    fn a_whole_stream_has_lost_nothing_wherever_it_starts() {
        assert_eq!(after(7_000_000..7_200_000), (0, 0, 0));
    }

    #[test]
    fn gaps_are_lost_and_late_packets_fill_them() {
        assert_eq!(after([10, 12, 15]), (3, 0, 0));
        assert_eq!(after([10, 12, 15, 13]), (2, 0, 1));
    }

    #[test]
    fn a_repeated_number_is_a_duplicate_and_never_hides_a_loss() {
        assert_eq!(after([1, 1, 2, 4, 4, 2]), (1, 3, 0));
    }

    #[test]
    fn a_packet_older_than_the_first_moves_the_first() {
        assert_eq!(after([10, 8, 11]), (1, 0, 1));
    }

    #[test]
    fn a_jump_over_the_window_forgets_the_marks_but_not_the_counts() {
        let jump = 5 * WINDOW;
        assert_eq!(after([0, jump, jump - 1]), (jump + 1 - 3, 0, 1));
        assert_eq!(after([0, WINDOW, 0]), (WINDOW - 1, 1, 0));
    }

    #[test]
    fn the_highest_number_there_is_does_not_overflow() {
        assert_eq!(after([0, u64::MAX]), (u64::MAX - 2, 0, 0));
    }
}
