//! Entries that answer the same question: those of one network, one country, or everybody's.
//!
//! A bag can hold all entries there are, and an answer has room for few of them. So every entry has a ticket, a hash of what it is,
//! and a bag is in the order of tickets, as a ring: a caller gets those that follow its own ticket. Each caller always gets the same
//! part, all parts are used alike, and the work is that of the answer, not of the bag.
//!
//! ```text
//!   kind │ ticket │ slot     0 ──●──●────●─▲─●──●──●───── 2^24 ─▶ 0      ▲ the caller's ticket: these three, not the others
//! ```

use std::collections::BTreeSet;

use castgate_wire::registry::{EntryType, Protocol};

use super::entry::Key;
use super::slab::Slot;

/// What a QUERY tells apart: databases, and servers by protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    Database,
    Udp,
    Tcp,
    Amt,
    /// Servers of protocols that we do not know, all of them.
    Other,
}

impl Kind {
    pub(super) fn of(key: &Key) -> Self {
        match (key.entry_type, &key.protocol) {
            (EntryType::TunnelDatabase, _) => Self::Database,
            (EntryType::TunnelServer, protocol) => Self::of_protocol(protocol),
        }
    }

    pub(super) fn of_protocol(protocol: &Protocol) -> Self {
        match protocol {
            Protocol::Udp => Self::Udp,
            Protocol::Tcp => Self::Tcp,
            Protocol::Amt => Self::Amt,
            Protocol::Unknown(_) => Self::Other,
        }
    }
}

/// Where an entry or a caller stands on the ring: 24 bits of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u32);

const TICKET_BITS: u32 = 24;

impl Ticket {
    pub(super) fn new(hash: u32) -> Self {
        Self(hash >> (u32::BITS - TICKET_BITS))
    }
}

/// An entry in a bag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member(u64);

impl Member {
    pub(super) fn new(kind: Kind, Ticket(ticket): Ticket, slot: Slot) -> Self {
        Self(u64::from(kind as u8) << 56 | u64::from(ticket) << 32 | u64::from(slot))
    }

    pub(super) fn slot(self) -> Slot {
        Slot::try_from(self.0 & 0xffff_ffff).expect("32 bits")
    }

    /// How far behind a caller's ticket it comes, the slot deciding between equal tickets.
    pub(super) fn distance(self, Ticket(start): Ticket) -> u64 {
        let all = (1 << (TICKET_BITS + 32)) - 1;
        self.0.wrapping_sub(u64::from(start) << 32) & all
    }
}

/// Members in the order of their kind, and of the ring within.
#[derive(Debug, Default)]
pub(super) struct Bag(BTreeSet<Member>);

impl Bag {
    pub(super) fn insert(&mut self, member: Member) {
        self.0.insert(member);
    }

    pub(super) fn remove(&mut self, member: Member) {
        self.0.remove(&member);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The only one.
    pub(super) fn single(&self) -> Option<Member> {
        self.0.first().copied().filter(|_| self.0.len() == 1)
    }

    /// All of a kind, once around the ring from the caller's ticket on.
    pub(super) fn of_kind(&self, kind: Kind, start: Ticket) -> impl Iterator<Item = Member> {
        let first = Member::new(kind, Ticket(0), 0);
        let middle = Member::new(kind, start, 0);
        let end = Member((u64::from(kind as u8) + 1) << 56);
        self.0.range(middle..end).chain(self.0.range(first..middle)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_walks_once_around_the_ring_of_one_kind() {
        let mut bag = Bag::default();
        let member = |kind, ticket: u32, slot| Member::new(kind, Ticket::new(ticket << 8), slot);
        for (kind, ticket, slot) in
            [(Kind::Udp, 5, 1), (Kind::Udp, 5, 0), (Kind::Udp, 9, 2), (Kind::Udp, 0x00ff_ffff, 3), (Kind::Tcp, 7, 4)]
        {
            bag.insert(member(kind, ticket, slot));
        }
        let walk = |kind, start: u32| -> Vec<Slot> {
            let start = Ticket::new(start << 8);
            let found: Vec<Member> = bag.of_kind(kind, start).collect();
            assert!(found.is_sorted_by_key(|member| member.distance(start)));
            found.into_iter().map(Member::slot).collect()
        };
        assert_eq!(walk(Kind::Udp, 0), [0, 1, 2, 3]);
        assert_eq!(walk(Kind::Udp, 6), [2, 3, 0, 1]);
        assert_eq!(walk(Kind::Udp, 0x00ff_ffff), [3, 0, 1, 2]);
        assert_eq!(walk(Kind::Tcp, 0), [4]);
        assert!(walk(Kind::Database, 0).is_empty() && walk(Kind::Other, 0).is_empty());
    }
}
