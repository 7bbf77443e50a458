//! The state of the authority and how it turns with time. Pure but for the randomness of new keys.

use std::time::Duration;

use jiff::Timestamp;

use super::{PkiError, issue};

/// How long things live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of a certificate authority.
    pub authority: Duration,
    /// How long a new one is in the bundle before it signs, and an old one after it has signed last. It must be longer than
    /// a changed `ConfigMap` takes to reach every node.
    pub overlap: Duration,
}

impl Default for Lifetimes {
    /// A year; one hour.
    fn default() -> Self {
        Self { authority: Duration::from_hours(365 * 24), overlap: Duration::from_hours(1) }
    }
}

/// A certificate authority with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct CaPair {
    /// The certificate as PEM.
    pub certificate: String,
    /// Its private key as PEM, PKCS #8.
    pub key: String,
    /// When it was made.
    pub made: Timestamp,
    /// When it ends.
    pub ends: Timestamp,
}

/// Without the key.
impl std::fmt::Debug for CaPair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("CaPair").field("made", &self.made).field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// The authority that will sign next: agents learn it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// The authority.
    pub pair: CaPair,
    /// Since when it is in the bundle.
    pub published: Timestamp,
}

/// An authority that signs no more: what it has signed may still be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired {
    /// The certificate as PEM.
    pub certificate: String,
    /// When it leaves the bundle.
    pub until: Timestamp,
}

/// Everything the fleet trusts, and what it signs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Signs.
    pub current: CaPair,
    /// Will sign.
    pub next: Option<Next>,
    /// Have signed; oldest first.
    pub previous: Vec<Retired>,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// Randomness failed, or the lifetime leaves the calendar.
    pub fn create(now: Timestamp, lifetimes: &Lifetimes) -> Result<Self, PkiError> {
        Ok(Self { current: issue::make_authority(now, lifetimes.authority)?, next: None, previous: Vec::new() })
    }

    /// What has become of the authority by `now`; `None` when nothing is due. The result must be stored before it is used.
    ///
    /// # Errors
    /// Randomness failed, or the lifetime leaves the calendar.
    pub fn turn(&self, now: Timestamp, lifetimes: &Lifetimes) -> Result<Option<Self>, PkiError> {
        let mut turned = self.clone();
        turned.previous.retain(|retired| retired.until > now);
        match turned.next.take() {
            // One that ended convinces nobody: to wait longer would help no agent.
            Some(next) if now >= after(next.published, lifetimes.overlap)? || now >= turned.current.ends => {
                let old = std::mem::replace(&mut turned.current, next.pair);
                turned.previous.push(Retired { certificate: old.certificate, until: after(now, lifetimes.overlap)? });
            }
            Some(next) => turned.next = Some(next),
            None if now >= self.renewal() => {
                let pair = issue::make_authority(now, lifetimes.authority)?;
                turned.next = Some(Next { pair, published: now });
            }
            None => {}
        }
        Ok((turned != *self).then_some(turned))
    }

    /// When [`turn`](Self::turn) has something to do at the latest.
    #[must_use]
    pub fn next_turn(&self, lifetimes: &Lifetimes) -> Timestamp {
        let own = match &self.next {
            Some(next) => after(next.published, lifetimes.overlap).unwrap_or(Timestamp::MAX).min(self.current.ends),
            None => self.renewal(),
        };
        self.previous.iter().map(|retired| retired.until).fold(own, Timestamp::min)
    }

    /// What agents trust: the certificates of all, as PEM. The one that signs stands first.
    #[must_use]
    pub fn bundle(&self) -> String {
        let next = self.next.iter().map(|next| &next.pair.certificate);
        let previous = self.previous.iter().map(|retired| &retired.certificate);
        std::iter::once(&self.current.certificate)
            .chain(next)
            .chain(previous)
            .flat_map(|certificate| [certificate.trim_end(), "\n"])
            .collect()
    }

    /// Two thirds of its life.
    fn renewal(&self) -> Timestamp {
        let life = self.current.ends.as_second() - self.current.made.as_second();
        Timestamp::from_second(self.current.made.as_second() + life / 3 * 2 + life % 3 * 2 / 3)
            .unwrap_or(self.current.ends)
    }
}

/// `time` and `duration` later.
pub(super) fn after(time: Timestamp, duration: Duration) -> Result<Timestamp, PkiError> {
    time.checked_add(duration).map_err(|_| PkiError::Time(duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIMES: Lifetimes = Lifetimes { authority: Duration::from_mins(50), overlap: Duration::from_secs(100) };

    #[test]
    fn a_new_authority_is_left_alone_for_two_thirds_of_its_life() {
        let authority = Authority::create(at(0), &LIFETIMES).unwrap();
        assert_eq!(authority.turn(at(1999), &LIFETIMES).unwrap(), None);
        assert_eq!(authority.next_turn(&LIFETIMES), at(2000));
    }

    #[test]
    fn the_next_one_is_published_before_it_signs_and_the_old_one_stays_for_a_while() {
        let first = Authority::create(at(0), &LIFETIMES).unwrap();

        let published = first.turn(at(2000), &LIFETIMES).unwrap().expect("the next one is made");
        assert_eq!(published.current, first.current, "the old one signs");
        let next = published.next.clone().expect("there is a next one");
        assert_eq!(certificates(&published), [first.current.certificate.clone(), next.pair.certificate.clone()]);
        assert_eq!(published.turn(at(2099), &LIFETIMES).unwrap(), None);
        assert_eq!(published.next_turn(&LIFETIMES), at(2100));

        let signing = published.turn(at(2100), &LIFETIMES).unwrap().expect("the next one signs");
        assert_eq!(signing.current, next.pair);
        assert_eq!(signing.next, None);
        assert_eq!(certificates(&signing), [next.pair.certificate.clone(), first.current.certificate]);
        assert_eq!(signing.turn(at(2199), &LIFETIMES).unwrap(), None);
        assert_eq!(signing.next_turn(&LIFETIMES), at(2200));

        let alone = signing.turn(at(2200), &LIFETIMES).unwrap().expect("the old one is forgotten");
        assert_eq!(certificates(&alone), [next.pair.certificate]);
        assert_eq!(alone.next_turn(&LIFETIMES), at(4000), "two thirds of a life that began at 2000");
    }

    #[test]
    fn an_authority_that_ended_while_nobody_looked_is_replaced_without_waiting() {
        let first = Authority::create(at(0), &LIFETIMES).unwrap();
        let published = first.turn(at(9000), &LIFETIMES).unwrap().expect("the next one is made");
        let signing = published.turn(at(9000), &LIFETIMES).unwrap().expect("it signs at once");
        assert_ne!(signing.current, first.current);
        assert_eq!(signing.current.ends, at(12000));
    }

    #[test]
    fn turning_again_and_again_for_years_keeps_the_bundle_short() {
        let mut authority = Authority::create(at(0), &LIFETIMES).unwrap();
        let mut turns = 0;
        while authority.current.made < at(20_000) {
            let now = authority.next_turn(&LIFETIMES);
            authority = authority.turn(now, &LIFETIMES).unwrap().expect("it was due");
            assert!(certificates(&authority).len() <= 2);
            assert!(now < authority.current.ends);
            turns += 1;
        }
        assert!(turns > 20, "{turns} turns");
    }

    #[test]
    fn an_overlap_longer_than_the_rest_of_life_ends_with_life() {
        let lifetimes = Lifetimes { overlap: Duration::from_secs(5000), ..LIFETIMES };
        let published = Authority::create(at(0), &lifetimes).unwrap().turn(at(2000), &lifetimes).unwrap().unwrap();
        assert_eq!(published.next_turn(&lifetimes), at(3000));
        assert!(published.turn(at(3000), &lifetimes).unwrap().is_some());
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn certificates(authority: &Authority) -> Vec<String> {
        authority.bundle().split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect()
    }
}
