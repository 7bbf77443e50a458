//! Which groups and sources may cross the tunnels.

use ipnet::IpNet;
use std::net::IpAddr;

/// One rule that lets a gateway have groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// The groups.
    pub groups: IpNet,
    /// The sources that may be asked for.
    pub sources: Sources,
}

/// Which sources a [`Permit`] lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sources {
    /// The group with any source, and with each single one.
    Any,
    /// Single sources within this network only.
    Within(IpNet),
}

impl Permit {
    /// Whether this rule speaks of the group with this source, or with any when there is none.
    #[must_use]
    pub fn covers(&self, group: IpAddr, source: Option<IpAddr>) -> bool {
        self.groups.contains(&group)
            && match (self.sources, source) {
                (Sources::Any, _) => true,
                (Sources::Within(net), Some(source)) => net.contains(&source),
                (Sources::Within(_), None) => false,
            }
    }
}

/// All rules together. Without a rule nothing is permitted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permissions(pub Vec<Permit>);

impl Permissions {
    /// Whether a gateway may have the group with this source, or with any when there is none.
    #[must_use]
    pub fn allow(&self, group: IpAddr, source: Option<IpAddr>) -> bool {
        self.0.iter().any(|permit| permit.covers(group, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(permits: &[(&str, Option<&str>)], group: &str, source: Option<&str>) -> bool {
        let permit = |(groups, sources): &(&str, Option<&str>)| Permit {
            groups: groups.parse().unwrap(),
            sources: sources.map_or(Sources::Any, |net| Sources::Within(net.parse().unwrap())),
        };
        let permissions = Permissions(permits.iter().map(permit).collect());
        permissions.allow(group.parse().unwrap(), source.map(|source| source.parse().unwrap()))
    }

    #[test]
    fn without_a_rule_nothing_is_permitted() {
        assert!(!allowed(&[], "239.1.2.3", None));
    }

    #[test]
    fn a_rule_for_a_source_permits_neither_another_source_nor_any() {
        let rules = [("232.1.2.0/24", Some("192.0.2.10/32")), ("ff3e::/32", Some("2001:db8::/64"))];
        assert!(allowed(&rules, "232.1.2.3", Some("192.0.2.10")));
        assert!(!allowed(&rules, "232.1.2.3", Some("192.0.2.11")));
        assert!(!allowed(&rules, "232.1.2.3", None));
        assert!(!allowed(&rules, "232.1.3.3", Some("192.0.2.10")));
        assert!(allowed(&rules, "ff3e::8000:d", Some("2001:db8::a")));
        assert!(!allowed(&rules, "ff3e::8000:d", Some("2001:db8:1::a")));
        assert!(!allowed(&rules, "ff3e:1::1", Some("2001:db8::a")));
    }

    #[test]
    fn a_rule_for_any_source_permits_each() {
        assert!(allowed(&[("239.0.0.0/8", None)], "239.1.2.3", None));
        assert!(allowed(&[("239.0.0.0/8", None)], "239.1.2.3", Some("192.0.2.10")));
    }
}
