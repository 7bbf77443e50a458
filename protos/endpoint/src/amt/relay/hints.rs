//! Which gateways take no flags: what the Linux driver shows of itself before it is a member of anything.
//!
//! The driver drops every Query with one of the low six bits set in its flags, L and G among them, and asks again two seconds
//! later with a new nonce. It also has the P flag at 0x80. Either makes us leave the flags away, for that address and port.

use super::super::table::Table;
use castgate_wire::amt::{Nonce, RequestFlags};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What is remembered of one address and port.
#[derive(Debug, Clone, Copy)]
struct Hint {
    /// Its Queries carry neither L nor G.
    is_plain: bool,
    /// It has sent an Update: it understood a Query as it was.
    has_updated: bool,
    /// The last nonce of each family, and when it was new.
    last: [Option<(Nonce, Instant)>; 2],
    touched_at: Instant,
}

impl Hint {
    /// What remembering this one is worth, in ascending order.
    fn weight(&self) -> (bool, bool, Instant) {
        (self.is_plain, self.has_updated, self.touched_at)
    }
}

/// A bounded table of hints.
#[derive(Debug)]
pub(super) struct Hints(Table<SocketAddr, Hint>);

impl Hints {
    pub(super) fn new(key: [u8; 16], entries: usize) -> Self {
        Self(Table::new(key, entries))
    }

    /// How many there is room for.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn hint(&mut self, remote: SocketAddr, now: Instant) -> &mut Hint {
        let fresh = Hint { is_plain: false, has_updated: false, last: [None; 2], touched_at: now };
        let hint = self.0.entry(remote, Hint::weight, || fresh);
        hint.touched_at = now;
        hint
    }

    /// A Request of `remote`; true when its Query must be without flags.
    ///
    /// A gateway of the RFC repeats a nonce when it was not heard, and takes a new one a query interval later. One that takes a
    /// new one within `window`, again and again without an Update, has not understood what it got.
    pub(super) fn request(
        &mut self,
        now: Instant,
        window: Duration,
        remote: SocketAddr,
        flags: RequestFlags,
        nonce: Nonce,
    ) -> bool {
        let hint = self.hint(remote, now);
        let last = &mut hint.last[usize::from(flags.mld())];
        let is_new = last.is_none_or(|(before, _)| before != nonce);
        let is_soon = last.is_some_and(|(_, at)| now.saturating_duration_since(at) < window);
        if is_new {
            *last = Some((nonce, now));
        }
        hint.is_plain |= flags.is_linux() || (is_new && is_soon && !hint.has_updated);
        hint.is_plain
    }

    /// A valid Update of `remote`; true when it is one of those that take no flags.
    pub(super) fn update(&mut self, now: Instant, remote: SocketAddr) -> bool {
        let hint = self.hint(remote, now);
        hint.has_updated = true;
        hint.is_plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);
    const IGMP: RequestFlags = RequestFlags(0);
    const MLD: RequestFlags = RequestFlags(1);

    struct Lab {
        hints: Hints,
        now: Instant,
    }

    impl Lab {
        fn new() -> Self {
            Self { hints: Hints::new([1; 16], 64), now: Instant::now() }
        }

        fn request(&mut self, flags: RequestFlags, nonce: u32) -> bool {
            self.hints.request(self.now, WINDOW, gateway(1), flags, Nonce(nonce))
        }
    }

    fn gateway(port: u16) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 1], port))
    }

    #[test]
    fn a_request_with_the_flag_of_linux_makes_an_address_plain_for_good() {
        let mut lab = Lab::new();
        assert!(!lab.request(IGMP, 1));
        assert!(lab.request(RequestFlags(0x80), 1));
        lab.now += Duration::from_hours(1);
        assert!(lab.request(IGMP, 2));
        assert!(lab.hints.update(lab.now, gateway(1)));
        assert!(!lab.hints.update(lab.now, gateway(2)), "another port is another gateway");
    }

    #[test]
    fn a_new_nonce_soon_after_the_last_without_an_update_makes_an_address_plain() {
        let mut lab = Lab::new();
        assert!(!lab.request(IGMP, 1));
        lab.now += Duration::from_secs(2);
        assert!(lab.request(IGMP, 2));
    }

    #[test]
    fn retransmissions_both_families_and_refreshes_are_no_sign() {
        let mut lab = Lab::new();
        for nonce in (0..20).step_by(2) {
            assert!(!lab.request(IGMP, nonce));
            assert!(!lab.request(MLD, nonce + 1));
            lab.now += Duration::from_secs(1);
            assert!(!lab.request(IGMP, nonce), "a retransmission");
            assert!(!lab.request(MLD, nonce + 1), "a retransmission");
            lab.now += Duration::from_secs(125);
        }
    }

    #[test]
    fn whoever_has_sent_an_update_may_ask_as_often_as_it_likes() {
        let mut lab = Lab::new();
        assert!(!lab.request(IGMP, 0));
        lab.hints.update(lab.now, gateway(1));
        assert!((1..100).all(|nonce| !lab.request(IGMP, nonce)));
    }

    #[test]
    fn a_flood_does_not_wash_hints_away() {
        let mut lab = Lab::new();
        lab.request(RequestFlags(0x80), 1);
        for port in 2..50_000 {
            lab.now += Duration::from_millis(1);
            lab.hints.request(lab.now, WINDOW, gateway(port), IGMP, Nonce(1));
        }
        assert!(lab.request(IGMP, 2));
        assert_eq!(lab.hints.0.len(), 64);
    }
}
