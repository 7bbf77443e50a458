//! Autonomous Systems whose networks an account may claim, and the route table that says which those are.

use std::fmt;
use std::sync::Arc;

use castgate_wire::registry::Prefix;

use crate::hierarchy::policy::RouteTable;

/// The Autonomous Systems of an account. Without a table nobody knows their networks, and it may claim none of them.
#[derive(Clone, Default)]
pub struct Systems {
    asns: Vec<u32>,
    routes: Option<Arc<RouteTable>>,
}

impl Systems {
    /// These, with the networks that a table gives them. Of no systems no table is kept.
    #[must_use]
    pub fn new(asns: Vec<u32>, routes: Option<Arc<RouteTable>>) -> Self {
        let routes = routes.filter(|_| !asns.is_empty());
        Self { asns, routes }
    }

    /// Their numbers.
    #[must_use]
    pub fn asns(&self) -> &[u32] {
        &self.asns
    }

    /// Whether another one has the very same table: one that was read again may say something else.
    pub(super) fn has_table_of(&self, other: &Self) -> bool {
        match (&self.routes, &other.routes) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// Whether a network is theirs.
    pub(super) fn have(&self, network: &Prefix) -> bool {
        !self.asns.is_empty() && self.routes.as_ref().is_some_and(|routes| routes.gives(*network, &self.asns))
    }

    /// Whose a network is instead.
    pub(super) fn owner(&self, network: &Prefix) -> Option<u32> {
        self.routes.as_ref()?.asn_of_network(*network)
    }
}

impl PartialEq for Systems {
    fn eq(&self, other: &Self) -> bool {
        self.asns == other.asns && self.has_table_of(other)
    }
}

impl Eq for Systems {}

/// A table of the whole Internet is not for logs.
impl fmt::Debug for Systems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefixes = self.routes.as_ref().map(|routes| routes.len());
        f.debug_struct("Systems").field("asns", &self.asns).field("prefixes", &prefixes).finish()
    }
}
