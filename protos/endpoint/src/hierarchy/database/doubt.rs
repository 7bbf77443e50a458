//! Whether those below still reach us: a database that was cut off knows too little, and does not know it.
//!
//! Every owner refreshes his entries within an interval and a tenth. So an entry that goes by itself has lost its owner when others were
//! heard in the last interval; when nobody was, it is we who were out of reach.
//!
//! ```text
//!                        somebody is heard after 7/8 of an interval, who could not refresh his entry in time
//!    ┌─────────────────────────────────────────────────────────────────────────────────────────────────┐
//!    │    an entry goes by itself, nobody heard for 7/8 of an interval                                 ▼
//!   None ──────────────────────────────────────────────────▶ Unheard ──an owner, or a question──▶ HeardAgain
//!    ▲                                                          │                                      │
//!    └───────────────a peer gave all that it holds──────────────┴──────────────────────────────────────┘
//! ```

use std::time::Instant;

use super::{Database, Slot, millis};

/// Places of the table that [`Database::settle`] looks at in one call.
const PLACES_PER_CALL: Slot = 2_048;

/// What a database thinks of what it knows. Without peers it is never in doubt: nobody could tell it more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// As far as it can tell, it knows all.
    #[default]
    None,
    /// Entries went by themselves while nobody at all was heard.
    Unheard,
    /// Then somebody was heard, or asked; the others may follow, or not know yet that they can.
    HeardAgain,
}

/// When owners were heard.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    has_peers: bool,
    /// In milliseconds since the origin of the database, which is the first moment that counts.
    heard: u64,
    doubt: Doubt,
}

impl Hearing {
    /// An entry of an owner went by itself. Its last refresh is two intervals ago, the cut at most an interval and a tenth later.
    pub(super) fn miss(&mut self, now: u64, overdue: u64) {
        if self.has_peers && self.doubt == Doubt::None && now.saturating_sub(self.heard) >= overdue {
            self.doubt = Doubt::Unheard;
        }
    }

    /// A REGISTER or a BYE. `left`: how much longer its entry would have lived; with less than this it was not refreshed in time.
    fn hear(&mut self, now: u64, overdue: u64, left: Option<u64>) {
        let silent = now.saturating_sub(std::mem::replace(&mut self.heard, now));
        let was_cut_off = self.has_peers && silent >= overdue && left.is_some_and(|left| left < overdue);
        if self.doubt == Doubt::Unheard || (self.doubt == Doubt::None && was_cut_off) {
            self.doubt = Doubt::HeardAgain;
        }
    }
}

impl Database {
    /// Somebody below us is heard, with an entry that we hold.
    pub(super) fn hear(&mut self, now: u64, slot: Option<Slot>) {
        let left = slot.map(|slot| self.held[slot].deadline.saturating_sub(now));
        self.hearing.hear(now, self.overdue(), left);
    }

    /// In milliseconds: an owner who lives is heard more often, with some of the tenth that he may be late; and what he said
    /// last is good for longer.
    pub(super) fn overdue(&self) -> u64 {
        millis(self.config.update_interval) / 8 * 7
    }

    /// Says whether there are peers, who may know what we missed.
    pub fn set_has_peers(&mut self, has_peers: bool) {
        self.hearing.has_peers = has_peers;
        if !has_peers {
            self.hearing.doubt = Doubt::None;
        }
    }

    /// What this database thinks of what it knows.
    #[must_use]
    pub fn doubt(&self) -> Doubt {
        self.hearing.doubt
    }

    /// Whether questions of clients and of peers are answered, or put off with 503. Little that is left because nobody was heard would
    /// pass for all there is.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.synchronised && self.hearing.doubt != Doubt::Unheard
    }

    /// A question was put off: whoever asks reaches us, so that owners can too.
    pub fn notice_question(&mut self) {
        if self.hearing.doubt == Doubt::Unheard {
            self.hearing.doubt = Doubt::HeardAgain;
        }
    }

    /// A peer gave all that it holds: there is no doubt any more, and what nobody vouches for goes. It was kept for owners that
    /// had no chance to refresh it here; they had it there. A bounded piece of work: call it again with what it returns.
    pub fn settle(&mut self, now: Instant, from: u32) -> Option<u32> {
        let now = self.clock(now);
        self.hearing.heard = now;
        self.hearing.doubt = Doubt::None;
        let end = from.saturating_add(PLACES_PER_CALL).min(self.held.end());
        for slot in from..end {
            if self.held.get(slot).is_some_and(|held| held.vouched <= now) {
                self.expire(now, slot);
            }
        }
        (end < self.held.end()).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Lab, WALL};
    use super::*;
    use castgate_wire::registry::Transfer;
    use std::time::Duration;

    const NEAR: &str = "TYPE=TS&SOURCE=10.0.0.1&PORT=1&COUNTRY=BE";
    const FAR: &str = "TYPE=TS&SOURCE=10.0.0.2&PORT=1&COUNTRY=NL";

    #[test]
    fn a_database_that_was_cut_off_asks_its_peers_before_it_answers_clients() {
        let mut lab = Lab::new();
        let mut peer = Lab::new();
        peer.now = lab.now;
        lab.database.set_has_peers(true);
        for owner in [NEAR, FAR] {
            lab.register(owner).unwrap();
        }
        lab.turn(600);
        assert_eq!(lab.database.doubt(), Doubt::Unheard);
        assert!(!lab.database.answers());
        lab.register(NEAR).unwrap();
        assert_eq!(lab.database.doubt(), Doubt::HeardAgain);

        peer.turn(600);
        peer.register(FAR).unwrap();
        let all = peer.database.transfer(peer.now, &Transfer::default());
        assert_eq!(lab.database.adopt(lab.now, WALL, all).taken, 1);
        assert_eq!(lab.database.settle(lab.now, 0), None);
        assert_eq!((lab.database.doubt(), lab.database.len()), (Doubt::None, 2));
    }

    #[test]
    fn one_that_hears_some_of_its_owners_is_not_in_doubt() {
        let mut lab = Lab::new();
        lab.database.set_has_peers(true);
        lab.register(FAR).unwrap();
        for _ in 0..4 {
            lab.register(NEAR).unwrap();
            lab.turn(200);
        }
        assert_eq!((lab.database.doubt(), lab.database.len()), (Doubt::None, 1), "the owner is gone, not we");
    }

    #[test]
    fn one_that_was_cut_off_for_a_while_is_in_doubt_before_entries_go() {
        for (silence, doubt) in [(330, Doubt::None), (400, Doubt::HeardAgain)] {
            let mut lab = Lab::new();
            lab.database.set_has_peers(true);
            lab.register(FAR).unwrap();
            lab.register(NEAR).unwrap();
            lab.turn(silence);
            lab.register(NEAR).unwrap();
            assert_eq!((lab.database.doubt(), lab.database.len()), (doubt, 2), "{silence}");
        }
    }

    #[test]
    fn without_peers_there_is_no_doubt() {
        let mut lab = Lab::new();
        lab.register(NEAR).unwrap();
        lab.turn(600);
        assert_eq!((lab.database.doubt(), lab.database.len()), (Doubt::None, 0));
        assert!(lab.database.answers());
    }

    #[test]
    fn a_question_tells_that_somebody_can_reach_us_again() {
        let mut lab = Lab::new();
        lab.database.set_has_peers(true);
        lab.register(NEAR).unwrap();
        lab.database.notice_question();
        assert_eq!(lab.database.doubt(), Doubt::None);
        lab.turn(600);
        lab.database.notice_question();
        assert_eq!(lab.database.doubt(), Doubt::HeardAgain, "or nobody who has to ask first would ever come back");
    }

    #[test]
    fn what_nobody_vouches_for_any_more_goes_when_a_peer_gave_all_it_has() {
        let mut first = Lab::new();
        first.register(NEAR).unwrap();
        let Some(super::super::Change::Put(_, stored)) = first.database.poll_change() else { panic!("it is stored") };
        for (age, is_kept) in [(Duration::from_secs(599), true), (Duration::from_secs(601), false)] {
            let mut lab = Lab::new();
            lab.database.restore(lab.now, WALL.after(age), stored.to_entry().unwrap(), stored.expires());
            assert_eq!(lab.database.len(), 1, "for its owner to come back");
            lab.database.settle(lab.now, 0);
            assert_eq!(lab.database.len() == 1, is_kept);
            assert_eq!(lab.changes().len(), usize::from(!is_kept), "and from the disk");
        }
    }

    impl Lab {
        fn turn(&mut self, seconds: u64) {
            self.pass(seconds);
            self.database.handle_timeout(self.now);
        }
    }
}
