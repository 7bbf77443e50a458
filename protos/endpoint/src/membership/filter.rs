//! What is wanted of one group: a filter mode and a list of sources (RFC 3376 §2).

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// A filter mode and its sources.
///
/// The order is that of the variants and then of the lists; it means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Filter {
    /// From these sources only. The empty list wants nothing.
    Include(BTreeSet<IpAddr>),
    /// From all sources but these. The empty list wants everything, as an `IGMPv2` join does.
    Exclude(BTreeSet<IpAddr>),
}

impl Filter {
    /// INCLUDE {}: the state of a group that was never joined (RFC 3376 §5.1).
    #[must_use]
    pub const fn nothing() -> Self {
        Self::Include(BTreeSet::new())
    }

    /// EXCLUDE {}: any source.
    #[must_use]
    pub const fn everything() -> Self {
        Self::Exclude(BTreeSet::new())
    }

    /// INCLUDE of these sources.
    pub fn include(sources: impl IntoIterator<Item = IpAddr>) -> Self {
        Self::Include(sources.into_iter().collect())
    }

    /// EXCLUDE of these sources.
    pub fn exclude(sources: impl IntoIterator<Item = IpAddr>) -> Self {
        Self::Exclude(sources.into_iter().collect())
    }

    /// The sources that are named, wanted or not.
    #[must_use]
    pub const fn sources(&self) -> &BTreeSet<IpAddr> {
        match self {
            Self::Include(sources) | Self::Exclude(sources) => sources,
        }
    }

    /// Whether the mode is EXCLUDE.
    #[must_use]
    pub const fn is_exclude(&self) -> bool {
        matches!(self, Self::Exclude(_))
    }

    /// Whether no source at all is wanted, which is the same as not being a member.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Include(sources) if sources.is_empty())
    }

    /// Whether packets of `source` are wanted.
    #[must_use]
    pub fn admits(&self, source: IpAddr) -> bool {
        match self {
            Self::Include(sources) => sources.contains(&source),
            Self::Exclude(sources) => !sources.contains(&source),
        }
    }

    /// The least filter that admits what either admits (RFC 3376 §3.2).
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Include(a), Self::Include(b)) => Self::Include(a | b),
            (Self::Exclude(a), Self::Exclude(b)) => Self::Exclude(a & b),
            (Self::Exclude(excluded), Self::Include(included)) | (Self::Include(included), Self::Exclude(excluded)) => {
                Self::Exclude(excluded - included)
            }
        }
    }

    /// This filter, or EXCLUDE {} when it excludes more than `limit_exclude` sources.
    ///
    /// A kernel takes ten sources for a group and socket, and what is excluded cannot be spread over sockets: two EXCLUDE lists
    /// intersect, so that the second socket would let in what the first keeps out. Too much is then taken in from the network,
    /// and each receiver is given only what his own filter admits. INCLUDE lists can be spread and stay as they are.
    #[must_use]
    pub fn within(self, limit_exclude: usize) -> Self {
        match self {
            Self::Exclude(sources) if sources.len() > limit_exclude => Self::everything(),
            Self::Include(_) | Self::Exclude(_) => self,
        }
    }

    /// This filter, or `None` when it wants nothing.
    #[must_use]
    pub fn into_option(self) -> Option<Self> {
        (!self.is_nothing()).then_some(self)
    }
}

impl Default for Filter {
    /// [`Filter::nothing`].
    fn default() -> Self {
        Self::nothing()
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_exclude() { "EXCLUDE {" } else { "INCLUDE {" })?;
        for (place, source) in self.sources().iter().enumerate() {
            write!(f, "{}{source}", if place == 0 { "" } else { ", " })?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(letters: &str) -> impl Iterator<Item = IpAddr> {
        letters.bytes().map(|letter| IpAddr::from([192, 0, 2, letter]))
    }

    #[test]
    fn the_examples_of_rfc_3376_merge_as_the_rfc_says() {
        let excluding = Filter::exclude(list("abcd")).merge(&Filter::exclude(list("bcde")));
        let merged = excluding.merge(&Filter::include(list("def")));
        assert_eq!(merged, Filter::exclude(list("bc")));
        assert_eq!(merged.merge(&Filter::everything()), Filter::everything());
        let including = Filter::include(list("abc")).merge(&Filter::include(list("bcd")));
        assert_eq!(including.merge(&Filter::include(list("ef"))), Filter::include(list("abcdef")));
    }

    #[test]
    fn a_filter_admits_what_it_includes_or_does_not_exclude() {
        let [a, b] = [b'a', b'b'].map(|letter| IpAddr::from([192, 0, 2, letter]));
        assert!(Filter::include([a]).admits(a) && !Filter::include([a]).admits(b));
        assert!(!Filter::exclude([a]).admits(a) && Filter::exclude([a]).admits(b));
        assert!(Filter::default().is_nothing() && !Filter::everything().is_nothing());
        assert_eq!(Filter::nothing().into_option(), None);
    }

    #[test]
    fn a_long_exclude_list_becomes_everything_and_a_long_include_list_stays() {
        let eleven = || (0..11).map(|low| IpAddr::from([192, 0, 2, low]));
        assert_eq!(Filter::exclude(eleven()).within(10), Filter::everything());
        assert_eq!(Filter::exclude(eleven().take(10)).within(10), Filter::exclude(eleven().take(10)));
        assert_eq!(Filter::include(eleven()).within(10), Filter::include(eleven()));
    }

    #[test]
    fn a_filter_reads_as_the_rfc_writes_it() {
        assert_eq!(Filter::include(list("ab")).to_string(), "INCLUDE {192.0.2.97, 192.0.2.98}");
        assert_eq!(Filter::everything().to_string(), "EXCLUDE {}");
    }
}
