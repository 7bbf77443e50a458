//! What the registrar and the database of one agent tell each other: who the peers are, and that their entries are here.
//!
//! ```text
//!   registrar ──peers (found on the way down from the roots)──▶ database
//!             ◀──synchronised (Region Transfer is done)─────────
//!             ◀──ready (the store that it shares was read)──────
//! ```
//! A database that has peers holds their entries before it is announced, so that it is never asked while empty
//! (draft-liefooghe-castgate-02 §4.1.2).

use castgate_endpoint::hierarchy::address::DatabaseAddress;
use tokio::sync::watch;

use crate::news::tell;

/// Clones are the same board.
#[derive(Debug, Clone)]
pub struct Peering {
    peers: watch::Sender<Vec<DatabaseAddress>>,
    searching: watch::Sender<bool>,
    synchronised: watch::Sender<bool>,
    ready: watch::Sender<bool>,
}

impl Default for Peering {
    /// No peers, and so nothing to wait for.
    fn default() -> Self {
        Self {
            peers: watch::Sender::new(Vec::new()),
            searching: watch::Sender::new(false),
            synchronised: watch::Sender::new(true),
            ready: watch::Sender::new(true),
        }
    }
}

impl Peering {
    /// A registrar is about to find out who the peers are; until then the database does not know whether it has some.
    pub fn search(&self) {
        self.searching.send_replace(true);
    }

    /// The database: whether somebody finds out who the peers are.
    #[must_use]
    pub fn searching(&self) -> watch::Receiver<bool> {
        self.searching.subscribe()
    }

    /// The registrar: these are the peers that were found. The database is not synchronised with other ones until it says so,
    /// after each such call; without any there is nothing to wait for.
    pub fn set_peers(&self, peers: Vec<DatabaseAddress>) {
        // Before the peers are out: what the database says of them comes after it.
        if *self.peers.borrow() != peers {
            self.set_synchronised(peers.is_empty());
        }
        tell(&self.peers, peers);
        tell(&self.searching, false);
    }

    /// The database: whom to transfer from.
    #[must_use]
    pub fn peers(&self) -> watch::Receiver<Vec<DatabaseAddress>> {
        self.peers.subscribe()
    }

    /// The database: whether it holds what its peers hold.
    pub fn set_synchronised(&self, synchronised: bool) {
        tell(&self.synchronised, synchronised);
    }

    /// The database: whether it can answer at all.
    pub fn set_ready(&self, ready: bool) {
        tell(&self.ready, ready);
    }

    /// The registrar: whether there is anything to announce. Until then nobody is told anything.
    #[must_use]
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// The registrar: whether the database may be announced.
    #[must_use]
    pub fn synchronised(&self) -> watch::Receiver<bool> {
        self.synchronised.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_twice_is_news_once() {
        let board = Peering::default();
        let (mut peers, mut synchronised) = (board.peers(), board.synchronised());
        assert!(*synchronised.borrow_and_update(), "without peers there is nothing to wait for");
        let peer: DatabaseAddress = "https://192.0.2.1".parse().unwrap();
        board.clone().set_peers(vec![peer.clone()]);
        assert!(peers.has_changed().unwrap());
        assert_eq!(*peers.borrow_and_update(), std::slice::from_ref(&peer));
        assert!(!*synchronised.borrow_and_update(), "what was said before was not said of this peer");
        board.set_peers(vec![peer.clone()]);
        assert!(!peers.has_changed().unwrap());
        board.set_synchronised(true);
        board.set_peers(vec![peer]);
        assert!(*synchronised.borrow_and_update(), "the same peers are as synchronised as before");
        board.set_synchronised(false);
        assert!(synchronised.has_changed().unwrap() && !*synchronised.borrow_and_update());
        board.set_synchronised(false);
        assert!(!synchronised.has_changed().unwrap());
        board.set_peers(Vec::new());
        assert!(*synchronised.borrow(), "there is nobody left to wait for");
    }
}
