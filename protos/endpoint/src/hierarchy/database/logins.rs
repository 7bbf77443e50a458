//! Whose entries these are, and how many of them: each login once, however many entries it has.

use std::collections::HashMap;
use std::sync::Arc;

use super::slab::{Slab, Slot};

/// The number of a login for as long as it has entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LoginId(Slot);

/// What an account holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) entries: usize,
    pub(super) networks: usize,
}

/// Logins with entries.
#[derive(Debug, Default)]
pub(super) struct Logins {
    by_name: HashMap<Arc<str>, LoginId>,
    logins: Slab<(Arc<str>, Usage)>,
}

impl Logins {
    /// Another entry of this login, with so many networks.
    pub(super) fn take(&mut self, name: &str, networks: usize) -> LoginId {
        let id = self.id(name).unwrap_or_else(|| {
            let shared: Arc<str> = name.into();
            let id = LoginId(self.logins.insert((shared.clone(), Usage::default())));
            self.by_name.insert(shared, id);
            id
        });
        let (_, usage) = &mut self.logins[id.0];
        usage.entries += 1;
        usage.networks += networks;
        id
    }

    /// An entry less; a login without entries is forgotten.
    pub(super) fn give_back(&mut self, id: LoginId, networks: usize) {
        let (name, usage) = &mut self.logins[id.0];
        usage.entries -= 1;
        usage.networks -= networks;
        if usage.entries == 0 {
            self.by_name.remove(&*name.clone());
            self.logins.remove(id.0);
        }
    }

    pub(super) fn id(&self, name: &str) -> Option<LoginId> {
        self.by_name.get(name).copied()
    }

    pub(super) fn name(&self, id: LoginId) -> &Arc<str> {
        &self.logins[id.0].0
    }

    pub(super) fn usage(&self, name: &str) -> Usage {
        self.id(name).map(|id| self.logins[id.0].1).unwrap_or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LoginId, &str)> {
        self.logins.iter().map(|(slot, (name, _))| (LoginId(slot), &**name))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.logins.len() == 0
    }
}
