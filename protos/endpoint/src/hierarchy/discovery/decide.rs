//! From the way down to what is done at its end (draft-liefooghe-castgate-02 §4.1.2, §4.1.3).
//!
//! Owns the decision and nothing else. Lengths are compared along one path for one range, so an equal length is an equal range.
//!
//! ```text
//!   last step K found by             transfer from      register with
//!   ───────────────────────────────  ─────────────────  ─────────────────────────────
//!   nothing: K is the roots          –                  K
//!   a network of another length      –                  K
//!   our very range, K-1 as well      K   (we are inner) K-1
//!                                    K-1 (we are outer) K-2
//!   our very range                   K                  K-1
//!     and we are its customer        –                  K
//!   a country, and we have a range   –                  K
//!   a country, and so are we         K                  K-1
//! ```

use castgate_wire::registry::EntryType;

use super::{Member, PathStep, Role, Subject};

/// What to do at the end of a way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Register with every one of these.
    pub register: Vec<Member>,
    /// The step of the path that they are; its own parents are the step before.
    pub step: usize,
    /// Before that, take the entries of one of these: they are our peers. Empty: there is nothing to take.
    pub transfer: Vec<Member>,
}

/// Decides where to register and whom to transfer from.
///
/// `path` begins with the roots. What cannot be above us, and everything below it, does not count. Without any step there is
/// nobody to register with.
///
/// # Source
/// draft-liefooghe-castgate-02 §4.1.2 (databases), §4.1.3 (servers), and for what they leave out the castgate UMTP notes.
#[must_use]
pub fn decide(path: &[PathStep], subject: &Subject) -> Decision {
    let is_above = |step: &PathStep| step.matched.is_none_or(|matched| subject.is_above(matched));
    let above = path.iter().take_while(|step| is_above(step)).count();
    let path = &path[..above];
    let Some(last) = path.len().checked_sub(1) else { return Decision::default() };
    let matched = |step: usize| path.get(step).and_then(|step| step.matched);
    let register_only = (last, None);
    let peers_of = |peers: usize| (peers.saturating_sub(1), Some(peers));

    let is_database = subject.entry_type == EntryType::TunnelDatabase;
    let (step, transfer) = match matched(last) {
        Some(0) if is_database && subject.range_len().is_none() => peers_of(last),
        // Somebody is responsible for exactly this range.
        Some(length) if is_database && subject.range_len() == Some(length) => {
            let is_inside = is_inside(subject);
            // Without a step before it there is no other one with the same range.
            let is_there_twice = last > 0 && matched(last - 1) == Some(length);
            if is_there_twice && !is_inside {
                // An ISP and its customer, the customer below the ISP; we are the ISP.
                peers_of(last - 1)
            } else if !is_there_twice && is_inside && subject.role == Role::Customer {
                register_only
            } else {
                peers_of(last)
            }
        }
        // The roots that know nobody, a wider network, or the country of our network. A server registers wherever its way ends and
        // has nothing to take over (§4.1.3).
        None | Some(_) => register_only,
    };
    let others = |step: usize| {
        let members = path[step].members.iter().filter(|member| !subject.is_ours(member.address));
        members.cloned().collect::<Vec<_>>()
    };
    let transfer = transfer.map(others).unwrap_or_default();
    Decision { register: others(step), step, transfer }
}

/// Whether one of our own addresses is in the range: then we are the one who lives there, not the one who provides it.
fn is_inside(subject: &Subject) -> bool {
    subject.range.is_some_and(|range| subject.own.iter().any(|own| range.contains(&own.ip())))
}

#[cfg(test)]
mod tests;
