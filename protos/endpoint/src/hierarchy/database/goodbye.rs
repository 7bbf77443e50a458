//! Who said BYE of late: a peer that has not heard of it does not bring the entry back.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use castgate_wire::registry::{Bye, EntryType, Protocol};

use super::entry::Key;

/// Remembered at one time. A fleet of a hundred thousand servers that all leave within two intervals leaves a third of them to the
/// memory of the peers, which got the same BYEs.
const GOODBYES_MAX: usize = 65_536;

type Place = (IpAddr, u16);

/// What was said, until when it is remembered.
#[derive(Debug)]
struct Goodbye {
    login: Box<str>,
    entry_type: Option<EntryType>,
    protocol: Option<Protocol>,
    until: u64,
}

/// Goodbyes by place, and in the order in which they are forgotten.
#[derive(Debug, Default)]
pub(super) struct Goodbyes {
    by_place: HashMap<Place, Vec<Goodbye>>,
    order: VecDeque<(u64, Place)>,
}

impl Goodbyes {
    /// Remembers a BYE until then. `now` and `until` grow from call to call, unless the interval changes.
    pub(super) fn remember(&mut self, now: u64, until: u64, login: &str, bye: &Bye) {
        let Bye { source, port, entry_type, protocol, strict: _ } = bye;
        while let Some((until, place)) = self.order.front().copied()
            && (until <= now || self.order.len() >= GOODBYES_MAX)
        {
            self.order.pop_front();
            if let Some(goodbyes) = self.by_place.get_mut(&place) {
                goodbyes.retain(|goodbye| goodbye.until > until);
                if goodbyes.is_empty() {
                    self.by_place.remove(&place);
                }
            }
        }
        let place = (*source, *port);
        let goodbyes = self.by_place.entry(place).or_default();
        goodbyes.retain(|known| (&*known.login, known.entry_type, &known.protocol) != (login, *entry_type, protocol));
        goodbyes.push(Goodbye { login: login.into(), entry_type: *entry_type, protocol: protocol.clone(), until });
        self.order.push_back((until, place));
    }

    /// Whether the entry of this login said BYE.
    pub(super) fn cover(&self, now: u64, login: &str, key: &Key) -> bool {
        let goodbyes = self.by_place.get(&(key.source, key.port)).map(Vec::as_slice).unwrap_or_default();
        goodbyes.iter().any(|Goodbye { login: by, entry_type, protocol, until }| {
            *until > now && **by == *login && covers(*entry_type, protocol.as_ref(), key)
        })
    }
}

fn covers(entry_type: Option<EntryType>, protocol: Option<&Protocol>, key: &Key) -> bool {
    entry_type.is_none_or(|wanted| wanted == key.entry_type) && protocol.is_none_or(|wanted| *wanted == key.protocol)
}

/// Whether a BYE is about this entry.
pub(super) fn matches(bye: &Bye, key: &Key) -> bool {
    (bye.source, bye.port) == (key.source, key.port) && covers(bye.entry_type, bye.protocol.as_ref(), key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goodbye_is_remembered_for_its_time_and_their_number_is_bounded() {
        let mut goodbyes = Goodbyes::default();
        let bye =
            |port| Bye { source: IpAddr::from([10, 0, 0, 1]), port, entry_type: None, protocol: None, strict: false };
        let key = |port| Key {
            entry_type: EntryType::TunnelServer,
            source: IpAddr::from([10, 0, 0, 1]),
            port,
            protocol: Protocol::Udp,
        };
        goodbyes.remember(0, 600, "be", &bye(1));
        assert!(goodbyes.cover(599, "be", &key(1)) && !goodbyes.cover(600, "be", &key(1)));
        assert!(!goodbyes.cover(0, "fr", &key(1)) && !goodbyes.cover(0, "be", &key(2)));
        goodbyes.remember(300, 900, "be", &bye(1));
        goodbyes.remember(700, 1_300, "be", &bye(2));
        assert!(goodbyes.cover(700, "be", &key(1)), "said again, remembered longer");
        goodbyes.remember(2_000, 2_600, "be", &bye(3));
        assert_eq!((goodbyes.by_place.len(), goodbyes.order.len()), (1, 1), "what has passed is forgotten");
        for _ in 0..2 {
            (0..u16::MAX).for_each(|port| goodbyes.remember(2_000, 2_600, "be", &bye(port)));
        }
        assert!(goodbyes.order.len() <= GOODBYES_MAX);
        assert!(goodbyes.by_place.values().map(Vec::len).sum::<usize>() <= GOODBYES_MAX);
        assert!(goodbyes.cover(2_000, "be", &key(u16::MAX - 1)));
    }
}
