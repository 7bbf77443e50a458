//! Why something was not done: an enum of reasons, each the label of a metric, and how often each happened.

use std::marker::PhantomData;

/// Declares an enum of reasons from its variants and their labels, so that none is missing in a list or in a metric.
macro_rules! reasons {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$of_variant:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$of_variant])* $variant,)+
        }

        impl $name {
            /// Every one, in the order of declaration.
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// As the label of a metric.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }

        impl $crate::reasons::Reason for $name {
            fn all() -> impl Iterator<Item = Self> {
                Self::ALL.into_iter()
            }

            fn place(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use reasons;

/// One of a fixed list.
pub trait Reason: Copy {
    /// The list.
    fn all() -> impl Iterator<Item = Self>;

    /// Where it stands in the list.
    fn place(self) -> usize;
}

/// How often each of `N` reasons happened; it only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally<R, const N: usize> {
    counts: [u64; N],
    of: PhantomData<R>,
}

impl<R, const N: usize> Default for Tally<R, N> {
    fn default() -> Self {
        Self { counts: [0; N], of: PhantomData }
    }
}

impl<R: Reason, const N: usize> Tally<R, N> {
    /// How often this one happened.
    #[must_use]
    pub fn of(&self, reason: R) -> u64 {
        self.counts[reason.place()]
    }

    /// Every one with its count, zeros included.
    pub fn counts(&self) -> impl Iterator<Item = (R, u64)> + '_ {
        R::all().zip(self.counts)
    }

    /// It happened.
    pub fn add(&mut self, reason: R) {
        self.add_many(reason, 1);
    }

    /// It happened so many times.
    pub fn add_many(&mut self, reason: R, times: u64) {
        self.counts[reason.place()] += times;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    reasons! {
        /// Why not.
        pub enum WhyNot {
            /// It rained.
            Rain = "rain",
            /// Nobody came.
            Nobody = "nobody",
        }
    }

    #[test]
    fn each_reason_has_its_own_place_and_label() {
        assert_eq!(WhyNot::ALL.map(|reason| (reason.place(), reason.label())), [(0, "rain"), (1, "nobody")]);
        let mut tally: Tally<WhyNot, { WhyNot::ALL.len() }> = Tally::default();
        tally.add(WhyNot::Nobody);
        tally.add_many(WhyNot::Nobody, 2);
        assert_eq!(tally.counts().collect::<Vec<_>>(), [(WhyNot::Rain, 0), (WhyNot::Nobody, 3)]);
        assert_eq!((tally.of(WhyNot::Rain), tally.of(WhyNot::Nobody)), (0, 3));
    }
}
