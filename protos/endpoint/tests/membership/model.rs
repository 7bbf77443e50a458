//! The reference model: what every host wants, as lists. No counts, no timers, nothing incremental.
//!
//! A relay that takes in from the network what this model says, and forwards to each tunnel what that tunnel wants, is right.

use castgate_endpoint::membership::Filter;
use std::collections::BTreeMap;
use std::net::IpAddr;

#[derive(Debug, Clone)]
pub struct Model<H> {
    wants: BTreeMap<(IpAddr, H), Filter>,
}

impl<H: Ord + Clone> Model<H> {
    pub fn new() -> Self {
        Self { wants: BTreeMap::new() }
    }

    pub fn set(&mut self, host: H, group: IpAddr, filter: &Filter) {
        self.wants.insert((group, host), filter.clone());
    }

    fn of(&self, group: IpAddr) -> impl Iterator<Item = &Filter> {
        self.wants.iter().filter(move |((wanted, _), _)| *wanted == group).map(|(_, filter)| filter)
    }

    /// Whether anybody wants packets of the source.
    pub fn admits(&self, group: IpAddr, source: IpAddr) -> bool {
        self.of(group).any(|filter| filter.admits(source))
    }

    /// Whether anybody wants all sources but some.
    pub fn excludes(&self, group: IpAddr) -> bool {
        self.of(group).any(Filter::is_exclude)
    }

    pub fn is_wanted(&self, group: IpAddr) -> bool {
        self.of(group).any(|filter| !filter.is_nothing())
    }

    /// Holds a filter against the model, source by source, and one source that nobody has named.
    #[track_caller]
    pub fn assert_equals(&self, group: IpAddr, filter: Option<&Filter>, about: &str) {
        assert_eq!(filter.is_some(), self.is_wanted(group), "{about}: {group} {filter:?}");
        let Some(filter) = filter else { return };
        assert_eq!(filter.is_exclude(), self.excludes(group), "{about}: {group} {filter}");
        let stranger =
            if group.is_ipv4() { IpAddr::from([203, 0, 113, 99]) } else { "2001:db8:99::1".parse().unwrap() };
        let named = self.of(group).flat_map(Filter::sources).chain(filter.sources());
        for source in named.copied().chain([stranger]) {
            assert_eq!(filter.admits(source), self.admits(group, source), "{about}: {source} of {group}, {filter}");
        }
    }
}
