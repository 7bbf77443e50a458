//! Which sources of a group are wanted: a filter of RFC 3376 §3.2 in the form in which a packet is compared with it.

use std::net::IpAddr;
use std::sync::Arc;

/// The sources of one group that somebody wants. The lists are sorted, without doubles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceFilter {
    /// These and no others.
    Include(Arc<[IpAddr]>),
    /// All but these.
    Exclude(Arc<[IpAddr]>),
}

impl SourceFilter {
    /// These sources and no others.
    pub fn include(sources: impl IntoIterator<Item = IpAddr>) -> Self {
        Self::Include(sorted(sources))
    }

    /// All sources but these.
    pub fn exclude(sources: impl IntoIterator<Item = IpAddr>) -> Self {
        Self::Exclude(sorted(sources))
    }

    /// Whether packets of `source` are wanted.
    #[must_use]
    pub fn admits(&self, source: IpAddr) -> bool {
        match self {
            Self::Include(sources) => sources.binary_search(&source).is_ok(),
            Self::Exclude(sources) => sources.binary_search(&source).is_err(),
        }
    }

    /// Whether nothing is wanted.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Include(sources) if sources.is_empty())
    }
}

fn sorted(sources: impl IntoIterator<Item = IpAddr>) -> Arc<[IpAddr]> {
    let mut sources: Vec<IpAddr> = sources.into_iter().collect();
    sources.sort_unstable();
    sources.dedup();
    sources.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_admits_what_its_mode_says() {
        let [a, b, c] = [1, 2, 3].map(|last| IpAddr::from([192, 0, 2, last]));
        let include = SourceFilter::include([b, a, b]);
        assert_eq!(include, SourceFilter::Include([a, b].into()));
        assert!(include.admits(a) && include.admits(b) && !include.admits(c));
        let exclude = SourceFilter::exclude([b]);
        assert!(exclude.admits(a) && !exclude.admits(b) && exclude.admits(c));
        assert!(SourceFilter::include([]).is_nothing() && !SourceFilter::exclude([]).is_nothing());
        assert!(SourceFilter::exclude([]).admits(a) && !SourceFilter::include([]).admits(a));
    }
}
