//! What the server tells the registrar of one agent: whom a relay takes its channels from.
//!
//! ```text
//!   server ──chain (the server above in use, and who feeds that one)──▶ registrar ──FEDBY──▶ databases
//! ```
//! Whoever is in the chain is told of this relay with it, and does not take its own channels back
//! (`castgate_endpoint::hierarchy::feed`).

use std::net::IpAddr;

use tokio::sync::watch;

use crate::news::tell;

/// Clones are the same board.
#[derive(Debug, Clone)]
pub struct Feeding(watch::Sender<Vec<IpAddr>>);

impl Default for Feeding {
    /// Nobody feeds us, or nobody knows.
    fn default() -> Self {
        Self(watch::Sender::new(Vec::new()))
    }
}

impl Feeding {
    /// The server: this is the chain now; empty when nobody feeds it.
    pub fn set(&self, chain: Vec<IpAddr>) {
        tell(&self.0, chain);
    }

    /// The registrar: what to announce.
    #[must_use]
    pub fn chain(&self) -> watch::Receiver<Vec<IpAddr>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_that_is_said_twice_is_news_once() {
        let board = Feeding::default();
        let mut chain = board.chain();
        assert!(chain.borrow_and_update().is_empty());
        let above = IpAddr::from([192, 0, 2, 1]);
        board.clone().set(vec![above]);
        assert!(chain.has_changed().unwrap());
        assert_eq!(*chain.borrow_and_update(), [above]);
        board.set(vec![above]);
        assert!(!chain.has_changed().unwrap());
    }
}
